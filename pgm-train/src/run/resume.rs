//! Where a run starts, and whether a checkpoint may be resumed.

use std::path::Path;

use burn::lr_scheduler::LrSchedulerRecord;
use burn::optim::OptimizerRecord;
use burn::store::ModuleRecord;
use serde_json::{Value, json};

use super::checkpoint::{self, CheckpointRecords, CheckpointState, PendingLoss};
use super::event::TrainEvent;
use super::identity::DataIdentity;
use crate::TrainError;
use crate::special_tokens::first_difference;

/// The records and counters that a run starts with.
pub(crate) struct LoopStart {
    pub(crate) counters: Counters,
    pub(crate) model: ModuleRecord,
    pub(crate) average: Option<ModuleRecord>,
    /// Absent for a new optimiser.
    pub(crate) optimiser: Option<(OptimizerRecord, LrSchedulerRecord)>,
}

/// What a run has behind it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    /// Steps done.
    pub(crate) step: usize,
    pub(crate) pending: PendingLoss,
    /// Seconds of training.
    pub(crate) seconds: f64,
}

impl LoopStart {
    /// Continues from a checkpoint.
    pub(crate) fn from_checkpoint(state: &CheckpointState, records: CheckpointRecords) -> Self {
        Self {
            counters: Counters { step: state.step, pending: state.pending, seconds: state.seconds },
            model: records.model,
            average: records.average,
            optimiser: Some((records.optim, records.scheduler)),
        }
    }
}

/// The newest readable checkpoint of a run's folder; `observe` is called with a notice for each damaged one.
///
/// # Errors
/// [`TrainError::NoCheckpoint`] when there are checkpoints and all are damaged.
pub(crate) fn newest_checkpoint(
    out: &Path,
    observe: &dyn Fn(&TrainEvent),
) -> Result<Option<(CheckpointState, CheckpointRecords)>, TrainError> {
    let (newest, damaged) = checkpoint::newest(out)?;
    damaged.into_iter().for_each(|problem| observe(&TrainEvent::Notice(problem)));
    Ok(newest)
}

/// The settings of a run as a checkpoint stores them, and the data. A resumed run must have the same.
#[derive(Clone, Debug)]
pub(crate) struct RunIdentity {
    pub(crate) settings: Value,
    pub(crate) data: DataIdentity,
}

impl RunIdentity {
    /// Refuses to resume a checkpoint of other settings or other data. Settings whose dotted keys are in `free` may
    /// differ.
    ///
    /// # Errors
    /// [`TrainError::Changed`] with the first difference.
    pub(crate) fn check(&self, out: &Path, state: &CheckpointState, free: &[String]) -> Result<(), TrainError> {
        let changed = |key: String, before: String, now: String| {
            Err(TrainError::Changed { path: out.to_path_buf(), key, before, now })
        };
        let (mut before, mut now) = (state.config.clone(), self.settings.clone());
        move_weight_floor(&mut before);
        add_new_keys(&mut before, &now);
        for key in free {
            remove(&mut before, key);
            remove(&mut now, key);
        }
        if let Some((key, before, now)) = first_changed_setting("", &before, &now) {
            return changed(key, before, now);
        }
        if let Some((before, now)) = first_difference(&state.data.special, &self.data.special) {
            return changed(format!("the {} token of --data", before.role), before.to_string(), now.to_string());
        }
        if !state.data.same_as(&self.data) {
            return changed("--data".to_string(), state.data.to_string(), self.data.to_string());
        }
        Ok(())
    }
}

// Checkpoints of earlier versions have optim.weight_floor, which training now has at the top level and a distillation
// not at all.
fn move_weight_floor(settings: &mut Value) {
    let floor = |settings: &mut Value| settings.get_mut("optim")?.as_object_mut()?.remove("weight_floor");
    if let Some(distillation) = settings.get_mut("distill") {
        floor(distillation);
    } else if let Some(value) = floor(settings) {
        settings["weight_floor"] = value;
    }
}

// Keys that checkpoints of earlier versions lack, with the values that they had without saying so.
fn add_new_keys(before: &mut Value, now: &Value) {
    let new = [
        (None, "class_dropout", json!(0.1)),
        (Some("model"), "classes", json!(0)),
        (Some("model"), "registers", json!(2)),
    ];
    for (section, key, value) in new {
        let (before, now) = match section {
            Some(section) => (before.get_mut(section), now.get(section)),
            None => (Some(&mut *before), Some(now)),
        };
        let is_known = now.is_some_and(|now| now.get(key).is_some());
        if let Some(before) = before.and_then(Value::as_object_mut)
            && is_known
        {
            before.entry(key).or_insert(value);
        }
    }
}

fn remove(value: &mut Value, key: &str) {
    let Some(map) = value.as_object_mut() else { return };
    match key.split_once('.') {
        None => drop(map.remove(key)),
        Some((section, rest)) => {
            if let Some(inner) = map.get_mut(section) {
                remove(inner, rest);
            }
        }
    }
}

fn first_changed_setting(prefix: &str, before: &Value, now: &Value) -> Option<(String, String, String)> {
    match (before.as_object(), now.as_object()) {
        (Some(a), Some(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            keys.into_iter().find_map(|key| {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                first_changed_setting(&name, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null))
            })
        }
        _ if before == now => None,
        _ => Some((prefix.to_string(), before.to_string(), now.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::special_tokens::SpecialToken;

    fn data(hash: Option<&str>) -> DataIdentity {
        DataIdentity {
            data: ("tokenizer".to_string(), 7),
            data_identity: hash.map(str::to_string),
            special: Vec::new(),
        }
    }

    fn check(before: Value, now: Value, hashes: [Option<&str>; 2]) -> Result<(), String> {
        let state = CheckpointState::new(1, 0.0, PendingLoss::default(), before, data(hashes[0]));
        let identity = RunIdentity { settings: now, data: data(hashes[1]) };
        let free = ["log_every".to_string(), "distill.log_every".to_string()];
        identity.check(Path::new("run"), &state, &free).map_err(|error| error.to_string())
    }

    #[test]
    fn other_data_with_equal_rows_and_tokenizer_is_refused() {
        let settings = || json!({ "steps": 3 });
        assert_eq!(check(settings(), settings(), [Some("abc"), Some("abc")]), Ok(()));
        let message = check(settings(), settings(), [Some("abc"), Some("abd")]).unwrap_err();
        assert!(message.contains("--data was 7 rows with tokenizer tokenize and checksum abc and is now"), "{message}");
        assert_eq!(check(settings(), settings(), [None, Some("abd")]), Ok(()), "an earlier version stored no hash");
    }

    #[test]
    fn data_with_other_special_tokens_is_refused_by_their_names() {
        let data = |id, name: &str| {
            let token = SpecialToken { role: "bos".to_string(), id, name: Some(name.to_string()) };
            DataIdentity { special: vec![token], ..data(None) }
        };
        let check = |before: DataIdentity, now: DataIdentity| {
            let state = CheckpointState::new(1, 0.0, PendingLoss::default(), json!({}), before);
            let identity = RunIdentity { settings: json!({}), data: now };
            identity.check(Path::new("run"), &state, &[]).map_err(|error| error.to_string())
        };
        assert_eq!(check(data(2, "[CLS]"), data(2, "[CLS]")), Ok(()));
        let message = check(data(2, "[CLS]"), data(3, "[SEP]")).unwrap_err();
        let says = "the bos token of --data was \"[CLS]\" (id 2) and is now \"[SEP]\" (id 3)";
        assert!(message.contains(says), "{message}");
    }

    #[test]
    fn settings_must_be_equal_but_for_the_free_keys() {
        let same = [Some("abc"); 2];
        assert_eq!(check(json!({ "log_every": 1, "steps": 3 }), json!({ "log_every": 2, "steps": 3 }), same), Ok(()));
        let nested = |every: usize| json!({ "distill": { "log_every": every } });
        assert_eq!(check(nested(1), nested(2), same), Ok(()));
        let message = check(json!({ "optim": { "lr": 1 } }), json!({ "optim": { "lr": 2 } }), same).unwrap_err();
        assert!(message.contains("optim.lr was 1 and is now 2"), "{message}");
    }

    #[test]
    fn checkpoints_from_before_image_models_can_be_resumed() {
        let same = [Some("abc"); 2];
        let now = |registers: usize| json!({ "class_dropout": 0.1, "model": { "hidden": 8, "classes": 0, "registers": registers } });
        assert_eq!(check(json!({ "model": { "hidden": 8 } }), now(2), same), Ok(()));
        assert!(check(now(0), now(2), same).unwrap_err().contains("model.registers was 0"));
    }

    #[test]
    fn checkpoints_with_the_weight_floor_in_the_optimiser_can_be_resumed() {
        let same = [Some("abc"); 2];
        let old = json!({ "optim": { "lr": 1, "weight_floor": 0.5 } });
        assert_eq!(check(old.clone(), json!({ "optim": { "lr": 1 }, "weight_floor": 0.5 }), same), Ok(()));
        assert!(check(old.clone(), json!({ "optim": { "lr": 1 }, "weight_floor": 0.1 }), same).is_err());
        assert_eq!(check(json!({ "distill": old }), json!({ "distill": { "optim": { "lr": 1 } } }), same), Ok(()));
    }
}
