//! Speed of one step: the yardstick's, with random groups at p = 0.5, plain cross-entropy, clipping and AdamW, without
//! dropout or averaging.

use std::time::Instant;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_model::{ModelConfig, Network, Partition};
use rand::RngExt;

use crate::TrainError;
use crate::adamw::AdamW;
use crate::batch::{NetworkInputs, ObjectiveBatch, stream};
use crate::config::OptimSection;
use crate::gradients::clip_global_norm;
use crate::learner::{StepOptions, TrainModel};

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BenchPhase {
    /// The network alone, without gradients.
    Forward,
    /// Forward, backward, clipping, AdamW.
    Train,
}

/// Seconds of each of `runs` runs, after one that is not timed.
///
/// # Errors
/// [`TrainError::Device`] when the device fails.
pub fn measure(
    config: &ModelConfig,
    batch: usize,
    what: BenchPhase,
    how: StepOptions,
    runs: usize,
    device: &Device,
) -> Result<Vec<f64>, TrainError> {
    let backbone = config.backbone();
    let shape = [batch, backbone.length];
    let mut rng = stream(0, 0, 0);
    let plain = device.clone().without_autodiff();
    let autodiff = how.training_device(&plain)?;
    let on = if what == BenchPhase::Train { &autodiff } else { &plain };
    let n = shape[0] * shape[1];
    let ids: Vec<i32> = (0..n).map(|_| rng.random_range(0..backbone.vocab_size as i32 - 1)).collect();
    let groups: Vec<i32> = (0..n).map(|_| i32::from(rng.random::<bool>())).collect();
    let ints = |values: Vec<i32>| Tensor::<2, Int>::from_data(TensorData::new(values, shape), on);
    let tokens = ints(ids);
    let inputs = match config {
        ModelConfig::Partition(_) => NetworkInputs::Partition(Partition::new(ints(groups))),
        ModelConfig::Masked(_) => NetworkInputs::Masked(tokens.clone()),
        ModelConfig::Autoregressive(_) => NetworkInputs::Causal,
    };
    let weights = Tensor::full(shape, 1.0 / n as f64, on);
    let batch = ObjectiveBatch { inputs, tokens, weights, n_valid: n, seed: 0 };

    let mut trainee = TrainModel::new(Network::new(config, &plain), backbone.mask_index).computed(how);
    if what == BenchPhase::Train {
        trainee = trainee.train().fork(&autodiff);
    }
    let mut optimiser = AdamW::of(&OptimSection { weight_decay: 0.01, ..OptimSection::default() });
    let mut seconds = Vec::with_capacity(runs);
    let failed = |error: &dyn ToString| TrainError::Device(error.to_string());
    for run in 0..=runs {
        let start = Instant::now();
        match what {
            BenchPhase::Forward => {
                let logits = match (&trainee.network, &batch.inputs) {
                    (Network::Partition(model), NetworkInputs::Partition(partition)) => {
                        model.forward_partition(batch.tokens.clone(), partition)
                    }
                    (Network::Masked(model), _) => model.forward(batch.tokens.clone()),
                    (Network::Autoregressive(model), _) => model.forward(batch.tokens.clone()),
                    (Network::Partition(_), _) => unreachable!("inputs were made for the network"),
                };
                // One number, so that a device that works in the background has finished.
                logits.slice([0..1, 0..1, 0..1]).try_into_data().map_err(|error| failed(&error))?;
            }
            BenchPhase::Train => {
                let loss = trainee.for_step().loss(batch.clone());
                let value = loss.clone().inner();
                let mut gradients = GradientsParams::from_grads(loss.backward(), &trainee);
                clip_global_norm(&mut gradients, &trainee, 1.0);
                trainee = optimiser.step(3e-4, trainee, gradients);
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
