//! The time of one step. It has random groups at p = 0.5, unweighted cross-entropy, clipping and AdamW, but no dropout and no
//! average of the weights.

use std::time::Instant;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, FloatDType, Int, Tensor, TensorData};
use pgm_model::{ModelConfig, Network, Partition};
use rand::RngExt;

use crate::TrainError;
use crate::batches::random::stream;
use crate::batches::{NetworkInputs, ObjectiveBatch};
use crate::config::{OptimSection, Precision, StepOptions};
use crate::run::{AdamW, TrainModel, clip_global_norm};

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BenchPhase {
    /// The network alone, without gradients.
    Forward,
    /// Forward, backward, clipping, AdamW.
    Train,
}

/// Seconds of each of `runs` products of two square matrices with `side` rows, after one that is not timed: what the device
/// reaches in a matmul.
///
/// # Errors
/// [`TrainError::Device`] when the device fails.
pub fn measure_matmul(side: usize, precision: Precision, runs: usize, device: &Device) -> Result<Vec<f64>, TrainError> {
    let options = StepOptions { precision, checkpointing: false };
    let device = options.training_device(device)?.without_autodiff();
    let dtype = if precision == Precision::Bf16 { FloatDType::BF16 } else { FloatDType::F32 };
    let matrix = || Tensor::<2>::random([side, side], Distribution::Default, &device).cast(dtype);
    let (left, right) = (matrix(), matrix());
    let wait = || device.sync().map_err(|error| TrainError::Device(error.to_string()));
    let mut seconds = Vec::with_capacity(runs);
    for run in 0..=runs {
        wait()?;
        let start = Instant::now();
        let _product = left.clone().matmul(right.clone());
        wait()?;
        if run > 0 {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    Ok(seconds)
}

/// Seconds of each of `runs` steps, after one that is not timed.
///
/// # Errors
/// [`TrainError::Device`] when the device fails.
pub fn measure(
    config: &ModelConfig,
    batch: usize,
    phase: BenchPhase,
    options: StepOptions,
    runs: usize,
    device: &Device,
) -> Result<Vec<f64>, TrainError> {
    let backbone = config.backbone();
    let shape = [batch, backbone.length];
    let mut rng = stream(0, 0, 0);
    let plain = device.clone().without_autodiff();
    let autodiff = options.training_device(&plain)?;
    let on = if phase == BenchPhase::Train { &autodiff } else { &plain };
    let n = shape[0] * shape[1];
    let ids: Vec<i32> = (0..n).map(|_| rng.random_range(0..backbone.vocab_size as i32 - 1)).collect();
    let groups: Vec<i32> = (0..n).map(|_| i32::from(rng.random::<bool>())).collect();
    let ints = |values: Vec<i32>| Tensor::<2, Int>::from_data(TensorData::new(values, shape), on);
    let tokens = ints(ids);
    let inputs = match config {
        ModelConfig::Partition(_) => NetworkInputs::Partition(Partition::new(ints(groups))),
        ModelConfig::Masked(_) => NetworkInputs::Masked(tokens.clone()),
        ModelConfig::Autoregressive(_) => NetworkInputs::Causal,
        ModelConfig::MaskGit(_) => NetworkInputs::MaskGit(tokens.clone(), vec![None; batch]),
    };
    let weights = Tensor::full(shape, 1.0 / n as f64, on);
    let batch = ObjectiveBatch { inputs, tokens, weights, n_valid: n, seed: 0 };

    let mut model = TrainModel::new(Network::new(config, &plain), backbone.mask_index).with_options(options);
    if phase == BenchPhase::Train {
        model = model.train().fork(&autodiff);
    }
    let mut optimiser = AdamW::from_config(&OptimSection { weight_decay: 0.01, ..OptimSection::default() });
    let mut seconds = Vec::with_capacity(runs);
    let failed = |error: &dyn ToString| TrainError::Device(error.to_string());
    for run in 0..=runs {
        let start = Instant::now();
        match phase {
            BenchPhase::Forward => {
                let logits = match (&model.network, &batch.inputs) {
                    (Network::Partition(network), NetworkInputs::Partition(partition)) => {
                        network.forward_partition(batch.tokens.clone(), partition)
                    }
                    (Network::Masked(network), _) => network.forward(batch.tokens.clone()),
                    (Network::Autoregressive(network), _) => network.forward(batch.tokens.clone()),
                    (Network::MaskGit(network), _) => network.forward(batch.tokens.clone(), None),
                    (Network::Partition(_), _) => unreachable!("the inputs are those of the network"),
                };
                // Reading one number waits for a device that computes asynchronously.
                logits.slice([0..1, 0..1, 0..1]).try_into_data().map_err(|error| failed(&error))?;
            }
            BenchPhase::Train => {
                let loss = model.for_step().loss(batch.clone());
                let value = loss.clone().inner();
                let mut gradients = GradientsParams::from_grads(loss.backward(), &model);
                clip_global_norm(&mut gradients, &model, 1.0);
                model = optimiser.step(3e-4, model, gradients);
                value.try_into_data().map_err(|error| failed(&error))?;
                plain.sync().map_err(|error| failed(&error))?;
            }
        }
        if run > 0 {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    Ok(seconds)
}
