//! Logits where they were computed, and the draw from them.
//!
//! In host memory the draw reads them as they lie. On any other device they stay there: what comes to the host is, for
//! each block of 256 classes, its largest logit and its sum of exponentials, and then the one block (with a cut the few
//! blocks) that the draw ends in. The uniform has 53 bits and both steps accumulate in float64, so the statistics are
//! those of the draw from all logits; a token differs only where rounding in a block's sum moves a boundary across the
//! uniform.
//!
//! Shapes: B rows, K positions, V classes, N tokens to draw, M blocks, W classes of a block.

use burn::tensor::{Bool, DType, Device, FloatDType, Int, Tensor, TensorData};
use rayon::prelude::*;

use crate::InferError;
use crate::draw::{Categorical, DrawSettings, DrawnToken};
use crate::order::LogitStats;

const BLOCK: usize = 256;
/// Stands for a logit that does not exist; its exponential is 0 beside any other.
const ABSENT: f32 = -1e30;
/// Blocks that a draw with top-k or top-p looks at first.
const FIRST_LOOK: usize = 8;

/// Logits at some positions of each row.
#[derive(Clone, Debug)]
pub struct Logits {
    values: Values,
    rows: Rows,
    n_classes: usize,
}

/// Where the positions of each row begin.
#[derive(Clone, Debug)]
enum Rows {
    // Each has as many; those with fewer than the longest are padded.
    Equal(usize),
    Joined(Vec<usize>),
}

#[derive(Clone, Debug)]
enum Values {
    Host(Vec<f32>),
    Device(Box<Tensor<3>>),
}

/// A token to draw: the row, which of its positions, and the number in `[0, 1)` that decides.
#[derive(Clone, Copy, Debug)]
pub struct PositionDraw {
    /// The row of the batch.
    pub row: usize,
    /// The position's index in its row of logits.
    pub index: usize,
    /// Where in the cumulative distribution.
    pub uniform: f64,
}

/// Tokens and their log-probabilities in nats, the most probable first.
pub type Top = Vec<(u32, f64)>;

impl Logits {
    /// Logits `[B, K, V]`, left on their device unless that is the CPU.
    ///
    /// # Errors
    /// [`InferError::Device`] when the device fails.
    pub fn new(logits: Tensor<3>) -> Result<Self, InferError> {
        let [_, n_positions, n_classes] = logits.dims();
        let values = if in_host_memory(&logits.device()) {
            Values::Host(logits.try_into_vec_as::<f32>().map_err(failed)?)
        } else {
            Values::Device(Box::new(logits))
        };
        Ok(Self { values, rows: Rows::Equal(n_positions), n_classes })
    }

    /// Logits `[1, K, V]` of rows that stand one behind the other and have these numbers of positions.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn joined(logits: Tensor<3>, counts: impl Iterator<Item = usize>) -> Result<Self, InferError> {
        let starts = counts.scan(0, |next, count| Some(std::mem::replace(next, *next + count)));
        Ok(Self { rows: Rows::Joined(starts.collect()), ..Self::new(logits)? })
    }

    // Which of all positions a pick is of.
    fn place(&self, pick: &PositionDraw) -> usize {
        let start = match &self.rows {
            Rows::Equal(n_positions) => pick.row * n_positions,
            Rows::Joined(starts) => starts[pick.row],
        };
        start + pick.index
    }

    /// Logits in host memory: that of a class is `values[(row * n_positions + index) * n_classes + class]`.
    pub fn from_host(values: Vec<f32>, n_positions: usize, n_classes: usize) -> Self {
        Self { values: Values::Host(values), rows: Rows::Equal(n_positions), n_classes }
    }

    /// One token for each pick, in their order; class `excluded` (the mask) is never drawn.
    ///
    /// # Errors
    /// [`InferError::Device`] when the device fails.
    pub fn draw(
        &self,
        picks: &[PositionDraw],
        excluded: usize,
        settings: &DrawSettings,
    ) -> Result<Vec<DrawnToken>, InferError> {
        match &self.values {
            Values::Host(values) => {
                let draw = |drawer: &mut Categorical, pick: &PositionDraw| {
                    let start = self.place(pick) * self.n_classes;
                    drawer.draw(&values[start..start + self.n_classes], excluded, settings, pick.uniform)
                };
                Ok(picks.par_iter().map_init(Categorical::default, draw).collect())
            }
            Values::Device(_) if picks.is_empty() => Ok(Vec::new()),
            Values::Device(logits) => {
                Blocks::new(self.picked(logits, picks), excluded, settings)?.draw(picks, settings)
            }
        }
    }

    /// The shape of the distribution at each pick (whatever its uniform), without class `excluded`.
    ///
    /// # Errors
    /// [`InferError::Device`] when the device fails.
    pub fn shapes(&self, picks: &[PositionDraw], excluded: usize) -> Result<Vec<LogitStats>, InferError> {
        match &self.values {
            Values::Host(values) => {
                let shape = |pick: &PositionDraw| {
                    let start = self.place(pick) * self.n_classes;
                    shape_of(&values[start..start + self.n_classes], excluded)
                };
                Ok(picks.par_iter().map(shape).collect())
            }
            Values::Device(_) if picks.is_empty() => Ok(Vec::new()),
            Values::Device(logits) => shapes_on_device(self.picked(logits, picks), excluded),
        }
    }

    /// The `n` most probable classes at each pick (whatever its uniform), without class `excluded`. From a device all
    /// logits of the picks come to the host.
    ///
    /// # Errors
    /// [`InferError::Device`] when the device fails.
    pub fn top(&self, picks: &[PositionDraw], n: usize, excluded: usize) -> Result<Vec<Top>, InferError> {
        if picks.is_empty() || n == 0 {
            return Ok(vec![Vec::new(); picks.len()]);
        }
        match &self.values {
            Values::Host(values) => {
                let top = |pick: &PositionDraw| {
                    let start = self.place(pick) * self.n_classes;
                    top_of(&values[start..start + self.n_classes], n, excluded)
                };
                Ok(picks.par_iter().map(top).collect())
            }
            Values::Device(logits) => {
                let values = self.picked(logits, picks).try_into_vec_as::<f32>().map_err(failed)?;
                Ok(values.par_chunks_exact(self.n_classes).map(|logits| top_of(logits, n, excluded)).collect())
            }
        }
    }

    // The logits of the picks alone, `[N, V]`; all of them where that is what is asked for.
    fn picked(&self, logits: &Tensor<3>, picks: &[PositionDraw]) -> Tensor<2> {
        let n = logits.dims()[0] * logits.dims()[1];
        let flat = logits.clone().reshape([n, self.n_classes]);
        let index: Vec<usize> = picks.iter().map(|pick| self.place(pick)).collect();
        if index.iter().copied().eq(0..n) { flat } else { flat.select(0, indices(&index, &logits.device())) }
    }
}

fn top_of(logits: &[f32], n: usize, excluded: usize) -> Top {
    let mut classes: Vec<usize> = (0..logits.len()).filter(|&class| class != excluded).collect();
    let better = |&a: &usize, &b: &usize| logits[b].total_cmp(&logits[a]).then(a.cmp(&b));
    let largest = classes.iter().map(|&class| f64::from(logits[class])).fold(f64::NEG_INFINITY, f64::max);
    let total = classes.iter().map(|&class| (f64::from(logits[class]) - largest).exp()).sum::<f64>().ln();
    if n < classes.len() {
        classes.select_nth_unstable_by(n, better);
        classes.truncate(n);
    }
    classes.sort_unstable_by(better);
    classes.into_iter().map(|class| (class as u32, f64::from(logits[class]) - largest - total)).collect()
}

fn shape_of(logits: &[f32], excluded: usize) -> LogitStats {
    let allowed =
        || logits.iter().enumerate().filter(|(class, _)| *class != excluded).map(|(_, &logit)| f64::from(logit));
    let (mut best, mut second) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    for logit in allowed() {
        if logit > best {
            (best, second) = (logit, best);
        } else if logit > second {
            second = logit;
        }
    }
    let (mut total, mut weighted) = (0.0, 0.0);
    for logit in allowed() {
        let weight = (logit - best).exp();
        total += weight;
        weighted += weight * (logit - best);
    }
    LogitStats { margin: (1.0 - (second - best).exp()) / total, entropy: total.ln() - weighted / total }
}

// The same from sums that the device makes, `[N, V]` of them.
fn shapes_on_device(logits: Tensor<2>, excluded: usize) -> Result<Vec<LogitStats>, InferError> {
    let [n, n_classes] = logits.dims();
    let absent: Vec<bool> = (0..n_classes).map(|class| class == excluded).collect();
    let absent = Tensor::<2, Bool>::from_data(TensorData::new(absent, [1, n_classes]), &logits.device());
    let logits = logits.cast(FloatDType::F32).mask_fill(absent.expand([n, n_classes]), ABSENT);
    let best = logits.clone().max_dim(1); // [N, 1]
    let below = logits - best.expand([n, n_classes]);
    let is_best = below.clone().greater_equal_elem(0.0);
    let n_best = is_best.clone().float().sum_dim(1);
    let second = below.clone().mask_fill(is_best, ABSENT).max_dim(1);
    let weights = below.clone().exp();
    let (total, weighted) = (weights.clone().sum_dim(1), (weights * below.clamp_min(-1e4)).sum_dim(1));
    let known = Tensor::cat(vec![n_best, second, total, weighted], 1).try_into_vec_as::<f32>().map_err(failed)?;
    let shape = |known: &[f32]| {
        let [n_best, second, total, weighted] = [0, 1, 2, 3].map(|index: usize| f64::from(known[index]));
        let second = if n_best > 1.5 { 0.0 } else { second };
        LogitStats { margin: (1.0 - second.exp()) / total, entropy: total.ln() - weighted / total }
    };
    Ok(known.chunks_exact(4).map(shape).collect())
}

fn failed(error: impl std::fmt::Display) -> InferError {
    InferError::Device(error.to_string())
}

fn indices(values: &[usize], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = values.iter().map(|&value| value as i32).collect();
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

// Whether tensors of this device are read as they lie.
#[allow(unused_variables)]
pub(crate) fn in_host_memory(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    if *device == Device::flex() {
        return true;
    }
    #[cfg(feature = "ndarray")]
    if *device == Device::ndarray() {
        return true;
    }
    false
}

/// The logits of the tokens to draw in blocks, and what is known of each block.
struct Blocks {
    // [N M, W]
    values: Tensor<2>,
    n_blocks: usize,
    // Of each block: the largest logit, the sum of exp(logit - largest), and that sum tempered.
    known: Vec<f32>,
}

/// What is known of one token's blocks.
struct Overview<'a> {
    known: &'a [f32],
    best: f64,
    inverse_temperature: f64,
}

impl<'a> Overview<'a> {
    fn new(known: &'a [f32], settings: &DrawSettings) -> Self {
        let best = known.chunks_exact(3).map(|block| f64::from(block[0])).fold(f64::NEG_INFINITY, f64::max);
        let inverse_temperature = if settings.temperature == 0.0 { 1.0 } else { 1.0 / settings.temperature };
        Self { known, best, inverse_temperature }
    }

    fn largest(&self, block: usize) -> f64 {
        f64::from(self.known[3 * block])
    }

    // Tempered probability of each block, not normalised.
    fn weights(&self) -> impl Iterator<Item = f64> {
        let Self { best, inverse_temperature, .. } = *self;
        self.known
            .chunks_exact(3)
            .map(move |block| f64::from(block[2]) * ((f64::from(block[0]) - best) * inverse_temperature).exp())
    }

    fn log_total(&self) -> f64 {
        let total: f64 =
            self.known.chunks_exact(3).map(|block| f64::from(block[1]) * (f64::from(block[0]) - self.best).exp()).sum();
        total.ln()
    }

    // Blocks by their largest logit.
    fn ranking(&self) -> Vec<usize> {
        let mut ranking: Vec<usize> = (0..self.known.len() / 3).collect();
        ranking.sort_by(|&a, &b| self.largest(b).total_cmp(&self.largest(a)).then(a.cmp(&b)));
        ranking
    }
}

impl Blocks {
    fn new(logits: Tensor<2>, excluded: usize, settings: &DrawSettings) -> Result<Self, InferError> {
        let [n, n_classes] = logits.dims();
        let device = logits.device();
        let n_blocks = n_classes.div_ceil(BLOCK);
        let padding = n_blocks * BLOCK - n_classes;
        let logits = logits.cast(FloatDType::F32);
        let logits = match padding {
            0 => logits,
            _ => Tensor::cat(vec![logits, Tensor::zeros([n, padding], (&device, DType::F32))], 1),
        };
        let absent: Vec<bool> = (0..n_blocks * BLOCK).map(|class| class == excluded || class >= n_classes).collect();
        let absent = Tensor::<2, Bool>::from_data(TensorData::new(absent, [1, n_blocks * BLOCK]), &device);
        let values = logits.mask_fill(absent.expand([n, n_blocks * BLOCK]), ABSENT);
        let values = values.reshape([n * n_blocks, BLOCK]);
        let largest = values.clone().max_dim(1); // [N M, 1]
        let below = values.clone() - largest.clone();
        let sums = below.clone().exp().sum_dim(1);
        let tempered = if settings.temperature == 0.0 || settings.temperature == 1.0 {
            sums.clone()
        } else {
            (below / settings.temperature).exp().sum_dim(1)
        };
        let known = Tensor::cat(vec![largest, sums, tempered], 1).try_into_vec_as::<f32>().map_err(failed)?;
        Ok(Self { values, n_blocks, known })
    }

    fn overview(&self, token: usize, settings: &DrawSettings) -> Overview<'_> {
        Overview::new(&self.known[3 * token * self.n_blocks..][..3 * self.n_blocks], settings)
    }

    // The logits of some blocks of some tokens, one block after the other.
    fn fetch(&self, wanted: &[(usize, usize)]) -> Result<Vec<f32>, InferError> {
        let index: Vec<usize> = wanted.iter().map(|(token, block)| token * self.n_blocks + block).collect();
        let index = indices(&index, &self.values.device());
        self.values.clone().select(0, index).try_into_vec_as::<f32>().map_err(failed)
    }

    fn draw(&self, picks: &[PositionDraw], settings: &DrawSettings) -> Result<Vec<DrawnToken>, InferError> {
        let n_classes = self.n_blocks * BLOCK;
        let cuts = (1..n_classes).contains(&settings.top_k) || settings.top_p < 1.0;
        if cuts && settings.temperature != 0.0 {
            self.draw_cut(picks, settings)
        } else {
            self.draw_one(picks, settings)
        }
    }

    // A draw that ends in one block, whichever the uniform falls into, or the best at temperature 0.
    fn draw_one(&self, picks: &[PositionDraw], settings: &DrawSettings) -> Result<Vec<DrawnToken>, InferError> {
        struct Choice {
            block: usize,
            uniform: f64,
            // Tempered probability of the block.
            share: f64,
            // At temperature 0: the best logit of the other blocks.
            rival: f64,
        }
        let choose = |(token, pick): (usize, &PositionDraw)| {
            let overview = self.overview(token, settings);
            if settings.temperature == 0.0 {
                let ranking = overview.ranking();
                let rival = ranking.get(1).map_or(f64::NEG_INFINITY, |&block| overview.largest(block));
                return Choice { block: ranking[0], uniform: pick.uniform, share: 1.0, rival };
            }
            let total: f64 = overview.weights().sum();
            let target = pick.uniform * total;
            let mut below = 0.0;
            for (block, weight) in overview.weights().enumerate() {
                if below + weight > target {
                    let uniform = ((target - below) / weight).clamp(0.0, 1.0 - f64::EPSILON);
                    return Choice { block, uniform, share: weight / total, rival: f64::NEG_INFINITY };
                }
                below += weight;
            }
            // Only when rounding leaves the sum a hair below the target.
            Choice { block: overview.ranking()[0], uniform: 0.0, share: 0.0, rival: f64::NEG_INFINITY }
        };
        let choices: Vec<Choice> = picks.par_iter().enumerate().map(choose).collect();
        let wanted: Vec<(usize, usize)> = choices.iter().map(|choice| choice.block).enumerate().collect();
        let fetched = self.fetch(&wanted)?;
        let plain = DrawSettings { top_k: 0, top_p: 1.0, ..*settings };
        let finish = |drawer: &mut Categorical, (token, choice): (usize, &Choice)| {
            let overview = self.overview(token, settings);
            let logits = &fetched[token * BLOCK..][..BLOCK];
            let drawn = drawer.draw(logits, usize::MAX, &plain, choice.uniform);
            let logit = f64::from(logits[drawn.class]);
            DrawnToken {
                class: choice.block * BLOCK + drawn.class,
                log_probability: logit - overview.best - overview.log_total(),
                margin: (drawn.margin * choice.share).min(1.0 - (choice.rival - overview.best).exp()),
            }
        };
        Ok(choices.par_iter().enumerate().map_init(Categorical::default, finish).collect())
    }

    // A draw among the most probable classes: blocks come, largest first, until all that stay are surely there.
    fn draw_cut(&self, picks: &[PositionDraw], settings: &DrawSettings) -> Result<Vec<DrawnToken>, InferError> {
        let mut drawn: Vec<Option<DrawnToken>> = vec![None; picks.len()];
        let mut n_looked = FIRST_LOOK.min(self.n_blocks);
        loop {
            let open: Vec<usize> = (0..picks.len()).filter(|&token| drawn[token].is_none()).collect();
            let looked = |token: usize| {
                let ranking = self.overview(token, settings).ranking();
                let mut blocks = ranking[..n_looked].to_vec();
                blocks.sort_unstable();
                (blocks, ranking.get(n_looked).copied())
            };
            let looked: Vec<(Vec<usize>, Option<usize>)> = open.par_iter().map(|&token| looked(token)).collect();
            let wanted: Vec<(usize, usize)> = open
                .iter()
                .zip(&looked)
                .flat_map(|(&token, (blocks, _))| blocks.iter().map(move |&block| (token, block)))
                .collect();
            let fetched = self.fetch(&wanted)?;
            let finish = |drawer: &mut Categorical, place: usize| {
                let (token, (blocks, next)) = (open[place], &looked[place]);
                let overview = self.overview(token, settings);
                let logits = &fetched[place * n_looked * BLOCK..][..n_looked * BLOCK];
                let total: f64 = overview.weights().sum();
                let unseen = next.map_or(f64::NEG_INFINITY, |block| overview.largest(block));
                if !holds_all_that_stay(logits, unseen, total, &overview, settings) {
                    return None;
                }
                let found = drawer.draw_among(logits, usize::MAX, settings, picks[token].uniform, Some(total));
                let logit = f64::from(logits[found.class]);
                Some(DrawnToken {
                    class: blocks[found.class / BLOCK] * BLOCK + found.class % BLOCK,
                    log_probability: logit - overview.best - overview.log_total(),
                    margin: found.margin,
                })
            };
            let found: Vec<Option<DrawnToken>> =
                (0..open.len()).into_par_iter().map_init(Categorical::default, finish).collect();
            open.iter().zip(found).for_each(|(&token, found)| drawn[token] = found);
            if drawn.iter().all(Option::is_some) {
                return Ok(drawn.into_iter().flatten().collect());
            }
            n_looked = (4 * n_looked).min(self.n_blocks);
        }
    }
}

// Whether every class that the cut leaves is among these, when no other has a logit above `unseen`.
fn holds_all_that_stay(logits: &[f32], unseen: f64, total: f64, overview: &Overview, settings: &DrawSettings) -> bool {
    if unseen == f64::NEG_INFINITY {
        return true;
    }
    let above = logits.iter().map(|&logit| f64::from(logit)).filter(|&logit| logit > unseen);
    if settings.top_k > 0 {
        return above.count() >= settings.top_k;
    }
    let held: f64 = above.map(|logit| ((logit - overview.best) * overview.inverse_temperature).exp()).sum();
    held >= settings.top_p * total
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    // Logits that stay on their device, as on a GPU.
    fn on_device(values: &[f32], n_positions: usize, n_classes: usize) -> Logits {
        let n_rows = values.len() / (n_positions * n_classes);
        let data = TensorData::new(values.to_vec(), [n_rows, n_positions, n_classes]);
        Logits {
            values: Values::Device(Box::new(Tensor::from_data(data, &Device::flex()))),
            rows: Rows::Equal(n_positions),
            n_classes,
        }
    }

    proptest! {
        #[test]
        fn logits_on_a_device_give_the_same_tokens(
            seed in any::<u64>(),
            n_classes in prop_oneof![2..40_usize, 250..270_usize, 500..1400_usize, 4000..6000_usize],
            spread in prop_oneof![Just(0.0_f32), Just(2.0), Just(9.0)],
            temperature in prop_oneof![Just(0.0), Just(1.0), Just(0.7), Just(1.9)],
            top_k in prop_oneof![Just(0_usize), Just(1), Just(5), Just(700), Just(100_000)],
            top_p in prop_oneof![Just(1.0), Just(0.9), Just(0.3), Just(0.999)],
        ) {
            let (n_rows, n_positions) = (2, 3);
            let mut rng = StdRng::seed_from_u64(seed);
            let values: Vec<f32> = (0..n_rows * n_positions * n_classes)
                .map(|_| spread * (rng.random_range(-1.0_f32..1.0) + rng.random_range(-1.0_f32..1.0)))
                .collect();
            let excluded = rng.random_range(0..n_classes);
            let settings = DrawSettings { temperature, top_k, top_p };
            let picks: Vec<PositionDraw> = [(0, 0), (0, 2), (1, 1), (1, 0)]
                .map(|(row, index)| PositionDraw { row, index, uniform: rng.random() })
                .to_vec();
            let host = Logits::from_host(values.clone(), n_positions, n_classes);
            let expected = host.draw(&picks, excluded, &settings).unwrap();
            let found = on_device(&values, n_positions, n_classes).draw(&picks, excluded, &settings).unwrap();
            for (a, b) in expected.iter().zip(&found) {
                prop_assert!(b.class != excluded && b.class < n_classes);
                // Equal logits are ordered by class or block; with a top-p cut a boundary of the kept set may move too.
                let is_tie = spread == 0.0 && (temperature == 0.0 || top_k > 0 || top_p < 1.0);
                if a.margin.min(b.margin) > 1e-5 && !is_tie {
                    prop_assert_eq!(a.class, b.class);
                    prop_assert!((a.log_probability - b.log_probability).abs() < 1e-5);
                    prop_assert!((a.margin - b.margin).abs() < 1e-4);
                }
            }
        }
    }

    #[test]
    fn the_shape_of_a_distribution_is_the_same_on_a_device() {
        let mut rng = StdRng::seed_from_u64(6);
        let mut values: Vec<f32> = (0..4 * 300).map(|_| rng.random_range(-8.0_f32..8.0)).collect();
        values[300..600].fill(1.5); // all equal: no margin, all the entropy
        let picks: Vec<PositionDraw> = (0..4).map(|index| PositionDraw { row: 0, index, uniform: 0.0 }).collect();
        let host = Logits::from_host(values.clone(), 4, 300).shapes(&picks, 7).unwrap();
        let device = on_device(&values, 4, 300).shapes(&picks, 7).unwrap();
        for (a, b) in host.iter().zip(&device) {
            assert!((a.margin - b.margin).abs() < 1e-5 && (a.entropy - b.entropy).abs() < 1e-4, "{a:?} {b:?}");
        }
        assert!(host[1].margin.abs() < 1e-12 && (host[1].entropy - 299.0_f64.ln()).abs() < 1e-9);
        let two = Logits::from_host(vec![0.75_f32.ln(), 0.25_f32.ln(), 9.0], 1, 3).shapes(&picks[..1], 2).unwrap()[0];
        assert!((two.margin - 0.5).abs() < 1e-6 && (two.entropy - 0.562_335).abs() < 1e-5, "{two:?}");
    }

    #[test]
    fn a_heavy_tail_on_a_device_is_drawn_with_float64_statistics() {
        let n_classes = 50_001;
        let logits: Vec<f32> = (0..n_classes).map(|class| -1.05 * ((class + 1) as f32).ln()).collect();
        let weights: Vec<f64> = logits[..n_classes - 1].iter().map(|&logit| f64::from(logit).exp()).collect();
        let total: f64 = weights.iter().sum();
        let (n, mut rng) = (20_000, StdRng::seed_from_u64(5));
        let device = on_device(&logits, 1, n_classes);
        let mut counts = vec![0; n_classes];
        for _ in 0..n / 50 {
            let picks: Vec<PositionDraw> =
                (0..50).map(|_| PositionDraw { row: 0, index: 0, uniform: rng.random() }).collect();
            for drawn in device.draw(&picks, n_classes - 1, &DrawSettings::default()).unwrap() {
                counts[drawn.class] += 1;
            }
        }
        assert_eq!(counts[n_classes - 1], 0, "the mask is never drawn");
        for range in [0..1, 1..10, 10..100, 100..1000, 1000..5000, 5000..50_000] {
            let expected = f64::from(n) * weights[range.clone()].iter().sum::<f64>() / total;
            let found = f64::from(counts[range.clone()].iter().sum::<i32>());
            let error = (found - expected).abs() / expected.sqrt();
            assert!(error < 4.0, "classes {range:?}: {found} of {expected:.0} expected");
        }
        let last = |uniform| {
            let picks = [PositionDraw { row: 0, index: 0, uniform }];
            on_device(&[0.0, -24.0, -30.0, 9.0], 1, 4).draw(&picks, 3, &DrawSettings::default()).unwrap()[0].class
        };
        assert_eq!([last(0.0), last(1.0 - 1e-11)], [0, 1]);
    }
}
