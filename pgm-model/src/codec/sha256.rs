//! SHA-256 (FIPS 180-4), for the identity of a codec's weights. This crate has no dependency that computes it.

const ROUNDS: usize = 64;

// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
fn constants() -> [u32; ROUNDS] {
    let mut constants = [0; ROUNDS];
    let mut next = 0;
    let mut candidate = 2_u64;
    while next < ROUNDS {
        if (2..candidate).take_while(|divisor| divisor * divisor <= candidate).all(|divisor| candidate % divisor != 0) {
            constants[next] = fraction_bits(|root| root * root * root, candidate);
            next += 1;
        }
        candidate += 1;
    }
    constants
}

// 32 bits of the fractional part of the number whose power is `of`, by bisection in fixed point.
fn fraction_bits(power: impl Fn(u128) -> u128, of: u64) -> u32 {
    // A root in units of 2^-32; cubes of it are below 2^128 for the primes in use.
    let degree = if power(2) == 4 { 2 } else { 3 };
    let target = u128::from(of) << (32 * degree);
    let (mut low, mut high) = (0_u128, 32_u128 << 32);
    while high - low > 1 {
        let middle = low.midpoint(high);
        if power(middle) <= target { low = middle } else { high = middle }
    }
    low as u32
}

/// A running hash.
pub(super) struct Sha256 {
    state: [u32; 8],
    constants: [u32; ROUNDS],
    // Bytes that do not fill a block yet.
    rest: Vec<u8>,
    n_bytes: u64,
}

impl Sha256 {
    pub(super) fn new() -> Self {
        let primes = [2, 3, 5, 7, 11, 13, 17, 19];
        let state = primes.map(|prime| fraction_bits(|root| root * root, prime));
        Self { state, constants: constants(), rest: Vec::new(), n_bytes: 0 }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.n_bytes += bytes.len() as u64;
        let mut bytes = bytes;
        if !self.rest.is_empty() {
            let n = (64 - self.rest.len()).min(bytes.len());
            self.rest.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if self.rest.len() < 64 {
                return;
            }
            let block: [u8; 64] = self.rest[..].try_into().expect("a whole block");
            self.block(&block);
            self.rest.clear();
        }
        let (blocks, rest) = bytes.as_chunks::<64>();
        blocks.iter().for_each(|block| self.block(block));
        self.rest.extend_from_slice(rest);
    }

    /// The hash in hexadecimal.
    pub(super) fn finish(mut self) -> String {
        let n_bits = self.n_bytes * 8;
        let n_zeros = (119 - self.rest.len() % 64) % 64;
        let mut end = vec![0x80];
        end.resize(1 + n_zeros, 0);
        end.extend(n_bits.to_be_bytes());
        self.update(&end);
        self.state.iter().map(|word| format!("{word:08x}")).collect()
    }

    fn block(&mut self, block: &[u8; 64]) {
        let mut words = [0_u32; ROUNDS];
        for (word, bytes) in words.iter_mut().zip(block.as_chunks::<4>().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        for i in 16..ROUNDS {
            let (a, b) = (words[i - 15], words[i - 2]);
            let a = a.rotate_right(7) ^ a.rotate_right(18) ^ (a >> 3);
            let b = b.rotate_right(17) ^ b.rotate_right(19) ^ (b >> 10);
            words[i] = words[i - 16].wrapping_add(a).wrapping_add(words[i - 7]).wrapping_add(b);
        }
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = self.state;
        for (word, constant) in words.iter().zip(self.constants) {
            let sum = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
            let choice = (e & f) ^ (!e & g);
            let one = h.wrapping_add(sum).wrapping_add(choice).wrapping_add(constant).wrapping_add(*word);
            let sum = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
            let two = sum.wrapping_add((a & b) ^ (a & c) ^ (b & c));
            (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(one), c, b, a, one.wrapping_add(two));
        }
        for (state, word) in self.state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *state = state.wrapping_add(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_standard_come_out() {
        let hash = |parts: &[&[u8]]| {
            let mut hasher = Sha256::new();
            parts.iter().for_each(|part| hasher.update(part));
            hasher.finish()
        };
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash(&[b"abc"]), abc);
        assert_eq!(hash(&[b"a", b"", b"bc"]), abc);
        assert_eq!(hash(&[]), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let long = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(hash(&[long]), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
        let million = vec![b'a'; 1_000_000];
        assert_eq!(
            hash(&[&million[..77], &million[77..]]),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
        );
    }
}
