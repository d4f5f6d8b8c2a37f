//! Codecs: parity with the public implementation, codec folders, and files that are refused.
#![cfg(feature = "files")]

#[allow(dead_code)] // each test file uses its own part of it
mod common;
#[allow(dead_code)]
#[path = "common/torch.rs"]
mod torch;

use std::path::PathBuf;

use burn::tensor::{Device, Int, Tensor, TensorData};
use common::distance;
use pgm_model::codec::{self, VqCodec, VqCodecConfig};
use safetensors::SafeTensors;
use torch::{Py, dict, save};

/// Name, shape and float32 bytes.
type Named = Vec<(String, Vec<usize>, Vec<u8>)>;

// A file of `torch.save` in LlamaGen's form.
fn pt(named: &Named) -> Vec<u8> {
    let tensor = |(name, shape, bytes): &(String, Vec<usize>, Vec<u8>)| {
        (name.clone(), Py::Tensor("FloatStorage", shape.clone(), bytes.clone()))
    };
    save(&dict([("model", Py::Dict(named.iter().map(tensor).collect())), ("steps", Py::Int(3))]))
}

fn golden() -> PathBuf {
    match std::env::var_os("PGM_GOLDEN") {
        Some(root) => PathBuf::from(root).join("vq"),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vq"),
    }
}

struct Io {
    image: Tensor<4>,
    codes: Vec<i64>,
    decoded: Vec<f32>,
}

fn io(device: &Device) -> Io {
    let bytes = std::fs::read(golden().join("io.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |key: &str| -> Vec<f32> {
        file.tensor(key).unwrap().data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let shape: [usize; 4] = file.tensor("image").unwrap().shape().try_into().unwrap();
    Io {
        image: Tensor::from_data(TensorData::new(floats("image"), shape), device),
        codes: file.tensor("codes").unwrap().data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
        decoded: floats("decoded"),
    }
}

#[test]
#[allow(clippy::print_stdout)]
fn golden_vq() {
    let device = Device::flex();
    let (config, codec) = codec::open(&golden().join("vq_tiny.pt"), &device).unwrap();
    let Io { image, codes, decoded } = io(&device);
    let [n, channels, height, width] = image.dims();
    assert_eq!(channels, config.channels);
    let grid = codec.grid([height, width]).unwrap();
    for chunk in [1, n, 0] {
        let found = codec.encode(image.clone(), chunk);
        assert_eq!(found.dims(), [n, grid[0] * grid[1]]);
        assert_eq!(found.try_into_vec_as::<i64>().unwrap(), codes, "{chunk} at a time");
        let codes: Vec<i32> = codes.iter().map(|&code| code as i32).collect();
        let codes = Tensor::<2, Int>::from_data(TensorData::new(codes, [n, grid[0] * grid[1]]), &device);
        let pictures = codec.decode(codes, grid, chunk);
        assert_eq!(pictures.dims(), [n, channels, height, width]);
        let (relative, absolute) = distance(&pictures.try_into_vec_as::<f32>().unwrap(), &decoded);
        println!("decoded, {chunk} at a time: largest difference {absolute:.2e}");
        assert!(relative <= 1.0, "{relative} times the tolerance");
    }
    assert_eq!(codec.grid([height + 1, width]), None);
    assert_eq!(codec.pixels(grid), [height, width]);
}

#[test]
fn a_codec_folder_has_the_weights_and_the_hash_of_the_file_that_it_came_from() {
    let device = Device::flex();
    let (config, codec) = codec::open(&golden().join("vq_tiny.pt"), &device).unwrap();
    let hash = config.hash.clone().unwrap();
    assert_eq!((hash.len(), codec.hash().unwrap()), (32, hash.clone()));
    let folder = tempfile::tempdir().unwrap();
    codec::save(folder.path(), &config, &codec).unwrap();
    let (found, loaded) = codec::open(folder.path(), &device).unwrap();
    assert_eq!(found, config);
    let image = io(&device).image;
    let codes = |codec: &VqCodec| codec.encode(image.clone(), 1).try_into_vec_as::<i64>().unwrap();
    assert_eq!(codes(&codec), codes(&loaded));

    // The weights of another codec under this configuration are refused, and so is a configuration that is none.
    let other = VqCodec::new(&config, &device);
    assert_ne!(other.hash().unwrap(), hash);
    let another = tempfile::tempdir().unwrap();
    codec::save(another.path(), &config, &other).unwrap();
    std::fs::copy(another.path().join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let error = codec::open(folder.path(), &device).unwrap_err().to_string();
    assert!(error.contains("copy both files"), "{error}");
    std::fs::write(folder.path().join("config.json"), "{\"codec_type\": \"jpeg\"}").unwrap();
    let error = codec::open(folder.path(), &device).unwrap_err().to_string();
    assert!(error.contains("config.json") && error.contains("jpeg"), "{error}");
}

#[test]
fn files_that_are_no_codec_are_refused_by_the_tensor_that_is_wrong() {
    let device = Device::flex();
    let config = VqCodecConfig { base_width: 32, z_width: 8, n_codes: 5, ..VqCodecConfig::llamagen(&[1]) };
    let folder = tempfile::tempdir().unwrap();
    codec::save(folder.path(), &config, &VqCodec::new(&config, &device)).unwrap();
    let weights = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&weights).unwrap();
    let named: Named =
        file.tensors().into_iter().map(|(name, view)| (name, view.shape().to_vec(), view.data().to_vec())).collect();
    let read = |named: &Named| codec::read_torch(&pt(named), "vq.pt", &device);
    let (found, _) = read(&named).unwrap();
    assert_eq!(VqCodecConfig { hash: None, ..found }, config, "all sizes come from the tensors");

    let mut lacking = named.clone();
    lacking.retain(|(name, ..)| name != "decoder.mid.1.q.bias");
    let error = read(&lacking).unwrap_err().to_string();
    assert!(error.contains("lacks 1") && error.contains("decoder.mid.1.q.bias"), "{error}");
    // The count of used codes is no weight; any other tensor is one too many.
    for (called, is_known) in [("quantize.codebook_used", true), ("quantize.other", false)] {
        let mut more = named.clone();
        more.push((called.to_string(), vec![2], vec![0; 8]));
        match read(&more) {
            Ok(_) => assert!(is_known, "{called}"),
            Err(error) => {
                let error = error.to_string();
                assert!(!is_known && error.contains("holds 1") && error.contains(called), "{error}");
            }
        }
    }
    let error = codec::read_torch(b"PK\x03\x04 and nothing else", "vq.pt", &device).unwrap_err().to_string();
    assert!(error.contains("vq.pt"), "{error}");
    let empty = pt(&Vec::new());
    let error = codec::read_torch(&empty, "vq.pt", &device).unwrap_err().to_string();
    assert!(error.contains("encoder.conv_in.weight"), "{error}");
}
