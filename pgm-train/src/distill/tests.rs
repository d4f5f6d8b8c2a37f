//! The loss of a student against computations by hand.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Tensor};
use pgm_infer::denoise::hidden_at;
use pgm_model::{BackboneConfig, MaskedConfig, ModelConfig, Network, PartitionConfig, Projection, Queries};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::loss::DistillLoss;
use super::teacher::Teacher;
use crate::batches::{DistillBatch, MaskedRow};
use crate::config::{Divergence, Precision, StepOptions, TargetGroups};
use crate::run::{CHUNK, TaughtLoss, TrainModel};

pub(super) const VOCAB: usize = 13;
const LENGTH: usize = 11;
const TARGETS: [TargetGroups; 2] = [TargetGroups::One, TargetGroups::Both];

/// Two networks of one configuration with different weights.
pub(super) fn networks(masked: bool) -> (Network, Network) {
    let backbone = BackboneConfig::new(VOCAB, 16, 2, LENGTH);
    let config = if masked {
        ModelConfig::Masked(MaskedConfig { backbone, n_blocks: 2 })
    } else {
        ModelConfig::Partition(PartitionConfig {
            backbone,
            encoder_blocks: 1,
            decoder_blocks: 1,
            queries: Queries::default(),
            projection: Projection::default(),
            sets: Default::default(),
        })
    };
    let device = Device::flex();
    let drawn = |seed| Network::new(&config, &device).with_noise(0.4, seed);
    (drawn(1), drawn(2))
}

fn batch(targets: TargetGroups) -> DistillBatch {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut rows = Vec::new();
    for (index, time) in [(0, 0.3), (1, 0.8), (2, 0.5)] {
        let tokens = (0..LENGTH).map(|_| rng.random_range(0..VOCAB as u32 - 1)).collect();
        let is_masked: Vec<bool> = (0..LENGTH).map(|i| (i * 7 + index * 3) % 10 < (time * 10.0) as usize).collect();
        let row = MaskedRow { tokens, is_masked, time, valid: LENGTH - index, class: None, sets: None };
        let is_masked = row.is_masked.iter().map(|is_masked| !is_masked).collect();
        let other = MaskedRow { is_masked, time: 1.0 - time, ..row.clone() };
        rows.push(row);
        rows.extend((targets == TargetGroups::Both).then_some(other));
    }
    let scale = 1.0 / rows.iter().map(MaskedRow::n_counted).sum::<usize>() as f64;
    DistillBatch { rows, scale, device: Device::flex().autodiff(), seed: 7 }
}

// The same batch with the tokens of each group in three ordered sets.
fn with_sets(mut batch: DistillBatch) -> DistillBatch {
    for row in &mut batch.rows {
        row.sets = Some((0..LENGTH).map(|position| position * 5 % 3).collect());
    }
    batch
}

fn loss(teacher: &Network, n_steps: usize, divergence: Divergence, targets: TargetGroups) -> DistillLoss {
    let never_drawn = vec![VOCAB - 1];
    let (network, mask_index) = (teacher.clone(), VOCAB - 1);
    let teacher = Teacher { network, mask_index, never_drawn, dt: 0.125, n_steps, temperature: 1.0, chunk: CHUNK };
    DistillLoss { teacher, divergence, targets }
}

fn student(network: &Network) -> TrainModel {
    student_with(network, StepOptions::default())
}

fn student_with(network: &Network, options: StepOptions) -> TrainModel {
    struct RequireGrad;
    impl ModuleMapper for RequireGrad {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.set_require_grad(true)
        }
    }
    let device = options.training_device(&Device::flex()).unwrap();
    let model = TrainModel::new(network.clone(), VOCAB - 1).with_options(options).train().fork(&device);
    model.map(&mut RequireGrad)
}

fn value(loss: &DistillLoss, batch: &DistillBatch, network: &Network) -> f32 {
    loss.step(&student(network), batch).0.into_scalar()
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

#[test]
fn chunks_change_neither_the_loss_nor_its_gradients() {
    let plain = StepOptions::default();
    let checkpointing = StepOptions { checkpointing: true, ..plain };
    let half = StepOptions { precision: Precision::Bf16, ..plain };
    for (options, tolerance) in [(plain, 1e-4), (checkpointing, 1e-4), (half, 3e-2)] {
        for (masked, targets) in [false, true].into_iter().flat_map(|masked| TARGETS.map(|targets| (masked, targets))) {
            let (teacher, other) = networks(masked);
            let batch = DistillBatch { device: options.training_device(&Device::flex()).unwrap(), ..batch(targets) };
            let mut loss = loss(&teacher, 3, Divergence::BackwardKl, targets);
            let model = student_with(&other, options);
            let (value, found) = loss.step(&model, &batch);
            let (value, whole) = (value.into_scalar::<f32>(), gradients(&model, &found));
            // More than one chunk, the last of them shorter.
            loss.teacher.chunk = 5;
            let (chunked, found) = loss.step(&model, &batch);
            let chunked = chunked.into_scalar::<f32>();
            assert!((chunked / value - 1.0).abs() < 1e-5 && value > 1e-3, "{chunked} for {value}");
            for (chunked, whole) in gradients(&model, &found).iter().zip(&whole) {
                let largest = whole.iter().fold(0.0_f32, |largest, g| largest.max(g.abs()));
                for (chunked, whole) in chunked.iter().zip(whole) {
                    let near = (chunked - whole).abs() <= tolerance * largest;
                    assert!(near, "{chunked} for {whole}, {options:?}, masked {masked}, {targets:?}");
                }
            }
        }
    }
}

#[test]
fn teacher_and_student_are_compared_at_the_temperature() {
    let (teacher, other) = networks(false);
    let batch = batch(TargetGroups::Both);
    // A teacher of one step predicts from what the student sees.
    let mut loss = loss(&teacher, 1, Divergence::BackwardKl, TargetGroups::Both);
    let plain = value(&loss, &batch, &other);
    let hidden = Tensor::random([3, 16], Distribution::Default, &Device::flex());
    let logits = loss.teacher.logits(hidden.clone());
    loss.teacher.temperature = 0.5;
    assert!(value(&loss, &batch, &teacher).abs() < 1e-6);
    // Sharper predictions differ more.
    assert!(value(&loss, &batch, &other) > 1.5 * plain);
    let sharper = loss.teacher.logits(hidden) - logits * 2.0;
    assert_eq!(sharper.abs().max().into_scalar::<f32>(), 0.0);
}

#[test]
fn a_batch_without_masked_positions_has_loss_and_gradients_zero() {
    for masked in [false, true] {
        let (teacher, other) = networks(masked);
        let mut batch = batch(TargetGroups::One);
        batch.rows.iter_mut().for_each(|row| row.is_masked.fill(false));
        let model = student(&other);
        let (value, found) = loss(&teacher, 2, Divergence::BackwardKl, TargetGroups::One).step(&model, &batch);
        assert_eq!(value.into_scalar::<f32>(), 0.0);
        assert!(gradients(&model, &found).iter().flatten().all(|&gradient| gradient == 0.0));
    }
}

#[test]
fn one_step_targets_are_the_teachers_own_log_probabilities() {
    let device = Device::flex();
    for masked in [false, true] {
        let (teacher, student) = networks(masked);
        let batch = with_sets(batch(TargetGroups::One));
        // By hand: KL(student, teacher) at each masked position, from one evaluation of each network per row.
        let (mut sum, mut n) = (0.0, 0);
        for row in &batch.rows {
            let (clean, positions) = (row.clean(), row.masked());
            let probabilities = |network: &Network| -> Vec<Vec<f64>> {
                let hidden = hidden_at(network, VOCAB - 1, &[&clean], &[&positions], &device);
                let logits = network.logits(hidden).try_into_vec_as::<f32>().unwrap();
                logits
                    .chunks(VOCAB)
                    .map(|row| {
                        let total: f64 = row[..VOCAB - 1].iter().map(|&x| f64::from(x).exp()).sum();
                        row[..VOCAB - 1].iter().map(|&x| f64::from(x).exp() / total).collect()
                    })
                    .collect()
            };
            for ((p, q), position) in probabilities(&student).iter().zip(probabilities(&teacher)).zip(&positions) {
                if *position < row.valid {
                    sum += p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
                    n += 1;
                }
            }
        }
        let loss = loss(&teacher, 1, Divergence::BackwardKl, TargetGroups::One);
        let found = f64::from(value(&loss, &batch, &student));
        assert!((found - sum / f64::from(n)).abs() < 1e-5 && found > 0.01, "{found} for {}", sum / f64::from(n));
    }
}

#[test]
fn a_student_equal_to_its_teacher_has_nothing_to_learn_in_one_step() {
    for masked in [false, true] {
        let (teacher, other) = networks(masked);
        // The two copies of a row share the sets of its groups, so the sets are those of both ways through the network.
        for (targets, batch) in TARGETS.into_iter().flat_map(|t| [(t, batch(t)), (t, with_sets(batch(t)))]) {
            for divergence in [Divergence::BackwardKl, Divergence::ForwardKl, Divergence::Tvd, Divergence::Mse] {
                let case = format!("{divergence:?} {targets:?} sets: {}", batch.rows[0].sets.is_some());
                let one = loss(&teacher, 1, divergence, targets);
                // The two ways through a partition model agree to rounding.
                let equal = value(&one, &batch, &teacher).abs();
                assert!(equal < 2e-6, "{case}: {equal}");
                assert!(value(&one, &batch, &other) > 1e-3, "{case}");
                let two = value(&loss(&teacher, 2, divergence, targets), &batch, &teacher);
                assert!(two > 5.0 * equal, "{case}: two steps know more than one, {two} {equal}");
            }
        }
    }
}

#[test]
fn targets_never_depend_on_tokens_of_the_group_they_predict() {
    let other = |token: u32| (token + 5) % 12;
    // If a row has two copies, one at a time is counted; the tokens that it masks change in both.
    let cases = [(TargetGroups::One, 1, 0), (TargetGroups::Both, 2, 0), (TargetGroups::Both, 2, 1)];
    for (masked, (targets, n_copies, counted)) in [false, true].into_iter().flat_map(|m| cases.map(|case| (m, case))) {
        let (teacher, student) = networks(masked);
        let loss = loss(&teacher, 3, Divergence::BackwardKl, targets);
        let mut before = batch(targets);
        let not_counted = before.rows.iter_mut().enumerate().filter(|(index, _)| index % n_copies != counted);
        not_counted.for_each(|(_, row)| row.valid = 0);
        let mut after = before.clone();
        for copies in after.rows.chunks_mut(n_copies) {
            let is_masked = copies[counted].is_masked.clone();
            for row in copies {
                let tokens = row.tokens.iter_mut().zip(&is_masked).filter(|(_, is_masked)| **is_masked);
                tokens.for_each(|(token, _)| *token = other(*token));
            }
        }
        assert_eq!(value(&loss, &before, &student), value(&loss, &after, &student), "{targets:?}, copy {counted}");
        // Clean tokens do matter.
        let position = after.rows[counted].is_masked.iter().position(|is_masked| !is_masked).unwrap();
        for row in &mut after.rows[..n_copies] {
            row.tokens[position] = other(row.tokens[position]);
        }
        assert_ne!(value(&loss, &before, &student), value(&loss, &after, &student), "{targets:?}, copy {counted}");
    }
}
