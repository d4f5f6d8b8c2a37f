//! GPU kernels against Flex: WGSL on any Vulkan or Metal driver, software ones included, and CUDA.
//!
//! Run with `cargo test -p pgm-model --features wgpu --test gpu`, or `--features cuda`. Autotune is off, because a software
//! driver would measure kernels for minutes.
#![cfg(any(feature = "wgpu", feature = "cuda"))]

#[allow(dead_code)] // each test file uses its own part of it
mod common;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use common::{Golden, distance};
use pgm_model::loss::{EPS, NoiseSchedule};
use pgm_model::{
    AutoregressiveConfig, BackboneConfig, Cache, CleanTokens, LossTarget, ModelConfig, Network, Partition, Positions,
};

// The device, and how far logits, and the loss and gradients, may be off, relative to the largest of their tensor. On CUDA
// matmuls are in tf32, whose inputs have 10 bits.
fn gpu() -> (Device, [f32; 2]) {
    #[cfg(feature = "cuda")]
    return (Device::cuda(0), [6e-3, 3e-2]);
    #[cfg(not(feature = "cuda"))]
    (Device::wgpu(burn::tensor::DeviceKind::DefaultDevice), [2e-5, 1e-4])
}

/// Logits, the loss, and the gradient of each parameter.
struct Results {
    logits: Vec<f32>,
    loss: f32,
    gradients: Vec<Vec<f32>>,
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()))
}

#[allow(clippy::print_stdout)]
fn assert_close(name: &str, reference: &Results, found: &Results, [of_logits, of_training]: [f32; 2]) {
    let relative = |reference: &[f32], found: &[f32], scale: f32| {
        assert_eq!(reference.len(), found.len(), "{name}");
        assert!(scale > 0.0 && found.iter().all(|value| value.is_finite()), "{name}");
        distance(reference, found).1 / scale
    };
    let logits = relative(&reference.logits, &found.logits, largest(&reference.logits));
    println!("{name}: logits differ by {logits:e}");
    assert!(logits < of_logits, "{name}: logits differ by {logits}");
    if reference.gradients.is_empty() {
        return;
    }
    let loss = relative(&[reference.loss], &[found.loss], reference.loss.abs());
    // A gradient that is a sum of numbers which cancel each other is as exact as they are.
    let scale = 1e-2 * reference.gradients.iter().map(|gradient| largest(gradient)).fold(0.0, f32::max);
    assert_eq!(reference.gradients.len(), found.gradients.len(), "{name}");
    let of_each = reference.gradients.iter().zip(&found.gradients);
    let gradients = of_each.map(|(a, b)| relative(a, b, largest(a).max(scale))).fold(0.0, f32::max);
    println!("{name}: the loss differs by {loss:e}, a gradient by {gradients:e}");
    assert!(
        loss < of_training && gradients < of_training,
        "{name}: the loss differs by {loss}, a gradient by {gradients}"
    );
}

#[test]
fn a_gpu_agrees_with_flex_in_training_sampling_and_gradients() {
    let (gpu, most) = gpu();
    for name in ["text_freqs_linear", "text_logsumexp_linear", "mdlm"] {
        let golden = Golden::open(name);
        let [flex, gpu] = [Device::flex(), gpu.clone()].map(|device| run(&golden, &device));
        assert_close(name, &flex, &gpu, most);
    }
}

// The logits of training and sampling; of a partition model also the loss and gradients.
fn run(golden: &Golden, device: &Device) -> Results {
    let mask_index = golden.config.backbone().mask_index;
    match golden.network(device) {
        Network::Masked(model) => {
            let logits = model.forward(golden.int_tensor("masked_tokens", device));
            Results { logits: logits.try_into_vec_as::<f32>().unwrap(), loss: 0.0, gradients: Vec::new() }
        }
        Network::Autoregressive(_) | Network::MaskGit(_) => unreachable!("not among the files of this test"),
        Network::Partition(model) => {
            let tokens = golden.int_tensor("tokens", device);
            let groups = golden.int_tensor("groups", device);
            let mut logits = model.forward_partition(tokens, &Partition::new(groups)).try_into_vec_as::<f32>().unwrap();
            let lengths = &golden.ints("clean_lengths")[0];
            let cut = |key: &str| -> Vec<Vec<usize>> {
                golden.ints(key).into_iter().zip(lengths).map(|(row, &n)| row[..n].to_vec()).collect()
            };
            let tokens: Vec<Vec<u32>> =
                cut("clean_tokens").into_iter().map(|row| row.into_iter().map(|t| t as u32).collect()).collect();
            let clean = CleanTokens::new(&tokens, &cut("clean_positions"), device);
            let positions = Positions::new(&golden.ints("decode_positions"), device);
            logits.extend(model.forward_clean(&clean, &positions).try_into_vec_as::<f32>().unwrap());

            let device = device.clone().autodiff();
            let model = model.train().fork(&device);
            let groups: Vec<Vec<bool>> =
                golden.ints("groups").into_iter().map(|row| row.into_iter().map(|g| g == 1).collect()).collect();
            let shape = [groups.len(), groups[0].len()];
            let weights: Vec<f32> = golden
                .floats("t")
                .iter()
                .zip(&groups)
                .flat_map(|(&t, row)| NoiseSchedule::LogLinear.partition_weights(f64::from(t), row, EPS))
                .map(|weight| (weight / (shape[0] * shape[1]) as f64) as f32)
                .collect();
            let weights = Tensor::from_data(TensorData::new(weights, shape), &device);
            let tokens = golden.int_tensor("tokens", &device);
            let target = LossTarget { targets: tokens.clone(), weights, mask_index };
            let loss = model.loss_partition(tokens, &Partition::from_rows(&groups, &device), &target);
            Results { logits, loss: loss.clone().into_scalar::<f32>(), gradients: gradients(&model, loss) }
        }
    }
}

#[test]
fn a_gpu_agrees_with_flex_in_a_cached_autoregressive_model() {
    let (gpu, [most, _]) = gpu();
    let config = ModelConfig::Autoregressive(AutoregressiveConfig {
        backbone: BackboneConfig { cond_dim: 8, ..BackboneConfig::new(29, 24, 3, 16) },
        n_blocks: 2,
    });
    let [flex, gpu] = [Device::flex(), gpu].map(|device| {
        let Network::Autoregressive(model) = Network::new(&config, &device).with_noise(0.4, 4) else { unreachable!() };
        let ids = (0..24).map(|i| i * 7 % 28).collect::<Vec<i32>>();
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [2, 12]), &device);
        let mut logits = model.forward(tokens.clone()).try_into_vec_as::<f32>().unwrap();
        let mut cache = Cache::default();
        for (start, end) in [(0, 5), (5, 11), (11, 12)] {
            let cached = model.forward_cached(tokens.clone().narrow(1, start, end - start), &mut cache);
            logits.extend(cached.try_into_vec_as::<f32>().unwrap());
        }
        logits
    });
    let difference = distance(&flex, &gpu).1 / largest(&flex);
    assert!(gpu.iter().all(|logit| logit.is_finite()) && difference < most, "logits differ by {difference}");
}

fn run_images(golden: &Golden, device: &Device) -> Results {
    let (classes, mask_index) = (golden.classes(), golden.config.backbone().mask_index);
    let ids = |key: &str| golden.ints(key).into_iter().flatten().map(|id| id as i32).collect::<Vec<i32>>();
    let shape = [classes.len(), golden.config.backbone().length];
    let codes = |device: &Device| Tensor::<2, Int>::from_data(TensorData::new(ids("codes"), shape), device);
    let weights = |device: &Device| Tensor::<2>::ones(shape, device) / (shape[0] * shape[1]) as f32;
    let training = device.clone().autodiff();
    // A mask is no target.
    let targets: Vec<i32> = ids("codes").into_iter().map(|id| if id as usize == mask_index { 0 } else { id }).collect();
    let targets = Tensor::<2, Int>::from_data(TensorData::new(targets, shape), &training);
    let target = || LossTarget { targets: targets.clone(), weights: weights(&training), mask_index };
    let (logits, loss, gradients) = match golden.network(device) {
        Network::Partition(model) => {
            let partition =
                |device: &Device| Partition::new(golden.int_tensor("groups", device)).with_classes(classes.clone());
            let logits = model.forward_partition(codes(device), &partition(device));
            let model = model.train().fork(&training);
            let loss = model.loss_partition(codes(&training), &partition(&training), &target());
            (logits, loss.clone(), gradients(&model, loss))
        }
        Network::MaskGit(model) => {
            let logits = model.forward(codes(device), Some(&classes));
            let model = model.train().fork(&training);
            let loss = model.loss(codes(&training), Some(&classes), &target());
            (logits, loss.clone(), gradients(&model, loss))
        }
        _ => unreachable!("the networks of images"),
    };
    Results { logits: logits.try_into_vec_as::<f32>().unwrap(), loss: loss.into_scalar::<f32>(), gradients }
}

fn gradients<M: Module>(model: &M, loss: Tensor<1>) -> Vec<Vec<f32>> {
    struct All<'a>(&'a burn::tensor::Gradients, Vec<Vec<f32>>);
    impl burn::module::ModuleVisitor for All<'_> {
        fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
            if let Some(gradient) = param.val().grad(self.0) {
                self.1.push(gradient.try_into_vec_as::<f32>().unwrap());
            }
        }
    }
    let gradients = loss.backward();
    let mut all = All(&gradients, Vec::new());
    model.visit(&mut all);
    assert!(!all.1.is_empty(), "a network has gradients");
    all.1
}

#[test]
fn a_gpu_agrees_with_flex_in_networks_of_images() {
    let (gpu, most) = gpu();
    for name in ["image_reg0", "image_reg2", "maskgit"] {
        let golden = Golden::open(name);
        let [flex, gpu] = [Device::flex(), gpu.clone()].map(|device| run_images(&golden, &device));
        assert_close(name, &flex, &gpu, most);
    }
}
