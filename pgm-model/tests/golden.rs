//! Parity with the public PyTorch implementation, within 1e-5 + 1e-6 |x|; one test for each golden folder.
//! `PGM_GOLDEN=folder cargo test --workspace golden` runs other folders of the same form.
#![cfg(feature = "files")]

#[allow(dead_code)] // each test file uses its own part of it
mod common;

use burn::tensor::{Device, Int, Tensor, TensorData};
use common::{Golden, distance};
use pgm_model::import::{CheckpointWeights, ImportOverrides, PublishedCheckpoint, SpecialIds};
use pgm_model::loss::{EPS, NoiseSchedule, token_cross_entropy};
use pgm_model::model_folder::MappedFile;
use pgm_model::{CleanTokens, Network, Partition, Positions};

const LOG_LINEAR: NoiseSchedule = NoiseSchedule::LogLinear;

#[allow(clippy::print_stdout)]
fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    let (relative, absolute) = distance(found, expected);
    println!("{what}: largest difference {absolute:.2e}");
    assert!(relative <= 1.0, "{what}: largest difference {absolute:e}, {relative} times the tolerance");
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().unwrap()
}

fn per_row(times: &[f32], groups: &[Vec<bool>], weights: impl Fn(f64, &[bool]) -> Vec<f64>) -> Tensor<2> {
    let flat: Vec<f32> =
        times.iter().zip(groups).flat_map(|(&t, row)| weights(f64::from(t), row)).map(|weight| weight as f32).collect();
    Tensor::from_data(TensorData::new(flat, [groups.len(), groups[0].len()]), &Device::flex())
}

fn check_text(name: &str) {
    let golden = Golden::open(name);
    let device = Device::flex();
    let Network::Partition(model) = golden.network(&device) else { panic!("{name} is a partition model") };
    let mask_index = golden.config.backbone().mask_index;

    let tokens = golden.int_tensor("tokens", &device);
    let groups = golden.int_tensor("groups", &device);
    let logits = model.forward_partition(tokens.clone(), &Partition::new(groups));
    assert_close("train_logits", &values(logits.clone()), &golden.floats("train_logits"));

    let groups: Vec<Vec<bool>> =
        golden.ints("groups").into_iter().map(|row| row.into_iter().map(|group| group == 1).collect()).collect();
    let times = golden.floats("t");
    let cross_entropy = token_cross_entropy(logits, tokens, mask_index);
    let train = per_row(&times, &groups, |t, row| LOG_LINEAR.partition_weights(t, row, EPS));
    let nelbo = per_row(&times, &groups, |t, row| LOG_LINEAR.nelbo_weights(t, row));
    let found = values(cross_entropy.clone() * train);
    assert_close("train_loss_per_token", &found, &golden.floats("train_loss_per_token"));
    assert_close("val_nelbo_per_token", &values(cross_entropy * nelbo), &golden.floats("val_nelbo_per_token"));

    let lengths = &golden.ints("clean_lengths")[0];
    let cut = |key: &str| {
        let rows = golden.ints(key).into_iter().zip(lengths);
        rows.map(|(row, &length)| row[..length].to_vec()).collect::<Vec<_>>()
    };
    let tokens: Vec<Vec<u32>> =
        cut("clean_tokens").into_iter().map(|row| row.into_iter().map(|token| token as u32).collect()).collect();
    let clean = CleanTokens::new(&tokens, &cut("clean_positions"), &device);
    let positions = Positions::new(&golden.ints("decode_positions"), &device);
    let logits = model.forward_clean(&clean, &positions);
    assert_close("decode_logits", &values(logits), &golden.floats("decode_logits"));
}

#[test]
fn golden_text_freqs_linear() {
    check_text("text_freqs_linear");
}

#[test]
fn golden_text_learn_mlp4() {
    check_text("text_learn_mlp4");
}

#[test]
fn golden_text_mean_linear() {
    check_text("text_mean_linear");
}

#[test]
fn golden_text_logsumexp_linear() {
    check_text("text_logsumexp_linear");
}

fn check_image(name: &str) {
    let golden = Golden::open(name);
    let device = Device::flex();
    golden.config.validate().unwrap();
    let Network::Partition(model) = golden.network(&device) else { panic!("{name} is a partition model") };
    let classes = golden.classes();
    assert!(classes.contains(&None) && classes.iter().any(Option::is_some), "with and without a class");

    let (codes, groups) = (golden.int_tensor("codes", &device), golden.int_tensor("groups", &device));
    let partition = Partition::new(groups).with_classes(classes.clone());
    let logits = model.forward_partition(codes.clone(), &partition);
    assert_close("train_logits", &values(logits.clone()), &golden.floats("train_logits"));
    let hidden = model.hidden_partition(codes, &partition);
    assert_eq!(values(model.logits(hidden)), values(logits), "the head may run apart");

    let codes: Vec<Vec<u32>> =
        golden.ints("clean_codes").into_iter().map(|row| row.into_iter().map(|code| code as u32).collect()).collect();
    let clean = CleanTokens::new(&codes, &golden.ints("clean_positions"), &device).with_classes(classes);
    let positions = Positions::new(&golden.ints("decode_positions"), &device);
    assert_close("decode_logits", &values(model.forward_clean(&clean, &positions)), &golden.floats("decode_logits"));
}

#[test]
fn golden_image_reg0() {
    check_image("image_reg0");
}

#[test]
fn golden_image_reg2() {
    check_image("image_reg2");
}

#[test]
fn golden_maskgit() {
    let golden = Golden::open("maskgit");
    let device = Device::flex();
    golden.config.validate().unwrap();
    let Network::MaskGit(model) = golden.network(&device) else { panic!("maskgit is the baseline of images") };
    let (n_rows, n_cells) = (golden.classes().len(), golden.config.backbone().length);
    // Grids of codes, one below the other.
    let codes: Vec<i32> = golden.ints("codes").into_iter().flatten().map(|code| code as i32).collect();
    let codes = Tensor::<2, Int>::from_data(TensorData::new(codes, [n_rows, n_cells]), &device);
    let logits = values(model.forward(codes.clone(), Some(&golden.classes())));
    assert_close("logits", &logits, &golden.floats("logits"));
    let last = Positions::new(&vec![vec![n_cells - 1]; n_rows], &device);
    let found = values(model.logits(model.hidden_at(codes, Some(&golden.classes()), &last)));
    let vocab = golden.config.backbone().vocab_size;
    let expected: Vec<f32> =
        logits.chunks(n_cells * vocab).flat_map(|row| row[(n_cells - 1) * vocab..].to_vec()).collect();
    assert_close("logits at some positions", &found, &expected);
}

#[test]
fn golden_mdlm() {
    let golden = Golden::open("mdlm");
    let device = Device::flex();
    let Network::Masked(model) = golden.network(&device) else { panic!("mdlm is the masked baseline") };
    let mask_index = golden.config.backbone().mask_index;

    let masked_tokens = golden.int_tensor("masked_tokens", &device);
    let logits = model.forward(masked_tokens.clone());
    assert_close("logits", &values(logits.clone()), &golden.floats("logits"));

    let is_masked = |row: Vec<usize>| row.into_iter().map(|token| token == mask_index).collect::<Vec<bool>>();
    let groups: Vec<Vec<bool>> = golden.ints("masked_tokens").into_iter().map(is_masked).collect();
    let weights = per_row(&golden.floats("t"), &groups, |t, row| LOG_LINEAR.nelbo_weights(t, row));
    let cross_entropy = token_cross_entropy(logits.clone(), golden.int_tensor("tokens", &device), mask_index);
    assert_close("nelbo_per_token", &values(cross_entropy * weights), &golden.floats("nelbo_per_token"));

    let length = groups[0].len();
    let at = [length / 4, 0, length - 1, length / 3];
    let some = vec![at.to_vec(); groups.len()];
    let found = values(model.forward_at(masked_tokens, &Positions::new(&some, &device)));
    let index = Tensor::from_data(TensorData::new(at.map(|position| position as i32).to_vec(), [4]), &device);
    assert_close("logits at some positions", &found, &values(logits.select(1, index)));
}

#[test]
fn golden_lightning() {
    let golden = Golden::open("lightning");
    let device = Device::flex();
    let file = MappedFile::open(&golden.folder.join("last.ckpt")).unwrap();
    let checkpoint = PublishedCheckpoint::parse(file.bytes(), file.origin()).unwrap();
    // The mask is the last id, the tokenizer's special ids matter to no logit.
    let (config, taken) = checkpoint.resolve(&ImportOverrides::default(), &SpecialIds::default()).unwrap();
    let mut expected = golden.config.clone();
    expected.backbone_mut().dropout = config.backbone().dropout;
    assert_eq!(config, expected, "{taken:?}");
    assert_eq!(checkpoint.default_weights(), CheckpointWeights::Ema);
    let (tokens, groups) = (golden.int_tensor("tokens", &device), golden.int_tensor("groups", &device));
    for (weights, key) in [(CheckpointWeights::Raw, "logits_raw"), (CheckpointWeights::Ema, "logits_ema")] {
        let Network::Partition(model) = checkpoint.network(weights, &config, &device).unwrap() else {
            panic!("lightning is a partition model")
        };
        let logits = model.forward_partition(tokens.clone(), &Partition::new(groups.clone()));
        assert_close(key, &values(logits), &golden.floats(key));
    }
}
