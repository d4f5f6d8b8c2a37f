//! The figures of a codec on held-out pictures.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::quality::{psnr, ssim};
use crate::config::ReconstructionLoss;
use crate::history::ValidationFigures;
use crate::judge::metrics::Estimate;

/// Seed of the bootstrap of the intervals.
const INTERVAL_SEED: u64 = 0;
/// Pictures are dealt to so many blocks for the interval of the codes' perplexity.
const BLOCKS: usize = 32;
/// With fewer blocks it has none.
const FEWEST_BLOCKS: usize = 8;

/// A validation of a codec. Intervals are of 95 %, over the pictures; a single picture has none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CodecLine {
    /// Steps done.
    pub step: usize,
    /// Mean difference of reconstructions through codes, by the run's loss.
    pub val_loss: f64,
    /// Its interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_loss_interval: Option<[f64; 2]>,
    /// Mean PSNR, dB.
    pub val_psnr: f64,
    /// Its interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_psnr_interval: Option<[f64; 2]>,
    /// Mean SSIM.
    pub val_ssim: f64,
    /// Its interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_ssim_interval: Option<[f64; 2]>,
    /// Codes in use.
    pub val_codes: usize,
    /// Their share of the codebook.
    pub val_usage: f64,
    /// Exponential of the entropy of the codes: as many equally frequent codes have this entropy. From 8 pictures on the bias of
    /// the entropy of frequencies is taken out, nearly all of it where codes occur several times each, else most of it.
    pub val_code_perplexity: f64,
    /// Its interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_code_perplexity_interval: Option<[f64; 2]>,
}

impl ValidationFigures for CodecLine {
    const CURVE: &str = "validation loss";
    const UNIT: &str = "loss";

    fn step(&self) -> usize {
        self.step
    }

    fn point(&self) -> (f64, Option<[f64; 2]>) {
        (self.val_loss, self.val_loss_interval)
    }
}

/// What a validation has seen so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct CodecSums {
    losses: Vec<f64>,
    psnr: Vec<f64>,
    ssim: Vec<f64>,
    /// How often each code occurs in each block of pictures.
    counts: Vec<BTreeMap<u32, u64>>,
    n_codes: usize,
}

impl CodecSums {
    /// Adds a picture, its reconstruction (both `[C, H, W]`) and its codes, of a codebook of `n_codes`.
    pub(super) fn add(
        &mut self,
        [original, reconstruction]: [&[f32]; 2],
        shape: [usize; 3],
        (codes, n_codes): (&[u32], usize),
        loss: ReconstructionLoss,
    ) {
        let differences = original.iter().zip(reconstruction).map(|(a, b)| f64::from(*a) - f64::from(*b));
        let sum: f64 = match loss {
            ReconstructionLoss::L1 => differences.map(f64::abs).sum(),
            ReconstructionLoss::L2 => differences.map(|difference| difference * difference).sum(),
        };
        let block = self.losses.len() % BLOCKS;
        self.losses.push(sum / original.len() as f64);
        let cut_off: Vec<f32> = reconstruction.iter().map(|value| value.clamp(-1.0, 1.0)).collect();
        self.psnr.push(psnr(original, &cut_off));
        self.ssim.push(ssim(original, &cut_off, shape));
        if self.counts.len() <= block {
            self.counts.push(BTreeMap::new());
        }
        codes.iter().for_each(|&code| *self.counts[block].entry(code).or_default() += 1);
        self.n_codes = n_codes;
    }

    // How often each code occurs, without the pictures of one block.
    fn frequencies(&self, without: Option<usize>) -> BTreeMap<u32, u64> {
        let mut all = BTreeMap::new();
        for (_, counts) in self.counts.iter().enumerate().filter(|(block, _)| Some(*block) != without) {
            counts.iter().for_each(|(&code, &count)| *all.entry(code).or_default() += count);
        }
        all
    }

    // The entropy of frequencies is too low by about half a code in use over each code seen, and so is a resample's below that
    // of the whole. The jackknife over the blocks takes out what falls as 1 / n, and has the interval.
    fn code_perplexity(&self) -> (f64, Option<[f64; 2]>) {
        let (whole, n_blocks) = (entropy(&self.frequencies(None)), self.counts.len());
        if n_blocks < FEWEST_BLOCKS {
            return (whole.exp(), None);
        }
        let n = n_blocks as f64;
        let partial: Vec<f64> = (0..n_blocks).map(|block| entropy(&self.frequencies(Some(block)))).collect();
        let mean = partial.iter().sum::<f64>() / n;
        let deviation = ((n - 1.0) / n * partial.iter().map(|value| (value - mean).powi(2)).sum::<f64>()).sqrt();
        // No codebook has more entropy than this.
        let most = (self.n_codes as f64).ln();
        let value = (n * whole - (n - 1.0) * mean).min(most);
        let spread = t_quantile(n - 1.0) * deviation;
        (value.exp(), Some([value - spread, (value + spread).min(most)].map(f64::exp)))
    }

    /// The figures; absent when they are not finite.
    pub(super) fn line(&self, step: usize) -> Option<CodecLine> {
        let mean = |values: &[f64]| Estimate::of_mean(values, INTERVAL_SEED);
        let (loss, psnr, ssim) = (mean(&self.losses)?, mean(&self.psnr)?, mean(&self.ssim)?);
        let (n_codes, (perplexity, interval)) = (self.frequencies(None).len(), self.code_perplexity());
        Some(CodecLine {
            step,
            val_loss: loss.value,
            val_loss_interval: loss.interval,
            val_psnr: psnr.value,
            val_psnr_interval: psnr.interval,
            val_ssim: ssim.value,
            val_ssim_interval: ssim.interval,
            val_codes: n_codes,
            val_usage: n_codes as f64 / self.n_codes as f64,
            val_code_perplexity: perplexity,
            val_code_perplexity_interval: interval,
        })
    }
}

// The 97.5 % quantile of Student's distribution, by its expansion around the normal one; right to 0.01 from 7 degrees on.
fn t_quantile(degrees: f64) -> f64 {
    let z: f64 = 1.959_964;
    z + (z.powi(3) + z) / (4.0 * degrees) + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * degrees * degrees)
}

fn entropy(counts: &BTreeMap<u32, u64>) -> f64 {
    let all = counts.values().sum::<u64>() as f64;
    counts.values().filter(|&&count| count > 0).map(|&count| count as f64 / all).map(|share| -share * share.ln()).sum()
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn figures_of_two_pictures_by_hand() {
        let mut sums = CodecSums::default();
        assert!(sums.line(0).is_none());
        let grey = [0.0_f32; 9];
        let shape = [1, 3, 3];
        sums.add([&grey, &[0.2; 9]], shape, (&[5, 5, 7, 9], 12), ReconstructionLoss::L1);
        sums.add([&grey, &grey], shape, (&[5, 5, 7, 7], 12), ReconstructionLoss::L1);
        let line = sums.line(3).unwrap();
        assert!((line.val_loss - 0.1).abs() < 1e-6 && (line.val_psnr - 60.0).abs() < 1e-4, "{line:?}");
        assert_eq!((line.step, line.val_codes, line.val_usage), (3, 3, 0.25));
        // Frequencies 4/8, 3/8, 1/8.
        let entropy = 0.5 * 2_f64.ln() + 0.375 * (8.0 / 3.0_f64).ln() + 0.125 * 8_f64.ln();
        assert!((line.val_code_perplexity - entropy.exp()).abs() < 1e-9);
        assert_eq!(line.val_code_perplexity_interval, None);
        let [low, high] = line.val_psnr_interval.unwrap();
        assert!((low - 20.0).abs() < 1e-4 && high == 100.0);
        let json = serde_json::to_string(&line).unwrap();
        assert_eq!(serde_json::from_str::<CodecLine>(&json).unwrap(), line);
    }

    #[test]
    fn the_squared_loss_squares_and_values_outside_count_in_it_alone() {
        let mut sums = CodecSums::default();
        sums.add([&[1.0], &[1.5]], [1, 1, 1], (&[0], 2), ReconstructionLoss::L2);
        let line = sums.line(0).unwrap();
        assert_eq!((line.val_loss, line.val_psnr, line.val_psnr_interval), (0.25, 100.0, None));
        sums.add([&[1.0], &[f32::NAN]], [1, 1, 1], (&[0], 2), ReconstructionLoss::L2);
        assert!(sums.line(0).is_none());
    }

    #[test]
    fn the_perplexity_of_codes_that_occur_several_times_is_unbiased_and_within_its_interval() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let (n_runs, n_codes, picture) = (40, 500_u32, [0.0_f32; 9]);
        let (mut sum, mut covered) = (0.0, 0);
        for _ in 0..n_runs {
            let mut sums = CodecSums::default();
            for _ in 0..128 {
                let codes: Vec<u32> = (0..49).map(|_| rng.random_range(0..n_codes)).collect();
                sums.add([&picture; 2], [1, 3, 3], (&codes, 500), ReconstructionLoss::L1);
            }
            let line = sums.line(0).unwrap();
            let [low, high] = line.val_code_perplexity_interval.unwrap();
            assert!((low..=high).contains(&line.val_code_perplexity));
            covered += usize::from((low..=high + 1e-9).contains(&500.0));
            sum += line.val_code_perplexity;
        }
        // 6272 codes of 500 equally frequent ones: their frequencies alone have a perplexity of 480.
        let mean = sum / n_runs as f64;
        assert!((mean - 500.0).abs() < 2.0 && covered >= n_runs * 4 / 5, "{mean} {covered}");
    }
}
