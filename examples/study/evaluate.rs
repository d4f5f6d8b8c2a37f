//! The study's measurements. Each keeps its results in a file in `eval/`, so that a repeated run does not measure again.

use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::{anyhow, bail};
use pgm_data::{DataFolder, RowOrder, Split};
use pgm_infer::bench::median;
use pgm_train::StepOptions;
use pgm_train::eval::cache::CacheReport;
use pgm_train::eval::{
    self, ChoiceSettings, EvalModel, Frontier, GenerativeSettings, GreedySettings, LastWord, PplSettings, Question,
    ResultLog, RowNats,
};
use pgm_train::history::{self, Line};
use pgm_train::judge::metrics::{Estimate, interval};
use pgm_train::judge::{JudgeReport, JudgeSettings, OwnJudge, Sample, judge_samples};
use pgm_train::{Objective, TrainError, bench};
use serde_json::{Value, json};

use crate::{DISTILLED, KINDS, SET_CAUSAL, Study, WIDE};

/// The seed of every measurement.
pub const SEED: u64 = 20;

/// All results.
pub struct Findings {
    /// The trained models, ordered by kind, then by seed.
    pub trained: Vec<TrainedModel>,
    /// For each seed, the differences between the kinds on the same rows, times and groups, in nats per token.
    pub differences: Vec<Difference>,
    /// Samples of each kind and each student, for each number of sampling steps.
    pub generated: Vec<GeneratedSamples>,
    /// The judge's report on held-out rows: what perfect samples would get.
    pub real: JudgeReport,
    /// The judge's own perplexity on held-out rows.
    pub judge_perplexity: Option<Estimate>,
    /// Curves of perplexity against entropy.
    pub frontier: Frontier,
    /// What kept encodings cost.
    pub kept: CacheReport,
}

/// A trained model with its results.
pub struct TrainedModel {
    /// Its kind.
    pub kind: &'static str,
    /// Its seed.
    pub seed: u64,
    /// Number of its parameters.
    pub parameters: usize,
    /// Its perplexity.
    pub ppl: eval::PplReport,
    /// Its multiple-choice accuracy.
    pub choice: eval::ChoiceReport,
    /// Its last-word accuracy.
    pub greedy: eval::GreedyReport,
    /// Validation perplexity by training step.
    pub curve: Vec<(f64, f64)>,
    /// Wall-clock seconds of its training.
    pub seconds: f64,
    /// Training tokens per second, measured without other work on the machine.
    pub training_rate: f64,
}

/// The difference between two kinds of model.
pub struct Difference {
    /// The kind before the minus sign.
    pub kind: &'static str,
    /// The kind after the minus sign.
    pub other: &'static str,
    /// The seed of both.
    pub seed: u64,
    /// Difference in nats per token.
    pub nats: Estimate,
}

/// The results for samples of one model at one number of sampling steps.
pub struct GeneratedSamples {
    /// The model's name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Rounds of distillation.
    pub rounds: usize,
    /// `targets` of its distillation.
    pub targets: Option<&'static str>,
    /// Sampling steps. Absent for the autoregressive model, which takes one step per token.
    pub steps: Option<usize>,
    /// The judge's report.
    pub report: JudgeReport,
    /// The text of the first sample.
    pub first: String,
    /// Sampled tokens per second.
    pub rate: f64,
}

impl GeneratedSamples {
    /// Perplexity of the sampled tokens under the judge.
    pub fn perplexity(&self) -> f64 {
        self.report.paper.perplexity.map_or(f64::NAN, |estimate| estimate.value)
    }

    /// Unigram entropy of the sampled tokens, in nats.
    pub fn entropy(&self) -> f64 {
        self.report.entropy_model_tokens.map_or(f64::NAN, |estimate| estimate.value)
    }
}

/// A model, and the numbers of sampling steps with which it samples.
struct ModelToSample {
    name: String,
    folder: PathBuf,
    rounds: usize,
    targets: Option<&'static str>,
    steps: Vec<usize>,
}

impl Study {
    /// Runs all measurements that have no results yet.
    pub fn evaluate(&self) -> anyhow::Result<Findings> {
        std::fs::create_dir_all(self.out.join("eval"))?;
        let data = DataFolder::open(&self.data())?;
        let rows = data.rows(Split::Validation)?;
        let order = RowOrder::new(SEED, rows.len()).step(0, rows.len());
        let texts = order
            .iter()
            .map(|&row| Ok(data.tokenizer()?.decode(&rows.row(row)?.tokens)?))
            .collect::<anyhow::Result<Vec<String>>>()?;
        let questions = questions(&texts, self.plan.questions, self.plan.length)?;
        let words = last_words(&texts, self.plan.questions, self.plan.length)?;

        let mut trained = Vec::new();
        let mut rates: Vec<f64> = Vec::new();
        for (index, (objective, kind)) in KINDS.into_iter().enumerate() {
            for &seed in &self.plan.seeds {
                let path = self.model(kind, seed);
                let model = EvalModel::load(&path, &self.device)?;
                let name = format!("{kind}-{seed}");
                let ppl = self.bound(&model, &data, &name)?;
                let choice = self.choice(&model, &questions, &name)?;
                let greedy = self.greedy(&model, &words, &name)?;
                if rates.len() == index {
                    let seconds = self.step_seconds(&model, kind, objective)?;
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
                trained.push(TrainedModel {
                    kind,
                    seed,
                    parameters: model.text_model().n_parameters(),
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
        let (generated, frontier, kept) = (self.generated(&judge)?, self.frontier(&data)?, self.kept(&data)?);
        Ok(Findings { trained, differences, generated, real, judge_perplexity, frontier, kept })
    }

    fn generated(&self, judge: &OwnJudge) -> anyhow::Result<Vec<GeneratedSamples>> {
        let seed = self.plan.seeds[0];
        let all = &self.plan.sampling_steps;
        let mut generated = Vec::new();
        for (_, kind) in KINDS {
            let steps = if kind == "ar" { vec![self.plan.length - 1] } else { all.clone() };
            let trained = ModelToSample {
                name: kind.to_string(),
                folder: self.model(kind, seed),
                rounds: 0,
                targets: None,
                steps,
            };
            let mut models = vec![trained];
            for targets in ["one", "both"].into_iter().filter(|_| DISTILLED.contains(&kind)) {
                for round in 1..=self.plan.rounds {
                    // The last student samples with every number of steps, the others with the number they were distilled for.
                    let own = self.plan.teacher_steps >> round;
                    models.push(ModelToSample {
                        name: format!("{kind}, {round} rounds, {targets}"),
                        folder: self.student(kind, targets, round),
                        rounds: round,
                        targets: Some(targets),
                        steps: if round == self.plan.rounds { all.clone() } else { vec![own] },
                    });
                }
            }
            for ModelToSample { name, folder, rounds, targets, steps } in models {
                let model = EvalModel::load(&folder, &self.device)?;
                for steps in steps {
                    let (samples, seconds) = self.samples(&model, &name, steps)?;
                    let report = self.judged(judge, &samples)?;
                    let tokens = samples.len() * self.plan.length;
                    generated.push(GeneratedSamples {
                        name: name.clone(),
                        kind,
                        rounds,
                        targets,
                        steps: (kind != "ar").then_some(steps),
                        report,
                        first: samples.first().map_or(String::new(), |sample| sample.text.clone()),
                        rate: tokens as f64 / seconds,
                    });
                }
            }
        }
        Ok(generated)
    }

    // Seconds of a few training steps. Measured once and kept: later, other work may run on the machine.
    fn step_seconds(&self, model: &EvalModel, kind: &str, objective: Objective) -> anyhow::Result<Vec<f64>> {
        let copies = if objective == Objective::MaskedComplementary { 2 } else { 1 };
        let (config, batch) = (model.text_model().config(), self.plan.batch * copies);
        let mut log: ResultLog<f64> = self.result_log(kind, "training", &json!({ "model": config, "batch": batch }))?;
        if log.done().is_empty() {
            self.say(&format!("{kind}: training speed"));
            for seconds in
                bench::measure(config, batch, bench::BenchPhase::Train, StepOptions::default(), 5, &self.device)?
            {
                log.push(seconds)?;
            }
        }
        Ok(log.into_done())
    }

    fn bound(&self, model: &EvalModel, data: &DataFolder, name: &str) -> anyhow::Result<eval::PplReport> {
        let (rows, times) = (self.plan.rows, self.plan.times);
        let settings = PplSettings { rows, times, seed: SEED, batch: 16, ..PplSettings::default() };
        let identity = eval::ppl::identity(model, data, &settings)?;
        let log = self.result_log::<RowNats>(name, "ppl", &identity)?;
        self.resumable(eval::ppl(model, data, &settings, log, &mut self.progress(name, "ppl")))
    }

    fn choice(&self, model: &EvalModel, questions: &[Question], name: &str) -> anyhow::Result<eval::ChoiceReport> {
        let settings = ChoiceSettings {
            draws: self.plan.draws,
            separator: String::new(),
            seed: SEED,
            ..ChoiceSettings::default()
        };
        let identity = eval::choice::identity(model, questions, &settings);
        let log = self.result_log(name, "choice", &identity)?;
        self.resumable(eval::choice(model, questions, &settings, log, &mut self.progress(name, "choice")))
    }

    fn greedy(&self, model: &EvalModel, words: &[LastWord], name: &str) -> anyhow::Result<eval::GreedyReport> {
        let settings = GreedySettings { seed: SEED };
        let identity = eval::greedy::identity(model, words, &settings);
        let log = self.result_log(name, "greedy", &identity)?;
        self.resumable(eval::greedy(model, words, &settings, log, &mut self.progress(name, "last words")))
    }

    fn samples(&self, model: &EvalModel, name: &str, steps: usize) -> anyhow::Result<(Vec<Sample>, f64)> {
        let settings = GenerativeSettings {
            samples: self.plan.samples,
            steps,
            seed: SEED,
            batch: 16,
            ..GenerativeSettings::default()
        };
        let identity = eval::generative::identity(model, &settings);
        let file = name.replace(", ", "-").replace(' ', "-");
        let log = self.result_log(&format!("{file}-{steps}"), "samples", &identity)?;
        let what = format!("samples in {steps} steps");
        let batches = eval::sample_texts(model, &settings, log, &mut self.progress(name, &what));
        let batches = self.resumable(batches)?;
        let seconds = batches.iter().map(|batch| batch.seconds).sum();
        Ok((batches.into_iter().flat_map(|batch| batch.samples).collect(), seconds))
    }

    fn judged(&self, judge: &OwnJudge, samples: &[Sample]) -> anyhow::Result<JudgeReport> {
        let settings = JudgeSettings { same_tokens: true, batch: 16, seed: SEED, ..JudgeSettings::default() };
        self.resumable(judge_samples(judge, samples, &settings, &mut |_, _| self.go_on()))
    }

    fn differences(&self, trained: &[TrainedModel]) -> Vec<Difference> {
        let mut differences = Vec::new();
        let pairs = [
            ("pgm", "masked"),
            (WIDE, "masked"),
            ("pgm", "complementary"),
            ("complementary", "masked"),
            (SET_CAUSAL, "pgm"),
        ];
        for (kind, other) in pairs {
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

    fn result_log<T>(&self, name: &str, what: &str, identity: &Value) -> anyhow::Result<ResultLog<T>>
    where
        T: serde::Serialize + serde::de::DeserializeOwned,
    {
        let path = self.out.join("eval").join(format!("{name}-{what}.jsonl"));
        Ok(ResultLog::open(Some(&path), identity)?)
    }

    fn go_on(&self) -> ControlFlow<()> {
        if self.stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    // Prints the name of a measurement when it has work to do.
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

    /// Prints what is measured.
    #[allow(clippy::print_stdout)]
    pub fn say(&self, what: &str) {
        println!("measuring {what}");
    }

    /// The error of a stop says how to continue.
    pub fn resumable<T>(&self, result: Result<T, TrainError>) -> anyhow::Result<T> {
        match result {
            Err(TrainError::Stopped) => bail!("stopped while measuring; the same command continues"),
            result => Ok(result?),
        }
    }
}

/// Questions whose right choice is the true continuation of a text, among continuations of three other texts.
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

/// Texts cut after a word of at least three letters.
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
