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
use pgm_model::codec::{Codec, CodecConfig, CodecNetwork, VqCodec, VqCodecConfig};
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

fn open() -> (VqCodec, Codec) {
    let codec = Codec::open(&golden().join("vq_tiny.pt"), &Device::flex()).unwrap();
    let CodecNetwork::Vq(network) = codec.network().clone() else { panic!("a .pt of LlamaGen") };
    (network, codec)
}

#[test]
#[allow(clippy::print_stdout)]
fn golden_vq() {
    let device = Device::flex();
    let (network, codec) = open();
    let Io { image, codes, decoded } = io(&device);
    let [n, _, height, width] = image.dims();
    let grid = codec.config().grid_of([height, width]).unwrap();
    let tensor = |codes: &[i64]| {
        let codes: Vec<i32> = codes.iter().map(|&code| code as i32).collect();
        Tensor::<2, Int>::from_data(TensorData::new(codes, [n, grid[0] * grid[1]]), &device)
    };
    let check = |what: &str, encoded: Tensor<2, Int>, pictures: Tensor<4>| {
        assert_eq!(encoded.dims(), [n, grid[0] * grid[1]]);
        assert_eq!(encoded.try_into_vec_as::<i64>().unwrap(), codes, "{what}");
        assert_eq!(pictures.dims(), image.dims());
        let (relative, absolute) = distance(&pictures.try_into_vec_as::<f32>().unwrap(), &decoded);
        println!("decoded, {what}: largest difference {absolute:.2e}");
        assert!(relative <= 1.0, "{what}: {relative} times the tolerance");
    };
    for chunk in [1, n, 0] {
        let what = format!("{chunk} at a time");
        check(&what, network.encode(image.clone(), chunk), network.decode(tensor(&codes), grid, chunk));
    }
    check("the codec", codec.encode(image.clone()), codec.decode_grid(tensor(&codes), grid));
    assert_eq!(codec.config().grid_of([height + 1, width]), None);
    assert_eq!(codec.config().pixels_of(grid), Some([height, width]));
    // The published codecs were trained on pictures of 256 x 256.
    assert_eq!(codec.config().pixels()[..2], [256, 256]);
}

#[test]
fn a_codec_folder_has_the_weights_and_the_hash_of_the_file_that_it_came_from() {
    let device = Device::flex();
    let (_, codec) = open();
    let folder = tempfile::tempdir().unwrap();
    codec.save(folder.path()).unwrap();
    let loaded = Codec::open(folder.path(), &device).unwrap();
    assert_eq!((loaded.config(), loaded.hash()), (codec.config(), codec.hash()));
    let image = io(&device).image;
    let codes = |codec: &Codec| codec.encode(image.clone()).try_into_vec_as::<i64>().unwrap();
    assert_eq!(codes(&codec), codes(&loaded));
    // The keys are those of the file.
    let weights = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    let names: Vec<String> =
        SafeTensors::deserialize(&weights).unwrap().names().into_iter().map(|name| name.to_string()).collect();
    for name in ["encoder.mid.1.q.weight", "decoder.conv_blocks.0.attn.2.norm.bias", "quantize.embedding.weight"] {
        assert!(names.iter().any(|found| found == name), "{name}");
    }

    // Another codec of these sizes has another hash.
    let CodecConfig::Vq(config) = codec.config() else { panic!("LlamaGen's sizes") };
    let network = CodecNetwork::Vq(VqCodec::new(config, &device));
    let other = Codec::new(codec.config().clone(), network).unwrap();
    assert_ne!(other.hash(), codec.hash());
    std::fs::write(folder.path().join("config.json"), "{\"codec_type\": \"jpeg\"}").unwrap();
    let error = Codec::open(folder.path(), &device).unwrap_err().to_string();
    assert!(error.contains("config.json") && error.contains("jpeg"), "{error}");
}

#[test]
fn files_that_are_no_codec_are_refused_by_the_tensor_that_is_wrong() {
    let device = Device::flex();
    let config = VqCodecConfig { base_width: 32, z_width: 8, n_codes: 5, ..VqCodecConfig::llamagen(&[1]) };
    let folder = tempfile::tempdir().unwrap();
    let network = CodecNetwork::Vq(VqCodec::new(&config, &device));
    Codec::new(CodecConfig::Vq(config.clone()), network).unwrap().save(folder.path()).unwrap();
    let weights = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&weights).unwrap();
    let named: Named =
        file.tensors().into_iter().map(|(name, view)| (name, view.shape().to_vec(), view.data().to_vec())).collect();
    let read = |named: &Named| Codec::from_torch(&pt(named), "vq.pt", &device);
    assert_eq!(*read(&named).unwrap().config(), CodecConfig::Vq(config), "all sizes come from the tensors");

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
    let error = Codec::from_torch(b"PK\x03\x04 and nothing else", "vq.pt", &device).unwrap_err().to_string();
    assert!(error.contains("vq.pt"), "{error}");
    let empty = pt(&Vec::new());
    let error = Codec::from_torch(&empty, "vq.pt", &device).unwrap_err().to_string();
    assert!(error.contains("encoder.conv_in.weight"), "{error}");
}
