//! Parity of the judge with PyTorch's GPT-2, and of the scores of pictures with torch-fidelity, within 1e-4.

use std::path::PathBuf;

use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_train::eval::images::{
    FeatureLayer, FeatureSet, INPUT_SIZE, Inception, Picture, Preprocessing, frechet_distance, inception_score,
    kid_of_all, precision_recall,
};
use pgm_train::judge::{Gpt2, ragged_nll};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

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

// Weights by a formula on the names, as the golden folder's `expected.json` says it.
fn weights_by_formula(device: &Device) -> Vec<u8> {
    let mut names = Inception::tensor_shapes(device).unwrap();
    // Without the running means and variances, and as the file has them.
    let is_parameter = |name: &str| !name.contains(".running_");
    let parameters =
        names.iter().filter(|(name, _)| is_parameter(name)).map(|(_, shape)| shape.iter().product::<usize>());
    assert_eq!(parameters.sum::<usize>(), 23_850_960);
    // A counter of batches beside every running mean.
    let counters = names.iter().filter_map(|(name, _)| name.strip_suffix("running_mean"));
    let counters: Vec<_> = counters.map(|norm| (format!("{norm}num_batches_tracked"), Vec::new())).collect();
    names.extend(counters);
    names.sort();
    let mix = |z: u64| {
        let z = (z.wrapping_add(1)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    let uniform = |index: usize, element: usize| {
        (mix(((index as u64) << 32) + element as u64) >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
    };
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = names
        .into_iter()
        .enumerate()
        .filter(|(_, (name, _))| !name.ends_with("num_batches_tracked"))
        .map(|(index, (name, shape))| {
            let count: usize = shape.iter().product();
            let value = |element: usize| {
                let u = uniform(index, element);
                if name.ends_with("bn.weight") {
                    1.0 + 0.2 * u
                } else if name.ends_with("running_var") {
                    1.0 + 0.5 * u
                } else if ["bn.bias", "running_mean", "fc.bias"].iter().any(|end| name.ends_with(end)) {
                    0.2 * u
                } else {
                    u * (24.0 / (count / shape[0]) as f64).sqrt()
                }
            };
            let bytes = (0..count).flat_map(|element| (value(element) as f32).to_le_bytes()).collect();
            (name, shape, bytes)
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

#[test]
fn golden_fid() {
    let folder = golden("fid");
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let bytes = read("io.safetensors");
    let io = SafeTensors::deserialize(&bytes).unwrap();
    let doubles = |key: &str| -> Vec<f64> {
        io.tensor(key).unwrap().data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
    };
    let singles = |key: &str| -> Vec<f32> { doubles(key).into_iter().map(|value| value as f32).collect() };
    let expected: serde_json::Value = serde_json::from_slice(&read("expected.json")).unwrap();
    let number = |key: &str| expected[key].as_f64().unwrap();

    // Pictures, channels first in the file.
    let view = io.tensor("images").unwrap();
    let [n, channels, height, width]: [usize; 4] = view.shape().try_into().unwrap();
    assert_eq!(channels, 3);
    let picture = |index: usize| {
        let planes = &view.data()[index * 3 * height * width..][..3 * height * width];
        let values = (0..height * width).flat_map(|at| [0, 1, 2].map(|c| planes[c * height * width + at])).collect();
        Picture::new(height, width, values).unwrap()
    };
    let pictures: Vec<Picture> = (0..n).map(picture).collect();
    let places: Vec<usize> = io
        .tensor("resize_positions")
        .unwrap()
        .data()
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| i32::from_le_bytes(*b) as usize)
        .collect();
    for way in ["torch-fidelity", "pytorch-fid", "clean-fid", "pgm"] {
        let preprocessing: Preprocessing = way.parse().unwrap();
        let resized: Vec<Vec<f32>> = pictures.iter().map(|picture| preprocessing.resized(picture)).collect();
        let found: Vec<f32> =
            places.chunks(4).map(|p| resized[p[0]][(p[1] * INPUT_SIZE + p[2]) * INPUT_SIZE + p[3]]).collect();
        assert_close(&format!("resize of {way}"), &found, &singles(&format!("resize_{}", way.replace('-', "_"))));
    }

    let device = Device::flex();
    let weights = weights_by_formula(&device);
    let network = Inception::from_bytes(&weights, "weights by formula", &device).unwrap();
    let input: Vec<f32> = pictures.iter().flat_map(|picture| Preprocessing::TorchFidelity.input(picture)).collect();
    let input = Tensor::<4>::from_data(TensorData::new(input, [n, 3, INPUT_SIZE, INPUT_SIZE]), &device);
    for layer in [FeatureLayer::Pool1, FeatureLayer::Pool2, FeatureLayer::Mixed6, FeatureLayer::Last] {
        let output = network.forward(input.clone(), layer);
        let key = format!("features_{}", layer.width());
        assert_close(&key, &output.features.try_into_vec_as::<f32>().unwrap(), &singles(&key));
        if let Some(logits) = output.logits {
            let key = "features_logits_unbiased";
            assert_close(key, &logits.try_into_vec_as::<f32>().unwrap(), &singles(key));
        }
    }

    let set = |key: &str| FeatureSet::new(io.tensor(key).unwrap().shape()[1], singles(key)).unwrap();
    let (a, b) = (set("a"), set("b"));
    let fid = frechet_distance(&a.statistics().unwrap(), &b.statistics().unwrap()).unwrap();
    assert!((fid / number("fid") - 1.0).abs() < 1e-6, "FID {fid}");
    let kid = kid_of_all(&a, &b).unwrap();
    assert!((kid / number("kid_unbiased_full") - 1.0).abs() < 1e-5, "KID {kid}");
    let score = inception_score(&set("is_logits"), 10).unwrap();
    assert!((score.mean - number("is_mean")).abs() < 1e-3, "IS {}", score.mean);
    assert!((score.deviation - number("is_std")).abs() < 1e-3, "IS {}", score.deviation);
    let found = precision_recall(&a, &b, 3).unwrap();
    assert!((found.precision - number("precision")).abs() < 1e-6, "{found:?}");
    assert!((found.recall - number("recall")).abs() < 1e-6, "{found:?}");
}
