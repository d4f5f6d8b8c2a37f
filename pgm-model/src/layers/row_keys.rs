//! Cross-attention of packed queries, each row's to the keys that are kept with the row.
// K queries of a row, C its keys, H hidden, h heads, H = h d

use burn::tensor::{DType, Tensor};

use crate::ops::cross_attention;
use crate::rotary::RotaryAngles;
use crate::visibility::Visibility;

/// The keys of one row, and which of the packed queries are its own.
pub(crate) struct RowKeys<'a> {
    /// Queries of the row, which follow those of the rows before it.
    pub(crate) n_queries: usize,
    /// Keys, then values, `[1, C, 2 H]`; `None` for a row without keys.
    pub(crate) kv: Option<Tensor<3>>,
    /// Rotary angles of the queries `[1, K, d]` and of the keys `[1, C, d]`.
    pub(crate) angles: [&'a RotaryAngles; 2],
    /// Which keys a query sees; `None` when every query sees every key.
    pub(crate) visibility: Option<&'a Visibility>,
}

/// Attention of each row's queries to its keys; 0 in a row without keys.
///
/// # Shapes
/// q `[1, S, H] -> [1, S, H]`, S is the sum of all K
pub(crate) fn attend_rows<'a>(
    q: &Tensor<3>,
    rows: impl Iterator<Item = RowKeys<'a>>,
    n_heads: usize,
    dtype: DType,
) -> Tensor<3> {
    let (mut start, width) = (0, q.dims()[2]);
    let mut outputs = Vec::new();
    for RowKeys { n_queries, kv, angles, visibility } in rows.filter(|row| row.n_queries > 0) {
        outputs.push(match kv {
            Some(kv) => cross_attention(q.clone().narrow(1, start, n_queries), kv, angles, visibility, n_heads, dtype),
            None => Tensor::zeros([1, n_queries, width], (&q.device(), q.dtype())),
        });
        start += n_queries;
    }
    match outputs.len() {
        1 => outputs.remove(0),
        _ => Tensor::cat(outputs, 1),
    }
}
