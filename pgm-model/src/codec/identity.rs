//! A fingerprint of a codec, which its codes carry: another codec's codes would decode to noise.

use super::weights::Tensors;

// FNV-1a with 128 bits.
const BASIS: u128 = 0x6c62272e07bb014262b821756295c58d;
const PRIME: u128 = 0x0000000001000000000000000000013b;

fn add(hash: u128, bytes: &[u8]) -> u128 {
    bytes.iter().fold(hash, |hash, &byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

/// A hash of the configuration and all weights, in hexadecimal. It is the same for the same weights in another file.
pub(super) fn fingerprint(config: &[u8], tensors: &Tensors) -> String {
    let mut hash = add(BASIS, config);
    for (name, (shape, values)) in tensors {
        hash = add(hash, name.as_bytes());
        hash = shape.iter().fold(hash, |hash, &side| add(hash, &(side as u64).to_le_bytes()));
        hash = values.iter().fold(hash, |hash, value| add(hash, &value.to_le_bytes()));
    }
    format!("{hash:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv() {
        assert_eq!(fingerprint(b"", &Tensors::new()), "6c62272e07bb014262b821756295c58d");
        // The published test vector of the letter a.
        assert_eq!(fingerprint(b"a", &Tensors::new()), "d228cb696f1a8caf78912b704e4a8964");
    }

    #[test]
    fn a_changed_weight_or_shape_changes_the_hash() {
        let tensors = |shape: &[usize], last: f32| {
            Tensors::from([("w".to_string(), (shape.to_vec(), vec![1.0, 2.0, 3.0, last]))])
        };
        let hash = fingerprint(b"{}", &tensors(&[2, 2], 4.0));
        assert_eq!(hash, fingerprint(b"{}", &tensors(&[2, 2], 4.0)));
        for other in [tensors(&[4, 1], 4.0), tensors(&[2, 2], 4.000001)] {
            assert_ne!(hash, fingerprint(b"{}", &other));
        }
    }
}
