//! Reading golden folders.

use std::path::PathBuf;

use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_model::{
    BackboneConfig, Class, ImageConfig, MaskGitConfig, MaskedConfig, ModelConfig, Network, PartitionConfig,
    model_folder,
};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// A golden folder: its configuration and the bytes of its files.
pub struct Golden {
    pub folder: PathBuf,
    pub config: ModelConfig,
    io: Vec<u8>,
}

impl Golden {
    /// Opens a folder below `PGM_GOLDEN`, or below the repository's copy.
    pub fn open(name: &str) -> Self {
        match std::env::var_os("PGM_GOLDEN") {
            Some(root) => Self::open_in(PathBuf::from(root).join(name)),
            None => Self::open_ours(name),
        }
    }

    /// Opens a folder of the repository's copy.
    pub fn open_ours(name: &str) -> Self {
        Self::open_in(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name))
    }

    fn open_in(folder: PathBuf) -> Self {
        let read = |file: &str| {
            std::fs::read(folder.join(file)).unwrap_or_else(|error| panic!("{}/{file}: {error}", folder.display()))
        };
        // A whole training configuration keeps the model's under a key, and the vocabulary with the tokenizer.
        let nested = folder.join("reference_config.json").exists();
        let name = if nested { "reference_config.json" } else { "config.json" };
        let mut json: Value = serde_json::from_slice(&read(name)).unwrap();
        if nested {
            json = json["model"].take();
            let tokenizer: Value = serde_json::from_slice(&read("tokenizer.json")).unwrap();
            let n_tokens = tokenizer["model"]["vocab"].as_object().unwrap().len();
            json["vocab_size"] = (n_tokens + 1).into();
            json["mask_index"] = n_tokens.into();
        }
        let config = published_config(&json);
        let io = read("io.safetensors");
        Self { folder, config, io }
    }

    pub fn network(&self, device: &Device) -> Network {
        model_folder::load_weights(&self.folder.join("reference.safetensors"), &self.config, device).unwrap()
    }

    /// The class of each row: its label, or none where the label is dropped.
    pub fn classes(&self) -> Vec<Class> {
        let numbers = |key: &str| {
            let (_, dtype, bytes) = self.raw(key);
            let width = match dtype {
                Dtype::BOOL => 1,
                Dtype::I32 => 4,
                other => panic!("{key} is {other:?}"),
            };
            bytes.chunks(width).map(|number| usize::from(number[0])).collect::<Vec<_>>()
        };
        let labels = match self.raw("labels") {
            (_, Dtype::I64, bytes) => bytes.chunks(8).map(|number| usize::from(number[0])).collect(),
            _ => numbers("labels"),
        };
        labels.into_iter().zip(numbers("drop_label")).map(|(label, drop)| (drop == 0).then_some(label)).collect()
    }

    fn raw(&self, key: &str) -> (Vec<usize>, Dtype, Vec<u8>) {
        let io = SafeTensors::deserialize(&self.io).unwrap();
        let view = io.tensor(key).unwrap();
        (view.shape().to_vec(), view.dtype(), view.data().to_vec())
    }

    /// Integers, row by row.
    pub fn ints(&self, key: &str) -> Vec<Vec<usize>> {
        let (shape, dtype, bytes) = self.raw(key);
        let values: Vec<usize> = match dtype {
            Dtype::I64 => bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as usize).collect(),
            Dtype::I32 => bytes.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b) as usize).collect(),
            other => panic!("{key} is {other:?}"),
        };
        values.chunks(*shape.last().unwrap()).map(<[usize]>::to_vec).collect()
    }

    pub fn int_tensor(&self, key: &str, device: &Device) -> Tensor<2, Int> {
        let rows = self.ints(key);
        let shape = [rows.len(), rows[0].len()];
        let flat: Vec<i32> = rows.into_iter().flatten().map(|value| value as i32).collect();
        Tensor::from_data(TensorData::new(flat, shape), device)
    }

    pub fn floats(&self, key: &str) -> Vec<f32> {
        let (_, dtype, bytes) = self.raw(key);
        assert_eq!(dtype, Dtype::F32, "{key}");
        bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }
}

fn published_config(json: &Value) -> ModelConfig {
    let size = |key: &str| json[key].as_u64().unwrap_or_else(|| panic!("config.json: {key}")) as usize;
    let image = json.get("n_class").map(|n_classes| ImageConfig {
        registers: size("register"),
        ..ImageConfig::new(n_classes.as_u64().unwrap() as usize, [size("grid"); 2])
    });
    if let Some(depth) = json.get("depth") {
        let sizes = BackboneConfig::for_mask_git(
            size("codebook_size"),
            size("hidden_size"),
            size("n_heads"),
            image.expect("n_class"),
        );
        let backbone = BackboneConfig { mlp_ratio: size("mlp_dim") / size("hidden_size"), ..sizes };
        return ModelConfig::MaskGit(MaskGitConfig { backbone, n_blocks: depth.as_u64().unwrap() as usize });
    }
    let sizes = BackboneConfig::new(size("vocab_size"), size("hidden_size"), size("n_heads"), size("length"));
    let backbone = BackboneConfig {
        // A class's vector is as wide as the network, whatever the file says.
        cond_dim: if image.is_some() { size("hidden_size") } else { size("cond_dim") },
        image,
        mask_index: size("mask_index"),
        bos_index: json["bos_index"].as_u64().map_or(sizes.bos_index, |bos| bos as usize),
        eos_index: json["bos_index"].as_u64().map_or(sizes.eos_index, |bos| bos as usize),
        mlp_ratio: json["mlp_ratio"].as_u64().unwrap_or(4) as usize,
        ..sizes
    };
    if json.get("encoder").is_none() {
        return ModelConfig::Masked(MaskedConfig { backbone, n_blocks: size("n_blocks") });
    }
    ModelConfig::Partition(PartitionConfig {
        backbone,
        encoder_blocks: json["encoder"]["n_blocks"].as_u64().unwrap() as usize,
        decoder_blocks: json["decoder"]["n_blocks"].as_u64().unwrap() as usize,
        queries: serde_json::from_value(json["swap"]["pre_query_mode"].clone()).unwrap(),
        projection: serde_json::from_value(json["swap"]["query_process_mode"].clone()).unwrap(),
        sets: Default::default(),
    })
}

/// Largest |difference| in units of `1e-5 + 1e-6 |x|`, with the largest |difference| itself.
pub fn distance(found: &[f32], expected: &[f32]) -> (f32, f32) {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).fold((0.0, 0.0), |(relative, absolute), (f, e)| {
        let difference = (f - e).abs();
        assert!(!difference.is_nan(), "{f} against {e}");
        (f32::max(relative, difference / (1e-5 + 1e-6 * e.abs())), f32::max(absolute, difference))
    })
}
