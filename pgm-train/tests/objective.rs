//! The batches that training and validation are made of.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use burn::data::dataloader::DataLoader;
use burn::tensor::Device;
use pgm_data::{DataFolder, Inputs, Mode, Prepare, Split, TextTokenizer, TokenRows, Validation, prepare};
use pgm_train::TrainConfig;
use pgm_train::batch::{Batch, TrainLoader, ValidationLoader};

const MASK: u32 = 257;

fn rows(folder: &Path, mode: Mode) -> Arc<TokenRows> {
    let text = folder.join("text.jsonl");
    let line = |n: usize| format!("{{\"text\":\"{}\"}}\n", "abcdefghijklmnop"[..n].repeat(2));
    std::fs::write(&text, (0..60).map(|i| line(1 + i % 6)).collect::<String>()).unwrap();
    let out = folder.join(format!("data-{mode:?}"));
    let what = Prepare {
        inputs: &Inputs::resolve(&[text.display().to_string()], "text", "text").unwrap(),
        validation: &Validation::Fraction(0.2),
        tokenizer: &TextTokenizer::bytes(),
        length: 10,
        mode,
        row_eos: false,
        out: &out,
    };
    prepare(&what, &mut |_| ControlFlow::Continue(())).unwrap();
    Arc::new(DataFolder::open(&out).unwrap().rows(Split::Train).unwrap())
}

fn config(settings: &[&str]) -> Arc<TrainConfig> {
    let toml = "objective = \"partition\"\nsteps = 9\nbatch = 6\n[model]\nhidden = 16\nheads = 2\nencoder = 1\n\
                decoder = 1\nlength = 10\n";
    let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_string()).collect();
    Arc::new(TrainConfig::parse(toml, "test", &settings).unwrap())
}

fn numbers(batch: &Batch) -> (Vec<i32>, Vec<f32>) {
    let tokens = batch.tokens.clone().try_into_vec_as::<i32>().unwrap();
    (tokens, batch.weights.clone().try_into_vec_as::<f32>().unwrap())
}

#[test]
fn a_step_is_a_function_of_seed_and_step_however_it_is_cut_and_wherever_it_starts() {
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(folder.path(), Mode::Pack);
    let all = |settings: &[&str], first| -> Vec<(Vec<i32>, Vec<f32>)> {
        let loader = TrainLoader::new(rows.clone(), config(settings), MASK, Device::flex(), first);
        assert_eq!(loader.iter().count(), loader.num_items());
        loader.iter().map(|batch| numbers(&batch.unwrap())).collect()
    };
    let whole = all(&[], 0);
    assert_eq!(whole.len(), 9);
    assert_eq!(all(&[], 4), whole[4..]);
    // Cut into three micro-batches: the same rows and weights in the same order.
    let joined: Vec<(Vec<i32>, Vec<f32>)> = all(&["accumulate=3"], 0)
        .chunks(3)
        .map(|parts| {
            let tokens = parts.iter().flat_map(|(tokens, _)| tokens.clone()).collect();
            (tokens, parts.iter().flat_map(|(_, weights)| weights.clone()).collect())
        })
        .collect();
    assert_eq!(joined, whole);
    assert_ne!(all(&["seed=1"], 0), whole);
}

#[test]
fn padding_weighs_nothing_and_the_loss_is_a_mean_over_valid_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(folder.path(), Mode::Pad);
    for objective in ["partition", "masked"] {
        let config = config(&[&format!("objective={objective}")]);
        let batch = TrainLoader::new(rows.clone(), config.clone(), MASK, Device::flex(), 0).step(3).unwrap().remove(0);
        let (_, weights) = numbers(&batch);
        let order = pgm_data::RowOrder::new(config.seed, rows.len());
        let valid: Vec<usize> = order.step(3, 6).into_iter().map(|row| rows.row(row).unwrap().valid).collect();
        assert_eq!(batch.n_valid, valid.iter().sum::<usize>());
        assert!(valid.iter().any(|&valid| valid < 10), "some rows are padded");
        for (row, &valid) in weights.chunks(10).zip(&valid) {
            assert!(row[valid..].iter().all(|&weight| weight == 0.0));
            if objective == "partition" {
                assert!(row[..valid].iter().all(|&weight| weight > 0.0), "every valid token is supervised");
                // One weight for each group.
                let mut distinct = row[..valid].to_vec();
                distinct.sort_by(f32::total_cmp);
                distinct.dedup();
                assert!(distinct.len() <= 2, "{distinct:?}");
            }
        }
    }
}

#[test]
fn validation_is_the_same_for_every_seed_and_takes_each_row_at_four_times() {
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(folder.path(), Mode::Pack);
    let all = |settings: &[&str]| -> Vec<(Vec<i32>, Vec<f32>)> {
        let loader = ValidationLoader::new(rows.clone(), config(settings), MASK, Device::flex());
        loader.iter().map(|batch| numbers(&batch.unwrap())).collect()
    };
    let batches = all(&["validate_rows=10"]);
    assert_eq!(batches, all(&["validate_rows=10", "seed=9"]));
    assert_eq!(batches.len(), 8, "two blocks of rows, four times each");
    // Masked tokens weigh 1/t: the four largest weights of a row, one for each time, lie in four quarters.
    for row in 0..6 {
        let mut times: Vec<f32> = batches[..4]
            .iter()
            .filter_map(|(_, weights)| weights[row * 10..(row + 1) * 10].iter().copied().find(|&weight| weight > 0.0))
            .map(f32::recip)
            .collect();
        times.sort_by(f32::total_cmp);
        let quarters: Vec<usize> = times.iter().map(|t| (((t - 1e-3) / 0.999 * 4.0) as usize).min(3)).collect();
        let mut distinct = quarters.clone();
        distinct.dedup();
        assert_eq!(quarters, distinct, "row {row}: {times:?}");
    }
}
