//! Parity of the judge with PyTorch's GPT-2, within 1e-4.

use std::path::PathBuf;

use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_train::judge::{Gpt2, ragged_nll};
use safetensors::SafeTensors;

// A folder below PGM_GOLDEN, or below the repository's copy.
fn golden(name: &str) -> PathBuf {
    let ours = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    std::env::var_os("PGM_GOLDEN").map_or_else(ours, PathBuf::from).join(name)
}

#[allow(clippy::print_stdout)]
fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = found.iter().zip(expected).map(|(f, e)| (f - e).abs()).fold(0.0, |a: f32, b| {
        assert!(!b.is_nan(), "{what} is not a number");
        a.max(b)
    });
    println!("{what}: largest difference {largest:.2e}");
    assert!(largest <= 1e-4, "{what}: largest difference {largest:e}");
}

#[test]
fn golden_gpt2_tiny() {
    let folder = golden("gpt2_tiny");
    let device = Device::flex();
    let (config, model) = Gpt2::load(&folder, &device).unwrap();
    let path = folder.join("io.safetensors");
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let io = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |key: &str| -> Vec<f32> {
        io.tensor(key).unwrap().data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let view = io.tensor("tokens").unwrap();
    let tokens: Vec<i32> = view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as i32).collect();
    let [n_rows, length]: [usize; 2] = view.shape().try_into().unwrap();
    let batch = Tensor::<2, Int>::from_data(TensorData::new(tokens.clone(), [n_rows, length]), &device);

    let values = model.forward(batch.clone());
    assert_eq!(values.dims(), [n_rows, length, config.vocab_size]);
    assert_close("logits", &values.try_into_vec_as::<f32>().unwrap(), &floats("logits"));
    let nll = model.negative_log_likelihood(batch).try_into_vec_as::<f32>().unwrap();
    assert_close("nll", &nll, &floats("nll"));

    // Rows of different lengths together, each against its part of the whole row's.
    let rows: Vec<Vec<u32>> =
        tokens.chunks(length).map(|row| row.iter().map(|&token| token as u32).collect()).collect();
    let lengths: Vec<usize> = (0..n_rows).map(|row| (length - 7 * row).max(2)).collect();
    let ragged: Vec<&[u32]> = rows.iter().zip(&lengths).map(|(row, &length)| &row[..length]).collect();
    let found = ragged_nll(&ragged, &device, |tokens| model.negative_log_likelihood(tokens)).unwrap();
    let found: Vec<f32> = found.into_iter().flatten().map(|value| value as f32).collect();
    let whole = floats("nll");
    let expected: Vec<f32> =
        whole.chunks(length - 1).zip(&lengths).flat_map(|(row, &length)| row[..length - 1].to_vec()).collect();
    assert_close("nll of ragged rows", &found, &expected);
}
