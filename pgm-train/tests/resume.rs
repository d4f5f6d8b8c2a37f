//! A run that was stopped and resumed equals the unbroken one, digit for digit.
//!
//! One test: dropout draws from the device's generator, which the whole process shares.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};

use burn::tensor::Device;
use burn::train::Interrupter;
use pgm_data::{Mode, Prepare, TextInputs, TextTokenizer, Validation, prepare};
use pgm_train::history::{self, Line};
use pgm_train::{Fit, FitResult, TrainConfig, TrainError, TrainEvent, World, fit};

const TOML: &str = "
objective = \"partition\"
steps = 12
batch = 4
accumulate = 2
seed = 3
log_every = 5
validate_every = 4
validate_rows = 6
checkpoint_every = 3
[model]
hidden = 16
heads = 2
encoder = 1
decoder = 1
length = 12
dropout = 0.2
[optim]
lr = 1e-2
warmup = 4
ema = 0.9
";

const SENTENCE: &str = "the cat sat on the mat and the dog ate the hat. ";

fn data(folder: &Path, sentence: &str) {
    let text = folder.join("text.txt");
    std::fs::write(&text, sentence.repeat(40)).unwrap();
    let what = Prepare {
        inputs: &TextInputs::resolve(&[text.display().to_string()], "text", "text").unwrap(),
        validation: &Validation::Fraction(0.1),
        tokenizer: &TextTokenizer::bytes(),
        length: 12,
        mode: Mode::Pack,
        row_eos: false,
        out: &folder.join("data"),
    };
    prepare(&what, &mut |_| ControlFlow::Continue(())).unwrap();
}

/// Runs, stopping after `stop_at` steps; returns the result and the notices.
fn run(
    folder: &Path,
    out: &str,
    settings: &[&str],
    resume: bool,
    stop_at: Option<usize>,
) -> (Result<FitResult, TrainError>, Vec<String>) {
    let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_string()).collect();
    let config = TrainConfig::parse(TOML, "test", &settings).unwrap();
    let interrupter = Interrupter::new();
    let stop = interrupter.clone();
    let notices = Arc::new(Mutex::new(Vec::new()));
    let noted = notices.clone();
    let finished = fit(Fit {
        config: &config,
        data: &folder.join("data"),
        out: &folder.join(out),
        init: None,
        resume,
        device: &Device::flex(),
        interrupter,
        renderer: None,
        observe: Arc::new(move |event| match event {
            TrainEvent::Trained { line, .. } if Some(line.step) == stop_at => stop.stop(None),
            TrainEvent::Notice(text) => noted.lock().unwrap().push(text.clone()),
            _ => (),
        }),
        world: World::alone(),
    });
    let notices = notices.lock().unwrap().clone();
    (finished, notices)
}

/// The lines of a run without times.
fn lines(folder: &Path, out: &str) -> Vec<String> {
    let exact = |line: Line| match line {
        Line::Train(line) => format!("{} {} {} {}", line.step, line.train_loss, line.lr, line.grad_norm),
        Line::Validation(line) => format!("{} {}", line.step, line.val_nelbo),
    };
    history::read(&folder.join(out)).unwrap().into_iter().map(exact).collect()
}

#[test]
fn a_resumed_run_equals_the_unbroken_one_to_the_last_digit() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    data(folder, SENTENCE);
    let weights = |out: &str| std::fs::read(folder.join(out).join("model/model.safetensors")).unwrap();

    let (finished, _) = run(folder, "whole", &[], false, None);
    let finished = finished.unwrap();
    assert!(finished.complete && finished.step == 12);
    let whole = lines(folder, "whole");
    // Training figures at 5, 10, 12; validations at 0, 4, 8, 12.
    assert_eq!(whole.len(), 7);
    let checkpoints: Vec<String> = std::fs::read_dir(folder.join("whole/checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("step-"))
        .collect();
    assert_eq!(checkpoints.len(), 3, "{checkpoints:?}");
    assert!(folder.join("whole/loss.svg").exists());

    // Stopped cleanly after step 5, which is saved; resumed to the end.
    let (stopped, _) = run(folder, "stopped", &["log_every=1"], false, Some(5));
    assert!(!stopped.unwrap().complete);
    assert!(!folder.join("stopped/model").exists());
    assert!(folder.join("stopped/checkpoints/step-00000005").exists());
    let (resumed, _) = run(folder, "stopped", &["log_every=1"], true, None);
    assert!(resumed.unwrap().complete);
    assert_eq!(weights("stopped"), weights("whole"));

    // Killed between checkpoints: the newest checkpoint is of step 9, metrics.jsonl has lines up to step 10.
    let (cut, _) = run(folder, "killed", &["steps=10"], false, None);
    cut.unwrap();
    std::fs::remove_dir_all(folder.join("killed/checkpoints/step-00000010")).unwrap();
    std::fs::remove_dir_all(folder.join("killed/model")).unwrap();
    let (resumed, notices) = run(folder, "killed", &[], true, None);
    assert!(resumed.unwrap().complete && notices.is_empty());
    let killed = lines(folder, "killed");
    // The shorter run has a line at its last step, 10, as the whole one has.
    assert_eq!(killed, whole);
    assert_eq!(weights("killed"), weights("whole"));

    // A damaged newest checkpoint is named and the one before is used.
    let newest = folder.join("killed/checkpoints/step-00000012/optim.bpk");
    let mut bytes = std::fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    std::fs::remove_dir_all(folder.join("killed/model")).unwrap();
    let (resumed, notices) = run(folder, "killed", &[], true, None);
    assert!(resumed.unwrap().complete);
    assert!(
        notices.len() == 1 && notices[0].contains("step-00000012") && notices[0].contains("optim.bpk"),
        "{notices:?}"
    );
    assert_eq!(weights("killed"), weights("whole"));
    assert_eq!(lines(folder, "killed"), whole);

    // A setting that may not change is named, and a second run in the same folder is refused.
    let (refused, _) = run(folder, "whole", &["optim.lr=0.5"], true, None);
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("optim.lr was 0.01 and is now 0.5"), "{message}");
    let (refused, _) = run(folder, "whole", &[], false, None);
    assert!(matches!(refused, Err(TrainError::Exists { .. })));

    // A loss that is not finite stops the run.
    let (failed, _) =
        run(folder, "wild", &["optim.lr=1e38", "optim.clip=0", "checkpoint_every=1", "log_every=1"], false, None);
    let message = failed.unwrap_err().to_string();
    assert!(message.starts_with("training diverged: ") && message.contains("not finite at step"), "{message}");
    assert!(!folder.join("wild/model").exists());

    // A complete run may be continued with more steps.
    let (first, _) = run(folder, "masked", &["objective=masked", "steps=6"], false, None);
    assert!(first.unwrap().complete);
    let (more, _) = run(folder, "masked", &["objective=masked", "steps=8"], true, None);
    assert_eq!(more.unwrap().step, 8);
    let (at_once, _) = run(folder, "masked-whole", &["objective=masked", "steps=8"], false, None);
    assert!(at_once.unwrap().complete);
    assert_eq!(weights("masked"), weights("masked-whole"));

    // Gradient checkpointing computes the same numbers, and a resumed run may switch it on.
    let (cut, _) = run(folder, "checkpointed", &["log_every=1"], false, Some(5));
    assert!(!cut.unwrap().complete);
    let (resumed, _) = run(folder, "checkpointed", &["checkpointing=true"], true, None);
    assert!(resumed.unwrap().complete);
    assert_eq!(weights("checkpointed"), weights("whole"));

    // Matmuls in bfloat16 change the numbers a little.
    let losses = |out: &str, settings: &[&str]| -> Vec<f64> {
        let (finished, _) = run(folder, out, settings, false, None);
        assert!(finished.unwrap().complete);
        let lines = history::read(&folder.join(out)).unwrap().into_iter();
        lines.filter_map(|line| if let Line::Train(line) = line { Some(line.train_loss) } else { None }).collect()
    };
    let full = losses("full", &["optim.lr=1e-3"]);
    let half = losses("half", &["optim.lr=1e-3", "precision=bf16"]);
    for (full, half) in full.iter().zip(half) {
        assert!(half != *full && (half / full - 1.0).abs() < 0.01, "{half} for {full}");
    }

    // Other data is refused, even with the same tokenizer and number of rows.
    std::fs::rename(folder.join("data"), folder.join("old-data")).unwrap();
    data(folder, &SENTENCE.replace("cat", "cow"));
    let (refused, _) = run(folder, "whole", &[], true, None);
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("--data was") && message.contains("checksum"), "{message}");
    // A copy of the data is the same data.
    std::fs::rename(folder.join("data"), folder.join("other-data")).unwrap();
    std::fs::rename(folder.join("old-data"), folder.join("data")).unwrap();
    let (resumed, _) = run(folder, "whole", &[], true, None);
    assert!(resumed.unwrap().complete);

    // A finished run whose checkpoints are gone is not trained anew over its model.
    std::fs::remove_dir_all(folder.join("whole/checkpoints")).unwrap();
    let model = weights("whole");
    let (refused, _) = run(folder, "whole", &["optim.lr=0.5"], true, None);
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("whole/model") && message.contains("checkpoints are gone"), "{message}");
    assert!(weights("whole") == model && lines(folder, "whole") == whole);

    // A validation with ordered sets is the same whatever the batch is.
    let first = |out: &str, settings: &[&str]| {
        let settings: Vec<&str> =
            ["model.sets=\"mix\"", "steps=1", "optim.warmup=0"].iter().chain(settings).copied().collect();
        run(folder, out, &settings, false, None).0.unwrap();
        let lines = history::read(&folder.join(out)).unwrap();
        lines
            .into_iter()
            .find_map(|line| if let Line::Validation(line) = line { Some(line.val_nelbo) } else { None })
            .unwrap()
    };
    let (four, one) =
        (first("sets-four", &["batch=4", "accumulate=1"]), first("sets-one", &["batch=1", "accumulate=1"]));
    assert!((four / one - 1.0).abs() < 1e-6, "{four} {one}");
}
