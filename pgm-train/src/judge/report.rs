//! Judging samples: from texts to a [`JudgeReport`].

use serde::{Deserialize, Serialize};

use super::batches::batched_nll;
use super::counting::{self, NllSum};
use super::language_model::Judge;
use super::metrics::{Distinct, Estimate, distinct, unigram_entropy};
use super::progress::Observe;
use super::samples::Sample;
use crate::TrainError;

/// How samples are judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeSettings {
    /// Tokens to which a text is cut for the public code's perplexity, the judge's entropy and the distinct n-grams. At
    /// most the judge's own length.
    pub length: usize,
    /// Rows of a batch.
    pub batch: usize,
    /// Seed of the bootstrap.
    pub seed: u64,
    /// Whether the samples' `tokens` are ids of the judge's vocabulary. If so, the paper's perplexity is computed on them
    /// without changes, BOS included, in a second pass. Otherwise it is computed on the judge's tokens of the text.
    pub same_tokens: bool,
}

impl Default for JudgeSettings {
    /// Cuts texts to 1024 tokens, as the public code does.
    fn default() -> Self {
        Self { length: 1024, batch: 8, seed: 0, same_tokens: false }
    }
}

/// A generative perplexity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Perplexity {
    /// `exp(nats / tokens)` over the counted tokens, with its interval over samples. Absent when no token is counted.
    pub perplexity: Option<Estimate>,
    /// Counted tokens.
    pub tokens: usize,
    /// Samples that were cut, to [`JudgeSettings::length`] or, for the paper's perplexity, to the judge's length.
    pub truncated: usize,
}

/// The result of [`judge_samples`]. A number that cannot be estimated is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeReport {
    /// Number of samples.
    pub samples: usize,
    /// Samples of fewer than two of the judge's tokens. None of their own tokens has a prediction.
    pub without_prediction: usize,
    /// Perplexity as the public code counts, see [`counting`].
    pub public_code: Perplexity,
    /// Perplexity by the paper's eq. 14.
    pub paper: Perplexity,
    /// Mean unigram entropy in nats of the judge's tokens, texts cut as for the public code.
    pub entropy_judge_tokens: Option<Estimate>,
    /// Mean unigram entropy in nats of the samples' own tokens, over the samples that have them. The paper reports this.
    pub entropy_model_tokens: Option<Estimate>,
    /// Distinct n-grams of the judge's tokens for n from 1 to 4, texts cut as for the public code.
    pub distinct: Vec<Distinct>,
    /// The settings.
    pub settings: JudgeSettings,
}

/// What a judge says about one sample.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgedSample {
    /// NLLs as the public code counts.
    pub public_code: NllSum,
    /// NLLs by the paper's eq. 14.
    pub paper: NllSum,
    /// Unigram entropy in nats of its own tokens, or of the judge's where it has none. An empty sample has none.
    pub entropy: Option<f64>,
}

/// Judges samples.
///
/// # Errors
/// [`TrainError::Judge`] for settings or samples that cannot be judged, [`TrainError::Stopped`] when `observe` breaks,
/// and the judge's errors.
pub fn judge_samples(
    judge: &dyn Judge,
    samples: &[Sample],
    settings: &JudgeSettings,
    observe: &mut Observe,
) -> Result<JudgeReport, TrainError> {
    Ok(judge_each(judge, samples, settings, observe)?.0)
}

/// As [`judge_samples`], with what the judge says about each sample.
///
/// # Errors
/// As [`judge_samples`].
pub fn judge_each(
    judge: &dyn Judge,
    samples: &[Sample],
    settings: &JudgeSettings,
    observe: &mut Observe,
) -> Result<(JudgeReport, Vec<JudgedSample>), TrainError> {
    if settings.length < 2 || settings.batch == 0 {
        return Err(TrainError::judge("judge", "the length must be at least 2 and the batch at least 1"));
    }
    let (eos, max_length) = (judge.eos(), judge.max_length());
    let length = settings.length.min(max_length);
    let texts = samples.iter().map(|sample| judge.encode(&sample.text)).collect::<Result<Vec<_>, _>>()?;
    let n_tokens: Vec<usize> = texts.iter().map(Vec::len).collect();
    let cut: Vec<&[u32]> = texts.iter().map(|text| &text[..text.len().min(length)]).collect();
    let padded_length = cut.iter().map(|row| row.len()).max().unwrap_or(0);
    // One NLL per token serves both conventions: the judge is causal, so a cut does not change the tokens before it.
    let judged: Vec<Vec<u32>> = texts
        .iter()
        .zip(&cut)
        .map(|(text, row)| {
            let end = counting::counts_appended_eos(row, eos, padded_length).then_some(eos);
            text.iter().take(max_length).copied().chain(end).collect()
        })
        .collect();
    let own_tokens = own_tokens(judge, samples, settings)?;
    let n_rows = judged.len() + own_tokens.as_ref().map_or(0, Vec::len);
    let nll = batched_nll(judge, &judged, settings.batch, &mut |n_done, _| observe(n_done, n_rows))?;

    let sums = cut.iter().zip(&nll).map(|(row, nll)| counting::public_code(row, nll, eos, padded_length));
    let public_sums: Vec<NllSum> = sums.collect();
    let n_longer = |limit: usize, lengths: &[usize]| lengths.iter().filter(|&&length| length > limit).count();
    let public_code = perplexity(&public_sums, n_longer(length, &n_tokens), settings.seed);
    let (paper_sums, truncated): (Vec<NllSum>, usize) = match own_tokens {
        Some(rows) => {
            let mut observe = |n_done, _| observe(judged.len() + n_done, n_rows);
            let nll = batched_nll(judge, &rows, settings.batch, &mut observe)?;
            let sums = rows.iter().zip(&nll).map(|(row, nll)| counting::paper(row, nll)).collect();
            let lengths: Vec<usize> = samples.iter().map(|sample| sample.tokens.as_ref().map_or(0, Vec::len)).collect();
            (sums, n_longer(max_length, &lengths))
        }
        None => {
            let rows = texts.iter().map(|text| &text[..text.len().min(max_length)]);
            (rows.zip(&nll).map(|(row, nll)| counting::paper(row, nll)).collect(), n_longer(max_length, &n_tokens))
        }
    };
    let paper = perplexity(&paper_sums, truncated, settings.seed);
    let sample = |index: usize| {
        let tokens = samples[index].tokens.as_deref().unwrap_or(cut[index]);
        let entropy = (!tokens.is_empty()).then(|| unigram_entropy(tokens));
        JudgedSample { public_code: public_sums[index], paper: paper_sums[index], entropy }
    };
    let each = (0..samples.len()).map(sample).collect();
    let entropy = |rows: &mut dyn Iterator<Item = &[u32]>| {
        let entropies: Vec<f64> = rows.filter(|row| !row.is_empty()).map(unigram_entropy).collect();
        Estimate::of_mean(&entropies, settings.seed)
    };
    let report = JudgeReport {
        samples: samples.len(),
        without_prediction: n_tokens.iter().filter(|&&length| length < 2).count(),
        public_code,
        paper,
        entropy_judge_tokens: entropy(&mut cut.iter().copied()),
        entropy_model_tokens: entropy(&mut samples.iter().filter_map(|sample| sample.tokens.as_deref())),
        distinct: (1..=4).map(|n| distinct(&cut, n)).collect(),
        settings: settings.clone(),
    };
    Ok((report, each))
}

fn perplexity(sums: &[NllSum], truncated: usize, seed: u64) -> Perplexity {
    let of_rows = |rows: &[NllSum]| NllSum::total(rows).perplexity();
    Perplexity { perplexity: Estimate::of(sums, of_rows, seed), tokens: NllSum::total(sums).tokens, truncated }
}

// The samples' own tokens, cut to the judge's length; absent unless the settings say that they are the judge's tokens.
fn own_tokens(
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
            return fail("has no tokens, but the settings say that the samples have the judge's tokens".to_string());
        };
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= judge.vocab_size()) {
            let n = judge.vocab_size();
            return fail(format!("token {token} is not one of the judge's {n}; the tokenizers are not the same"));
        }
        Ok(tokens.iter().take(judge.max_length()).copied().collect())
    };
    samples.iter().enumerate().map(row).collect::<Result<_, _>>().map(Some)
}
