//! What a student learns in one step of distillation (SDTT, arXiv 2410.21035): the predictions of a teacher that takes
//! several ancestral steps, compared with the student's single prediction.
//!
//! A *view* is a row with one of its groups masked, at a time. From it the teacher decodes step by step; the target of a
//! position is the teacher's distribution at the step that decoded it, or at the last step where it stays undecided.
//! Which positions a step decodes does not depend on the predictions, so it is drawn first, and the teacher computes
//! logits only at the positions whose target they are: as many in all as the view has masked positions.
//!
//! Shapes: R views, B rows, L length, K masked positions of the longest view, V vocabulary.

use std::sync::Arc;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use pgm_infer::denoise::{CleanRow, logits_at};
use pgm_infer::sample::logits::PositionDraw;
use pgm_infer::{DrawSettings, Logits};
use pgm_model::{Network, Partition};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::batch::{DISTILLATION, stream};

/// The smallest time a teacher steps to.
pub const TIME_FLOOR: f64 = 1e-5;

/// How student and targets are compared at a position; the mask's column takes no part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Divergence {
    /// KL(student, targets): the student leaves out what the targets leave out.
    #[default]
    BackwardKl,
    /// KL(targets, student): the student covers what the targets cover.
    ForwardKl,
    /// Total variation distance: half the sum of absolute differences of probabilities.
    Tvd,
    /// Mean squared difference of log-probabilities.
    Mse,
}

/// Which groups of a row are predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetGroups {
    /// Group 1, as in the paper.
    #[default]
    One,
    /// Each group in turn: group 0 is masked at time 1 - t.
    Both,
}

/// A row with some of its positions masked, at a time.
#[derive(Clone, Debug)]
pub struct MaskedRow {
    /// All tokens; those at masked positions are never looked at.
    pub tokens: Vec<u32>,
    /// Which positions are masked.
    pub is_masked: Vec<bool>,
    /// The time, in (0, 1].
    pub time: f64,
    /// Positions from here on are padding and do not count.
    pub valid: usize,
}

impl MaskedRow {
    fn masked(&self) -> Vec<usize> {
        (0..self.tokens.len()).filter(|&position| self.is_masked[position]).collect()
    }

    fn clean(&self) -> CleanRow {
        let positions: Vec<usize> = (0..self.tokens.len()).filter(|&position| !self.is_masked[position]).collect();
        let tokens = positions.iter().map(|&position| self.tokens[position]).collect();
        CleanRow { length: self.tokens.len(), positions, tokens }
    }

    /// Masked positions that count.
    pub fn n_counted(&self) -> usize {
        self.is_masked[..self.valid].iter().filter(|&&is_masked| is_masked).count()
    }
}

/// A frozen network and how it steps.
#[derive(Debug)]
pub struct Teacher {
    /// The network, on the plain device.
    pub network: Network,
    /// The class that is never drawn.
    pub mask_index: usize,
    /// Length of a step in time.
    pub dt: f64,
    /// Steps in a row.
    pub n_steps: usize,
}

/// Times `t, t - dt, ...` of `n_steps` steps, their ends included, none below [`TIME_FLOOR`].
pub fn times(t: f64, dt: f64, n_steps: usize) -> Vec<f64> {
    (0..=n_steps).map(|step| (t - step as f64 * dt).max(TIME_FLOOR)).collect()
}

/// Probability that a position undecided at time `from` is decoded by the step to time `to`.
pub fn decode_probability(from: f64, to: f64) -> f64 {
    (from - to) / from
}

/// The teacher's logits for every masked position of every view, each once, in the order of the evaluations.
struct TeacherTargets {
    // [N, V]
    logits: Tensor<2>,
    // Row of `logits` for each view and position.
    place: Vec<Vec<Option<usize>>>,
}

impl Teacher {
    /// Decodes from each view and keeps what was predicted where and when it was decided.
    fn targets(&self, views: &[MaskedRow], device: &Device, rng: &mut impl Rng) -> TeacherTargets {
        let mut states: Vec<CleanRow> = views.iter().map(MaskedRow::clean).collect();
        let mut undecided: Vec<Vec<usize>> = views.iter().map(MaskedRow::masked).collect();
        let times: Vec<Vec<f64>> = views.iter().map(|view| times(view.time, self.dt, self.n_steps)).collect();
        let mut place: Vec<Vec<Option<usize>>> = views.iter().map(|view| vec![None; view.tokens.len()]).collect();
        let mut parts = Vec::new();
        let mut n_rows = 0;
        for step in 0..self.n_steps {
            let is_last = step + 1 == self.n_steps;
            let mut decided = vec![Vec::new(); views.len()];
            for (view, left) in undecided.iter_mut().enumerate() {
                let probability = decode_probability(times[view][step], times[view][step + 1]);
                let (now, later) = left.drain(..).partition(|_| is_last || rng.random::<f64>() < probability);
                (decided[view], *left) = (now, later);
            }
            let active: Vec<usize> = (0..views.len()).filter(|&view| !decided[view].is_empty()).collect();
            if active.is_empty() {
                continue;
            }
            let rows: Vec<&CleanRow> = active.iter().map(|&view| &states[view]).collect();
            let positions: Vec<&[usize]> = active.iter().map(|&view| decided[view].as_slice()).collect();
            let logits = logits_at(&self.network, self.mask_index, &rows, &positions, device);
            let [_, width, n_classes] = logits.dims();
            for (row, &view) in active.iter().enumerate() {
                for (index, &position) in decided[view].iter().enumerate() {
                    place[view][position] = Some(n_rows + row * width + index);
                }
            }
            n_rows += active.len() * width;
            if !is_last {
                self.decode(&logits, &active, &decided, &mut states, rng);
            }
            parts.push(logits.reshape([active.len() * width, n_classes]));
        }
        TeacherTargets { logits: Tensor::cat(parts, 0), place }
    }

    fn decode(
        &self,
        logits: &Tensor<3>,
        active: &[usize],
        decided: &[Vec<usize>],
        states: &mut [CleanRow],
        rng: &mut impl Rng,
    ) {
        let mut picks = Vec::new();
        for (row, &view) in active.iter().enumerate() {
            picks.extend((0..decided[view].len()).map(|index| PositionDraw { row, index, uniform: rng.random() }));
        }
        let drawn = Logits::new(logits.clone())
            .and_then(|logits| logits.draw(&picks, &[self.mask_index], &DrawSettings::default()))
            .expect("the device computes");
        for (pick, drawn) in picks.iter().zip(drawn) {
            let view = active[pick.row];
            states[view].positions.push(decided[view][pick.index]);
            states[view].tokens.push(drawn.class as u32);
        }
    }
}

/// The views of one micro-batch and everything their loss needs.
#[derive(Clone, Debug)]
pub struct DistillBatch {
    /// The teacher.
    pub teacher: Arc<Teacher>,
    /// The views; with [`TargetGroups::Both`], a row's two views follow each other, group 1 masked first.
    pub views: Vec<MaskedRow>,
    /// Which groups they stand for.
    pub groups: TargetGroups,
    /// How predictions are compared.
    pub divergence: Divergence,
    /// What a position's divergence is multiplied by: one over the masked tokens of the whole step.
    pub scale: f64,
    /// Where the student lives.
    pub device: Device,
    /// Seed of the teacher's decoding and of the student's dropout.
    pub seed: u64,
}

impl DistillBatch {
    /// Masked positions that count.
    pub fn n_valid(&self) -> usize {
        self.views.iter().map(MaskedRow::n_counted).sum()
    }

    /// Divergence of the student from the teacher's targets, summed over the masked positions that count, times the
    /// scale, `[1]`.
    ///
    /// A partition model that learns both groups predicts them in one evaluation; otherwise each view is one row of the
    /// student's batch, computed at its masked positions.
    pub fn loss(&self, student: &Network) -> Tensor<1> {
        let plain = self.device.clone().without_autodiff();
        if self.views.iter().all(|view| !view.is_masked.contains(&true)) {
            // A network must have seen something for its gradients to be there: nothing, weighed with nothing.
            let state = CleanRow { positions: Vec::new(), tokens: Vec::new(), ..self.views[0].clean() };
            return logits_at(student, self.teacher.mask_index, &[&state], &[&[0]], &self.device).sum() * 0.0;
        }
        let mut rng = stream(self.seed, DISTILLATION, 0);
        let targets = self.teacher.targets(&self.views, &plain, &mut rng);
        // For each cell of the student's logits: the view and the position whose target it is compared with.
        let (logits, cells): (Tensor<3>, Vec<Option<(usize, usize)>>) = match (student, self.groups) {
            (Network::Partition(model), TargetGroups::Both) => {
                let rows: Vec<&MaskedRow> = self.views.iter().step_by(2).collect();
                let length = rows[0].tokens.len();
                let ids: Vec<i32> =
                    rows.iter().flat_map(|view| view.tokens.iter().map(|&token| token as i32)).collect();
                let tokens: Tensor<2, Int> =
                    Tensor::from_data(TensorData::new(ids, [rows.len(), length]), &self.device);
                let groups: Vec<Vec<bool>> = rows.iter().map(|view| view.is_masked.clone()).collect();
                let logits = model.forward_partition(tokens, &Partition::from_rows(&groups, &self.device));
                let cell = |row: usize, position: usize| (2 * row + usize::from(!groups[row][position]), position);
                let cells = (0..rows.len()).flat_map(|row| (0..length).map(move |position| (row, position)));
                (logits, cells.map(|(row, position)| Some(cell(row, position))).collect())
            }
            _ => {
                let states: Vec<CleanRow> = self.views.iter().map(MaskedRow::clean).collect();
                let positions: Vec<Vec<usize>> = self.views.iter().map(MaskedRow::masked).collect();
                let states: Vec<&CleanRow> = states.iter().collect();
                let slices: Vec<&[usize]> = positions.iter().map(Vec::as_slice).collect();
                let logits = logits_at(student, self.teacher.mask_index, &states, &slices, &self.device);
                let width = logits.dims()[1];
                let cells = positions.iter().enumerate().flat_map(|(view, positions)| {
                    (0..width).map(move |index| positions.get(index).map(|&position| (view, position)))
                });
                (logits, cells.collect())
            }
        };
        let [n_rows, width, n_classes] = logits.dims();
        let place = |cell: &Option<(usize, usize)>| cell.and_then(|(view, position)| targets.place[view][position]);
        let index: Vec<i32> = cells.iter().map(|cell| place(cell).unwrap_or(0) as i32).collect();
        let weights: Vec<f32> = cells
            .iter()
            .map(|cell| cell.is_some_and(|(view, position)| position < self.views[view].valid))
            .map(|counts| if counts { self.scale as f32 } else { 0.0 })
            .collect();
        let index = Tensor::from_data(TensorData::new(index, [n_rows * width]), &plain);
        let targets = targets.logits.select(0, index).reshape([n_rows, width, n_classes]);
        let weights = Tensor::<2>::from_data(TensorData::new(weights, [n_rows, width]), &plain);
        (self.divergence.per_token(logits, targets, self.teacher.mask_index) * weights).sum()
    }
}

impl Divergence {
    /// Divergence at each position in float32, from logits of the student and of the teacher.
    ///
    /// # Shapes
    /// `[R, K, V], [R, K, V] -> [R, K]`
    pub fn per_token(self, student: Tensor<3>, teacher: Tensor<3>, mask_index: usize) -> Tensor<2> {
        let n_classes = student.dims()[2];
        let column = Tensor::<1, Int>::arange(0..n_classes as i64, &student.device());
        let is_mask = column.equal_elem(mask_index as i64).unsqueeze::<3>();
        // Finite rather than -inf: probability 0 on both sides, no difference, no NaN.
        let normalised = |logits: Tensor<3>| {
            let is_mask = is_mask.clone().expand(logits.dims());
            let logits = logits.cast(FloatDType::F32).mask_fill(is_mask.clone(), -1e30);
            log_softmax(logits, 2).mask_fill(is_mask, -100.0)
        };
        let (student, teacher) = (normalised(student), normalised(teacher));
        let per_class = match self {
            Self::BackwardKl => student.clone().exp() * (student - teacher),
            Self::ForwardKl => teacher.clone().exp() * (teacher - student),
            Self::Tvd => (student.exp() - teacher.exp()).abs() * 0.5,
            Self::Mse => (student - teacher).square() / (n_classes - 1) as f64,
        };
        per_class.sum_dim(2).squeeze_dim::<2>(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgm_model::{BackboneConfig, MaskedConfig, ModelConfig, PartitionConfig, Projection, Queries};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    const VOCAB: usize = 13;
    const LENGTH: usize = 11;

    fn networks(masked: bool) -> (Network, Network) {
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
            })
        };
        let device = Device::flex();
        let drawn = |seed| Network::new(&config, &device).with_noise(0.4, seed);
        (drawn(1), drawn(2))
    }

    fn views(seed: u64, groups: TargetGroups) -> Vec<MaskedRow> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut views = Vec::new();
        for (row, time) in [(0, 0.3), (1, 0.8), (2, 0.5)] {
            let tokens = (0..LENGTH).map(|_| rng.random_range(0..VOCAB as u32 - 1)).collect();
            let is_masked: Vec<bool> = (0..LENGTH).map(|i| (i * 7 + row * 3) % 10 < (time * 10.0) as usize).collect();
            let view = MaskedRow { tokens, is_masked, time, valid: LENGTH - row };
            let is_masked = view.is_masked.iter().map(|is_masked| !is_masked).collect();
            let other = MaskedRow { is_masked, time: 1.0 - time, ..view.clone() };
            views.push(view);
            views.extend((groups == TargetGroups::Both).then_some(other));
        }
        views
    }

    fn lesson(teacher: &Network, n_steps: usize, divergence: Divergence, groups: TargetGroups) -> DistillBatch {
        let teacher = Teacher { network: teacher.clone(), mask_index: VOCAB - 1, dt: 0.125, n_steps };
        let views = views(5, groups);
        let scale = 1.0 / views.iter().map(MaskedRow::n_counted).sum::<usize>() as f64;
        let (teacher, device) = (Arc::new(teacher), Device::flex());
        DistillBatch { teacher, views, groups, divergence, scale, device, seed: 7 }
    }

    fn value(lesson: &DistillBatch, student: &Network) -> f32 {
        lesson.loss(student).into_scalar()
    }

    #[test]
    fn times_and_decode_probabilities_are_those_of_a_table_made_by_hand() {
        // t, dt, times after each of three steps, probability that an undecided position is decoded by each.
        let table = [
            (0.5, 0.125, [0.5, 0.375, 0.25, 0.125], [0.25, 1.0 / 3.0, 0.5]),
            (1.0, 0.25, [1.0, 0.75, 0.5, 0.25], [0.25, 1.0 / 3.0, 0.5]),
            (0.25, 0.125, [0.25, 0.125, 1e-5, 1e-5], [0.5, 0.99992, 0.0]),
            (0.1, 0.5, [0.1, 1e-5, 1e-5, 1e-5], [0.9999, 0.0, 0.0]),
        ];
        for (t, dt, expected, probabilities) in table {
            let found = times(t, dt, 3);
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-12, "{found} for {expected}");
            }
            for (pair, expected) in found.windows(2).zip(probabilities) {
                assert!((decode_probability(pair[0], pair[1]) - expected).abs() < 1e-9, "t {t}: {pair:?}");
            }
        }
    }

    #[test]
    fn every_masked_position_has_one_target_and_the_first_step_decides_its_share() {
        let (network, _) = networks(false);
        let teacher = Teacher { network, mask_index: VOCAB - 1, dt: 0.125, n_steps: 2 };
        let views = vec![MaskedRow { tokens: vec![1; 400], is_masked: vec![true; 400], time: 0.5, valid: 400 }];
        let targets = teacher.targets(&views, &Device::flex(), &mut ChaCha8Rng::seed_from_u64(3));
        let mut places: Vec<usize> = targets.place[0].iter().copied().map(Option::unwrap).collect();
        places.sort_unstable();
        assert_eq!(places, (0..400).collect::<Vec<_>>(), "as many logits as masked positions, each used once");
        // The second evaluation begins where positions start over from the left. A quarter of 400 are decided by the
        // first, with a standard deviation of 8.7.
        let mut by_place: Vec<usize> = (0..400).collect();
        by_place.sort_by_key(|&position| targets.place[0][position]);
        let n_first = by_place.windows(2).position(|pair| pair[1] < pair[0]).unwrap() + 1;
        assert!((65..=135).contains(&n_first), "{n_first} of 400 decided by the first step");
    }

    #[test]
    fn one_step_targets_are_the_teachers_own_log_probabilities() {
        let device = Device::flex();
        for masked in [false, true] {
            let (teacher, student) = networks(masked);
            let lesson = lesson(&teacher, 1, Divergence::BackwardKl, TargetGroups::One);
            // By hand: KL(student, teacher) at each masked position, from one evaluation of each network a view.
            let (mut sum, mut n) = (0.0, 0);
            for view in &lesson.views {
                let (state, positions) = (view.clean(), view.masked());
                let probabilities = |network: &Network| -> Vec<Vec<f64>> {
                    let logits = logits_at(network, VOCAB - 1, &[&state], &[&positions], &device);
                    let logits = logits.try_into_vec_as::<f32>().unwrap();
                    logits
                        .chunks(VOCAB)
                        .map(|row| {
                            let total: f64 = row[..VOCAB - 1].iter().map(|&x| f64::from(x).exp()).sum();
                            row[..VOCAB - 1].iter().map(|&x| f64::from(x).exp() / total).collect()
                        })
                        .collect()
                };
                for ((p, q), position) in probabilities(&student).iter().zip(probabilities(&teacher)).zip(&positions) {
                    if *position < view.valid {
                        sum += p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
                        n += 1;
                    }
                }
            }
            let found = f64::from(value(&lesson, &student));
            assert!((found - sum / f64::from(n)).abs() < 1e-5 && found > 0.01, "{found} for {}", sum / f64::from(n));
        }
    }

    #[test]
    fn a_student_equal_to_its_teacher_has_nothing_to_learn_in_one_step() {
        for masked in [false, true] {
            let (teacher, other) = networks(masked);
            for groups in [TargetGroups::One, TargetGroups::Both] {
                for divergence in [Divergence::BackwardKl, Divergence::ForwardKl, Divergence::Tvd, Divergence::Mse] {
                    let one = lesson(&teacher, 1, divergence, groups);
                    // The two ways through a partition model agree to rounding.
                    assert!(value(&one, &teacher).abs() < 2e-6, "{divergence:?} {groups:?}: {}", value(&one, &teacher));
                    assert!(value(&one, &other) > 1e-3, "{divergence:?} {groups:?}");
                    let two = lesson(&teacher, 2, divergence, groups);
                    let (one, two) = (value(&one, &teacher).abs(), value(&two, &teacher));
                    assert!(two > 5.0 * one, "{divergence:?} {groups:?}: two steps know more than one, {two} {one}");
                }
            }
        }
    }

    #[test]
    fn targets_never_depend_on_tokens_of_the_group_they_predict() {
        let other = |token: u32| (token + 5) % 12;
        // Of a row's two views, where there are two, one counts at a time; what it masks changes in both.
        let cases = [(TargetGroups::One, 1, 0), (TargetGroups::Both, 2, 0), (TargetGroups::Both, 2, 1)];
        for (masked, (groups, n_views, counted)) in [false, true].into_iter().flat_map(|m| cases.map(|case| (m, case)))
        {
            let (teacher, student) = networks(masked);
            let mut before = lesson(&teacher, 3, Divergence::BackwardKl, groups);
            let apart = before.views.iter_mut().enumerate().filter(|(index, _)| index % n_views != counted);
            apart.for_each(|(_, view)| view.valid = 0);
            let mut after = before.clone();
            for row in after.views.chunks_mut(n_views) {
                let is_masked = row[counted].is_masked.clone();
                for view in row {
                    let tokens = view.tokens.iter_mut().zip(&is_masked).filter(|(_, is_masked)| **is_masked);
                    tokens.for_each(|(token, _)| *token = other(*token));
                }
            }
            assert_eq!(value(&before, &student), value(&after, &student), "{groups:?}, view {counted}");
            // What is clean does matter.
            let position = after.views[counted].is_masked.iter().position(|is_masked| !is_masked).unwrap();
            for view in &mut after.views[..n_views] {
                view.tokens[position] = other(view.tokens[position]);
            }
            assert_ne!(value(&before, &student), value(&after, &student), "{groups:?}, view {counted}");
        }
    }

    #[test]
    fn divergences_are_those_of_a_distribution_computed_by_hand() {
        let device = Device::flex();
        let logits = |p: [f32; 3]| Tensor::<3>::from_data([[[p[0].ln(), 9.0, p[1].ln(), p[2].ln()]]], &device);
        let (p, q) = ([0.5_f32, 0.25, 0.25], [0.25_f32, 0.25, 0.5]);
        let ln2 = std::f32::consts::LN_2;
        let table = [
            (Divergence::BackwardKl, 0.25 * ln2),
            (Divergence::ForwardKl, 0.25 * ln2),
            (Divergence::Tvd, 0.25),
            (Divergence::Mse, 2.0 * ln2 * ln2 / 3.0),
        ];
        for (divergence, expected) in table {
            let found: f32 = divergence.per_token(logits(p), logits(q), 1).into_scalar();
            assert!((found - expected).abs() < 1e-6, "{divergence:?}: {found} for {expected}");
        }
        let skewed: f32 = Divergence::BackwardKl.per_token(logits([0.8, 0.1, 0.1]), logits(q), 1).into_scalar();
        let expected = 0.8 * (0.8_f32 / 0.25).ln() + 0.1 * (0.1_f32 / 0.25).ln() + 0.1 * (0.1_f32 / 0.5).ln();
        assert!((skewed - expected).abs() < 1e-6, "the student's probabilities weigh: {skewed} for {expected}");
    }
}
