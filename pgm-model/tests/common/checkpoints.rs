//! Checkpoints of the masked golden model, in the forms that people have.

use burn::tensor::Device;
use pgm_model::import::{CheckpointWeights, ImportOverrides, PublishedCheckpoint, SpecialIds};
use pgm_model::{ModelConfig, ModelError, Network, model_folder};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::torch::{Py, save};

pub const EMBEDDING: &str = "vocab_embed.embedding";
pub const HEAD: &str = "output_layer.linear.weight";

/// Name, shape and float32 bytes.
pub type Named = Vec<(String, Vec<usize>, Vec<u8>)>;

pub fn reference(golden: &str) -> Named {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(golden);
    let bytes = std::fs::read(folder.join("reference.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let name = |name: &str| name.strip_prefix("backbone.").unwrap_or(name).to_string();
    file.iter().map(|(key, view)| (name(key), view.shape().to_vec(), view.data().to_vec())).collect()
}

/// The masked golden model, sorted by name so that tests can index it.
pub fn mdlm() -> Named {
    let mut named = reference("mdlm");
    named.sort();
    named
}

pub fn state_dict(named: &Named, name: impl Fn(&str) -> String) -> Py {
    let tensor = |(key, shape, bytes): &(String, Vec<usize>, Vec<u8>)| {
        (name(key), Py::Tensor("FloatStorage", shape.clone(), bytes.clone()))
    };
    Py::Dict(named.iter().map(tensor).collect())
}

pub fn plain(named: &Named) -> Py {
    state_dict(named, |name| format!("backbone.{name}"))
}

pub fn safetensors_file(named: &Named, metadata: Option<[(&str, &str); 1]>) -> Vec<u8> {
    let view = |shape: &Vec<usize>, bytes| TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
    let views = named.iter().map(|(name, shape, bytes)| (format!("backbone.{name}"), view(shape, bytes)));
    let metadata = metadata.map(|pairs| pairs.map(|(key, value)| (key.to_string(), value.to_string())).into());
    safetensors::serialize(views, metadata).unwrap()
}

/// Every value is `by` larger.
pub fn moved(named: &Named, by: f32) -> Named {
    let moved = |bytes: &[u8]| -> Vec<u8> {
        bytes.as_chunks::<4>().0.iter().flat_map(|b| (f32::from_le_bytes(*b) + by).to_le_bytes()).collect()
    };
    named.iter().map(|(name, shape, bytes)| (name.clone(), shape.clone(), moved(bytes))).collect()
}

pub fn overrides() -> ImportOverrides {
    ImportOverrides { n_heads: Some(4), length: Some(24), ..ImportOverrides::default() }
}

pub fn import(
    checkpoint: &PublishedCheckpoint,
    weights: CheckpointWeights,
) -> Result<(ModelConfig, Network), ModelError> {
    let (config, _) = checkpoint.resolve(&overrides(), &SpecialIds::default())?;
    let network = checkpoint.network(weights, &config, &Device::flex())?;
    Ok((config, network))
}

pub fn imported(bytes: &[u8]) -> Result<Vec<u8>, ModelError> {
    let checkpoint = PublishedCheckpoint::parse(bytes, "here.pt")?;
    let (_, network) = import(&checkpoint, checkpoint.default_weights())?;
    model_folder::to_safetensors(&network)
}

pub fn refusal(bytes: &[u8]) -> String {
    let sentence = imported(bytes).expect_err("should be refused").to_string();
    assert!(sentence.contains("here.pt") && !sentence.contains('\n'), "{sentence}");
    sentence
}

/// The weights as a model folder stores them.
pub fn expected(named: &Named) -> Vec<u8> {
    imported(&save(&plain(named))).unwrap()
}

pub const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 678\n";
