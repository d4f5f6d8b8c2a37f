//! What the study measures. Each measurement keeps a progress file in `eval/`, so that reading it again costs nothing.

use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::{anyhow, bail};
use pgm_data::{DataFolder, RowOrder, Split};
use pgm_infer::bench::median;
use pgm_train::StepOptions;
use pgm_train::eval::{
    self, ChoiceSettings, EvalModel, GenerativeSettings, GreedySettings, LastWord, PplSettings, Question, ResultLog,
    RowNats,
};
use pgm_train::history::{self, Line};
use pgm_train::judge::metrics::{Estimate, interval};
use pgm_train::judge::{JudgeReport, JudgeSettings, OwnJudge, Sample, judge_samples};
use pgm_train::{Objective, TrainError, bench};
use serde_json::{Value, json};

use crate::{KINDS, Study};

/// Seed of every measurement.
const SEED: u64 = 20;

/// Everything that was measured.
pub struct Findings {
    /// The trained models, kinds first, then seeds.
    pub trained: Vec<Trained>,
    /// Difference of the bounds of two kinds on the same rows, times and groups, nats per token, each seed.
    pub differences: Vec<Difference>,
    /// Samples of each kind and of each student at each number of steps.
    pub generated: Vec<Generated>,
    /// Held-out rows under the judge, as a sample of perfect quality.
    pub real: JudgeReport,
    /// The judge's perplexity on held-out rows.
    pub judge_perplexity: Option<Estimate>,
}

/// A model as trained.
pub struct Trained {
    /// Its kind.
    pub kind: &'static str,
    /// Its seed.
    pub seed: u64,
    /// Its parameters.
    pub parameters: usize,
    /// Its perplexity.
    pub ppl: eval::PplReport,
    /// Multiple choice.
    pub choice: eval::ChoiceReport,
    /// Last words.
    pub greedy: eval::GreedyReport,
    /// (step, perplexity) while it was trained.
    pub curve: Vec<(f64, f64)>,
    /// Seconds of its training, whatever else the machine did.
    pub seconds: f64,
    /// Rows' tokens a training step gets through a second, measured alone.
    pub training_rate: f64,
}

/// One kind against another.
pub struct Difference {
    /// The kind whose bound is subtracted from.
    pub kind: &'static str,
    /// The kind that is subtracted.
    pub other: &'static str,
    /// The seed of both.
    pub seed: u64,
    /// Mean and interval, nats per token.
    pub nats: Estimate,
}

/// Samples at one number of steps.
pub struct Generated {
    /// Which model.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Rounds of distillation.
    pub rounds: usize,
    /// The targets of its distillation.
    pub targets: Option<&'static str>,
    /// Sampling steps; none for a model that has no choice.
    pub steps: Option<usize>,
    /// What the judge says.
    pub report: JudgeReport,
    /// Tokens sampled a second.
    pub rate: f64,
}

impl Generated {
    /// Perplexity under the judge, of the sampled tokens as they are.
    pub fn perplexity(&self) -> f64 {
        self.report.paper.perplexity.map_or(f64::NAN, |estimate| estimate.value)
    }

    /// Unigram entropy of the sampled tokens, nats.
    pub fn entropy(&self) -> f64 {
        self.report.entropy_model_tokens.map_or(f64::NAN, |estimate| estimate.value)
    }
}

impl Study {
    /// Measures everything.
    pub fn evaluate(&self) -> anyhow::Result<Findings> {
        std::fs::create_dir_all(self.out.join("eval"))?;
        let data = DataFolder::open(&self.data())?;
        let rows = data.rows(Split::Validation)?;
        let order = RowOrder::new(SEED, rows.len()).step(0, rows.len());
        let texts = order
            .iter()
            .map(|&row| Ok(data.tokenizer().decode(&rows.row(row)?.tokens)?))
            .collect::<anyhow::Result<Vec<String>>>()?;
        let questions = questions(&texts, self.plan.questions, self.plan.length)?;
        let words = last_words(&texts, self.plan.questions, self.plan.length)?;

        let mut trained = Vec::new();
        let mut rates: Vec<f64> = Vec::new();
        for (index, (objective, kind)) in KINDS.into_iter().enumerate() {
            for &seed in &self.plan.seeds {
                let path = self.model(kind, seed);
                let subject = EvalModel::load(&path, &self.device)?;
                let name = format!("{kind}-{seed}");
                let ppl = self.bound(&subject, &data, &name)?;
                let choice = self.choice(&subject, &questions, &name)?;
                let greedy = self.greedy(&subject, &words, &name)?;
                if rates.len() == index {
                    let seconds = self.step_seconds(&subject, kind, objective)?;
                    rates.push((self.plan.batch * self.plan.length) as f64 / median(&seconds));
                }
                let lines = history::read(&self.out.join(&name))?;
                let validations = lines.iter().filter_map(|line| match line {
                    Line::Validation(line) => Some((line.step as f64, line.val_ppl)),
                    Line::Train(_) => None,
                });
                let seconds = lines.iter().filter_map(|line| match line {
                    Line::Train(line) => Some(line.seconds),
                    Line::Validation(_) => None,
                });
                trained.push(Trained {
                    kind,
                    seed,
                    parameters: subject.model().n_parameters(),
                    ppl,
                    choice,
                    greedy,
                    curve: validations.collect(),
                    seconds: seconds.fold(0.0, f64::max),
                    training_rate: rates[index],
                });
            }
        }
        let differences = self.differences(&trained);

        let judge = OwnJudge::load(&self.judge(), &self.device)?;
        let judged = EvalModel::load(&self.judge(), &self.device)?;
        let judge_perplexity = self.bound(&judged, &data, "judge")?.perplexity;
        let real = order
            .iter()
            .take(self.plan.samples)
            .zip(&texts)
            .map(|(&row, text)| Ok(Sample { text: text.clone(), tokens: Some(rows.row(row)?.tokens) }))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let real = self.judged(&judge, &real)?;
        Ok(Findings { trained, differences, generated: self.generated(&judge)?, real, judge_perplexity })
    }

    fn generated(&self, judge: &OwnJudge) -> anyhow::Result<Vec<Generated>> {
        let seed = self.plan.seeds[0];
        let all = &self.plan.sampling_steps;
        let mut generated = Vec::new();
        for (kind, masked) in [("pgm", false), ("masked", false), ("complementary", true), ("ar", true)] {
            let mut subjects: Vec<(String, PathBuf, usize, Option<&'static str>, Vec<usize>)> = Vec::new();
            let steps = if kind == "ar" { vec![self.plan.length - 1] } else { all.clone() };
            subjects.push((kind.to_string(), self.model(kind, seed), 0, None, steps));
            for targets in ["one", "both"].into_iter().filter(|_| !masked) {
                for round in 1..=self.plan.rounds {
                    // The last student at every number of steps, the others at the number they were made for.
                    let own = self.plan.teacher_steps >> round;
                    let steps = if round == self.plan.rounds { all.clone() } else { vec![own] };
                    let name = format!("{kind}, {round} rounds, {targets}");
                    subjects.push((name, self.student(kind, targets, round), round, Some(targets), steps));
                }
            }
            for (name, path, rounds, targets, steps) in subjects {
                let subject = EvalModel::load(&path, &self.device)?;
                for steps in steps {
                    let (samples, seconds) = self.samples(&subject, &name, steps)?;
                    let report = self.judged(judge, &samples)?;
                    let tokens = samples.len() * self.plan.length;
                    generated.push(Generated {
                        name: name.clone(),
                        kind,
                        rounds,
                        targets,
                        steps: (kind != "ar").then_some(steps),
                        report,
                        rate: tokens as f64 / seconds,
                    });
                }
            }
        }
        Ok(generated)
    }

    // Seconds of a few training steps, measured once: a later run may have company on the machine.
    fn step_seconds(&self, subject: &EvalModel, kind: &str, objective: Objective) -> anyhow::Result<Vec<f64>> {
        let copies = if objective == Objective::MaskedComplementary { 2 } else { 1 };
        let (config, batch) = (subject.model().config(), self.plan.batch * copies);
        let mut ledger: ResultLog<f64> = self.ledger(kind, "training", &json!({ "model": config, "batch": batch }))?;
        if ledger.done().is_empty() {
            self.say(&format!("{kind}: training speed"));
            for seconds in
                bench::measure(config, batch, bench::BenchPhase::Train, StepOptions::default(), 5, &self.device)?
            {
                ledger.push(seconds)?;
            }
        }
        Ok(ledger.into_done())
    }

    fn bound(&self, subject: &EvalModel, data: &DataFolder, name: &str) -> anyhow::Result<eval::PplReport> {
        let (rows, times) = (self.plan.rows, self.plan.times);
        let settings = PplSettings { rows, times, seed: SEED, batch: 16, ..PplSettings::default() };
        let identity = eval::ppl::identity(subject, data, &settings);
        let ledger = self.ledger::<RowNats>(name, "ppl", &identity)?;
        self.resumable(eval::ppl(subject, data, &settings, ledger, &mut self.progress(name, "ppl")))
    }

    fn choice(&self, subject: &EvalModel, questions: &[Question], name: &str) -> anyhow::Result<eval::ChoiceReport> {
        let settings = ChoiceSettings {
            draws: self.plan.draws,
            separator: String::new(),
            seed: SEED,
            ..ChoiceSettings::default()
        };
        let identity = eval::choice::identity(subject, questions, &settings);
        let ledger = self.ledger(name, "choice", &identity)?;
        self.resumable(eval::choice(subject, questions, &settings, ledger, &mut self.progress(name, "choice")))
    }

    fn greedy(&self, subject: &EvalModel, words: &[LastWord], name: &str) -> anyhow::Result<eval::GreedyReport> {
        let settings = GreedySettings { seed: SEED };
        let identity = eval::greedy::identity(subject, words, &settings);
        let ledger = self.ledger(name, "greedy", &identity)?;
        self.resumable(eval::greedy(subject, words, &settings, ledger, &mut self.progress(name, "last words")))
    }

    fn samples(&self, subject: &EvalModel, name: &str, steps: usize) -> anyhow::Result<(Vec<Sample>, f64)> {
        let settings = GenerativeSettings {
            samples: self.plan.samples,
            steps,
            seed: SEED,
            batch: 16,
            ..GenerativeSettings::default()
        };
        let identity = eval::generative::identity(subject, &settings);
        let file = name.replace(", ", "-").replace(' ', "-");
        let ledger = self.ledger(&format!("{file}-{steps}"), "samples", &identity)?;
        let what = format!("samples in {steps} steps");
        let batches = eval::sample_texts(subject, &settings, ledger, &mut self.progress(name, &what));
        let batches = self.resumable(batches)?;
        let seconds = batches.iter().map(|batch| batch.seconds).sum();
        Ok((batches.into_iter().flat_map(|batch| batch.samples).collect(), seconds))
    }

    fn judged(&self, judge: &OwnJudge, samples: &[Sample]) -> anyhow::Result<JudgeReport> {
        let settings = JudgeSettings { same_tokens: true, batch: 16, seed: SEED, ..JudgeSettings::default() };
        self.resumable(judge_samples(judge, samples, &settings, &mut |_, _| self.go_on()))
    }

    fn differences(&self, trained: &[Trained]) -> Vec<Difference> {
        let mut differences = Vec::new();
        for (kind, other) in [("pgm", "masked"), ("pgm", "complementary"), ("complementary", "masked")] {
            for &seed in &self.plan.seeds {
                let of = |kind: &str| trained.iter().find(|model| model.kind == kind && model.seed == seed);
                let (Some(a), Some(b)) = (of(kind), of(other)) else { continue };
                let pairs: Vec<(f64, f64)> =
                    a.ppl.by_row.iter().zip(&b.ppl.by_row).map(|(a, b)| (a.nats - b.nats, a.tokens as f64)).collect();
                let mean = |pairs: &[(f64, f64)]| {
                    pairs.iter().map(|pair| pair.0).sum::<f64>() / pairs.iter().map(|pair| pair.1).sum::<f64>()
                };
                let nats = Estimate { value: mean(&pairs), interval: interval(&pairs, mean, SEED) };
                differences.push(Difference { kind, other, seed, nats });
            }
        }
        differences
    }

    fn ledger<T>(&self, name: &str, what: &str, identity: &Value) -> anyhow::Result<ResultLog<T>>
    where
        T: serde::Serialize + serde::de::DeserializeOwned,
    {
        let path = self.out.join("eval").join(format!("{name}-{what}.jsonl"));
        Ok(ResultLog::open(Some(&path), identity)?)
    }

    fn go_on(&self) -> ControlFlow<()> {
        if self.stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    // Says what is being measured as soon as something is left to do.
    fn progress<'a>(&'a self, name: &'a str, what: &'a str) -> impl FnMut(usize, usize) -> ControlFlow<()> + 'a {
        let mut said = false;
        move |done, all| {
            if done < all && !said {
                said = true;
                self.say(&format!("{name}: {what}"));
            }
            self.go_on()
        }
    }

    #[allow(clippy::print_stdout)]
    fn say(&self, what: &str) {
        println!("measuring {what}");
    }

    fn resumable<T>(&self, result: Result<T, TrainError>) -> anyhow::Result<T> {
        match result {
            Err(TrainError::Stopped) => bail!("stopped while measuring; the same command goes on"),
            result => Ok(result?),
        }
    }
}

/// The true continuation of a text among those of three others.
fn questions(texts: &[String], n: usize, length: usize) -> anyhow::Result<Vec<Question>> {
    let (context, candidate) = (length / 2, length / 4);
    let usable: Vec<&String> =
        texts.iter().filter(|text| text.is_ascii() && text.len() > context + candidate).collect();
    if usable.len() < 4 {
        bail!("the held-out text is too short for questions; give a longer --text");
    }
    let continuation = |text: &str| text[context..context + candidate].to_string();
    let question = |index: usize| {
        let label = index % 4;
        let others = (1..4).map(|offset| continuation(usable[(index + offset) % usable.len()]));
        let mut choices: Vec<String> = others.collect();
        choices.insert(label, continuation(usable[index]));
        Question::new(usable[index][..context].to_string(), choices, label)
    };
    Ok((0..n.min(usable.len())).map(question).collect())
}

/// Texts that end in a word of at least three letters.
fn last_words(texts: &[String], n: usize, length: usize) -> anyhow::Result<Vec<LastWord>> {
    let cut = |text: &String| -> Option<LastWord> {
        let text = text.get(..text.len().min(length - 2)).filter(|text| text.is_ascii())?;
        let mut end = text.len();
        while let Some(place) = text[..end].rfind(|c: char| !c.is_ascii_alphabetic()) {
            let word = &text[place + 1..end];
            if word.len() > 2 && text.as_bytes()[place] == b' ' && !text[..place].trim().is_empty() {
                return Some(LastWord { text: text[..end].to_string() });
            }
            end = place;
        }
        None
    };
    let words: Vec<LastWord> = texts.iter().filter_map(cut).take(n).collect();
    if words.is_empty() { Err(anyhow!("the held-out text has no words; give another --text")) } else { Ok(words) }
}
