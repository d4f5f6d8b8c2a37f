//! Where a run starts, and whether a checkpoint may be resumed.

use std::path::Path;

use burn::lr_scheduler::LrSchedulerRecord;
use burn::optim::OptimizerRecord;
use burn::store::ModuleRecord;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::best::BestValidation;
use super::checkpoint::{self, Checkpoint, CheckpointRecords, CheckpointState, PendingLoss, StoredAverage};
use super::event::TrainEvent;
use super::identity::DataIdentity;
use super::optim::LrSchedule;
use crate::TrainError;
use crate::config::OptimSection;
use crate::special_tokens::first_difference;

/// The records and counters that a run starts with.
pub(crate) struct LoopStart {
    pub(crate) counters: Counters,
    pub(crate) model: ModuleRecord,
    pub(crate) average: Option<StoredAverage>,
    /// Absent for a new optimiser.
    pub(crate) optimiser: Option<(OptimizerRecord, LrSchedulerRecord)>,
}

/// What a run has behind it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// Steps done.
    pub(crate) step: usize,
    pub(crate) pending: PendingLoss,
    /// Seconds of training.
    pub(crate) seconds: f64,
    pub(crate) best: Option<BestValidation>,
}

impl LoopStart {
    /// Continues from a checkpoint.
    pub(crate) fn from_checkpoint(state: &CheckpointState, records: CheckpointRecords) -> Self {
        Self {
            counters: Counters { step: state.step, pending: state.pending, seconds: state.seconds, best: state.best },
            model: records.model,
            average: records.average,
            optimiser: Some((records.optim, records.scheduler)),
        }
    }
}

/// The newest readable checkpoint of a run's folder; `observe` is called with a notice for each damaged one. Weights are
/// read on `device`.
///
/// # Errors
/// [`TrainError::NoCheckpoint`] when there are checkpoints and all are damaged.
pub(crate) fn newest_checkpoint(
    out: &Path,
    device: &Device,
    observe: &dyn Fn(&TrainEvent),
) -> Result<Option<Checkpoint>, TrainError> {
    let (newest, damaged) = checkpoint::newest(out, device)?;
    damaged.into_iter().for_each(|problem| observe(&TrainEvent::Notice(problem)));
    Ok(newest)
}

/// Whether a run without a checkpoint may start again: not over the `finished` model of one whose checkpoints are gone.
///
/// # Errors
/// [`TrainError::Config`] when that folder exists.
pub(crate) fn start_again(finished: &Path, observe: &dyn Fn(&TrainEvent)) -> Result<(), TrainError> {
    if finished.exists() {
        let problem = "is the model of a finished run whose checkpoints are gone, so there is nothing to resume; choose \
                       another --out";
        return Err(TrainError::Config { origin: finished.display().to_string(), problem: problem.to_string() });
    }
    observe(&TrainEvent::Notice("there is no checkpoint yet; starting from step 0".to_string()));
    Ok(())
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
            let advice = "resume with the old setting or start a new run".to_string();
            Err(TrainError::Changed { path: out.to_path_buf(), key, before, now, advice })
        };
        let (mut before, mut now) = (present_form(&state.config), self.settings.clone());
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

/// The learning rates of a whole run.
pub(crate) struct LrPlan {
    pub(crate) optim: OptimSection,
    pub(crate) steps: usize,
}

/// Whether a changed schedule leaves the learning rates of the steps that are done alone.
pub(crate) struct ScheduleCheck<'a> {
    /// Reads the plan out of a run's settings.
    pub(crate) plan: &'a dyn Fn(&Value) -> Option<LrPlan>,
    /// The dotted keys that the plan depends on, beside the learning rate and the warm-up.
    pub(crate) keys: &'a [String],
    /// Steps done.
    pub(crate) done: usize,
    /// What to do instead, after "resume with the old setting, or".
    pub(crate) instead: String,
}

impl ScheduleCheck<'_> {
    /// Compares the settings of a checkpoint with those of now.
    ///
    /// # Errors
    /// [`TrainError::Changed`] with the first key whose change would have changed a step that is done.
    pub(crate) fn check(&self, out: &Path, before: &Value, now: &Value) -> Result<(), TrainError> {
        let before = present_form(before);
        let (Some(old), Some(new)) = ((self.plan)(&before), (self.plan)(now)) else { return Ok(()) };
        // Another learning rate or warm-up is refused by its own name.
        let optim = OptimSection { lr: old.optim.lr, warmup: old.optim.warmup, ..new.optim };
        if LrSchedule::new(&old.optim, old.steps).has_same_past(&LrSchedule::new(&optim, new.steps), self.done) {
            return Ok(());
        }
        let value = |settings: &Value, key: &str| settings.pointer(&format!("/{}", key.replace('.', "/"))).cloned();
        let differs = |key: &&String| value(&before, key) != value(now, key);
        let Some(key) = self.keys.iter().find(differs) else { return Ok(()) };
        let shown = |settings: &Value| value(settings, key).unwrap_or_default().to_string();
        Err(TrainError::Changed {
            path: out.to_path_buf(),
            key: key.clone(),
            before: shown(&before),
            now: shown(now),
            advice: format!(
                "with optim.schedule = \"{}\" the learning rates of the {} steps that are done depend on it; resume with the \
                 old setting, or {}",
                old.optim.schedule.name(),
                self.done,
                self.instead
            ),
        })
    }
}

// The settings of a checkpoint with the keys of this version. Earlier ones had optim.weight_floor, which training now has at
// the top level and a distillation not at all, and optim.decay, which is now optim.schedule.
fn present_form(settings: &Value) -> Value {
    let mut settings = settings.clone();
    let floor = |settings: &mut Value| settings.get_mut("optim")?.as_object_mut()?.remove("weight_floor");
    if let Some(distillation) = settings.get_mut("distill") {
        floor(distillation);
        present_optim(distillation);
    } else {
        if let Some(value) = floor(&mut settings) {
            settings["weight_floor"] = value;
        }
        present_optim(&mut settings);
    }
    settings
}

fn present_optim(settings: &mut Value) {
    let Some(optim) = settings.get_mut("optim").and_then(Value::as_object_mut) else { return };
    let Some(decay) = optim.remove("decay") else { return };
    optim.insert("schedule".to_string(), decay);
    let OptimSection { floor, decay_share, .. } = OptimSection::default();
    optim.insert("floor".to_string(), floor.into());
    optim.insert("decay_share".to_string(), decay_share.into());
}

// Keys that checkpoints of earlier versions lack, with the values that they had without saying so.
fn add_new_keys(before: &mut Value, now: &Value) {
    let new = [
        (None, "class_dropout", json!(0.1)),
        (Some("model"), "classes", json!(0)),
        (Some("model"), "registers", json!(2)),
        (Some("model"), "sets", json!("one")),
        (Some("model"), "embedding_scale", json!(1.0)),
        (Some("distill"), "temperature", json!(1.0)),
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

/// The first setting whose values differ: its dotted key and both values.
pub(crate) fn first_changed_setting(prefix: &str, before: &Value, now: &Value) -> Option<(String, String, String)> {
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
    fn checkpoints_without_newer_keys_can_be_resumed() {
        let same = [Some("abc"); 2];
        let now = |registers: usize| json!({ "class_dropout": 0.1, "model": { "hidden": 8, "classes": 0, "registers": registers } });
        assert_eq!(check(json!({ "model": { "hidden": 8 } }), now(2), same), Ok(()));
        assert!(check(now(0), now(2), same).unwrap_err().contains("model.registers was 0"));
        let before_sets = json!({ "model": { "hidden": 8 } });
        let with = |sets: &str| json!({ "model": { "hidden": 8, "sets": sets } });
        assert_eq!(check(before_sets.clone(), with("one"), same), Ok(()));
        assert!(check(before_sets, with("mix"), same).unwrap_err().contains("model.sets was \"one\""));
        let distilled = |temperature: f64| json!({ "distill": { "rounds": 3, "temperature": temperature } });
        let before_temperature = json!({ "distill": { "rounds": 3 } });
        assert_eq!(check(before_temperature.clone(), distilled(1.0), same), Ok(()));
        assert!(check(before_temperature, distilled(0.5), same).unwrap_err().contains("temperature was 1.0"));
    }

    #[test]
    fn checkpoints_of_earlier_versions_have_a_decay() {
        let same = [Some("abc"); 2];
        let now = |schedule: &str| json!({ "lr": 1, "schedule": schedule, "floor": 0.0, "decay_share": 0.1 });
        let old = json!({ "optim": { "lr": 1, "decay": "cosine" } });
        assert_eq!(check(old.clone(), json!({ "optim": now("cosine") }), same), Ok(()));
        assert!(check(old.clone(), json!({ "optim": now("constant") }), same).is_err());
        assert_eq!(check(json!({ "distill": old }), json!({ "distill": { "optim": now("cosine") } }), same), Ok(()));
    }

    #[test]
    fn a_schedule_may_change_what_is_still_to_come() {
        let settings = |schedule: &str, steps: usize| {
            let optim = OptimSection { lr: 1.0, warmup: 2, ..OptimSection::default() };
            let mut settings = json!({ "steps": steps, "optim": optim });
            settings["optim"]["schedule"] = schedule.into();
            settings
        };
        let plan = |settings: &Value| {
            let optim = serde_json::from_value(settings["optim"].clone()).ok()?;
            Some(LrPlan { optim, steps: settings["steps"].as_u64()? as usize })
        };
        let keys = ["steps", "optim.schedule"].map(str::to_string);
        let check = |before: (&str, usize), now: (&str, usize), done| {
            let check = ScheduleCheck { plan: &plan, keys: &keys, done, instead: "begin anew".to_string() };
            let (before, now) = (settings(before.0, before.1), settings(now.0, now.1));
            check.check(Path::new("run"), &before, &now).map_err(|error| error.to_string())
        };
        assert_eq!(check(("constant", 100), ("constant", 50), 50), Ok(()));
        assert_eq!(check(("constant", 100), ("wsd", 80), 70), Ok(()));
        assert_eq!(check(("cosine-end", 100), ("cosine-end", 200), 90), Ok(()));
        let message = check(("cosine-end", 100), ("cosine-end", 200), 95).unwrap_err();
        assert!(message.contains("steps was 100 and is now 200; with optim.schedule = \"cosine-end\""), "{message}");
        let message = check(("cosine", 100), ("constant", 100), 40).unwrap_err();
        assert!(message.contains("optim.schedule was \"cosine\" and is now \"constant\""), "{message}");
        assert!(
            message.ends_with("the 40 steps that are done depend on it; resume with the old setting, or begin anew")
        );
        assert_eq!(check(("cosine", 100), ("linear", 70), 2), Ok(()), "the warm-up is the same");
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
