//! A judge's folder, from opening to report, against the golden NLLs of a tiny GPT-2.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use pgm_train::judge::{
    Gpt2Judge, Judge, JudgeSettings, Pooling, Sample, feature_name, features, judge_samples, mauve,
};
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};

const EOS: u32 = 96;

fn tiny() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gpt2_tiny")
}

// The tiny GPT-2 with a tokenizer whose token i is the word "wi".
fn folder_with_words(n_words: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(tiny().join(file), folder.path().join(file)).unwrap();
    }
    let name = |id: u32| if id == EOS { "<|endoftext|>".to_string() } else { format!("w{id}") };
    let vocab: Map<String, Value> = (0..n_words).map(|id| (name(id), json!(id))).collect();
    let eos = json!({"id": EOS, "content": name(EOS), "single_word": false, "lstrip": false, "rstrip": false,
                     "normalized": false, "special": true});
    let tokenizer = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [eos],
        "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"}});
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    folder
}

fn text(tokens: &[u32]) -> String {
    let word = |&token: &u32| if token == EOS { "<|endoftext|>".to_string() } else { format!("w{token}") };
    tokens.iter().map(word).collect::<Vec<_>>().join(" ")
}

// Tokens and NLLs of the golden rows.
fn golden() -> (Vec<Vec<u32>>, Vec<Vec<f64>>) {
    let bytes = std::fs::read(tiny().join("io.safetensors")).unwrap();
    let io = SafeTensors::deserialize(&bytes).unwrap();
    let length = io.tensor("tokens").unwrap().shape()[1];
    let tokens = io.tensor("tokens").unwrap().data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as u32);
    let nll = io.tensor("nll").unwrap().data().as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b)));
    let (tokens, nll): (Vec<u32>, Vec<f64>) = (tokens.collect(), nll.collect());
    (tokens.chunks(length).map(<[u32]>::to_vec).collect(), nll.chunks(length - 1).map(<[f64]>::to_vec).collect())
}

fn open(folder: &Path) -> Gpt2Judge {
    Gpt2Judge::load(folder, &Device::flex()).unwrap()
}

fn go_on(_: usize, _: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_report_has_the_perplexities_of_the_golden_rows() {
    let folder = folder_with_words(96);
    let judge = open(folder.path());
    let (tokens, nll) = golden();
    assert_eq!(judge.eos(), EOS);
    assert_eq!(judge.encode(&text(&tokens[0])).unwrap(), tokens[0]);
    let sample = |row: &Vec<u32>| Sample { text: text(row), tokens: Some(row.clone()) };
    let samples: Vec<Sample> = tokens.iter().map(sample).collect();
    let settings = JudgeSettings { length: 1024, batch: 2, same_tokens: true, ..JudgeSettings::default() };
    let report = judge_samples(&judge, &samples, &settings, &mut go_on).unwrap();

    let all: Vec<f64> = nll.iter().flatten().copied().collect();
    let perplexity = |nats: &[f64]| (nats.iter().sum::<f64>() / nats.len() as f64).exp();
    let found = report.paper.perplexity.unwrap();
    assert!((found.value / perplexity(&all) - 1.0).abs() < 1e-5, "{found:?} against {}", perplexity(&all));
    let [low, high] = found.interval.unwrap();
    assert!(low < found.value && found.value < high);

    // Rows of equal length: the public code leaves out each row's last token, and every EOS but the first.
    let mut counted = Vec::new();
    for (row, nll) in tokens.iter().zip(&nll) {
        let first = row.iter().position(|&token| token == EOS);
        let keeps = |index: usize| row[index] != EOS || first == Some(index);
        counted.extend((1..row.len() - 1).filter(|&index| keeps(index)).map(|index| nll[index - 1]));
    }
    let found = report.public_code.perplexity.unwrap().value;
    assert_eq!(report.public_code.tokens, counted.len());
    assert!((found / perplexity(&counted) - 1.0).abs() < 1e-5, "{found} against {}", perplexity(&counted));
    assert_eq!(report.entropy_judge_tokens, report.entropy_model_tokens);
}

#[test]
fn features_do_not_depend_on_the_batch_size_and_mauve_accepts_them() {
    let folder = folder_with_words(96);
    let judge = open(folder.path());
    let (tokens, _) = golden();
    let samples: Vec<Sample> = (0..24)
        .map(|i| Sample { text: text(&tokens[i % 3][i / 3..i / 3 + 2 + i]), tokens: None })
        .chain([Sample::default()])
        .collect();
    let found = |batch: usize, pooling| {
        let settings = JudgeSettings { batch, ..JudgeSettings::default() };
        features(&judge, &samples, &settings, pooling, &mut go_on).unwrap()
    };
    for pooling in [Pooling::Last, Pooling::Mean] {
        let (one, many) = (found(1, pooling), found(7, pooling));
        assert_eq!((one.len(), many.len()), (24, 24));
        for (one, many) in one.iter().flatten().zip(many.iter().flatten()) {
            assert!((one - many).abs() < 1e-4, "{one} against {many}");
        }
        assert!((mauve(&one, &one, 1, 1).unwrap().score - 1.0).abs() < 1e-9);
    }
    // The last token's state is that of the network; the mean is over the states of all prefixes.
    let row = judge.encode(&samples[5].text).unwrap();
    let last = &found(7, Pooling::Last)[5];
    let prefixes: Vec<&[u32]> = (1..=row.len()).map(|end| &row[..end]).collect();
    let states = judge.features(&prefixes, Pooling::Last).unwrap();
    let mean = &found(7, Pooling::Mean)[5];
    for at in 0..last.len() {
        let sum: f32 = states.iter().map(|state| state[at]).sum();
        assert!((last[at] - states[row.len() - 1][at]).abs() < 1e-4);
        assert!((mean[at] - sum / row.len() as f32).abs() < 1e-4);
    }
    let name = feature_name(&judge, Pooling::Last);
    assert!(name.starts_with("last hidden state of the last token (GPT-2, ") && name.contains("width"), "{name}");
}

#[test]
fn errors_name_the_file_and_the_problem() {
    let message = |folder: &Path| Gpt2Judge::load(folder, &Device::flex()).unwrap_err().to_string();
    let folder = folder_with_words(99);
    assert!(message(folder.path()).contains("token 98, but the model knows 97"), "{}", message(folder.path()));
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    assert!(message(folder.path()).contains("is not a Hugging Face tokenizer.json"));
    for file in ["tokenizer.json", "model.safetensors", "config.json"] {
        let folder = folder_with_words(96);
        std::fs::remove_file(folder.path().join(file)).unwrap();
        assert!(message(folder.path()).contains(file), "{}", message(folder.path()));
    }
}
