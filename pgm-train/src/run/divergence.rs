//! Divergences of a student's predictions from a teacher's.

use burn::tensor::activation::log_softmax;
use burn::tensor::{FloatDType, Int, Tensor};

use crate::config::Divergence;

/// The divergence at each position in float32, from logits of student and teacher.
///
/// # Shapes
/// `[B, K, V], [B, K, V] -> [B, K]`
pub(crate) fn divergence_per_position(
    divergence: Divergence,
    student: Tensor<3>,
    teacher: Tensor<3>,
    mask_index: usize,
) -> Tensor<2> {
    let n_classes = student.dims()[2];
    let column = Tensor::<1, Int>::arange(0..n_classes as i64, &student.device());
    let is_mask = column.equal_elem(mask_index as i64).unsqueeze::<3>();
    // Finite rather than -inf: the mask has probability 0 on both sides, no difference and no NaN.
    let log_probabilities = |logits: Tensor<3>| {
        let is_mask = is_mask.clone().expand(logits.dims());
        let logits = logits.cast(FloatDType::F32).mask_fill(is_mask.clone(), -1e30);
        log_softmax(logits, 2).mask_fill(is_mask, -100.0)
    };
    let (student, teacher) = (log_probabilities(student), log_probabilities(teacher));
    let per_class = match divergence {
        Divergence::BackwardKl => student.clone().exp() * (student - teacher),
        Divergence::ForwardKl => teacher.clone().exp() * (teacher - student),
        Divergence::Tvd => (student.exp() - teacher.exp()).abs() * 0.5,
        Divergence::Mse => (student - teacher).square() / (n_classes - 1) as f64,
    };
    per_class.sum_dim(2).squeeze_dim::<2>(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn divergences_agree_with_values_computed_by_hand() {
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
            let found: f32 = divergence_per_position(divergence, logits(p), logits(q), 1).into_scalar();
            assert!((found - expected).abs() < 1e-6, "{divergence:?}: {found} for {expected}");
        }
        let skewed: f32 =
            divergence_per_position(Divergence::BackwardKl, logits([0.8, 0.1, 0.1]), logits(q), 1).into_scalar();
        let expected = 0.8 * (0.8_f32 / 0.25).ln() + 0.1 * (0.1_f32 / 0.25).ln() + 0.1 * (0.1_f32 / 0.5).ln();
        assert!((skewed - expected).abs() < 1e-6, "the student's probabilities weigh: {skewed} for {expected}");
    }
}
