//! Scaled dot-product attention with the masks this model needs.
//!
//! A query without a single key gets output 0 and gradient 0: at small t a whole group is often empty.
//!
//! Shapes: B batch, h heads, Q queries, C keys, d head width, H = h d.

use std::sync::{Arc, OnceLock};

use burn::tensor::activation::softmax;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Device, FloatDType, Int, Tensor};

#[cfg(feature = "fused")]
use crate::ops::sorted_by_label;

/// Which keys a query sees.
///
/// Fused attention reads the rule itself; where attention is composed of tensor operations, the mask `[B, Q, C]` is
/// made of it once and kept for all layers.
#[derive(Clone, Debug)]
pub struct Visibility {
    rule: Rule,
    mask: Arc<OnceLock<AttentionMask>>,
    // Whether the keys are the queries.
    #[cfg_attr(not(feature = "fused"), allow(dead_code))]
    within: bool,
    #[cfg(feature = "fused")]
    sorted: Arc<OnceLock<[Tensor<2, Int>; 2]>>,
}

#[derive(Clone, Debug)]
enum Rule {
    // A query sees the keys of its label: `[B, Q]` and `[B, C]`.
    SameLabel(Box<[Tensor<2, Int>; 2]>),
    // The queries are the last of the keys, and each sees itself and what comes before it.
    Causal([usize; 2], Device),
}

impl Visibility {
    /// A token sees those of its own label, `[B, S]`.
    pub fn within(labels: Tensor<2, Int>) -> Self {
        Self { within: true, ..Self::across(labels.clone(), labels) }
    }

    /// A query sees the keys of its own label, `[B, Q]` and `[B, C]`; a label that no query carries hides its keys.
    pub fn across(queries: Tensor<2, Int>, keys: Tensor<2, Int>) -> Self {
        Self::new(Rule::SameLabel(Box::new([queries, keys])))
    }

    /// Each of the last `n_queries` of `n_keys` tokens sees itself and those before it, in every row.
    pub fn causal(n_queries: usize, n_keys: usize, device: &Device) -> Self {
        Self::new(Rule::Causal([n_queries, n_keys], device.clone()))
    }

    fn new(rule: Rule) -> Self {
        Self {
            rule,
            mask: Arc::default(),
            within: false,
            #[cfg(feature = "fused")]
            sorted: Arc::default(),
        }
    }

    #[cfg_attr(not(feature = "fused"), allow(dead_code))]
    pub(crate) fn is_causal(&self) -> bool {
        matches!(self.rule, Rule::Causal(..))
    }

    // Labels of queries and keys that say what a rule says, up to causality: `[B, Q]` and `[B, C]`.
    pub(crate) fn labels(
        visibility: Option<&Self>,
        [n_rows, n_queries, n_keys]: [usize; 3],
        device: &Device,
    ) -> [Tensor<2, Int>; 2] {
        match visibility {
            Some(Self { rule: Rule::SameLabel(labels), .. }) => labels.as_ref().clone(),
            _ => [n_queries, n_keys].map(|n| Tensor::zeros([n_rows, n], device)),
        }
    }

    // The same labels as fused attention reads them, made once; where labels say nothing, tensors that nobody reads.
    #[cfg(feature = "fused")]
    pub(crate) fn sorted_labels(visibility: Option<&Self>, device: &Device) -> [Tensor<2, Int>; 2] {
        match visibility {
            Some(Self { rule: Rule::SameLabel(labels), within, sorted, .. }) => {
                let sort = || {
                    let [queries, keys] = labels.as_ref().clone();
                    let queries = sorted_by_label(queries);
                    [queries.clone(), if *within { queries } else { sorted_by_label(keys) }]
                };
                sorted.get_or_init(sort).clone()
            }
            _ => {
                let nothing = Tensor::empty([1, 2], device);
                [nothing.clone(), nothing]
            }
        }
    }

    fn mask(&self) -> &AttentionMask {
        self.mask.get_or_init(|| match &self.rule {
            Rule::SameLabel(labels) => {
                let [queries, keys] = labels.as_ref();
                let [n_rows, n_queries] = queries.dims();
                let shape = [n_rows, n_queries, keys.dims()[1]];
                let queries = queries.clone().unsqueeze_dim::<3>(2).expand(shape);
                AttentionMask::hiding(queries.not_equal(keys.clone().unsqueeze_dim::<3>(1).expand(shape)))
            }
            Rule::Causal([n_queries, n_keys], device) => {
                let (n_queries, n_keys) = (*n_queries, *n_keys);
                let key = Tensor::<1, Int>::arange(0..n_keys as i64, device).unsqueeze_dim::<2>(0);
                let first = (n_keys - n_queries) as i64;
                let query = Tensor::<1, Int>::arange(first..n_keys as i64, device).unsqueeze_dim::<2>(1);
                let shape = [n_queries, n_keys];
                AttentionMask::hiding(key.expand(shape).greater(query.expand(shape)).unsqueeze_dim(0))
            }
        })
    }
}

// The only place that knows the polarity: `true` hides.
#[derive(Clone, Debug)]
struct AttentionMask {
    hidden: Tensor<4, Bool>,
    // 1 for a query that sees at least one key, else 0.
    alive: Tensor<4>,
}

impl AttentionMask {
    // Hides keys where `hidden` is true, `[B, Q, C]`.
    fn hiding(hidden: Tensor<3, Bool>) -> Self {
        let hidden: Tensor<4, Bool> = hidden.unsqueeze_dim(1); // [B, 1, Q, C]
        let alive = hidden.clone().bool_not().float().max_dim(3); // [B, 1, Q, 1]
        Self { hidden, alive }
    }
}

/// Splits the last dimension into heads: `[B, S, H] -> [B, h, S, d]`.
pub fn split_heads(x: Tensor<3>, n_heads: usize) -> Tensor<4> {
    let [n_rows, length, width] = x.dims();
    x.reshape([n_rows, length, n_heads, width / n_heads]).swap_dims(1, 2)
}

/// Attention of queries over keys, composed of tensor operations; without a `visibility` all is visible.
///
/// # Shapes
/// `[B, h, Q, d], [B, h, C, d], [B, h, C, d] -> [B, Q, H]`
pub fn attend(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, visibility: Option<&Visibility>) -> Tensor<3> {
    let mask = visibility.map(Visibility::mask);
    let [n_rows, n_heads, n_queries, head_dim] = q.dims();
    let heads = if q.device().is_autodiff() {
        differentiable(q, k, v, mask)
    } else {
        let options = AttentionModuleOptions { scale: None, softcap: None, is_causal: false };
        attention(q, k, v, mask.map(|mask| mask.hidden.clone()), None, options)
    };
    let heads = match mask {
        Some(mask) => {
            let dtype: FloatDType = heads.dtype().into();
            heads * mask.alive.clone().cast(dtype)
        }
        None => heads,
    };
    heads.swap_dims(1, 2).reshape([n_rows, n_queries, n_heads * head_dim])
}

// Burn's own fallback divides by the smallest positive number where nothing is visible, and the gradient of that can
// overflow. Here hidden scores are finite: an empty row is a harmless average that `alive` multiplies by zero.
fn differentiable(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, mask: Option<&AttentionMask>) -> Tensor<4> {
    const HIDDEN: f32 = -1e30;
    let scale = 1.0 / (q.dims()[3] as f64).sqrt();
    let scores = (q * scale).matmul(k.swap_dims(2, 3)); // [B, h, Q, C]
    let scores = match mask {
        Some(mask) => {
            let hidden = mask.hidden.clone().expand(scores.dims());
            scores.mask_fill(hidden, HIDDEN)
        }
        None => scores,
    };
    softmax(scores, 3).matmul(v)
}
