//! `pgm-train fit` as people use it: models of unfinished runs, the best model, early stopping, fine-tuning, changed
//! settings, runs that diverge, two runs in one folder. Each run is a process.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use pgm_data::{Mode, Prepare, TextInputs, TextTokenizer, Validation, prepare};
use pgm_infer::TextModel;
use pgm_model::model_folder::{self, resolve};
use pgm_model::{Sets, WeightDtype, model_folder::to_published};
use pgm_train::history::{self, Line};
use serde_json::Value;

const TOML: &str = "
objective = \"partition\"
steps = 12
batch = 4
log_every = 4
validate_every = 4
validate_rows = 4
checkpoint_every = 4
checkpoint_keep = 2
";
const MODEL: &str = "[model]\nhidden = 16\nheads = 2\nencoder = 1\ndecoder = 1\nlength = 12\n";
const OPTIM: &str = "[optim]\nlr = 1e-2\nwarmup = 2\nema = 0.9\n";

const SENTENCE: &str = "the cat sat on the mat and the dog ate the hat. ";

/// A folder for the runs of a test.
struct Case(tempfile::TempDir);

impl Case {
    fn new() -> Self {
        let case = Self(tempfile::tempdir().unwrap());
        case.data("data", &SENTENCE.repeat(40), 12);
        std::fs::write(case.path("run.toml"), format!("{TOML}{MODEL}{OPTIM}")).unwrap();
        std::fs::write(case.path("tune.toml"), format!("{}{OPTIM}", TOML.replace("objective = \"partition\"\n", "")))
            .unwrap();
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn data(&self, name: &str, text: &str, length: usize) {
        let file = self.path("text.txt");
        std::fs::write(&file, text).unwrap();
        let what = Prepare {
            inputs: &TextInputs::resolve(&[file.display().to_string()], "text", "text").unwrap(),
            validation: &Validation::Fraction(0.1),
            tokenizer: &TextTokenizer::bytes(),
            length,
            mode: Mode::Pack,
            row_eos: false,
            out: &self.path(name),
        };
        prepare(&what, &mut |_| ControlFlow::Continue(())).unwrap();
    }

    /// `pgm-train fit` with these arguments, on the usual configuration and data unless they say otherwise.
    fn command(&self, out: &str, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgm-train"));
        command.current_dir(self.0.path()).args(["fit", "--device", "flex", "--out", out]);
        for (flag, value) in [("--config", "run.toml"), ("--data", "data")] {
            if !args.contains(flag) {
                command.args([flag, value]);
            }
        }
        command.args(args.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What the command prints.
    fn fit(&self, out: &str, args: &str) -> String {
        let output = self.command(out, args).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{args}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Its error.
    fn refused(&self, out: &str, args: &str) -> String {
        let output = self.command(out, args).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args}: {text}");
        assert!(text.starts_with("pgm-train: ") && text.trim_end().lines().count() == 1, "{text}");
        text
    }

    /// Starts a run and waits for a file of it.
    fn started(&self, out: &str, args: &str, file: &str) -> Child {
        let mut child = self.command(out, args).stdout(Stdio::null()).spawn().unwrap();
        let (file, give_up) = (self.path(out).join(file), Instant::now() + Duration::from_secs(120));
        while !file.exists() {
            assert!(
                child.try_wait().unwrap().is_none() && Instant::now() < give_up,
                "{} is not written",
                file.display()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        child
    }

    /// The weights of the model that `name` names.
    fn weights(&self, name: &str) -> Vec<u8> {
        std::fs::read(resolve(&self.path(name)).unwrap().join("model.safetensors")).unwrap()
    }

    fn training(&self, name: &str) -> Value {
        let json = std::fs::read(resolve(&self.path(name)).unwrap().join("training.json")).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    fn validations(&self, out: &str) -> Vec<(usize, f64, bool)> {
        let line = |line: Line| match line {
            Line::Validation(line) => Some((line.step, line.val_nelbo, line.best)),
            Line::Train(_) => None,
        };
        history::read(&self.path(out)).unwrap().into_iter().filter_map(line).collect()
    }
}

#[test]
fn a_killed_run_is_a_model_and_says_which_models_it_has() {
    let case = Case::new();
    case.fit("whole", "");
    let mut child = case.started("run", "--set steps=100000", "checkpoints/step-00000012");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!case.path("run/model").exists());
    // The averaged weights of a step are those of an unbroken run at the same step.
    let newest = case.training("run")["step"].as_u64().unwrap();
    assert!(newest >= 12 && newest.is_multiple_of(4));
    assert_eq!(case.training(&format!("run@step-{newest}"))["step"], newest);
    case.fit("again", &format!("--set steps={newest}"));
    assert!(case.weights("run") == case.weights("again"), "the weights differ");
    for name in ["run", "run@last", "run@best", "whole", "whole@best", "whole@step-12", "whole@step-8"] {
        let model = TextModel::load(&case.path(name), &Device::flex()).unwrap();
        assert_eq!(model.generation().steps, Some(128), "{name}");
        assert_eq!(case.training(name)["settings"]["batch"], 4);
    }
    assert!(case.weights("whole") == case.weights("whole@step-12"));
    assert!(case.weights("whole") != case.weights("whole@step-8"));
    let message = resolve(&case.path("whole@step-3")).unwrap_err().to_string();
    assert!(
        message.contains("no step-3 in ") && message.contains("there are step-8, step-12, best (step 12)"),
        "{message}"
    );

    // `eval` takes the same names, and says which folder it took.
    let eval = |model: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgm-train"));
        command
            .current_dir(case.0.path())
            .args(["eval", "ppl", "--device", "flex", "--data", "data", "--model", model]);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (succeeds, text) = eval("whole@step-8");
    assert!(succeeds && text.contains("\"folder\":\"whole/checkpoints/step-00000008\""), "{text}");
    assert!(eval("run@best").0);
    let (succeeds, text) = eval("whole@step-9");
    assert!(!succeeds && text.contains("no step-9 in whole; there are step-8"), "{text}");
}

#[test]
fn the_best_model_is_kept_and_patience_ends_the_run() {
    let case = Case::new();
    // The validation text has bytes that the training text has not.
    case.data("odd", &format!("{}{}", SENTENCE.repeat(30), "0918273645 ".repeat(20)), 12);
    let settings = "--data odd --set steps=40 validate_every=3 checkpoint_every=4 checkpoint_keep=1 optim.ema=0";
    let text = case.fit("run", &format!("{settings} patience=2"));
    let validations = case.validations("run");
    let lowest = validations.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let (last, best) = (validations.last().unwrap().0, lowest.0);
    assert!(lowest.2 && last < 40 && last == best + 6, "two validations after the lowest: {validations:?}");
    assert!(
        text.contains(&format!("note: the run ends at step {last} of 40: none of the last 2 validations")),
        "{text}"
    );
    assert!(text.contains(&format!("the validation was lowest at step {best}")) && text.contains("run@best"), "{text}");
    assert_eq!(case.training("run")["step"], last, "the final model is the last one");
    assert_eq!(
        (case.training("run@best")["step"].clone(), case.training("run@best")["validation"]["step"].clone()),
        (best.into(), best.into())
    );
    assert!(case.weights("run") != case.weights("run@best"));
    assert!(case.path(&format!("run/checkpoints/step-{last:08}")).exists());

    // Resumed as it is, it is at its end; with more patience it goes on as an unbroken run does.
    assert!(case.fit("run", &format!("--resume {settings} patience=2")).contains(&format!("from step {last}")));
    case.fit("run", &format!("--resume {settings} patience=0 steps=24"));
    case.fit("whole", &format!("{settings} steps=24"));
    assert!(case.weights("run") == case.weights("whole") && case.weights("run@best") == case.weights("whole@best"));
    assert_eq!(case.training("run")["step"], 24);
    assert_eq!(case.validations("run"), case.validations("whole"));

    // Stopped between two validations and resumed, it ends at the same step.
    let mut child = case.started("killed", &format!("{settings} patience=2"), "checkpoints/step-00000004");
    child.kill().unwrap();
    child.wait().unwrap();
    case.fit("killed", &format!("--resume {settings} patience=2"));
    assert_eq!(case.training("killed")["step"], last);
    // Validations that are computed otherwise are not compared with those before.
    let text = case.fit("killed", &format!("--resume {settings} patience=2 validate_rows=3 steps={}", last + 4));
    assert!(text.contains("note: validations are computed otherwise"), "{text}");
    assert_eq!(case.training("killed")["step"], last + 4);
}

#[test]
fn fine_tuning_starts_from_a_model_and_needs_no_section_model() {
    let case = Case::new();
    case.fit("base", "");
    case.data("other", &SENTENCE.replace("cat", "cow").repeat(40), 12);
    let text =
        case.fit("tuned", "--config tune.toml --data other --init base@best --set steps=8 batch=2 optim.lr=1e-3");
    assert!(text.contains("from step 0"), "{text}");
    let init = &case.training("tuned")["settings"]["init"];
    assert_eq!((&init["model"], init["step"].as_u64()), (&"base@best".into(), Some(12)));
    assert!(case.weights("tuned") != case.weights("base"));

    // The weights before the first step are those of the model, also of one with another dtype and of another length.
    case.data("short", &SENTENCE.repeat(40), 9);
    let still = "--config tune.toml --data short --set steps=4 optim.lr=1e-30";
    let text = case.fit("still", &format!("{still} --init base"));
    assert!(text.contains("note: the rows have 9 tokens, --init base was trained on rows of 12"), "{text}");
    assert!(!text.contains("embedding_scale"), "{text}");
    assert!(case.weights("still@best") == case.weights("base") && case.training("still@best")["step"] == 0);
    let text = case.fit("scaled", "--init base --set model.embedding_scale=5 steps=2 optim.warmup=1");
    assert!(text.contains("note: model.embedding_scale has no effect: with --init"), "{text}");
    let (config, network) = model_folder::load(&case.path("base"), &Device::flex()).unwrap();
    let half = case.path("half");
    std::fs::create_dir(&half).unwrap();
    for file in ["config.json", "tokenizer.json"] {
        std::fs::copy(case.path("base/model").join(file), half.join(file)).unwrap();
    }
    std::fs::write(half.join("model.safetensors"), to_published(&network, &config, WeightDtype::BF16).unwrap())
        .unwrap();
    case.fit("still-half", &format!("{still} --init half"));
    let (_, rounded) = model_folder::load(&half, &Device::flex()).unwrap();
    assert!(case.weights("still-half@best") == model_folder::to_safetensors(&rounded).unwrap());

    // The sets that it is trained with from now on are those of the model.
    case.fit("sets", "--config tune.toml --init base --set steps=2 model.sets=mix");
    case.fit("no-sets", "--config tune.toml --init sets --set steps=2 model.sets=one");
    let sets = |run: &str| model_folder::load_config(&case.path(run).join("model")).unwrap().sets();
    assert_eq!(["base", "sets", "no-sets"].map(sets), [Sets::One, Sets::Mix, Sets::One]);
    let message = case.refused("x", "--set objective=masked model.sets=mix");
    assert!(message.contains("model.sets is for partition models"), "{message}");

    // A masked model may go on with the other loss of its kind, and its blocks are counted together.
    case.fit("masked", "--set objective=masked steps=2");
    case.fit("masked-tuned", "--config tune.toml --init masked --set objective=masked-complementary steps=2");
    case.fit("masked-again", "--init masked --set objective=masked model.encoder=2 model.decoder=0 steps=2");
    let message = case.refused("x", "--init masked --set objective=masked model.encoder=3");
    assert!(message.contains("has model.encoder + model.decoder = 2, the configuration says 4"), "{message}");

    // Resumed, it keeps its architecture and needs neither the model nor the section.
    let generation = case.path("base/model/generation_config.json");
    std::fs::write(&generation, r#"{"steps": 16, "temperature": 0.7}"#).unwrap();
    case.fit("parts", "--config tune.toml --data other --init base --set steps=4");
    case.fit("parts", "--config tune.toml --data other --resume --set steps=8");
    case.fit("parts-whole", "--config tune.toml --data other --init base --set steps=8");
    assert!(case.weights("parts") == case.weights("parts-whole"));
    assert_eq!(case.training("parts")["settings"]["init"]["model"], "base");
    let generation = std::fs::read(generation).unwrap();
    for run in ["parts", "parts-whole"] {
        assert_eq!(std::fs::read(case.path(run).join("model/generation_config.json")).unwrap(), generation, "{run}");
    }
    let message = case.refused("parts", "--config tune.toml --data other --resume --init base@step-8 --set steps=9");
    assert!(message.contains("--init was base (weights ") && message.contains("and is now base@step-8"), "{message}");
}

#[test]
fn a_model_that_does_not_fit_the_run_is_refused_by_what_differs() {
    let case = Case::new();
    case.fit("base", "--set steps=1");
    case.data("short", &SENTENCE.repeat(40), 9);
    for (args, says) in [
        ("--config tune.toml --init base --set model.hidden=32", "has model.hidden = 16, the configuration says 32"),
        ("--config tune.toml --init base --set model.queries=learn", "has model.queries = learn+freqs"),
        ("--init base --set model.decoder=2", "has model.decoder = 1, the configuration says 2"),
        ("--init base --set objective=masked", "is a partition model, which objective = \"masked\" does not train"),
        ("--init base@step-9", "no step-9 in base; there are step-1"),
        ("--init none", "cannot read none/config.json"),
        ("--init base --data short", "the data's rows have 9 tokens"),
        ("--config tune.toml", "the section [model] is missing; add it, or start from a model with --init"),
    ] {
        let message = case.refused("tuned", args);
        assert!(message.contains(says), "{args}: {message}");
        assert!(!case.path("tuned").exists(), "{args}");
    }
    // A tokenizer of another model.
    let tokenizer = case.path("base/model/tokenizer.json");
    std::fs::write(
        &tokenizer,
        std::fs::read_to_string(&tokenizer)
            .unwrap()
            .replace("\"normalizer\":null", "\"normalizer\":{\"type\":\"Lowercase\"}")
            .replace("\"normalizer\": null", "\"normalizer\": {\"type\":\"Lowercase\"}"),
    )
    .unwrap();
    let message = case.refused("tuned", "--init base");
    assert!(message.contains("has another tokenizer than the data"), "{message}");
}

#[test]
fn a_resumed_run_may_change_what_does_not_change_the_past() {
    let case = Case::new();
    // A schedule that decays at its end can be made longer before the decay, and a constant one may turn into it.
    let wsd = "optim.schedule=wsd optim.decay_share=0.25 optim.floor=0.1";
    case.fit("whole", &format!("--set steps=20 {wsd}"));
    for (name, first) in [("wsd", "optim.schedule=wsd optim.decay_share=0.1"), ("constant", "")] {
        case.fit(name, &format!("--set steps=8 {first}"));
        let free = "log_every=2 validate_every=5 checkpoint_every=3 checkpoint_keep=1 patience=9";
        case.fit(name, &format!("--resume --set steps=20 {wsd} {free}"));
        assert!(case.weights(name) == case.weights("whole"), "{name}");
    }
    let message = case.refused("whole", &format!("--resume --set steps=30 {wsd}"));
    assert!(message.contains("steps was 20 and is now 30; with optim.schedule = \"wsd\""), "{message}");

    // A stopped run that ends where it stands has a validation of its last step.
    let short = "steps=7 validate_every=5 checkpoint_every=3";
    case.fit("short", &format!("--set {short}"));
    std::fs::remove_dir_all(case.path("short/model")).unwrap();
    let metrics = case.path("short/metrics.jsonl");
    let text = std::fs::read_to_string(&metrics).unwrap();
    let (rest, last) = text.trim_end().rsplit_once('\n').unwrap();
    assert!(last.contains("val_nelbo"), "{last}");
    std::fs::write(&metrics, format!("{rest}\n")).unwrap();
    let steps = || case.validations("short").iter().map(|(step, ..)| *step).collect::<Vec<_>>();
    assert_eq!(steps(), [0, 5]);
    assert!(case.fit("short", &format!("--resume --set {short}")).contains("step 7  validation"));
    assert_eq!(steps(), [0, 5, 7]);

    // A cosine over all steps cannot, and the sentence says why and what to do. `optim.decay` is the former name.
    case.fit("cosine", "--set steps=8 optim.decay=cosine");
    let message = case.refused("cosine", "--resume --set steps=12 optim.decay=cosine");
    for says in
        ["steps was 8 and is now 12", "optim.schedule = \"cosine\"", "the 8 steps that are done", "--init cosine"]
    {
        assert!(message.contains(says), "{message}");
    }
    let message = case.refused("cosine", "--resume --set steps=8");
    assert!(message.contains("optim.schedule was \"cosine\" and is now \"constant\""), "{message}");
    let message = case.refused("cosine", "--resume --set steps=4 optim.decay=cosine");
    assert!(message.contains("steps was 8 done and is now 4"), "{message}");
    let message = case.refused("cosine", "--resume --set steps=8 optim.decay=cosine optim.lr=1 optim.warmup=3");
    assert!(message.contains("optim.lr was 0.01 and is now 1.0"), "{message}");
    let message = case.refused("x", "--set optim.decay=cosine optim.schedule=linear");
    assert!(message.contains("optim.decay is the former name of optim.schedule"), "{message}");
}

#[test]
fn a_run_that_diverges_names_the_step_and_keeps_the_last_good_checkpoint() {
    let case = Case::new();
    // Each step multiplies the weights by about -999.
    let wild = "optim.lr=1e-3 optim.warmup=0 optim.weight_decay=1e6 optim.clip=0 steps=60 validate_every=60";
    let step = |message: &str| -> usize {
        let rest = message.split("not finite at step ").nth(1).unwrap_or_else(|| panic!("{message}"));
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    let message = case.refused("wild", &format!("--set {wild} checkpoint_every=2 log_every=60"));
    assert!(message.contains("training diverged: the ") && message.contains("optim.lr"), "{message}");
    for says in ["(loss ", "gradient norm ", "learning rate 1e-3", "its model is wild@step-"] {
        assert!(message.contains(says), "{message}");
    }
    let kept = case.training("wild")["step"].as_u64().unwrap() as usize;
    assert!(kept >= 2 && kept < step(&message), "{message}");
    assert!(message.contains(&format!("wild@step-{kept};")), "{message}");
    let model = TextModel::load(&case.path("wild"), &Device::flex()).unwrap();
    assert!(model.n_parameters() > 0 && !case.path("wild/model").exists());

    // A distillation says it, too; and weights that are no numbers from the start are refused before any step.
    case.fit("base", "");
    std::fs::write(case.path("distill.toml"), "rounds = 1\nround_steps = 60\nbatch = 2\nteacher_steps = 32\n").unwrap();
    let mut distill = Command::new(env!("CARGO_BIN_EXE_pgm-train"));
    distill.current_dir(case.0.path()).args([
        "distill",
        "--device",
        "flex",
        "--config",
        "distill.toml",
        "--data",
        "data",
    ]);
    distill
        .args(["--teacher", "base", "--out", "distilled", "--set"])
        .args(wild.split(' ').filter(|set| !set.starts_with("steps")));
    let output = distill.output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(1) && step(&message) < 60 && message.contains("distilled/round-1"),
        "{message}"
    );
    let weights = case.path("base/model/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&weights, bytes).unwrap();
    let message = case.refused("nan", "--init base");
    assert!(message.contains("--init base") && message.contains("has weights that are not finite"), "{message}");

    // The step does not depend on how often the numbers are read.
    let at = |name: &str, every: usize| {
        let settings = format!("--set {wild} checkpoint_every=60 log_every={every}");
        step(&case.refused(name, &settings))
    };
    let (often, rarely) = (at("often", 1), at("rarely", 60));
    assert!(often == rarely && often > 2, "{often} and {rarely}");
}

#[test]
fn two_runs_do_not_share_a_folder() {
    let case = Case::new();
    let mut child = case.started("run", "--set steps=100000", "checkpoints/step-00000004");
    for args in ["", "--resume --set steps=100000"] {
        let message = case.refused("run", args);
        assert!(message.contains("run is in use by another training"), "{message}");
        #[cfg(unix)]
        assert!(message.contains(&format!("(process {})", child.id())), "{message}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let message = case.refused("run", "");
    assert!(message.contains("holds a run already; continue it with --resume"), "{message}");
    let done = case.training("run")["step"].as_u64().unwrap();
    case.fit("run", &format!("--resume --set steps={}", done + 1));
    assert!(case.refused("run", "").contains("holds a run already"));

    // A distillation is no different, and takes a run as its teacher.
    std::fs::write(case.path("distill.toml"), "rounds = 1\nround_steps = 2\nbatch = 2\nteacher_steps = 32\n").unwrap();
    let distill = |teacher: &str, out: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgm-train"));
        command.current_dir(case.0.path()).args(["distill", "--device", "flex", "--config", "distill.toml"]);
        let output = command.args(["--data", "data", "--teacher", teacher, "--out", out]).args(more).output().unwrap();
        (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (succeeds, text) = distill("run@best", "distilled", &[]);
    assert!(succeeds, "{text}");
    assert_eq!(case.training("distilled")["settings"]["teacher"], "run@best");
    assert!(case.weights("distilled/round-1@step-2") == case.weights("distilled"));
    let message = resolve(&case.path("distilled/round-1@best")).unwrap_err().to_string();
    assert!(
        message.contains("no best in ") && message.contains("there are step-2, the final model (step 2)"),
        "{message}"
    );
    for out in ["distilled", "run"] {
        let (succeeds, text) = distill("run", out, &[]);
        assert!(!succeeds && text.contains("holds a run already"), "{text}");
    }
    assert!(case.refused("distilled", "").contains("holds a run already"));
    let (succeeds, text) = distill("run@step-1", "x", &[]);
    assert!(!succeeds && text.contains("no step-1 in run"), "{text}");
    let (succeeds, text) = distill("run", "x", &["--set", "patience=3"]);
    assert!(!succeeds && text.contains("unknown key patience"), "{text}");
}

#[test]
#[cfg(not(feature = "mpi"))]
fn a_program_without_mpi_does_not_run_as_one_of_several_processes() {
    let case = Case::new();
    for (variable, launcher) in
        [("OMPI_COMM_WORLD_SIZE", "mpirun"), ("PMI_SIZE", "mpiexec"), ("SLURM_STEP_NUM_TASKS", "srun")]
    {
        let output = case.command("run", "").env(variable, "2").output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        let says =
            format!("{launcher} started 2 processes, but this program trains in one; build it with --features mpi");
        assert!(!output.status.success() && message.contains(&says), "{message}");
        assert!(!case.path("run").exists());
    }
    assert!(case.command("run", "").env("OMPI_COMM_WORLD_SIZE", "1").status().unwrap().success());
}
