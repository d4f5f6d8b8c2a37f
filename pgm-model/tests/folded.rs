//! A network folded for inference gives the logits of the one it was made of.

use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_model::{
    AutoregressiveConfig, BackboneConfig, CleanTokens, MaskedConfig, ModelConfig, Network, PartitionConfig, Positions,
    Projection, Queries,
};

const LENGTH: usize = 9;

// Logits of two rows by the network's way of sampling.
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
        Network::Autoregressive(model) => {
            model.forward_cached(tokens, &mut pgm_model::autoregressive::Cache::default())
        }
    };
    logits.try_into_vec_as::<f32>().unwrap()
}

#[test]
fn folding_changes_no_logit_and_leaves_no_condition() {
    let backbone = BackboneConfig { cond_dim: 5, ..BackboneConfig::new(11, 12, 3, LENGTH) };
    let (queries, projection) = (Queries::LearnFreqsMean, Projection::Mlp4);
    for config in [
        ModelConfig::Partition(PartitionConfig {
            backbone: backbone.clone(),
            encoder_blocks: 2,
            decoder_blocks: 2,
            queries,
            projection,
        }),
        ModelConfig::Masked(MaskedConfig { backbone: backbone.clone(), n_blocks: 2 }),
        ModelConfig::Autoregressive(AutoregressiveConfig { backbone: backbone.clone(), n_blocks: 2 }),
    ] {
        let network = Network::new(&config, &Device::flex()).with_noise(0.4, 7);
        let (before, n_parameters) = (logits(&network), network.n_parameters());
        let folded = network.folded();
        let after = logits(&folded);
        let largest = before.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let worst = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-6 * largest && largest > 0.1, "{worst} of {largest}");
        assert!(folded.n_parameters() < n_parameters, "the layers that read the condition are gone");
        assert_eq!(logits(&folded.folded()), after, "folding twice is folding once");
    }
}
