//! The published configurations, and small ones that train on a CPU: a function for each.

use crate::config::{BackboneConfig, MaskedConfig, ModelConfig, PartitionConfig, Projection, Queries};

/// The vocabulary of GPT-2 and one mask token.
const GPT2_VOCAB: usize = 50_258;

fn partition(backbone: BackboneConfig, encoder_blocks: usize, decoder_blocks: usize) -> ModelConfig {
    let (queries, projection) = (Queries::default(), Projection::default());
    ModelConfig::Partition(PartitionConfig { backbone, encoder_blocks, decoder_blocks, queries, projection })
}

fn owt(hidden_size: usize, n_heads: usize) -> BackboneConfig {
    BackboneConfig { dropout: 0.1, ..BackboneConfig::new(GPT2_VOCAB, hidden_size, n_heads, 1024) }
}

/// LM1B, 6 + 6 blocks: `bert-base-uncased`'s vocabulary with its own `[MASK]`, `[CLS]`, `[SEP]` and `[PAD]`.
pub fn lm1b_6_6() -> ModelConfig {
    let backbone = BackboneConfig {
        dropout: 0.1,
        mask_index: 103,
        bos_index: 101,
        eos_index: 102,
        pad_index: Some(0),
        ..BackboneConfig::new(30_522, 768, 12, 128)
    };
    partition(backbone, 6, 6)
}

/// OpenWebText, 6 + 6 blocks of width 768.
pub fn owt_6_6() -> ModelConfig {
    partition(owt(768, 12), 6, 6)
}

/// OpenWebText, 8 + 8 blocks of width 768.
pub fn owt_8_8() -> ModelConfig {
    partition(owt(768, 12), 8, 8)
}

/// OpenWebText, 6 + 6 blocks of width 1024.
pub fn owt_6_6_1024() -> ModelConfig {
    partition(owt(1024, 16), 6, 6)
}

/// The masked baseline of the paper's OpenWebText tables: 12 blocks of width 768.
pub fn mdlm_small() -> ModelConfig {
    ModelConfig::Masked(MaskedConfig { backbone: owt(768, 12), n_blocks: 12 })
}

/// Bytes, 2 + 2 blocks of width 128: trains in a minute or two on two cores.
pub fn bytes_tiny() -> ModelConfig {
    partition(BackboneConfig::new(258, 128, 4, 128), 2, 2)
}

/// Bytes, 3 + 3 blocks of width 256: trains in an evening on a laptop.
pub fn bytes_small() -> ModelConfig {
    partition(BackboneConfig::new(258, 256, 4, 256), 3, 3)
}

/// The name of a preset and its function.
pub type Preset = (&'static str, fn() -> ModelConfig);

/// All presets, in the order of help texts.
pub const ALL: [Preset; 7] = [
    ("lm1b-6-6", lm1b_6_6),
    ("owt-6-6", owt_6_6),
    ("owt-8-8", owt_8_8),
    ("owt-6-6-1024", owt_6_6_1024),
    ("mdlm-small", mdlm_small),
    ("bytes-tiny", bytes_tiny),
    ("bytes-small", bytes_small),
];

/// The preset of that name.
pub fn by_name(name: &str) -> Option<ModelConfig> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, make)| make())
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::networks::Network;

    #[test]
    fn presets_have_the_published_parameter_counts() {
        let expected = [
            ("lm1b-6-6", 141_662_266),
            ("owt-6-6", 171_996_498),
            ("owt-8-8", 202_708_818),
            ("owt-6-6-1024", 268_092_754),
            ("mdlm-small", 169_627_218),
        ];
        for (name, parameters) in expected {
            let config = by_name(name).unwrap();
            config.validate().unwrap();
            // Parameters initialise lazily, so counting them allocates nothing.
            assert_eq!(Network::new(&config, &Device::flex()).n_parameters(), parameters, "{name}");
        }
    }
}
