//! The batches of training and validation, and the losses of the objectives.

use std::path::Path;
use std::sync::Arc;

use burn::data::dataloader::DataLoader;
use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_data::{DataFolder, Mode, Split, TokenRows};
use pgm_model::Network;
use pgm_train::batches::{Batch, NetworkInputs, ObjectiveBatch, TrainLoader, ValidationBatch, ValidationLoader};
use pgm_train::{TrainConfig, TrainModel};

mod common;
use common::byte_data;

const MASK: u32 = 257;

fn rows(folder: &Path, mode: Mode) -> Arc<TokenRows> {
    let text = folder.join("text.jsonl");
    let line = |n: usize| format!("{{\"text\":\"{}\"}}\n", "abcdefghijklmnop"[..n].repeat(2));
    std::fs::write(&text, (0..60).map(|i| line(1 + i % 6)).collect::<String>()).unwrap();
    let data = byte_data(&text, &folder.join(format!("data-{mode:?}")), (10, mode), 0.2);
    Arc::new(data.rows(Split::Train).unwrap())
}

fn config(settings: &[&str]) -> Arc<TrainConfig> {
    let toml = "objective = \"partition\"\nsteps = 9\nbatch = 6\n[model]\nhidden = 16\nheads = 2\nencoder = 1\n\
                decoder = 1\nlength = 10\n";
    let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_string()).collect();
    Arc::new(TrainConfig::parse(toml, "test", &settings).unwrap())
}

fn objective_batch(batch: Batch) -> ObjectiveBatch {
    let Batch::Objective(batch) = batch else { panic!("a batch of a distillation") };
    *batch
}

fn numbers(batch: &ObjectiveBatch) -> (Vec<i32>, Vec<f32>) {
    let tokens = batch.tokens.clone().try_into_vec_as::<i32>().unwrap();
    (tokens, batch.weights.clone().try_into_vec_as::<f32>().unwrap())
}

#[test]
fn a_step_is_a_function_of_seed_and_step_for_any_accumulation_and_any_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(folder.path(), Mode::Pack);
    let all = |settings: &[&str], first| -> Vec<(Vec<i32>, Vec<f32>)> {
        let loader = TrainLoader::new(rows.clone(), config(settings), MASK, Device::flex(), first);
        assert_eq!(loader.iter().count(), loader.num_items());
        loader.iter().map(|batch| numbers(&objective_batch(batch.unwrap()))).collect()
    };
    let whole = all(&[], 0);
    assert_eq!(whole.len(), 9);
    assert_eq!(all(&[], 4), whole[4..]);
    // In three micro-batches: the same rows and weights in the same order.
    let concatenated: Vec<(Vec<i32>, Vec<f32>)> = all(&["accumulate=3"], 0)
        .chunks(3)
        .map(|parts| {
            let tokens = parts.iter().flat_map(|(tokens, _)| tokens.clone()).collect();
            (tokens, parts.iter().flat_map(|(_, weights)| weights.clone()).collect())
        })
        .collect();
    assert_eq!(concatenated, whole);
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
        let order = pgm_data::RowOrder::new(config.run.seed, rows.len());
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
fn validation_is_the_same_for_every_seed_and_draws_stratified_counts() {
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(folder.path(), Mode::Pack);
    let all = |settings: &[&str]| -> Vec<ValidationBatch> {
        let config = config(settings);
        let loader = ValidationLoader::new(rows.clone(), config.objective, &config.run, MASK, Device::flex());
        loader.iter().map(|batch| batch.unwrap()).collect()
    };
    let of = |settings: &[&str]| -> Vec<_> { all(settings).iter().map(|batch| numbers(&batch.batch)).collect() };
    let batches = of(&["validate_rows=10"]);
    assert_eq!(batches, of(&["validate_rows=10", "seed=9"]));
    assert_ne!(batches, of(&["validate_rows=10", "validate_estimator=mdlm"]));
    assert_eq!(batches.len(), 8, "two blocks of rows, four draws each");
    let ranges: Vec<_> = all(&["validate_rows=10"]).into_iter().map(|batch| batch.rows).collect();
    assert_eq!((&ranges[3], &ranges[4]), (&(0..6), &(6..10)));
    // Hidden tokens weigh n/k: 10 rows with 4 draws hide each of the counts from 1 to 10 four times.
    let mut counts = [0; 10];
    for (_, weights) in &batches {
        for row in weights.chunks(10) {
            let k = row.iter().filter(|&&weight| weight > 0.0).count();
            assert!((row.iter().sum::<f32>() - 10.0).abs() < 1e-5, "{row:?}");
            counts[k - 1] += 1;
        }
    }
    assert_eq!(counts, [4; 10]);
    // Another batch size gives the same draws of the same rows.
    let weights = |batches: &[ValidationBatch]| -> Vec<Vec<Vec<f32>>> {
        let mut rows = vec![Vec::new(); 10];
        for batch in batches {
            let (_, weights) = numbers(&batch.batch);
            batch.rows.clone().zip(weights.chunks(10)).for_each(|(row, weights)| rows[row].push(weights.to_vec()));
        }
        rows
    };
    assert_eq!(weights(&all(&["validate_rows=10"])), weights(&all(&["validate_rows=10", "batch=3"])));
}

#[test]
fn a_validation_hides_padding_like_tokens_and_does_not_count_it() {
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(folder.path(), Mode::Pad);
    for objective in ["partition", "masked", "masked-complementary"] {
        let config = config(&[&format!("objective={objective}"), "validate_rows=9"]);
        let loader = ValidationLoader::new(rows.clone(), config.objective, &config.run, MASK, Device::flex());
        let mut hidden_padding = 0;
        for batch in loader.iter() {
            let batch = batch.unwrap();
            let (_, weights) = numbers(&batch.batch);
            for ((row, weights), &tokens) in batch.rows.clone().zip(weights.chunks(10)).zip(&batch.tokens) {
                let valid = rows.row(row).unwrap().valid;
                assert_eq!(tokens, valid);
                assert!(weights[valid..].iter().all(|&weight| weight == 0.0));
                assert!((weights.iter().sum::<f32>() - valid as f32).abs() < 1e-5, "{weights:?}");
            }
            if let NetworkInputs::Masked(tokens) = &batch.batch.inputs {
                let tokens = tokens.clone().try_into_vec_as::<i32>().unwrap();
                let hidden = tokens.iter().filter(|&&token| token == MASK as i32).count();
                let counted = weights.iter().filter(|&&weight| weight > 0.0).count();
                assert!(hidden >= counted);
                hidden_padding += hidden - counted;
            }
        }
        assert_eq!(hidden_padding > 0, objective != "partition");
    }
}

fn batch(rows: &Arc<TokenRows>, settings: &[&str], step: usize) -> ObjectiveBatch {
    TrainLoader::new(rows.clone(), config(settings), MASK, Device::flex(), 0).step(step).unwrap().remove(0)
}

fn network(settings: &[&str], rows: &Path) -> TrainModel {
    let manifest = DataFolder::open(rows).unwrap().manifest().clone();
    let model = config(settings).model_config(&manifest).unwrap();
    TrainModel::new(Network::new(&model, &Device::flex()).with_noise(0.3, 2), model.backbone().mask_index)
}

fn masked_tokens(batch: &ObjectiveBatch) -> Vec<i32> {
    let NetworkInputs::Masked(tokens) = &batch.inputs else { panic!("not masked") };
    tokens.clone().try_into_vec_as::<i32>().unwrap()
}

#[test]
fn the_complementary_loss_is_the_mean_of_two_masked_losses() {
    let folder = tempfile::tempdir().unwrap();
    for mode in [Mode::Pack, Mode::Pad] {
        let rows = rows(folder.path(), mode);
        let both = batch(&rows, &["objective=masked-complementary"], 2);
        let one = batch(&rows, &["objective=masked"], 2);
        assert_eq!(both.n_valid, one.n_valid, "a row's tokens count once");
        let network = network(&["objective=masked"], &folder.path().join(format!("data-{mode:?}")));
        // The other masked loss, by hand: the other positions are masked, at time 1 - t, so that they weigh 1/(1 - t).
        let (tokens, one_weights) = numbers(&one);
        let hidden = masked_tokens(&one);
        let order = pgm_data::RowOrder::new(0, rows.len()).step(2, 6);
        let valid: Vec<usize> = order.into_iter().map(|row| rows.row(row).unwrap().valid).collect();
        let n_valid = one.n_valid as f32;
        let (mut other_hidden, mut other_weights) = (Vec::new(), Vec::new());
        for (row, &valid) in valid.iter().enumerate() {
            let range = row * 10..(row + 1) * 10;
            // A row without a counted masked token does not show t; its weight is read from the batch.
            let weight = one_weights[range.clone()].iter().copied().find(|&weight| weight > 0.0);
            for (index, position) in range.enumerate() {
                let is_hidden = hidden[position] == MASK as i32;
                other_hidden.push(if is_hidden { tokens[position] } else { MASK as i32 });
                let t = weight.map(|weight| 1.0 / (weight * n_valid));
                let by_hand = t.map(|t| 1.0 / (1.0 - t).max(1e-3) / n_valid);
                let read = both.weights.clone().try_into_vec_as::<f32>().unwrap()[(2 * row + 1) * 10 + index] * 2.0;
                let counts = !is_hidden && index < valid;
                let expected = if counts { by_hand.unwrap_or(read) } else { 0.0 };
                assert!((read - expected).abs() <= 1e-4 * expected, "row {row}, {index}: {read} for {expected}");
                other_weights.push(expected);
            }
        }
        let device = Device::flex();
        let ints = |values: Vec<i32>| Tensor::<2, Int>::from_data(TensorData::new(values, [6, 10]), &device);
        let other = ObjectiveBatch {
            inputs: NetworkInputs::Masked(ints(other_hidden)),
            weights: Tensor::from_data(TensorData::new(other_weights, [6, 10]), &device),
            ..one.clone()
        };
        let loss = |batch: ObjectiveBatch| network.loss(batch).into_scalar::<f32>();
        let (together, mean) = (loss(both), (loss(one) + loss(other)) / 2.0);
        assert!((together - mean).abs() < 1e-4 * mean && mean > 0.0, "{together} for {mean}");
    }
}

#[test]
fn the_autoregressive_loss_is_the_mean_surprise_of_each_next_token() {
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(folder.path(), Mode::Pad);
    let settings = ["objective=autoregressive"];
    let batch = batch(&rows, &settings, 1);
    let network = network(&settings, &folder.path().join("data-Pad"));
    let Network::Autoregressive(model) = &network.network else { panic!("not autoregressive") };
    let order = pgm_data::RowOrder::new(0, rows.len()).step(1, 6);
    let (mut sum, mut n) = (0.0, 0);
    for row in order.into_iter().map(|row| rows.row(row).unwrap()) {
        for next in 1..row.valid {
            // One evaluation per token, of the tokens before it.
            let before: Vec<i32> = row.tokens[..next].iter().map(|&token| token as i32).collect();
            let logits = model.forward(Tensor::from_data(TensorData::new(before, [1, next]), &Device::flex()));
            let logits = logits.narrow(1, next - 1, 1).try_into_vec_as::<f32>().unwrap();
            let total: f64 =
                (0..logits.len()).filter(|&c| c != MASK as usize).map(|c| f64::from(logits[c]).exp()).sum();
            sum += total.ln() - f64::from(logits[row.tokens[next] as usize]);
            n += 1;
        }
    }
    assert_eq!(batch.n_valid, n);
    let found = f64::from(network.loss(batch).into_scalar::<f32>());
    assert!((found - sum / n as f64).abs() < 1e-5 * found, "{found} for {}", sum / n as f64);
}
