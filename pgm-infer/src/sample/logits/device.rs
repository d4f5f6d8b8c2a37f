//! Reading logits that stay on a device other than the CPU.
//!
//! For each block of 256 classes the host gets the largest logit and the sum of exponentials, then the logits of the
//! one block that holds the drawn class (with top-k or top-p: of a few blocks). The uniform has 53 bits and both steps
//! accumulate in float64, so the distribution is that of a draw from all logits. A token differs only where rounding of
//! a block's sum moves a boundary across the uniform.
//!
//! Shapes: V classes, N tokens to draw, M blocks, W classes of a block.

use burn::tensor::{Bool, DType, Device, FloatDType, Int, Tensor, TensorData};

use super::host;
use super::reading::{LogitStats, PositionQuery, PositionReading, Wait};
use crate::InferError;
use crate::parallel::map_indices;
use crate::sample::draw::{Categorical, DrawSettings, DrawnToken};

const BLOCK: usize = 256;
/// Padding in place of a logit; its exponential is 0 next to any other.
const ABSENT: f32 = -1e30;
/// Blocks that a draw with top-k or top-p reads first.
const FIRST_BLOCKS: usize = 8;

/// Reads each query at its row of `logits`, `[N', V]`.
pub(super) async fn read(
    logits: &Tensor<2>,
    queries: &[(usize, PositionQuery<'_>)],
    excluded: &[usize],
    wait: Wait,
) -> Result<Vec<PositionReading>, InferError> {
    let mut readings = vec![PositionReading::default(); queries.len()];
    let rows = |members: &[usize]| {
        let rows: Vec<usize> = members.iter().map(|&member| queries[member].0).collect();
        let all = rows.iter().copied().eq(0..logits.dims()[0]);
        if all { logits.clone() } else { logits.clone().select(0, indices(&rows, &logits.device())) }
    };
    let members = |is_member: &dyn Fn(&PositionQuery<'_>) -> bool| -> Vec<usize> {
        (0..queries.len()).filter(|&index| is_member(&queries[index].1)).collect()
    };
    let mut kinds: Vec<DrawSettings> = Vec::new();
    for (_, query) in queries.iter().filter(|(_, query)| query.allowed.is_none()) {
        if !kinds.contains(&query.settings) {
            kinds.push(query.settings);
        }
    }
    // Tokens with the same settings are drawn together.
    for settings in kinds {
        let members = members(&|query| query.allowed.is_none() && query.settings == settings);
        let uniforms: Vec<f64> = members.iter().map(|&member| queries[member].1.draw.uniform).collect();
        let blocks = Blocks::new(rows(&members), excluded, &settings, wait).await?;
        let drawn = blocks.draw(&uniforms, &settings, wait).await?;
        members.into_iter().zip(drawn).for_each(|(member, token)| readings[member].token = token);
    }
    let with_stats = members(&|query| query.allowed.is_none() && query.stats);
    if !with_stats.is_empty() {
        let stats = stats(rows(&with_stats), excluded, wait).await?;
        with_stats.into_iter().zip(stats).for_each(|(member, stats)| readings[member].stats = stats);
    }
    let with_alternatives = members(&|query| query.allowed.is_none() && query.n_alternatives > 0);
    if !with_alternatives.is_empty() {
        let n_classes = logits.dims()[1];
        let values = wait.read(rows(&with_alternatives)).await?;
        for (member, logits) in with_alternatives.into_iter().zip(values.chunks_exact(n_classes)) {
            readings[member].alternatives = host::alternatives(logits, queries[member].1.n_alternatives, excluded);
        }
    }
    // Few positions are restricted to some classes; the host reads them.
    let restricted = members(&|query| query.allowed.is_some());
    if !restricted.is_empty() {
        let values = wait.read(rows(&restricted).cast(FloatDType::F32)).await?;
        let of_host: Vec<(usize, PositionQuery<'_>)> =
            restricted.iter().enumerate().map(|(row, &member)| (row, queries[member].1)).collect();
        let found = host::read(&values, logits.dims()[1], &of_host, excluded);
        restricted.into_iter().zip(found).for_each(|(member, reading)| readings[member] = reading);
    }
    Ok(readings)
}

fn indices(values: &[usize], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = values.iter().map(|&value| value as i32).collect();
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

// Statistics from sums that the device computes, of logits `[N, V]`.
async fn stats(logits: Tensor<2>, excluded: &[usize], wait: Wait) -> Result<Vec<LogitStats>, InferError> {
    let [n, n_classes] = logits.dims();
    let absent: Vec<bool> = (0..n_classes).map(|class| excluded.contains(&class)).collect();
    let absent = Tensor::<2, Bool>::from_data(TensorData::new(absent, [1, n_classes]), &logits.device());
    let logits = logits.cast(FloatDType::F32).mask_fill(absent.expand([n, n_classes]), ABSENT);
    let best = logits.clone().max_dim(1); // [N, 1]
    let below = logits - best.expand([n, n_classes]);
    let is_best = below.clone().greater_equal_elem(0.0);
    let n_best = is_best.clone().float().sum_dim(1);
    let second = below.clone().mask_fill(is_best, ABSENT).max_dim(1);
    let weights = below.clone().exp();
    let (total, weighted) = (weights.clone().sum_dim(1), (weights * below.clamp_min(-1e4)).sum_dim(1));
    let sums = wait.read(Tensor::cat(vec![n_best, second, total, weighted], 1)).await?;
    let stats = |sums: &[f32]| {
        let [n_best, second, total, weighted] = [0, 1, 2, 3].map(|index: usize| f64::from(sums[index]));
        let second = if n_best > 1.5 { 0.0 } else { second };
        LogitStats { margin: (1.0 - second.exp()) / total, entropy: total.ln() - weighted / total }
    };
    Ok(sums.chunks_exact(4).map(stats).collect())
}

/// The logits of the tokens to draw, in blocks, and the sums of each block.
struct Blocks {
    // [N M, W]
    values: Tensor<2>,
    n_blocks: usize,
    // Of each block: the largest logit, the sum of exp(logit - largest), and that sum tempered.
    sums: Vec<f32>,
}

/// The sums of one token's blocks.
struct BlockSums<'a> {
    sums: &'a [f32],
    best: f64,
    inverse_temperature: f64,
}

impl<'a> BlockSums<'a> {
    fn new(sums: &'a [f32], settings: &DrawSettings) -> Self {
        let best = sums.chunks_exact(3).map(|block| f64::from(block[0])).fold(f64::NEG_INFINITY, f64::max);
        let inverse_temperature = if settings.temperature == 0.0 { 1.0 } else { 1.0 / settings.temperature };
        Self { sums, best, inverse_temperature }
    }

    fn largest(&self, block: usize) -> f64 {
        f64::from(self.sums[3 * block])
    }

    // Tempered probability of each block, not normalised.
    fn weights(&self) -> impl Iterator<Item = f64> {
        let Self { best, inverse_temperature, .. } = *self;
        self.sums
            .chunks_exact(3)
            .map(move |block| f64::from(block[2]) * ((f64::from(block[0]) - best) * inverse_temperature).exp())
    }

    // Logarithm of the sum of all exponentials, relative to the best logit; none if a logit is NaN or +inf, or all are -inf.
    fn log_total(&self) -> Option<f64> {
        let total: f64 =
            self.sums.chunks_exact(3).map(|block| f64::from(block[1]) * (f64::from(block[0]) - self.best).exp()).sum();
        // A device may leave NaN out of a maximum, but not out of a sum.
        (total.is_finite() && self.best > f64::from(ABSENT)).then(|| total.ln())
    }

    // Blocks by their largest logit.
    fn ranking(&self) -> Vec<usize> {
        let mut ranking: Vec<usize> = (0..self.sums.len() / 3).collect();
        ranking.sort_by(|&a, &b| self.largest(b).total_cmp(&self.largest(a)).then(a.cmp(&b)));
        ranking
    }
}

impl Blocks {
    async fn new(
        logits: Tensor<2>,
        excluded: &[usize],
        settings: &DrawSettings,
        wait: Wait,
    ) -> Result<Self, InferError> {
        let [n, n_classes] = logits.dims();
        let device = logits.device();
        let n_blocks = n_classes.div_ceil(BLOCK);
        let padding = n_blocks * BLOCK - n_classes;
        let logits = logits.cast(FloatDType::F32);
        let logits = match padding {
            0 => logits,
            _ => Tensor::cat(vec![logits, Tensor::zeros([n, padding], (&device, DType::F32))], 1),
        };
        let absent: Vec<bool> =
            (0..n_blocks * BLOCK).map(|class| excluded.contains(&class) || class >= n_classes).collect();
        let absent = Tensor::<2, Bool>::from_data(TensorData::new(absent, [1, n_blocks * BLOCK]), &device);
        let values = logits.mask_fill(absent.expand([n, n_blocks * BLOCK]), ABSENT);
        let values = values.reshape([n * n_blocks, BLOCK]);
        let largest = values.clone().max_dim(1); // [N M, 1]
        let below = values.clone() - largest.clone();
        let plain = below.clone().exp().sum_dim(1);
        let tempered = if settings.temperature == 0.0 || settings.temperature == 1.0 {
            plain.clone()
        } else {
            (below / settings.temperature).exp().sum_dim(1)
        };
        let sums = wait.read(Tensor::cat(vec![largest, plain, tempered], 1)).await?;
        Ok(Self { values, n_blocks, sums })
    }

    fn sums_of(&self, token: usize, settings: &DrawSettings) -> BlockSums<'_> {
        BlockSums::new(&self.sums[3 * token * self.n_blocks..][..3 * self.n_blocks], settings)
    }

    // The logits of some blocks of some tokens, block after block.
    async fn fetch(&self, wanted: &[(usize, usize)], wait: Wait) -> Result<Vec<f32>, InferError> {
        let index: Vec<usize> = wanted.iter().map(|(token, block)| token * self.n_blocks + block).collect();
        let index = indices(&index, &self.values.device());
        wait.read(self.values.clone().select(0, index)).await
    }

    async fn draw(
        &self,
        uniforms: &[f64],
        settings: &DrawSettings,
        wait: Wait,
    ) -> Result<Vec<Option<DrawnToken>>, InferError> {
        let n_classes = self.n_blocks * BLOCK;
        let cuts = (1..n_classes).contains(&settings.top_k) || settings.top_p < 1.0;
        if cuts && settings.temperature != 0.0 {
            self.draw_cut(uniforms, settings, wait).await
        } else {
            self.draw_one(uniforms, settings, wait).await
        }
    }

    // A draw from all classes ends in one block: the one that the uniform falls into, or the best at temperature 0.
    async fn draw_one(
        &self,
        uniforms: &[f64],
        settings: &DrawSettings,
        wait: Wait,
    ) -> Result<Vec<Option<DrawnToken>>, InferError> {
        struct Choice {
            block: usize,
            uniform: f64,
            // Tempered probability of the block.
            share: f64,
            // At temperature 0: the best logit of the other blocks.
            rival: f64,
        }
        let choose = |(): &mut (), token: usize| {
            let uniform = uniforms[token];
            let sums = self.sums_of(token, settings);
            if settings.temperature == 0.0 {
                let ranking = sums.ranking();
                let rival = ranking.get(1).map_or(f64::NEG_INFINITY, |&block| sums.largest(block));
                return Choice { block: ranking[0], uniform, share: 1.0, rival };
            }
            let total: f64 = sums.weights().sum();
            let target = uniform * total;
            let mut below = 0.0;
            for (block, weight) in sums.weights().enumerate() {
                if below + weight > target {
                    let uniform = ((target - below) / weight).clamp(0.0, 1.0 - f64::EPSILON);
                    return Choice { block, uniform, share: weight / total, rival: f64::NEG_INFINITY };
                }
                below += weight;
            }
            // Reached only when rounding leaves the sum just below the target.
            Choice { block: sums.ranking()[0], uniform: 0.0, share: 0.0, rival: f64::NEG_INFINITY }
        };
        let choices: Vec<Choice> = map_indices(uniforms.len(), || (), choose);
        let wanted: Vec<(usize, usize)> = choices.iter().map(|choice| choice.block).enumerate().collect();
        let fetched = self.fetch(&wanted, wait).await?;
        let plain = DrawSettings { top_k: 0, top_p: 1.0, ..*settings };
        let finish = |drawer: &mut Categorical, token: usize| {
            let choice = &choices[token];
            let sums = self.sums_of(token, settings);
            let logits = &fetched[token * BLOCK..][..BLOCK];
            let log_total = sums.log_total()?;
            let drawn = drawer.draw(logits, &[], &plain, choice.uniform)?;
            let logit = f64::from(logits[drawn.class]);
            Some(DrawnToken {
                class: choice.block * BLOCK + drawn.class,
                log_probability: logit - sums.best - log_total,
                margin: (drawn.margin * choice.share).min(1.0 - (choice.rival - sums.best).exp()),
            })
        };
        Ok(map_indices(choices.len(), Categorical::default, finish))
    }

    // A draw with top-k or top-p: blocks are read, largest first, until they hold every class that is kept.
    async fn draw_cut(
        &self,
        uniforms: &[f64],
        settings: &DrawSettings,
        wait: Wait,
    ) -> Result<Vec<Option<DrawnToken>>, InferError> {
        let mut drawn: Vec<Option<DrawnToken>> = vec![None; uniforms.len()];
        let is_finite = |&token: &usize| self.sums_of(token, settings).log_total().is_some();
        let mut open: Vec<usize> = (0..uniforms.len()).filter(is_finite).collect();
        let mut n_looked = FIRST_BLOCKS.min(self.n_blocks);
        while !open.is_empty() {
            let looked = |(): &mut (), place: usize| {
                let token = open[place];
                let ranking = self.sums_of(token, settings).ranking();
                let mut blocks = ranking[..n_looked].to_vec();
                blocks.sort_unstable();
                (blocks, ranking.get(n_looked).copied())
            };
            let looked: Vec<(Vec<usize>, Option<usize>)> = map_indices(open.len(), || (), looked);
            let wanted: Vec<(usize, usize)> = open
                .iter()
                .zip(&looked)
                .flat_map(|(&token, (blocks, _))| blocks.iter().map(move |&block| (token, block)))
                .collect();
            let fetched = self.fetch(&wanted, wait).await?;
            let finish = |drawer: &mut Categorical, place: usize| {
                let (token, (blocks, next)) = (open[place], &looked[place]);
                let sums = self.sums_of(token, settings);
                let logits = &fetched[place * n_looked * BLOCK..][..n_looked * BLOCK];
                let total: f64 = sums.weights().sum();
                let unseen = next.map_or(f64::NEG_INFINITY, |block| sums.largest(block));
                if !holds_all_that_stay(logits, unseen, total, &sums, settings) {
                    return None;
                }
                let found = drawer.draw_among(logits, &[], settings, uniforms[token], Some(total))?;
                let logit = f64::from(logits[found.class]);
                Some(DrawnToken {
                    class: blocks[found.class / BLOCK] * BLOCK + found.class % BLOCK,
                    log_probability: logit - sums.best - sums.log_total()?,
                    margin: found.margin,
                })
            };
            let found: Vec<Option<DrawnToken>> = map_indices(open.len(), Categorical::default, finish);
            open.iter().zip(found).for_each(|(&token, found)| drawn[token] = found);
            open.retain(|&token| drawn[token].is_none());
            if n_looked == self.n_blocks {
                break;
            }
            n_looked = (4 * n_looked).min(self.n_blocks);
        }
        Ok(drawn)
    }
}

// Whether every class that top-k and top-p keep is among these, if no other class has a logit above `unseen`.
fn holds_all_that_stay(logits: &[f32], unseen: f64, total: f64, sums: &BlockSums, settings: &DrawSettings) -> bool {
    if unseen == f64::NEG_INFINITY {
        return true;
    }
    let above = logits.iter().map(|&logit| f64::from(logit)).filter(|&logit| logit > unseen);
    if settings.top_k > 0 {
        return above.count() >= settings.top_k;
    }
    let held: f64 = above.map(|logit| ((logit - sums.best) * sums.inverse_temperature).exp()).sum();
    held >= settings.top_p * total
}
