//! The loss with a masked teacher against computations by hand.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::TensorData;
use pgm_model::{BackboneConfig, MaskedConfig, PartitionConfig, Projection, Queries};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::config::{Precision, StepOptions};

const VOCAB: usize = 13;
const LENGTH: usize = 11;
const N_ROWS: usize = 3;
const MASK: usize = VOCAB - 1;

fn teacher(weight: f64, temperature: f64, chunk: usize) -> MaskedTeacher {
    let backbone = BackboneConfig::new(VOCAB, 12, 3, LENGTH);
    let network = Network::new(&ModelConfig::Masked(MaskedConfig { backbone, n_blocks: 2 }), &Device::flex());
    let Network::Masked(network) = network.with_noise(0.4, 2) else { unreachable!() };
    MaskedTeacher { network, mask_index: MASK, weight, temperature, chunk }
}

fn student(options: StepOptions) -> TrainModel {
    struct RequireGrad;
    impl ModuleMapper for RequireGrad {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.set_require_grad(true)
        }
    }
    let backbone = BackboneConfig::new(VOCAB, 16, 2, LENGTH);
    let (queries, projection) = (Queries::default(), Projection::default());
    let config = PartitionConfig {
        backbone,
        encoder_blocks: 1,
        decoder_blocks: 1,
        queries,
        projection,
        sets: Default::default(),
    };
    let network = Network::new(&ModelConfig::Partition(config), &Device::flex()).with_noise(0.4, 1);
    let device = options.training_device(&Device::flex()).unwrap();
    TrainModel::new(network, MASK).with_options(options).train().fork(&device).map(&mut RequireGrad)
}

struct Rows {
    tokens: Vec<i32>,
    groups: Vec<bool>,
    weights: Vec<f32>,
}

fn rows() -> Rows {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let n = N_ROWS * LENGTH;
    // The last two positions of each row are padding.
    let weight = |i: usize, noise: f32| if i % LENGTH < LENGTH - 2 { (0.5 + noise) / n as f32 } else { 0.0 };
    Rows {
        tokens: (0..n).map(|_| rng.random_range(0..MASK as i32)).collect(),
        groups: (0..n).map(|_| rng.random()).collect(),
        weights: (0..n).map(|i| weight(i, rng.random())).collect(),
    }
}

fn batch(rows: &Rows, options: StepOptions) -> ObjectiveBatch {
    let device = options.training_device(&Device::flex()).unwrap();
    let shape = [N_ROWS, LENGTH];
    let groups: Vec<Vec<bool>> = rows.groups.chunks(LENGTH).map(<[bool]>::to_vec).collect();
    ObjectiveBatch {
        inputs: NetworkInputs::Partition(Partition::from_rows(&groups, &device)),
        tokens: Tensor::from_data(TensorData::new(rows.tokens.clone(), shape), &device),
        weights: Tensor::from_data(TensorData::new(rows.weights.clone(), shape), &device),
        n_valid: N_ROWS * (LENGTH - 2),
        seed: 0,
    }
}

fn loss(teacher: &MaskedTeacher, rows: &Rows) -> f64 {
    let options = StepOptions::default();
    f64::from(teacher.step(&student(options), &batch(rows, options)).0.into_scalar::<f32>())
}

// Every parameter's gradient, in the order of the parameters.
fn gradients(model: &TrainModel, gradients: &GradientsParams) -> Vec<Vec<f32>> {
    struct Read<'a>(&'a GradientsParams, Vec<Vec<f32>>);
    impl ModuleVisitor for Read<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradient = self.0.get::<D>(param.id).expect("every parameter has a gradient");
            self.1.push(gradient.try_into_vec_as::<f32>().unwrap());
        }
    }
    let mut read = Read(gradients, Vec::new());
    model.visit(&mut read);
    read.1
}

// Probabilities at a temperature, with the mask left out.
fn probabilities(logits: &[f32], temperature: f64) -> Vec<f64> {
    let powers: Vec<f64> = logits[..MASK].iter().map(|&x| (f64::from(x) / temperature).exp()).collect();
    let total: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / total).collect()
}

#[test]
fn the_loss_is_the_partition_loss_and_the_divergence_from_the_row_with_the_positions_group_masked() {
    let (rows, device) = (rows(), Device::flex());
    let options = StepOptions::default();
    let plain = student(options).valid();
    let Network::Partition(network) = &plain.network else { unreachable!() };
    let (tokens, groups) = (rows.tokens.chunks(LENGTH), rows.groups.chunks(LENGTH));
    let partition = Partition::from_rows(&groups.clone().map(<[bool]>::to_vec).collect::<Vec<_>>(), &device);
    let ids = Tensor::from_data(TensorData::new(rows.tokens.clone(), [N_ROWS, LENGTH]), &device);
    let of_student = network.forward_partition(ids, &partition).try_into_vec_as::<f32>().unwrap();
    for (weight, temperature) in [(1.0, 1.0), (0.3, 2.0)] {
        let teacher = teacher(weight, temperature, CHUNK);
        let mut expected = 0.0;
        for (row, (tokens, groups)) in tokens.clone().zip(groups.clone()).enumerate() {
            for position in 0..LENGTH {
                let ids = tokens.iter().zip(groups).map(
                    |(&token, group)| {
                        if *group == groups[position] { MASK as i32 } else { token }
                    },
                );
                let ids = Tensor::from_data(TensorData::new(ids.collect::<Vec<_>>(), [1, LENGTH]), &device);
                let of_teacher = teacher.network.forward(ids).try_into_vec_as::<f32>().unwrap();
                let at = (row * LENGTH + position) * VOCAB;
                let student = &of_student[at..at + VOCAB];
                let q = probabilities(&of_teacher[position * VOCAB..(position + 1) * VOCAB], temperature);
                let p = probabilities(student, temperature);
                let kl: f64 = q.iter().zip(&p).map(|(q, p)| q * (q / p).ln()).sum();
                let nll = -probabilities(student, 1.0)[tokens[position] as usize].ln();
                let w = f64::from(rows.weights[row * LENGTH + position]);
                expected += w * (nll + weight * temperature * temperature * kl);
            }
        }
        let found = loss(&teacher, &rows);
        assert!((found - expected).abs() < 1e-5 * expected && found > 1.0, "{found} for {expected}");
    }
}

#[test]
fn a_teacher_of_little_weight_leaves_the_partition_loss_and_its_gradients() {
    let options = StepOptions::default();
    let (model, rows) = (student(options), rows());
    let plain = model.for_step().loss(batch(&rows, options));
    let value: f32 = plain.clone().inner().into_scalar();
    let expected = gradients(&model, &GradientsParams::from_grads(plain.backward(), &model));
    let (found, taught) = teacher(1e-9, 1.0, 5).step(&model, &batch(&rows, options));
    assert!((found.into_scalar::<f32>() / value - 1.0).abs() < 1e-5);
    for (taught, expected) in gradients(&model, &taught).iter().zip(&expected) {
        let largest = expected.iter().fold(0.0_f32, |largest, g| largest.max(g.abs()));
        assert!(taught.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-4 * largest));
    }
    let heavy = gradients(&model, &teacher(1.0, 1.0, 5).step(&model, &batch(&rows, options)).1);
    assert!(heavy.iter().flatten().zip(expected.iter().flatten()).any(|(a, b)| (a - b).abs() > 1e-3));
}

#[test]
fn chunks_change_neither_the_loss_nor_its_gradients() {
    let plain = StepOptions::default();
    let checkpointing = StepOptions { checkpointing: true, ..plain };
    let half = StepOptions { precision: Precision::Bf16, ..plain };
    for (options, tolerance) in [(plain, 1e-4), (checkpointing, 1e-4), (half, 3e-2)] {
        let (model, rows) = (student(options), rows());
        let run = |chunk: usize| {
            let (value, found) = teacher(1.0, 1.5, chunk).step(&model, &batch(&rows, options));
            (value.into_scalar::<f32>(), gradients(&model, &found))
        };
        let ((value, whole), (chunked_value, chunked)) = (run(CHUNK), run(5));
        assert!((chunked_value / value - 1.0).abs() < 1e-5, "{chunked_value} for {value}");
        for (chunked, whole) in chunked.iter().zip(&whole) {
            let largest = whole.iter().fold(0.0_f32, |largest, g| largest.max(g.abs()));
            let near = chunked.iter().zip(whole).all(|(a, b)| (a - b).abs() <= tolerance * largest);
            assert!(near, "{options:?}");
        }
    }
}

#[test]
fn targets_never_depend_on_tokens_of_the_group_they_predict() {
    let teacher = teacher(1.0, 1.0, CHUNK);
    let hidden = |rows: &Rows| {
        let batch = batch(rows, StepOptions::default());
        let NetworkInputs::Partition(partition) = &batch.inputs else { unreachable!() };
        teacher.hidden(batch.tokens.inner(), partition).try_into_vec_as::<f32>().unwrap()
    };
    let before = rows();
    let found = hidden(&before);
    for group in [false, true] {
        let mut after = rows();
        let of_group = after.tokens.iter_mut().zip(&before.groups).filter(|(_, of)| **of == group);
        of_group.for_each(|(token, _)| *token = (*token + 5) % MASK as i32);
        let changed = hidden(&after);
        for (position, (a, b)) in changed.chunks(12).zip(found.chunks(12)).enumerate() {
            assert_eq!(a == b, before.groups[position] == group, "position {position}");
        }
    }
}
