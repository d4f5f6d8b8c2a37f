//! The categorical draw, with float64 statistics whatever the device computes in.
//!
//! Gumbel noise in float32 cannot reach the tail of a distribution and so lowers the entropy of samples
//! (arXiv 2409.02908). Here the inverse of the cumulative distribution is taken in float64 with a uniform of 53 bits,
//! which costs one exponential for each class and one random number for each token. `sample/logits/device.rs` says which
//! part runs on a device.

use pgm_model::ops::exponentials;

use crate::InferError;

/// Weights whose sum is taken at once: the uniform first finds its block, then its class.
const BLOCK: usize = 512;

/// How a token is drawn from logits: temperature first, then top-k, then top-p.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DrawSettings {
    /// Divides the logits; 0 takes the most probable token.
    pub temperature: f64,
    /// Keeps the k most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the smallest set of most probable tokens that holds this probability; 1 keeps all.
    pub top_p: f64,
}

impl Default for DrawSettings {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0 }
    }
}

impl DrawSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`InferError::Setting`] naming the flag.
    pub fn validate(&self) -> Result<(), InferError> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            let value = self.temperature.to_string();
            return Err(InferError::Setting { name: "--temp", value, problem: "must be 0 or a positive number" });
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            let value = self.top_p.to_string();
            return Err(InferError::Setting { name: "--top-p", value, problem: "must be above 0 and at most 1" });
        }
        Ok(())
    }
}

/// A drawn token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DrawnToken {
    /// The class.
    pub class: usize,
    /// Its log-probability before temperature, top-k and top-p, in nats.
    pub log_probability: f64,
    /// Distance of the uniform from the nearest boundary of the class in the cumulative distribution; at temperature 0
    /// one minus the ratio of the second-best probability to the best. Below 1e-5 rounding may decide. The margin does not
    /// show how close a class is to the edge of what top-k or top-p keeps.
    pub margin: f64,
}

/// Draws classes from logits. It keeps scratch memory between calls.
#[derive(Debug, Default)]
pub struct Categorical {
    weights: Vec<f64>,
    order: Vec<u32>,
}

impl Categorical {
    /// The class at `uniform` (in `[0, 1)`) of the cumulative distribution, without the classes `excluded`. Temperature 0
    /// takes the most probable class; of equal logits the lowest class wins, there and where top-k and top-p cut.
    ///
    /// None if no token can be drawn: a logit is NaN or +inf, or every class is excluded or -inf.
    pub fn draw(
        &mut self,
        logits: &[f32],
        excluded: &[usize],
        settings: &DrawSettings,
        uniform: f64,
    ) -> Option<DrawnToken> {
        self.draw_among(logits, excluded, settings, uniform, None)
    }

    /// As [`draw`](Self::draw) from the logits of the most probable classes alone. `total` is the sum of
    /// exp((logit - best) / temperature) over all classes, also those that are not given; top-p keeps a share of it.
    pub(crate) fn draw_among(
        &mut self,
        logits: &[f32],
        excluded: &[usize],
        settings: &DrawSettings,
        uniform: f64,
        total: Option<f64>,
    ) -> Option<DrawnToken> {
        let best = most_probable(logits, excluded)?;
        self.weigh(logits, excluded, logits[best], 1.0);
        let sum = sum(&self.weights);
        if !sum.is_finite() {
            return None;
        }
        let log_total = sum.ln();
        let (class, margin) = if settings.temperature == 0.0 {
            let others = self.weights.iter().enumerate().filter(|(class, _)| *class != best);
            (best, 1.0 - others.map(|(_, weight)| *weight).fold(0.0, f64::max))
        } else {
            if settings.temperature != 1.0 {
                // The inverse of the smallest temperatures is infinite.
                self.weigh(logits, excluded, logits[best], (1.0 / settings.temperature).min(f64::MAX));
            }
            self.cut(settings, total);
            self.invert(uniform, best)
        };
        let log_probability = f64::from(logits[class]) - f64::from(logits[best]) - log_total;
        Some(DrawnToken { class, log_probability, margin })
    }

    // Sets the weights to exp(scale (logit - largest)), those of excluded classes to 0.
    fn weigh(&mut self, logits: &[f32], excluded: &[usize], largest: f32, scale: f64) {
        self.weights.resize(logits.len(), 0.0);
        exponentials(logits, largest, scale, &mut self.weights);
        for &class in excluded.iter().filter(|&&class| class < logits.len()) {
            self.weights[class] = 0.0;
        }
    }

    // Sets the weights that top-k and top-p leave out to zero. Of equal weights the lower class stays.
    fn cut(&mut self, settings: &DrawSettings, total: Option<f64>) {
        let n_classes = self.weights.len();
        let by_k = settings.top_k > 0 && settings.top_k < n_classes;
        if !by_k && settings.top_p >= 1.0 {
            return;
        }
        let weights = &mut self.weights;
        self.order.clear();
        self.order.extend(0..n_classes as u32);
        let larger_first =
            |weights: &[f64], a: u32, b: u32| weights[b as usize].total_cmp(&weights[a as usize]).then(a.cmp(&b));
        if by_k {
            self.order.select_nth_unstable_by(settings.top_k - 1, |&a, &b| larger_first(weights, a, b));
            self.order.drain(settings.top_k..).for_each(|class| weights[class as usize] = 0.0);
        }
        if settings.top_p < 1.0 {
            self.order.sort_unstable_by(|&a, &b| larger_first(weights, a, b));
            let kept = || sum(weights);
            let wanted = settings.top_p * total.filter(|_| !by_k).unwrap_or_else(kept);
            let mut held = 0.0;
            for &class in &self.order {
                if held >= wanted {
                    weights[class as usize] = 0.0;
                } else {
                    held += weights[class as usize];
                }
            }
        }
    }

    // The class, and the distance of the uniform from the nearer end of its interval.
    fn invert(&self, uniform: f64, fallback: usize) -> (usize, f64) {
        let total = sum(&self.weights);
        let target = uniform * total;
        let (mut cumulative, mut first) = (0.0, 0);
        for block in self.weights.chunks(BLOCK) {
            let above = cumulative + sum_of_block(block);
            if above > target {
                break;
            }
            (cumulative, first) = (above, first + block.len());
        }
        // Rounding may leave the sum of a block's classes just below that of the block; then the next class is drawn.
        for (class, weight) in self.weights.iter().enumerate().skip(first) {
            cumulative += weight;
            if cumulative > target && *weight > 0.0 {
                let below = target - (cumulative - weight);
                return (class, below.min(cumulative - target).max(0.0) / total);
            }
        }
        // Reached only when rounding leaves the sum just below the target.
        (fallback, 0.0)
    }
}

/// The sum of weights, block by block.
pub(crate) fn sum(weights: &[f64]) -> f64 {
    weights.chunks(BLOCK).map(sum_of_block).sum()
}

// Partial sums, which the processor adds side by side.
fn sum_of_block(weights: &[f64]) -> f64 {
    const LANES: usize = 16;
    let mut sums = [0.0; LANES];
    let (whole, rest) = weights.as_chunks::<LANES>();
    for weights in whole {
        for (sum, weight) in sums.iter_mut().zip(weights) {
            *sum += weight;
        }
    }
    sums.iter().sum::<f64>() + rest.iter().sum::<f64>()
}

/// The class of the largest logit, of equal logits the lowest class. NaN is never the largest.
fn most_probable(logits: &[f32], excluded: &[usize]) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (block, of_block) in logits.chunks(BLOCK).enumerate() {
        // Most blocks hold no larger logit.
        if best.is_some_and(|best| largest(of_block) <= logits[best]) {
            continue;
        }
        for (class, logit) in (block * BLOCK..).zip(of_block) {
            if best.is_none_or(|best| *logit > logits[best]) && !excluded.contains(&class) {
                best = Some(class);
            }
        }
    }
    best
}

// The largest logit that is a number, or -inf.
fn largest(logits: &[f32]) -> f32 {
    const LANES: usize = 16;
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut maxima = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = logits.as_chunks::<LANES>();
    for logits in whole {
        for (max, logit) in maxima.iter_mut().zip(logits) {
            *max = larger(*max, *logit);
        }
    }
    maxima.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, larger)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    fn count(logits: &[f32], settings: DrawSettings, n: usize) -> Vec<usize> {
        let (mut drawer, mut rng) = (Categorical::default(), StdRng::seed_from_u64(5));
        let mut counts = vec![0; logits.len()];
        for _ in 0..n {
            counts[drawer.draw(logits, &[logits.len() - 1], &settings, rng.random()).unwrap().class] += 1;
        }
        counts
    }

    #[test]
    fn a_heavy_tail_of_50k_classes_is_drawn_with_float64_statistics() {
        // p(c) ~ (c + 1)^-1.05: the last 45,000 classes hold a sixth of the mass, each less than 2e-5.
        let n_classes = 50_001;
        let logits: Vec<f32> = (0..n_classes).map(|class| -1.05 * ((class + 1) as f32).ln()).collect();
        let weights: Vec<f64> = logits[..n_classes - 1].iter().map(|&logit| f64::from(logit).exp()).collect();
        let total: f64 = weights.iter().sum();
        let n = 20_000;
        let counts = count(&logits, DrawSettings::default(), n);
        assert_eq!(counts[n_classes - 1], 0, "the mask is never drawn");
        for range in [0..1, 1..10, 10..100, 100..1000, 1000..5000, 5000..50_000] {
            let expected = n as f64 * weights[range.clone()].iter().sum::<f64>() / total;
            let found = counts[range.clone()].iter().sum::<usize>() as f64;
            let error = (found - expected).abs() / expected.sqrt();
            assert!(error < 4.0, "classes {range:?}: {found} of {expected:.0} expected");
        }
        // Mean surprise estimates the entropy; its standard error is below 0.03 nats here.
        let entropy: f64 = weights.iter().map(|w| -(w / total) * (w / total).ln()).sum();
        let surprise =
            (0..n_classes - 1).map(|c| counts[c] as f64 * -(weights[c] / total).ln()).sum::<f64>() / n as f64;
        assert!((surprise - entropy).abs() < 0.12, "{surprise} against {entropy}");
    }

    #[test]
    fn the_uniform_reaches_classes_below_the_resolution_of_float32() {
        let logits = [0.0, -24.0, -30.0, 9.0];
        let mut drawer = Categorical::default();
        let mut class = |uniform| drawer.draw(&logits, &[3], &DrawSettings::default(), uniform).unwrap().class;
        assert_eq!(class(0.0), 0);
        assert_eq!(class(1.0 - 2.0_f64.powi(-53)), 2, "the last class has probability 9e-14");
        assert_eq!(class(1.0 - 1e-11), 1, "the middle one 4e-11");
    }

    #[test]
    fn temperature_top_k_and_top_p_keep_the_right_classes() {
        let logits = [0.5_f32.ln(), 0.3_f32.ln(), 0.15_f32.ln(), 0.05_f32.ln(), 3.0];
        let support = |settings| -> Vec<usize> {
            let counts = count(&logits, settings, 4000);
            (0..4).filter(|&class| counts[class] > 0).collect()
        };
        let base = DrawSettings::default();
        assert_eq!(support(base), [0, 1, 2, 3]);
        assert_eq!(support(DrawSettings { temperature: 0.0, ..base }), [0]);
        assert_eq!(support(DrawSettings { top_k: 2, ..base }), [0, 1]);
        assert_eq!(support(DrawSettings { top_p: 0.79, ..base }), [0, 1]);
        assert_eq!(support(DrawSettings { top_p: 0.81, ..base }), [0, 1, 2]);
        assert_eq!(support(DrawSettings { top_p: 1e-9, ..base }), [0]);
        // At temperature 1/2 probabilities are squared: 0.25 of 0.365.
        let counts = count(&logits, DrawSettings { temperature: 0.5, ..base }, 20_000);
        assert!((counts[0] as f64 / 20_000.0 - 0.25 / 0.365).abs() < 0.015, "{counts:?}");
    }

    #[test]
    fn the_log_probability_is_the_models_own() {
        let logits = [0.25_f32.ln(), 0.75_f32.ln(), 5.0];
        let settings = DrawSettings { temperature: 0.0, ..DrawSettings::default() };
        let drawn = Categorical::default().draw(&logits, &[2], &settings, 0.9).unwrap();
        assert_eq!(drawn.class, 1);
        assert!((drawn.log_probability - 0.75_f64.ln()).abs() < 1e-7);
        assert!((drawn.margin - 2.0 / 3.0).abs() < 1e-6);
        let drawn = Categorical::default().draw(&logits, &[2], &DrawSettings::default(), 0.9).unwrap();
        assert!(drawn.class == 1 && (drawn.margin - 0.1).abs() < 1e-6, "{drawn:?}");
    }

    #[test]
    fn of_equal_logits_the_lowest_class_wins_under_every_setting() {
        let logits = [1.0, 2.0, 2.0, 7.0, 2.0];
        let plain = DrawSettings::default();
        for settings in [DrawSettings { temperature: 0.0, ..plain }, DrawSettings { top_k: 1, ..plain }] {
            let drawn = Categorical::default().draw(&logits, &[3], &settings, 0.99).unwrap();
            assert_eq!(drawn.class, 1, "{settings:?}");
        }
    }

    #[test]
    fn several_classes_can_be_excluded() {
        let logits = [5.0, 1.0, 9.0, 0.0];
        let mut drawer = Categorical::default();
        for settings in [DrawSettings::default(), DrawSettings { temperature: 0.0, ..DrawSettings::default() }] {
            for uniform in [0.0, 0.4, 0.999] {
                let drawn = drawer.draw(&logits, &[2, 0], &settings, uniform).unwrap();
                assert!(drawn.class == 1 || drawn.class == 3, "{drawn:?}");
                let total = (1.0_f64.exp() + 1.0).ln();
                assert!((drawn.log_probability - (f64::from(logits[drawn.class]) - total)).abs() < 1e-7);
            }
        }
        assert_eq!(drawer.draw(&logits, &[0, 1, 2, 3], &DrawSettings::default(), 0.5), None);
    }

    #[test]
    fn nothing_is_drawn_from_logits_that_are_not_numbers() {
        let draw = |logits: &[f32], settings: DrawSettings| Categorical::default().draw(logits, &[3], &settings, 0.5);
        let (nan, infinity) = (f32::NAN, f32::INFINITY);
        let plain = DrawSettings::default();
        for settings in
            [plain, DrawSettings { temperature: 0.0, ..plain }, DrawSettings { top_k: 1, top_p: 0.5, ..plain }]
        {
            for logits in [[nan, 1.0, 2.0, 0.0], [1.0, nan, 2.0, 0.0], [1.0, infinity, 2.0, 0.0], [-infinity; 4]] {
                assert_eq!(draw(&logits, settings), None, "{logits:?} {settings:?}");
            }
            // A class of probability 0 is fine, and an excluded class may hold anything.
            assert!(draw(&[-infinity, 1.0, 2.0, nan], settings).is_some());
        }
    }
}
