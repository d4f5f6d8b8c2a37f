//! Borders against a network of known probabilities.

use std::collections::BTreeMap;

use super::*;
use crate::sample::{CleanRow, Denoiser, Logits, SampleRequest, SampleRow, SampleSettings, advance};

const CLASSES: usize = 6;
const MASK: usize = CLASSES - 1;

// The logits of a position depend on the token before it, if that is known; those at `absent` are -inf for a class.
#[derive(Default)]
struct Bigram {
    absent: Vec<usize>,
    is_damaged: bool,
}

impl Bigram {
    fn logit(&self, previous: Option<u32>, class: usize) -> f32 {
        if self.absent.contains(&class) {
            return f32::NEG_INFINITY;
        }
        let previous = previous.map_or(3, |token| token as usize + 5);
        if self.is_damaged { f32::NAN } else { ((previous * 7 + class * 3) % 5) as f32 / 2.0 }
    }

    fn probability(&self, previous: u32, class: usize) -> f64 {
        let weight = |class: usize| f64::from(self.logit(Some(previous), class)).exp();
        weight(class) / (0..MASK).map(weight).sum::<f64>()
    }
}

impl Denoiser for Bigram {
    fn logits(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Result<Logits<'_>, InferError> {
        let n_positions = positions.iter().map(|row| row.len()).max().unwrap_or(0);
        let mut values = vec![0.0; rows.len() * n_positions * CLASSES];
        for (row, (clean, positions)) in rows.iter().zip(positions).enumerate() {
            for (index, &position) in positions.iter().enumerate() {
                let known = clean.positions.iter().position(|known| known + 1 == position);
                let previous = known.map(|known| clean.tokens[known]);
                let start = (row * n_positions + index) * CLASSES;
                (0..CLASSES).for_each(|class| values[start + class] = self.logit(previous, class));
            }
        }
        Ok(Logits::from_host(values, n_positions, CLASSES))
    }

    fn mask_index(&self) -> usize {
        MASK
    }

    fn excluded_classes(&self) -> &[usize] {
        &[MASK]
    }
}

fn part(position: usize, allowed: &[u32], plain: Option<u32>) -> BorderPart {
    BorderPart { position, allowed: allowed.into(), plain }
}

fn request(seed: u64, borders: Vec<Border>) -> SampleRequest {
    SampleRequest { length: 6, given: vec![(0, 0)], seed, borders, ..SampleRequest::default() }
}

// Two parts behind position 0: 1 or 2, or 3 and then 0 or 4.
fn chain() -> Vec<Border> {
    vec![Border { parts: vec![part(1, &[1, 2], Some(3)), part(2, &[0, 4], None)], next: Some(3) }]
}

fn run(bigram: &Bigram, request: &SampleRequest, settings: &SampleSettings) -> (Vec<usize>, Vec<u32>) {
    let mut row = SampleRow::new(request, settings).unwrap();
    while !row.is_done() {
        for change in advance(bigram, &mut [&mut row]).unwrap().changes {
            change.unwrap();
        }
        let sampled = row.sampled(MASK);
        assert_eq!(sampled.order.len(), sampled.log_probabilities.len());
        assert_eq!(sampled.tokens.iter().filter(|&&token| token != MASK as u32).count(), 1 + sampled.order.len());
    }
    let sampled = row.sampled(MASK);
    assert!(sampled.complete && sampled.order.len() == 5 && row.step() == row.n_steps());
    (sampled.order, sampled.tokens)
}

#[test]
fn alternatives_are_drawn_by_the_networks_joint_probability() {
    let bigram = Bigram::default();
    for temperature in [1.0, 0.0] {
        let mut settings = SampleSettings { steps: 2, ..SampleSettings::default() };
        settings.draw.temperature = temperature;
        let n = if temperature == 0.0 { 50 } else { 12_000 };
        let mut counts = BTreeMap::new();
        for seed in 0..n {
            let (order, tokens) = run(&bigram, &request(seed, chain()), &settings);
            let key = if tokens[1] == 3 { (3, Some(tokens[2])) } else { (tokens[1], None) };
            *counts.entry(key).or_insert(0) += 1;
            // The position behind the drawn alternative comes next.
            assert_eq!(order[..3.min(order.len())], if tokens[1] == 3 { [1, 2, 3] } else { [1, 2, order[2]] });
        }
        let plain = bigram.probability(0, 3);
        let of = |previous: u32, class: usize| bigram.probability(previous, class);
        let expected = [
            ((1, None), of(0, 1)),
            ((2, None), of(0, 2)),
            ((3, Some(0)), plain * of(3, 0)),
            ((3, Some(4)), plain * of(3, 4)),
        ];
        let total: f64 = expected.iter().map(|(_, weight)| weight).sum();
        for (key, weight) in expected {
            let (share, n) = (weight / total, n as f64);
            let found = f64::from(counts.remove(&key).unwrap_or(0));
            if temperature == 0.0 {
                let best = expected.iter().map(|(_, weight)| *weight).fold(0.0, f64::max);
                assert_eq!(found, if weight == best { n } else { 0.0 }, "{key:?}");
            } else {
                let deviation = (n * share * (1.0 - share)).sqrt();
                assert!((found - n * share).abs() < 4.0 * deviation, "{key:?}: {found} of {}", n * share);
            }
        }
        assert!(counts.is_empty(), "{counts:?}");
    }
}

#[test]
fn borders_do_not_depend_on_the_batch_and_take_their_steps_before_the_order() {
    let settings = SampleSettings { steps: 3, ..SampleSettings::default() };
    let requests: Vec<SampleRequest> =
        (0..6).map(|seed| request(seed, if seed % 2 == 0 { chain() } else { Vec::new() })).collect();
    let mut rows: Vec<SampleRow> = requests.iter().map(|of| SampleRow::new(of, &settings).unwrap()).collect();
    assert_eq!((rows[0].n_steps(), rows[1].n_steps()), (6, 3), "two parts and the position next to them");
    while rows.iter().any(|row| !row.is_done()) {
        let mut all: Vec<&mut SampleRow> = rows.iter_mut().collect();
        advance(&Bigram::default(), &mut all).unwrap();
    }
    for (request, row) in requests.iter().zip(&rows) {
        let (order, tokens) = run(&Bigram::default(), request, &settings);
        let sampled = row.sampled(MASK);
        assert_eq!((order, tokens), (sampled.order, sampled.tokens));
    }
}

#[test]
fn tokens_without_probability_still_agree_and_impossible_borders_are_errors() {
    let settings = SampleSettings { steps: 2, ..SampleSettings::default() };
    let one = |allowed: &[u32]| vec![Border { parts: vec![part(1, allowed, None)], next: None }];
    // The network gives none of them any probability: each is as good as the other.
    let absent = Bigram { absent: vec![1, 2], is_damaged: false };
    let mut found: Vec<u32> = (0..40).map(|seed| run(&absent, &request(seed, one(&[1, 2])), &settings).1[1]).collect();
    found.sort_unstable();
    found.dedup();
    assert_eq!(found, [1, 2]);
    let error = |bigram: &Bigram, borders: Vec<Border>| -> String {
        let row = SampleRow::new(&request(1, borders), &settings);
        let ended = row.and_then(|mut row| {
            let changes = advance(bigram, &mut [&mut row])?.changes;
            assert!(row.is_done());
            changes.into_iter().collect::<Result<Vec<_>, _>>()
        });
        ended.unwrap_err().to_string()
    };
    let plain = Bigram::default();
    assert!(error(&plain, one(&[MASK as u32])).contains("no token that the model may draw agrees"));
    assert!(error(&plain, one(&[99])).contains("no token that the model may draw agrees"), "beyond the vocabulary");
    assert!(error(&Bigram { is_damaged: true, ..Bigram::default() }, one(&[1])).contains("not finite"));
    for (borders, expected) in [
        (one(&[]), "at least one"),
        (one(&[2, 1]), "ascending"),
        (vec![Border { parts: vec![part(0, &[1], None)], next: None }], "must be open"),
        (vec![Border { parts: vec![part(6, &[1], None)], next: None }], "must be open"),
        (vec![Border { parts: vec![part(1, &[1], None)], next: Some(1) }], "next to a border"),
        (vec![Border { parts: vec![part(1, &[1], Some(2))], next: None }], "plain token"),
        (vec![Border { parts: vec![part(1, &[1], None), part(2, &[1], None)], next: None }], "plain token"),
    ] {
        let found = error(&plain, borders);
        assert!(found.contains(expected), "{found}");
    }
}
