//! The frontier of several samplers: against its parts, after a stop, and as a command.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use burn::tensor::Device;
use pgm_data::{DataFolder, Mode, TextTokenizer};
use pgm_model::{
    AutoregressiveConfig, BackboneConfig, ModelConfig, Network, PartitionConfig, Projection, Queries, model_folder,
};
use pgm_train::TrainError;
use pgm_train::eval::frontier::{FrontierInputs, FrontierJudge, FrontierModel, FrontierProgress, Phase};
use pgm_train::eval::{self, EvalModel, Frontier, FrontierSettings, GenerativeSettings, ResultLog, frontier};
use pgm_train::judge::{JudgeSettings, OwnJudge, Sample, judge_samples, write_samples};
use serde_json::{Value, json};

mod common;
use common::byte_data;

const LENGTH: usize = 24;
const TEMPERATURES: [f64; 4] = [1.5, 0.6, 0.2, 0.05];

fn save_model(folder: &Path, kind: &str) -> PathBuf {
    let tokenizer = TextTokenizer::bytes();
    let mut backbone = BackboneConfig { cond_dim: 8, ..BackboneConfig::new(tokenizer.vocab_size(), 16, 2, LENGTH) };
    let special = tokenizer.special();
    backbone.mask_index = special.mask as usize;
    backbone.bos_index = special.bos as usize;
    backbone.eos_index = special.eos as usize;
    backbone.pad_index = None;
    let partition = ModelConfig::Partition(PartitionConfig {
        backbone: backbone.clone(),
        encoder_blocks: 1,
        decoder_blocks: 1,
        queries: Queries::default(),
        projection: Projection::default(),
        sets: Default::default(),
    });
    let config = match kind {
        "pgm" => partition,
        "masked" => partition.masked_baseline(),
        _ => ModelConfig::Autoregressive(AutoregressiveConfig { backbone, n_blocks: 2 }),
    };
    let seed = kind.len() as u64;
    let network = Network::new(&config, &Device::flex()).with_noise(0.6, seed);
    let folder = folder.join(kind).join("model");
    std::fs::create_dir_all(&folder).unwrap();
    model_folder::save(&folder, &config, &network).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer.json()).unwrap();
    folder
}

fn prepared(folder: &Path, mode: Mode) -> DataFolder {
    let lines: Vec<String> = (0..60).map(|i| format!("line {i} says {}", "abcdefgh".repeat(i % 3 + 1))).collect();
    // A padded row holds one document.
    let (name, text): (&str, String) = match mode {
        Mode::Pack => ("text.txt", lines.iter().map(|line| format!("{line}\n")).collect()),
        Mode::Pad => ("text.jsonl", lines.iter().map(|line| format!("{{\"text\":\"{line}\"}}\n")).collect()),
    };
    std::fs::write(folder.join(name), text).unwrap();
    byte_data(&folder.join(name), &folder.join(format!("{mode:?}")), (LENGTH, mode), 0.4)
}

// Models, a judge and data in a temporary folder.
struct Setup {
    folder: tempfile::TempDir,
    models: Vec<FrontierModel>,
    judge: FrontierJudge,
    data: DataFolder,
}

impl Setup {
    fn new(mode: Mode) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = prepared(folder.path(), mode);
        let model = |kind: &str| {
            let model = EvalModel::load(&save_model(folder.path(), kind), &Device::flex()).unwrap();
            FrontierModel { name: kind.to_string(), model, refresh: None }
        };
        let models = ["pgm", "masked", "ar"].map(model).into();
        let judge = FrontierJudge::open(&save_model(folder.path(), "judge"), &data, &Device::flex()).unwrap();
        Self { folder, models, judge, data }
    }

    fn run(
        &self,
        settings: &FrontierSettings,
        out: &str,
        observe: &mut dyn FnMut(&FrontierProgress) -> ControlFlow<()>,
    ) -> Result<Frontier, TrainError> {
        let Self { models, judge, data, .. } = self;
        let inputs = FrontierInputs { models, judge, data, device_name: "flex" };
        frontier(&inputs, settings, &self.folder.path().join(out), observe)
    }
}

fn settings() -> FrontierSettings {
    FrontierSettings {
        temperatures: TEMPERATURES.to_vec(),
        steps: vec![6, 2],
        samples: 6,
        batch: 4,
        runs: 1,
        seed: 5,
        ..FrontierSettings::default()
    }
}

fn go_on(_: &FrontierProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

// Without what depends on the clock.
fn without_times(frontier: &Frontier) -> Value {
    let mut value = serde_json::to_value(frontier).unwrap();
    value["equal_time"] = Value::Null;
    for curve in value["curves"].as_array_mut().unwrap() {
        curve["wall_time"] = Value::Null;
    }
    value
}

#[test]
fn every_point_is_what_the_judge_says_about_the_samples_of_its_settings() {
    let setup = Setup::new(Mode::Pack);
    let found = setup.run(&settings(), "out", &mut go_on).unwrap();
    let names: Vec<&str> = found.curves.iter().map(|curve| curve.name.as_str()).collect();
    assert_eq!(names, ["pgm, 2 steps", "pgm, 6 steps", "masked, 2 steps", "masked, 6 steps", "ar"]);
    assert_eq!((found.held_out.rows, found.length), (6, LENGTH));
    let judge = OwnJudge::load(&setup.folder.path().join("judge/model"), &Device::flex()).unwrap();
    for curve in &found.curves {
        let model = &setup.models.iter().find(|model| model.name == curve.variant.model).unwrap().model;
        let temperatures: Vec<f64> = curve.points.iter().map(|point| point.temperature).collect();
        assert_eq!(temperatures, TEMPERATURES);
        assert!(curve.wall_time.median > 0.0 && curve.wall_time.least <= curve.wall_time.most);
        for point in &curve.points {
            let sampling = GenerativeSettings {
                samples: 6,
                length: LENGTH,
                steps: curve.variant.steps.unwrap_or(LENGTH - 1),
                temperature: point.temperature,
                seed: 5,
                ..GenerativeSettings::default()
            };
            let log = ResultLog::open(None, &json!({})).unwrap();
            let batches = eval::sample_texts(model, &sampling, log, &mut |_, _| ControlFlow::Continue(())).unwrap();
            let samples: Vec<Sample> = batches.into_iter().flat_map(|batch| batch.samples).collect();
            let judging = JudgeSettings { same_tokens: true, seed: 5, ..JudgeSettings::default() };
            let report = judge_samples(&judge, &samples, &judging, &mut |_, _| ControlFlow::Continue(())).unwrap();
            let same = |found: f64, expected: f64| (found / expected - 1.0).abs() < 1e-4;
            assert!(same(point.perplexity.unwrap().value, report.paper.perplexity.unwrap().value), "{}", curve.name);
            assert!(same(point.entropy.unwrap().value, report.entropy_model_tokens.unwrap().value), "{}", curve.name);
            let mauve = point.mauve.unwrap();
            assert!(mauve.score > 0.0 && mauve.score <= 1.0 && mauve.buckets == 2, "{mauve:?}");
        }
    }
    // Each matched perplexity lies between those of two neighbouring points that enclose the entropy.
    let target = found.held_out.entropy.unwrap().value;
    let mut reached = 0;
    for curve in &found.curves {
        let points: Vec<(f64, f64)> = curve
            .points
            .iter()
            .map(|point| (point.entropy.unwrap().value, point.perplexity.unwrap().value.ln()))
            .collect();
        let enclosing = points.windows(2).find(|pair| (pair[0].0 - target) * (pair[1].0 - target) <= 0.0);
        assert_eq!(curve.matched.is_some(), enclosing.is_some(), "{}", curve.name);
        if let (Some(matched), Some(pair)) = (curve.matched, enclosing) {
            let share = (target - pair[0].0) / (pair[1].0 - pair[0].0);
            let expected = pair[0].1 + share * (pair[1].1 - pair[0].1);
            assert!((matched.value.ln() - expected).abs() < 1e-9, "{}", curve.name);
            reached += 1;
        }
    }
    assert!(reached > 0, "{}", found.matched_table());
    for file in ["frontier.svg", "wall-time.svg", "frontier.csv", "frontier.md", "frontier.json"] {
        assert!(setup.folder.path().join("out").join(file).metadata().unwrap().len() > 100, "{file}");
    }
    let kept = std::fs::read(setup.folder.path().join("out/frontier.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Frontier>(&kept).unwrap(), found);
    assert!(found.text().contains("held-out text"));
}

#[test]
fn a_stopped_frontier_continues_and_takes_what_is_done() {
    let setup = Setup::new(Mode::Pack);
    let settings = FrontierSettings { temperatures: vec![1.0, 0.3], steps: vec![2], ..settings() };
    let unbroken = setup.run(&settings, "unbroken", &mut go_on).unwrap();
    // Stopped while it times, samples and judges.
    for (phase, at) in [(Phase::Timing, 2), (Phase::Sampling, 11), (Phase::Sampling, 30), (Phase::Judging, 20)] {
        let mut stop = |progress: &FrontierProgress| {
            assert!(progress.done <= progress.all && progress.seconds_left.is_none_or(|left| left >= 0.0));
            let here = progress.phase == phase && progress.done >= at && progress.done < progress.all;
            if here { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let stopped = setup.run(&settings, "stopped", &mut stop);
        assert!(matches!(stopped, Err(TrainError::Stopped)), "{phase:?}");
    }
    let found = setup.run(&settings, "stopped", &mut go_on).unwrap();
    assert_eq!(without_times(&found), without_times(&unbroken));
    // Nothing is measured again: no sampling is reported, and all that is judged is done from the start.
    let mut work = Vec::new();
    let again = setup.run(&settings, "stopped", &mut |progress| {
        work.push((progress.phase, progress.done == progress.all));
        ControlFlow::Continue(())
    });
    assert_eq!(again.unwrap(), found);
    assert_eq!(work, [(Phase::Timing, true), (Phase::Judging, true)]);
    // More samples continue the files, fewer are taken from them, and equal those of a fresh folder.
    for samples in [9, 3] {
        let settings = FrontierSettings { samples, ..settings.clone() };
        let fresh = setup.run(&settings, &format!("fresh-{samples}"), &mut go_on).unwrap();
        let continued = setup.run(&settings, "stopped", &mut go_on).unwrap();
        for (fresh, continued) in fresh.curves.iter().zip(&continued.curves) {
            for (fresh, continued) in fresh.points.iter().zip(&continued.points) {
                let (a, b) = (fresh.perplexity.unwrap().value, continued.perplexity.unwrap().value);
                assert!((a / b - 1.0).abs() < 1e-4, "{samples}: {a} {b}");
            }
        }
    }
}

#[test]
fn samples_of_other_weights_are_refused_and_names_must_differ() {
    let mut setup = Setup::new(Mode::Pack);
    let settings = FrontierSettings { temperatures: vec![1.0, 0.3], steps: vec![2], ..settings() };
    setup.run(&settings, "out", &mut go_on).unwrap();
    setup.models[0].name = "masked".into();
    let message = |setup: &Setup, settings: &FrontierSettings| {
        let error = setup.run(settings, "out", &mut go_on).unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        error
    };
    assert!(message(&setup, &settings).contains("two models have the names masked and masked"));
    setup.models.remove(1);
    let error = message(&setup, &settings);
    assert!(error.contains("masked-s2-t1-p1.jsonl") && error.contains("subject was"), "{error}");
    setup.models[0].name = "pgm".into();
    let other_seed = FrontierSettings { seed: 6, ..settings.clone() };
    assert!(message(&setup, &other_seed).contains("seed was 5 and is now 6"));
    setup.models.clear();
    assert!(message(&setup, &settings).contains("--model: is missing"));
}

#[test]
fn padded_rows_are_judged_to_their_end_and_one_temperature_sweeps_top_p() {
    let setup = Setup::new(Mode::Pad);
    let settings = FrontierSettings {
        temperatures: vec![0.8],
        top_ps: vec![0.3, 1.0],
        steps: vec![2],
        seconds: Some(1e-9),
        ..settings()
    };
    let found = setup.run(&settings, "out", &mut go_on).unwrap();
    assert!(found.curves.iter().all(|curve| curve.top_p.is_none() && curve.points[0].top_p == 1.0));
    assert!(found.curves[0].points[0].entropy.unwrap().value > found.curves[0].points[1].entropy.unwrap().value);
    assert!(found.table().contains("| top-p |"));
    // Nothing is as fast as that.
    assert!(found.equal_time.choices.iter().all(|choice| choice.curve.is_none()));
    assert!(found.sentences()[1].contains("none of its curves fits"), "{:?}", found.sentences());
}

fn command(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pgm-train")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_command_prints_tables_or_json_and_names_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    prepared(folder.path(), Mode::Pack);
    let [pgm, ar, judge] = ["pgm", "ar", "judge"].map(|kind| save_model(folder.path(), kind).display().to_string());
    let (data, out) = (folder.path().join("Pack").display().to_string(), folder.path().join("f").display().to_string());
    let common = ["eval", "frontier", "--judge", &judge, "--data", &data, "--out", &out, "-n", "4", "--runs", "1"];
    let settings = ["--temperature", "1.0,0.2", "--steps", "2", "--device", "flex", "--mauve-features", "mean"];
    let arguments: Vec<&str> = common.iter().chain(&settings).copied().collect();
    let named = format!("left=right={ar}");
    let with = |more: &[&str]| command(&arguments.iter().chain(more).copied().collect::<Vec<_>>());
    let output = with(&["--model", &pgm, "--model", &named]);
    assert!(!output.status.success() && text(&output.stderr).contains("right="), "{}", text(&output.stderr));
    let output = with(&["--model", &pgm, "--model", &format!("causal={ar}")]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    assert!(printed.contains("| pgm | 2 | 1 | ") && printed.contains("| causal | one a token | 0.2 | "), "{printed}");
    assert!(printed.contains("Within ") && printed.contains("mean over the row (autoregressive, 2 blocks, width 16)"));
    assert!(text(&output.stderr).contains("frontier.svg"), "{}", text(&output.stderr));
    let output = with(&["--model", &pgm, "--model", &format!("causal={ar}"), "--json"]);
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["curves"].as_array().unwrap().len(), 2);
    let fails = |more: &[&str], expected: &str| {
        let output = with(more);
        let message = text(&output.stderr);
        assert!(!output.status.success() && message.contains(expected), "{message}");
    };
    fails(&["--model", &pgm, "--model", &pgm], "two models have the names pgm and pgm");
    fails(&["--model", "no-such-folder"], "no-such-folder");
    fails(&["--model", &pgm, "--seconds", "0"], "--seconds is 0");
    fails(&["--model", &pgm, "--batch", "0"], "--batch is 0");
    fails(&[], "--model");
}

#[test]
fn an_own_judge_gives_mauve_of_samples_against_texts() {
    let folder = tempfile::tempdir().unwrap();
    let judge = save_model(folder.path(), "judge").display().to_string();
    let file = |name: &str, texts: &[&str]| {
        let path = folder.path().join(name);
        let sample = |text: &&str| Sample { text: text.to_string(), tokens: None };
        write_samples(&path, &texts.iter().map(sample).collect::<Vec<_>>()).unwrap();
        path.display().to_string()
    };
    let samples = file("samples.jsonl", &["one text", "another text", "a third", "and more"]);
    let others = file("others.jsonl", &["zzzz", "yyyyyyy"]);
    let arguments = ["eval", "generative", "--samples", &samples, "--judge", &judge, "--device", "flex"];
    let run = |more: &[&str]| -> Value {
        let output = command(&arguments.iter().chain(more).copied().collect::<Vec<_>>());
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let same = run(&["--mauve", &samples]);
    assert!((same["mauve"]["score"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{same}");
    assert!(same["mauve_features"].as_str().unwrap().starts_with("last hidden state of the last token"));
    let other = run(&["--mauve", &others, "--mauve-features", "mean"]);
    assert!(other["mauve"]["score"].as_f64().unwrap() < 1.0, "{other}");
    let missing = command(&arguments.iter().chain(&["--mauve", "no-such-file"]).copied().collect::<Vec<_>>());
    assert!(!missing.status.success() && text(&missing.stderr).contains("no-such-file"));
}
