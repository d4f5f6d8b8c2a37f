//! The model folders of a training run: `RUN`, `RUN@best`, `RUN@last` and `RUN@step-N` name one of them.
//!
//! | in a run's folder | what |
//! |---|---|
//! | `model/` | the model of a finished run |
//! | `checkpoints/step-NNNNNNNN/` | a checkpoint; it is a model folder, too |
//! | `checkpoints/best-NNNNNNNN/` | the model with the lowest validation so far |
//! | `round-N/` | a round of a distillation, a run of its own |

use std::path::{Path, PathBuf};

use super::file_names::{
    BEST_PREFIX, CHECKPOINTS_FOLDER, CONFIG_FILE, MODEL_FOLDER, ROUND_PREFIX, STEP_PREFIX, TRAINING_FILE,
};
use crate::error::ModelError;

/// The model folder that `path` names: itself, or one of a training run.
///
/// * A folder with `config.json` is itself.
/// * `RUN` is the final model. It is the newest checkpoint if the run is unfinished, or was resumed after it finished.
///   For a distillation's folder it is the newest round.
/// * `RUN@best` is the model with the lowest validation loss, `RUN@last` is the same as `RUN`, `RUN@step-N` is step N.
///
/// A folder whose own name has an `@` is taken as it is. So is a path that does not exist, which loading then refuses.
///
/// # Errors
/// [`ModelError::Run`] when the run has no such model, with a list of those that it has.
pub fn resolve(path: &Path) -> Result<PathBuf, ModelError> {
    if path.join(CONFIG_FILE).exists() {
        return Ok(path.to_path_buf());
    }
    if path.is_dir() {
        return match Run::open(path).or_else(|| newest_round(path)) {
            Some(run) => run.last(),
            None if !numbered(path, ROUND_PREFIX).is_empty() => {
                Err(ModelError::Run(format!("{} is a distillation that has no checkpoint yet", path.display())))
            }
            None => Err(ModelError::Run(format!(
                "{} is no model folder, since it has no {CONFIG_FILE}, and no training run, since it has no \
                 {CHECKPOINTS_FOLDER}",
                path.display()
            ))),
        };
    }
    let text = path.to_string_lossy();
    let Some((folder, choice)) = text.rsplit_once('@').filter(|(folder, _)| Path::new(folder).is_dir()) else {
        return Ok(path.to_path_buf());
    };
    let folder = Path::new(folder);
    match Run::open(folder) {
        Some(run) => run.choose(choice),
        None => Err(ModelError::Run(not_a_run(folder, choice))),
    }
}

fn not_a_run(folder: &Path, choice: &str) -> String {
    let shown = folder.display();
    if folder.join(CONFIG_FILE).exists() {
        return format!(
            "{shown} is a model folder, not a training run, and has no @{choice}; name it without @{choice}"
        );
    }
    match newest_round(folder) {
        Some(round) => format!("{shown} is a distillation; name the round, as in {}@{choice}", round.folder.display()),
        None => format!("{shown} is no training run: it has no {CHECKPOINTS_FOLDER}, so there is no @{choice}"),
    }
}

// The last round of a distillation that has a model or a checkpoint.
fn newest_round(folder: &Path) -> Option<Run> {
    let rounds = numbered(folder, ROUND_PREFIX);
    rounds.into_iter().rev().find_map(|(_, path)| Run::open(&path).filter(|run| run.last().is_ok()))
}

/// Folders whose names are `prefix` and a number, by number.
pub fn numbered(folder: &Path, prefix: &str) -> Vec<(usize, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let number = |entry: std::fs::DirEntry| {
        let number = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
        Some((number, entry.path()))
    };
    let mut found: Vec<(usize, PathBuf)> = entries.flatten().filter_map(number).collect();
    found.sort();
    found
}

/// The step of a model folder by its [`TRAINING_FILE`]; unknown for a model that was not trained here.
pub fn trained_step(folder: &Path) -> Option<usize> {
    let json = std::fs::read(folder.join(TRAINING_FILE)).ok()?;
    let training: serde_json::Value = serde_json::from_slice(&json).ok()?;
    training["step"].as_u64().map(|step| step as usize)
}

/// The model folders of a run.
struct Run {
    folder: PathBuf,
    // The final model.
    model: Option<PathBuf>,
    // Checkpoints that are model folders, oldest first.
    steps: Vec<(usize, PathBuf)>,
    // The steps of checkpoints of earlier versions, which hold no model.
    without_model: Vec<usize>,
    best: Option<(usize, PathBuf)>,
}

impl Run {
    fn open(folder: &Path) -> Option<Self> {
        let checkpoints = folder.join(CHECKPOINTS_FOLDER);
        let is_model = |path: &Path| path.join(CONFIG_FILE).exists();
        let model = Some(folder.join(MODEL_FOLDER)).filter(|path| is_model(path));
        if model.is_none() && !checkpoints.is_dir() {
            return None;
        }
        let (steps, others): (Vec<_>, Vec<_>) =
            numbered(&checkpoints, STEP_PREFIX).into_iter().partition(|(_, path)| is_model(path));
        let best = numbered(&checkpoints, BEST_PREFIX).into_iter().rfind(|(_, path)| is_model(path));
        let without_model = others.into_iter().map(|(step, _)| step).collect();
        Some(Self { folder: folder.to_path_buf(), model, steps, without_model, best })
    }

    fn choose(&self, choice: &str) -> Result<PathBuf, ModelError> {
        if choice == "last" {
            return self.last();
        }
        if choice == "best" {
            return self.best.as_ref().map(|(_, path)| path.clone()).ok_or_else(|| self.lacks(choice));
        }
        let step = choice.strip_prefix(STEP_PREFIX).and_then(|digits| digits.parse::<usize>().ok());
        let Some(step) = step else {
            return Err(ModelError::Run(format!(
                "{}@{choice}: what follows @ is best, last or step-N; {}",
                self.folder.display(),
                self.list()
            )));
        };
        let of_step = |(number, path): &(usize, PathBuf)| (*number == step).then(|| path.clone());
        let model = || self.model.clone().filter(|path| trained_step(path) == Some(step));
        let found = self.steps.iter().chain(&self.best).find_map(of_step).or_else(model);
        found.ok_or_else(|| self.lacks(&format!("{STEP_PREFIX}{step}")))
    }

    // The final model, unless a checkpoint of a later step is there.
    fn last(&self) -> Result<PathBuf, ModelError> {
        let newest = self.steps.last();
        match (&self.model, newest) {
            (Some(model), Some((step, path))) => {
                let is_later = trained_step(model).is_some_and(|trained| trained < *step);
                Ok(if is_later { path.clone() } else { model.clone() })
            }
            (Some(path), None) | (None, Some((_, path))) => Ok(path.clone()),
            (None, None) => Err(self.lacks("model")),
        }
    }

    fn lacks(&self, what: &str) -> ModelError {
        ModelError::Run(format!("no {what} in {}; {}", self.folder.display(), self.list()))
    }

    // What there is.
    fn list(&self) -> String {
        let mut names: Vec<String> = self.steps.iter().map(|(step, _)| format!("{STEP_PREFIX}{step}")).collect();
        names.extend(self.best.iter().map(|(step, _)| format!("best (step {step})")));
        let model = self.model.as_ref().map(|path| match trained_step(path) {
            Some(step) => format!("the final model (step {step})"),
            None => "the final model".to_string(),
        });
        names.extend(model);
        match (names.is_empty(), self.without_model.last()) {
            (false, _) if names.len() == 1 => format!("there is {}", names[0]),
            (false, _) => format!("there are {}", names.join(", ")),
            (true, Some(step)) => format!(
                "its checkpoints, the newest of step {step}, are of an earlier version and hold no model; resume the run, \
                 whose next checkpoint does"
            ),
            (true, None) => "it has no checkpoint yet".to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A run's folder with the given folders in it; those in `old` have no config.json.
    fn run(folders: &[&str], old: &[&str]) -> tempfile::TempDir {
        let run = tempfile::tempdir().unwrap();
        for name in folders.iter().chain(old) {
            std::fs::create_dir_all(run.path().join(name)).unwrap();
        }
        for name in folders {
            std::fs::write(run.path().join(name).join(CONFIG_FILE), "{}").unwrap();
        }
        run
    }

    fn named(run: &Path, choice: &str) -> Result<String, String> {
        let path = PathBuf::from(format!("{}{choice}", run.display()));
        let found = resolve(&path).map_err(|error| error.to_string())?;
        Ok(found.strip_prefix(run).unwrap_or(&found).display().to_string())
    }

    #[test]
    fn a_run_gives_its_newest_checkpoint_its_best_and_its_steps() {
        let run = run(&["checkpoints/step-00000250", "checkpoints/step-00000500", "checkpoints/best-00000300"], &[]);
        let run = run.path();
        for (choice, folder) in [
            ("", "checkpoints/step-00000500"),
            ("@last", "checkpoints/step-00000500"),
            ("@best", "checkpoints/best-00000300"),
            ("@step-250", "checkpoints/step-00000250"),
            ("@step-00000250", "checkpoints/step-00000250"),
            ("@step-300", "checkpoints/best-00000300"),
        ] {
            assert_eq!(named(run, choice), Ok(folder.to_string()), "{choice}");
        }
        let message = named(run, "@step-400").unwrap_err();
        assert!(
            message.starts_with("no step-400 in ")
                && message.ends_with("; there are step-250, step-500, best (step 300)"),
            "{message}"
        );
        for choice in ["@first", "@step-", "@step-x", "@"] {
            let message = named(run, choice).unwrap_err();
            assert!(message.contains("best, last or step-N; there are step-250"), "{message}");
        }
    }

    #[test]
    fn the_final_model_is_taken_unless_the_run_has_gone_on() {
        let run = run(&["model", "checkpoints/step-00000006"], &[]);
        assert_eq!(named(run.path(), "").unwrap(), "model", "an earlier version wrote no step");
        let training = run.path().join("model").join(TRAINING_FILE);
        for (step, folder) in [(6, "model"), (4, "checkpoints/step-00000006")] {
            std::fs::write(&training, format!("{{\"step\": {step}}}")).unwrap();
            assert_eq!(named(run.path(), "").unwrap(), folder);
            assert_eq!(named(run.path(), "@last").unwrap(), folder);
        }
        assert_eq!(named(run.path(), "@step-4").unwrap(), "model");
        let message = named(run.path(), "@best").unwrap_err();
        assert!(message.ends_with("there are step-6, the final model (step 4)"), "{message}");
    }

    #[test]
    fn what_is_no_run_or_has_no_model_is_named() {
        let old = run(&[], &["checkpoints/step-00000010"]);
        let message = named(old.path(), "").unwrap_err();
        assert!(message.contains("the newest of step 10, are of an earlier version"), "{message}");
        let empty = run(&[], &["checkpoints"]);
        assert!(named(empty.path(), "").unwrap_err().ends_with("it has no checkpoint yet"));
        let other = run(&[], &["other"]);
        assert!(named(other.path(), "").unwrap_err().contains("no config.json"));
        assert!(named(other.path(), "@best").unwrap_err().contains("is no training run"));
        let model = run(&["model"], &[]);
        assert!(named(&model.path().join("model"), "@best").unwrap_err().contains("is a model folder"));
        assert_eq!(named(model.path(), "/none").unwrap(), "none", "loading says that it is not there");
    }

    #[test]
    fn an_at_sign_in_a_folders_own_name_is_part_of_it() {
        let run = run(&["checkpoints/step-00000250", "user@host/checkpoints/step-00000001", "run@best"], &[]);
        assert_eq!(named(run.path(), "/run@best").unwrap(), "run@best");
        assert_eq!(named(run.path(), "/user@host").unwrap(), "user@host/checkpoints/step-00000001");
        assert_eq!(named(run.path(), "/user@host@step-1").unwrap(), "user@host/checkpoints/step-00000001");
    }

    #[test]
    fn a_distillation_is_its_newest_round_with_a_model() {
        let run = run(&["round-1/model", "round-2/checkpoints/step-00000004"], &["round-3"]);
        assert_eq!(named(run.path(), "").unwrap(), "round-2/checkpoints/step-00000004");
        assert_eq!(named(run.path(), "/round-1").unwrap(), "round-1/model");
        let empty = self::run(&[], &["round-1"]);
        assert!(named(empty.path(), "").unwrap_err().ends_with("is a distillation that has no checkpoint yet"));
        let message = named(run.path(), "@step-4").unwrap_err();
        assert!(message.contains("name the round, as in ") && message.ends_with("round-2@step-4"), "{message}");
    }
}
