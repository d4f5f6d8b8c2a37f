//! Judging with a judge whose NLLs can be computed by hand.

use std::cell::RefCell;
use std::ops::ControlFlow;

use burn::tensor::{Device, Int, Tensor};

use super::metrics::unigram_entropy;
use super::*;
use crate::TrainError;

const EOS: u32 = 0;

// The tokens of a text are its digits. Token a after token b has an NLL of a + b / 10. Records the lengths of the rows of
// each batch.
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
fn both_conventions_of_a_small_set_by_hand() {
    let samples = ["1230405", "12", "7", "", "3012"].map(sample);
    let settings = JudgeSettings { length: 5, batch: 2, ..JudgeSettings::default() };
    let report = run(&samples, &settings);
    // Cut to 5 and padded to 5. 12304: tokens 2, 3 and the first 0, without the last position: 2.1 + 3.2 + 0.3.
    // 12: the 2 and the appended EOS: 2.1 + 0.2. 7: the appended EOS: 0.7. 3012: the 0, the 1, the 2: 0.3 + 1.0 + 2.1;
    // the row has an EOS, so none is appended.
    assert_eq!((report.public_code.tokens, report.public_code.truncated), (3 + 2 + 1 + 3, 1));
    assert!((nats(&report.public_code) - (5.6 + 2.3 + 0.7 + 3.4)).abs() < 1e-9, "{report:?}");
    // Eq. 14, cut to the judge's six tokens: 123040 has 2.1 + 3.2 + 0.3 + 4.0 + 0.4 nats, 12 has 2.1, 3012 has 3.4.
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
    // 12 and 9 have an EOS appended.
    assert_eq!(judge.0.into_inner(), [vec![5, 4], vec![4, 3], vec![2]]);
    assert_eq!(seen, [(2, 6), (4, 6), (5, 6), (6, 6)]);
    let all_at_once = run(&samples, &JudgeSettings { batch: 100, ..JudgeSettings::default() });
    let report = report.unwrap();
    assert_eq!((report.public_code, report.paper), (all_at_once.public_code, all_at_once.paper));
}

#[test]
fn with_a_shared_vocabulary_the_sampled_tokens_themselves_are_judged() {
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
    let unknown_token = Sample { text: String::new(), tokens: Some(vec![3, 10]) };
    assert!(judge(&[unknown_token]).contains("token 10 is not one of the judge's 10"));
}

#[test]
fn samples_without_a_prediction_give_a_report_without_numbers() {
    let report = run(&[sample(""), sample("4")], &JudgeSettings::default());
    assert_eq!((report.public_code.perplexity, report.paper.perplexity), (None, None));
    assert_eq!(report.without_prediction, 2);
    assert_eq!(run(&[], &JudgeSettings::default()).entropy_judge_tokens, None);
}

#[test]
fn a_caller_can_stop_and_settings_are_validated() {
    let samples = [sample("123"), sample("45")];
    let stopped =
        judge_samples(&Digits::default(), &samples, &JudgeSettings::default(), &mut |_, _| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(TrainError::Stopped)));
    let settings = JudgeSettings { batch: 0, ..JudgeSettings::default() };
    let result = judge_samples(&Digits::default(), &samples, &settings, &mut |_, _| ControlFlow::Continue(()));
    assert!(result.unwrap_err().to_string().contains("batch"));
}

#[test]
fn ragged_rows_are_padded_at_their_end_and_the_padding_is_dropped() {
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
