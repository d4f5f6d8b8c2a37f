//! The floating-point operations of one network evaluation, counted from shapes: two for each multiply-add of a matmul.
//! Norms, activations and the draw are left out.

use pgm_model::layers::swiglu_width;
use pgm_model::{BackboneConfig, ModelConfig};

use crate::denoise::HeadPositions;

fn linear(tokens: usize, inputs: usize, outputs: usize) -> f64 {
    2.0 * tokens as f64 * inputs as f64 * outputs as f64
}

fn attention(queries: usize, keys: usize, hidden: usize) -> f64 {
    4.0 * queries as f64 * keys as f64 * hidden as f64
}

fn feed_forward(tokens: usize, backbone: &BackboneConfig) -> f64 {
    2.0 * linear(tokens, backbone.hidden_size, backbone.mlp_ratio * backbone.hidden_size)
}

fn encoder_block(tokens: usize, backbone: &BackboneConfig) -> f64 {
    let width = backbone.hidden_size;
    linear(tokens, width, 4 * width) + attention(tokens, tokens, width) + feed_forward(tokens, backbone)
}

/// One evaluation of one row: known tokens and how many of them are encoded in this evaluation (those that were encoded
/// before cost a partition model their attention only), the head at `n_head` positions, `length` tokens in all (which only the
/// masked baselines compute).
pub fn evaluation(config: &ModelConfig, length: usize, [n_clean, n_new]: [usize; 2], n_head: usize) -> f64 {
    let backbone = config.backbone();
    let width = backbone.hidden_size;
    let head = linear(n_head, width, backbone.vocab_size);
    match config {
        ModelConfig::Masked(config) => config.n_blocks as f64 * encoder_block(length, backbone) + head,
        ModelConfig::MaskGit(config) => {
            let n_tokens = length + backbone.image.as_ref().map_or(0, |image| image.registers);
            let block = linear(n_tokens, width, 4 * width)
                + attention(n_tokens, n_tokens, width)
                + 3.0 * linear(n_tokens, width, swiglu_width(backbone));
            config.n_blocks as f64 * block + head
        }
        // A cached token: its own projections, its attention to itself and to what came before.
        ModelConfig::Autoregressive(config) => {
            let block =
                linear(n_head, width, 4 * width) + attention(n_head, n_clean, width) + feed_forward(n_head, backbone);
            config.n_blocks as f64 * block + head
        }
        ModelConfig::Partition(config) => {
            // One register stands before the clean tokens, and is encoded with the first of them.
            let n_registers = backbone.image.as_ref().map_or(0, |image| image.registers / 2);
            let n_new = if n_new == n_clean { n_new + n_registers } else { n_new };
            let n_clean = n_clean + n_registers;
            // The GroupSwap has the projections and the attention of a decoder block, and no feed-forward layer.
            let across =
                linear(n_head, width, 2 * width) + linear(n_new, width, 2 * width) + attention(n_head, n_clean, width);
            let encoder_block =
                linear(n_new, width, 4 * width) + attention(n_new, n_clean, width) + feed_forward(n_new, backbone);
            config.encoder_blocks as f64 * encoder_block
                + across
                + config.decoder_blocks as f64 * (across + feed_forward(n_head, backbone))
                + head
        }
    }
}

/// One row of a training step: forward and, at twice its cost, backward. A partition model has two groups of half the tokens,
/// each of which is encoded, and decoded from the other.
pub fn training_step(config: &ModelConfig, length: usize) -> f64 {
    let half = length / 2;
    let forward = match config {
        ModelConfig::Partition(_) => 2.0 * evaluation(config, length, [half; 2], half),
        // On average half of the row stands before a token.
        ModelConfig::Autoregressive(_) => evaluation(config, length, [half; 2], length),
        ModelConfig::Masked(_) | ModelConfig::MaskGit(_) => evaluation(config, length, [0; 2], length),
    };
    3.0 * forward
}

/// One row sampled in `steps` equal shares, BOS given. `head_at` concerns the masked baseline alone; the autoregressive
/// baseline ignores `steps`.
pub fn uniform_sampling(config: &ModelConfig, length: usize, steps: usize, head_at: HeadPositions) -> f64 {
    uniform_steps(config, length, steps, head_at).into_iter().sum()
}

/// As [`uniform_sampling`], for each step that decodes something.
pub fn uniform_steps(config: &ModelConfig, length: usize, steps: usize, head_at: HeadPositions) -> Vec<f64> {
    // All but BOS, which MaskGIT has not.
    let n_given = usize::from(!matches!(config, ModelConfig::MaskGit(_)));
    let n_open = length - n_given;
    let steps = if matches!(config, ModelConfig::Autoregressive(_)) { n_open } else { steps };
    let n_decoded = |step: usize| (n_open as f64 * step as f64 / steps as f64).round() as usize;
    let is_masked = matches!(config, ModelConfig::Masked(_) | ModelConfig::MaskGit(_));
    let everywhere = is_masked && head_at == HeadPositions::Masked;
    (0..steps)
        .map(|step| (n_decoded(step), n_decoded(step + 1)))
        .filter(|(decoded, next)| next > decoded)
        .map(|(decoded, next)| {
            let n_head = if everywhere { n_open - decoded } else { next - decoded };
            evaluation(config, length, [n_given + decoded; 2], n_head)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgm_model::presets;

    #[test]
    fn a_training_step_of_either_kind_takes_six_operations_per_weight_and_token() {
        let model = presets::owt_6_6();
        for config in [model.masked_baseline(), model] {
            let backbone = config.backbone();
            let (width, blocks) = (backbone.hidden_size as f64, 12.0);
            // Without attention; a GroupSwap has the four projections of one more block.
            let swap = if matches!(config, ModelConfig::Partition(_)) { 4.0 * width * width } else { 0.0 };
            let weights = blocks * 12.0 * width * width + swap + width * backbone.vocab_size as f64;
            let flops = training_step(&config, 1024) / 1024.0;
            let ratio = flops / (6.0 * weights);
            assert!((1.0..1.2).contains(&ratio), "{ratio}");
        }
    }

    #[test]
    fn sampling_owt_6_6_in_32_steps_takes_two_teraflop_and_a_quarter_of_the_baselines() {
        let model = presets::owt_6_6();
        let baseline = model.masked_baseline();
        let flops = uniform_sampling(&model, 1024, 32, HeadPositions::Decoded);
        assert!((flops / 1.97e12 - 1.0).abs() < 0.02, "{flops:e}");
        for (steps, head_at, expected) in [
            (32, HeadPositions::Masked, 4.1),
            (128, HeadPositions::Masked, 4.3),
            (32, HeadPositions::Decoded, 3.5),
            (128, HeadPositions::Decoded, 3.65),
        ] {
            let of = |config| uniform_sampling(config, 1024, steps, head_at);
            let ratio = of(&baseline) / of(&model);
            assert!((ratio - expected).abs() < 0.1, "{steps} steps, {head_at:?}: {ratio}");
        }
    }
}
