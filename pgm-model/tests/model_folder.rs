//! Model folders: a saved model loads to the same bits, and errors name what is wrong.
#![cfg(feature = "files")]

#[allow(dead_code)] // each test file uses its own part of it
mod common;

use burn::tensor::Device;
use common::Golden;
use pgm_model::{ModelError, model_folder};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

#[test]
fn a_saved_model_loads_to_the_same_bits_from_files_and_from_bytes() {
    for name in ["text_learn_mlp4", "text_logsumexp_linear", "mdlm"] {
        let golden = Golden::open(name);
        let device = Device::flex();
        let network = golden.network(&device);
        let folder = tempfile::tempdir().unwrap();
        model_folder::save(folder.path(), &golden.config, &network).unwrap();
        let (config, loaded) = model_folder::load(folder.path(), &device).unwrap();
        assert_eq!(config, golden.config);
        let bytes = model_folder::to_safetensors(&network).unwrap();
        assert_eq!(model_folder::to_safetensors(&loaded).unwrap(), bytes);
        let json = std::fs::read(folder.path().join(model_folder::CONFIG_FILE)).unwrap();
        let read = std::cell::RefCell::new(Vec::new());
        let progress = |share: f64| read.borrow_mut().push(share);
        let (_, loaded) = model_folder::load_bytes(&json, &bytes, &device, &progress).unwrap();
        assert!(read.borrow().is_sorted() && read.borrow().len() > 10 && read.borrow().last() == Some(&1.0));
        assert_eq!(model_folder::to_safetensors(&loaded).unwrap(), bytes);

        // Every published tensor has one of our names, except the rotary frequencies.
        let published = std::fs::read(golden.folder.join("reference.safetensors")).unwrap();
        let published = SafeTensors::deserialize(&published).unwrap();
        let saved = SafeTensors::deserialize(&bytes).unwrap();
        for (name, view) in published.tensors() {
            if !name.ends_with("inv_freq") {
                assert_eq!(
                    saved.tensor(name.strip_prefix("backbone.").unwrap()).unwrap().data(),
                    view.data(),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn the_error_of_a_broken_weights_file_names_the_tensor() {
    let golden = Golden::open("text_freqs_linear");
    let device = Device::flex();
    let bytes = model_folder::to_safetensors(&golden.network(&device)).unwrap();
    let load = |bytes: &[u8]| model_folder::from_safetensors(bytes, "here", &golden.config, &device).unwrap_err();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let rewritten = |change: &dyn Fn(&str, TensorView) -> Option<(String, Vec<usize>)>| {
        let views: Vec<(String, TensorView)> = file
            .tensors()
            .into_iter()
            .filter_map(|(name, view)| {
                let (new_name, shape) = change(&name, view.clone())?;
                let n: usize = shape.iter().product();
                let data = file.tensor(&name).unwrap().data();
                Some((new_name, TensorView::new(view.dtype(), shape, &data[..4 * n]).unwrap()))
            })
            .collect();
        safetensors::serialize(views, None).unwrap()
    };
    let victim = "encoder.blocks.1.attn_qkv.weight";
    let same = |name: &str, view: &TensorView| Some((name.to_string(), view.shape().to_vec()));

    let error = load(&bytes[..bytes.len() - 10]);
    assert!(matches!(error, ModelError::Weights { .. }) && error.to_string().contains("truncated"), "{error}");

    let error = load(&rewritten(&|name, view| if name == victim { None } else { same(name, &view) }));
    assert!(
        matches!(error, ModelError::MissingTensor { count: 1, .. }) && error.to_string().contains(victim),
        "{error}"
    );

    let error = load(&rewritten(&|name, view| {
        if name == victim { Some((name.to_string(), vec![96, 31])) } else { same(name, &view) }
    }));
    assert!(error.to_string().contains(victim) && error.to_string().contains("[96, 32]"), "{error}");

    let doubled = rewritten(&|name, view| {
        let name = if name == victim { "encoder.blocks.9.attn_qkv.weight" } else { name };
        same(name, &view)
    });
    assert!(matches!(load(&doubled), ModelError::MissingTensor { .. }));

    let mut small = golden.config.clone();
    if let pgm_model::ModelConfig::Partition(config) = &mut small {
        config.decoder_blocks -= 1;
    }
    let error = model_folder::from_safetensors(&bytes, "here", &small, &device).unwrap_err();
    assert!(matches!(error, ModelError::UnknownTensor { .. }), "{error}");
}

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    model_folder::atomic_write(&path, b"old").unwrap();
    model_folder::atomic_write(&path, b"new").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    let blocked = folder.path().join("model.safetensors/inside");
    let error = model_folder::atomic_write(&blocked, b"x").unwrap_err().to_string();
    assert!(error.contains("model.safetensors/inside"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
