//! The server's log-probabilities, scores and tokens.
#![cfg(all(feature = "flex", feature = "server"))]

use std::collections::HashSet;

use pgm_infer::score::{
    MaskedDraw, OrderedRow, SetDraw, causal_nll, draws, left_to_right, one_pass_nll, random_order, weighted_nll,
};
use pgm_model::{AutoregressiveConfig, ModelConfig};
use serde_json::{Value, json};

mod common;
use common::http::{app, app_of, done, events, get, post, send};
use common::{backbone, bytes, model, partition};

fn causal() -> ModelConfig {
    ModelConfig::Autoregressive(AutoregressiveConfig { backbone: backbone(), n_blocks: 2 })
}

// The text of a name: bytes that are no text have a name of their own.
fn bytes_of_name(name: &str) -> Vec<u8> {
    match name.strip_prefix("bytes:") {
        Some(hex) => hex.split("\\x").skip(1).map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect(),
        None => name.as_bytes().to_vec(),
    }
}

#[tokio::test]
async fn every_token_has_its_own_name_and_every_byte_is_told() {
    let app = app_of(bytes(None));
    for seed in 0..12 {
        // At a high temperature most bytes are no text.
        let body =
            json!({"prompt": "x", "max_tokens": 24, "seed": seed, "logprobs": 5, "temperature": 2.0, "steps": 24});
        let answer = done(&app, "/v1/completions", &body).await;
        let (choice, usage) = (&answer["choices"][0], &answer["usage"]);
        let (logprobs, text) = (&choice["logprobs"], choice["text"].as_str().unwrap());
        let tokens: Vec<&str> =
            logprobs["tokens"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(
            (&json!(tokens.len()), &usage["drawn_tokens"]),
            (&usage["completion_tokens"], &json!(24)),
            "{choice}"
        );
        let all: Vec<u8> = tokens.iter().flat_map(|name| bytes_of_name(name)).collect();
        assert_eq!(String::from_utf8_lossy(&all), text, "the tokens are those of the text");
        let offsets = logprobs["text_offset"].as_array().unwrap();
        assert_eq!(offsets.len(), tokens.len());
        for (place, top) in logprobs["top_logprobs"].as_array().unwrap().iter().enumerate() {
            let top = top.as_object().unwrap();
            assert!(top.len() == 5 || top.len() == 6, "{top:?}");
            assert_eq!(top[tokens[place]], logprobs["token_logprobs"][place]);
            let offset = offsets[place].as_u64().unwrap() as usize;
            let from: String = text.chars().skip(offset).collect();
            let is_text = !tokens[place].starts_with("bytes:");
            assert!(if is_text { from.starts_with(tokens[place]) } else { !from.is_empty() }, "{place} of {choice}");
        }
    }
}

#[tokio::test]
async fn usage_counts_what_was_kept_and_says_what_was_drawn() {
    let app = app_of(bytes(None));
    let body =
        |stop: Value| json!({"prompt": "To be", "max_tokens": 40, "seed": 5, "logprobs": 0, "stop": stop, "steps": 1});
    let whole = done(&app, "/v1/completions", &body(json!(null))).await;
    let text: Vec<char> = whole["choices"][0]["text"].as_str().unwrap().chars().collect();
    let stop: String = text[10..12].iter().collect();
    let cut = done(&app, "/v1/completions", &body(json!(stop))).await;
    let (kept, names) = (cut["choices"][0]["text"].as_str().unwrap(), &cut["choices"][0]["logprobs"]["tokens"]);
    assert_eq!(cut["usage"]["completion_tokens"], kept.len(), "{cut}");
    assert_eq!((names.as_array().unwrap().len(), &cut["usage"]["drawn_tokens"]), (kept.len(), &json!(40)));
    assert_eq!(cut["usage"]["total_tokens"], kept.len() + 5);
    assert_eq!(cut["choices"][0]["finish_reason"], "stop");
    // A stop string that the text begins with leaves nothing.
    let none = done(&app, "/v1/completions", &body(json!(text[0].to_string()))).await;
    assert_eq!((&none["choices"][0]["text"], &none["usage"]["completion_tokens"]), (&json!(""), &json!(0)));
    assert_eq!(none["choices"][0]["logprobs"]["tokens"], json!([]));
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().filter_map(Value::as_f64).collect()
}

fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?} against {expected:?}");
}

#[tokio::test]
async fn echo_with_logprobs_is_exact_for_an_autoregressive_model() {
    let app = app_of(model(&causal()));
    let row = [backbone().bos_index as u32, 3, 1, 4, 1, 5];
    let exact: Vec<f64> = causal_nll(model(&causal()).handle(), &[&row]).unwrap()[0].iter().map(|nats| -nats).collect();
    // As the harness sends it.
    let body = json!({"model": "tiny", "prompt": [[3, 1, 4, 1, 5], [7]], "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": true});
    let answer = done(&app, "/v1/completions", &body).await;
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!(
        (&logprobs["prompt_estimator"], &logprobs["token_logprobs"][0], &logprobs["top_logprobs"][0]),
        (&json!("exact"), &Value::Null, &Value::Null)
    );
    let found = numbers(&logprobs["token_logprobs"]);
    assert_close(&found[..4], &exact[1..]);
    let tokens: Vec<&str> = logprobs["tokens"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!((&tokens[..5], tokens.len()), (&["w3", "w1", "w4", "w1", "w5"][..], 6));
    // The drawn token is the most probable one, and a prompt's token is greedy if it is.
    let tops = logprobs["top_logprobs"].as_array().unwrap();
    for (place, top) in tops.iter().enumerate().skip(1) {
        let best = top.as_object().unwrap().values().filter_map(Value::as_f64).fold(f64::NEG_INFINITY, f64::max);
        let own = logprobs["token_logprobs"][place].as_f64().unwrap();
        assert!(own <= best && (place < 5 || own == best), "{place}: {top}");
        assert_eq!(own == best, top.as_object().unwrap().len() == 1, "{top}");
    }
    assert_eq!(numbers(&answer["choices"][1]["logprobs"]["token_logprobs"]).len(), 1);
    assert_eq!((&answer["usage"]["prompt_tokens"], &answer["usage"]["drawn_tokens"]), (&json!(6), &json!(2)));
    // A BOS of the prompt is the row's: with it, the first token is scored, too.
    let body = json!({"prompt": [[row[0], 3, 1, 4, 1, 5]], "max_tokens": 0, "logprobs": 0, "echo": true});
    let answer = done(&app, "/v1/completions", &body).await;
    assert_close(&numbers(&answer["choices"][0]["logprobs"]["token_logprobs"]), &exact);
    assert_eq!(
        (&answer["choices"][0]["finish_reason"], &answer["usage"]["completion_tokens"]),
        (&json!("length"), &json!(0))
    );
}

#[tokio::test]
async fn echo_with_logprobs_is_the_order_from_left_to_right_for_others() {
    let app = app_of(model(&partition()));
    // What the sampler writes in this order, it also scores so.
    let body = json!({"prompt": [], "max_tokens": 9, "steps": 9, "order": "sequential", "seed": 4, "logprobs": 2});
    let body = {
        let mut body = body;
        body["prompt"] = json!("");
        body
    };
    let written = done(&app, "/v1/completions", &body).await;
    let drawn = &written["choices"][0]["logprobs"];
    let text = written["choices"][0]["text"].as_str().unwrap();
    let n = text.split_whitespace().count();
    for stream in [false, true] {
        let body = json!({"prompt": text.trim_start(), "max_tokens": 0, "logprobs": 2, "echo": true, "n": 2, "stream": stream});
        let scored = if stream {
            let events = events(&app, "/v1/completions", &body).await;
            assert_eq!(events.last().unwrap().1, "[DONE]");
            serde_json::from_str(&events[0].1).unwrap()
        } else {
            done(&app, "/v1/completions", &body).await
        };
        let logprobs = &scored["choices"][0]["logprobs"];
        assert_eq!(logprobs["prompt_estimator"], "left-to-right");
        assert_close(&numbers(&logprobs["token_logprobs"]), &numbers(&drawn["token_logprobs"])[1..n]);
        assert_eq!(
            logprobs["top_logprobs"][n - 1].as_object().unwrap().keys().collect::<HashSet<_>>(),
            drawn["top_logprobs"][n - 1].as_object().unwrap().keys().collect()
        );
    }
    // With tokens behind it, and as a stream: the log-probabilities come with the last event.
    let mut body = json!({"prompt": "w1 w2 w3", "max_tokens": 3, "logprobs": 1, "echo": true, "seed": 2, "steps": 3});
    let whole = done(&app, "/v1/completions", &body).await;
    let logprobs = &whole["choices"][0]["logprobs"];
    let text = whole["choices"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("w1 w2 w3"), "{text}");
    for (name, offset) in logprobs["tokens"].as_array().unwrap().iter().zip(logprobs["text_offset"].as_array().unwrap())
    {
        let from = &text[offset.as_u64().unwrap() as usize..];
        assert!(from.trim_start().starts_with(name.as_str().unwrap()), "{name} at {offset} of {text}");
    }
    body["stream"] = json!(true);
    let streamed = events(&app, "/v1/completions", &body).await;
    let last = streamed.iter().rfind(|(name, data)| name.is_none() && data != "[DONE]").unwrap();
    let last: Value = serde_json::from_str(&last.1).unwrap();
    assert_eq!(&last["choices"][0]["logprobs"], logprobs);
    // Without anything to write, echo alone repeats the prompt.
    let alone = done(&app, "/v1/completions", &json!({"prompt": "w1 w2", "max_tokens": 0, "echo": true})).await;
    assert_eq!((&alone["choices"][0]["text"], &alone["choices"][0]["logprobs"]), (&json!("w1 w2"), &Value::Null));
    assert_eq!(
        alone["usage"],
        json!({"prompt_tokens": 2, "completion_tokens": 0, "total_tokens": 2, "drawn_tokens": 0})
    );
    let mask = json!({"prompt": [backbone().mask_index], "max_tokens": 1});
    let (status, answer) = send(&app, post("/v1/completions", &mask)).await;
    assert!(status == 400 && answer["error"]["message"].as_str().unwrap().contains("mask"), "{answer}");
}

#[test]
fn left_to_right_scores_come_in_batches_that_agree_with_one_evaluation_each() {
    let model = bytes(None);
    let text = "ROMEO:\nBut, soft! what light through yonder window breaks?";
    let row: Vec<u32> = [&[256], model.encode(text).unwrap().as_slice()].concat();
    let scores: Vec<_> = left_to_right(model.handle(), &row, 1).flat_map(Result::unwrap).collect();
    assert_eq!(scores.len(), text.len());
    for position in [1, 32, 33, 57] {
        // The bound's draw that hides this token and all behind it has its NLL among others; one that hides it alone has it.
        let alone = &row[..=position];
        let is_hidden = (0..alone.len()).map(|index| index == position).collect();
        let hidden = draws::HiddenTokens { is_hidden, weight: 1.0 };
        let nll = weighted_nll(
            model.handle(),
            &[MaskedDraw { tokens: alone, valid: alone.len(), hidden, sets: SetDraw::default() }],
        )
        .unwrap()[0];
        assert!((scores[position - 1].log_probability + nll).abs() < 1e-4, "{position}");
    }
}

#[tokio::test]
async fn scores_are_those_of_multiple_choice() {
    let (candidates, n_draws, seed) = (["w3 w4", "w5", "w6 w7 w8"], 12, 3);
    let body = json!({"context": "w1 w2", "choices": candidates, "draws": n_draws, "seed": seed});
    let plain = model(&partition());
    let answer = done(&app_of(model(&partition())), "/score", &body).await;
    assert_eq!(
        (&answer["estimator"], &answer["draws"], &answer["seed"]),
        (&json!("any-order bound"), &json!(12), &json!(3))
    );
    let backbone = backbone();
    let row = |candidate: &str| {
        let tokens = plain.encode(&format!("w1 w2 {candidate}")).unwrap();
        [&[backbone.bos_index as u32], tokens.as_slice(), &[backbone.eos_index as u32]].concat()
    };
    let mut expected = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let row = row(candidate);
        let draws: Vec<MaskedDraw<'_>> = draws::any_order(seed, 0, row.len(), n_draws)
            .map(|hidden| MaskedDraw { tokens: &row, valid: row.len(), hidden, sets: SetDraw::default() })
            .collect();
        let nats = weighted_nll(plain.handle(), &draws).unwrap().iter().sum::<f64>() / n_draws as f64;
        let score = &answer["scores"][index];
        assert_eq!(score["score"].as_f64(), Some(-nats), "to the bit");
        assert_eq!(
            (&score["tokens"], &score["candidate"], &score["index"]),
            (&json!(row.len()), &json!(candidate), &json!(index))
        );
        let interval = numbers(&score["interval"]);
        assert!(interval[0] < -nats && -nats < interval[1], "{interval:?}");
        expected.push((-nats, row.len()));
    }
    let best = (0..3).max_by(|&a, &b| expected[a].0.total_cmp(&expected[b].0)).unwrap();
    assert_eq!(answer["best"], best);
    let mut mean = body.clone();
    (mean["reduction"], mean["draws"]) = (json!("mean"), json!(1));
    let mean = done(&app_of(model(&partition())), "/score", &mean).await;
    assert!(mean["scores"][0]["interval"].is_null() && mean["scores"][0]["score"].as_f64().unwrap() > -20.0, "{mean}");
    // An autoregressive model needs no draws.
    let exact = done(&app_of(model(&causal())), "/score", &body).await;
    assert_eq!((&exact["estimator"], &exact["draws"]), (&json!("exact"), &json!(0)));
    let nats: f64 = causal_nll(model(&causal()).handle(), &[&row(candidates[0])]).unwrap()[0].iter().sum();
    assert_eq!((exact["scores"][0]["score"].as_f64(), &exact["scores"][0]["interval"]), (Some(-nats), &Value::Null));
    let app = app();
    for (body, says) in [
        (json!({"context": "w1"}), "candidates"),
        (json!({"candidates": []}), "candidates"),
        (json!({"candidates": ["w1"], "draws": 0}), "draws"),
        (json!({"candidates": ["w1"], "seed": 1_u64 << 60}), "seed"),
        (json!({"candidates": ["w1 ".repeat(30)]}), "candidate 0 has 32 tokens"),
        (json!({"candidates": vec!["w1"; 1000]}), "there are 1000 candidates"),
        (json!({"candidates": ["w1"], "nonsense": 1}), "nonsense"),
    ] {
        let (status, answer) = send(&app, post("/score", &body)).await;
        assert!(status == 400 && answer["error"]["message"].as_str().unwrap().contains(says), "{answer}");
    }
}

#[tokio::test]
async fn text_and_tokens_convert_in_either_form() {
    let app = app_of(bytes(None));
    let of = async |body: Value| done(&app, "/tokenize", &body).await;
    // As llama.cpp's clients send it, and as vLLM's do.
    assert_eq!(
        of(json!({"content": "hé"})).await,
        json!({"tokens": [104, 195, 169], "count": 3, "max_model_len": 128, "token_strs": null})
    );
    let pieces = of(json!({"content": "hé", "add_special": true, "with_pieces": true})).await;
    assert_eq!(
        pieces["tokens"],
        json!([
            {"id": 256, "piece": "<|endoftext|>"}, {"id": 104, "piece": "h"}, {"id": 195, "piece": [195]}, {"id": 169, "piece": [169]},
        ])
    );
    let vllm = of(json!({"model": "tiny", "prompt": "é", "return_token_strs": true})).await;
    assert_eq!(
        (&vllm["tokens"], &vllm["token_strs"]),
        (&json!([256, 195, 169]), &json!(["<|endoftext|>", "bytes:\\xc3", "bytes:\\xa9"]))
    );
    assert_eq!(of(json!({"prompt": "<|endoftext|>", "add_special_tokens": false})).await["tokens"], json!([256]));
    assert_eq!(of(json!({"content": "<|endoftext|>", "parse_special": false})).await["count"], 13);
    let back = done(&app, "/detokenize", &json!({"tokens": [256, 104, 195, 169]})).await;
    assert_eq!(back, json!({"content": "<|endoftext|>hé", "prompt": "<|endoftext|>hé"}));
    for (route, body, says) in [
        ("/tokenize", json!({}), "content or prompt"),
        ("/tokenize", json!({"content": "a", "prompt": "b"}), "not both"),
        ("/tokenize", json!({"messages": []}), "messages"),
        ("/detokenize", json!({}), "tokens"),
        ("/detokenize", json!({"tokens": [999]}), "999"),
    ] {
        let (status, answer) = send(&app, post(route, &body)).await;
        assert!(status == 400 && answer["error"]["message"].as_str().unwrap().contains(says), "{answer}");
    }
    let info = send(&app, get("/tokenizer_info")).await.1;
    assert_eq!(
        (&info["eos_token"], &info["model_max_length"], &info["chat_template"]),
        (&json!("<|endoftext|>"), &json!(128), &Value::Null)
    );
}

#[tokio::test]
async fn scores_in_one_pass_are_means_over_orders() {
    let plain = model(&partition());
    let body = json!({"candidates": ["w3 w4 w5", "w6"], "draws": 5, "seed": 9, "one_pass": true});
    let answer = done(&app_of(model(&partition())), "/score", &body).await;
    assert_eq!(answer["estimator"], "any-order one pass");
    for (index, text) in ["w3 w4 w5", "w6"].into_iter().enumerate() {
        let tokens = plain.encode(text).unwrap();
        let row = [&[backbone().bos_index as u32], tokens.as_slice(), &[backbone().eos_index as u32]].concat();
        let of_order = |draw| {
            let row = OrderedRow { tokens: &row, valid: row.len(), order: random_order(9, draw, row.len()) };
            one_pass_nll(plain.handle(), &[row]).unwrap()[0]
        };
        let mean = (0..5).map(of_order).sum::<f64>() / 5.0;
        let score = answer["scores"][index]["score"].as_f64().unwrap();
        assert!((score + mean).abs() < 1e-4, "{score} {mean}");
        assert!(answer["scores"][index]["interval"].is_array());
    }
    let causal = ModelConfig::Autoregressive(AutoregressiveConfig { backbone: backbone(), n_blocks: 1 });
    let (status, answer) = send(&app_of(model(&causal)), post("/score", &body)).await;
    assert_eq!((status.as_u16(), &answer["error"]["param"]), (400, &json!("one_pass")));
}
