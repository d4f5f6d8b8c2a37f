//! Networks for inference: folding keeps the logits, and low-precision weights change them little.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, FloatDType, Gradients, Int, Tensor, TensorData};
use pgm_model::{
    AutoregressiveConfig, BackboneConfig, Cache, CleanTokens, LossTarget, MaskedConfig, ModelConfig, Network,
    PartitionConfig, Positions, Projection, Queries, WeightDtype,
};

const LENGTH: usize = 9;

// Logits of two rows, as the network computes them when it samples.
fn logits(network: &Network) -> Vec<f32> {
    let device = Device::flex();
    let ids: Vec<i32> = (0..2 * LENGTH as i32).map(|i| i * 5 % 11).collect();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [2, LENGTH]), &device);
    let logits = match network {
        Network::Partition(model) => {
            let clean = CleanTokens::new(&[vec![3, 1, 4], vec![1]], &[vec![0, 7, 2], vec![5]], &device);
            model.forward_clean(&clean, &Positions::new(&[vec![1, 8], vec![0, 3]], &device))
        }
        Network::Masked(model) => model.forward_at(tokens, &Positions::new(&[vec![1, 8], vec![0, 3]], &device)),
        Network::Autoregressive(model) => model.forward_cached(tokens, &mut Cache::default()),
        Network::MaskGit(model) => model.forward(tokens, None),
    };
    logits.try_into_vec_as::<f32>().unwrap()
}

fn configs(hidden_size: usize) -> [ModelConfig; 3] {
    let backbone = BackboneConfig { cond_dim: 5, ..BackboneConfig::new(11, hidden_size, 4, LENGTH) };
    let (queries, projection) = (Queries::LearnFreqsMean, Projection::Mlp4);
    [
        ModelConfig::Partition(PartitionConfig {
            backbone: backbone.clone(),
            encoder_blocks: 2,
            decoder_blocks: 2,
            queries,
            projection,
            sets: Default::default(),
        }),
        ModelConfig::Masked(MaskedConfig { backbone: backbone.clone(), n_blocks: 2 }),
        ModelConfig::Autoregressive(AutoregressiveConfig { backbone, n_blocks: 2 }),
    ]
}

// The largest difference, relative to the largest logit.
fn difference(before: &[f32], after: &[f32]) -> f32 {
    let largest = before.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    assert!(largest > 0.1, "the logits are not all near zero");
    assert!(before.len() == after.len() && before.iter().chain(after).all(|logit| logit.is_finite()));
    before.iter().zip(after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

#[test]
fn folding_keeps_the_logits_and_removes_the_layers_that_read_the_condition() {
    for config in configs(16) {
        let network = Network::new(&config, &Device::flex()).with_noise(0.4, 7);
        let (before, n_parameters) = (logits(&network), network.n_parameters());
        let folded = network.folded();
        let after = logits(&folded);
        assert!(difference(&before, &after) < 1e-6);
        assert!(folded.n_parameters() < n_parameters, "the layers that read the condition are gone");
        assert_eq!(logits(&folded.folded()), after, "folding twice is folding once");
    }
}

#[test]
fn low_precision_weights_give_nearly_the_same_logits() {
    for config in configs(64) {
        let network = Network::new(&config, &Device::flex()).with_noise(0.2, 7).folded();
        let before = logits(&network);
        let of = |weights| difference(&before, &logits(&network.clone().with_weight_dtype(weights).unwrap()));
        let [f32, f16, bf16, q8, q4] =
            [WeightDtype::F32, WeightDtype::F16, WeightDtype::BF16, WeightDtype::Q8, WeightDtype::Q4].map(of);
        assert_eq!(f32, 0.0);
        assert!(0.0 < f16 && f16 < 2e-3, "{f16}");
        assert!(f16 < bf16 && bf16 < 2e-2, "{bf16}");
        assert!(0.0 < q8 && q8 < 3e-2, "{q8}");
        assert!(q8 < q4 && q4 < 0.5, "{q4}");
    }
}

#[test]
fn a_model_that_cannot_be_quantised_is_an_error() {
    let network = Network::new(&configs(16)[1], &Device::flex());
    // 64 inner inputs are a multiple of 32; a hidden size of 12 leaves none.
    assert!(network.with_weight_dtype(WeightDtype::Q8).is_ok());
    let backbone = BackboneConfig { cond_dim: 5, ..BackboneConfig::new(11, 12, 3, LENGTH) };
    let network = Network::new(&ModelConfig::Masked(MaskedConfig { backbone, n_blocks: 1 }), &Device::flex());
    let error = network.folded().with_weight_dtype(WeightDtype::Q8).unwrap_err().to_string();
    assert!(error.contains("multiple of 32"), "{error}");
}

#[test]
fn the_gradient_of_a_cast_network_reaches_the_float32_weights() {
    let device = Device::flex().autodiff();
    let backbone = BackboneConfig { cond_dim: 5, ..BackboneConfig::new(11, 16, 2, LENGTH) };
    let config = ModelConfig::Masked(MaskedConfig { backbone, n_blocks: 1 });
    let network = Network::new(&config, &device).with_noise(0.3, 3);
    // Parameters of with_noise require no gradient.
    let network = network.map(&mut Tracked);
    let gradients = |network: &Network, used: &Network| {
        let Network::Masked(model) = used else { unreachable!() };
        let ids: Vec<i32> = (0..LENGTH as i32).map(|i| i * 7 % 10).collect();
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, LENGTH]), &device);
        let goal = LossTarget { targets: tokens.clone(), weights: Tensor::ones([1, LENGTH], &device), mask_index: 10 };
        let gradients = model.loss(tokens, &goal).backward();
        let mut all = Collect(gradients, Vec::new());
        network.visit(&mut all);
        all.1
    };
    let (full, half) =
        (gradients(&network, &network), gradients(&network, &network.clone().cast_matmul_weights(FloatDType::BF16)));
    assert_eq!(full.len(), half.len());
    for (full, half) in full.iter().zip(&half) {
        assert!(full.len() == half.len() && full.iter().chain(half).all(|gradient| gradient.is_finite()));
        let largest = full.iter().fold(0.1_f32, |largest, value| largest.max(value.abs()));
        let worst = full.iter().zip(half).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest;
        assert!(worst < 0.05, "{worst}");
    }
}

struct Tracked;
impl ModuleMapper for Tracked {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.set_require_grad(true)
    }
}

struct Collect(Gradients, Vec<Vec<f32>>);
impl ModuleVisitor for Collect {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = param.val().grad(&self.0).expect("every parameter takes part");
        self.1.push(gradient.try_into_vec_as::<f32>().unwrap());
    }
}
