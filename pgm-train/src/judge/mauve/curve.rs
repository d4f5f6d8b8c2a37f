//! The divergence curve of two histograms and the area under it.

const SCALE: f64 = 5.0;
const MIXTURES: usize = 25;

/// The shares of the buckets, with `added` to every count.
pub(super) fn histogram(members: &[usize], buckets: usize, added: f64) -> Vec<f64> {
    let mut counts = vec![added; buckets];
    members.iter().for_each(|&bucket| counts[bucket] += 1.0);
    let all = members.len() as f64 + added * buckets as f64;
    counts.iter().map(|count| count / all).collect()
}

/// The area under the curve of two histograms.
pub(super) fn area(p: &[f64], q: &[f64]) -> f64 {
    let margin = 1e-6;
    let mixture = |index: usize| margin + (1.0 - 2.0 * margin) * index as f64 / (MIXTURES - 1) as f64;
    let point = |index: usize| {
        let weight = mixture(index);
        let between: Vec<f64> = p.iter().zip(q).map(|(p, q)| weight * p + (1.0 - weight) * q).collect();
        [(-SCALE * divergence(q, &between)).exp(), (-SCALE * divergence(p, &between)).exp()]
    };
    let mut points: Vec<[f64; 2]> = (0..MIXTURES).map(point).collect();
    points.extend([[0.0, 1.0], [1.0, 0.0]]);
    let mut under = |x: usize, y: usize| {
        // Points of equal x in descending y, as the curve falls.
        points.sort_by(|a, b| a[x].total_cmp(&b[x]).then(b[y].total_cmp(&a[y])));
        points.windows(2).map(|pair| (pair[1][x] - pair[0][x]) * (pair[0][y] + pair[1][y]) / 2.0).sum::<f64>()
    };
    let (first, second) = (under(0, 1), under(1, 0));
    (first + second) / 2.0
}

// KL(a | b) in nats.
fn divergence(a: &[f64], b: &[f64]) -> f64 {
    let terms = a.iter().zip(b).filter(|(a, _)| **a > 0.0).map(|(a, b)| a * (a / b).ln());
    terms.sum::<f64>().max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_of_known_histograms() {
        assert!((area(&[0.25, 0.75], &[0.25, 0.75]) - 1.0).abs() < 1e-12);
        // Disjoint: the area under ((1 - w)^5, w^5) is 5! 5! / 10! = 1 / 252; trapezoids overestimate it a little.
        let disjoint = area(&[1.0, 0.0], &[0.0, 1.0]);
        assert!(disjoint > 1.0 / 252.0 && disjoint < 1.0 / 252.0 + 2e-4, "{disjoint}");
        let (p, q) = ([0.5, 0.3, 0.2, 0.0], [0.1, 0.3, 0.1, 0.5]);
        let some = area(&p, &q);
        // The reference package (mauve-text 0.4.0) gives this value.
        assert!((some - 0.206_194_108_692).abs() < 1e-10, "{some}");
        assert!((some - area(&q, &p)).abs() < 1e-12);
    }

    // The integral of y dx and of x dy over ten thousand mixtures, without sorting: the curve is monotone in the weight.
    #[test]
    fn the_area_is_the_integral_of_the_curve() {
        let (p, q) = ([0.4, 0.3, 0.2, 0.1], [0.2, 0.2, 0.3, 0.3]);
        let n = 10_000;
        let kl = |a: &[f64; 4], r: &[f64; 4]| -> f64 { (0..4).map(|i| a[i] * (a[i] / r[i]).ln()).sum() };
        let curve: Vec<[f64; 2]> = (0..=n)
            .map(|i| {
                let w = f64::from(i) / f64::from(n);
                let r = std::array::from_fn(|at| w * p[at] + (1.0 - w) * q[at]);
                [(-5.0 * kl(&q, &r)).exp(), (-5.0 * kl(&p, &r)).exp()]
            })
            .collect();
        // From x = 1 (w = 0) to x = 0, where the curve is closed by (0, 1) and (1, 0).
        let mut closed = vec![[1.0, 0.0]];
        closed.extend(curve);
        closed.push([0.0, 1.0]);
        let integral: f64 =
            closed.windows(2).map(|pair| (pair[0][0] - pair[1][0]) * (pair[0][1] + pair[1][1]) / 2.0).sum();
        let found = area(&p, &q);
        assert!((found - integral).abs() < 2e-3, "{found} {integral}");
    }

    #[test]
    fn a_divergence_by_hand() {
        let expected = 0.5 * (0.5_f64 / 0.25).ln() + 0.5 * (0.5_f64 / 0.75).ln();
        assert!((divergence(&[0.5, 0.5, 0.0], &[0.25, 0.75, 0.0]) - expected).abs() < 1e-12);
    }

    #[test]
    fn histograms_with_and_without_smoothing() {
        assert_eq!(histogram(&[0, 2, 2, 2], 3, 0.0), [0.25, 0.0, 0.75]);
        assert_eq!(histogram(&[0, 2, 2, 2], 4, 0.5), [1.5 / 6.0, 0.5 / 6.0, 3.5 / 6.0, 0.5 / 6.0]);
    }
}
