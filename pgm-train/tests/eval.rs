//! Evaluations against computations by hand, and their independence of batch size and interruption.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_data::{DataFolder, Mode, Split, TextTokenizer};
use pgm_model::loss::token_cross_entropy;
use pgm_model::{
    AutoregressiveConfig, BackboneConfig, ModelConfig, Network, Partition, PartitionConfig, Projection, Queries,
    model_folder,
};
use pgm_train::eval::choice::{Reduction, read_questions};
use pgm_train::eval::greedy::read_last_words;
use pgm_train::eval::{
    self, ChoiceSettings, EvalModel, GenerativeSettings, GreedySettings, LastWord, PplSettings, Question, ResultLog,
    RowNats,
};
use pgm_train::judge::{JudgeSettings, OwnJudge, judge_samples};
use pgm_train::{HiddenTokens, NelboEstimator, TrainError};
use serde_json::json;

mod common;
use common::byte_data;

const LENGTH: usize = 24;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Partition,
    Masked,
    Autoregressive,
}

/// A folder with a randomly initialised model and the byte tokenizer.
fn save_model(folder: &Path, kind: Kind) -> PathBuf {
    let tokenizer = TextTokenizer::bytes();
    let mut backbone = BackboneConfig { cond_dim: 8, ..BackboneConfig::new(tokenizer.vocab_size(), 16, 2, LENGTH) };
    let special = tokenizer.special();
    backbone.mask_index = special.mask as usize;
    backbone.bos_index = special.bos as usize;
    backbone.eos_index = special.eos as usize;
    backbone.pad_index = None;
    let partition = PartitionConfig {
        backbone: backbone.clone(),
        encoder_blocks: 1,
        decoder_blocks: 1,
        queries: Queries::default(),
        projection: Projection::default(),
        sets: Default::default(),
    };
    let config = match kind {
        Kind::Partition => ModelConfig::Partition(partition),
        Kind::Masked => ModelConfig::Partition(partition).masked_baseline(),
        Kind::Autoregressive => ModelConfig::Autoregressive(AutoregressiveConfig { backbone, n_blocks: 2 }),
    };
    let network = Network::new(&config, &Device::flex()).with_noise(0.4, 3);
    model_folder::save(folder, &config, &network).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer.json()).unwrap();
    folder.to_path_buf()
}

fn data(folder: &Path, mode: Mode) -> DataFolder {
    data_with(folder, mode, "abcdefgh")
}

/// A data folder whose text repeats a word.
fn data_with(folder: &Path, mode: Mode, word: &str) -> DataFolder {
    let text: String = (0..40).map(|i| format!("line {i} says {}\n", word.repeat(i % 3 + 1))).collect();
    std::fs::write(folder.join("text.txt"), text).unwrap();
    byte_data(&folder.join("text.txt"), &folder.join(format!("{mode:?}-{word}")), (LENGTH, mode), 0.4)
}

fn go_on(_: usize, _: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn in_memory<T: serde::Serialize + serde::de::DeserializeOwned>() -> ResultLog<T> {
    ResultLog::open(None, &json!({})).unwrap()
}

fn ints(values: &[u32]) -> Tensor<2, Int> {
    let values: Vec<i32> = values.iter().map(|&value| value as i32).collect();
    let shape = [1, values.len()];
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

// NLLs of a row's tokens with some of them masked, by the network's training path.
fn by_hand(model: &EvalModel, tokens: &[u32], is_masked: &[bool]) -> Vec<f32> {
    let mask = model.text_model().config().backbone().mask_index;
    let logits = match model.text_model().network() {
        Network::Partition(model) => {
            model.forward_partition(ints(tokens), &Partition::from_rows(&[is_masked.to_vec()], &Device::flex()))
        }
        Network::Masked(model) => {
            let seen: Vec<u32> =
                tokens.iter().zip(is_masked).map(|(&token, &hide)| if hide { mask as u32 } else { token }).collect();
            model.forward(ints(&seen))
        }
        Network::Autoregressive(model) => model.forward(ints(tokens)),
        Network::MaskGit(_) => unreachable!("no model of images in this test"),
    };
    let targets = match model.text_model().network() {
        Network::Autoregressive(_) => [&tokens[1..], &[0]].concat(),
        _ => tokens.to_vec(),
    };
    token_cross_entropy(logits, ints(&targets), mask).try_into_vec_as::<f32>().unwrap()
}

#[test]
fn a_uniform_model_has_its_exact_likelihood_at_any_size() {
    // A new network predicts all tokens with equal probability. Its exact NLL is ln(V - 1) per token.
    let folder = tempfile::tempdir().unwrap();
    for mode in [Mode::Pack, Mode::Pad] {
        let data = data(folder.path(), mode);
        for kind in [Kind::Partition, Kind::Masked, Kind::Autoregressive] {
            let path = save_model(folder.path(), kind);
            let (config, _) = model_folder::load(&path, &Device::flex()).unwrap();
            let blank = Network::new(&config, &Device::flex());
            model_folder::save(&path, &config, &blank).unwrap();
            let model = EvalModel::load(&path, &Device::flex()).unwrap();
            for (rows, times) in [(1, 1), (3, 2), (7, 1), (0, 3)] {
                let settings = PplSettings { rows, times, batch: 5, ..PplSettings::default() };
                let report = eval::ppl(&model, &data, &settings, in_memory(), &mut go_on).unwrap();
                let found = report.nats_per_token.unwrap();
                assert!((found.value - 257_f64.ln()).abs() < 1e-5, "{mode:?}, {rows} rows: {found:?}");
                if let Some([low, high]) = found.interval {
                    assert!(high - low < 1e-5 && low <= found.value + 1e-9 && found.value <= high + 1e-9, "{found:?}");
                }
            }
        }
    }
}

#[test]
fn both_estimators_agree_within_their_intervals() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), Mode::Pack);
    let model = EvalModel::load(&save_model(folder.path(), Kind::Partition), &Device::flex()).unwrap();
    let of = |estimator| {
        let settings = PplSettings { times: 64, batch: 16, estimator, ..PplSettings::default() };
        eval::ppl(&model, &data, &settings, in_memory(), &mut go_on).unwrap().nats_per_token.unwrap()
    };
    let (any_order, mdlm) = (of(NelboEstimator::AnyOrder), of(NelboEstimator::Mdlm));
    let ([low, high], [mdlm_low, mdlm_high]) = (any_order.interval.unwrap(), mdlm.interval.unwrap());
    assert!(low < mdlm_high && mdlm_low < high, "{any_order:?} {mdlm:?}");
    assert!(mdlm_low < any_order.value && any_order.value < mdlm_high, "{any_order:?} {mdlm:?}");
    assert!(high - low < mdlm_high - mdlm_low, "{any_order:?} {mdlm:?}");
}

#[test]
fn the_bound_of_each_row_agrees_with_the_training_path() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, mode) in [(Kind::Partition, Mode::Pack), (Kind::Masked, Mode::Pad), (Kind::Partition, Mode::Pad)] {
        let folder = tempfile::tempdir_in(folder.path()).unwrap();
        let data = data(folder.path(), mode);
        let model = EvalModel::load(&save_model(folder.path(), kind), &Device::flex()).unwrap();
        for estimator in [NelboEstimator::AnyOrder, NelboEstimator::Mdlm] {
            let settings = PplSettings { rows: 3, times: 2, seed: 9, batch: 2, estimator, ..PplSettings::default() };
            let report = eval::ppl(&model, &data, &settings, in_memory(), &mut go_on).unwrap();
            let rows = data.rows(Split::Validation).unwrap();
            for (place, found) in report.by_row.iter().enumerate() {
                let row = rows.row(found.row).unwrap();
                let mut sum = 0.0;
                for HiddenTokens { is_hidden, weight } in
                    eval::ppl::draws(place, found.row, &row, report.rows, &settings)
                {
                    let nats = by_hand(&model, &row.tokens, &is_hidden);
                    let counted = (0..row.valid).filter(|&position| is_hidden[position]);
                    sum += counted.map(|position| f64::from(nats[position]) * weight).sum::<f64>() / 2.0;
                }
                assert!((found.nats - sum).abs() < 1e-4 * sum.max(1.0), "row {}: {} {sum}", found.row, found.nats);
                assert_eq!(found.tokens, row.valid);
            }
            let all: usize = report.by_row.iter().map(|row| row.tokens).sum();
            let sum: f64 = report.by_row.iter().map(|row| row.nats).sum();
            assert!((report.perplexity.unwrap().value.ln() - sum / all as f64).abs() < 1e-12);
            assert_eq!(report.perplexity, report.perplexity_all_tokens);
        }
    }
}

#[test]
fn an_exact_likelihood_is_reported_per_token_with_and_without_bos() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), Mode::Pad);
    let model = EvalModel::load(&save_model(folder.path(), Kind::Autoregressive), &Device::flex()).unwrap();
    let settings = PplSettings { rows: 4, batch: 3, ..PplSettings::default() };
    let report = eval::ppl(&model, &data, &settings, in_memory(), &mut go_on).unwrap();
    let rows = data.rows(Split::Validation).unwrap();
    let (mut sum, mut all) = (0.0, 0);
    for found in &report.by_row {
        let row = rows.row(found.row).unwrap();
        let nats = by_hand(&model, &row.tokens, &vec![false; row.tokens.len()]);
        let exact: f64 = nats[..row.valid - 1].iter().map(|&value| f64::from(value)).sum();
        assert!((found.nats - exact).abs() < 1e-4, "{} {exact}", found.nats);
        (sum, all) = (sum + found.nats, all + row.valid);
    }
    let value = |estimate: Option<pgm_train::judge::metrics::Estimate>| estimate.unwrap().value.ln();
    assert!((value(report.perplexity) - sum / (all - report.rows) as f64).abs() < 1e-12);
    assert!((value(report.perplexity_all_tokens) - sum / all as f64).abs() < 1e-12);
    assert_eq!((report.perplexity, report.measure), (report.perplexity_without_bos, "nll"));
}

#[test]
fn a_stopped_evaluation_continues_and_equals_an_unbroken_one() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), Mode::Pack);
    let model = EvalModel::load(&save_model(folder.path(), Kind::Partition), &Device::flex()).unwrap();
    let settings = PplSettings { rows: 8, times: 3, seed: 4, batch: 3, ..PplSettings::default() };
    let unbroken = eval::ppl(&model, &data, &settings, in_memory(), &mut go_on).unwrap();
    assert_eq!(unbroken, eval::ppl(&model, &data, &settings, in_memory(), &mut go_on).unwrap());
    // Another batch size changes the rounding only.
    let one_by_one = PplSettings { batch: 1, ..settings.clone() };
    let alone = eval::ppl(&model, &data, &one_by_one, in_memory(), &mut go_on).unwrap();
    for (a, b) in alone.by_row.iter().zip(&unbroken.by_row) {
        assert!(a.row == b.row && (a.nats - b.nats).abs() < 1e-4 * b.nats, "{a:?} {b:?}");
    }
    let path = folder.path().join("progress.jsonl");
    let identity = eval::ppl::identity(&model, &data, &settings).unwrap();
    let open = || ResultLog::<RowNats>::open(Some(&path), &identity).unwrap();
    let mut stop_at_four =
        |done: usize, _: usize| if done > 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let stopped = eval::ppl(&model, &data, &settings, open(), &mut stop_at_four);
    assert!(matches!(stopped, Err(TrainError::Stopped)));
    assert_eq!(open().done().len(), 6);
    assert_eq!(unbroken, eval::ppl(&model, &data, &settings, open(), &mut go_on).unwrap());
    // All models get the same rows.
    let other = EvalModel::load(&save_model(folder.path(), Kind::Masked), &Device::flex()).unwrap();
    let rows = |report: &eval::PplReport| report.by_row.iter().map(|row| row.row).collect::<Vec<_>>();
    assert_eq!(rows(&unbroken), rows(&eval::ppl(&other, &data, &settings, in_memory(), &mut go_on).unwrap()));
    assert_ne!(identity, eval::ppl::identity(&other, &data, &settings).unwrap());
}

#[test]
fn a_progress_file_for_other_data_with_equal_row_counts_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["abcdefgh", "hgfedcba"].map(|word| data_with(folder.path(), Mode::Pack, word));
    assert_eq!(first.manifest(), second.manifest());
    let model = EvalModel::load(&save_model(folder.path(), Kind::Partition), &Device::flex()).unwrap();
    let settings = PplSettings { rows: 2, times: 1, ..PplSettings::default() };
    let path = folder.path().join("progress.jsonl");
    let open = |data: &DataFolder| {
        ResultLog::<RowNats>::open(Some(&path), &eval::ppl::identity(&model, data, &settings).unwrap())
    };
    eval::ppl(&model, &first, &settings, open(&first).unwrap(), &mut go_on).unwrap();
    let before = std::fs::read(&path).unwrap();
    let message = open(&second).unwrap_err().to_string();
    assert!(message.contains("data_identity was") && !message.contains('\n'), "{message}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(open(&first).unwrap().done().len(), 2);
}

#[test]
fn the_identity_of_texts_depends_on_where_one_ends() {
    let folder = tempfile::tempdir().unwrap();
    let model = EvalModel::load(&save_model(folder.path(), Kind::Partition), &Device::flex()).unwrap();
    let identity = |texts: [&str; 2]| {
        let texts = texts.map(|text| LastWord { text: text.to_string() });
        eval::greedy::identity(&model, &texts, &GreedySettings { seed: 0 })
    };
    assert_ne!(identity(["a b c", " d"]), identity(["a b", " c d"]));
}

#[test]
fn data_of_another_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), Mode::Pack);
    let path = save_model(folder.path(), Kind::Masked);
    let json = std::fs::read_to_string(path.join("tokenizer.json")).unwrap();
    std::fs::write(path.join("tokenizer.json"), json.replacen("\"!\":", "\"#!\":", 1)).unwrap();
    let model = EvalModel::load(&path, &Device::flex()).unwrap();
    let error = eval::ppl(&model, &data, &PplSettings::default(), in_memory(), &mut go_on).unwrap_err();
    assert!(error.to_string().contains("another tokenizer"), "{error}");
}

#[test]
fn data_with_other_special_tokens_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), Mode::Pad);
    for kind in ["bos", "eos", "pad"] {
        let path = save_model(&folder.path().join(kind), Kind::Masked);
        let text = std::fs::read_to_string(path.join("config.json")).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config["backbone"][format!("{kind}_index")] = json!(33);
        std::fs::write(path.join("config.json"), config.to_string()).unwrap();
        let model = EvalModel::load(&path, &Device::flex()).unwrap();
        let error = eval::ppl(&model, &data, &PplSettings::default(), in_memory(), &mut go_on).unwrap_err().to_string();
        let says = format!("has \"!\" (id 33) as its {kind} token, the data has \"<|endoftext|>\" (id 256)");
        assert!(error.contains(&says) && error.contains(&format!("{kind}=!")), "{error}");
    }
}

#[test]
fn choices_are_scored_by_the_mean_over_shared_draws() {
    let folder = tempfile::tempdir().unwrap();
    let question = Question::new("two plus".into(), vec!["one".into(), "three".into(), "one".into()], 1);
    let long = Question::new("a".repeat(LENGTH), vec!["b".into(), "c".into()], 0);
    let questions = [question, long];
    for kind in [Kind::Partition, Kind::Masked, Kind::Autoregressive] {
        let model = EvalModel::load(&save_model(folder.path(), kind), &Device::flex()).unwrap();
        let settings = ChoiceSettings { draws: 6, batch: 4, ..ChoiceSettings::default() };
        let path = folder.path().join(format!("{}.jsonl", eval::kind(model.text_model().config())));
        let open = || ResultLog::<eval::choice::ChoiceResult>::open(Some(&path), &json!({})).unwrap();
        let report = eval::choice(&model, &questions, &settings, open(), &mut go_on).unwrap();
        assert_eq!((report.answered, report.too_long), (1, 1));
        assert!((report.chance - 1.0 / 3.0).abs() < 1e-12);
        let answers = open().into_done();
        assert!(answers[1].scores.is_empty());
        let scores = &answers[0].scores;
        // Equal choices have equal scores: the choices of a question share their draws.
        assert_eq!(scores[0], scores[2]);
        assert_eq!(answers[0].right, scores[1] > scores[0]);
        assert_eq!(report.accuracy.unwrap().value, if answers[0].right { 1.0 } else { 0.0 });
        let mut row = vec![256];
        row.extend(
            "two plus three"
                .bytes()
                .map(|byte| TextTokenizer::bytes().encode(&char::from(byte).to_string()).unwrap()[0]),
        );
        row.push(256);
        let nats = if kind == Kind::Autoregressive {
            by_hand(&model, &row, &vec![false; row.len()])[..row.len() - 1].iter().map(|&x| f64::from(x)).sum::<f64>()
        } else {
            let draws = eval::choice::draws(0, row.len(), &settings);
            let weighted_nll = |HiddenTokens { is_hidden, weight }: HiddenTokens| {
                let nats = by_hand(&model, &row, &is_hidden);
                let hidden = nats.iter().zip(&is_hidden).filter(|(_, is_hidden)| **is_hidden);
                hidden.map(|(&nats, _)| f64::from(nats) * weight).sum::<f64>() / 6.0
            };
            draws.into_iter().map(weighted_nll).sum()
        };
        assert!((scores[1] + nats).abs() < 2e-4 * nats, "{} {nats}", scores[1]);
        let mean = ChoiceSettings { reduction: Reduction::Mean, ..settings };
        let path = folder.path().join(format!("{}-mean.jsonl", eval::kind(model.text_model().config())));
        let log = ResultLog::<eval::choice::ChoiceResult>::open(Some(&path), &json!({})).unwrap();
        eval::choice(&model, &questions, &mean, log, &mut go_on).unwrap();
        let log = ResultLog::<eval::choice::ChoiceResult>::open(Some(&path), &json!({})).unwrap();
        assert!((log.done()[0].scores[1] - scores[1] / row.len() as f64).abs() < 1e-9);
    }
}

#[test]
fn all_tokens_of_the_last_word_are_predicted_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let texts = ["it was a cat\n".to_string(), "word ".repeat(LENGTH), "it was zz".to_string()];
    let items = texts.map(|text| LastWord { text });
    for kind in [Kind::Partition, Kind::Masked, Kind::Autoregressive] {
        let saved = save_model(folder.path(), kind);
        // A tokenizer that makes nothing of one word, as BERT's does of a character without width.
        let path = saved.join("tokenizer.json");
        let mut tokenizer: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        tokenizer["normalizer"] = json!({"type": "Replace", "pattern": {"String": " zz"}, "content": ""});
        std::fs::write(&path, tokenizer.to_string()).unwrap();
        let model = EvalModel::load(&saved, &Device::flex()).unwrap();
        let path = folder.path().join(format!("{}-words.jsonl", eval::kind(model.text_model().config())));
        let open = || ResultLog::<eval::greedy::WordResult>::open(Some(&path), &json!({})).unwrap();
        let settings = GreedySettings { seed: 0 };
        let report = eval::greedy(&model, &items, &settings, open(), &mut go_on).unwrap();
        assert_eq!((report.answered, report.too_long), (1, 2));
        let word = &open().into_done()[0];
        // BOS, "it was a", " cat", EOS: tokens 9 to 12.
        let mut row = vec![256];
        row.extend(TextTokenizer::bytes().encode("it was a cat").unwrap());
        row.push(256);
        let is_masked: Vec<bool> = (0..row.len()).map(|position| (9..13).contains(&position)).collect();
        let nats = by_hand(&model, &row, &is_masked);
        let range = if kind == Kind::Autoregressive { 8..12 } else { 9..13 };
        let sum: f64 = nats[range].iter().map(|&x| f64::from(x)).sum();
        assert_eq!(word.tokens, 4);
        assert!((word.nats - sum).abs() < 1e-4, "{} {sum}", word.nats);
        assert!((report.perplexity.unwrap().value.ln() - sum / 4.0).abs() < 1e-4);
    }
}

#[test]
fn task_files_are_read_with_the_harness_field_names_and_errors_name_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("task.jsonl");
    let good = "{\"query\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": 1}\n\
                {\"context\": \"a\", \"endings\": [\"b\", \"c\"], \"label\": \"0\", \"ind\": 4}\n\
                {\"question\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": \"c\"}\n";
    std::fs::write(&path, good).unwrap();
    assert_eq!(read_questions(&path).unwrap().len(), 3);
    // As some editors write it, with a byte order mark.
    std::fs::write(&path, format!("\u{feff}{good}")).unwrap();
    assert_eq!(read_questions(&path).unwrap().len(), 3);
    for (line, problem) in [
        ("{\"context\": \"a\", \"choices\": [\"b\"], \"label\": 0}", "line 4: needs at least two choices"),
        ("{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"label\": 2}", "line 4: needs at least two choices"),
        ("{\"context\": \"a\"}", "line 4: is not a question"),
    ] {
        std::fs::write(&path, format!("{good}{line}\n")).unwrap();
        let message = read_questions(&path).unwrap_err().to_string();
        assert!(message.contains(problem) && !message.contains('\n'), "{message}");
    }
    // Blank lines count as lines.
    std::fs::write(&path, "{\"text\": \"two words\"}\n\n{\"text\": \"one\"}\n").unwrap();
    let message = read_last_words(&path).unwrap_err().to_string();
    assert!(message.contains("line 3: has no word after a space"), "{message}");
}

#[test]
fn samples_do_not_depend_on_the_batch_size_and_an_autoregressive_model_judges_them() {
    let folder = tempfile::tempdir().unwrap();
    let model = EvalModel::load(&save_model(folder.path(), Kind::Partition), &Device::flex()).unwrap();
    let settings = GenerativeSettings { samples: 5, steps: 4, batch: 2, seed: 7, ..GenerativeSettings::default() };
    let texts = |settings: &GenerativeSettings| -> Vec<_> {
        let batches = eval::sample_texts(&model, settings, in_memory(), &mut go_on).unwrap();
        batches.into_iter().flat_map(|batch| batch.samples).collect()
    };
    let samples = texts(&settings);
    assert_eq!(samples, texts(&GenerativeSettings { batch: 5, ..settings }));
    assert!(samples.iter().all(|sample| sample.tokens.as_ref().unwrap().len() == LENGTH));
    let judge = OwnJudge::load(&save_model(folder.path(), Kind::Autoregressive), &Device::flex()).unwrap();
    let settings = JudgeSettings { same_tokens: true, ..JudgeSettings::default() };
    let report = judge_samples(&judge, &samples, &settings, &mut go_on).unwrap();
    assert_eq!(report.paper.tokens, 5 * (LENGTH - 1));
    assert!(report.paper.perplexity.unwrap().value > 1.0 && report.entropy_model_tokens.unwrap().value > 0.0);
    let error = OwnJudge::load(&save_model(folder.path(), Kind::Masked), &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("is not autoregressive"), "{error}");
}
