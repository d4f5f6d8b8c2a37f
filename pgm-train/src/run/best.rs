//! The lowest validation of a run.

use serde::{Deserialize, Serialize};

/// The lowest validation so far, as in `state.json`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BestValidation {
    /// Its step.
    pub step: usize,
    /// Its NELBO, nats per token.
    pub val_nelbo: f64,
    /// Validations since.
    pub since: usize,
}

impl BestValidation {
    /// Takes a validation into account. Returns whether it is the lowest so far; the first one is.
    pub(crate) fn observe(best: &mut Option<Self>, step: usize, val_nelbo: f64) -> bool {
        match best {
            Some(best) if val_nelbo >= best.val_nelbo => {
                best.since += 1;
                false
            }
            _ => {
                *best = Some(Self { step, val_nelbo, since: 0 });
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lower_validation_is_a_new_best() {
        let mut best = None;
        let mut observe = |step, nats| BestValidation::observe(&mut best, step, nats);
        assert!(observe(0, 5.0) && !observe(10, 5.0) && !observe(20, 5.5) && observe(30, 4.9) && !observe(40, 5.0));
        assert_eq!(best, Some(BestValidation { step: 30, val_nelbo: 4.9, since: 1 }));
    }
}
