//! The comparison with the paper in `results.md`: sentences chosen by the measured numbers.

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
        let of = |kind: &str, other: &str| -> Vec<&Difference> {
            found.differences.iter().filter(|row| row.kind == kind && row.other == other).collect()
        };
        let against_masked = of("pgm", "masked");
        match verdict(&against_masked) {
            Some(true) => writeln!(
                out,
                "* **PGM is ahead of masked at equal steps**, with every seed and outside the intervals, as in the paper \
                 at short lengths: each step supervises every position, the masked loss about half of them."
            )?,
            Some(false) => writeln!(
                out,
                "* **PGM is behind masked at equal steps**, with every seed and outside the intervals; in the paper it is \
                 ahead on LM1B (rows of 128) and behind on OpenWebText at equal width and depth, where a wider or a deeper one \
                 is ahead. This is the likelihood of equal steps, not of equal time: see the frontier."
            )?,
            None => writeln!(
                out,
                "* PGM and masked **cannot be told apart** at this size: the seeds disagree or an interval holds 0. The \
                 paper, with a million steps instead of {}, finds PGM ahead at short lengths.",
                self.plan.steps
            )?,
        }
        writeln!(
            out,
            "* The wider PGM {} at equal steps; the paper's, 6/6-1024 on OpenWebText, is ahead.",
            match verdict(&of(WIDE, "masked")) {
                Some(true) => "is ahead of masked with every seed",
                Some(false) => "is behind masked with every seed, too",
                None => "cannot be told from masked (the seeds disagree, or an interval holds 0)",
            }
        )?;
        match verdict(&of("complementary", "masked")) {
            Some(true) => writeln!(
                out,
                "* Complementary masks are ahead of masked at equal steps, as in the paper, at twice the work of a step: \
                 the denser supervision helps by itself."
            )?,
            Some(false) => writeln!(out, "* Complementary masks are behind masked, unlike in the paper.")?,
            None => writeln!(
                out,
                "* Complementary masks, twice the work of a step, cannot be told from masked here; in the paper they are \
                 ahead."
            )?,
        }
        let causal = of(SET_CAUSAL, "pgm");
        let nats: Vec<String> = causal.iter().map(|row| Estimate::shown(Some(row.nats), 4)).collect();
        writeln!(
            out,
            "* A set for each token, so that each is encoded once when sampling, changes the bound by {} nats per byte: {}.",
            nats.join(" and "),
            match verdict(&causal) {
                Some(true) => "it is lower with every seed, so nothing is paid for the speed",
                Some(false) => "it is higher with every seed, which is the price of the speed",
                None => "the seeds disagree, or an interval holds 0",
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
            let change = |row: &GeneratedSamples| {
                let lower = row.perplexity() < teacher.perplexity();
                let poorer = row.entropy() < teacher.entropy();
                let words = match (lower, poorer) {
                    (true, true) => "trades entropy for perplexity, as in the paper",
                    (true, false) => "lowers perplexity without losing entropy",
                    (false, true) => "loses entropy and gains nothing",
                    (false, false) => "neither lowers perplexity nor loses entropy",
                };
                format!(
                    "{words} ({:.2} to {:.2}, entropy {:.3} to {:.3})",
                    teacher.perplexity(),
                    row.perplexity(),
                    teacher.entropy(),
                    row.entropy()
                )
            };
            writeln!(
                out,
                "* Distilled {}, at {few} steps: over one group it {}; over both it {}.",
                title(kind),
                change(one),
                change(both)
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
             told from: {}. The paper compares at equal steps, with the speed beside it.",
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

// Whether the first kind is better: true when every interval lies below 0, false when every interval lies above.
fn verdict(differences: &[&Difference]) -> Option<bool> {
    let below = |row: &&Difference| row.nats.interval.is_some_and(|[_, high]| high < 0.0);
    let above = |row: &&Difference| row.nats.interval.is_some_and(|[low, _]| low > 0.0);
    if differences.iter().all(below) {
        Some(true)
    } else if differences.iter().all(above) {
        Some(false)
    } else {
        None
    }
}
