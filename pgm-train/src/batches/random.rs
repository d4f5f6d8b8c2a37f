//! Random streams: one for each purpose and index, so that nothing drawn depends on what was drawn before.

pub(crate) use pgm_infer::score::draws::{EVALUATION_GROUPS, stream};

pub(crate) const TRAINING: u64 = 1;
pub(crate) const VALIDATION: u64 = 2;
pub(crate) const VALIDATION_GROUPS: u64 = 3;
pub(crate) const DROPOUT: u64 = 4;
pub(crate) const DISTILLATION: u64 = 5;
// 7 is `EVALUATION_GROUPS`.
pub(crate) const EVALUATION: u64 = 6;
pub(crate) const CLASSES: u64 = 8;
pub(crate) const SETS: u64 = 9;
pub(crate) const VALIDATION_SETS: u64 = 10;
// 11 and 12 are `EVALUATION_SETS` and `ONE_PASS_ORDERS`.
pub(crate) const CONVERSION: u64 = 13;
/// Validation draws the same times and groups whatever the run's seed, so that runs can be compared.
pub(crate) const VALIDATION_SEED: u64 = 0x5eed;
