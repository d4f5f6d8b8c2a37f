//! Fused attention against the composed form.

use burn::tensor::{DType, Device, FloatDType, Tensor};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{cross_attention, self_attention};
use crate::Positions;
use crate::ops::testing::{Case, compare, devices, flat, labels};
use crate::rotary::{AngleTables, RotaryAngles};
use crate::visibility::{Visibility, set_labels};

const HEADS: usize = 3;

fn angles(n_rows: usize, n_tokens: usize, width: usize, seed: u64, device: &Device) -> RotaryAngles {
    let mut rng = StdRng::seed_from_u64(seed);
    let rows: Vec<Vec<usize>> = (0..n_rows).map(|_| (0..n_tokens).map(|_| rng.random_range(0..40)).collect()).collect();
    RotaryAngles::new(&AngleTables::new(width, 40), &Positions::new(&rows, &device.clone().without_autodiff()))
}

#[test]
fn attention_within_groups_equals_masked_attention() {
    // A mixed row, a row of one group, and lengths around the number of queries held at a time.
    let mixed: Vec<i32> = (0..131).map(|i| i32::from(i * 7 % 5 < 2)).collect();
    let (none, one): (Vec<i32>, Vec<i32>) = (vec![0; 131], (0..131).map(|i| i32::from(i == 60)).collect());
    // Tensor cores take the wider heads only.
    for (n_tokens, head_width) in [1, 7, 64, 131].into_iter().flat_map(|n| [4, 32, 64].map(|width| (n, width))) {
        let (shape, width) = ([3, n_tokens, 3 * HEADS * head_width], HEADS * head_width);
        for rule in ["all", "groups", "sets", "causal"] {
            let case = Case::new(6, &[&shape], 3 * n_tokens * width);
            case.check_matmul(&format!("self-attention, {n_tokens} x {head_width}, {rule}"), &|device, x| {
                let visibility = match rule {
                    "groups" => {
                        let all = labels(&[&mixed, &none, &one], device);
                        Some(Visibility::within(all.narrow(1, 0, n_tokens)))
                    }
                    "sets" => {
                        let all = labels(&[&mixed, &none, &one], device);
                        // Sets of different sizes; the last row's are as many as it has tokens.
                        let places = [5, 3, 131].map(|n| (0..131).map(|i| i * 37 % 131 % n).collect::<Vec<i32>>());
                        let places = labels(&places.each_ref().map(Vec::as_slice), device);
                        let all = set_labels(all, places);
                        Some(Visibility::within_sets(all.narrow(1, 0, n_tokens)))
                    }
                    "causal" => Some(Visibility::causal(n_tokens, n_tokens, device)),
                    _ => None,
                };
                let angles = angles(3, n_tokens, head_width, 5, device);
                flat(self_attention(x[0].clone().reshape(shape), &angles, visibility.as_ref(), HEADS, DType::F32))
            });
        }
    }
}

#[test]
fn attention_across_groups_equals_masked_attention_and_is_zero_for_a_query_without_keys() {
    for head_width in [6, 32, 64] {
        attention_across_groups(head_width);
    }
}

fn attention_across_groups(head_width: usize) {
    let (n_queries, n_keys, width) = (70, 9, HEADS * head_width);
    let some: Vec<i32> = (0..70).map(|i| i % 2).collect();
    let (zeros, unseen) = (vec![0; 9], vec![7; 9]);
    let shapes = [[3, n_queries, width], [3, n_keys, 2 * width]];
    let run = |device: &Device, q: Tensor<3>, kv: Tensor<1>, rows: usize, groups: bool| {
        let keys = labels(&[&[0, 1, 1, 0, 0, 1, 0, 0, 9], &zeros, &unseen], device);
        let visibility = Visibility::across(labels(&[&some, &some, &some], device), keys);
        let [query_angles, key_angles] =
            [(n_queries, 7), (n_keys, 8)].map(|(n, seed)| angles(rows, n, head_width, seed, device));
        let (angles, visibility) = ([&query_angles, &key_angles], groups.then_some(&visibility));
        flat(cross_attention(q, kv.reshape(shapes[1]), angles, visibility, HEADS, DType::F32))
    };
    let three_rows = |device: &Device, x: Vec<Tensor<1>>, groups: bool| {
        run(device, x[0].clone().reshape(shapes[0]), x[1].clone(), 3, groups)
    };
    let case = Case::new(9, &[&shapes[0], &shapes[1]], 3 * n_queries * width);
    // Queries of the first sets see nothing.
    case.check_matmul("cross-attention, sets", &|device, x| {
        let places: Vec<i32> = (0..70).map(|i| i % 6).collect();
        let queries = set_labels(labels(&[&some, &some, &some], device), labels(&[&places[..]; 3], device));
        let keys = labels(&[&[0, 1, 1, 0, 0, 1, 0, 0, 9], &zeros, &unseen], device);
        let keys = set_labels(keys, labels(&[&[3, 1, 5, 2, 4, 2, 1, 5, 0][..]; 3], device));
        let [query_angles, key_angles] =
            [(n_queries, 7), (n_keys, 8)].map(|(n, seed)| angles(3, n, head_width, seed, device));
        let (q, kv) = (x[0].clone().reshape(shapes[0]), x[1].clone().reshape(shapes[1]));
        let visibility = Visibility::across_sets(queries, keys);
        flat(cross_attention(q, kv, [&query_angles, &key_angles], Some(&visibility), HEADS, DType::F32))
    });
    case.check_matmul("cross-attention, groups", &|device, x| three_rows(device, x, true));
    case.check_matmul("cross-attention, all", &|device, x| three_rows(device, x, false));
    // As in training: queries and angles that all rows share.
    let shared = [1, n_queries, width];
    let shared_case = Case::new(14, &[&shared, &shapes[1]], 3 * n_queries * width);
    shared_case.check_matmul("cross-attention, queries of one row", &|device, x| {
        run(device, x[0].clone().reshape(shared).expand(shapes[0]), x[1].clone(), 1, true)
    });
    for device in devices() {
        let found = case.run(&device, FloatDType::F32, &|device, x| three_rows(device, x, true));
        let last = |values: &Vec<f64>| values[values.len() / 3 * 2..].iter().all(|value| *value == 0.0);
        assert!(found.iter().all(last), "the last row sees nothing");
    }
}

// As with `precision = "bf16"` or `--dtype f16`. Devices without tensor cores compute in float32.
#[test]
fn attention_in_half_precision_is_close_to_float32() {
    for (head_width, dtype) in [32, 64].into_iter().flat_map(|width| [DType::BF16, DType::F16].map(|d| (width, d))) {
        let (shape, width) = ([2, 150, 3 * HEADS * head_width], HEADS * head_width);
        let mixed: Vec<i32> = (0..150).map(|i| i32::from(i * 7 % 5 < 2)).collect();
        let attention = |matmul_dtype: DType| {
            let mixed = mixed.clone();
            move |device: &Device, x: Vec<Tensor<1>>| {
                let visibility = Visibility::within(labels(&[&mixed, &mixed], device));
                let angles = angles(2, 150, head_width, 5, device);
                flat(self_attention(x[0].clone().reshape(shape), &angles, Some(&visibility), HEADS, matmul_dtype))
            }
        };
        let case = Case::new(15, &[&shape], 2 * 150 * width);
        let composed = case.composed(&attention(DType::F32));
        for device in devices() {
            let half = case.run(&device, FloatDType::F32, &attention(dtype));
            compare(&format!("self-attention, {dtype:?}"), &device, &half, &composed, 3e-2);
        }
    }
}
