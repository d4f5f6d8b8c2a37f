//! The keys and values of earlier tokens, for causal attention.
// B rows, h heads, C tokens, d head width

use burn::tensor::{Int, Tensor, TensorData};

/// Rotated keys and values of the tokens that one block has processed, `[B, h, C, d]` each; empty at first.
#[derive(Clone, Debug, Default)]
pub struct KeyValues(Option<(Tensor<4>, Tensor<4>)>);

impl KeyValues {
    /// Adds the keys and values of new tokens and returns those of all tokens.
    ///
    /// # Shapes
    /// `[B, h, S, d]` each `-> [B, h, C + S, d]` each
    pub(crate) fn append(&mut self, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let all = match self.0.take() {
            Some((old_k, old_v)) => (Tensor::cat(vec![old_k, k], 2), Tensor::cat(vec![old_v, v], 2)),
            None => (k, v),
        };
        self.0.insert(all).clone()
    }

    /// The last `width` tokens of some rows.
    pub(crate) fn select_rows(&self, rows: &[usize], width: usize) -> Self {
        let selected = |x: &Tensor<4>| {
            let index: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
            let index = Tensor::<1, Int>::from_data(TensorData::new(index, [rows.len()]), &x.device());
            x.clone().narrow(2, x.dims()[2] - width, width).select(0, index)
        };
        Self(self.0.as_ref().map(|(k, v)| (selected(k), selected(v))))
    }

    /// The rows of all parts, each padded with zeros in front to `width` tokens. A part is given with its number of rows,
    /// because it may be empty.
    pub(crate) fn concat(parts: &[(Option<&Self>, usize)], width: usize) -> Self {
        let tensors = |part: Option<&Self>| part.and_then(|part| part.0.clone());
        let Some((like, _)) = parts.iter().find_map(|(part, _)| tensors(*part)) else { return Self(None) };
        let [_, n_heads, _, head_dim] = like.dims();
        let zeros =
            |n_rows, n_tokens| Tensor::zeros([n_rows, n_heads, n_tokens, head_dim], (&like.device(), like.dtype()));
        let padded = |x: Tensor<4>| match x.dims() {
            [_, _, n_tokens, _] if n_tokens == width => x,
            [n_rows, _, n_tokens, _] => Tensor::cat(vec![zeros(n_rows, width - n_tokens), x], 2),
        };
        let whole = |&(part, n_rows): &(Option<&Self>, usize)| match tensors(part) {
            Some((k, v)) => (padded(k), padded(v)),
            None => (zeros(n_rows, width), zeros(n_rows, width)),
        };
        let (keys, values): (Vec<_>, Vec<_>) = parts.iter().map(whole).unzip();
        Self(Some((Tensor::cat(keys, 0), Tensor::cat(values, 0))))
    }
}
