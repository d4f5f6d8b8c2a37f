//! The gradient of the training loss against PyTorch's (`tests/golden/gradients.py` writes the files).
#![cfg(feature = "files")]

#[allow(dead_code)] // each test file uses its own part of it
mod common;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use common::{Golden, distance};
use pgm_model::loss::{EPS, NoiseSchedule};
use pgm_model::{LossTarget, Network, Partition, model_folder};
use safetensors::SafeTensors;

struct Collect<'a> {
    gradients: &'a Gradients,
    found: Vec<Vec<f32>>,
}

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = param.val().grad(self.gradients).expect("every parameter takes part in the loss");
        self.found.push(gradient.try_into_vec_as::<f32>().unwrap());
    }
}

fn check(name: &str) {
    let golden = Golden::open_ours(name);
    let device = Device::flex().autodiff();
    let network = golden.network(&device.clone().inner()).train().fork(&device);
    let mask_index = golden.config.backbone().mask_index;
    let tokens = golden.int_tensor("tokens", &device);
    let masked = matches!(network, Network::Masked(_));
    let key = if masked { "masked_tokens" } else { "groups" };
    let hidden = if masked { mask_index } else { 1 };
    let groups: Vec<Vec<bool>> =
        golden.ints(key).into_iter().map(|row| row.into_iter().map(|value| value == hidden).collect()).collect();
    let shape = [groups.len(), groups[0].len()];
    let count = (shape[0] * shape[1]) as f64;
    let weights: Vec<f32> = golden
        .floats("t")
        .iter()
        .zip(&groups)
        .flat_map(|(&t, row)| -> Vec<f64> {
            let t = f64::from(t);
            let schedule = NoiseSchedule::LogLinear;
            if masked { schedule.nelbo_weights(t, row) } else { schedule.partition_weights(t, row, EPS) }
        })
        .map(|weight| (weight / count) as f32)
        .collect();
    let weights = Tensor::from_data(TensorData::new(weights, shape), &device);
    let goal = LossTarget { targets: tokens.clone(), weights, mask_index };
    let loss = match &network {
        Network::Masked(model) => model.loss(golden.int_tensor("masked_tokens", &device), &goal),
        Network::Partition(model) => model.loss_partition(tokens, &Partition::from_rows(&groups, &device), &goal),
        Network::Autoregressive(_) | Network::MaskGit(_) => unreachable!("no golden gradients of it"),
    };
    let loss_value = loss.clone().into_scalar::<f32>();
    let gradients = loss.backward();
    let mut collect = Collect { gradients: &gradients, found: Vec::new() };
    network.visit(&mut collect);

    let bytes = std::fs::read(golden.folder.join("gradients.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let read = |name: &str| -> (Vec<usize>, Vec<f32>) {
        let view = file.tensor(name).unwrap();
        let values = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        (view.shape().to_vec(), values)
    };
    let expected_loss = read("loss").1[0];
    assert!((loss_value - expected_loss).abs() < 1e-5 * expected_loss, "{loss_value} against {expected_loss}");
    for (name, found) in model_folder::known_names(&network).iter().zip(&collect.found) {
        let (shape, mut expected) = read(name);
        if shape.len() == 2 && name.ends_with(".weight") {
            let (rows, columns) = (shape[0], shape[1]);
            expected = (0..columns)
                .flat_map(|c| (0..rows).map(move |r| (r, c)))
                .map(|(r, c)| expected[r * columns + c])
                .collect();
        }
        let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let (_, difference) = distance(found, &expected);
        assert!(difference < 2e-5 + 1e-4 * largest, "{name}: difference {difference:e}, largest gradient {largest:e}");
    }
}

#[test]
fn gradients_of_every_variant_match_pytorch() {
    for name in ["text_freqs_linear", "text_learn_mlp4", "text_mean_linear", "text_logsumexp_linear", "mdlm"] {
        check(name);
    }
}
