//! The first weights of the GroupSwap, from the attention of a masked block.
// H hidden

#[cfg(test)]
use std::collections::BTreeMap;

use crate::model_folder::Collected;

/// What the names of the GroupSwap's tensors begin with.
pub(super) const GROUP_SWAP: &str = "decoder.group_swap.";

/// Scale of the drawn weights that begin small: the output's without visible tokens, and else the queries'.
pub const SMALL: f32 = 0.1;

/// Mean states of tokens in rows with masks, which the GroupSwap starts from.
#[derive(Clone, Debug, PartialEq)]
pub struct SwapStart {
    /// Of mask tokens after the last encoder block, `[H]`.
    pub masks: Vec<f32>,
    /// States of other tokens; absent for rows of masks alone.
    pub visible: Option<VisibleStates>,
}

/// Mean states in rows that have visible tokens, too.
#[derive(Clone, Debug, PartialEq)]
pub struct VisibleStates {
    /// Of mask tokens before the last encoder block, `[H]`.
    pub masks_before: Vec<f32>,
    /// Of visible tokens after the last encoder block, `[H]`.
    pub mean: Vec<f32>,
    /// Root of the mean variance over the H numbers of such a state: what a norm divides by.
    pub deviation: f32,
}

/// The last encoder block's tensors that make a GroupSwap.
pub(super) struct Attention {
    /// `[3 H, H]`.
    pub(super) qkv: Vec<f32>,
    /// Weight and bias of `norm1` with scale and shift of the condition, `[H]` each.
    pub(super) norm: [Vec<f32>; 2],
    /// `[H, H]` with the gate of the condition.
    pub(super) out: Vec<f32>,
}

impl Attention {
    /// From the tensors of a folded masked model.
    pub(super) fn of_block(folded: &Collected, block: usize) -> Option<Self> {
        let tensor = |name: &str| folded.get(&format!("blocks.{block}.{name}")).map(|(_, bytes)| numbers(bytes));
        Some(Self {
            qkv: tensor("attn_qkv.weight")?,
            norm: [tensor("norm1.weight")?, tensor("norm1.bias")?],
            out: tensor("attn_out.weight")?,
        })
    }
}

/// Replaces drawn weights: the output has a tenth of them, and the mean state of masks as its bias.
pub(super) fn start_small(swap: &mut Collected, masks: &[f32]) {
    scale(swap, "output_linear.weight", SMALL);
    replace(swap, "output_linear.bias", masks);
}

/// Replaces drawn weights by a masked block's attention from a mask token to the visible ones. The norm before keys and values,
/// which a GroupSwap has not, becomes a division by the mean deviation. The mean of the output is the mean state of masks.
pub(super) fn start_as_attention(swap: &mut Collected, block: &Attention, masks: &[f32], visible: &VisibleStates) {
    let width = masks.len();
    let [weight, bias] = &block.norm;
    let (to_query, to_kv) = block.qkv.split_at(width * width);

    let normed = normalised(&visible.masks_before);
    let input: Vec<f32> = normed.iter().zip(weight).zip(bias).map(|((x, weight), bias)| x * weight + bias).collect();
    let last = if swap.contains_key(&format!("{GROUP_SWAP}query_processor.2.weight")) { ".2" } else { "" };
    scale(swap, &format!("query_processor{last}.weight"), SMALL);
    replace(swap, &format!("query_processor{last}.bias"), &times(to_query, &input));

    // norm(x) is about (x - mean of x) / deviation: linear in x.
    let kv_rows = to_kv.chunks(width).flat_map(|row| {
        let scaled: Vec<f32> = row.iter().zip(weight).map(|(w, weight)| w * weight / visible.deviation).collect();
        let mean = scaled.iter().sum::<f32>() / width as f32;
        scaled.into_iter().map(move |w| w - mean)
    });
    let kv: Vec<f32> = kv_rows.collect();
    let kv_bias = times(to_kv, bias);
    let values = times(&kv[width * width..], &visible.mean);
    let values: Vec<f32> = values.iter().zip(&kv_bias[width..]).map(|(value, bias)| value + bias).collect();
    replace(swap, "hidden_to_key_value.weight", &kv);
    replace(swap, "hidden_to_key_value.bias", &kv_bias);

    replace(swap, "output_linear.weight", &block.out);
    let mean = times(&block.out, &values);
    let bias: Vec<f32> = masks.iter().zip(mean).map(|(mask, mean)| mask - mean).collect();
    replace(swap, "output_linear.bias", &bias);
}

// [R, H] times [H].
fn times(matrix: &[f32], vector: &[f32]) -> Vec<f32> {
    matrix.chunks(vector.len()).map(|row| row.iter().zip(vector).map(|(a, b)| a * b).sum()).collect()
}

fn normalised(x: &[f32]) -> Vec<f32> {
    let n = x.len() as f32;
    let mean = x.iter().sum::<f32>() / n;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n;
    x.iter().map(|x| (x - mean) / (variance + 1e-5).sqrt()).collect()
}

fn numbers(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn scale(swap: &mut Collected, name: &str, factor: f32) {
    if let Some((_, bytes)) = swap.get_mut(&format!("{GROUP_SWAP}{name}")) {
        *bytes = numbers(bytes).into_iter().flat_map(|number| (number * factor).to_le_bytes()).collect();
    }
}

// The shape stays, but for a bias, whose length is checked when it is loaded.
fn replace(swap: &mut Collected, name: &str, values: &[f32]) {
    if let Some((shape, bytes)) = swap.get_mut(&format!("{GROUP_SWAP}{name}")) {
        if shape.len() == 1 {
            *shape = vec![values.len()];
        }
        *bytes = values.iter().flat_map(|number| number.to_le_bytes()).collect();
    }
}

/// All tensors as numbers, by name.
#[cfg(test)]
pub(super) fn as_numbers(tensors: Collected) -> BTreeMap<String, Vec<f32>> {
    tensors.into_iter().map(|(name, (_, bytes))| (name, numbers(&bytes))).collect()
}
