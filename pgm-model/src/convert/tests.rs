//! Conversion on tiny networks.

use std::collections::BTreeMap;

use burn::tensor::{Int, Tensor, TensorData};

use super::swap::as_numbers;
use super::*;
use crate::config::BackboneConfig;
use crate::sequence::{CleanTokens, Positions};

const VOCAB: usize = 13;
const WIDTH: usize = 12;
const LENGTH: usize = 7;
const N_BLOCKS: usize = 3;

fn masked_config() -> MaskedConfig {
    let backbone = BackboneConfig { cond_dim: 5, ..BackboneConfig::new(VOCAB, WIDTH, 2, LENGTH) };
    MaskedConfig { backbone, n_blocks: N_BLOCKS }
}

fn masked() -> MaskedTransformer {
    match Network::new(&ModelConfig::Masked(masked_config()), &Device::flex()).with_noise(0.4, 3) {
        Network::Masked(network) => network,
        _ => unreachable!(),
    }
}

fn masks() -> Vec<f32> {
    (0..WIDTH).map(|i| i as f32 / 4.0 - 1.0).collect()
}

fn start() -> SwapStart {
    SwapStart { masks: masks(), visible: None }
}

fn converted(blocks: [usize; 2], queries: Queries, projection: Projection) -> PartitionTransformer {
    let config = partition_config(&masked_config(), blocks, queries, projection).unwrap();
    partition_from_masked(masked(), &config, &start(), &Device::flex()).unwrap()
}

fn floats(network: &Network) -> BTreeMap<String, Vec<f32>> {
    as_numbers(collect(network, |_| true).unwrap())
}

#[test]
fn the_encoder_gives_the_states_of_the_first_masked_blocks_where_every_token_is_visible() {
    let device = Device::flex();
    let rows: Vec<Vec<u32>> = vec![vec![3, 1, 4, 1, 5, 9, 2], vec![11, 0, 7, 7, 2, 8, 6]];
    let ids: Vec<i32> = rows.iter().flatten().map(|&id| id as i32).collect();
    let tokens: Tensor<2, Int> = Tensor::from_data(TensorData::new(ids, [2, LENGTH]), &device);
    for blocks in [[1, 2], [2, 1]] {
        let partition = converted(blocks, Queries::default(), Projection::default());
        let positions = vec![(0..LENGTH).collect::<Vec<_>>(); 2];
        let clean = CleanTokens::new(&rows, &positions, &device);
        let found = partition.encode(&clean).output().clone().try_into_vec_as::<f32>().unwrap();
        let first = masked().first_blocks(blocks[0]);
        let states = first.hidden_at(tokens.clone(), &Positions::all(2, LENGTH, &device));
        let expected = states.try_into_vec_as::<f32>().unwrap();
        assert_eq!(found.len(), 2 * LENGTH * WIDTH);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-5, "{found} for {expected}, {blocks:?}");
        }
        // They are not those of other blocks.
        let others = masked().first_blocks(blocks[1]).hidden_at(tokens.clone(), &Positions::all(2, LENGTH, &device));
        let others = others.try_into_vec_as::<f32>().unwrap();
        assert!(found.iter().zip(&others).any(|(a, b)| (a - b).abs() > 1e-2));
    }
}

#[test]
fn every_layer_of_the_masked_model_is_found_again() {
    let before = floats(&Network::Masked(masked()));
    for (queries, projection) in [(Queries::LearnFreqs, Projection::Linear), (Queries::Learn, Projection::Mlp4)] {
        let after = floats(&Network::Partition(converted([1, 2], queries, projection)));
        for name in ["vocab_embed.embedding", "sigma_map.mlp.0.weight", "output_layer.linear.weight"] {
            assert_eq!(after[name], before[name], "{name}");
        }
        let encoder: Vec<&String> = before.keys().filter(|name| name.starts_with("blocks.0.")).collect();
        assert!(encoder.len() >= 9, "{encoder:?}");
        for name in encoder {
            assert_eq!(after[&format!("encoder.{name}")], before[name], "{name}");
        }
        for block in 0..2 {
            let (decoder, masked) = (format!("decoder.layers.{block}."), format!("blocks.{}.", block + 1));
            let qkv = [&after[&format!("{decoder}attn_q.weight")][..], &after[&format!("{decoder}attn_kv.weight")]];
            assert_eq!(qkv.concat(), before[&format!("{masked}attn_qkv.weight")]);
            assert_eq!(after[&format!("{decoder}q_norm1.weight")], before[&format!("{masked}norm1.weight")]);
            let same = ["norm2.weight", "attn_out.weight", "mlp.0.weight", "mlp.0.bias", "adaLN_modulation.weight"];
            for name in same {
                assert_eq!(after[&format!("{decoder}{name}")], before[&format!("{masked}{name}")], "{name}");
            }
        }
        assert_eq!(after["decoder.group_swap.output_linear.bias"], masks());
        let largest = |name: &str| after[name].iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let usual = 1.0 / (WIDTH as f32).sqrt();
        let (output, keys) =
            ("decoder.group_swap.output_linear.weight", "decoder.group_swap.hidden_to_key_value.weight");
        assert!((0.5 * SMALL..=SMALL).contains(&(largest(output) / usual)), "small, but not zero");
        assert!((0.5..=1.0).contains(&(largest(keys) / usual)), "as in a new network");
    }
}

#[test]
fn keys_and_values_of_the_decoder_read_the_scale_of_the_condition() {
    let folded = floats(&Network::Masked(masked().folded()));
    let before = floats(&Network::Masked(masked()));
    let after = floats(&Network::Partition(converted([1, 2], Queries::default(), Projection::default())));
    let norm = &after["decoder.layers.1.kv_norm1.weight"];
    assert_eq!(norm, &folded["blocks.2.norm1.weight"]);
    assert_ne!(norm, &before["blocks.2.norm1.weight"]);
}

// The GroupSwap against the attention of the last encoder block, written out. All states have one variance, for which the
// division by the deviation is the norm.
#[test]
fn the_group_swap_starts_as_the_attention_from_a_mask_to_the_visible_tokens() {
    let state = |seed: usize| -> Vec<f32> {
        let x: Vec<f32> = (0..WIDTH).map(|i| ((i * 7 + seed * 5) % 13) as f32 - 6.0).collect();
        let mean = x.iter().sum::<f32>() / WIDTH as f32;
        let deviation = (x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / WIDTH as f32).sqrt();
        x.iter().map(|x| (x - mean) / deviation * 3.0 + seed as f32).collect()
    };
    let (keys, before) = ([state(1), state(2), state(3)], state(4));
    let mean: Vec<f32> = (0..WIDTH).map(|i| keys.iter().map(|key| key[i]).sum::<f32>() / 3.0).collect();
    let visible = VisibleStates { masks_before: before.clone(), mean: mean.clone(), deviation: 3.0 };
    let start = SwapStart { masks: masks(), visible: Some(visible) };
    for projection in [Projection::Linear, Projection::Mlp4] {
        let config = partition_config(&masked_config(), [2, 1], Queries::default(), projection).unwrap();
        let network = partition_from_masked(masked(), &config, &start, &Device::flex()).unwrap();
        let found = floats(&Network::Partition(network));
        let swap = |name: &str| &found[&format!("decoder.group_swap.{name}")];
        let folded = floats(&Network::Masked(masked().folded()));
        let block = |name: &str| &folded[&format!("blocks.1.{name}")];
        let normed = |x: &[f32]| -> Vec<f32> {
            let mean = x.iter().sum::<f32>() / WIDTH as f32;
            let affine = block("norm1.weight").iter().zip(block("norm1.bias"));
            x.iter().zip(affine).map(|(x, (weight, bias))| (x - mean) / 3.0 * weight + bias).collect()
        };
        let times = |matrix: &[f32], x: &[f32]| -> Vec<f32> {
            matrix.chunks(WIDTH).map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
        };
        let near = |found: &[f32], expected: &[f32]| {
            assert_eq!(found.len(), expected.len());
            for (a, b) in found.iter().zip(expected) {
                assert!((a - b).abs() < 1e-4, "{a} for {b}, {projection:?}");
            }
        };
        let sum = |a: Vec<f32>, b: &[f32]| -> Vec<f32> { a.iter().zip(b).map(|(a, b)| a + b).collect() };
        for key in &keys {
            let kv = sum(times(swap("hidden_to_key_value.weight"), key), swap("hidden_to_key_value.bias"));
            near(&kv, &times(&block("attn_qkv.weight")[WIDTH * WIDTH..], &normed(key)));
        }
        let layer = if projection == Projection::Linear { "query_processor" } else { "query_processor.2" };
        near(swap(&format!("{layer}.bias")), &times(&block("attn_qkv.weight")[..WIDTH * WIDTH], &normed(&before)));
        assert!(swap(&format!("{layer}.weight")).iter().all(|x| x.abs() <= SMALL / (WIDTH as f32).sqrt()));
        // Where all visible tokens get the same attention, the output is the mean state of masks.
        let kv = sum(times(swap("hidden_to_key_value.weight"), &mean), swap("hidden_to_key_value.bias"));
        near(&sum(times(swap("output_linear.weight"), &kv[WIDTH..]), swap("output_linear.bias")), &masks());
        assert_eq!(swap("output_linear.weight"), block("attn_out.weight"));
    }
}

#[test]
fn blocks_that_do_not_add_up_are_refused() {
    let message = |blocks| {
        let error = partition_config(&masked_config(), blocks, Queries::default(), Projection::default()).unwrap_err();
        error.to_string()
    };
    let found = message([2, 2]);
    assert!(found.contains("encoder_blocks + decoder_blocks = 4 must be 3"), "{found}");
    assert!(message([3, 0]).contains("decoder_blocks = 0") && message([0, 3]).contains("encoder_blocks = 0"));
    let config = partition_config(&masked_config(), [1, 2], Queries::default(), Projection::default()).unwrap();
    let short = masked().first_blocks(2);
    assert!(partition_from_masked(short, &config, &start(), &Device::flex()).is_err());
    let start = SwapStart { masks: masks()[1..].to_vec(), visible: None };
    let shape = partition_from_masked(masked(), &config, &start, &Device::flex()).unwrap_err();
    assert!(shape.to_string().contains("group_swap.output_linear.bias"), "{shape}");
}
