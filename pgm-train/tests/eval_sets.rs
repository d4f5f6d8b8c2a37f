//! Evaluations of models whose clean tokens are in ordered sets, and training batches of them.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use pgm_data::{DataFolder, Mode, Split, TextTokenizer};
use pgm_infer::sample::Refresh;
use pgm_infer::score::{OrderedRow, one_pass_nll, random_order};
use pgm_model::{BackboneConfig, ModelConfig, Network, PartitionConfig, Projection, Queries, Sets, model_folder};
use pgm_train::batches::{NetworkInputs, TrainLoader};
use pgm_train::eval::cache::{CacheSettings, cache};
use pgm_train::eval::{EvalModel, PplReport, PplSettings, ResultLog, ppl};
use pgm_train::{TrainConfig, TrainError};
use serde_json::json;

mod common;
use common::byte_data;

const LENGTH: usize = 20;

fn save_model(folder: &Path, sets: Sets) -> PathBuf {
    let tokenizer = TextTokenizer::bytes();
    let special = tokenizer.special();
    let backbone = BackboneConfig {
        cond_dim: 8,
        mask_index: special.mask as usize,
        bos_index: special.bos as usize,
        eos_index: special.eos as usize,
        ..BackboneConfig::new(tokenizer.vocab_size(), 16, 2, LENGTH)
    };
    let config = ModelConfig::Partition(PartitionConfig {
        backbone,
        encoder_blocks: 2,
        decoder_blocks: 1,
        queries: Queries::default(),
        projection: Projection::default(),
        sets,
    });
    let folder = folder.join(format!("model-{sets}"));
    let network = Network::new(&config, &Device::flex()).with_noise(0.4, 3);
    model_folder::save(&folder, &config, &network).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer.json()).unwrap();
    folder
}

fn data(folder: &Path) -> DataFolder {
    let text: String = (0..40).map(|i| format!("line {i} says {}\n", "abcdefgh".repeat(i % 3 + 1))).collect();
    std::fs::write(folder.join("text.txt"), text).unwrap();
    byte_data(&folder.join("text.txt"), &folder.join("data"), (LENGTH, Mode::Pack), 0.3)
}

fn go_on(_: usize, _: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn log<T: serde::Serialize + serde::de::DeserializeOwned>() -> ResultLog<T> {
    ResultLog::open(None, &json!({})).unwrap()
}

fn load(folder: &Path) -> EvalModel {
    EvalModel::load(folder, &Device::flex()).unwrap()
}

#[test]
fn a_bound_depends_on_the_sets_and_is_the_models_own_without_them() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let [one, mix] = [Sets::One, Sets::Mix].map(|sets| load(&save_model(folder.path(), sets)));
    let run = |model: &EvalModel, settings: PplSettings| -> Result<PplReport, TrainError> {
        ppl(model, &data, &PplSettings { rows: 6, times: 4, batch: 3, ..settings }, log(), &mut go_on)
    };
    let nats = |model: &EvalModel, sets: Option<Sets>| {
        let report = run(model, PplSettings { sets, ..PplSettings::default() }).unwrap();
        assert!(report.draw_deviation.is_some_and(|deviation| deviation > 0.0));
        report.nats_per_token.unwrap().value
    };
    assert_eq!(nats(&one, None), nats(&mix, Some(Sets::One)));
    assert_eq!(nats(&mix, None), nats(&one, Some(Sets::Mix)));
    assert_ne!(nats(&one, None), nats(&one, Some(Sets::Fixed(4))));
    // In one pass, over orders: the spread is that of whole orders.
    let one_pass = run(&mix, PplSettings { one_pass: true, ..PplSettings::default() }).unwrap();
    let rows = data.rows(Split::Validation).unwrap();
    for row in &one_pass.by_row {
        let tokens = rows.row(row.row).unwrap().tokens;
        let of_order = |draw: u64| {
            let order = random_order(0, row.row as u64 * 4 + draw, LENGTH);
            one_pass_nll(mix.text_model().handle(), &[OrderedRow { tokens: &tokens, valid: tokens.len(), order }])
                .unwrap()[0]
        };
        let mean = (0..4).map(of_order).sum::<f64>() / 4.0;
        assert!((row.nats - mean).abs() < 1e-3, "{} {mean}", row.nats);
    }
    let both = run(&mix, PplSettings { one_pass: true, sets: Some(Sets::One), ..PplSettings::default() });
    assert!(both.unwrap_err().to_string().contains("--sets"));
}

#[test]
fn keeping_everything_token_by_token_is_the_likelihood_in_one_pass() {
    let folder = tempfile::tempdir().unwrap();
    let (data, model) = (data(folder.path()), load(&save_model(folder.path(), Sets::Mix)));
    let settings = CacheSettings {
        refresh: vec![Refresh::Always, Refresh::Every(3), Refresh::Never],
        rows: 4,
        steps: LENGTH - 1,
        seed: 5,
    };
    let path = folder.path().join("rows.jsonl");
    let open = || ResultLog::open(Some(&path), &json!({})).unwrap();
    // Stopped after two rows, then resumed.
    let mut stop = |done: usize, _: usize| if done == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    assert!(matches!(cache(&model, &data, &settings, open(), &mut stop), Err(TrainError::Stopped)));
    let resumed = cache(&model, &data, &settings, open(), &mut go_on).unwrap();
    let figures = cache(&model, &data, &settings, log(), &mut go_on).unwrap();
    assert_eq!(resumed, figures);
    let value = |estimate: Option<pgm_train::judge::metrics::Estimate>| estimate.unwrap().value;
    assert_eq!((value(figures[0].kl_per_token), value(figures[0].nats_over_anew)), (0.0, 0.0));
    assert!(value(figures[1].kl_per_token) > 0.0 && value(figures[2].kl_per_token) > 0.0);

    let rows = data.rows(Split::Validation).unwrap();
    let mut chosen = pgm_data::RowOrder::new(5, rows.len()).step(0, 4);
    chosen.sort_unstable();
    let mut expected = 0.0;
    for row in chosen {
        let tokens = rows.row(row).unwrap().tokens;
        let handle = model.text_model().handle();
        let behind = random_order(5, row as u64, LENGTH - 1).into_iter().map(|position| position + 1);
        let order = std::iter::once(0).chain(behind).collect();
        expected += one_pass_nll(handle, &[OrderedRow { tokens: &tokens, valid: tokens.len(), order }]).unwrap()[0];
        // BOS, which is given, is predicted from nothing.
        expected -= one_pass_nll(handle, &[OrderedRow { tokens: &tokens[..1], valid: 1, order: vec![0] }]).unwrap()[0];
    }
    let expected = expected / (4 * (LENGTH - 1)) as f64;
    let found = value(figures[2].nats_per_token);
    assert!((found - expected).abs() < 1e-4, "{found} {expected}");
}

#[test]
fn sets_of_a_training_step_are_a_function_of_seed_and_step_and_change_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let rows = Arc::new(data(folder.path()).rows(Split::Train).unwrap());
    let batch = |sets: &str, first: usize, step: usize| {
        let toml = format!(
            "objective = \"partition\"\nsteps = 9\nbatch = 6\n[model]\nhidden = 16\nheads = 2\nencoder = 1\ndecoder = 1\n\
             length = {LENGTH}\nsets = {sets}\n"
        );
        let config = Arc::new(TrainConfig::parse(&toml, "test", &[]).unwrap());
        let batch = TrainLoader::new(rows.clone(), config, 257, Device::flex(), first).step(step).unwrap().remove(0);
        let NetworkInputs::Partition(partition) = &batch.inputs else { panic!("a partition") };
        let ints =
            |tensor: &burn::tensor::Tensor<2, burn::tensor::Int>| tensor.clone().try_into_vec_as::<i32>().unwrap();
        (ints(&batch.tokens), ints(partition.groups()), partition.sets().map(ints))
    };
    let (tokens, groups, one) = batch("\"one\"", 0, 3);
    assert!(one.is_none());
    for sets in ["\"mix\"", "4"] {
        let drawn = batch(sets, 0, 3);
        assert_eq!((&drawn.0, &drawn.1), (&tokens, &groups));
        assert_eq!(batch(sets, 2, 3), drawn);
        assert_ne!(batch(sets, 0, 4).2, drawn.2);
        let drawn = drawn.2.unwrap();
        for (row, groups) in drawn.chunks(LENGTH).zip(groups.chunks(LENGTH)) {
            for group in [0, 1] {
                let mut of_group: Vec<i32> =
                    row.iter().zip(groups).filter(|(_, other)| **other == group).map(|(set, _)| *set).collect();
                of_group.sort_unstable();
                of_group.dedup();
                assert!(of_group.iter().copied().eq(0..of_group.len() as i32), "sets are numbered from 0: {row:?}");
            }
        }
    }
    let wrong = TrainConfig::parse(
        "objective = \"partition\"\nsteps = 9\nbatch = 6\n[model]\nhidden = 16\nheads = 2\n\
        encoder = 1\ndecoder = 1\nlength = 20\nsets = \"two\"\n",
        "test",
        &[],
    );
    assert!(wrong.unwrap_err().to_string().contains("mix"));
}
