//! How the ranks of a training begin: all with the same settings and data, and with rank 0's weights.

use burn::lr_scheduler::LrSchedulerRecord;
use burn::module::Module;
use burn::optim::OptimizerRecord;
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::Bytes;
use pgm_data::{DataFolder, Split, TokenRows};
use serde_json::{Value, json};

use super::checkpoint::StoredAverage;
use super::loop_model::LoopModel;
use super::resume::{LoopStart, RunIdentity, first_changed_setting};
use crate::TrainError;
use crate::config::RunConfig;
use crate::world::World;

/// Refuses ranks that were started with another program, configuration or data than rank 0, and a step that does not divide
/// among them.
///
/// # Errors
/// [`TrainError::Ranks`] naming the rank and the first difference.
pub(crate) fn check_same(
    world: &World,
    run: &RunConfig,
    identity: &RunIdentity,
    resume: bool,
) -> Result<(), TrainError> {
    if world.is_alone() {
        return Ok(());
    }
    world.share().check(run.accumulate, run.batch, resume).map_err(TrainError::Ranks)?;
    let own = json!({
        "version": env!("CARGO_PKG_VERSION"), "settings": identity.settings, "data": identity.data, "resume": resume,
    });
    let all: Vec<Value> = world.all_gather("the start", &own).map_err(TrainError::Ranks)?;
    for (rank, other) in all.iter().enumerate() {
        if let Some((key, theirs, first)) = first_changed_setting("", other, &all[0]) {
            let key = key.trim_start_matches("settings.").trim_start_matches("distill.");
            return Err(TrainError::Ranks(format!(
                "rank {rank} was started otherwise than rank 0: {key} is {theirs} there and {first} on rank 0; start all ranks \
                 with the same program and the same flags, and with files that are the same everywhere"
            )));
        }
    }
    Ok(())
}

/// The rows of both splits. Of the processes on a machine one checks the checksums.
///
/// # Errors
/// As [`DataFolder::rows`].
pub(crate) fn rows_of(world: &World, data: &DataFolder) -> Result<[TokenRows; 2], TrainError> {
    let (local_rank, _) = world.local();
    let open = |split| if local_rank == 0 { data.rows(split) } else { data.rows_checked_before(split) };
    let both = || -> Result<_, TrainError> { Ok([open(Split::Train)?, open(Split::Validation)?]) };
    let first = if local_rank == 0 { Some(both()?) } else { None };
    world.barrier_without_limit("the check of the data");
    first.map_or_else(both, Ok)
}

/// Where all ranks start: where rank 0 does, with its weights.
///
/// # Errors
/// [`TrainError::Learner`] when a record cannot be stored.
pub(crate) fn start_of_first<M: LoopModel>(
    world: &World,
    start: Option<LoopStart>,
    model: &M,
) -> Result<Option<LoopStart>, TrainError> {
    if world.is_alone() {
        return Ok(start);
    }
    let (counters, mut records) = match start {
        _ if !world.is_first() => Default::default(),
        Some(LoopStart { counters, model: record, average, optimiser }) => {
            // The average has the weights' ids, by which it moves.
            let weights = model.clone().load_record(record.clone()).valid();
            let average = average.map(|stored| stored.apply(weights)).transpose()?;
            let average = average.map(|average| stored(average.into_record().into_bytes())).transpose()?;
            let (optim, scheduler) = match optimiser {
                Some((optim, scheduler)) => (Some(stored(optim.into_bytes())?), Some(stored(scheduler.into_bytes())?)),
                None => (None, None),
            };
            (counters, [Some(stored(record.into_bytes())?), average, optim, scheduler])
        }
        None => (Default::default(), [Some(stored(model.clone().into_record().into_bytes())?), None, None, None]),
    };
    let there = records.each_ref().map(Option::is_some);
    let (counters, there) = world.broadcast("the start of training", (counters, there)).map_err(TrainError::Ranks)?;
    for (record, there) in records.iter_mut().zip(there) {
        if there {
            *record = Some(world.broadcast_bytes("the weights of rank 0", record.take().unwrap_or_default()));
        }
    }
    let [model, average, optim, scheduler] = records.map(|record| record.map(Bytes::from_bytes_vec));
    let read = |error: RecordError| TrainError::Ranks(format!("what rank 0 sent cannot be read: {error}"));
    let missing = || TrainError::Ranks("rank 0 sent no weights".to_string());
    let optimiser = match (optim, scheduler) {
        (Some(optim), Some(scheduler)) => {
            let scheduler = LrSchedulerRecord::from_bytes(scheduler).map_err(read)?;
            Some((OptimizerRecord::from_bytes(optim).map_err(read)?, scheduler))
        }
        _ => None,
    };
    Ok(Some(LoopStart {
        counters,
        model: ModuleRecord::from_bytes(model.ok_or_else(missing)?).map_err(read)?,
        average: average.map(ModuleRecord::from_bytes).transpose().map_err(read)?.map(StoredAverage::Record),
        optimiser,
    }))
}

/// `module` with the weights that it has on rank 0.
///
/// # Errors
/// [`TrainError::Ranks`] when they cannot be read.
pub(crate) fn weights_of_first<M: Module>(world: &World, module: M) -> Result<M, TrainError> {
    if world.is_alone() {
        return Ok(module);
    }
    let own = if world.is_first() { stored(module.clone().into_record().into_bytes())? } else { Vec::new() };
    let bytes = Bytes::from_bytes_vec(world.broadcast_bytes("the weights of the teacher", own));
    let record = ModuleRecord::from_bytes(bytes).map_err(|error| TrainError::Ranks(error.to_string()))?;
    Ok(module.load_record(record))
}

fn stored(record: Result<Bytes, RecordError>) -> Result<Vec<u8>, TrainError> {
    record.map(|bytes| bytes.to_vec()).map_err(|error| TrainError::Learner(error.to_string()))
}
