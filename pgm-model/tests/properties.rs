//! The properties of the networks, over random shapes and every variant.

use std::slice::from_ref;

use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_model::{
    BackboneConfig, Class, CleanTokens, ImageConfig, ModelConfig, Network, PackedRows, Partition, PartitionConfig,
    PartitionTransformer, Positions, Projection, Queries,
};
use proptest::prelude::*;

const VOCAB: usize = 13;
const TOLERANCE: f32 = 2e-5;

#[derive(Clone, Debug)]
struct Case {
    config: PartitionConfig,
    tokens: Vec<Vec<u32>>,
    groups: Vec<Vec<bool>>,
    // The class of each row, in a network with classes.
    classes: Option<Vec<Class>>,
    seed: u64,
}

const N_CLASSES: usize = 3;

fn text(hidden_size: usize, n_heads: usize) -> BackboneConfig {
    BackboneConfig { cond_dim: 5, ..BackboneConfig::new(VOCAB, hidden_size, n_heads, 7) }
}

fn cases() -> impl Strategy<Value = Case> {
    let queries = prop_oneof![
        Just(Queries::Learn),
        Just(Queries::LearnFreqs),
        Just(Queries::LearnFreqsMean),
        Just(Queries::LearnFreqsLogSumExp),
    ];
    let projection = prop_oneof![Just(Projection::Linear), Just(Projection::Mlp4)];
    (1..4_usize, 1..12_usize, 1..3_usize, 1..3_usize, 1..4_usize, queries, projection, any::<u64>()).prop_flat_map(
        |(n_rows, length, encoder_blocks, decoder_blocks, n_heads, queries, projection, seed)| {
            let config = PartitionConfig {
                backbone: text(6 * n_heads, n_heads),
                encoder_blocks,
                decoder_blocks,
                queries,
                projection,
                sets: Default::default(),
            };
            let tokens = prop::collection::vec(prop::collection::vec(0..VOCAB as u32, length), n_rows);
            let groups = prop::collection::vec(prop::collection::vec(any::<bool>(), length), n_rows);
            let classes = prop::collection::vec(prop::option::of(0..N_CLASSES), n_rows);
            let image =
                prop_oneof![Just(None), classes.clone().prop_map(|c| Some((c, 0))), classes.prop_map(|c| Some((c, 2)))];
            (tokens, groups, image).prop_map(move |(tokens, groups, image)| {
                let mut config = config.clone();
                let classes = image.map(|(classes, registers)| {
                    let image = ImageConfig { registers, ..ImageConfig::new(N_CLASSES, [2, 3]) };
                    config.backbone =
                        BackboneConfig { cond_dim: 6 * n_heads, image: Some(image), ..config.backbone.clone() };
                    classes
                });
                Case { config, tokens, groups, classes, seed }
            })
        },
    )
}

impl Case {
    fn model(&self) -> PartitionTransformer {
        let network = Network::new(&ModelConfig::Partition(self.config.clone()), &Device::flex());
        match network.with_noise(0.4, self.seed) {
            Network::Partition(model) => model,
            _ => unreachable!(),
        }
    }

    fn partition_logits(&self, model: &PartitionTransformer) -> Vec<Vec<Vec<f32>>> {
        let device = Device::flex();
        let shape = [self.tokens.len(), self.tokens[0].len()];
        let flat: Vec<i32> = self.tokens.iter().flatten().map(|&token| token as i32).collect();
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(flat, shape), &device);
        let partition = self.with(Partition::from_rows(&self.groups, &device), Partition::with_classes);
        rows(model.forward_partition(tokens, &partition))
    }

    // An input with the classes of the rows, if they have any.
    fn with<T>(&self, input: T, with_classes: fn(T, Vec<Class>) -> T) -> T {
        match &self.classes {
            Some(classes) => with_classes(input, classes.clone()),
            None => input,
        }
    }

    fn clean_tokens(&self, clean: CleanTokens) -> CleanTokens {
        self.with(clean, CleanTokens::with_classes)
    }

    /// Positions of each row that are in group 1 (or 0).
    fn members(&self, group: bool) -> Vec<Vec<usize>> {
        let of_row = |row: &Vec<bool>| (0..row.len()).filter(|&i| row[i] == group).collect();
        self.groups.iter().map(of_row).collect()
    }

    fn clean_logits(&self, model: &PartitionTransformer, clean: &[Vec<usize>]) -> Vec<Vec<Vec<f32>>> {
        let device = Device::flex();
        let tokens: Vec<Vec<u32>> =
            clean.iter().zip(&self.tokens).map(|(at, row)| at.iter().map(|&i| row[i]).collect()).collect();
        let decoded = self.members(true);
        if decoded.iter().all(Vec::is_empty) {
            return vec![Vec::new(); decoded.len()];
        }
        let clean = self.clean_tokens(CleanTokens::new(&tokens, clean, &device));
        rows(model.forward_clean(&clean, &Positions::new(&decoded, &device)))
    }

    /// The tokens of group 0 and their positions.
    fn clean(&self) -> (Vec<Vec<u32>>, Vec<Vec<usize>>) {
        let positions = self.members(false);
        let of_row = |(at, row): (&Vec<usize>, &Vec<u32>)| at.iter().map(|&i| row[i]).collect();
        (positions.iter().zip(&self.tokens).map(of_row).collect(), positions)
    }
}

fn slices<T>(rows: &[Vec<T>]) -> Vec<&[T]> {
    rows.iter().map(Vec::as_slice).collect()
}

fn rows(logits: Tensor<3>) -> Vec<Vec<Vec<f32>>> {
    let [_, length, width] = logits.dims();
    let flat = logits.try_into_vec_as::<f32>().unwrap();
    flat.chunks(length * width).map(|row| row.chunks(width).map(<[f32]>::to_vec).collect()).collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    let difference = |(x, y): (&f32, &f32)| (x - y).abs();
    a.iter().zip(b).map(difference).fold(0.0, |largest, d| if d.is_nan() { f32::INFINITY } else { largest.max(d) })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn training_and_sampling_agree_at_the_decoded_positions(case in cases()) {
        let model = case.model();
        let trained = case.partition_logits(&model);
        let sampled = case.clean_logits(&model, &case.members(false));
        let mut spread = 0.0_f32;
        for (row, positions) in case.members(true).iter().enumerate() {
            for (index, &position) in positions.iter().enumerate() {
                let (a, b) = (&trained[row][position], &sampled[row][index]);
                prop_assert!(largest_difference(a, b) < TOLERANCE, "row {row}, position {position}: {a:?} {b:?}");
                spread = spread.max(largest_difference(a, &[0.0; VOCAB]));
            }
        }
        prop_assert!(spread > 0.0 || case.members(true).iter().all(Vec::is_empty), "logits are not all zero");
    }

    #[test]
    fn a_groups_logits_never_depend_on_that_groups_tokens(case in cases(), other_tokens in any::<u64>()) {
        let model = case.model();
        let before = case.partition_logits(&model);
        for group in [false, true] {
            let mut changed = case.clone();
            for (row, positions) in case.members(group).into_iter().enumerate() {
                for position in positions {
                    let token = &mut changed.tokens[row][position];
                    *token = (*token + 1 + ((other_tokens >> (position % 32)) % (VOCAB as u64 - 1)) as u32) % VOCAB as u32;
                }
            }
            let after = changed.partition_logits(&model);
            for (row, positions) in case.members(group).into_iter().enumerate() {
                for position in positions {
                    let (a, b) = (&before[row][position], &after[row][position]);
                    prop_assert!(largest_difference(a, b) == 0.0, "row {row}, position {position}: {a:?} {b:?}");
                }
            }
        }
    }

    #[test]
    fn padding_changes_no_logit(case in cases(), filler in 1..9_usize) {
        let (device, model) = (Device::flex(), case.model());
        let ((tokens, clean), open) = (case.clean(), case.members(true));
        let [n_clean, n_open] = [&clean, &open].map(|rows| rows.iter().map(Vec::len).max().unwrap());
        prop_assume!(n_open > 0);
        let exact = model
            .forward_clean(&case.clean_tokens(CleanTokens::new(&tokens, &clean, &device)), &Positions::new(&open, &device));
        let filled = model.forward_clean(
            &case.clean_tokens(CleanTokens::padded(&tokens, &clean, n_clean + filler, &device)),
            &Positions::padded(&open, n_open + filler, &device),
        );
        let filled = rows(filled.narrow(1, 0, n_open));
        for ((exact, filled), open) in rows(exact).iter().zip(&filled).zip(&open) {
            for (a, b) in exact.iter().zip(filled).take(open.len()) {
                prop_assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < TOLERANCE), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn encoding_then_decoding_equals_the_forward_pass_to_the_bit(case in cases()) {
        let (device, model) = (Device::flex(), case.model());
        let ((tokens, positions), open) = (case.clean(), case.members(true));
        prop_assume!(open.iter().any(|row| !row.is_empty()));
        let (clean, open) = (case.clean_tokens(CleanTokens::new(&tokens, &positions, &device)), Positions::new(&open, &device));
        let at_once = rows(model.forward_clean(&clean, &open));
        let encoded = model.encode(&clean);
        prop_assert_eq!(&at_once, &rows(model.decode(&encoded, &open)));
        // Decoding does not change the encoded tokens, and the head may run separately.
        prop_assert_eq!(&at_once, &rows(model.logits(model.decode_hidden(&encoded, &open))));
    }

    #[test]
    fn two_sets_of_positions_decoded_one_by_one_have_the_logits_of_both_at_once(case in cases()) {
        let (device, model) = (Device::flex(), case.model());
        let ((tokens, positions), open) = (case.clean(), case.members(true));
        prop_assume!(open.iter().all(|row| row.len() > 1));
        let encoded = model.encode(&case.clean_tokens(CleanTokens::new(&tokens, &positions, &device)));
        let decode = |open: &[Vec<usize>]| rows(model.decode(&encoded, &Positions::new(open, &device)));
        let of_parity = |parity: usize| -> Vec<Vec<usize>> {
            open.iter().map(|row| row.iter().copied().skip(parity).step_by(2).collect()).collect()
        };
        let (both, parts) = (decode(&open), [0, 1].map(|parity| decode(&of_parity(parity))));
        for (row, open) in open.iter().enumerate() {
            for index in 0..open.len() {
                let (a, b) = (&both[row][index], &parts[index % 2][row][index / 2]);
                prop_assert!(largest_difference(a, b) < TOLERANCE, "row {row}, position {}: {a:?} {b:?}", open[index]);
            }
        }
    }

    #[test]
    fn packed_rows_have_the_logits_that_each_row_has_alone(case in cases()) {
        let (device, model) = (Device::flex(), case.model());
        let ((tokens, clean), open) = (case.clean(), case.members(true));
        prop_assume!(open.iter().any(|row| !row.is_empty()));
        let packed_rows = PackedRows::new(&slices(&tokens), &slices(&clean), &slices(&open), &device);
        let packed_rows = case.with(packed_rows, PackedRows::with_classes);
        let packed = rows(model.forward_packed(&packed_rows)).remove(0);
        let hidden = model.decode_hidden_packed(&model.encode_packed(&packed_rows), &packed_rows);
        prop_assert_eq!(&packed, &rows(model.logits(hidden)).remove(0));
        let mut next = 0;
        for (row, ((tokens, clean), open)) in tokens.iter().zip(&clean).zip(&open).enumerate() {
            if open.is_empty() {
                continue;
            }
            let mut clean = CleanTokens::new(from_ref(tokens), from_ref(clean), &device);
            if let Some(classes) = &case.classes {
                clean = clean.with_classes(vec![classes[row]]);
            }
            let alone = rows(model.forward_clean(&clean, &Positions::new(from_ref(open), &device))).remove(0);
            for (a, b) in alone.iter().zip(&packed[next..]) {
                prop_assert!(largest_difference(a, b) < TOLERANCE, "{a:?} {b:?}");
            }
            next += open.len();
        }
        prop_assert_eq!(next, packed.len());
    }

    #[test]
    fn the_order_of_the_clean_tokens_does_not_matter(case in cases(), rotation in 1..11_usize) {
        let model = case.model();
        let clean = case.members(false);
        let rotated: Vec<Vec<usize>> = clean
            .iter()
            .map(|row| {
                let mut row = row.clone();
                let by = rotation % row.len().max(1);
                row.rotate_left(by);
                row
            })
            .collect();
        let (a, b) = (case.clean_logits(&model, &clean), case.clean_logits(&model, &rotated));
        for (row, positions) in case.members(true).iter().enumerate() {
            for index in 0..positions.len() {
                prop_assert!(largest_difference(&a[row][index], &b[row][index]) < TOLERANCE);
            }
        }
    }
}

#[test]
fn the_other_groups_tokens_do_matter() {
    let config = PartitionConfig {
        backbone: text(12, 2),
        encoder_blocks: 1,
        decoder_blocks: 1,
        queries: Queries::LearnFreqs,
        projection: Projection::Linear,
        sets: Default::default(),
    };
    let (tokens, groups) = (vec![vec![1, 2, 3, 4, 5]], vec![vec![false, true, false, true, true]]);
    let case = Case { config, tokens, groups, classes: None, seed: 7 };
    let model = case.model();
    let mut changed = case.clone();
    changed.tokens[0][0] = 9;
    let (a, b) = (case.partition_logits(&model), changed.partition_logits(&model));
    assert!(largest_difference(&a[0][1], &b[0][1]) > 1e-4, "position 1 sees position 0");
    assert_eq!(largest_difference(&a[0][2], &b[0][2]), 0.0, "position 2 is in position 0's group");
}

#[test]
fn classes_matter_and_so_does_the_newest_clean_token_behind_a_register() {
    let image = ImageConfig { registers: 2, ..ImageConfig::new(N_CLASSES, [2, 3]) };
    let config = PartitionConfig {
        backbone: BackboneConfig { cond_dim: 12, image: Some(image), ..text(12, 2) },
        encoder_blocks: 1,
        decoder_blocks: 1,
        queries: Queries::LearnFreqs,
        projection: Projection::Linear,
        sets: Default::default(),
    };
    let (tokens, groups) = (vec![vec![1, 2, 3, 4, 5]; 2], vec![vec![false, true, false, true, true]; 2]);
    let case = Case { config, tokens, groups, classes: Some(vec![Some(1), None]), seed: 7 };
    let model = case.model();
    let logits = case.partition_logits(&model);
    assert!(largest_difference(&logits[0][1], &logits[1][1]) > 1e-4, "a class differs from no class");
    let unconditional = Case { classes: Some(vec![None, None]), ..case.clone() }.partition_logits(&model);
    assert_eq!(unconditional[0], logits[1]);

    // The last of the clean tokens is seen, in rows of equal length and in rows that are padded or packed.
    let (device, newest) = (Device::flex(), |token: u32| [vec![5, token], vec![7, 5, token]]);
    let (places, open) = ([vec![0, 3], vec![1, 4, 2]], vec![vec![1], vec![0]]);
    let padded = |token: u32| {
        let clean = case.clean_tokens(CleanTokens::new(&newest(token), &places, &device));
        rows(model.forward_clean(&clean, &Positions::new(&open, &device))).concat()
    };
    let even = |token: u32| {
        let clean = case.clean_tokens(CleanTokens::new(&vec![vec![5, token]; 2], &vec![vec![0, 3]; 2], &device));
        rows(model.forward_clean(&clean, &Positions::new(&open, &device))).concat()
    };
    let packed = |token: u32| {
        let packed = PackedRows::new(&slices(&newest(token)), &slices(&places), &slices(&open), &device);
        rows(model.forward_packed(&case.with(packed, PackedRows::with_classes))).concat()
    };
    let forms: [&dyn Fn(u32) -> Vec<Vec<f32>>; 3] = [&padded, &even, &packed];
    for form in forms {
        for (a, b) in form(2).iter().zip(&form(9)) {
            assert!(largest_difference(a, b) > 1e-4, "the newest clean token is seen");
        }
    }
    // A row without a clean token sees the register: its logits depend on the row's class and are finite.
    let empty = case.clean_tokens(CleanTokens::new(&[vec![], vec![]], &[vec![], vec![]], &device));
    let logits = rows(model.forward_clean(&empty, &Positions::new(&open, &device))).concat();
    assert!(logits.concat().iter().all(|logit| logit.is_finite()));
    let no_rows: [&[u32]; 2] = [&[], &[]];
    let nothing = PackedRows::new(&no_rows, &[&[], &[]], &slices(&open), &device);
    let packed = rows(model.forward_packed(&case.with(nothing, PackedRows::with_classes))).concat();
    for (a, b) in logits.iter().zip(&packed) {
        assert!(largest_difference(a, b) < TOLERANCE, "{a:?} {b:?}");
    }
}
