//! The loss of a student (SDTT, arXiv 2410.21035): its single prediction against that of a teacher that takes several
//! sampling steps.
//!
//! Student and teacher give hidden states. The heads, the divergence and the backward pass through the student's head run
//! over some positions at a time ([`step_by_chunks`]). So the logits of all positions never exist.
//!
//! Shapes: B rows, L length, K masked positions of the row with most, N positions of all rows, H hidden, V vocabulary.

use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_infer::denoise::{CleanRow, hidden_at};
use pgm_model::{Class, Network, Partition};

use super::teacher::Teacher;
use crate::batches::random::{DISTILLATION, stream};
use crate::batches::{DistillBatch, MaskedRow};
use crate::config::{Divergence, TargetGroups};
use crate::run::{TaughtLoss, TrainModel, divergence_per_position, step_by_chunks};

/// The divergence of a student from its teacher, summed over masked positions that count, times the batch's scale.
#[derive(Debug)]
pub(crate) struct DistillLoss {
    pub(crate) teacher: Teacher,
    pub(crate) divergence: Divergence,
    pub(crate) targets: TargetGroups,
}

/// Hidden states of student and teacher at the same positions.
struct Compared {
    // [N, H]
    student: Tensor<2>,
    // [N, H]
    teacher: Tensor<2>,
    // Weight of each position's divergence, [N].
    weights: Tensor<1>,
}

/// The row and the position that each hidden state of the student belongs to; absent for padding.
type Cells = Vec<Option<(usize, usize)>>;

impl TaughtLoss<DistillBatch> for DistillLoss {
    fn step(&self, student: &TrainModel, batch: &DistillBatch) -> (Tensor<1>, GradientsParams) {
        let model = student.for_step();
        let Compared { student: hidden, teacher, weights } = self.compare(&model.network, batch);
        step_by_chunks(student, (&model.network, hidden), self.teacher.chunk, |network, student, range| {
            let (teacher, weights) = (teacher.clone().slice(range.clone()), weights.clone().slice(range));
            self.loss(network, Compared { student, teacher, weights })
        })
    }
}

impl DistillLoss {
    fn compare(&self, student: &Network, batch: &DistillBatch) -> Compared {
        let plain = batch.device.clone().without_autodiff();
        if batch.rows.iter().all(|row| !row.is_masked.contains(&true)) {
            return self.compare_nothing(student, batch, &plain);
        }
        let mut rng = stream(batch.seed, DISTILLATION, 0);
        let targets = self.teacher.targets(&batch.rows, &plain, &mut rng);
        let (student, cells) = self.student_hidden(student, batch);
        let index_of = |cell: &Option<(usize, usize)>| cell.and_then(|(row, position)| targets.index[row][position]);
        let index: Vec<i32> = cells.iter().map(|cell| index_of(cell).unwrap_or(0) as i32).collect();
        let weights: Vec<f32> = cells
            .iter()
            .map(|cell| {
                // BOS of an image is masked in neither of a row's copies.
                let counts = |row: &MaskedRow, position: usize| position < row.valid && row.is_masked[position];
                cell.is_some_and(|(row, position)| counts(&batch.rows[row], position))
            })
            .map(|counts| if counts { batch.scale as f32 } else { 0.0 })
            .collect();
        let n = cells.len();
        let index = Tensor::<1, Int>::from_data(TensorData::new(index, [n]), &plain);
        let weights = Tensor::from_data(TensorData::new(weights, [n]), &plain);
        Compared { student, teacher: targets.hidden.select(0, index), weights }
    }

    // A batch without masked positions: one position of weight 0, so that every gradient exists and is 0.
    fn compare_nothing(&self, student: &Network, batch: &DistillBatch, plain: &Device) -> Compared {
        let row = CleanRow { positions: Vec::new(), tokens: Vec::new(), ..batch.rows[0].clean() };
        let hidden = hidden_at(student, self.teacher.mask_index, &[&row], &[&[0]], &batch.device);
        let student = hidden.squeeze_dim::<2>(0);
        Compared { teacher: student.clone().inner(), student, weights: Tensor::zeros([1], plain) }
    }

    // A partition model that learns both groups predicts them in one evaluation. Otherwise each masked row is a row of the
    // student's batch, evaluated at its masked positions.
    fn student_hidden(&self, student: &Network, batch: &DistillBatch) -> (Tensor<2>, Cells) {
        let (hidden, cells): (Tensor<3>, Cells) = match (student, self.targets) {
            (Network::Partition(model), TargetGroups::Both) => {
                // A row's two copies follow each other and have complementary masks.
                let rows: Vec<&MaskedRow> = batch.rows.iter().step_by(2).collect();
                let length = rows[0].tokens.len();
                let ids: Vec<i32> = rows.iter().flat_map(|row| row.tokens.iter().map(|&token| token as i32)).collect();
                let tokens: Tensor<2, Int> =
                    Tensor::from_data(TensorData::new(ids, [rows.len(), length]), &batch.device);
                let groups: Vec<Vec<bool>> = rows.iter().map(|row| row.is_masked.clone()).collect();
                let partition = Partition::from_rows(&groups, &batch.device);
                // Either all rows have sets or none, as in the loader.
                let sets: Option<Vec<Vec<usize>>> = rows.iter().map(|row| row.sets.clone()).collect();
                let partition = match sets {
                    Some(sets) => partition.with_sets(&sets),
                    None => partition,
                };
                let classes: Vec<Class> = rows.iter().map(|row| row.class).collect();
                // Without a class in the batch no row has one, as in a text model.
                let has_classes = classes.iter().any(Option::is_some);
                let partition = if has_classes { partition.with_classes(classes) } else { partition };
                let hidden = model.hidden_partition(tokens, &partition);
                let cell = |row: usize, position: usize| (2 * row + usize::from(!groups[row][position]), position);
                let cells = (0..rows.len()).flat_map(|row| (0..length).map(move |position| (row, position)));
                (hidden, cells.map(|(row, position)| Some(cell(row, position))).collect())
            }
            _ => {
                let clean: Vec<CleanRow> = batch.rows.iter().map(MaskedRow::clean).collect();
                let positions: Vec<Vec<usize>> = batch.rows.iter().map(MaskedRow::masked).collect();
                let clean: Vec<&CleanRow> = clean.iter().collect();
                let slices: Vec<&[usize]> = positions.iter().map(Vec::as_slice).collect();
                let hidden = hidden_at(student, self.teacher.mask_index, &clean, &slices, &batch.device);
                let width = hidden.dims()[1];
                let cells = positions.iter().enumerate().flat_map(|(row, positions)| {
                    (0..width).map(move |index| positions.get(index).map(|&position| (row, position)))
                });
                (hidden, cells.collect())
            }
        };
        let [n_rows, width, n_hidden] = hidden.dims();
        (hidden.reshape([n_rows * width, n_hidden]), cells)
    }

    // -> [1]
    fn loss(&self, student: &Network, compared: Compared) -> Tensor<1> {
        let student = self.teacher.at_temperature(student.logits(compared.student.unsqueeze_dim(0))); // [1, N, V]
        let teacher = self.teacher.logits(compared.teacher); // [1, N, V]
        let divergence = divergence_per_position(self.divergence, student, teacher, self.teacher.mask_index);
        (divergence * compared.weights.unsqueeze_dim(0)).sum()
    }
}
