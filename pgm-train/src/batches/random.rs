//! Random streams: one for each purpose and index, so that nothing drawn depends on what was drawn before.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

pub(crate) const TRAINING: u64 = 1;
pub(crate) const VALIDATION: u64 = 2;
pub(crate) const VALIDATION_GROUPS: u64 = 3;
pub(crate) const DROPOUT: u64 = 4;
pub(crate) const DISTILLATION: u64 = 5;
pub(crate) const EVALUATION: u64 = 6;
pub(crate) const EVALUATION_GROUPS: u64 = 7;
pub(crate) const CLASSES: u64 = 8;
/// Validation draws the same times and groups whatever the run's seed, so that runs can be compared.
pub(crate) const VALIDATION_SEED: u64 = 0x5eed;

/// The random stream of one purpose (a constant of this file) at one index (a step, a row).
pub(crate) fn stream(seed: u64, purpose: u64, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, number) in key.chunks_mut(8).zip([seed, purpose, index]) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}
