//! The model card of `pgm-train fit`: what it says, that it is the same wherever and however a run was made, and that one that a
//! person has edited stays. Each run is a process.

mod common;

use std::path::PathBuf;
use std::process::{Command, Output};

use burn::tensor::Device;
use common::byte_data;
use pgm_data::{DataFolder, Mode};
use pgm_infer::TextModel;
use pgm_model::model_folder::resolve;
use pgm_train::history::{self, Line};
use sha2::{Digest, Sha256};

const TUNE: &str = "
steps = 12
batch = 4
log_every = 4
validate_every = 4
validate_rows = 4
checkpoint_every = 4
checkpoint_keep = 2
[optim]
lr = 1e-2
warmup = 2
ema = 0.9
";
const MODEL: &str = "[model]\nhidden = 16\nheads = 2\nencoder = 1\ndecoder = 1\nlength = 12\n";

/// A folder for the runs of a test.
struct Case(tempfile::TempDir);

impl Case {
    fn new() -> Self {
        let case = Self(tempfile::tempdir().unwrap());
        let text = case.path("text.txt");
        std::fs::write(&text, "the cat sat on the mat and the dog ate the hat. ".repeat(40)).unwrap();
        byte_data(&text, &case.path("data"), (12, Mode::Pack), 0.1);
        std::fs::write(case.path("run.toml"), format!("objective = \"partition\"{TUNE}{MODEL}")).unwrap();
        std::fs::write(case.path("tune.toml"), TUNE).unwrap();
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `pgm-train fit` with these arguments, on the usual configuration unless they name another.
    fn run(&self, out: &str, args: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgm-train"));
        command.current_dir(self.0.path()).args(["fit", "--device", "flex", "--data", "data", "--out", out]);
        if !args.contains("--config") {
            command.args(["--config", "run.toml"]);
        }
        command.args(args.split_whitespace()).output().unwrap()
    }

    /// What it prints.
    fn fit(&self, out: &str, args: &str) -> String {
        let output = self.run(out, args);
        let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert!(output.status.success(), "{args}: {printed}");
        printed
    }

    fn weights(&self, name: &str) -> Vec<u8> {
        std::fs::read(resolve(&self.path(name)).unwrap().join("model.safetensors")).unwrap()
    }

    /// The NELBO of the last validation.
    fn nelbo(&self, out: &str) -> f64 {
        let nelbo = |line: Line| if let Line::Validation(line) = line { Some(line.val_nelbo) } else { None };
        history::read(&self.path(out)).unwrap().into_iter().filter_map(nelbo).next_back().unwrap()
    }
}

#[test]
fn a_run_writes_a_model_card_that_makes_the_same_model_again() {
    let case = Case::new();
    let card = |model: &str| std::fs::read_to_string(case.path(model).join("README.md")).unwrap();
    let words = "--set card.license=mit card.language=en card.data=Rhymes.";
    case.fit("run", words);
    let text = card("run/model");
    let of = |start: &str, end: &str| text.split_once(start).unwrap().1.split_once(end).unwrap().0.to_string();
    let nats = case.nelbo("run");
    let hash: String = Sha256::digest(case.weights("run")).iter().map(|byte| format!("{byte:02x}")).collect();
    let data = DataFolder::open(&case.path("data")).unwrap();
    let (held_out, identity) = (data.manifest().validation.clone(), data.identity().unwrap());
    // One byte is one token; a row has a BOS, and its 11 bytes or fewer.
    let kept = (held_out.tokens - held_out.dropped_tokens) as f64;
    let bits = nats * (held_out.rows * 12) as f64 / kept / std::f64::consts::LN_2;
    let parameters = TextModel::load(&case.path("run"), &Device::flex()).unwrap().n_parameters();
    let says = [
        "---\nlicense: \"mit\"\nlanguage: \"en\"\nlibrary_name: pgm\n".to_string(),
        "\nRhymes.\n".to_string(),
        format!("SHA-256 `{hash}`"),
        format!("SHA-256 `{identity}`"),
        format!("nats per token | {nats:.4} |"),
        format!("bits per byte | {bits:.4} |"),
        format!(
            "| held out | {} | {} | {} | {} |",
            held_out.documents, held_out.text_bytes, held_out.tokens, held_out.rows
        ),
        "| training steps | 12 of 12 |".to_string(),
    ];
    says.iter().for_each(|says| assert!(text.contains(says), "{says:?} is not in {text}"));
    assert_eq!(of("| parameters | ", " |").replace(',', ""), parameters.to_string());
    let temporary = case.path("").display().to_string();
    for model in ["run/model", "run/checkpoints/step-00000008"].map(str::to_string) {
        assert!(!card(&model).contains(temporary.trim_end_matches('/')), "{model} names a folder of this machine");
    }
    // Stopped, resumed, elsewhere: the same card, and that of the last checkpoint.
    case.fit("parts", &format!("{words} steps=8"));
    assert!(card("parts/model").contains("| training steps | 8 of 8 |"));
    case.fit("parts", &format!("{words} --resume"));
    case.fit(case.path("deep/er").to_str().unwrap(), &format!("{words} --config {}", case.path("run.toml").display()));
    for model in ["parts/model", "deep/er/model", "run/checkpoints/step-00000012"] {
        assert_eq!(card(model), text, "{model}");
    }
    // Its configuration gives the same model.
    std::fs::write(case.path("card.toml"), of("```toml\n", "```")).unwrap();
    case.fit("again", "--config card.toml");
    assert!(case.weights("again") == case.weights("run"), "the weights differ");
    // A model that starts from it has its licence, also when it is resumed without it.
    case.fit("tuned", "--config tune.toml --init run@best --set steps=8");
    case.fit("tuned", "--config tune.toml --resume");
    let tuned = card("tuned/model");
    assert!(tuned.contains("license: \"mit\"") && tuned.contains("Started from `run@best` of step "), "{tuned}");
    assert!(tuned.contains("--out RUN --init MODEL\n"), "{tuned}");

    // What a person wrote stays, and is named; once it is away, a card is written again.
    let path = case.path("run/model/README.md");
    let edited = text.replace("# Partition", "# My partition");
    std::fs::write(&path, &edited).unwrap();
    let printed = case.fit("run", &format!("{words} --resume"));
    assert!(printed.contains("run/model/README.md was not written by pgm-train or was edited"), "{printed}");
    assert_eq!(card("run/model"), edited);
    TextModel::load(&case.path("run"), &Device::flex()).unwrap();
    std::fs::remove_file(&path).unwrap();
    case.fit("run", &format!("{words} --resume"));
    assert_eq!(card("run/model"), text);
}
