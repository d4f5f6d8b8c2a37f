//! A killed process leaves a run that resumes to the same weights.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pgm_data::{Mode, Prepare, TextInputs, TextTokenizer, Validation, prepare};
use pgm_train::history::{self, Line};

const TOML: &str = "
objective = \"partition\"
steps = 40
batch = 4
log_every = 4
validate_every = 20
validate_rows = 4
checkpoint_every = 4
[model]
hidden = 32
heads = 2
encoder = 1
decoder = 1
length = 32
dropout = 0.1
[optim]
warmup = 4
ema = 0.9
";

fn train(folder: &Path, out: &str, resume: bool) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgm-train"));
    command.args(["fit", "--device", "flex", "--config"]).arg(folder.join("run.toml"));
    command.arg("--data").arg(folder.join("data")).arg("--out").arg(folder.join(out));
    if resume {
        command.arg("--resume");
    }
    command.stdout(Stdio::null());
    command
}

#[test]
fn a_killed_run_resumes_to_the_same_weights() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let text = folder.join("text.txt");
    std::fs::write(&text, "the cat sat on the mat and the dog ate the hat. ".repeat(100)).unwrap();
    std::fs::write(folder.join("run.toml"), TOML).unwrap();
    let what = Prepare {
        inputs: &TextInputs::resolve(&[text.display().to_string()], "text", "text").unwrap(),
        validation: &Validation::Fraction(0.1),
        tokenizer: &TextTokenizer::bytes(),
        length: 32,
        mode: Mode::Pack,
        row_eos: false,
        out: &folder.join("data"),
    };
    prepare(&what, &mut |_| ControlFlow::Continue(())).unwrap();

    assert!(train(folder, "whole", false).status().unwrap().success());
    let mut killed = train(folder, "killed", false).spawn().unwrap();
    let give_up = Instant::now() + Duration::from_secs(60);
    while !folder.join("killed/checkpoints/step-00000012").exists() && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(2));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!folder.join("killed/model").exists(), "it was killed before its end");
    assert!(train(folder, "killed", true).status().unwrap().success());

    let weights = |out: &str| std::fs::read(folder.join(out).join("model/model.safetensors")).unwrap();
    assert!(weights("killed") == weights("whole"), "the weights differ");
    let lines = |out: &str| -> Vec<String> {
        let exact = |line: Line| match line {
            Line::Train(line) => format!("{} {} {} {}", line.step, line.train_loss, line.lr, line.grad_norm),
            Line::Validation(line) => format!("{} {}", line.step, line.val_nelbo),
        };
        history::read(&folder.join(out)).unwrap().into_iter().map(exact).collect()
    };
    assert_eq!(lines("killed"), lines("whole"));
}
