//! A masked model to a partition model: `pgm-train convert`, then `fit --init` with the masked model as its teacher. Each run is
//! a process.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::{Command, Output};

use burn::tensor::Device;
use pgm_data::{Mode, Prepare, TextInputs, TextTokenizer, Validation, prepare};
use pgm_infer::TextModel;
use pgm_model::model_folder::{self, resolve};
use pgm_model::{ImageConfig, MaskGitConfig, ModelConfig, Network, Projection, Queries};
use pgm_train::history::{self, Line};
use serde_json::Value;

const TOML: &str = "
steps = 6
batch = 4
accumulate = 2
seed = 3
log_every = 2
validate_every = 3
validate_rows = 4
checkpoint_every = 2
checkpoint_keep = 9
[model]
hidden = 16
heads = 2
encoder = 2
decoder = 1
length = 12
dropout = 0.1
[optim]
lr = 3e-3
warmup = 2
ema = 0.9
";

const SENTENCE: &str = "the cat sat on the mat and the dog ate the hat. ";

struct Case(tempfile::TempDir);

impl Case {
    /// Data, configurations, and a masked model of three blocks: `mdlm`.
    fn new() -> Self {
        let case = Self(tempfile::tempdir().unwrap());
        case.data("data", SENTENCE, 12);
        let (head, rest) = TOML.split_once("[model]").unwrap();
        let optim = rest.split_once("[optim]").unwrap().1;
        case.write("masked.toml", &format!("objective = \"masked\"{TOML}"));
        case.write("tune.toml", &format!("{head}[optim]{optim}[teacher]\nmodel = \"mdlm\"\n"));
        case.write("alone.toml", &format!("{head}[optim]{optim}"));
        case.good("fit --config masked.toml --data data --out mdlm --set steps=40 checkpoint_every=40 optim.lr=1e-2");
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn data(&self, name: &str, sentence: &str, length: usize) {
        self.write("text.txt", &sentence.repeat(40));
        let what = Prepare {
            inputs: &TextInputs::resolve(&[self.path("text.txt").display().to_string()], "text", "text").unwrap(),
            validation: &Validation::Fraction(0.1),
            tokenizer: &TextTokenizer::bytes(),
            length,
            mode: Mode::Pack,
            row_eos: false,
            out: &self.path(name),
        };
        prepare(&what, &mut |_| ControlFlow::Continue(())).unwrap();
    }

    fn run(&self, args: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgm-train"));
        command.current_dir(self.0.path()).args(args.split_whitespace());
        if args.starts_with("fit") || args.starts_with("convert") {
            command.args(["--device", "flex"]);
        }
        command.output().unwrap()
    }

    /// What a command prints.
    fn good(&self, args: &str) -> String {
        let output = self.run(args);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{args}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// The error of a command.
    fn refused(&self, args: &str) -> String {
        let output = self.run(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args}: {text}");
        assert!(text.starts_with("pgm-train: ") && text.trim_end().lines().count() == 1, "{text}");
        text
    }

    fn weights(&self, name: &str) -> Vec<u8> {
        std::fs::read(resolve(&self.path(name)).unwrap().join("model.safetensors")).unwrap()
    }

    fn training(&self, name: &str) -> Value {
        let json = std::fs::read(resolve(&self.path(name)).unwrap().join("training.json")).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    /// Training losses, then validations.
    fn figures(&self, out: &str) -> (Vec<f64>, Vec<f64>) {
        let lines = history::read(&self.path(out)).unwrap();
        let train = lines.iter().filter_map(|line| match line {
            Line::Train(line) => Some(line.train_loss),
            Line::Validation(_) => None,
        });
        let validation = lines.iter().filter_map(|line| match line {
            Line::Validation(line) => Some(line.val_nelbo),
            Line::Train(_) => None,
        });
        (train.collect(), validation.collect())
    }
}

#[test]
fn a_masked_model_becomes_a_partition_model_that_samples_and_knows_its_origin() {
    let case = Case::new();
    let text = case.good("convert --from mdlm@best --out pgm --data data --projection mlp4 --queries learn+freqs+mean");
    assert!(text.contains("the first 2 of 3 blocks become the encoder, 1 the decoder"), "{text}");
    assert!(text.contains("mask tokens in 64 rows of the data") && text.contains("fit --init pgm"), "{text}");
    let model = TextModel::load(&case.path("pgm"), &Device::flex()).unwrap();
    let ModelConfig::Partition(config) = model.config() else { panic!("{:?}", model.config()) };
    assert_eq!((config.encoder_blocks, config.decoder_blocks), (2, 1));
    assert_eq!((config.queries, config.projection), (Queries::LearnFreqsMean, Projection::Mlp4));
    assert_eq!(config.backbone, *model_folder::load_config(&case.path("mdlm")).unwrap().backbone());
    assert_eq!(model.generation().steps, Some(128));
    let request = model.request(&[], None, 1).unwrap();
    let settings = pgm_infer::SampleSettings { steps: 4, ..Default::default() };
    let path = pgm_infer::SamplingPath::Clean;
    assert!(model.generate(&[request], &settings, path, &mut |_| ControlFlow::Continue(())).unwrap().rows[0].complete);
    for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        let masked = resolve(&case.path("mdlm@best")).unwrap();
        assert_eq!(std::fs::read(case.path("pgm").join(file)).unwrap(), std::fs::read(masked.join(file)).unwrap());
    }
    let training = case.training("pgm");
    let origin = &training["converted_from"];
    assert_eq!((&origin["model"], &origin["step"]), (&"mdlm@best".into(), &case.training("mdlm@best")["step"]));
    assert_eq!(origin["training"]["settings"]["objective"], "masked");
    assert_eq!(training["group_swap"]["rows"], 64);
    let card = |model: &str| std::fs::read_to_string(case.path(model).join("README.md")).unwrap();
    for says in [
        "badly until it is trained",
        "Made of `mdlm@best` of step ",
        "--encoder 2 --decoder 1 --queries learn+freqs+mean --projection mlp4 --seed 0 --data DATA\n",
    ] {
        assert!(card("pgm").contains(says), "{says:?} is not in {}", card("pgm"));
    }

    // The same command gives the same file, another seed another GroupSwap. Without data there is one row, of masks.
    let same = "convert --from mdlm@best --data data --projection mlp4 --queries learn+freqs+mean";
    case.good(&format!("{same} --out again"));
    assert!(case.weights("again") == case.weights("pgm") && card("again") == card("pgm"));
    case.good(&format!("{same} --out other --seed 1"));
    assert!(case.weights("other") != case.weights("pgm"));
    let text = case.good("convert --from mdlm --out plain --encoder 1");
    assert!(text.contains("the first 1 of 3 blocks") && text.contains("12 mask tokens in a row of masks"), "{text}");
    assert!(case.training("plain")["group_swap"]["data"].is_null());
}

#[test]
fn what_cannot_be_converted_is_refused_with_the_reason() {
    let case = Case::new();
    case.good("convert --from mdlm --out pgm");
    case.data("other", "0918273645 ", 12);
    std::fs::create_dir(case.path("empty")).unwrap();
    let image = ImageConfig::new(2, [2, 3]);
    let backbone = pgm_model::BackboneConfig::for_mask_git(7, 16, 2, image);
    let config = ModelConfig::MaskGit(MaskGitConfig { backbone, n_blocks: 2 });
    let network = Network::new(&config, &Device::flex()).with_noise(0.1, 1);
    model_folder::save(&case.path("maskgit"), &config, &network).unwrap();
    case.good("fit --config masked.toml --data data --out ar --set objective=autoregressive steps=1");
    case.good("fit --config masked.toml --data data --out small --set steps=1 model.encoder=1 model.decoder=0");
    let nan = case.path("nan");
    std::fs::create_dir(&nan).unwrap();
    let masked = resolve(&case.path("mdlm")).unwrap();
    std::fs::copy(masked.join("config.json"), nan.join("config.json")).unwrap();
    let mut bytes = case.weights("mdlm");
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(nan.join("model.safetensors"), bytes).unwrap();
    for (args, says) in [
        ("--from pgm --out x", "--from pgm: is a partition model already"),
        ("--from ar --out x", "--from ar: is of the kind autoregressive; only a masked model of text"),
        ("--from maskgit --out x", "--from maskgit: is a MaskGIT of images"),
        ("--from small --out x", "has 1 block; a partition model needs an encoder block and a decoder block"),
        ("--from none --out x", "none"),
        ("--from empty --out x", "is no model folder"),
        ("--from nan --out x", "--from nan: has weights that are not finite"),
        ("--from mdlm@step-77 --out x", "no step-77 in mdlm"),
        ("--from mdlm --out pgm", "--out pgm: exists and is not empty; name a new folder"),
        ("--from mdlm --out mdlm", "--out mdlm: exists and is not empty"),
        ("--from mdlm --out masked.toml", "masked.toml"),
        (
            "--from mdlm --out x --encoder 2 --decoder 2",
            "--encoder 2 --decoder 2: does not divide the 3 blocks of mdlm",
        ),
        ("--from mdlm --out x --encoder 3", "--encoder 3: does not divide the 3 blocks"),
        ("--from mdlm --out x --decoder 7", "--decoder 7: does not divide the 3 blocks"),
        ("--from mdlm --out x --encoder 0", "--encoder 0: does not divide the 3 blocks"),
        ("--from mdlm --out x --data none", "none"),
    ] {
        let message = case.refused(&format!("convert {args}"));
        assert!(message.contains(says), "{args}: {message}");
        assert!(!case.path("x").exists(), "{args}: nothing is written");
    }
    for (args, says) in [("--queries mean", "it must be learn, "), ("--projection mlp", "it must be linear or mlp4")] {
        let output = case.run(&format!("convert --from mdlm --out x {args}"));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains(says), "{text}");
    }
}

#[test]
fn a_converted_model_learns_from_its_teacher_and_resumes_to_the_last_digit() {
    let case = Case::new();
    case.good("convert --from mdlm --out pgm --data data");
    let fit = "fit --config tune.toml --data data --init pgm";
    let text = case.good(&format!("{fit} --out whole"));
    assert!(text.contains("the weights are those of pgm"), "{text}");
    let teacher = &case.training("whole")["settings"]["teacher"];
    assert_eq!((&teacher["model"], &teacher["weight"]), (&"mdlm".into(), &1.0.into()));
    assert!(teacher["weights_crc32"].is_string());

    // Stopped after step 2, resumed to the end, with the teacher under another name.
    case.good(&format!("{fit} --out parts --set steps=2"));
    case.good("fit --config tune.toml --data data --out parts --resume --set teacher.model=mdlm@step-40");
    assert!(case.weights("parts") == case.weights("whole"));
    assert_eq!(case.figures("parts").0[1..], case.figures("whole").0[1..]);

    // Micro-batches sum to the same step, to rounding; without dropout, whose mask they would change.
    let loss = |out: &str, settings: &str| {
        case.good(&format!("{fit} --out {out} --set model.dropout=0 steps=2 {settings}"));
        case.figures(out)
    };
    let (two, one) = (loss("two", ""), loss("one", "accumulate=1"));
    assert!((two.0[0] / one.0[0] - 1.0).abs() < 1e-4, "{two:?} {one:?}");

    // The teacher is in the training loss and not in the validation, which is the plain bound.
    case.good("fit --config alone.toml --data data --init pgm --out alone --set model.dropout=0 steps=2");
    let alone = case.figures("alone");
    assert!(two.0[0] > alone.0[0] + 1e-3, "{two:?} {alone:?}");
    assert_eq!(two.1[0], alone.1[0], "at step 0 both have the same weights");
    assert!(case.weights("two") != case.weights("alone"));
    let sharp = loss("sharp", "teacher.temperature=2");
    assert!(sharp.0[0] != two.0[0] && sharp.1[0] == two.1[0], "{sharp:?} {two:?}");

    // Another teacher, or none, is refused on resume.
    case.good("fit --config masked.toml --data data --out mdlm2 --set steps=2");
    let message =
        case.refused("fit --config tune.toml --data data --out parts --resume --set teacher.model=mdlm2 steps=8");
    assert!(message.contains("teacher.weights_crc32 was "), "{message}");
    let message = case.refused("fit --config alone.toml --data data --out parts --resume --set steps=8");
    assert!(message.contains("teacher was {"), "{message}");
    let message =
        case.refused("fit --config tune.toml --data data --out parts --resume --set teacher.weight=0.5 steps=8");
    assert!(message.contains("teacher.weight was 1.0 and is now 0.5"), "{message}");

    // A picture of the runs.
    let text = case.good("curves taught=two alone --out curves.svg");
    assert!(text.contains("taught: lowest validation ") && text.contains("plot: curves.svg"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("taught: ")).count(), 2, "{text}");
    assert!(std::fs::read_to_string(case.path("curves.svg")).unwrap().contains("taught"));
    assert!(case.refused("curves two --out curves.png").contains("must end in .svg"));
    assert!(case.refused("curves data --out x.svg").contains("has no metrics.jsonl with a validation"));
}

#[test]
fn a_teacher_that_does_not_fit_is_refused_by_what_differs() {
    let case = Case::new();
    case.good("convert --from mdlm --out pgm");
    case.data("short", SENTENCE, 9);
    case.good("fit --config masked.toml --data short --out mdlm9 --set steps=1 model.length=9");
    let changed = case.path("changed");
    std::fs::create_dir(&changed).unwrap();
    let masked = resolve(&case.path("mdlm")).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(masked.join(file), changed.join(file)).unwrap();
    }
    std::fs::write(changed.join("tokenizer.json"), "{}").unwrap();
    let fit = "fit --config tune.toml --data data --init pgm --out x --set";
    for (settings, says) in [
        ("teacher.model=pgm", "teacher.model = pgm: is of the kind partition; the teacher must be a masked model"),
        ("teacher.model=none", "none"),
        ("teacher.model=mdlm@first", "best, last or step-N"),
        ("teacher.model=mdlm9", "teacher.model = mdlm9: has 9 tokens in a row, the data has 12"),
        ("teacher.model=changed", "teacher.model changed: has another tokenizer than the data"),
        ("teacher.weight=-1", "teacher.weight = -1 must be positive"),
        ("teacher.power=2", "unknown key teacher.power"),
    ] {
        let message = case.refused(&format!("{fit} {settings}"));
        assert!(message.contains(says), "{settings}: {message}");
    }
    let message = case.refused("fit --config masked.toml --data data --out x --set teacher.model=mdlm");
    assert!(message.contains("[teacher] has no effect with objective = \"masked\""), "{message}");
}
