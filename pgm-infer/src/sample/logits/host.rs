//! Reading logits in host memory.

use pgm_model::ops::exponentials;

use super::reading::{Alternatives, LogitStats, PositionQuery, PositionReading};
use crate::parallel::map_indices;
use crate::sample::draw::{Categorical, sum};

/// Reads each query at its row of `values`; rows have `n_classes` logits.
pub(super) fn read(
    values: &[f32],
    n_classes: usize,
    queries: &[(usize, PositionQuery<'_>)],
    excluded: &[usize],
) -> Vec<PositionReading> {
    let read = |drawer: &mut Categorical, index: usize| {
        let (row, query) = &queries[index];
        let logits = &values[row * n_classes..][..n_classes];
        match query.allowed {
            None => read_one(drawer, logits, query, excluded),
            Some(allowed) => read_among(drawer, logits, query, allowed, excluded),
        }
    };
    map_indices(queries.len(), Categorical::default, read)
}

fn read_one(
    drawer: &mut Categorical,
    logits: &[f32],
    query: &PositionQuery<'_>,
    excluded: &[usize],
) -> PositionReading {
    PositionReading {
        token: drawer.draw(logits, excluded, &query.settings, query.draw.uniform),
        stats: if query.stats { stats(logits, excluded) } else { LogitStats::default() },
        alternatives: alternatives(logits, query.n_alternatives, excluded),
        log_mass: 0.0,
    }
}

// As if the classes `allowed` were all that there are. If the network gives probability 0 to each of them, they are equally
// probable.
fn read_among(
    drawer: &mut Categorical,
    logits: &[f32],
    query: &PositionQuery<'_>,
    allowed: &[u32],
    excluded: &[usize],
) -> PositionReading {
    let exists = |class: &usize| *class < logits.len() && !excluded.contains(class);
    let classes: Vec<usize> = allowed.iter().map(|&class| class as usize).filter(exists).collect();
    let mut of_classes: Vec<f32> = classes.iter().map(|&class| logits[class]).collect();
    let log_mass = log_sum(of_classes.iter().copied()) - log_sum_without(logits, excluded);
    if log_mass == f64::NEG_INFINITY {
        of_classes.fill(0.0);
    }
    let mut reading = read_one(drawer, &of_classes, query, &[]);
    reading.log_mass = log_mass;
    if let Some(token) = &mut reading.token {
        token.class = classes[token.class];
    }
    for (class, _) in &mut reading.alternatives {
        *class = classes[*class as usize] as u32;
    }
    reading
}

// Logarithm of the sum of exponentials; -inf for no logits, NaN if one of them is NaN or +inf.
fn log_sum(logits: impl Iterator<Item = f32> + Clone) -> f64 {
    let largest = logits.clone().fold(f32::NEG_INFINITY, f32::max);
    if largest == f32::NEG_INFINITY && !logits.clone().any(f32::is_nan) {
        return f64::NEG_INFINITY;
    }
    let largest = f64::from(largest);
    largest + logits.map(|logit| (f64::from(logit) - largest).exp()).sum::<f64>().ln()
}

fn log_sum_without(logits: &[f32], excluded: &[usize]) -> f64 {
    log_sum(logits.iter().enumerate().filter(|(class, _)| !excluded.contains(class)).map(|(_, &logit)| logit))
}

/// The `n` most probable classes; of equal logits the lower class comes first.
pub(super) fn alternatives(logits: &[f32], n: usize, excluded: &[usize]) -> Alternatives {
    if n == 0 {
        return Vec::new();
    }
    let mut classes: Vec<usize> = (0..logits.len()).filter(|class| !excluded.contains(class)).collect();
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

fn stats(logits: &[f32], excluded: &[usize]) -> LogitStats {
    let allowed = || {
        let logits = logits.iter().enumerate().filter(|(class, _)| !excluded.contains(class));
        logits.map(|(_, &logit)| f64::from(logit))
    };
    let (mut best, mut second) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    for logit in allowed() {
        if logit > best {
            (best, second) = (logit, best);
        } else if logit > second {
            second = logit;
        }
    }
    let mut weights = vec![0.0; logits.len()];
    exponentials(logits, best as f32, 1.0, &mut weights);
    excluded.iter().filter(|&&class| class < logits.len()).for_each(|&class| weights[class] = 0.0);
    let total = sum(&weights);
    // A class of probability 0 has no share of the entropy; its logit may be -inf.
    let share = |(weight, logit): (&f64, &f32)| if *weight > 0.0 { weight * (f64::from(*logit) - best) } else { 0.0 };
    let weighted: f64 = weights.iter().zip(logits).map(share).sum();
    let second = if second == f64::NEG_INFINITY { 0.0 } else { (second - best).exp() };
    LogitStats { margin: (1.0 - second) / total, entropy: total.ln() - weighted / total }
}
