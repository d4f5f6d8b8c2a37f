//! Readings of logits in host memory, on a device and in chunks agree.

use burn::tensor::Device;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

// Logits that stay on their device, as on a GPU.
fn on_device(values: &[f32], n_positions: usize, n_classes: usize) -> Logits<'static> {
    let n_rows = values.len() / (n_positions * n_classes);
    let data = TensorData::new(values.to_vec(), [n_rows * n_positions, n_classes]);
    Logits::of_part(Part::Device(Tensor::from_data(data, &Device::flex())), n_rows, n_positions)
}

fn stats(logits: &Logits, picks: &[PositionDraw], excluded: &[usize]) -> Vec<LogitStats> {
    let settings = DrawSettings::default();
    let query = |&draw: &PositionDraw| PositionQuery { draw, settings, stats: true, n_alternatives: 0, allowed: None };
    let queries: Vec<PositionQuery<'_>> = picks.iter().map(query).collect();
    let readings = finish(logits.read(&queries, excluded, Wait::Blocking)).unwrap();
    readings.into_iter().map(|reading| reading.stats).collect()
}

proptest! {
    #[test]
    fn logits_on_a_device_give_the_same_tokens(
        seed in any::<u64>(),
        n_classes in prop_oneof![2..40_usize, 250..270_usize, 500..1400_usize, 4000..6000_usize],
        spread in prop_oneof![Just(0.0_f32), Just(2.0), Just(9.0)],
        temperature in prop_oneof![Just(0.0), Just(1.0), Just(0.7), Just(1.9)],
        top_k in prop_oneof![Just(0_usize), Just(1), Just(5), Just(700), Just(100_000)],
        top_p in prop_oneof![Just(1.0), Just(0.9), Just(0.3), Just(0.999)],
    ) {
        let (n_rows, n_positions) = (2, 3);
        let mut rng = StdRng::seed_from_u64(seed);
        let values: Vec<f32> = (0..n_rows * n_positions * n_classes)
            .map(|_| spread * (rng.random_range(-1.0_f32..1.0) + rng.random_range(-1.0_f32..1.0)))
            .collect();
        let excluded = rng.random_range(0..n_classes);
        let settings = DrawSettings { temperature, top_k, top_p };
        let picks: Vec<PositionDraw> = [(0, 0), (0, 2), (1, 1), (1, 0)]
            .map(|(row, index)| PositionDraw { row, index, uniform: rng.random() })
            .to_vec();
        let host = Logits::from_host(values.clone(), n_positions, n_classes);
        let expected = host.draw(&picks, &[excluded], &settings).unwrap();
        let found = on_device(&values, n_positions, n_classes).draw(&picks, &[excluded], &settings).unwrap();
        for (a, b) in expected.iter().zip(&found) {
            prop_assert!(b.class != excluded && b.class < n_classes);
            // With equal logits rounding may move the boundary of the set that a cut keeps.
            let is_tie = spread == 0.0 && (top_k > 0 || top_p < 1.0);
            if a.margin.min(b.margin) > 1e-5 && !is_tie {
                prop_assert_eq!(a.class, b.class);
                prop_assert!((a.log_probability - b.log_probability).abs() < 1e-5);
                prop_assert!((a.margin - b.margin).abs() < 1e-4);
            }
        }
    }
}

#[test]
fn statistics_are_the_same_on_a_device() {
    let mut rng = StdRng::seed_from_u64(6);
    let mut values: Vec<f32> = (0..4 * 300).map(|_| rng.random_range(-8.0_f32..8.0)).collect();
    values[300..600].fill(1.5); // all equal: no margin, all the entropy
    let picks: Vec<PositionDraw> = (0..4).map(|index| PositionDraw { row: 0, index, uniform: 0.0 }).collect();
    let host = stats(&Logits::from_host(values.clone(), 4, 300), &picks, &[7]);
    let device = stats(&on_device(&values, 4, 300), &picks, &[7]);
    for (a, b) in host.iter().zip(&device) {
        assert!((a.margin - b.margin).abs() < 1e-5 && (a.entropy - b.entropy).abs() < 1e-4, "{a:?} {b:?}");
    }
    assert!(host[1].margin.abs() < 1e-12 && (host[1].entropy - 299.0_f64.ln()).abs() < 1e-9);
    let two = stats(&Logits::from_host(vec![0.75_f32.ln(), 0.25_f32.ln(), 9.0], 1, 3), &picks[..1], &[2])[0];
    assert!((two.margin - 0.5).abs() < 1e-6 && (two.entropy - 0.562_335).abs() < 1e-5, "{two:?}");
}

#[test]
fn a_heavy_tail_on_a_device_is_drawn_with_float64_statistics() {
    let n_classes = 50_001;
    let logits: Vec<f32> = (0..n_classes).map(|class| -1.05 * ((class + 1) as f32).ln()).collect();
    let weights: Vec<f64> = logits[..n_classes - 1].iter().map(|&logit| f64::from(logit).exp()).collect();
    let total: f64 = weights.iter().sum();
    let (n, mut rng) = (20_000, StdRng::seed_from_u64(5));
    let device = on_device(&logits, 1, n_classes);
    let mut counts = vec![0; n_classes];
    for _ in 0..n / 50 {
        let picks: Vec<PositionDraw> =
            (0..50).map(|_| PositionDraw { row: 0, index: 0, uniform: rng.random() }).collect();
        for drawn in device.draw(&picks, &[n_classes - 1], &DrawSettings::default()).unwrap() {
            counts[drawn.class] += 1;
        }
    }
    assert_eq!(counts[n_classes - 1], 0, "the mask is never drawn");
    for range in [0..1, 1..10, 10..100, 100..1000, 1000..5000, 5000..50_000] {
        let expected = f64::from(n) * weights[range.clone()].iter().sum::<f64>() / total;
        let found = f64::from(counts[range.clone()].iter().sum::<i32>());
        let error = (found - expected).abs() / expected.sqrt();
        assert!(error < 4.0, "classes {range:?}: {found} of {expected:.0} expected");
    }
    let last = |uniform| {
        let picks = [PositionDraw { row: 0, index: 0, uniform }];
        on_device(&[0.0, -24.0, -30.0, 9.0], 1, 4).draw(&picks, &[3], &DrawSettings::default()).unwrap()[0].class
    };
    assert_eq!([last(0.0), last(1.0 - 1e-11)], [0, 1]);
}

#[test]
fn of_equal_logits_the_lowest_class_wins_on_a_device_too() {
    let mut values = vec![0.0; 600];
    // In two blocks, and twice in one of them.
    for class in [300, 310, 590] {
        values[class] = 4.0;
    }
    let pick = [PositionDraw { row: 0, index: 0, uniform: 0.999 }];
    let plain = DrawSettings::default();
    for settings in [DrawSettings { temperature: 0.0, ..plain }, DrawSettings { top_k: 1, ..plain }] {
        for logits in [Logits::from_host(values.clone(), 1, 600), on_device(&values, 1, 600)] {
            assert_eq!(logits.draw(&pick, &[599], &settings).unwrap()[0].class, 300, "{settings:?}");
        }
    }
}

#[test]
fn logits_that_are_not_numbers_are_an_error_that_says_so() {
    let plain = DrawSettings::default();
    let cut = DrawSettings { top_k: 5, top_p: 0.9, ..plain };
    let pick = [PositionDraw { row: 0, index: 0, uniform: 0.5 }];
    for damaged in [f32::NAN, f32::INFINITY] {
        let mut values = vec![0.0; 3000];
        values[700] = damaged;
        for settings in [plain, DrawSettings { temperature: 0.0, ..plain }, cut] {
            for logits in [Logits::from_host(values.clone(), 1, 3000), on_device(&values, 1, 3000)] {
                let error = logits.draw(&pick, &[2999], &settings).unwrap_err();
                assert!(error.to_string().contains("not finite"), "{error}");
                // An excluded class may hold anything.
                assert!(logits.draw(&pick, &[2999, 700], &settings).is_ok());
            }
        }
    }
}

#[test]
fn logits_of_many_positions_are_computed_in_chunks_and_read_alike() {
    let (n_rows, n_positions, width, n_classes) = (3, 200, 5, 11);
    let mut rng = StdRng::seed_from_u64(9);
    let mut random = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.random_range(-1.0_f32..1.0)).collect() };
    let device = Device::flex();
    let hidden = random(n_rows * n_positions * width);
    let hidden = Tensor::<3>::from_data(TensorData::new(hidden, [n_rows, n_positions, width]), &device);
    let weight = Tensor::<3>::from_data(TensorData::new(random(width * n_classes), [1, width, n_classes]), &device);
    let head = |hidden: Tensor<3>| hidden.clone().matmul(weight.clone().expand([hidden.dims()[0], width, n_classes]));
    let whole = head(hidden.clone());
    let largest = std::cell::Cell::new(0);
    let counted = |hidden: Tensor<3>| {
        largest.set(largest.get().max(hidden.dims()[0] * hidden.dims()[1]));
        head(hidden)
    };
    let expected = Logits::new(whole.clone()).unwrap();
    let pick = |n: usize| PositionDraw { row: n % 3, index: (n * 7) % 200, uniform: (n as f64 + 0.5) / 600.0 };
    let picks: Vec<PositionDraw> = (0..600).rev().map(pick).collect();
    let settings = DrawSettings { top_k: 7, ..DrawSettings::default() };
    let expected = expected.draw(&picks, &[10, 0], &settings).unwrap();
    let parts = vec![(hidden.clone().narrow(0, 1, 2), vec![2, 0]), (hidden.clone().narrow(0, 0, 1), vec![1])];
    let swapped: Vec<PositionDraw> =
        picks.iter().map(|pick| PositionDraw { row: [1, 2, 0][pick.row], ..*pick }).collect();
    let found = [
        Logits::from_hidden(hidden.clone(), Box::new(counted)).draw(&picks, &[10, 0], &settings).unwrap(),
        Logits::from_hidden(hidden.clone(), Box::new(counted))
            .computed_everywhere()
            .draw(&picks, &[10, 0], &settings)
            .unwrap(),
        Logits::from_parts(parts, Box::new(counted)).draw(&swapped, &[10, 0], &settings).unwrap(),
    ];
    for found in found {
        for (a, b) in expected.iter().zip(&found) {
            assert!(a.class == b.class && (a.log_probability - b.log_probability).abs() < 1e-6, "{a:?} {b:?}");
        }
    }
    assert!(largest.get() > 0 && largest.get() <= 128, "{}", largest.get());
    // The same for a caller that wants all logits.
    let mut next = 0;
    for (range, logits) in logit_chunks(hidden, head) {
        assert_eq!(range.start, next);
        let expected = whole.clone().reshape([n_rows * n_positions, n_classes]).narrow(0, next, range.len());
        let difference: f32 = (logits - expected).abs().max().into_scalar();
        assert!(difference < 1e-6 && range.len() <= 128);
        next = range.end;
    }
    assert_eq!(next, 600);
}

#[test]
fn an_awaited_read_gives_what_a_blocking_read_gives() {
    let mut rng = StdRng::seed_from_u64(2);
    let values: Vec<f32> = (0..2 * 700).map(|_| rng.random_range(-3.0_f32..3.0)).collect();
    let settings = DrawSettings { top_p: 0.8, ..DrawSettings::default() };
    let queries: Vec<PositionQuery<'_>> = (0..2)
        .map(|index| PositionQuery {
            draw: PositionDraw { row: 0, index, uniform: 0.3 },
            settings,
            stats: true,
            n_alternatives: 3,
            allowed: None,
        })
        .collect();
    let logits = on_device(&values, 2, 700);
    let blocking = finish(logits.read(&queries, &[699], Wait::Blocking)).unwrap();
    // On this device a future is ready at once, too.
    let awaited = finish(logits.read(&queries, &[699], Wait::Async)).unwrap();
    for (a, b) in blocking.iter().zip(&awaited) {
        assert_eq!((a.token, a.stats, &a.alternatives), (b.token, b.stats, &b.alternatives));
        assert_eq!(a.alternatives.len(), 3);
    }
}

proptest! {
    #[test]
    fn a_draw_among_some_classes_is_the_same_on_host_and_device(
        seed in any::<u64>(),
        n_classes in prop_oneof![3..40_usize, 250..700_usize],
        n_allowed in 1..30_usize,
        temperature in prop_oneof![Just(0.0), Just(1.0), Just(0.7)],
        top_k in prop_oneof![Just(0_usize), Just(3)],
        top_p in prop_oneof![Just(1.0), Just(0.8)],
        has_absent in any::<bool>(),
    ) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut values: Vec<f32> = (0..2 * n_classes).map(|_| rng.random_range(-9.0_f32..9.0)).collect();
        let mut allowed: Vec<u32> = (0..n_allowed).map(|_| rng.random_range(0..n_classes as u32)).collect();
        allowed.sort_unstable();
        allowed.dedup();
        if has_absent {
            // The network gives the first of them no probability.
            values[allowed[0] as usize] = f32::NEG_INFINITY;
        }
        let excluded = [rng.random_range(0..n_classes)];
        let settings = DrawSettings { temperature, top_k, top_p };
        let query = |index: usize, uniform: f64, allowed| PositionQuery {
            draw: PositionDraw { row: 0, index, uniform }, settings, stats: true, n_alternatives: 2, allowed,
        };
        // Restricted and other draws of the same positions together.
        let uniforms: [f64; 4] = rng.random();
        let queries = [
            query(0, uniforms[0], Some(&allowed[..])), query(1, uniforms[1], None),
            query(1, uniforms[2], Some(&allowed[..])), query(0, uniforms[3], None),
        ];
        let read = |logits: Logits<'static>| finish(logits.read(&queries, &excluded, Wait::Blocking)).unwrap();
        let host = read(Logits::from_host(values.clone(), 2, n_classes));
        let device = read(on_device(&values, 2, n_classes));
        for ((host, device), query) in host.iter().zip(&device).zip(&queries) {
            let Some(allowed) = query.allowed else { continue };
            prop_assert_eq!((host.token, &host.alternatives), (device.token, &device.alternatives));
            let may_stand: Vec<u32> = allowed.iter().copied().filter(|&class| class as usize != excluded[0]).collect();
            prop_assert_eq!(host.token.is_some(), !may_stand.is_empty());
            // Their probability under all logits, by its definition.
            let logits = &values[query.draw.index * n_classes..][..n_classes];
            let weight = |class: usize| f64::from(logits[class]).exp();
            let total: f64 = (0..n_classes).filter(|&class| class != excluded[0]).map(weight).sum();
            let mass = may_stand.iter().map(|&class| weight(class as usize)).sum::<f64>() / total;
            prop_assert!((host.log_mass.exp() - mass).abs() < 1e-9 && host.log_mass == device.log_mass);
            if let Some(token) = host.token {
                prop_assert!(may_stand.contains(&(token.class as u32)));
                prop_assert!(host.stats == device.stats && host.stats.entropy >= -1e-9, "{:?}", host.stats);
                // Relative to the allowed classes, unless the network gives them no probability at all.
                let expected = weight(token.class) / total / mass;
                prop_assert!(mass == 0.0 || (token.log_probability.exp() - expected).abs() < 1e-6);
            }
        }
    }
}
