//! Generative evaluation: what another model thinks of samples, and how varied they are.
//!
//! A [`Judge`] gives every token of a text its NLL; [`judge_samples`] makes a [`JudgeReport`] of that: the generative
//! perplexity in both countings of the field ([`count`]), always with the unigram entropy beside it, since a model that
//! repeats itself has a low perplexity, and the shares of distinct n-grams. [`Gpt2Judge`] is a GPT-2 folder, [`OwnJudge`]
//! an autoregressive model of ours; any other becomes a judge by implementing the trait, with [`ragged_nll`].
//!
//! A text is tokenised by the judge as it stands: nothing is put before it, so its first token has no prediction. Names
//! of special tokens in it (`<|endoftext|>`) are those tokens, as in the public code.

pub mod count;
mod gpt2;
mod gpt2_config;
mod gpt2_judge;
mod mauve;
pub mod metrics;
mod own_judge;
mod samples;

use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use count::Counted;
use metrics::{Distinct, Estimate, distinct, unigram_entropy};

pub use gpt2::Gpt2;
pub use gpt2_config::Gpt2Config;
pub use gpt2_judge::Gpt2Judge;
pub use mauve::{Mauve, mauve};
pub use own_judge::OwnJudge;
pub use samples::{Sample, read_samples, write_samples};

/// An autoregressive model with its tokenizer.
pub trait Judge {
    /// The judge's tokens of a text, without any that the text does not hold.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    fn encode(&self, text: &str) -> Result<Vec<u32>, TrainError>;

    /// The token that ends a text.
    fn eos(&self) -> u32;

    /// Tokens of the vocabulary.
    fn vocab_size(&self) -> usize;

    /// Tokens that the model can see at once.
    fn max_length(&self) -> usize;

    /// Nats of each row's tokens but the first, given the tokens before: entry `i` belongs to token `i + 1`. The rows
    /// are one batch; they are not empty, none is longer than [`max_length`](Self::max_length).
    ///
    /// # Errors
    /// When the device fails.
    fn token_nll(&self, rows: &[&[u32]]) -> Result<Vec<Vec<f64>>, TrainError>;
}

/// What is told while samples are judged: rows done, rows in all. Breaking ends the work.
pub type Observe<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// How samples are judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeSettings {
    /// Tokens to which the public code's counting cuts a text, and over which the judge's entropy and the distinct
    /// n-grams are taken; no more than the judge can see.
    pub length: usize,
    /// Rows judged together.
    pub batch: usize,
    /// Seed of the bootstrap.
    pub seed: u64,
    /// The samples' `tokens` are ids of the judge's own vocabulary: eq. 14 is then taken on them as they are, BOS and
    /// all, in a second pass. Otherwise it is taken on the tokens that the judge makes of the text.
    pub same_tokens: bool,
}

/// Opens a judge's folder: a GPT-2, or an autoregressive model of ours.
///
/// # Errors
/// As [`Gpt2Judge::load`] and [`OwnJudge::load`].
pub fn open(folder: &Path, device: &Device) -> Result<Box<dyn Judge>, TrainError> {
    if is_own(folder) {
        Ok(Box::new(OwnJudge::load(folder, device)?))
    } else {
        Ok(Box::new(Gpt2Judge::load(folder, device)?))
    }
}

/// Whether a folder's `config.json` is one of ours.
pub fn is_own(folder: &Path) -> bool {
    pgm_model::model_folder::load_config(folder).is_ok()
}

impl Default for JudgeSettings {
    /// The field's: 1024 tokens.
    fn default() -> Self {
        Self { length: 1024, batch: 8, seed: 0, same_tokens: false }
    }
}

/// A generative perplexity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Perplexity {
    /// The exponential of the counted nats per counted token, with the interval over samples; absent when no token is
    /// counted.
    pub perplexity: Option<Estimate>,
    /// Counted tokens.
    pub tokens: usize,
    /// Samples that were longer and were cut: to [`JudgeSettings::length`], or for eq. 14 to what the judge can see.
    pub truncated: usize,
}

/// What [`judge_samples`] finds. What cannot be estimated is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeReport {
    /// Samples judged.
    pub samples: usize,
    /// Samples of fewer than two of the judge's tokens, which have no prediction of their own.
    pub without_prediction: usize,
    /// Perplexity as the public code counts; see [`count`].
    pub public_code: Perplexity,
    /// Perplexity by the paper's eq. 14.
    pub paper: Perplexity,
    /// Mean unigram entropy in nats of the judge's tokens, each text cut as for the public code.
    pub entropy_judge_tokens: Option<Estimate>,
    /// Mean unigram entropy in nats of the samples' own tokens, over the samples that have them: the paper's number.
    pub entropy_model_tokens: Option<Estimate>,
    /// Distinct n-grams of the judge's tokens for n from 1 to 4, each text cut as for the public code.
    pub distinct: Vec<Distinct>,
    /// How it was found.
    pub settings: JudgeSettings,
}

/// Judges samples.
///
/// # Errors
/// [`TrainError::Judge`] for settings or samples that cannot be judged, [`TrainError::Stopped`] when `observe` breaks,
/// and what the judge fails with.
pub fn judge_samples(
    judge: &dyn Judge,
    samples: &[Sample],
    settings: &JudgeSettings,
    observe: &mut Observe,
) -> Result<JudgeReport, TrainError> {
    if settings.length < 2 || settings.batch == 0 {
        return Err(TrainError::judge("judge", "the length must be at least 2 and the batch at least 1"));
    }
    let (eos, window) = (judge.eos(), judge.max_length());
    let length = settings.length.min(window);
    let texts = samples.iter().map(|sample| judge.encode(&sample.text)).collect::<Result<Vec<_>, _>>()?;
    let n_tokens: Vec<usize> = texts.iter().map(Vec::len).collect();
    let cut: Vec<&[u32]> = texts.iter().map(|text| &text[..text.len().min(length)]).collect();
    let filled_length = cut.iter().map(|row| row.len()).max().unwrap_or(0);
    // A text's NLLs serve both countings: cutting behind a token does not change the tokens before it.
    let judged: Vec<Vec<u32>> = texts
        .iter()
        .zip(&cut)
        .map(|(text, row)| {
            let end = count::counts_end(row, eos, filled_length).then_some(eos);
            text.iter().take(window).copied().chain(end).collect()
        })
        .collect();
    let given = given_rows(judge, samples, settings)?;
    let n_rows = judged.len() + given.as_ref().map_or(0, Vec::len);
    let mut n_done = 0;
    let mut observe = |rows: usize| {
        n_done += rows;
        observe(n_done, n_rows)
    };
    let nll = batched_nll(judge, &judged, settings.batch, &mut observe)?;

    let counted = cut.iter().zip(&nll).map(|(row, nll)| count::public_code(row, nll, eos, filled_length));
    let n_longer = |limit: usize, lengths: &[usize]| lengths.iter().filter(|&&length| length > limit).count();
    let public_code = perplexity(counted.collect(), n_longer(length, &n_tokens), settings.seed);
    let paper = match given {
        Some(rows) => {
            let nll = batched_nll(judge, &rows, settings.batch, &mut observe)?;
            let counted = rows.iter().zip(&nll).map(|(row, nll)| count::paper(row, nll)).collect();
            let lengths: Vec<usize> = samples.iter().map(|sample| sample.tokens.as_ref().map_or(0, Vec::len)).collect();
            perplexity(counted, n_longer(window, &lengths), settings.seed)
        }
        None => {
            let rows = texts.iter().map(|text| &text[..text.len().min(window)]);
            let counted = rows.zip(&nll).map(|(row, nll)| count::paper(row, nll)).collect();
            perplexity(counted, n_longer(window, &n_tokens), settings.seed)
        }
    };
    let entropy = |rows: &mut dyn Iterator<Item = &[u32]>| {
        let entropies: Vec<f64> = rows.filter(|row| !row.is_empty()).map(unigram_entropy).collect();
        Estimate::of_mean(&entropies, settings.seed)
    };
    Ok(JudgeReport {
        samples: samples.len(),
        without_prediction: n_tokens.iter().filter(|&&length| length < 2).count(),
        public_code,
        paper,
        entropy_judge_tokens: entropy(&mut cut.iter().copied()),
        entropy_model_tokens: entropy(&mut samples.iter().filter_map(|sample| sample.tokens.as_deref())),
        distinct: (1..=4).map(|n| distinct(&cut, n)).collect(),
        settings: settings.clone(),
    })
}

fn perplexity(counted: Vec<Counted>, truncated: usize, seed: u64) -> Perplexity {
    let of = |rows: &[Counted]| Counted::total(rows).perplexity();
    Perplexity { perplexity: Estimate::of(&counted, of, seed), tokens: Counted::total(&counted).tokens, truncated }
}

// The samples' own tokens, cut to what the judge sees, when they are the judge's tokens too.
fn given_rows(
    judge: &dyn Judge,
    samples: &[Sample],
    settings: &JudgeSettings,
) -> Result<Option<Vec<Vec<u32>>>, TrainError> {
    if !settings.same_tokens {
        return Ok(None);
    }
    let row = |(index, sample): (usize, &Sample)| {
        let fail = |problem: String| Err(TrainError::judge(format!("sample {}", index + 1), problem));
        let Some(tokens) = &sample.tokens else {
            return fail("has no tokens, which are to be judged as they are".to_string());
        };
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= judge.vocab_size()) {
            let n = judge.vocab_size();
            return fail(format!("token {token} is not one of the judge's {n}; the tokenizers are not the same"));
        }
        Ok(tokens.iter().take(judge.max_length()).copied().collect())
    };
    samples.iter().enumerate().map(row).collect::<Result<_, _>>().map(Some)
}

// NLLs of all rows, judged in batches of rows of similar length; an empty row has none.
fn batched_nll(
    judge: &dyn Judge,
    rows: &[Vec<u32>],
    batch: usize,
    observe: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Vec<Vec<f64>>, TrainError> {
    let mut all = vec![Vec::new(); rows.len()];
    for members in batches(rows, batch) {
        let some: Vec<&[u32]> = members.iter().map(|&row| rows[row].as_slice()).collect();
        for (&row, nll) in members.iter().zip(judge.token_nll(&some)?) {
            if nll.iter().any(|value| !value.is_finite()) {
                let problem = "the judge's NLL is not a finite number; are its weights damaged?";
                return Err(TrainError::judge(format!("sample {}", row + 1), problem));
            }
            all[row] = nll;
        }
        if observe(members.len()).is_break() {
            return Err(TrainError::Stopped);
        }
    }
    let n_empty = rows.iter().filter(|row| row.is_empty()).count();
    if n_empty > 0 && observe(n_empty).is_break() { Err(TrainError::Stopped) } else { Ok(all) }
}

// Rows that are not empty, the longest first, so that a device that cannot hold a batch says so at once.
fn batches(rows: &[Vec<u32>], batch: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows.len()).filter(|&row| !rows[row].is_empty()).collect();
    order.sort_by_key(|&row| std::cmp::Reverse(rows[row].len()));
    order.chunks(batch).map(<[usize]>::to_vec).collect()
}

/// [`Judge::token_nll`] for a network: fills the rows to one length behind their ends, where a causal network does not
/// look, runs it, and cuts its answer `[B, L] -> [B, L - 1]` back. The network is not run on rows of one token.
///
/// # Errors
/// [`TrainError::Device`] when the answer cannot be read.
pub fn ragged_nll(
    rows: &[&[u32]],
    device: &Device,
    network: impl FnOnce(Tensor<2, Int>) -> Tensor<2>,
) -> Result<Vec<Vec<f64>>, TrainError> {
    let tokens = filled(rows, device);
    let n_predicted = tokens.dims()[1] - 1;
    if n_predicted == 0 {
        return Ok(vec![Vec::new(); rows.len()]);
    }
    let values = network(tokens).try_into_vec_as::<f32>().map_err(|error| TrainError::Device(error.to_string()))?;
    let cut = |(row, nll): (&&[u32], &[f32])| nll[..row.len() - 1].iter().map(|&value| f64::from(value)).collect();
    Ok(rows.iter().zip(values.chunks(n_predicted)).map(cut).collect())
}

// Rows side by side, token 0 behind the shorter ones. [B, L]
fn filled(rows: &[&[u32]], device: &Device) -> Tensor<2, Int> {
    let length = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let values = rows.iter().flat_map(|row| {
        let tokens = row.iter().map(|&token| token as i32);
        tokens.chain(std::iter::repeat_n(0, length - row.len()))
    });
    Tensor::from_data(TensorData::new(values.collect(), [rows.len(), length]), device)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const EOS: u32 = 0;

    // Tokens are the text's digits; token a after token b costs a + b / 10 nats. Keeps the lengths of its batches.
    #[derive(Default)]
    struct Digits(RefCell<Vec<Vec<usize>>>);

    impl Judge for Digits {
        fn encode(&self, text: &str) -> Result<Vec<u32>, TrainError> {
            Ok(text.chars().filter_map(|c| c.to_digit(10)).collect())
        }
        fn eos(&self) -> u32 {
            EOS
        }
        fn vocab_size(&self) -> usize {
            10
        }
        fn max_length(&self) -> usize {
            6
        }
        fn token_nll(&self, rows: &[&[u32]]) -> Result<Vec<Vec<f64>>, TrainError> {
            self.0.borrow_mut().push(rows.iter().map(|row| row.len()).collect());
            assert!(rows.iter().all(|row| !row.is_empty() && row.len() <= 6));
            let cost = |pair: &[u32]| f64::from(pair[1]) + f64::from(pair[0]) / 10.0;
            Ok(rows.iter().map(|row| row.windows(2).map(cost).collect()).collect())
        }
    }

    fn sample(text: &str) -> Sample {
        Sample { text: text.to_string(), tokens: None }
    }

    fn run(samples: &[Sample], settings: &JudgeSettings) -> JudgeReport {
        judge_samples(&Digits::default(), samples, settings, &mut |_, _| ControlFlow::Continue(())).unwrap()
    }

    fn nats(perplexity: &Perplexity) -> f64 {
        perplexity.perplexity.unwrap().value.ln() * perplexity.tokens as f64
    }

    #[test]
    fn both_countings_of_a_small_set_by_hand() {
        let samples = ["1230405", "12", "7", "", "3012"].map(sample);
        let settings = JudgeSettings { length: 5, batch: 2, ..JudgeSettings::default() };
        let report = run(&samples, &settings);
        // Cut to 5 and filled to 5. 12304: tokens 2, 3 and the first 0, the last place dropped: 2.1 + 3.2 + 0.3.
        // 12: the 2 and the end behind it: 2.1 + 0.2. 7: the end behind it: 0.7. 3012: the 0, the 1, the 2:
        // 0.3 + 1.0 + 2.1; the row has its 0, so nothing behind it.
        assert_eq!((report.public_code.tokens, report.public_code.truncated), (3 + 2 + 1 + 3, 1));
        assert!((nats(&report.public_code) - (5.6 + 2.3 + 0.7 + 3.4)).abs() < 1e-9, "{report:?}");
        // As they are, up to the judge's six: 123040 costs 2.1 + 3.2 + 0.3 + 4.0 + 0.4; 12 costs 2.1; 3012 costs 3.4.
        assert_eq!((report.paper.tokens, report.paper.truncated), (5 + 1 + 3, 1));
        assert!((nats(&report.paper) - (10.0 + 2.1 + 3.4)).abs() < 1e-9, "{report:?}");
        assert_eq!((report.samples, report.without_prediction), (5, 2));
        assert_eq!(report.entropy_model_tokens, None);
        // Entropies of 12304, 12, 7, 3012; the empty text has none.
        let entropy = (5_f64.ln() + 2_f64.ln() + 0.0 + 4_f64.ln()) / 4.0;
        assert!((report.entropy_judge_tokens.unwrap().value - entropy).abs() < 1e-12);
        assert_eq!(report.distinct[0].over_set, Some(6.0 / 12.0));
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<JudgeReport>(&json).unwrap(), report);
    }

    #[test]
    fn rows_are_judged_longest_first_and_the_batch_changes_nothing() {
        let samples = ["12", "1234", "", "1231", "9", "98765"].map(sample);
        let judge = Digits::default();
        let mut seen = Vec::new();
        let settings = JudgeSettings { batch: 2, ..JudgeSettings::default() };
        let report = judge_samples(&judge, &samples, &settings, &mut |done, all| {
            seen.push((done, all));
            ControlFlow::Continue(())
        });
        // 12 and 9 have an end of text appended.
        assert_eq!(judge.0.into_inner(), [vec![5, 4], vec![4, 3], vec![2]]);
        assert_eq!(seen, [(2, 6), (4, 6), (5, 6), (6, 6)]);
        let all_at_once = run(&samples, &JudgeSettings { batch: 100, ..JudgeSettings::default() });
        let report = report.unwrap();
        assert_eq!((report.public_code, report.paper), (all_at_once.public_code, all_at_once.paper));
    }

    #[test]
    fn the_models_tokens_are_judged_as_they_are_when_they_are_the_judges() {
        let samples = [Sample { text: "12".to_string(), tokens: Some(vec![0, 5, 5, 0, 1, 1, 1]) }, sample("3")];
        let settings = JudgeSettings { same_tokens: true, ..JudgeSettings::default() };
        let report = run(&samples[..1], &settings);
        assert!((nats(&report.paper) - (5.0 + 5.5 + 0.5 + 1.0 + 1.1)).abs() < 1e-9);
        assert_eq!((report.paper.tokens, report.paper.truncated), (5, 1));
        assert!((report.entropy_model_tokens.unwrap().value - unigram_entropy(&[0, 5, 5, 0, 1, 1, 1])).abs() < 1e-12);
        let judge = |samples: &[Sample]| {
            let result = judge_samples(&Digits::default(), samples, &settings, &mut |_, _| ControlFlow::Continue(()));
            result.unwrap_err().to_string()
        };
        assert!(judge(&samples).starts_with("sample 2: has no tokens"), "{}", judge(&samples));
        let foreign = Sample { text: String::new(), tokens: Some(vec![3, 10]) };
        assert!(judge(&[foreign]).contains("token 10 is not one of the judge's 10"));
    }

    #[test]
    fn what_has_no_prediction_gives_a_report_without_numbers() {
        let report = run(&[sample(""), sample("4")], &JudgeSettings::default());
        assert_eq!((report.public_code.perplexity, report.paper.perplexity), (None, None));
        assert_eq!(report.without_prediction, 2);
        assert_eq!(run(&[], &JudgeSettings::default()).entropy_judge_tokens, None);
    }

    #[test]
    fn a_caller_can_stop_and_settings_are_checked() {
        let samples = [sample("123"), sample("45")];
        let stopped =
            judge_samples(&Digits::default(), &samples, &JudgeSettings::default(), &mut |_, _| ControlFlow::Break(()));
        assert!(matches!(stopped, Err(TrainError::Stopped)));
        let settings = JudgeSettings { batch: 0, ..JudgeSettings::default() };
        let result = judge_samples(&Digits::default(), &samples, &settings, &mut |_, _| ControlFlow::Continue(()));
        assert!(result.unwrap_err().to_string().contains("batch"));
    }

    #[test]
    fn ragged_rows_are_filled_behind_and_cut_back() {
        let rows: [&[u32]; 3] = [&[5, 6, 7], &[8], &[1, 2]];
        let network = |tokens: Tensor<2, Int>| {
            assert_eq!(tokens.clone().try_into_vec_as::<i32>().unwrap(), [5, 6, 7, 8, 0, 0, 1, 2, 0]);
            tokens.narrow(1, 1, 2).float()
        };
        let found = ragged_nll(&rows, &Device::flex(), network).unwrap();
        assert_eq!(found, [vec![6.0, 7.0], vec![], vec![2.0]]);
        let single = ragged_nll(&rows[1..2], &Device::flex(), |_| unreachable!("one token has no prediction"));
        assert_eq!(single.unwrap(), [Vec::<f64>::new()]);
    }
}
