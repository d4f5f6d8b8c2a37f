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

// The device, and the factor by which its matmuls are less precise than float32: tf32 on CUDA.
fn gpu() -> (Device, f32) {
    #[cfg(feature = "cuda")]
    return (Device::cuda(0), 300.0);
    #[cfg(not(feature = "cuda"))]
    (Device::wgpu(burn::tensor::DeviceKind::DefaultDevice), 1.0)
}

#[test]
#[allow(clippy::print_stdout)]
fn a_gpu_agrees_with_flex_in_training_sampling_and_gradient() {
    let (gpu, imprecision) = gpu();
    for name in ["text_freqs_linear", "text_logsumexp_linear", "mdlm"] {
        let golden = Golden::open(name);
        let results = [Device::flex(), gpu.clone()].map(|device| run(&golden, &device));
        let [flex, gpu] = results;
        let (_, difference) = distance(&flex.0, &gpu.0);
        println!("{name}: logits differ by {difference:e}");
        assert!(difference < 2e-5 * imprecision, "{name}: logits differ by {difference}");
        let (_, difference) = distance(&flex.1, &gpu.1);
        println!("{name}: the loss and a gradient differ by {difference:e}");
        assert!(difference < 5e-4 * imprecision, "{name}: the loss and a gradient differ by {difference}");
    }
}

/// The logits of training and sampling, then the training loss and the gradient of the embedding.
fn run(golden: &Golden, device: &Device) -> (Vec<f32>, Vec<f32>) {
    let mask_index = golden.config.backbone().mask_index;
    match golden.network(device) {
        Network::Masked(model) => {
            let logits = model.forward(golden.int_tensor("masked_tokens", device));
            (logits.try_into_vec_as::<f32>().unwrap(), Vec::new())
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
            let mut numbers = vec![loss.clone().into_scalar::<f32>()];
            let gradients = loss.backward();
            struct First<'a>(&'a burn::tensor::Gradients, Vec<f32>);
            impl burn::module::ModuleVisitor for First<'_> {
                fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
                    if self.1.is_empty() {
                        let gradient = param.val().grad(self.0).expect("the embedding takes part in the loss");
                        self.1 = gradient.try_into_vec_as::<f32>().unwrap();
                    }
                }
            }
            let mut first = First(&gradients, Vec::new());
            model.visit(&mut first);
            numbers.extend(first.1);
            (logits, numbers)
        }
    }
}

#[test]
fn a_gpu_agrees_with_flex_in_a_cached_autoregressive_model() {
    let (gpu, imprecision) = gpu();
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
    let (_, difference) = distance(&flex, &gpu);
    assert!(difference < 2e-5 * imprecision, "logits differ by {difference}");
}

// The logits of a golden network of images; then its loss, and the gradient of every parameter.
fn run_images(golden: &Golden, device: &Device) -> (Vec<f32>, Vec<f32>) {
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
    let mut numbers = vec![loss.into_scalar::<f32>()];
    numbers.extend(gradients);
    (logits.try_into_vec_as::<f32>().unwrap(), numbers)
}

fn gradients<M: Module>(model: &M, loss: Tensor<1>) -> Vec<f32> {
    struct All<'a>(&'a burn::tensor::Gradients, Vec<f32>);
    impl burn::module::ModuleVisitor for All<'_> {
        fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
            if let Some(gradient) = param.val().grad(self.0) {
                self.1.extend(gradient.try_into_vec_as::<f32>().unwrap());
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
#[allow(clippy::print_stdout)]
fn a_gpu_agrees_with_flex_in_networks_of_images() {
    let (gpu, imprecision) = gpu();
    for name in ["image_reg0", "image_reg2", "maskgit"] {
        let golden = Golden::open(name);
        let [flex, gpu] = [Device::flex(), gpu.clone()].map(|device| run_images(&golden, &device));
        for (what, flex, gpu, most) in
            [("logits", flex.0, gpu.0, 2e-5), ("the loss and the gradients", flex.1, gpu.1, 5e-4)]
        {
            let (_, difference) = distance(&flex, &gpu);
            println!("{name}: {what} differ by {difference:e}");
            assert!(difference < most * imprecision, "{name}: {what} differ by {difference}");
        }
    }
}
