//! The server's routes for editors, evaluations and chats.
#![cfg(all(feature = "flex", feature = "server"))]

use std::collections::HashSet;
use std::path::Path;

use axum::Router;
use burn::tensor::Device;
use pgm_infer::engine::EngineOptions;
use pgm_infer::score::{MaskedDraw, causal_nll, draws, left_to_right, weighted_nll};
use pgm_infer::serve::{Limits, Server, router};
use pgm_infer::{Engine, TextModel};
use pgm_model::{AutoregressiveConfig, ModelConfig};
use serde_json::{Value, json};

mod common;
use common::http::{app, done, events, get, post, send};
use common::{backbone, model, partition};

const DESKTOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/desktop/model");

fn app_of(model: TextModel) -> Router {
    let server = Server::new(&["tiny".into()], Limits::default(), &[]);
    server.add("tiny", Engine::new(model, &EngineOptions::default()).unwrap());
    router(&server)
}

fn causal() -> ModelConfig {
    ModelConfig::Autoregressive(AutoregressiveConfig { backbone: backbone(), n_blocks: 2 })
}

// A model of 128 bytes.
fn bytes() -> TextModel {
    TextModel::load(Path::new(DESKTOP), &Device::flex()).unwrap()
}

#[tokio::test]
async fn editors_bodies_are_answered() {
    let app = app_of(bytes());
    let vscode = json!({
        "id_slot": 0, "input_prefix": "fn main() {\n    ", "input_suffix": "\n}\n", "input_extra": [], "prompt": "",
        "n_predict": 16, "n_cmpl": 1, "top_k": 40, "top_p": 0.99, "stream": false, "samplers": ["top_k", "top_p", "infill"],
        "cache_prompt": true, "t_max_prompt_ms": 500, "t_max_predict_ms": 500, "n_indent": 4,
    });
    let answer = done(&app, "/infill", &vscode).await;
    assert_eq!(
        (&answer["tokens_predicted"], &answer["truncated"], &answer["ignored"]),
        (&json!(16), &json!(false), &json!([]))
    );
    assert_eq!(answer["text"], format!("fn main() {{\n    {}\n}}\n", answer["content"].as_str().unwrap()));
    assert_eq!(
        (&answer["stop"], &answer["stop_type"], &answer["tokens_evaluated"]),
        (&json!(true), &json!("limit"), &json!(19))
    );
    let settings = &answer["generation_settings"];
    assert_eq!((&settings["n_ctx"], &settings["n_predict"], &settings["top_k"]), (&json!(128), &json!(16), &json!(40)));
    // Before it is needed, the prompt is sent to be cached.
    let ahead = json!({
        "input_prefix": "", "input_suffix": "", "input_extra": [{"text": "x", "filename": "a.rs"}], "prompt": "ab", "n_predict": 0,
        "samplers": [], "cache_prompt": true, "t_max_prompt_ms": 500, "t_max_predict_ms": 1, "lora": [{"id": 0, "scale": 0.5}],
    });
    let ahead = done(&app, "/infill", &ahead).await;
    assert_eq!(
        (&ahead["content"], &ahead["tokens_evaluated"], &ahead["ignored"]),
        (&json!(""), &json!(2), &json!(["lora"]))
    );
    // llama.vim: 256 lines before the cursor and 64 after it, and the fields that its status line reads.
    let line = "let x = 1; // é\n";
    let mut vim = json!({
        "id_slot": 0, "input_prefix": line.repeat(256), "input_suffix": line.repeat(64), "prompt": "let y", "n_predict": 128,
        "input_extra": [{"text": "x", "time": 12, "filename": "b.rs"}], "stop": [], "n_indent": 0, "top_k": 40, "top_p": 0.99,
        "samplers": ["top_k", "top_p", "infill"], "stream": false, "cache_prompt": true, "t_max_prompt_ms": 500,
        "t_max_predict_ms": 1000, "seed": 3,
        "response_fields": ["content", "timings/prompt_n", "timings/predicted_per_second", "nothing/here", "truncated"],
    });
    let answer = done(&app, "/infill", &vim).await;
    let settings = &answer["generation_settings"];
    // A quarter of 127 tokens is the blank's, and a quarter of the rest the suffix's.
    assert_eq!(
        (&answer["truncated"], &settings["n_predict"], &answer["tokens_evaluated"]),
        (&json!(true), &json!(32), &json!(95))
    );
    assert_eq!(answer["tokens"].as_array().unwrap().len(), 128);
    let (n_prefix, n_suffix) = (256 * 17 + 5, 64 * 17);
    assert_eq!(
        answer["prefix_tokens_cut"].as_u64().unwrap() + answer["suffix_tokens_cut"].as_u64().unwrap(),
        n_prefix + n_suffix - 95
    );
    assert_eq!(answer["suffix_tokens_cut"], n_suffix - 23);
    assert_eq!((&answer["timings/prompt_n"], &answer["nothing/here"]), (&json!(95), &Value::Null));
    let whole = format!("{}let y{}{}", line.repeat(256), answer["content"].as_str().unwrap(), line.repeat(64));
    assert_eq!(answer["text"], whole, "what was cut off is in the text");
    // A stream has the same last answer.
    vim["stream"] = json!(true);
    let events = events(&app, "/infill", &vim).await;
    let last: Value = serde_json::from_str(&events.last().unwrap().1).unwrap();
    assert_eq!((&last["text"], &last["truncated"]), (&answer["text"], &json!(true)));
}

#[tokio::test]
async fn a_long_text_is_cut_and_n_predict_is_an_upper_bound() {
    let app = app_of(bytes());
    let long = "é".repeat(200);
    for (prefix, suffix, n_predict, expected) in [
        ("x".repeat(301).as_str(), "y", 16, (16, 110, 1, true)),
        ("x", "y".repeat(301).as_str(), 16, (16, 1, 110, true)),
        ("x", "y", 128, (125, 1, 1, false)),
        ("x", "y", 1_000_000, (125, 1, 1, false)),
        ("x", "y", -1, (125, 1, 1, false)),
        ("x", "y", -2, (125, 1, 1, false)),
        ("x".repeat(400).as_str(), "y".repeat(400).as_str(), -1, (32, 72, 23, true)),
        // A letter of two bytes is not cut in two.
        (long.as_str(), "y", 16, (16, 110, 1, true)),
        (long.as_str(), "", 17, (17, 110, 0, true)),
        ("", "", -1, (127, 0, 0, false)),
    ] {
        let body =
            json!({"input_prefix": prefix, "input_suffix": suffix, "n_predict": n_predict, "steps": 2, "seed": 1});
        let answer = done(&app, "/infill", &body).await;
        let (n_blank, n_prefix, n_suffix, truncated) = expected;
        let cut = |name: &str| answer[name].as_u64().unwrap() as usize;
        assert_eq!(answer["generation_settings"]["n_predict"], n_blank, "{n_predict}");
        assert!(answer["truncated"] == truncated, "{}", answer["truncated"]);
        assert_eq!(cut("tokens_evaluated"), n_prefix + n_suffix);
        let n_tokens = (prefix.len() - cut("prefix_tokens_cut"), suffix.len() - cut("suffix_tokens_cut"));
        assert!(n_tokens.0 - n_prefix <= 1 && n_tokens.1 == n_suffix, "{n_tokens:?}");
        assert!(
            answer["text"].as_str().unwrap().starts_with(prefix) && answer["text"].as_str().unwrap().ends_with(suffix)
        );
    }
    // A template is not cut.
    let template = json!({"template": format!("{} {{4}}", "x".repeat(301))});
    assert_eq!(send(&app, post("/infill", &template)).await.0, 400);
}

#[tokio::test]
async fn fields_of_llama_cpp_without_effect_are_named_or_refused() {
    let app = app();
    let of = |name: &str, value: Value| {
        let mut body = json!({"input_prefix": "w1", "input_suffix": "w2", "n_predict": 2, "steps": 1});
        body[name] = value;
        body
    };
    for (name, value) in [
        ("min_p", json!(0.05)),
        ("repeat_penalty", json!(1.1)),
        ("mirostat", json!(2)),
        ("typical_p", json!(0.9)),
        ("dry_multiplier", json!(0.8)),
        ("logit_bias", json!([[1, false]])),
        ("ignore_eos", json!(true)),
    ] {
        assert_eq!(done(&app, "/infill", &of(name, value)).await["ignored"], json!([name]));
    }
    for (name, value) in [
        ("min_p", json!(0)),
        ("repeat_penalty", json!(1.0)),
        ("n_cmpl", json!(1)),
        ("grammar", json!("")),
        ("n_probs", json!(0)),
        ("json_schema", json!({})),
        ("return_tokens", json!(true)),
        ("n_keep", json!(-1)),
        ("id_slot", json!(-1)),
        ("timings_per_token", json!(true)),
        ("samplers", json!("edkypmxt")),
        ("lora", json!([])),
        ("input_extra", json!(null)),
    ] {
        assert_eq!(done(&app, "/infill", &of(name, value)).await["ignored"], json!([]), "{name}");
    }
    for (name, value) in [
        ("n_cmpl", json!(2)),
        ("grammar", json!("root ::= \"a\"")),
        ("json_schema", json!({"type": "object"})),
        ("n_probs", json!(3)),
    ] {
        let (status, answer) = send(&app, post("/infill", &of(name, value))).await;
        assert!(status == 400 && answer["error"]["param"] == name, "{answer}");
    }
    assert_eq!(send(&app, post("/infill", &of("n_cmpI", json!(1)))).await.0, 400, "an unknown field");
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
    let app = app_of(bytes());
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
    let app = app_of(bytes());
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
    let model = bytes();
    let text = "ROMEO:\nBut, soft! what light through yonder window breaks?";
    let row: Vec<u32> = [&[256], model.encode(text).unwrap().as_slice()].concat();
    let scores: Vec<_> = left_to_right(model.handle(), &row, 1).flat_map(Result::unwrap).collect();
    assert_eq!(scores.len(), text.len());
    for position in [1, 32, 33, 57] {
        // The bound's draw that hides this token and all behind it has its NLL among others; one that hides it alone has it.
        let alone = &row[..=position];
        let is_hidden = (0..alone.len()).map(|index| index == position).collect();
        let hidden = draws::HiddenTokens { is_hidden, weight: 1.0 };
        let nll = weighted_nll(model.handle(), &[MaskedDraw { tokens: alone, valid: alone.len(), hidden }]).unwrap()[0];
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
            .map(|hidden| MaskedDraw { tokens: &row, valid: row.len(), hidden })
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
        (json!({"candidates": vec!["w1"; 1000]}), "samples"),
        (json!({"candidates": ["w1"], "nonsense": 1}), "nonsense"),
    ] {
        let (status, answer) = send(&app, post("/score", &body)).await;
        assert!(status == 400 && answer["error"]["message"].as_str().unwrap().contains(says), "{answer}");
    }
}

#[tokio::test]
async fn text_and_tokens_convert_in_either_form() {
    let app = app_of(bytes());
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

// The model of the desktop example with a chat template.
fn chat_model(template: &str) -> TextModel {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(Path::new(DESKTOP).join(file), folder.path().join(file)).unwrap();
    }
    let config = json!({"bos_token": {"content": "<|endoftext|>"}, "chat_template": template});
    std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    TextModel::load(folder.path(), &Device::flex()).unwrap()
}

const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('no ' + \
                        m.role) }}{% endif %}{{ m.role.upper() }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}A:{% endif %}";

#[tokio::test]
async fn a_chat_follows_the_models_template() {
    let app = app_of(chat_model(TEMPLATE));
    let messages = json!([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, {"role": "assistant", "content": "Yes?"}]);
    let rendered = "USER: Hi\nASSISTANT: Yes?\nA:";
    let mut body = json!({"messages": messages, "max_tokens": 12, "seed": 3, "steps": 12, "n": 2, "stop": "\n", "logprobs": true, "top_logprobs": 2});
    let answer = done(&app, "/v1/chat/completions", &body).await;
    assert!(
        answer["object"] == "chat.completion" && answer["id"].as_str().unwrap().starts_with("chatcmpl-"),
        "{answer}"
    );
    assert_eq!(
        (&answer["usage"]["prompt_tokens"], &answer["choices"].as_array().unwrap().len()),
        (&json!(rendered.len()), &2)
    );
    // The same text as a completion of the rendered text.
    let tokens: Vec<u8> = rendered.bytes().collect();
    let same = json!({"prompt": tokens, "max_tokens": 12, "seed": 3, "steps": 12, "n": 2, "stop": "\n"});
    let same = done(&app, "/v1/completions", &same).await;
    let mut n_kept = 0;
    for index in 0..2 {
        let choice = &answer["choices"][index];
        assert_eq!((&choice["message"]["role"], &choice["seed"]), (&json!("assistant"), &json!(3 + index)));
        assert_eq!(choice["message"]["content"], same["choices"][index]["text"]);
        assert_eq!(choice["finish_reason"], same["choices"][index]["finish_reason"]);
        let content = choice["logprobs"]["content"].as_array().unwrap();
        n_kept += content.len();
        for token in content {
            assert!(
                token["top_logprobs"].as_array().unwrap().len() == 2 && token["bytes"].as_array().unwrap().len() == 1,
                "{token}"
            );
        }
    }
    assert_eq!(answer["usage"]["completion_tokens"], n_kept);
    // A stream has the same text; its first event of a choice names the role.
    (body["stream"], body["stream_options"]) = (json!(true), json!({"include_usage": true}));
    let streamed = events(&app, "/v1/chat/completions", &body).await;
    assert_eq!(streamed.last().unwrap().1, "[DONE]");
    let chunks: Vec<Value> = streamed
        .iter()
        .filter(|(name, data)| name.is_none() && data != "[DONE]")
        .map(|(_, data)| serde_json::from_str(data).unwrap())
        .collect();
    assert!(chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["id"] == chunks[0]["id"]));
    assert_eq!(chunks.last().unwrap()["usage"], answer["usage"]);
    for index in 0..2 {
        let of_choice: Vec<&Value> = chunks
            .iter()
            .flat_map(|chunk| chunk["choices"].as_array().unwrap())
            .filter(|choice| choice["index"] == index)
            .collect();
        let text: String = of_choice.iter().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
        assert_eq!(text, answer["choices"][index]["message"]["content"]);
        assert_eq!(of_choice.iter().filter(|choice| choice["delta"]["role"] == "assistant").count(), 1);
        assert_eq!(of_choice[0]["delta"]["role"], "assistant");
        let last = of_choice.last().unwrap();
        assert_eq!(
            (&last["finish_reason"], &last["logprobs"]),
            (&answer["choices"][index]["finish_reason"], &answer["choices"][index]["logprobs"])
        );
    }
    // Without max_tokens the answer has room up to the model's length.
    let free = json!({"messages": [{"role": "user", "content": "Hi"}], "steps": 1});
    let free = done(&app, "/v1/chat/completions", &free).await;
    assert_eq!(free["usage"]["drawn_tokens"], 127 - "USER: Hi\nA:".len());
}

#[tokio::test]
async fn a_chat_that_cannot_be_is_refused_in_a_sentence() {
    let chat = app_of(chat_model(TEMPLATE));
    let plain = app_of(bytes());
    let broken = app_of(chat_model("{% for %}"));
    let user = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    let with = |name: &str, value: Value| {
        let mut body = user(json!("a"));
        body[name] = value;
        body
    };
    for (app, body, param, says) in [
        (
            &plain,
            user(json!("a")),
            "model",
            "neither a chat_template in tokenizer_config.json nor a chat_template.jinja",
        ),
        (&broken, user(json!("a")), "messages", "chat template is broken"),
        (
            &chat,
            json!({"messages": [{"role": "system", "content": "a"}]}),
            "messages",
            "refuses the messages: no system",
        ),
        (&chat, user(json!([{"type": "image_url", "image_url": {"url": "x"}}])), "messages", "image_url"),
        (&chat, user(json!("x".repeat(400))), "messages", "128"),
        (&chat, user(json!("<|mask|>")), "messages", "mask"),
        (&chat, with("max_tokens", json!(4000)), "max_tokens", "128"),
        (&chat, with("tools", json!([{"type": "function"}])), "tools", "tools"),
        (&chat, with("chat_template", json!("tool_use")), "chat_template", "default"),
        (&chat, with("n", json!(1000)), "n", "samples"),
    ] {
        let (status, answer) = send(app, post("/v1/chat/completions", &body)).await;
        let error = &answer["error"];
        assert!(status == 400 && error["param"] == param, "{answer}");
        assert!(error["message"].as_str().unwrap().contains(says), "{answer}");
    }
}
