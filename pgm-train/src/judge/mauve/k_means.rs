//! K-means: Lloyd's algorithm from k-means++ starts.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

const RESTARTS: usize = 5;
const ITERATIONS: usize = 500;

/// The bucket of each row, from the best of a few runs: that with the least sum of squared distances to the centres.
pub(super) fn best(rows: &[Vec<f64>], buckets: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let runs = (0..RESTARTS).map(|_| k_means(rows, buckets, rng));
    let (members, _) = runs.min_by(|a, b| a.1.total_cmp(&b.1)).expect("RESTARTS is not 0");
    members
}

// Eight partial sums, which the compiler keeps in vector registers.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    (dot(a, a) + dot(b, b) - 2.0 * dot(a, b)).max(0.0)
}

// The bucket of each row, and the sum of squared distances of the rows to their centres.
fn k_means(rows: &[Vec<f64>], buckets: usize, rng: &mut ChaCha8Rng) -> (Vec<usize>, f64) {
    let mut centres = starts(rows, buckets, rng);
    let mut members = vec![usize::MAX; rows.len()];
    for _ in 0..ITERATIONS {
        let offsets: Vec<f64> = centres.iter().map(|centre| 0.5 * dot(centre, centre)).collect();
        let nearest = |row: &Vec<f64>| {
            let scores = centres.iter().zip(&offsets).map(|(centre, offset)| offset - dot(row, centre));
            scores.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(bucket, _)| bucket)
        };
        let found: Vec<usize> = rows.iter().map(nearest).collect();
        if found == members {
            break;
        }
        members = found;
        let mut counts = vec![0_usize; buckets];
        members.iter().for_each(|&bucket| counts[bucket] += 1);
        // An empty bucket keeps its centre; it adds nothing to either histogram.
        centres.iter_mut().zip(&counts).filter(|(_, count)| **count > 0).for_each(|(centre, _)| centre.fill(0.0));
        for (row, &bucket) in rows.iter().zip(&members) {
            let share = 1.0 / counts[bucket] as f64;
            centres[bucket].iter_mut().zip(row).for_each(|(sum, value)| *sum += share * value);
        }
    }
    let spread = rows.iter().zip(&members).map(|(row, &bucket)| squared_distance(row, &centres[bucket])).sum();
    (members, spread)
}

// k-means++: each further centre is a row drawn with probability proportional to its squared distance to the nearest
// centre so far.
fn starts(rows: &[Vec<f64>], buckets: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<f64>> {
    let mut centres = vec![rows[rng.random_range(0..rows.len())].clone()];
    let mut nearest = vec![f64::INFINITY; rows.len()];
    while centres.len() < buckets {
        let newest = &centres[centres.len() - 1];
        for (least, row) in nearest.iter_mut().zip(rows) {
            *least = least.min(squared_distance(row, newest));
        }
        let mut left = rng.random::<f64>() * nearest.iter().sum::<f64>();
        let drawn = nearest.iter().position(|distance| {
            left -= distance;
            left < 0.0
        });
        centres.push(rows[drawn.unwrap_or(rows.len() - 1)].clone());
    }
    centres
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn separate_groups_are_found_and_a_run_is_at_a_local_optimum() {
        let rows: Vec<Vec<f64>> =
            (0..60).map(|i| vec![f64::from(i % 3) * 10.0 + f64::from(i) / 60.0, f64::from(i % 7) / 7.0]).collect();
        let members = best(&rows, 3, &mut ChaCha8Rng::seed_from_u64(5));
        for i in 0..57 {
            assert_eq!(members[i], members[i + 3]);
        }
        assert!(members[0] != members[1] && members[1] != members[2] && members[0] != members[2]);
        // Every row is nearest to the mean of its own bucket, also where buckets are not the groups.
        let members = best(&rows, 9, &mut ChaCha8Rng::seed_from_u64(6));
        let mean = |bucket: usize, at: usize| {
            let own: Vec<f64> =
                rows.iter().zip(&members).filter(|(_, member)| **member == bucket).map(|(row, _)| row[at]).collect();
            own.iter().sum::<f64>() / own.len() as f64
        };
        let centres: Vec<Vec<f64>> = (0..9)
            .filter(|bucket| members.contains(bucket))
            .map(|bucket| vec![mean(bucket, 0), mean(bucket, 1)])
            .collect();
        for (row, &member) in rows.iter().zip(&members) {
            let own = squared_distance(row, &[mean(member, 0), mean(member, 1)]);
            assert!(centres.iter().all(|centre| own <= squared_distance(row, centre) + 1e-9));
        }
    }
}
