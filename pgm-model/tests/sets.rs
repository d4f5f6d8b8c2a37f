//! Ordered sets of clean tokens: what is encoded once equals what is encoded anew.

use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_model::{
    BackboneConfig, Class, CleanTokens, EncodedRow, ImageConfig, ModelConfig, Network, NewTokens, Partition,
    PartitionConfig, PartitionTransformer, Positions, Projection, Queries, Sets,
};
use proptest::prelude::*;

const VOCAB: usize = 13;
const TOLERANCE: f32 = 2e-5;
const N_CLASSES: usize = 3;

/// Rows of random tokens, groups and sets, and a network.
#[derive(Clone, Debug)]
struct Case {
    config: PartitionConfig,
    // Token, whether it is in group 1, and its set.
    rows: Vec<Vec<(u32, bool, usize)>>,
    classes: Option<Vec<Class>>,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let queries = prop_oneof![
        Just(Queries::Learn),
        Just(Queries::LearnFreqs),
        Just(Queries::LearnFreqsMean),
        Just(Queries::LearnFreqsLogSumExp),
    ];
    (1..4_usize, 1..14_usize, 1..3_usize, 1..3_usize, queries, any::<u64>(), 0..3_usize).prop_flat_map(
        |(n_rows, length, encoder_blocks, decoder_blocks, queries, seed, kind)| {
            let text = BackboneConfig { cond_dim: 5, ..BackboneConfig::new(VOCAB, 12, 2, 7) };
            let image = ImageConfig { registers: 2 * kind.min(1), ..ImageConfig::new(N_CLASSES, [2, 3]) };
            let backbone = match kind {
                2 => text,
                _ => BackboneConfig { cond_dim: 12, image: Some(image), ..text },
            };
            let projection = Projection::Linear;
            let config =
                PartitionConfig { backbone, encoder_blocks, decoder_blocks, queries, projection, sets: Sets::Mix };
            let token = (0..VOCAB as u32, any::<bool>(), 0..5_usize);
            let rows = prop::collection::vec(prop::collection::vec(token, length), n_rows);
            let classes = prop::collection::vec(prop::option::of(0..N_CLASSES), n_rows);
            (rows, classes).prop_map(move |(rows, classes)| {
                let classes = (kind < 2).then_some(classes);
                let rows = rows.into_iter().map(numbered).collect();
                Case { config: config.clone(), rows, classes, seed }
            })
        },
    )
}

// The sets of each group numbered from 0 without gaps.
fn numbered(row: Vec<(u32, bool, usize)>) -> Vec<(u32, bool, usize)> {
    let earlier = |group: bool, set: usize| {
        (0..set).filter(|&earlier| row.iter().any(|token| token.1 == group && token.2 == earlier)).count()
    };
    row.iter().map(|&(token, group, set)| (token, group, earlier(group, set))).collect()
}

impl Case {
    fn model(&self) -> PartitionTransformer {
        match Network::new(&ModelConfig::Partition(self.config.clone()), &Device::flex()).with_noise(0.4, self.seed) {
            Network::Partition(model) => model,
            _ => unreachable!(),
        }
    }

    fn tokens(&self) -> Tensor<2, Int> {
        let flat: Vec<i32> = self.rows.iter().flatten().map(|token| token.0 as i32).collect();
        Tensor::from_data(TensorData::new(flat, [self.rows.len(), self.rows[0].len()]), &Device::flex())
    }

    fn partition(&self, sets: impl Fn(usize) -> usize) -> Partition {
        let groups: Vec<Vec<bool>> = self.rows.iter().map(|row| row.iter().map(|token| token.1).collect()).collect();
        let sets: Vec<Vec<usize>> =
            self.rows.iter().map(|row| row.iter().map(|token| sets(token.2)).collect()).collect();
        let partition = Partition::from_rows(&groups, &Device::flex()).with_sets(&sets);
        match &self.classes {
            Some(classes) => partition.with_classes(classes.clone()),
            None => partition,
        }
    }

    // Positions of group 0, set by set, and of group 1.
    fn clean_and_open(&self, row: usize) -> (Vec<usize>, Vec<usize>) {
        let row = &self.rows[row];
        let mut clean: Vec<usize> = (0..row.len()).filter(|&position| !row[position].1).collect();
        clean.sort_by_key(|&position| row[position].2);
        (clean, (0..row.len()).filter(|&position| row[position].1).collect())
    }

    fn class(&self, row: usize) -> Class {
        self.classes.as_ref().and_then(|classes| classes[row])
    }
}

fn vectors(logits: Tensor<3>) -> Vec<Vec<f32>> {
    let width = logits.dims()[2];
    logits.try_into_vec_as::<f32>().unwrap().chunks(width).map(<[f32]>::to_vec).collect()
}

fn assert_close(a: &[f32], b: &[f32], what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() < TOLERANCE, "{what}: {a} and {b}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn one_set_is_the_network_without_sets_bit_for_bit(case in cases()) {
        let model = case.model();
        let groups = case.partition(|_| 0).groups().clone();
        let plain = Partition::new(groups);
        let plain = match &case.classes {
            Some(classes) => plain.with_classes(classes.clone()),
            None => plain,
        };
        let logits = |partition: &Partition| vectors(model.forward_partition(case.tokens(), partition));
        prop_assert_eq!(logits(&case.partition(|_| 0)), logits(&plain));
    }

    // The steps of all rows are joined in batches, in which some rows have nothing new.
    #[test]
    fn rows_that_are_extended_set_by_set_predict_as_in_training(case in cases(), one_batch in any::<bool>()) {
        let (model, device) = (case.model(), Device::flex());
        let expected = vectors(model.forward_partition(case.tokens(), &case.partition(|set| set)));
        let parts: Vec<(Vec<usize>, Vec<usize>)> = (0..case.rows.len()).map(|row| case.clean_and_open(row)).collect();
        let mut encoded: Vec<EncodedRow> = (0..case.rows.len()).map(|row| EncodedRow::new(case.class(row))).collect();
        for set in 0..5 {
            let chosen = |row: usize| -> (Vec<u32>, Vec<usize>, Vec<usize>) {
                let at = parts[row].0.iter().filter(|&&position| one_batch || case.rows[row][position].2 == set);
                let at: Vec<usize> = at.copied().collect();
                let of = |position: &usize| case.rows[row][*position];
                (at.iter().map(|p| of(p).0).collect(), at.clone(), at.iter().map(|p| of(p).2).collect())
            };
            let new: Vec<_> = (0..case.rows.len()).map(chosen).collect();
            let new: Vec<NewTokens<'_>> = new
                .iter()
                .map(|(tokens, positions, sets)| NewTokens { tokens, positions, sets })
                .collect();
            model.extend(&mut encoded.iter_mut().collect::<Vec<_>>(), &new, &device);
            if one_batch {
                break;
            }
        }
        let open: Vec<&[usize]> = parts.iter().map(|(_, open)| open.as_slice()).collect();
        if open.iter().any(|open| !open.is_empty()) {
            let rows: Vec<&EncodedRow> = encoded.iter().collect();
            let found = vectors(model.logits(model.decode_rows(&rows, &open, &device)));
            let length = case.rows[0].len();
            let places = open.iter().enumerate().flat_map(|(row, open)| open.iter().map(move |p| row * length + p));
            for (found, place) in found.iter().zip(places) {
                assert_close(found, &expected[place], "a position to decode");
            }
        }
        // The same in one call over all rows.
        let of = |values: fn(&(u32, bool, usize), usize) -> usize| -> Vec<Vec<usize>> {
            let row = |(row, (clean, _)): (usize, &(Vec<usize>, Vec<usize>))| {
                clean.iter().map(|&position| values(&case.rows[row][position], position)).collect()
            };
            parts.iter().enumerate().map(row).collect()
        };
        let tokens: Vec<Vec<u32>> =
            of(|token, _| token.0 as usize).iter().map(|row| row.iter().map(|&token| token as u32).collect()).collect();
        let clean = CleanTokens::new(&tokens, &of(|_, position| position), &device).with_sets(&of(|token, _| token.2));
        let clean = match &case.classes {
            Some(classes) => clean.with_classes(classes.clone()),
            None => clean,
        };
        let padded: Vec<Vec<usize>> = open.iter().map(|open| open.to_vec()).collect();
        let n_open = open.iter().map(|open| open.len()).max().unwrap_or(0);
        if n_open > 0 {
            let found = vectors(model.forward_clean(&clean, &Positions::new(&padded, &device)));
            let length = case.rows[0].len();
            for (row, open) in open.iter().enumerate() {
                for (index, position) in open.iter().enumerate() {
                    assert_close(&found[row * n_open + index], &expected[row * length + position], "in one call");
                }
            }
        }
        for (row, encoded) in encoded.iter().enumerate() {
            prop_assert_eq!(encoded.n_tokens(), parts[row].0.len());
        }
    }

    #[test]
    fn each_token_of_any_order_is_predicted_from_earlier_sets_alone(case in cases()) {
        let no_aggregate = matches!(case.config.queries, Queries::Learn | Queries::LearnFreqs);
        prop_assume!(no_aggregate);
        let (model, device) = (case.model(), Device::flex());
        let sets: Vec<i32> = case.rows.iter().flatten().map(|token| token.2 as i32).collect();
        let sets = Tensor::from_data(TensorData::new(sets, [case.rows.len(), case.rows[0].len()]), &device);
        let hidden = model.hidden_any_order(case.tokens(), &sets, case.classes.as_deref());
        let found = vectors(model.logits(hidden));
        let length = case.rows[0].len();
        for (index, row) in case.rows.iter().enumerate() {
            let mut encoded = EncodedRow::new(case.class(index));
            for set in 0..5 {
                let at: Vec<usize> = (0..length).filter(|&position| row[position].2 == set).collect();
                if at.is_empty() {
                    continue;
                }
                // Before the first set nothing is known but registers.
                model.extend(&mut [&mut encoded], &[NewTokens { tokens: &[], positions: &[], sets: &[] }], &device);
                let expected = vectors(model.logits(model.decode_rows(&[&encoded], &[&at], &device)));
                for (expected, position) in expected.iter().zip(&at) {
                    assert_close(expected, &found[index * length + position], "a token of any order");
                }
                let tokens: Vec<u32> = at.iter().map(|&position| row[position].0).collect();
                let sets = vec![set + 1; at.len()];
                let new = NewTokens { tokens: &tokens, positions: &at, sets: &sets };
                model.extend(&mut [&mut encoded], &[new], &device);
            }
        }
    }
}

fn text_config() -> PartitionConfig {
    PartitionConfig {
        backbone: BackboneConfig { cond_dim: 5, ..BackboneConfig::new(VOCAB, 12, 2, 9) },
        encoder_blocks: 2,
        decoder_blocks: 1,
        queries: Queries::LearnFreqs,
        projection: Projection::Linear,
        sets: Sets::Mix,
    }
}

fn text_model() -> PartitionTransformer {
    match Network::new(&ModelConfig::Partition(text_config()), &Device::flex()).with_noise(0.4, 3) {
        Network::Partition(model) => model,
        _ => unreachable!(),
    }
}

fn extended(model: &PartitionTransformer, row: &mut EncodedRow, tokens: &[u32], positions: &[usize], set: usize) {
    let sets = vec![set; tokens.len()];
    model.extend(&mut [row], &[NewTokens { tokens, positions, sets: &sets }], &Device::flex());
}

fn logits(model: &PartitionTransformer, row: &EncodedRow, positions: &[usize]) -> Vec<f32> {
    vectors(model.logits(model.decode_rows(&[row], &[positions], &Device::flex()))).concat()
}

#[test]
fn inside_a_set_order_does_not_matter_and_across_sets_it_does() {
    let model = text_model();
    let of = |sets: &[(&[u32], &[usize])]| {
        let mut row = EncodedRow::new(None);
        sets.iter().enumerate().for_each(|(set, (tokens, at))| extended(&model, &mut row, tokens, at, set));
        logits(&model, &row, &[5, 8])
    };
    let plain = of(&[(&[1, 2, 3], &[0, 4, 2]), (&[6, 7], &[1, 3])]);
    assert_close(&plain, &of(&[(&[3, 1, 2], &[2, 0, 4]), (&[7, 6], &[3, 1])]), "another order inside the sets");
    let swapped = of(&[(&[6, 7], &[1, 3]), (&[1, 2, 3], &[0, 4, 2])]);
    assert!(plain.iter().zip(&swapped).any(|(a, b)| (a - b).abs() > 1e-3), "another order of the sets");
    // One set is the sampling path of the paper.
    let device = Device::flex();
    let clean = CleanTokens::new(&[vec![1, 2, 3, 6, 7]], &[vec![0, 4, 2, 1, 3]], &device);
    let whole = vectors(model.forward_clean(&clean, &Positions::new(&[vec![5, 8]], &device))).concat();
    assert_close(&of(&[(&[1, 2, 3, 6, 7], &[0, 4, 2, 1, 3])]), &whole, "one set");
}

#[test]
fn a_clone_is_a_row_of_its_own_and_the_newest_tokens_can_be_dropped() {
    let model = text_model();
    let mut row = EncodedRow::new(None);
    extended(&model, &mut row, &[1, 2, 3], &[0, 4, 2], 0);
    let (before, mut other) = (logits(&model, &row, &[6, 7]), row.clone());
    extended(&model, &mut other, &[9, 4], &[1, 3], 1);
    assert_eq!(logits(&model, &row, &[6, 7]), before, "the clone was extended, not the row");
    assert!(logits(&model, &other, &[6, 7]).iter().zip(&before).any(|(a, b)| (a - b).abs() > 1e-3));
    assert!(other.n_bytes() >= row.n_bytes());
    // Memory is taken for 32 tokens at a time.
    assert_eq!(row.n_bytes(), 32 * EncodedRow::bytes_per_token(&text_config()));
    // Nothing has seen the last set.
    other.truncate(3);
    assert_eq!(other.n_tokens(), 3);
    assert_close(&logits(&model, &other, &[6, 7]), &before, "without the last set");
    extended(&model, &mut row, &[5], &[8], 1);
    extended(&model, &mut other, &[5], &[8], 7);
    assert_close(&logits(&model, &other, &[6, 7]), &logits(&model, &row, &[6, 7]), "extended again");
    assert_eq!(logits(&model, &EncodedRow::new(None), &[6]).len(), VOCAB, "a row without tokens");
}
