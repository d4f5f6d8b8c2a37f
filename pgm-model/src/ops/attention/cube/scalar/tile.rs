//! Shared parts of the scalar kernels: rotated vectors, and the side that streams through shared memory.
#![allow(clippy::too_many_arguments)]

use cubecl::prelude::*;

use super::super::layout::{Layout, angle_start, label_at, token_at};

/// Units of a cube: tokens of the side that stays in registers.
pub(crate) const TILE: u32 = 64;

/// Tokens of the side that streams through shared memory: two vectors each, 8 KiB.
pub(crate) fn streamed_tokens(head_width: usize) -> usize {
    (1024 / head_width).clamp(1, 64)
}

/// Element `i` of both halves of a head's vector, rotated by the token's angles: real and imaginary part.
#[cube]
pub(crate) fn load_rotated(
    x: &[f32],
    start: usize,
    angles: &[f32],
    angle: usize,
    i: usize,
    #[comptime] half: usize,
) -> (f32, f32) {
    let (real, imaginary) = (x[start + i], x[start + half + i]);
    let (cos, sin) = (angles[angle + i], angles[angle + half + i]);
    (real * cos - imaginary * sin, imaginary * cos + real * sin)
}

/// Loads rotated keys and values from place `first` on into shared memory.
#[cube]
pub(crate) fn load_keys(
    kv: &[f32],
    k_angles: &[f32],
    k_sorted: &[i32],
    row: usize,
    head: usize,
    n_keys: usize,
    first: usize,
    n_loaded: usize,
    keys: &mut Shared<[f32]>,
    values: &mut Shared<[f32]>,
    tokens: &mut Shared<[i32]>,
    labels: &mut Shared<[i32]>,
    #[comptime] layout: Layout,
) {
    let d = comptime!(layout.head_width);
    let half = comptime!(layout.head_width / 2);
    let (k_row, k_first) = comptime!((layout.rows[1], layout.firsts[1]));
    let (v_row, v_first) = comptime!((layout.rows[2], layout.firsts[2]));
    let shared = comptime!(layout.shared_angles[1]);
    let mut index = UNIT_POS as usize;
    while index < n_loaded * half {
        let (slot, i) = (index / half, index % half);
        let key = token_at(k_sorted, row, n_keys, first + slot, layout.labelled) as usize;
        let token = row * n_keys + key;
        let angle = angle_start(row, key, n_keys, d, shared);
        let (real, imaginary) = load_rotated(kv, token * k_row + k_first + head * d, k_angles, angle, i, half);
        keys[slot * d + i] = real;
        keys[slot * d + half + i] = imaginary;
        let start = token * v_row + v_first + head * d;
        values[slot * d + i] = kv[start + i];
        values[slot * d + half + i] = kv[start + half + i];
        if i == 0 {
            tokens[slot] = key as i32;
            labels[slot] = label_at(k_sorted, row, n_keys, first + slot, layout.labelled);
        }
        index += TILE as usize;
    }
}
