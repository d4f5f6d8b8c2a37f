//! The ranges of the fields that say how tokens are drawn.

use super::parse::BodyError;

/// The largest seed: the largest integer that a JavaScript number holds exactly.
pub const MAX_SEED: u64 = (1 << 53) - 1;
/// The most tokens that `top_k` keeps, and the most positions of `candidates`.
const MAX_COUNT: usize = 1_000_000;

/// The fields of a body that say how tokens are drawn.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SamplerFields {
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<usize>,
    pub seed: Option<i64>,
    pub steps: Option<usize>,
    pub candidates: Option<usize>,
    pub entropy_bound: Option<f64>,
    pub remask_rate: Option<f64>,
}

impl SamplerFields {
    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the first field that is out of its range.
    pub fn check(&self) -> Result<(), BodyError> {
        let wrong = |name: &'static str, range: &str| Err(BodyError::field(name, format!("{name} must {range}")));
        if self.temperature.is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
            return wrong("temperature", "lie between 0 and 2");
        }
        if self.top_p.is_some_and(|top_p| !(top_p > 0.0 && top_p <= 1.0)) {
            return wrong("top_p", "be above 0 and at most 1");
        }
        if self.seed.is_some_and(|seed| !(-1..=MAX_SEED as i64).contains(&seed)) {
            return wrong("seed", &format!("lie between 0 and {MAX_SEED}, or be -1 for a random one"));
        }
        if self.steps == Some(0) {
            return wrong("steps", "be at least 1");
        }
        if self.top_k.is_some_and(|k| k > MAX_COUNT) {
            return wrong("top_k", &format!("be at most {MAX_COUNT}"));
        }
        if self.candidates.is_some_and(|count| !(1..=MAX_COUNT).contains(&count)) {
            return wrong("candidates", &format!("lie between 1 and {MAX_COUNT}"));
        }
        if self.entropy_bound.is_some_and(|bound| !(bound >= 0.0 && bound.is_finite())) {
            return wrong("entropy_bound", "be at least 0");
        }
        if self.remask_rate.is_some_and(|rate| !(0.0..=1.0).contains(&rate)) {
            return wrong("remask_rate", "lie between 0 and 1");
        }
        Ok(())
    }

    /// The seed; none where the server is to draw one.
    pub fn seed(&self) -> Option<u64> {
        self.seed.and_then(|seed| u64::try_from(seed).ok())
    }
}
