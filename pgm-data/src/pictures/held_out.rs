//! Which pictures of a series are held out for validation.

use crate::mix::mix;

/// Whether the picture of that number, from 0, is held out: one of each 1 / `fraction` pictures that follow each other, so that
/// sorted inputs give each class its share, and at a random place among them, so that classes that alternate do, too.
pub(crate) fn is_held_out(number: u64, fraction: f64) -> bool {
    if fraction <= 0.0 {
        return false;
    }
    let block_of = |number: u64| (number as f64 * fraction) as u64;
    // The first number of a block.
    let start_of = |block: u64| {
        let mut number = (block as f64 / fraction) as u64;
        while block_of(number) < block {
            number += 1;
        }
        while number > 0 && block_of(number - 1) >= block {
            number -= 1;
        }
        number
    };
    let block = block_of(number);
    let (start, end) = (start_of(block), start_of(block + 1));
    start + mix(block) % (end - start) == number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_gives_its_share_whether_classes_follow_or_alternate() {
        for fraction in [0.05, 0.1, 0.3, 0.5, 0.9] {
            let held_out: Vec<u64> = (0..4000).filter(|&number| is_held_out(number, fraction)).collect();
            assert_eq!(held_out.len(), (4000.0 * fraction) as usize, "{fraction}");
            for n_classes in [2, 4, 5, 10, 20] {
                let share = held_out.len() as f64 / n_classes as f64;
                for class in 0..n_classes {
                    let alternating = held_out.iter().filter(|&&number| number % n_classes == class).count();
                    assert!(alternating as f64 > 0.1 * share, "{fraction} {n_classes} {class}: {alternating}");
                    let sorted = held_out.iter().filter(|&&number| number * n_classes / 4000 == class).count();
                    assert!((sorted as f64 - share).abs() <= 1.0, "{fraction} {n_classes} {class}: {sorted}");
                }
            }
        }
        assert_eq!((0..40).filter(|&number| is_held_out(number, 0.0)).count(), 0);
    }
}
