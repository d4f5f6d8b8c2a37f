//! Rows of different lengths, judged in batches.
//!
//! Shapes: B rows of a batch, L length of its longest row.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::language_model::{Judge, Pooling};
use super::progress::{Observe, report_progress};
use crate::TrainError;
use crate::token_nll::read;

/// NLLs of all rows, in batches of rows of similar length. An empty row has none.
pub(super) fn batched_nll(
    judge: &dyn Judge,
    rows: &[Vec<u32>],
    batch: usize,
    observe: &mut Observe,
) -> Result<Vec<Vec<f64>>, TrainError> {
    let mut all = vec![Vec::new(); rows.len()];
    let mut n_done = 0;
    for members in batches(rows, batch) {
        let batch: Vec<&[u32]> = members.iter().map(|&row| rows[row].as_slice()).collect();
        for (&row, nll) in members.iter().zip(judge.token_nll(&batch)?) {
            if nll.iter().any(|value| !value.is_finite()) {
                let problem = "the judge's NLL is not a finite number; are its weights damaged?";
                return Err(TrainError::judge(format!("sample {}", row + 1), problem));
            }
            all[row] = nll;
        }
        n_done += members.len();
        report_progress(observe, n_done, rows.len())?;
    }
    if n_done < rows.len() {
        report_progress(observe, rows.len(), rows.len())?;
    }
    Ok(all)
}

/// Indices of the rows that are not empty, in batches. The longest rows come first: a batch that does not fit into the
/// device's memory fails at once.
pub(super) fn batches(rows: &[Vec<u32>], batch: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows.len()).filter(|&row| !rows[row].is_empty()).collect();
    order.sort_by_key(|&row| std::cmp::Reverse(rows[row].len()));
    order.chunks(batch).map(<[usize]>::to_vec).collect()
}

/// [`Judge::token_nll`] by a network `[B, L] -> [B, L - 1]` for rows of equal length. Shorter rows are padded at their
/// end, where a causal network does not look; the padding's NLLs are dropped. The network is not called when every row
/// has one token.
///
/// # Errors
/// [`TrainError::Device`] when the network's output cannot be read.
pub fn ragged_nll(
    rows: &[&[u32]],
    device: &Device,
    network: impl FnOnce(Tensor<2, Int>) -> Tensor<2>,
) -> Result<Vec<Vec<f64>>, TrainError> {
    let tokens = padded(rows, device);
    let n_predicted = tokens.dims()[1] - 1;
    if n_predicted == 0 {
        return Ok(vec![Vec::new(); rows.len()]);
    }
    let values = read(network(tokens))?;
    let cut = |(row, nll): (&&[u32], &[f32])| nll[..row.len() - 1].iter().map(|&value| f64::from(value)).collect();
    Ok(rows.iter().zip(values.chunks(n_predicted)).map(cut).collect())
}

/// [`Judge::features`] by a network `[B, L] -> [B, L, H]` of last hidden states. Shorter rows are padded at their end, where
/// a causal network does not look; the padding's hidden states do not count.
///
/// # Errors
/// [`TrainError::Device`] when the network's output cannot be read.
pub fn ragged_features(
    rows: &[&[u32]],
    device: &Device,
    pooling: Pooling,
    network: impl FnOnce(Tensor<2, Int>) -> Tensor<3>,
) -> Result<Vec<Vec<f32>>, TrainError> {
    let hidden = network(padded(rows, device)); // [B, L, H]
    let [n_rows, length, width] = hidden.dims();
    // The weight of each hidden state in its row's feature.
    let weights = rows.iter().flat_map(|row| {
        let (first, share) = match pooling {
            Pooling::Last => (row.len() - 1, 1.0),
            Pooling::Mean => (0, 1.0 / row.len() as f32),
        };
        (0..length).map(move |at| if (first..row.len()).contains(&at) { share } else { 0.0 })
    });
    let weights = TensorData::new(weights.collect::<Vec<f32>>(), [n_rows, 1, length]);
    let pooled = Tensor::<3>::from_data(weights, device).matmul(hidden); // [B, 1, H]
    Ok(read(pooled)?.chunks(width).map(<[f32]>::to_vec).collect())
}

/// The rows as one tensor, the shorter ones padded at their end with token 0. [B, L]
pub(super) fn padded(rows: &[&[u32]], device: &Device) -> Tensor<2, Int> {
    let length = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let values = rows.iter().flat_map(|row| {
        let tokens = row.iter().map(|&token| token as i32);
        tokens.chain(std::iter::repeat_n(0, length - row.len()))
    });
    Tensor::from_data(TensorData::new(values.collect(), [rows.len(), length]), device)
}
