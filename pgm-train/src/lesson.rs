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
use pgm_infer::DrawSettings;
use pgm_infer::denoiser::{RowState, logits_at};
use pgm_infer::draw::Drawer;
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
pub struct View {
    /// All tokens; those at masked positions are never looked at.
    pub tokens: Vec<u32>,
    /// Which positions are masked.
    pub is_masked: Vec<bool>,
    /// The time, in (0, 1].
    pub time: f64,
    /// Positions from here on are padding and do not count.
    pub valid: usize,
}

impl View {
    fn masked(&self) -> Vec<usize> {
        (0..self.tokens.len()).filter(|&position| self.is_masked[position]).collect()
    }

    fn clean(&self) -> RowState {
        let positions: Vec<usize> = (0..self.tokens.len()).filter(|&position| !self.is_masked[position]).collect();
        let tokens = positions.iter().map(|&position| self.tokens[position]).collect();
        RowState { length: self.tokens.len(), positions, tokens }
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
struct Targets {
    // [N, V]
    logits: Tensor<2>,
    // Row of `logits` for each view and position.
    place: Vec<Vec<Option<usize>>>,
}

impl Teacher {
    /// Decodes from each view and keeps what was predicted where and when it was decided.
    fn targets(&self, views: &[View], device: &Device, rng: &mut impl Rng) -> Targets {
        let mut states: Vec<RowState> = views.iter().map(View::clean).collect();
        let mut undecided: Vec<Vec<usize>> = views.iter().map(View::masked).collect();
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
            let rows: Vec<&RowState> = active.iter().map(|&view| &states[view]).collect();
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
        Targets { logits: Tensor::cat(parts, 0), place }
    }

    fn decode(
        &self,
        logits: &Tensor<3>,
        active: &[usize],
        decided: &[Vec<usize>],
        states: &mut [RowState],
        rng: &mut impl Rng,
    ) {
        let [_, width, n_classes] = logits.dims();
        let values = logits.clone().into_data().convert::<f32>();
        let values = values.as_slice::<f32>().expect("converted to float32");
        let (mut drawer, draw) = (Drawer::default(), DrawSettings::default());
        for (row, &view) in active.iter().enumerate() {
            for (index, &position) in decided[view].iter().enumerate() {
                let start = (row * width + index) * n_classes;
                let drawn = drawer.draw(&values[start..start + n_classes], self.mask_index, &draw, rng.random());
                states[view].positions.push(position);
                states[view].tokens.push(drawn.class as u32);
            }
        }
    }
}

/// The views of one micro-batch and everything their loss needs.
#[derive(Clone, Debug)]
pub struct Lesson {
    /// The teacher.
    pub teacher: Arc<Teacher>,
    /// The views; with [`TargetGroups::Both`], a row's two views follow each other, group 1 masked first.
    pub views: Vec<View>,
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

impl Lesson {
    /// Masked positions that count.
    pub fn n_valid(&self) -> usize {
        self.views.iter().map(View::n_counted).sum()
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
            let state = RowState { positions: Vec::new(), tokens: Vec::new(), ..self.views[0].clean() };
            return logits_at(student, self.teacher.mask_index, &[&state], &[&[0]], &self.device).sum() * 0.0;
        }
        let mut rng = stream(self.seed, DISTILLATION, 0);
        let targets = self.teacher.targets(&self.views, &plain, &mut rng);
        // For each cell of the student's logits: the view and the position whose target it is compared with.
        let (logits, cells): (Tensor<3>, Vec<Option<(usize, usize)>>) = match (student, self.groups) {
            (Network::Partition(model), TargetGroups::Both) => {
                let rows: Vec<&View> = self.views.iter().step_by(2).collect();
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
                let states: Vec<RowState> = self.views.iter().map(View::clean).collect();
                let positions: Vec<Vec<usize>> = self.views.iter().map(View::masked).collect();
                let states: Vec<&RowState> = states.iter().collect();
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
