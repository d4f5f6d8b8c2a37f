//! A masked model that teaches a partition model: KL divergences from its predictions, beside the partition loss.
//!
//! The partition model predicts each group from the other in one evaluation. The masked model needs two: with group 1 masked
//! it predicts group 1, with group 0 masked group 0. It has no backward pass, so both make a step 5/3 as long. One group alone
//! would make it 4/3 as long, and teach half of the positions.
//!
//! The loss of position i, whose weight `w_i` is that of the partition loss, is
//! `w_i (cross-entropy_i + weight * T^2 * KL(teacher_i, student_i))`, both distributions of the KL at temperature T.
// B rows, L length, N positions of all rows, H hidden, V vocabulary

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::optim::GradientsParams;
use burn::tensor::{Device, FloatDType, Int, Tensor};
use pgm_data::DataFolder;
use pgm_model::loss::token_cross_entropy;
use pgm_model::model_folder::{self, WEIGHTS_FILE};
use pgm_model::{MaskedTransformer, ModelConfig, Network, Partition, Positions};
use serde_json::Value;

use super::chunks::{CHUNK, step_by_chunks};
use super::divergence::divergence_per_position;
use super::optim::weight_norm;
use super::train_model::{TaughtLoss, TrainModel};
use crate::TrainError;
use crate::batches::{NetworkInputs, ObjectiveBatch};
use crate::config::{Divergence, TeacherSection};
use crate::eval::{check_same_tokens, kind};
use crate::files::fingerprint;

/// The model folder of a teacher that fits the data.
pub(crate) struct TeacherModel<'a> {
    section: &'a TeacherSection,
    folder: PathBuf,
    config: ModelConfig,
    crc32: u32,
}

impl<'a> TeacherModel<'a> {
    /// Opens the folder and compares the model with the data.
    ///
    /// # Errors
    /// Names the file that cannot be used, or what is wrong with the model.
    pub(crate) fn open(section: &'a TeacherSection, data: &DataFolder) -> Result<Self, TrainError> {
        let refuse = |problem: String| Err(TrainError::Config { origin: origin(&section.model), problem });
        let folder = model_folder::resolve(&section.model)?;
        let config = model_folder::load_config(&folder)?;
        if !matches!(config, ModelConfig::Masked(_)) {
            return refuse(format!("is of the kind {}; the teacher must be a masked model", kind(&config)));
        }
        if data.image().is_some() {
            return refuse("is a masked model of text, but the data is pictures; remove [teacher]".to_string());
        }
        let (of_model, of_data) = (config.backbone().length, data.manifest().length);
        if of_model != of_data {
            return refuse(format!("has {of_model} tokens in a row, the data has {of_data}; prepare such rows"));
        }
        check_same_tokens(&folder, "teacher.model", &config, data)?;
        let weights = folder.join(WEIGHTS_FILE);
        let (_, crc32) = fingerprint(&weights).map_err(|error| TrainError::file("read", &weights, error))?;
        Ok(Self { section, folder, config, crc32 })
    }

    /// What tells it from other teachers, for the settings of a run: the checksum of its weights.
    pub(crate) fn checksum(&self) -> Value {
        format!("{:08x}", self.crc32).into()
    }

    /// The loss, with the model's weights in float32 on `device`.
    ///
    /// # Errors
    /// Names the tensor that cannot be used, or says that a weight is not finite.
    pub(crate) fn loss(&self, device: &Device) -> Result<Arc<MaskedTeacher>, TrainError> {
        let network = model_folder::load_weights(&self.folder.join(WEIGHTS_FILE), &self.config, device)?;
        let norm = weight_norm(&network).try_into_scalar::<f32>();
        if !norm.map_err(|error| TrainError::Device(error.to_string()))?.is_finite() {
            let problem =
                "has weights that are not finite: its run diverged or the file is damaged; take an earlier checkpoint";
            return Err(TrainError::Config { origin: origin(&self.section.model), problem: problem.to_string() });
        }
        let Network::Masked(network) = network else { unreachable!("its kind was checked when it was opened") };
        let TeacherSection { weight, temperature, .. } = *self.section;
        let mask_index = self.config.backbone().mask_index;
        Ok(Arc::new(MaskedTeacher { network: network.folded(), mask_index, weight, temperature, chunk: CHUNK }))
    }
}

fn origin(model: &Path) -> String {
    format!("teacher.model = {}", model.display())
}

/// The partition loss and the divergence from a masked model.
#[derive(Debug)]
pub(crate) struct MaskedTeacher {
    // Without autodiff.
    network: MaskedTransformer,
    mask_index: usize,
    weight: f64,
    temperature: f64,
    // Positions whose logits are computed at once.
    chunk: usize,
}

impl TaughtLoss<ObjectiveBatch> for MaskedTeacher {
    /// # Panics
    /// When student or batch is not a partition model's: a programmer's error.
    fn step(&self, student: &TrainModel, batch: &ObjectiveBatch) -> (Tensor<1>, GradientsParams) {
        let model = student.for_step();
        let (Network::Partition(network), NetworkInputs::Partition(partition)) = (&model.network, &batch.inputs) else {
            panic!("a masked model teaches partition models");
        };
        let [n_rows, length] = batch.tokens.dims();
        let n = n_rows * length;
        let teacher = self.hidden(batch.tokens.clone().inner(), partition).reshape([n as i32, -1]); // [N, H]
        let targets = batch.tokens.clone().inner().reshape([1, n]);
        let weights = batch.weights.clone().inner().reshape([1, n]);
        let hidden = network.hidden_partition(batch.tokens.clone(), partition).reshape([n as i32, -1]); // [N, H]
        step_by_chunks(student, (&model.network, hidden), self.chunk, |network, hidden, range| {
            let teacher = teacher.clone().slice(range.clone()).unsqueeze_dim(0); // [1, N, H]
            let logits = network.logits(hidden.unsqueeze_dim(0)).cast(FloatDType::F32); // [1, N, V]
            let divergence = self.divergence(logits.clone(), self.network.logits(teacher));
            let positions = [0..1, range];
            let nll = token_cross_entropy(logits, targets.clone().slice(positions.clone()), self.mask_index);
            ((nll + divergence * self.weight) * weights.clone().slice(positions)).sum()
        })
    }
}

impl MaskedTeacher {
    // Hidden states before the head: at each position those of the row in which the position's group is masked.
    // [B, L] -> [B, L, H]
    fn hidden(&self, tokens: Tensor<2, Int>, partition: &Partition) -> Tensor<3> {
        let [n_rows, length] = tokens.dims();
        let groups = partition.groups().clone().inner();
        let all = Positions::all(n_rows, length, &tokens.device());
        let [zero, one] = [0, 1].map(|group| {
            let masked = tokens.clone().mask_fill(groups.clone().equal_elem(group), self.mask_index as i32);
            self.network.hidden_at(masked, &all)
        });
        let in_group_one = groups.equal_elem(1).unsqueeze_dim::<3>(2).expand(one.dims());
        zero.mask_where(in_group_one, one)
    }

    // T^2 KL(teacher, student), both at temperature T. [1, N, V], [1, N, V] -> [1, N]
    fn divergence(&self, student: Tensor<3>, teacher: Tensor<3>) -> Tensor<2> {
        if self.temperature == 1.0 {
            return divergence_per_position(Divergence::ForwardKl, student, teacher, self.mask_index);
        }
        let (student, teacher) = (student / self.temperature, teacher / self.temperature);
        let divergence = divergence_per_position(Divergence::ForwardKl, student, teacher, self.mask_index);
        divergence * (self.temperature * self.temperature)
    }
}

#[cfg(test)]
mod tests;
