//! Models at one wall time: which number of steps it allows, and how their perplexities at matched entropy compare.

use serde::{Deserialize, Serialize};

use super::curve::FrontierCurve;
use super::matched::{Resampled, time_to_reach};
use crate::judge::metrics::{Estimate, central};

/// Models at one wall time. The first model is the one that the others are compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EqualTime {
    /// The wall time of a sample that no chosen curve exceeds, in seconds.
    pub seconds: f64,
    /// Whether a caller gave it. Otherwise it is the least wall time at which every model has a curve.
    pub given: bool,
    /// One for each model, in their order.
    pub choices: Vec<Choice>,
}

/// A model at a wall time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The model's name.
    pub model: String,
    /// The curve with the most steps whose wall time fits, an index of the frontier's curves. Of several with as many steps it
    /// is that with the lowest matched perplexity. Absent when none fits.
    pub curve: Option<usize>,
    /// The curve with the least wall time.
    pub fastest: usize,
    /// The first model's matched perplexity divided by this one's: below 1 the first model is better. Absent for the first
    /// model, and where either has none.
    pub ratio: Option<Estimate>,
    /// The wall time at which this model reaches the first model's matched perplexity. Absent for the first model, and where
    /// either has no matched perplexity.
    pub reached: Option<Reached>,
}

/// When a model reaches a perplexity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reached {
    /// Not with any of its curves.
    Never,
    /// With the fastest of its curves that reach the entropy, an index of the frontier's curves.
    AtOnce {
        /// The curve.
        curve: usize,
    },
    /// Between two curves: the wall time divided by the first model's. An end that is not reached is absent.
    Times {
        /// The ratio, read along the logarithms of wall time and perplexity.
        value: f64,
        /// 95 %, over the samples; the noise of the wall times is not in it.
        interval: Option<[Option<f64>; 2]>,
    },
}

/// Compares the models of `curves`; `matched` are the logarithms of the curves' perplexities at the entropy of held-out text.
pub(super) fn compare(curves: &[FrontierCurve], matched: &[Resampled], seconds: Option<f64>) -> EqualTime {
    let mut models: Vec<(&str, Vec<usize>)> = Vec::new();
    for (index, curve) in curves.iter().enumerate() {
        let name = curve.variant.model.as_str();
        match models.last_mut() {
            Some((model, own)) if *model == name => own.push(index),
            _ => models.push((name, vec![index])),
        }
    }
    let time = |index: &usize| curves[*index].wall_time.median;
    let fastest = |own: &[usize]| *own.iter().min_by(|a, b| time(a).total_cmp(&time(b))).unwrap_or(&0);
    let least = models.iter().map(|(_, own)| time(&fastest(own))).fold(0.0, f64::max);
    let limit = seconds.unwrap_or(least);
    let chosen = |own: &[usize]| {
        let perplexity =
            |index: usize| if matched[index].value.is_nan() { f64::INFINITY } else { matched[index].value };
        let fitting = own.iter().copied().filter(|index| time(index) <= limit);
        fitting.max_by(|&a, &b| {
            let more_steps = curves[a].variant.steps.cmp(&curves[b].variant.steps);
            more_steps.then(perplexity(b).total_cmp(&perplexity(a)))
        })
    };
    let reference = models.first().and_then(|(_, own)| chosen(own)).filter(|&index| matched[index].value.is_finite());
    let choice = |(number, (name, own)): (usize, &(&str, Vec<usize>))| {
        let (curve, fastest) = (chosen(own), fastest(own));
        let other = reference.filter(|_| number > 0);
        let ratio = other.zip(curve).and_then(|(reference, own)| {
            Resampled::map(&[&matched[reference], &matched[own]], |logs, _| logs[0] - logs[1]).exponential()
        });
        let reached = other.and_then(|reference| {
            // The curves of one top-p.
            let top_p = curves[curve.unwrap_or(fastest)].top_p;
            let family = own.iter().copied().filter(|&index| curves[index].top_p == top_p);
            let mut family: Vec<usize> = family.filter(|&index| matched[index].value.is_finite()).collect();
            family.sort_by(|a, b| time(a).total_cmp(&time(b)));
            let first = *family.first()?;
            let family: Vec<(f64, &Resampled)> =
                family.iter().map(|&index| (time(&index).ln(), &matched[index])).collect();
            Some(reached(first, &family, &matched[reference], time(&reference).ln()))
        });
        Choice { model: name.to_string(), curve, fastest, ratio, reached }
    };
    EqualTime { seconds: limit, given: seconds.is_some(), choices: models.iter().enumerate().map(choice).collect() }
}

// family: logarithms of the wall time and of the perplexity, from the fastest, which is the curve `first`
fn reached(first: usize, family: &[(f64, &Resampled)], target: &Resampled, time: f64) -> Reached {
    let found = time_to_reach(family, target);
    if found.value == f64::INFINITY {
        return Reached::Never;
    }
    if found.value <= family[0].0 {
        return Reached::AtOnce { curve: first };
    }
    let interval = central(found.resamples.iter().map(|log| log - time).collect());
    let end = |log: f64| log.is_finite().then(|| log.exp());
    Reached::Times { value: (found.value - time).exp(), interval: interval.map(|ends| ends.map(end)) }
}

#[cfg(test)]
mod tests {
    use super::super::settings::Variant;
    use super::super::timing::WallTime;
    use super::*;

    fn curve(model: &str, steps: Option<usize>, seconds: f64) -> FrontierCurve {
        FrontierCurve {
            name: model.into(),
            variant: Variant { model: model.into(), kind: "masked".into(), steps, refresh: None },
            top_p: Some(1.0),
            wall_time: WallTime { median: seconds, least: seconds, most: seconds },
            matched: None,
            points: Vec::new(),
        }
    }

    fn log(perplexity: f64) -> Resampled {
        Resampled { value: perplexity.ln(), resamples: [0.9, 1.0, 1.1].map(|part| (part * perplexity).ln()).to_vec() }
    }

    #[test]
    fn each_model_takes_the_most_steps_that_fit() {
        let curves = [
            curve("pgm", Some(8), 1.0),
            curve("pgm", Some(16), 2.0),
            curve("pgm", Some(32), 4.0),
            curve("masked", Some(8), 3.0),
            curve("masked", Some(16), 6.0),
            curve("ar", None, 20.0),
        ];
        let matched = [log(80.0), log(70.0), log(60.0), log(75.0), log(50.0), log(10.0)];
        let found = compare(&curves, &matched, Some(3.5));
        let chosen: Vec<Option<usize>> = found.choices.iter().map(|choice| choice.curve).collect();
        assert_eq!((chosen, found.given), (vec![Some(1), Some(3), None], true));
        assert_eq!((found.choices[0].ratio, found.choices[0].reached), (None, None));
        // 70 against 75; both are resampled together, so the interval of the ratio is its value.
        let ratio = found.choices[1].ratio.unwrap();
        let [low, high] = ratio.interval.unwrap();
        assert!((ratio.value - 70.0 / 75.0).abs() < 1e-12 && high - low < 1e-9, "{ratio:?}");
        // masked reaches 70 between its two curves, 3 and 6 seconds, which is 1.5 to 3 times pgm's 2 seconds.
        let Some(Reached::Times { value, interval }) = found.choices[1].reached else { panic!("{found:?}") };
        let expected = 1.5 * 2_f64.powf((75_f64 / 70.0).ln() / (75_f64 / 50.0).ln());
        assert!((value - expected).abs() < 1e-9 && interval.is_some(), "{value} {expected}");
        assert_eq!(found.choices[2].reached, Some(Reached::AtOnce { curve: 5 }));
        assert_eq!((found.choices[2].ratio, found.choices[2].fastest), (None, 5));
        // A curve that does not reach the entropy says nothing, however fast it is.
        let nothing = Resampled { value: f64::NAN, resamples: vec![f64::NAN; 3] };
        let matched = [log(80.0), log(70.0), log(60.0), nothing, log(50.0), log(10.0)];
        let found = compare(&curves, &matched, Some(3.5));
        assert_eq!((found.choices[1].reached, found.choices[1].fastest), (Some(Reached::AtOnce { curve: 4 }), 3));
    }

    #[test]
    fn without_a_wall_time_it_is_the_least_at_which_every_model_has_a_curve() {
        let curves = [curve("a", Some(8), 1.0), curve("a", Some(16), 2.0), curve("b", Some(8), 1.5)];
        let nothing = Resampled { value: f64::NAN, resamples: vec![f64::NAN; 3] };
        let found = compare(&curves, &[log(80.0), log(70.0), log(90.0)], None);
        assert_eq!((found.seconds, found.given), (1.5, false));
        assert_eq!((found.choices[0].curve, found.choices[1].curve), (Some(0), Some(2)));
        assert_eq!(found.choices[1].reached, Some(Reached::Never));
        // A first model without a matched perplexity is compared with nothing.
        let found = compare(&curves, &[nothing, log(70.0), log(90.0)], None);
        assert_eq!((found.choices[1].ratio, found.choices[1].reached), (None, None));
    }
}
