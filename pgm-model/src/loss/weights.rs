//! The weights of tokens in the objectives.

/// Weight of a token of group 1, `-alpha'_t / (1 - alpha_t) = 1/t`.
pub fn masked_weight(t: f64) -> f64 {
    1.0 / t
}

/// Weight of a token of group 0, `w(1 - t) = 1 / max(1 - t, floor)`. With floor 0 it has no bound, as in the public code.
pub fn unmasked_weight(t: f64, floor: f64) -> f64 {
    1.0 / (1.0 - t).max(floor)
}

/// The weights of one row in the partition objective, `weight / 2` for each token.
pub fn partition_weights(t: f64, in_group_one: &[bool], floor: f64) -> impl Iterator<Item = f64> {
    let [zero, one] = [unmasked_weight(t, floor) / 2.0, masked_weight(t) / 2.0];
    in_group_one.iter().map(move |&in_group_one| if in_group_one { one } else { zero })
}

/// The weights of one row in MDLM's NELBO: `w(t)` for masked tokens, 0 for the others. It is the masked model's training
/// loss and the validation loss of both models.
pub fn nelbo_weights(t: f64, in_group_one: &[bool]) -> impl Iterator<Item = f64> {
    let one = masked_weight(t);
    in_group_one.iter().map(move |&in_group_one| if in_group_one { one } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::EPS;

    #[test]
    fn weights_are_bounded_by_the_floor_and_only_by_it() {
        assert_eq!(unmasked_weight(1.0, EPS), 1000.0);
        assert_eq!(unmasked_weight(1.0, 0.0), f64::INFINITY);
        assert_eq!(unmasked_weight(0.25, EPS), 1.0 / 0.75);
        let row: Vec<f64> = partition_weights(0.25, &[true, false], EPS).collect();
        assert_eq!(row, [2.0, 0.5 / 0.75]);
        assert_eq!(nelbo_weights(0.25, &[true, false]).collect::<Vec<_>>(), [4.0, 0.0]);
    }
}
