//! Tests of all orders together.

use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::sample::logits::LogitStats;

pub(super) fn context<'a>(open: &'a [usize], decoded: &'a [usize], n_to_decode: usize) -> OrderContext<'a> {
    OrderContext { length: 100, open, decoded, n_to_decode, progress: Progress { from: 0.0, to: 1.0 } }
}

pub(super) fn candidates(entropies: &[f64]) -> Vec<Candidate> {
    let candidate = |(position, &entropy): (usize, &f64)| Candidate {
        position,
        token: 0,
        log_probability: -entropy,
        stats: LogitStats { margin: 1.0 - entropy, entropy },
    };
    entropies.iter().enumerate().map(candidate).collect()
}

fn start<'a>(open: &'a [usize], rng: &'a mut StdRng) -> OrderStart<'a> {
    OrderStart { length: 100, open, grid: None, seed: 7, rng }
}

fn decode(kind: OrderKind, open: &[usize], n_to_decode: usize) -> Vec<usize> {
    let mut rng = StdRng::seed_from_u64(3);
    let mut order = kind.start(start(open, &mut rng));
    let (mut open, mut decoded) = (open.to_vec(), Vec::new());
    while !open.is_empty() {
        let n_to_decode = n_to_decode.min(open.len());
        let taken = order.candidates(&context(&open, &decoded, n_to_decode), &mut rng);
        assert_eq!(taken.len(), n_to_decode);
        open.retain(|position| !taken.contains(position));
        decoded.extend(taken);
    }
    decoded
}

#[test]
fn fixed_orders_are_permutations_of_the_open_positions() {
    for n in [1, 2, 3, 17, 64, 90] {
        let open: Vec<usize> = (0..n).map(|index| index + 5).collect();
        assert_eq!(decode(OrderKind::Sequential, &open, 1), open);
        let kinds = ["uniform", "sequential", "low-discrepancy", "dilated", "halton"];
        for kind in kinds.map(|name| name.parse::<OrderKind>().unwrap()) {
            let mut decoded = decode(kind, &open, 3);
            decoded.sort_unstable();
            assert_eq!(decoded, open, "{kind:?}");
        }
    }
}

#[test]
fn low_discrepancy_and_dilated_orders_leave_no_large_gap_at_any_moment() {
    let open: Vec<usize> = (0..64).collect();
    for kind in [OrderKind::LowDiscrepancy, OrderKind::Dilated] {
        let decoded = decode(kind, &open, 1);
        for n in [4, 8, 16, 32] {
            let mut first = decoded[..n].to_vec();
            first.sort_unstable();
            let gap = first.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
            assert!(gap <= 2 * 64 / n, "{kind:?}: a gap of {gap} after {n}");
        }
    }
}

#[test]
fn ranked_orders_take_the_surest_and_no_more_than_the_schedule_wants() {
    let drawn = candidates(&[0.5, 0.1, 0.9, 0.3]);
    let context = context(&[0, 1, 2, 3], &[], 2);
    for kind in ["confidence", "margin", "entropy"] {
        let kind = kind.parse::<OrderKind>().unwrap();
        let mut rng = StdRng::seed_from_u64(0);
        let mut order = kind.start(start(context.open, &mut rng));
        assert_eq!(order.candidates(&context, &mut rng), context.open);
        assert_eq!(order.select(&context, &drawn), [1, 3], "{kind:?}");
        let mut limited = kind.with_candidates(CandidateLimit::Some(3)).start(start(context.open, &mut rng));
        assert_eq!(limited.candidates(&context, &mut rng).len(), 3);
    }
}

#[test]
fn the_independent_generator_repeats_for_a_seed_and_shares_nothing_with_the_rows_stream() {
    let draws = |rng: &mut dyn Rng| -> Vec<u64> { (0..64).map(|_| rng.random()).collect() };
    let independent = |seed, rng: &mut StdRng| draws(&mut OrderStart { seed, ..start(&[1], rng) }.independent_rng());
    let mut rng = StdRng::seed_from_u64(0);
    let first = independent(5, &mut rng);
    assert_eq!(first, independent(5, &mut rng), "of the seed alone");
    assert_ne!(first, independent(6, &mut rng));
    assert_eq!(rng, StdRng::seed_from_u64(0), "the row's stream has not moved");
    let of_row = draws(&mut ChaCha8Rng::seed_from_u64(5));
    assert!(first.iter().all(|number| !of_row.contains(number)));
}

#[test]
fn the_error_of_an_unknown_name_lists_all_orders() {
    assert!("best".parse::<OrderKind>().unwrap_err().contains("low-discrepancy"));
}

#[test]
fn the_table_holds_every_order_under_its_serialised_name() {
    // The derived reader lists all variants of the enum.
    let error = serde_json::from_str::<OrderKind>("\"no such order\"").unwrap_err().to_string();
    let variants: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
    assert_eq!(variants, OrderKind::NAMES, "{error}");
    for name in OrderKind::NAMES {
        let kind: OrderKind = name.parse().unwrap();
        assert_eq!(kind.name(), name);
        let json = serde_json::to_value(kind).unwrap();
        let key = json.as_str().or_else(|| json.as_object()?.keys().next().map(String::as_str));
        assert_eq!(key, Some(name));
    }
}

#[test]
fn every_place_that_lists_the_orders_lists_all_of_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let order_module = "pgm-infer/src/sample/order/mod.rs";
    // The files with the names, and the text around each name.
    let places = [
        (order_module, "//! | `", "`"),
        ("docs/orders.md", "| `", "` |"),
        ("pgm-infer/src/serve/page/texts.js", "", ":"),
        ("pgm-infer/tests/golden/samples.txt", "partition,", ",uniform,plain"),
    ];
    for (file, before, after) in places {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        for name in OrderKind::NAMES {
            // A key of JavaScript needs no quotes.
            let written = [format!("{before}{name}{after}"), format!("\"{name}\"{after}")];
            assert!(written.iter().any(|written| text.contains(written)), "{file} lacks the order {name}");
        }
    }
    #[cfg(feature = "cli")]
    {
        use clap::Args as _;
        let help = OrderFlags::augment_args(clap::Command::new("test")).render_help().to_string();
        let words: Vec<&str> = help.split(|letter: char| !(letter.is_alphabetic() || letter == '-')).collect();
        assert!(OrderKind::NAMES.iter().all(|name| words.contains(name)), "{help}");
    }
}
