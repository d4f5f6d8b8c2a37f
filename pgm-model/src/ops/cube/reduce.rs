//! Reductions of a row by one cube: each unit reduces its share, then halves of the shared memory are folded.

use cubecl::prelude::*;

/// Units of a cube that reduces a row; a power of two.
pub(crate) const UNITS: u32 = 128;

/// The number of this cube in a grid of two dimensions.
#[cube]
pub(crate) fn cube_index() -> usize {
    CUBE_POS_Y as usize * CUBE_COUNT_X as usize + CUBE_POS_X as usize
}

/// The sum of all units' values, in every unit.
#[cube]
pub(crate) fn cube_sum(value: f32, shared: &mut Shared<[f32]>) -> f32 {
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    let mut half = ((UNITS / 2) as usize).runtime();
    while half > 0 {
        if unit < half {
            let sum = shared[unit] + shared[unit + half];
            shared[unit] = sum;
        }
        sync_cube();
        half /= 2;
    }
    let sum = shared[0];
    sync_cube();
    sum
}

/// The largest of all units' values, in every unit.
#[cube]
pub(crate) fn cube_max(value: f32, shared: &mut Shared<[f32]>) -> f32 {
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    let mut half = ((UNITS / 2) as usize).runtime();
    while half > 0 {
        if unit < half {
            let max = shared[unit].max(shared[unit + half]);
            shared[unit] = max;
        }
        sync_cube();
        half /= 2;
    }
    let max = shared[0];
    sync_cube();
    max
}
