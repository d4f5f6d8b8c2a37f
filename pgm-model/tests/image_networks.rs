//! Networks of image codes: gradients against differences of the loss, and their model folders.
#![cfg(feature = "files")]

#[allow(dead_code)] // each test file uses its own part of it
#[path = "common/torch.rs"]
mod torch;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use pgm_model::import::{CheckpointWeights, ImportOverrides, PublishedCheckpoint, SpecialIds};
use pgm_model::{
    BackboneConfig, Class, ImageConfig, LossTarget, MaskGitConfig, ModelConfig, Network, Partition, PartitionConfig,
    Projection, Queries, WeightDtype, model_folder,
};

use safetensors::SafeTensors;
use torch::{Py, dict, save};

const N_CODES: usize = 11;
const N_CLASSES: usize = 3;

fn configs() -> [ModelConfig; 3] {
    let image = |registers| ImageConfig { registers, ..ImageConfig::new(N_CLASSES, [2, 3]) };
    let partition = |registers| {
        ModelConfig::Partition(PartitionConfig {
            backbone: BackboneConfig::for_codes(N_CODES, 12, 2, image(registers)),
            encoder_blocks: 2,
            decoder_blocks: 1,
            queries: Queries::LearnFreqs,
            projection: Projection::Linear,
            sets: Default::default(),
        })
    };
    let backbone = BackboneConfig::for_mask_git(N_CODES, 12, 2, image(1));
    [partition(0), partition(2), ModelConfig::MaskGit(MaskGitConfig { backbone, n_blocks: 2 })]
}

fn ints(rows: &[&[i32]], device: &Device) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(rows.concat(), [rows.len(), rows[0].len()]), device)
}

fn loss(network: &Network, device: &Device) -> Tensor<1> {
    let classes: Vec<Class> = vec![Some(1), None];
    let (mask, bos) = (N_CODES as i32, N_CODES as i32 + 1);
    let target = |targets: &Tensor<2, Int>| {
        let weights = targets.clone().not_equal_elem(bos).float() * 0.25;
        LossTarget { targets: targets.clone(), weights, mask_index: N_CODES }
    };
    match network {
        Network::Partition(model) => {
            let codes = ints(&[&[bos, 3, 1, 4, 1, 5, 9], &[bos, 2, 6, 5, 3, 5, 8]], device);
            let groups = ints(&[&[0, 1, 0, 1, 1, 0, 0], &[0, 1, 1, 1, 1, 1, 1]], device);
            let partition = Partition::new(groups).with_classes(classes);
            model.loss_partition(codes.clone(), &partition, &target(&codes))
        }
        Network::MaskGit(model) => {
            let codes = ints(&[&[3, 1, 4, 1, 5, 9], &[2, 6, 5, 3, 5, 8]], device);
            let masked = ints(&[&[3, mask, 4, mask, 5, mask], &[mask; 6]], device);
            model.loss(masked, Some(&classes), &target(&codes))
        }
        _ => unreachable!("the networks of image codes"),
    }
}

struct Tracked;
impl ModuleMapper for Tracked {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        Param::initialized(param.id, param.val().require_grad())
    }
}

// The direction of parameter number `i`: signs that depend on it and on the entry.
fn signs(i: usize, n: usize) -> Vec<f32> {
    (0..n).map(|j| if (i * 31 + j * 17) % 7 < 4 { 1.0 } else { -1.0 }).collect()
}

struct Directional<'a>(&'a Gradients, usize, Vec<f64>);
impl ModuleVisitor for Directional<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = param.val().grad(self.0).expect("every parameter has a gradient");
        let values = gradient.try_into_vec_as::<f32>().unwrap();
        let signs = signs(self.1, values.len());
        self.2.push(values.iter().zip(signs).map(|(&g, s)| f64::from(g * s)).sum());
        self.1 += 1;
    }
}

// Moves parameter number `only` along its direction.
struct Moved(usize, usize, f32);
impl ModuleMapper for Moved {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let index = self.0;
        self.0 += 1;
        if index != self.1 {
            return param;
        }
        let value = param.val();
        let n = value.shape().num_elements();
        let step = Tensor::from_data(TensorData::new(signs(index, n), value.shape()), &value.device());
        Param::initialized(param.id, value + step * self.2)
    }
}

#[test]
fn gradients_equal_differences_of_the_loss_for_every_parameter() {
    let (plain, device) = (Device::flex(), Device::flex().autodiff());
    for (config, seed) in configs().iter().zip([5, 6, 7]) {
        config.validate().unwrap();
        let network = Network::new(config, &device).with_noise(0.4, seed).map(&mut Tracked);
        let gradients = loss(&network, &device).backward();
        let mut directional = Directional(&gradients, 0, Vec::new());
        network.visit(&mut directional);
        let at = |index: usize, step: f32| {
            let moved = Network::new(config, &plain).with_noise(0.4, seed).map(&mut Moved(0, index, step));
            f64::from(loss(&moved, &plain).into_scalar::<f32>())
        };
        for (index, &expected) in directional.2.iter().enumerate() {
            let step = 1e-3;
            let found = (at(index, step) - at(index, -step)) / (2.0 * f64::from(step));
            let close = (found - expected).abs() < 0.02 * expected.abs() + 2e-3;
            assert!(close, "parameter {index} of {config:?}: {found} by differences, {expected} by backward");
        }
        assert!(directional.2.iter().filter(|g| g.abs() > 5e-3).count() > directional.2.len() / 2);
    }
}

#[test]
fn a_model_folder_keeps_weights_classes_and_grid() {
    let device = Device::flex();
    for mut config in configs() {
        let image = config.backbone_mut().image.as_mut().unwrap();
        (image.codec, image.class_names) = (Some("5eed".into()), ["zero", "one", "two"].map(str::to_string).to_vec());
        let network = Network::new(&config, &device).with_noise(0.4, 9);
        let folder = tempfile::tempdir().unwrap();
        model_folder::save(folder.path(), &config, &network).unwrap();
        let (found, loaded) = model_folder::load(folder.path(), &device).unwrap();
        assert_eq!(found, config);
        assert_eq!(found.image().unwrap().class_of("two"), Some(2));
        assert_eq!(found.image().unwrap().class_of("1"), Some(1));
        assert_eq!(found.image().unwrap().class_of("3"), None);
        let value = |network: &Network| loss(network, &device).into_scalar::<f32>();
        assert_eq!(value(&network), value(&loaded));

        // The published form loads, too; a tied head that is not the embedding is refused.
        let published = model_folder::to_published(&network, &config, WeightDtype::F32).unwrap();
        let path = folder.path().join("published.safetensors");
        std::fs::write(&path, &published).unwrap();
        assert_eq!(value(&model_folder::load_weights(&path, &config, &device).unwrap()), value(&network));
        if matches!(config, ModelConfig::MaskGit(_)) {
            let file = safetensors::SafeTensors::deserialize(&published).unwrap();
            let head = file.tensor("head.weight").unwrap();
            let mut bytes = head.data().to_vec();
            bytes[0] ^= 1;
            let other = safetensors::tensor::TensorView::new(head.dtype(), head.shape().to_vec(), &bytes).unwrap();
            let tensors = file.tensors().into_iter().map(|(name, view)| match name.as_str() {
                "head.weight" => (name, other.clone()),
                _ => (name, view),
            });
            std::fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
            let error = model_folder::load_weights(&path, &config, &device).unwrap_err().to_string();
            assert!(error.contains("head.weight differs"), "{error}");
        }
    }
}

#[test]
fn configurations_that_contradict_themselves_are_refused() {
    let refusals: [(fn(&mut BackboneConfig), usize, &str); 9] = [
        (|b| b.image.as_mut().unwrap().grid = [usize::MAX / 2, 3], 0, "image.grid"),
        (|b| b.n_heads = usize::MAX, 0, "hidden_size"),
        (|b| b.image.as_mut().unwrap().grid = [3, 3], 0, "image.grid = 3x3x1"),
        (|b| b.image.as_mut().unwrap().n_classes = usize::MAX, 0, "image.n_classes"),
        (|b| b.image.as_mut().unwrap().registers = 1, 1, "image.registers = 1"),
        (|b| b.image.as_mut().unwrap().class_names = vec!["a".into()], 1, "image.class_names = 1 names"),
        (|b| b.cond_dim = 5, 1, "must be hidden_size"),
        (|b| b.bos_index = 0, 2, "MaskGIT has no such token"),
        (|b| b.image = None, 2, "image = absent"),
    ];
    for (break_it, index, expected) in refusals {
        let mut config = configs()[index].clone();
        break_it(config.backbone_mut());
        let message = config.validate().unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    let text = serde_json::to_string(&BackboneConfig::new(61, 32, 4, 24)).unwrap();
    assert!(!text.contains("image"), "a text model's configuration is written as before: {text}");
}

// A file in the form of `images_pgm_12_12_100epochs.ckpt` and `maskgit_100epochs.ckpt`, made of a published safetensors file.
fn checkpoint_file(published: &[u8], prefix: &str) -> Vec<u8> {
    let file = SafeTensors::deserialize(published).unwrap();
    let state = file.tensors().into_iter().map(|(name, view)| {
        let name = format!("{prefix}{}", name.strip_prefix("backbone.").unwrap_or(&name));
        (name, Py::Tensor("FloatStorage", view.shape().to_vec(), view.data().to_vec()))
    });
    save(&dict([
        ("iter", Py::Int(500_000)),
        ("global_epoch", Py::Int(100)),
        ("model_state_dict", Py::Dict(state.collect())),
        ("optimizer_state_dict", dict([("state", dict([])), ("param_groups", Py::List(Vec::new()))])),
    ]))
}

fn tensors(file: &[u8]) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let file = SafeTensors::deserialize(file).unwrap();
    let mut tensors: Vec<_> =
        file.tensors().into_iter().map(|(name, view)| (name, view.shape().to_vec(), view.data().to_vec())).collect();
    tensors.sort();
    tensors
}

fn import(bytes: &[u8], overrides: &ImportOverrides) -> Result<(ModelConfig, Network), pgm_model::ModelError> {
    let checkpoint = PublishedCheckpoint::parse(bytes, "here.ckpt")?;
    let (config, _) = checkpoint.resolve(overrides, &SpecialIds::default())?;
    let network = checkpoint.network(CheckpointWeights::Raw, &config, &Device::flex())?;
    Ok((config, network))
}

#[test]
fn files_in_the_form_of_the_published_ones_are_imported_and_exported_back() {
    let device = Device::flex();
    for mut config in configs() {
        // Square grids of codes, as the published ones.
        let is_mask_git = matches!(config, ModelConfig::MaskGit(_));
        let backbone = config.backbone_mut();
        let image = backbone.image.as_mut().unwrap();
        (image.grid, backbone.length, backbone.dropout) = ([3, 3], if is_mask_git { 9 } else { 10 }, 0.1);
        config.validate().unwrap();
        let network = Network::new(&config, &device).with_noise(0.4, 11);
        let published = model_folder::to_published(&network, &config, WeightDtype::F32).unwrap();
        let weights = model_folder::to_safetensors(&network).unwrap();
        let overrides =
            ImportOverrides { n_heads: Some(2), length: (!is_mask_git).then_some(10), ..ImportOverrides::default() };
        for prefix in ["", "module.", "_orig_mod.", "module._orig_mod."] {
            let file = checkpoint_file(&published, prefix);
            let (found, imported) = import(&file, &overrides).unwrap();
            assert_eq!(found, config, "{prefix}");
            assert_eq!(model_folder::to_safetensors(&imported).unwrap(), weights, "{prefix}");
            // The order of the metadata is not fixed.
            let again = model_folder::to_published(&imported, &found, WeightDtype::F32).unwrap();
            assert!(tensors(&again) == tensors(&published), "{prefix}");
        }
        // Our own export says the rest itself: heads, grid, classes.
        let mut named = config.clone();
        let image = named.backbone_mut().image.as_mut().unwrap();
        (image.codec, image.class_names) = (Some("5eed".into()), ["zero", "one", "two"].map(str::to_string).to_vec());
        let published = model_folder::to_published(&network, &named, WeightDtype::F32).unwrap();
        let (found, imported) = import(&published, &ImportOverrides::default()).unwrap();
        assert_eq!(found, named);
        assert_eq!(model_folder::to_safetensors(&imported).unwrap(), weights);
    }
}

#[test]
fn image_checkpoints_that_do_not_say_enough_are_refused_with_what_to_do() {
    let device = Device::flex();
    let [_, partition, mask_git] = configs();
    let file = |config: &ModelConfig| {
        let network = Network::new(config, &device).with_noise(0.4, 11);
        checkpoint_file(&model_folder::to_published(&network, config, WeightDtype::F32).unwrap(), "")
    };
    let (partition, mask_git) = (file(&partition), file(&mask_git));
    let heads = |length: Option<usize>| ImportOverrides { n_heads: Some(2), length, ..ImportOverrides::default() };
    for (bytes, overrides, says) in [
        (&partition, ImportOverrides::default(), "give --heads"),
        (&partition, heads(None), "give --length"),
        (&partition, heads(Some(7)), "6 codes are no square grid"),
        (&mask_git, heads(Some(10)), "has 6 rows, --length says 10"),
        (&mask_git, heads(None), "6 codes are no square grid"),
    ] {
        let message = import(bytes, &overrides).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains(says) && message.contains("here.ckpt"), "{message}");
    }
}
