//! Published autoregressive models, which have no condition: their blocks and their head lack the adaLN layers.
//!
//! Our [`AutoregressiveTransformer`](crate::AutoregressiveTransformer) has them. With a weight of 0, shifts and scales of 0
//! and gates of 1 they change nothing, so the imported network computes what the published one does.
// H hidden

use std::borrow::Cow;

use safetensors::tensor::Dtype;

use super::tensors::Tensors;
use crate::config::AutoregressiveConfig;
use crate::model_folder::{StoredTensor, TensorSource};

/// Width of the condition of a model that has none.
pub(super) const COND_DIM: usize = 1;
/// Inputs of the time embedding.
const N_FREQUENCIES: usize = 256;

/// Whether the tensors are those of a model without a condition.
pub(super) fn is_unconditional(tensors: &Tensors) -> bool {
    let has_condition = |name: &String| name.contains("adaLN_modulation") || name.starts_with("sigma_map.");
    tensors.keys().any(|name| name.starts_with("blocks.")) && !tensors.keys().any(has_condition)
}

/// The tensors of a file and the adaLN layers that it lacks.
pub(super) struct WithIdentityModulation<'t, 'a> {
    tensors: &'t Tensors<'a>,
    /// Names and shapes of what is added.
    added: Vec<(String, Vec<usize>)>,
    hidden_size: usize,
}

impl<'t, 'a> WithIdentityModulation<'t, 'a> {
    pub(super) fn new(tensors: &'t Tensors<'a>, config: &AutoregressiveConfig) -> Self {
        let (cond_dim, hidden_size) = (config.backbone.cond_dim, config.backbone.hidden_size);
        let mut added = Vec::new();
        let mut linear = |name: String, rows: usize, columns: usize| {
            added.push((format!("{name}.weight"), vec![rows, columns]));
            added.push((format!("{name}.bias"), vec![rows]));
        };
        linear("sigma_map.mlp.0".to_string(), cond_dim, N_FREQUENCIES);
        linear("sigma_map.mlp.2".to_string(), cond_dim, cond_dim);
        for block in 0..config.n_blocks {
            linear(format!("blocks.{block}.adaLN_modulation"), 6 * hidden_size, cond_dim);
        }
        linear("output_layer.adaLN_modulation".to_string(), 2 * hidden_size, cond_dim);
        Self { tensors, added, hidden_size }
    }
}

impl TensorSource for WithIdentityModulation<'_, '_> {
    fn names(&self) -> Vec<&str> {
        let added = self.added.iter().map(|(name, _)| name.as_str());
        self.tensors.names().into_iter().chain(added).collect()
    }

    fn tensor(&self, name: &str) -> Option<StoredTensor<'_>> {
        let Some((_, shape)) = self.added.iter().find(|(added, _)| added == name) else {
            return self.tensors.tensor(name);
        };
        let mut values = vec![0.0_f32; shape.iter().product()];
        if name.starts_with("blocks.") && name.ends_with(".bias") {
            // Shift, scale and gate of attention, then of the feed-forward layer.
            for gate in [2, 5] {
                values[gate * self.hidden_size..][..self.hidden_size].fill(1.0);
            }
        }
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Some(StoredTensor { dtype: Dtype::F32, shape: shape.clone(), bytes: Cow::Owned(bytes) })
    }
}
