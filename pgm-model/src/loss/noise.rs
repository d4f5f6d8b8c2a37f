//! The log-linear noise schedule and the times of a batch.

/// The smallest time, and alpha at t = 1: `alpha_t = 1 - (1 - EPS) t`, so that some signal is always left.
pub const EPS: f64 = 1e-3;

/// Probability that a token falls into group 1 (is masked) at time `t`: `1 - alpha_t`.
pub fn masked_probability(t: f64) -> f64 {
    (1.0 - EPS) * t
}

/// Antithetic times of a batch of `n` rows from `n` uniforms: one in each of `n` equal parts of `[EPS, 1]`.
///
/// `n` must be the whole optimiser batch, not a micro-batch of it.
pub fn antithetic_times(uniforms: &[f64]) -> Vec<f64> {
    let n = uniforms.len() as f64;
    let spread = |(index, u): (usize, &f64)| EPS + (1.0 - EPS) * ((u / n + index as f64 / n) % 1.0);
    uniforms.iter().enumerate().map(spread).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn antithetic_times_fill_every_stratum_once() {
        let times = antithetic_times(&[0.9, 0.1, 0.5, 0.999]);
        for (index, t) in times.iter().enumerate() {
            let unit = (t - EPS) / (1.0 - EPS);
            assert!((index as f64 / 4.0..(index + 1) as f64 / 4.0).contains(&unit), "{t}");
        }
    }
}
