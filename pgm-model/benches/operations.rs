//! Each fused operation on Flex, alone and with its gradients: `cargo bench -p pgm-model --bench operations`.
//!
//! Sizes are those of a training step: 2048 tokens in 8 rows, hidden size 256, 4 heads, vocabulary 8192.
#![allow(missing_docs)] // functions that criterion's macros write

use std::hint::black_box;

use burn::tensor::{DType, Device, Distribution, Int, Tensor, module};
use criterion::{Criterion, criterion_group, criterion_main};
use pgm_model::ops::{self, AdamWStep};
use pgm_model::rotary::RotaryAngles;
use pgm_model::visibility::Visibility;

// The allocator of the commands.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: usize = 8;
const LENGTH: usize = 256;
const HIDDEN: usize = 256;
const HEADS: usize = 4;
const VOCAB: usize = 8192;

// The operation without gradients, then with those of all its inputs.
fn both<const N: usize>(c: &mut Criterion, name: &str, shapes: [&[usize]; N], f: impl Fn([Tensor<3>; N]) -> Tensor<1>) {
    let device = Device::flex();
    let inputs = shapes.map(|shape| {
        let [a, b, c] = std::array::from_fn(|i| shape.len().checked_sub(3 - i).map_or(1, |index| shape[index]));
        Tensor::<3>::random([a, b, c], Distribution::Uniform(-1.0, 1.0), &device)
    });
    c.bench_function(name, |bencher| bencher.iter(|| black_box(f(inputs.clone()))));
    c.bench_function(&format!("{name}, with gradients"), |bencher| {
        bencher.iter(|| {
            let inputs = inputs.clone().map(|input| input.autodiff().require_grad());
            let gradients = f(inputs.clone()).sum().backward();
            black_box(inputs.map(|input| input.grad(&gradients)))
        });
    });
}

fn flat(x: Tensor<3>) -> Tensor<1> {
    let n = x.shape().num_elements();
    x.reshape([n])
}

fn vector(x: Tensor<3>) -> Tensor<1> {
    flat(x)
}

fn groups(device: &Device) -> Tensor<2, Int> {
    Tensor::<2>::random([ROWS, LENGTH], Distribution::Uniform(0.0, 2.0), device).int()
}

fn operations(c: &mut Criterion) {
    let device = Device::flex();
    let stream = [ROWS, LENGTH, HIDDEN];
    let inner = [ROWS, LENGTH, 4 * HIDDEN];
    both(c, "bias_gelu", [&inner, &[4 * HIDDEN]], |[x, bias]| flat(ops::bias_gelu(x, vector(bias))));
    both(c, "layer_norm", [&stream, &[HIDDEN], &[HIDDEN]], |[x, weight, bias]| {
        flat(ops::layer_norm(x, vector(weight), vector(bias)))
    });
    both(c, "gated_sum", [&stream, &stream, &[HIDDEN]], |[x, branch, gate]| {
        flat(ops::gated_sum(x, branch, vector(gate)))
    });
    // Lower bounds: a matmul with many rows, one with few rows, which takes as long as reading the weight, and a copy
    // of 256 MiB.
    both(c, "matmul 2048 x 256 x 1024", [&stream, &[HIDDEN, 4 * HIDDEN]], |[x, w]| {
        flat(ops::matmul(x, w.reshape([HIDDEN, 4 * HIDDEN])))
    });
    let wide = Tensor::<2>::random([768, 50_258], Distribution::Uniform(-1.0, 1.0), &device);
    for n in [1, 32, 1024] {
        let x = Tensor::<3>::random([1, n, 768], Distribution::Uniform(-1.0, 1.0), &device);
        c.bench_function(&format!("matmul {n} x 768 x 50258"), |bencher| {
            bencher.iter(|| black_box(ops::matmul(x.clone(), wide.clone())));
        });
    }
    let (from, mut to) = (vec![1.0_f32; 1 << 26], vec![0.0_f32; 1 << 26]);
    c.bench_function("copy 256 MiB, one core", |bencher| {
        bencher.iter(|| black_box(&mut to).copy_from_slice(black_box(&from)));
    });
    drop((from, to));
    let tokens = Tensor::<1>::random([ROWS * LENGTH], Distribution::Uniform(0.0, VOCAB as f64), &device).int();
    both(c, "embedding 2048 of 8192 x 256", [&[VOCAB, HIDDEN]], |[table]| {
        flat(module::embedding(table.reshape([VOCAB, HIDDEN]), tokens.clone().reshape([ROWS, LENGTH])))
    });
    let angles = RotaryAngles::at_all(ROWS, LENGTH, HIDDEN / HEADS, &device);
    let labels = groups(&device);
    let within = Visibility::within(labels.clone());
    let across = Visibility::across(labels.clone(), labels.neg() + 1);
    both(c, "self_attention within groups", [&[ROWS, LENGTH, 3 * HIDDEN]], |[qkv]| {
        flat(ops::self_attention(qkv, &angles, Some(&within), HEADS, DType::F32))
    });
    both(c, "self_attention, all visible", [&[ROWS, LENGTH, 3 * HIDDEN]], |[qkv]| {
        flat(ops::self_attention(qkv, &angles, None, HEADS, DType::F32))
    });
    both(c, "cross_attention across groups", [&stream, &[ROWS, LENGTH, 2 * HIDDEN]], |[q, kv]| {
        flat(ops::cross_attention(q, kv, [&angles, &angles], Some(&across), HEADS, DType::F32))
    });
    let n = ROWS * LENGTH;
    let targets = Tensor::<1>::random([n], Distribution::Uniform(0.0, VOCAB as f64 - 1.0), &device).int();
    let weights = Tensor::<1>::ones([n], &device);
    both(c, "linear_cross_entropy", [&[n, HIDDEN], &[HIDDEN, VOCAB], &[VOCAB]], |[x, w, b]| {
        let (x, w) = (x.reshape([n, HIDDEN]), w.reshape([HIDDEN, VOCAB]));
        ops::linear_cross_entropy(x, w, vector(b), targets.clone(), weights.clone(), VOCAB - 1)
    });
    let random = || Tensor::<2>::random([HIDDEN, VOCAB], Distribution::Uniform(0.0, 1.0), &device);
    let (mut parameter, gradient, mut moments) = (random(), random(), [random(), random()]);
    let step = AdamWStep { rate: 1e-3, beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8, weight_decay: 0.0, number: 3 };
    c.bench_function("adamw", |bencher| {
        bencher.iter(|| {
            // The step works in place, as in training: no other tensor shares the memory.
            let taken = std::mem::replace(&mut parameter, Tensor::zeros([1, 1], &device));
            let taken_moments = std::mem::replace(&mut moments, [0, 1].map(|_| Tensor::zeros([1, 1], &device)));
            (parameter, moments) = ops::adamw(taken, gradient.clone(), taken_moments, step);
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = operations
}
criterion_main!(benches);
