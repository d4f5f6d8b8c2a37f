//! The validations of a run: an untrained model has the likelihood of a uniform one at every size.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use burn::train::Interrupter;
use pgm_data::{DataFolder, Mode, Prepare, TextInputs, TextTokenizer, Validation, prepare};
use pgm_train::eval::{self, EvalModel, PplSettings, ResultLog};
use pgm_train::history::{self, Line, ValidationLine};
use pgm_train::{Fit, NelboEstimator, TrainConfig, World, fit};
use serde_json::json;

fn data(out: &Path, length: usize, n_rows: usize) -> DataFolder {
    let text = out.with_extension("txt");
    let words = ["the cat", " sat on", " a mat.", "\n", " It saw ", "dogs"];
    let n_words = 2 * n_rows * length / 4;
    std::fs::write(&text, (0..n_words).map(|i| words[(i * i + i / 5) % 6]).collect::<String>()).unwrap();
    let what = Prepare {
        inputs: &TextInputs::resolve(&[text.display().to_string()], "text", "text").unwrap(),
        validation: &Validation::Fraction(0.5),
        tokenizer: &TextTokenizer::bytes(),
        length,
        mode: Mode::Pack,
        row_eos: false,
        out,
    };
    prepare(&what, &mut |_| ControlFlow::Continue(())).unwrap();
    DataFolder::open(out).unwrap()
}

fn run(folder: &Path, data: &Path, out: &str, settings: &[String]) -> ValidationLine {
    let toml = "objective = \"partition\"\nsteps = 1\nbatch = 16\n[model]\nhidden = 8\nheads = 1\nencoder = 1\n\
                decoder = 1\nlength = 64\n[optim]\nlr = 1e-30\nwarmup = 0\nema = 0.0\n";
    let result = fit(Fit {
        config: &TrainConfig::parse(toml, "test", settings).unwrap(),
        data,
        out: &folder.join(out),
        init: None,
        resume: false,
        device: &Device::flex(),
        interrupter: Interrupter::new(),
        renderer: None,
        observe: Arc::new(|_| ()),
        world: World::alone(),
    });
    result.unwrap().validation.unwrap()
}

#[test]
fn an_untrained_model_has_the_likelihood_of_a_uniform_one_at_five_sizes() {
    let folder = tempfile::tempdir().unwrap();
    for (n_rows, length) in [(3, 16), (66, 64), (64, 128), (256, 128), (17, 96)] {
        let name = format!("{n_rows}x{length}");
        let data_path = folder.path().join(&name);
        let data = data(&data_path, length, n_rows + 2);
        for objective in ["partition", "masked", "masked-complementary", "autoregressive"] {
            if objective != "partition" && n_rows > 17 {
                continue;
            }
            let settings =
                [format!("model.length={length}"), format!("validate_rows={n_rows}"), format!("objective={objective}")];
            let out = format!("run-{name}-{objective}");
            let line = run(folder.path(), &data_path, &out, &settings);
            let exact = 257_f64.ln();
            assert!((line.val_nelbo - exact).abs() < 1e-5, "{name}, {objective}: {line:?}");
            let [low, high] = line.val_nelbo_interval.unwrap();
            assert!((low - exact).abs() < 1e-5 && (high - exact).abs() < 1e-5, "{line:?}");
            // The file has the interval, and the model in the folder has the same bound by `eval ppl`.
            let lines = history::read(&folder.path().join(&out)).unwrap();
            assert_eq!(lines.last(), Some(&Line::Validation(line)));
            let model = EvalModel::load(&folder.path().join(&out).join("model"), &Device::flex()).unwrap();
            let settings = PplSettings { rows: n_rows, times: 1, batch: 16, ..PplSettings::default() };
            let log = ResultLog::open(None, &json!({})).unwrap();
            let report = eval::ppl(&model, &data, &settings, log, &mut |_, _| ControlFlow::Continue(())).unwrap();
            assert_eq!(report.rows, n_rows);
            let found = report.nats_per_token.unwrap().value;
            assert!((found - exact).abs() < 1e-5, "{name}, {objective}: {found}");
        }
    }
}

#[test]
fn both_estimators_of_a_trained_model_and_eval_ppl_agree_within_their_intervals() {
    let folder = tempfile::tempdir().unwrap();
    let data_path = folder.path().join("data");
    let data = data(&data_path, 24, 60);
    let settings = |more: &[&str]| -> Vec<String> {
        let all = ["model.length=24", "model.hidden=16", "steps=60", "optim.lr=1e-2", "validate_rows=0"];
        all.iter().chain(more).map(|setting| (*setting).to_string()).collect()
    };
    let any_order = run(folder.path(), &data_path, "any-order", &settings(&[]));
    let mdlm = run(folder.path(), &data_path, "mdlm", &settings(&["validate_estimator=mdlm", "validate_times=16"]));
    let model = EvalModel::load(&folder.path().join("any-order/model"), &Device::flex()).unwrap();
    let of = |estimator| {
        let settings = PplSettings { times: 32, batch: 16, estimator, ..PplSettings::default() };
        let log = ResultLog::open(None, &json!({})).unwrap();
        let report = eval::ppl(&model, &data, &settings, log, &mut |_, _| ControlFlow::Continue(())).unwrap();
        report.nats_per_token.unwrap().interval.unwrap()
    };
    let config = std::fs::read_to_string(folder.path().join("any-order/model/tokenizer_config.json")).unwrap();
    assert!(config.contains("\"bos_token\": \"<|endoftext|>\"") && config.contains("\"mask_token\""), "{config}");
    assert!(any_order.val_nelbo < 4.0, "the model has learned: {any_order:?}");
    let all = [
        any_order.val_nelbo_interval.unwrap(),
        mdlm.val_nelbo_interval.unwrap(),
        of(NelboEstimator::AnyOrder),
        of(NelboEstimator::Mdlm),
    ];
    for a in &all {
        assert!(all.iter().all(|b| a[0] < b[1] && b[0] < a[1]), "{all:?}");
    }
}
