//! The comparison with the paper in `results.md`: sentences chosen by the measured numbers.

use std::cmp::Ordering;
use std::fmt::Write;

use pgm_train::judge::metrics::Estimate;

use crate::evaluate::{Difference, Findings, GeneratedSamples};
use crate::report::title;
use crate::{DISTILLED, SET_CAUSAL, Study, WIDE};

impl Study {
    /// The samples of a trained model (no `targets`) or of its last student, at a number of sampling steps.
    pub fn generated_at<'a>(
        &self,
        found: &'a Findings,
        kind: &str,
        targets: Option<&str>,
        steps: usize,
    ) -> Option<&'a GeneratedSamples> {
        let rounds = if targets.is_some() { self.plan.rounds } else { 0 };
        found
            .generated
            .iter()
            .find(|row| row.kind == kind && row.targets == targets && row.rounds == rounds && row.steps == Some(steps))
    }

    /// Writes the comparison with the paper.
    pub fn conclusions(&self, out: &mut String, found: &Findings) -> std::fmt::Result {
        writeln!(out, "## Beside the paper\n")?;
        self.at_equal_time(out, found)?;
        let of = |kind: &str, other: &str| Comparison::new(found, kind, other);
        let against_masked = of("pgm", "masked");
        let nats = against_masked.shown();
        match against_masked.verdict() {
            Some(true) => writeln!(
                out,
                "* **PGM is ahead of masked at equal steps** ({nats}), as in the paper at short lengths: each step supervises \
                 every position, the masked loss about half of them."
            )?,
            Some(false) => writeln!(
                out,
                "* **PGM is behind masked at equal steps** ({nats}); in the paper it is ahead on LM1B (rows of 128) and behind \
                 on OpenWebText at equal width and depth, where a wider or a deeper one is ahead. This is the likelihood of \
                 equal steps, not of equal time: see the frontier."
            )?,
            None => writeln!(
                out,
                "* PGM and masked **cannot be told apart at equal steps**: {nats}. The paper, with a million steps instead of \
                 {}, finds PGM ahead at short lengths.",
                self.plan.steps
            )?,
        }
        let wide = of(WIDE, "masked");
        writeln!(
            out,
            "* The wider PGM {} at equal steps ({}); the paper's, 6/6-1024 on OpenWebText, is ahead.",
            match wide.verdict() {
                Some(true) => "is ahead of masked",
                Some(false) => "is behind masked, too",
                None => "cannot be told from masked",
            },
            wide.shown()
        )?;
        let complementary = of("complementary", "masked");
        match complementary.verdict() {
            Some(true) => writeln!(
                out,
                "* Complementary masks are ahead of masked at equal steps ({}), as in the paper, at twice the work of a step: \
                 the denser supervision helps by itself.",
                complementary.shown()
            )?,
            Some(false) => writeln!(
                out,
                "* Complementary masks are behind masked ({}), unlike in the paper.",
                complementary.shown()
            )?,
            None => writeln!(
                out,
                "* Complementary masks, twice the work of a step, cannot be told from masked here ({}); in the paper they are \
                 ahead.",
                complementary.shown()
            )?,
        }
        let causal = of(SET_CAUSAL, "pgm");
        writeln!(
            out,
            "* A set for each token, so that each is encoded once when sampling, changes the bound by {}: {}.",
            causal.shown(),
            match causal.verdict() {
                Some(true) => "it is lower, so nothing is paid for the speed",
                Some(false) => "it is higher, which is the price of the speed",
                None => "nothing that these seeds can tell",
            }
        )?;
        let ar = found.trained.iter().find(|model| model.kind == "ar").and_then(|model| model.ppl.perplexity);
        let pgm = found.trained.iter().find(|model| model.kind == "pgm").and_then(|model| model.ppl.perplexity);
        if let (Some(ar), Some(pgm)) = (ar, pgm) {
            writeln!(
                out,
                "* The autoregressive model has {:.2} against PGM's bound of {:.2}: the order in the paper too. At this \
                 size the gap is wider, since one fixed order is learnt sooner than all of them.",
                ar.value, pgm.value
            )?;
        }
        for kind in DISTILLED {
            let few = self.plan.sampling_steps[0];
            let at = |targets| self.generated_at(found, kind, targets, few);
            let (Some(teacher), Some(one), Some(both)) = (at(None), at(Some("one")), at(Some("both"))) else {
                continue;
            };
            writeln!(
                out,
                "* Distilled {}, at {few} steps: over one group it {}; over both it {}.",
                title(kind),
                change(teacher, one),
                change(teacher, both)
            )?;
        }
        self.one_against_both(out, found)?;
        self.speeds(out, found)?;
        let guesses = found.trained.iter().filter(|model| {
            let [low, high] = model.choice.accuracy.and_then(|accuracy| accuracy.interval).unwrap_or([0.0, 1.0]);
            (low..=high).contains(&model.choice.chance)
        });
        writeln!(
            out,
            "* In the choice among continuations {} of the {} models cannot be told from guessing: at this size the task \
             shows that the measurement runs, not who is better.\n",
            guesses.count(),
            found.trained.len()
        )
    }

    // Who is better at one wall time, read off the frontier: the speed that a perplexity at equal steps leaves out.
    fn at_equal_time(&self, out: &mut String, found: &Findings) -> std::fmt::Result {
        let choices = &found.frontier.equal_time.choices;
        let Some(first) = choices.first().map(|choice| &choice.model) else { return Ok(()) };
        let who = |verdict: fn([f64; 2]) -> bool| {
            let ends = choices.iter().filter_map(|choice| Some((choice, choice.ratio?.interval?)));
            let names: Vec<&str> =
                ends.filter(|(_, ends)| verdict(*ends)).map(|(choice, _)| choice.model.as_str()).collect();
            if names.is_empty() { "none".to_string() } else { names.join(", ") }
        };
        writeln!(
            out,
            "* **At equal wall time and the entropy of held-out text** {first} is better than: {}; worse than: {}; cannot be \
             told from: {}. These are models of one seed; the likelihoods say what another seed changes. The paper compares at equal \
             steps, with the speed beside it.",
            who(|[_, high]| high < 1.0),
            who(|[low, _]| low > 1.0),
            who(|[low, high]| low <= 1.0 && high >= 1.0)
        )
    }

    // Distillation with targets over both groups against targets over one.
    fn one_against_both(&self, out: &mut String, found: &Findings) -> std::fmt::Result {
        for kind in DISTILLED {
            let at = |targets, steps| self.generated_at(found, kind, Some(targets), steps);
            let steps = self.plan.sampling_steps.iter();
            let pairs: Vec<_> = steps.filter_map(|&steps| at("one", steps).zip(at("both", steps))).collect();
            let lower = pairs.iter().filter(|(one, both)| both.perplexity() < one.perplexity()).count();
            let poorer = pairs.iter().filter(|(one, both)| both.entropy() < one.entropy()).count();
            let ratio = pairs.iter().map(|(one, both)| (both.perplexity() / one.perplexity()).ln()).sum::<f64>();
            writeln!(
                out,
                "* Both groups against one, {}: perplexity is lower at {lower} of {} numbers of steps (by the geometric \
                 mean x{:.3}), entropy at {poorer}.",
                title(kind),
                pairs.len(),
                (ratio / pairs.len() as f64).exp()
            )?;
        }
        writeln!(
            out,
            "* Both groups give each step twice the targets. For a PGM the student's two predictions are one evaluation, \
             but the teacher decodes twice; for a masked model everything doubles."
        )
    }

    fn speeds(&self, out: &mut String, found: &Findings) -> std::fmt::Result {
        let rate = |kind: &str, steps| self.generated_at(found, kind, None, steps).map(|row| row.rate);
        let ratios = self.plan.sampling_steps.iter().filter_map(|&steps| {
            let ratio = rate("pgm", steps)? / rate("masked", steps)?;
            Some(format!("{ratio:.1} at {steps}"))
        });
        let ratios: Vec<String> = ratios.collect();
        write!(out, "* PGM's tokens/s over masked at equal steps: {}.", ratios.join(", "))?;
        if let Some(ar) = found.generated.iter().find(|row| row.kind == "ar") {
            let (rate, perplexity) = (ar.rate, ar.perplexity());
            write!(out, " The autoregressive model draws {rate:.0} tokens/s, with a perplexity of {perplexity:.2}")?;
            let others = || found.generated.iter().filter(|row| row.kind != "ar");
            if others().all(|row| row.rate < rate && row.perplexity() > perplexity) {
                write!(
                    out,
                    ": at this size it is faster and better than every parallel sampler, under a judge of its own kind and \
                     with a cache over no more than {} bytes. What the others have here is any order and any gap",
                    self.plan.length
                )?;
            }
            write!(out, ".")?;
        }
        writeln!(out)
    }
}

/// How far apart the seeds of one kind are, and what the differences of two kinds are worth beside that.
struct Comparison<'a> {
    differences: Vec<&'a Difference>,
    // The largest distance between two trainings of one of the kinds that differ in their seed only, nats.
    between_seeds: f64,
}

impl<'a> Comparison<'a> {
    fn new(found: &'a Findings, kind: &str, other: &str) -> Self {
        let between = |kind: &str| {
            let of_kind = found.trained.iter().filter(|model| model.kind == kind);
            let nats: Vec<f64> = of_kind.filter_map(|model| Some(model.ppl.perplexity?.value.ln())).collect();
            let ends = nats.iter().fold(None, |ends: Option<[f64; 2]>, &value| {
                Some(ends.map_or([value; 2], |[low, high]| [low.min(value), high.max(value)]))
            });
            ends.map_or(0.0, |[low, high]| high - low)
        };
        let differences = found.differences.iter().filter(|row| row.kind == kind && row.other == other).collect();
        Self { differences, between_seeds: between(kind).max(between(other)) }
    }

    // Whether the first kind is better: true when every seed says so, outside its interval and by more than two seeds differ,
    // false when every seed says the reverse in this way.
    fn verdict(&self) -> Option<bool> {
        let is = |sign: f64| {
            let clear = |row: &&Difference| {
                let outside = row.nats.interval.is_some_and(|ends| ends.iter().all(|end| sign * end > 0.0));
                outside && row.nats.value.abs() > self.between_seeds
            };
            !self.differences.is_empty() && self.differences.iter().all(clear)
        };
        if is(-1.0) {
            Some(true)
        } else if is(1.0) {
            Some(false)
        } else {
            None
        }
    }

    // The differences by seed, and how far apart seeds are.
    fn shown(&self) -> String {
        let nats: Vec<String> = self.differences.iter().map(|row| Estimate::shown(Some(row.nats), 4)).collect();
        format!("{} nats, where two seeds of one kind lie up to {:.3} apart", nats.join(" and "), self.between_seeds)
    }
}

// How a student's samples are, compared with its teacher's: by intervals, not by the values alone.
fn change(teacher: &GeneratedSamples, student: &GeneratedSamples) -> String {
    let compared = |of: fn(&GeneratedSamples) -> Option<Estimate>| {
        let [before, now] = [teacher, student].map(|row| of(row).and_then(|estimate| estimate.interval));
        match (before, now) {
            (Some([low, _]), Some([_, high])) if high < low => Ordering::Less,
            (Some([_, high]), Some([low, _])) if low > high => Ordering::Greater,
            _ => Ordering::Equal,
        }
    };
    let perplexity = compared(|row| row.report.paper.perplexity);
    let entropy = compared(|row| row.report.entropy_model_tokens);
    let words = match (perplexity, entropy) {
        (Ordering::Less, Ordering::Less) => "trades entropy for perplexity, as in the paper",
        (Ordering::Less, _) => "lowers perplexity without losing entropy",
        (Ordering::Greater, Ordering::Greater) => "trades perplexity for entropy",
        (Ordering::Greater, _) => "raises perplexity and gains no entropy",
        (Ordering::Equal, Ordering::Less) => "loses entropy and gains nothing",
        (Ordering::Equal, Ordering::Greater) => "gains entropy at no cost",
        (Ordering::Equal, Ordering::Equal) => "cannot be told from its teacher",
    };
    format!(
        "{words} ({:.2} to {:.2}, entropy {:.3} to {:.3})",
        teacher.perplexity(),
        student.perplexity(),
        teacher.entropy(),
        student.entropy()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_every_seed_its_interval_and_more_than_seeds_differ_by() {
        let difference = |seed: u64, value: f64| {
            let nats = Estimate { value, interval: Some([value - 0.01, value + 0.01]) };
            Difference { kind: "pgm", other: "masked", seed, nats }
        };
        for (values, between_seeds, expected) in [
            (&[-0.2, -0.19][..], 0.1, Some(true)),
            (&[0.2, 0.19], 0.1, Some(false)),
            (&[-0.046, -0.02], 0.09, None),
            (&[-0.2, -0.005], 0.0, None),
            (&[-0.2, 0.2], 0.1, None),
            (&[], 0.0, None),
        ] {
            let rows: Vec<Difference> = values.iter().enumerate().map(|(i, &v)| difference(i as u64, v)).collect();
            let comparison = Comparison { differences: rows.iter().collect(), between_seeds };
            assert_eq!(comparison.verdict(), expected, "{values:?}");
        }
    }
}
