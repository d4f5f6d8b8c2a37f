//! Distillation in rounds: a resumed one equals the unbroken one, and every round leaves a model that samples.
//!
//! One test: dropout draws from the device's generator, which the whole process shares.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Device;
use burn::train::Interrupter;
use pgm_data::{DataFolder, Mode, Prepare, TextInputs, TextTokenizer, Validation, prepare};
use pgm_infer::{SampleSettings, SamplingPath, TextModel};
use pgm_model::{Network, model_folder};
use pgm_train::{Distill, DistillConfig, DistillResult, TrainConfig, TrainError, TrainEvent, World, distill};

const TOML: &str = "
rounds = 3
round_steps = 5
batch = 4
accumulate = 2
seed = 3
teacher_steps = 32
log_every = 2
validate_every = 5
validate_rows = 4
checkpoint_every = 2
[optim]
lr = 1e-3
warmup = 2
ema = 0.9
";

const MODEL: &str = "
objective = \"partition\"
steps = 1
batch = 1
[model]
hidden = 16
heads = 2
encoder = 1
decoder = 1
length = 12
dropout = 0.2
";

fn data(folder: &Path) {
    let text = folder.join("text.txt");
    std::fs::write(&text, "the cat sat on the mat and the dog ate the hat. ".repeat(40)).unwrap();
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

/// A teacher whose predictions are not all the same.
fn teacher(folder: &Path, objective: &str) {
    let data = DataFolder::open(&folder.join("data")).unwrap();
    let config = TrainConfig::parse(MODEL, "test", &[format!("objective={objective}")]).unwrap();
    let config = config.model_config(data.manifest()).unwrap();
    let network = Network::new(&config, &Device::flex()).with_noise(0.3, 1);
    let out = folder.join(objective);
    model_folder::save(&out, &config, &network).unwrap();
    std::fs::write(out.join("tokenizer.json"), data.tokenizer().unwrap().json()).unwrap();
    std::fs::write(out.join("README.md"), "---\nlicense: mit\n---\n").unwrap();
}

/// Runs, stopping after `stop_after` lines of training figures.
fn run(
    folder: &Path,
    teacher: &str,
    out: &str,
    settings: &[&str],
    resume: bool,
    stop_after: Option<usize>,
) -> Result<DistillResult, TrainError> {
    let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_string()).collect();
    let interrupter = Interrupter::new();
    let (stop, n_lines) = (interrupter.clone(), AtomicUsize::new(0));
    distill(Distill {
        config: &DistillConfig::parse(TOML, "test", &settings).unwrap(),
        teacher: &folder.join(teacher),
        data: &folder.join("data"),
        out: &folder.join(out),
        resume,
        device: &Device::flex(),
        interrupter,
        observe: Arc::new(move |event| {
            if matches!(event, TrainEvent::Trained { .. })
                && Some(n_lines.fetch_add(1, Ordering::Relaxed)) == stop_after
            {
                stop.stop(None);
            }
        }),
        world: World::alone(),
    })
}

#[test]
fn a_resumed_distillation_equals_the_unbroken_one_to_the_last_digit() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    data(folder);
    let weights = |out: &str, round: usize| {
        std::fs::read(folder.join(out).join(format!("round-{round}/model/model.safetensors")))
    };
    teacher(folder, "partition");
    teacher(folder, "masked");
    std::fs::write(folder.join("masked/generation_config.json"), r#"{"steps":64,"order":"halton"}"#).unwrap();
    teacher(folder, "autoregressive");

    for (teacher, settings) in [
        ("partition", vec![]),
        ("partition", vec!["targets=both", "teacher_weights=raw", "divergence=tvd"]),
        ("masked", vec!["restart_optimiser=true", "targets=both", "temperature=0.5"]),
    ] {
        let whole = format!("whole-{teacher}-{}", settings.len());
        let finished = run(folder, teacher, &whole, &settings, false, None).unwrap();
        // 32 to 16, 16 to 8; a third round would leave its student 4 steps.
        assert!(finished.stopped_at.is_none() && finished.models.len() == 2, "{finished:?}");
        assert_ne!(weights(&whole, 1).unwrap(), weights(&whole, 2).unwrap());
        let last = TextModel::load(&finished.models[1], &Device::flex()).unwrap();
        // A student is sampled as it has learnt to be, in the teacher's order.
        let (temperature, order) = if teacher == "masked" { (0.5, "halton") } else { (1.0, "uniform") };
        for (model, steps) in finished.models.iter().zip([16, 8]) {
            let defaults = SampleSettings::for_model(&TextModel::load(model, &Device::flex()).unwrap());
            let found = (defaults.steps, defaults.draw.temperature, defaults.order.name());
            assert_eq!(found, (steps, temperature, order));
        }
        let request = last.request(&[], None, 1).unwrap();
        let settings_of_sampler = SampleSettings { steps: 4, ..SampleSettings::default() };
        let outcome = last
            .generate(&[request], &settings_of_sampler, SamplingPath::Clean, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        assert!(outcome.rows[0].complete);

        // Stopped in the first round, resumed, stopped in the second, resumed.
        let parts = format!("parts-{teacher}-{}", settings.len());
        let stopped = run(folder, teacher, &parts, &settings, false, Some(0)).unwrap();
        assert_eq!((stopped.stopped_at, stopped.models.len()), (Some(2), 0));
        let stopped = run(folder, teacher, &parts, &settings, true, Some(2)).unwrap();
        assert_eq!((stopped.stopped_at, stopped.models.len()), (Some(2), 1));
        assert!(run(folder, teacher, &parts, &settings, true, None).unwrap().stopped_at.is_none());
        for round in [1, 2] {
            assert_eq!(weights(&parts, round).unwrap(), weights(&whole, round).unwrap(), "{teacher}, round {round}");
            let card = |out: &str| {
                std::fs::read_to_string(folder.join(out).join(format!("round-{round}/model/README.md"))).unwrap()
            };
            let text = card(&whole);
            assert_eq!(card(&parts), text);
            assert!(text.contains(&format!("Round {round} of the distillation of `{teacher}`, ")), "{text}");
            assert!(text.starts_with("---\nlicense: \"mit\"\n") && text.contains("`distill.toml`:"), "{text}");
        }
    }

    // A teacher, a setting or data that do not fit are named.
    let refused = |teacher: &str, out: &str, settings: &[&str], resume: bool| {
        run(folder, teacher, out, settings, resume, None).unwrap_err().to_string()
    };
    assert!(refused("autoregressive", "x", &[], false).contains("is autoregressive"));
    assert!(refused("partition", "whole-partition-0", &[], false).contains("holds a run already"));
    // A complete distillation is checked, too.
    let message = refused("partition", "whole-partition-0", &["optim.lr=0.5"], true);
    assert!(message.contains("distill.optim.lr was 0.001 and is now 0.5"), "{message}");
    let message = refused("masked", "whole-partition-0", &[], true);
    assert!(message.contains("teacher_crc32"), "{message}");
    std::fs::write(folder.join("partition/tokenizer.json"), "{}").unwrap();
    assert!(refused("partition", "y", &[], false).contains("another tokenizer"));
}
