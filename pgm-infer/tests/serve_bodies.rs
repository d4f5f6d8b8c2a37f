//! Request bodies: what is refused, which field is named, and what is read as a program meant it.
#![cfg(all(feature = "flex", feature = "server"))]

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use pgm_infer::engine::EngineOptions;
use pgm_infer::serve::{Limits, Server, router};
use pgm_infer::{Engine, GenerationConfig, TextModel};
use pgm_model::Network;
use serde_json::{Value, json};
use tokenizers::Tokenizer;
use tower::ServiceExt;

mod common;
use common::http::{app, done, post, send, server, text};
use common::{VOCAB, partition};

#[tokio::test]
async fn errors_have_openais_form() {
    let app = app();
    let cases = [
        ("/v1/completions", json!({"prompt": "w1", "nonsense": 1}), 400, "nonsense"),
        ("/v1/completions", json!({"prompt": {"a": 1}}), 400, "prompt"),
        ("/v1/completions", json!({"prompt": []}), 400, "prompt"),
        ("/v1/completions", json!({"prompt": [99]}), 400, "token"),
        ("/v1/completions", json!({"prompt": "w1", "max_tokens": 0}), 400, "max_tokens"),
        ("/v1/completions", json!({"prompt": "w1", "max_tokens": 9999}), 400, "24"),
        ("/v1/completions", json!({"prompt": "w1", "max_tokens": u64::MAX}), 400, "tokens"),
        ("/v1/completions", json!({"prompt": "w1", "temperature": -1}), 400, "temperature"),
        ("/v1/completions", json!({"prompt": "w1", "top_p": 0}), 400, "top_p"),
        ("/v1/completions", json!({"prompt": "w1", "n": 1000}), 400, "samples"),
        ("/v1/completions", json!({"prompt": "w1", "steps": 0}), 400, "steps"),
        ("/v1/completions", json!({"prompt": "w1", "order": "backwards"}), 400, "backwards"),
        ("/v1/completions", json!({"prompt": "w1", "remask_rate": 0.5}), 400, "remask"),
        ("/v1/completions", json!({"prompt": "w1", "presence_penalty": 1}), 400, "presence_penalty"),
        ("/v1/completions", json!({"prompt": "w1", "logprobs": 9}), 400, "logprobs"),
        ("/v1/completions", json!({"prompt": "w1", "max_tokens": 23, "echo": true, "logprobs": 1}), 400, "25"),
        ("/v1/completions", json!({"prompt": "w1", "stop": ["", "a"]}), 400, "stop"),
        ("/v1/completions", json!({"prompt": "w1", "seed": 1_u64 << 60}), 400, "seed"),
        ("/v1/completions", json!({"prompt": "w1", "seed": (1_u64 << 53) - 1, "n": 2}), 400, "9007199254740990"),
        ("/score", json!({"context": "w1", "candidates": vec!["w2"; 65]}), 400, "65 candidates"),
        ("/v1/completions", json!({"prompt": "w1", "model": "other"}), 404, "tiny"),
        ("/v1/completions", json!(["w1"]), 400, "body"),
        ("/infill", json!({}), 400, "template"),
        ("/infill", json!({"template": "w1 {0}"}), 400, "{0}"),
        ("/infill", json!({"template": "w1 {99999999999}"}), 400, "24"),
        ("/infill", json!({"template": "w1", "input_prefix": "w2"}), 400, "not both"),
        ("/infill", json!({"input_prefix": "w1", "n_cmpl": 2}), 400, "n_cmpl"),
        ("/infill", json!({"template": "w1 {20} w2 w3 w4 w5"}), 400, "26"),
        ("/infill", json!({"input_prefix": "w1", "seed": -2}), 400, "seed"),
    ];
    for (route, body, status, says) in cases {
        let (found, answer) = send(&app, post(route, &body)).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(found == status && message.contains(says), "{route} {body}: {found} {answer}");
        assert!(answer["error"]["type"] == "invalid_request_error" && !message.contains("--"), "{answer}");
    }
    let plain = Request::post("/infill").header(header::CONTENT_TYPE, "text/plain").body(Body::from("{}")).unwrap();
    assert_eq!(send(&app, plain).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let broken =
        Request::post("/infill").header(header::CONTENT_TYPE, "application/json").body(Body::from("{")).unwrap();
    assert_eq!(send(&app, broken).await.0, StatusCode::BAD_REQUEST);
    let large = json!({"template": "w1 ".repeat(1 << 20)});
    assert_eq!(send(&app, post("/infill", &large)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn an_error_about_a_field_names_it() {
    let app = app();
    let completion = |field: &str, value: Value| ("/v1/completions", json!({"prompt": "w1", "n": 1, field: value}));
    let infill = |field: &str, value: Value| ("/infill", json!({"input_prefix": "w1", "steps": 2, field: value}));
    let mask = VOCAB - 1;
    for (field, (route, body)) in [
        ("seed", completion("seed", json!(42.5))),
        ("seed", completion("seed", json!("42"))),
        ("steps", completion("steps", json!(-1))),
        ("steps", completion("steps", json!(5_000_000))),
        ("temperature", completion("temperature", json!("hot"))),
        ("temperature", completion("temperature", json!(2.1))),
        ("top_p", completion("top_p", json!([1]))),
        ("top_k", completion("top_k", json!(1_000_001))),
        ("candidates", completion("candidates", json!(1_000_001))),
        ("max_tokens", completion("max_tokens", json!(1.5))),
        ("max_tokens", completion("max_tokens", json!(0))),
        ("n", completion("n", json!(0))),
        ("echo", completion("echo", json!("yes"))),
        ("suffix", completion("suffix", json!(7))),
        ("stop", completion("stop", json!(7))),
        ("stream_options", completion("stream_options", json!({"denoise": true}))),
        ("stream_options", ("/v1/completions", json!({"stream": true, "stream_options": {"denoise": 1}}))),
        ("order", completion("order", json!("backwards"))),
        ("remask_rate", completion("remask_rate", json!(0.5))),
        ("entropy_bound", completion("entropy_bound", json!(-1))),
        ("candidates", completion("candidates", json!(4))),
        ("refresh", completion("refresh", json!(0))),
        ("refresh", completion("refresh", json!("never"))),
        ("refresh", completion("refresh", json!(2.5))),
        ("nonsense", completion("nonsense", json!(0))),
        ("logit_bias", completion("logit_bias", json!({"5": 1}))),
        ("min_p", completion("min_p", json!(0.1))),
        ("tools", completion("tools", json!([{"type": "function"}]))),
        ("repeat_penalty", completion("repeat_penalty", json!(1.1))),
        ("response_format", completion("response_format", json!({"type": "json_object"}))),
        ("model", completion("model", json!("other"))),
        ("prompt", ("/v1/completions", json!({"prompt": [1, mask, 2]}))),
        ("n_predict", infill("n_predict", json!("all"))),
        ("input_suffix", infill("input_suffix", json!(false))),
        ("seed", infill("seed", json!({}))),
        ("template", ("/infill", json!({"template": "w1 {0}"}))),
    ] {
        let (status, answer) = send(&app, post(route, &body)).await;
        assert!(status.is_client_error(), "{body}: {status}");
        assert_eq!(answer["error"]["param"], field, "{body}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(field) || ["template", "order"].contains(&field), "{body}: {message}");
    }
}

#[tokio::test]
async fn what_changes_nothing_is_accepted() {
    let app = app();
    let plain = done(&app, "/v1/completions", &json!({"prompt": "w1", "max_tokens": 6, "seed": 4, "steps": 3})).await;
    let full = json!({
        "prompt": "w1", "max_tokens": 6.0, "seed": 4.0, "steps": 3.0, "temperature": 1, "top_p": 1, "top_k": 0.0, "n": 1.0,
        "best_of": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "tools": [], "tool_choice": "none",
        "functions": [], "min_p": 0, "repeat_penalty": 1.0, "repeat_last_n": 64, "mirostat": 0, "mirostat_tau": 5.0,
        "response_format": {"type": "text"}, "grammar": "", "ignore_eos": false, "skip_special_tokens": true, "user": null,
        "suffix": null, "logprobs": null, "stop": null, "stream": null, "stream_options": null, "nonsense": null,
        "metadata": {}, "store": false, "parallel_tool_calls": true, "service_tier": "auto",
    });
    assert_eq!(done(&app, "/v1/completions", &full).await["choices"], plain["choices"]);
    let bom = format!("\u{feff}{}", json!({"prompt": "w1", "max_tokens": 6, "seed": 4, "steps": 3}));
    let request = |bytes: Vec<u8>, encoding: &str| {
        Request::post("/v1/completions")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONTENT_ENCODING, encoding)
            .body(Body::from(bytes))
            .unwrap()
    };
    let (status, answer) = send(&app, request(bom.clone().into_bytes(), "identity")).await;
    assert!(status == StatusCode::OK && answer["choices"] == plain["choices"], "{answer}");
    let cut = r#"{"input_prefix": "w1 \ud83d", "input_suffix": "w2", "n_predict": 2}"#;
    let cut = Request::post("/infill").header(header::CONTENT_TYPE, "application/json").body(Body::from(cut)).unwrap();
    assert_eq!(send(&app, cut).await.0, StatusCode::OK);
    // Compressed, with and without the header that says so.
    for (bytes, encoding) in [(bom.into_bytes(), "gzip"), (vec![0x1f, 0x8b, 8, 0], ""), (b"{}".to_vec(), "br")] {
        let response = app.clone().oneshot(request(bytes, encoding)).await.unwrap();
        assert_eq!(response.headers()[header::ACCEPT_ENCODING], "identity");
        let (status, answer) = (response.status(), text(response).await);
        assert!(status == StatusCode::UNSUPPORTED_MEDIA_TYPE && answer.contains("Content-Encoding"), "{answer}");
    }
}

#[tokio::test]
async fn a_large_body_is_refused_with_and_without_its_length() {
    let app = router(&server(Limits { max_body: 1000, ..Limits::default() }, &[]));
    let body = json!({"template": "w1 ".repeat(400)}).to_string();
    for with_length in [true, false] {
        let mut request = Request::post("/infill").header(header::CONTENT_TYPE, "application/json");
        if with_length {
            request = request.header(header::CONTENT_LENGTH, body.len());
        }
        let (status, answer) = send(&app, request.body(Body::from(body.clone())).unwrap()).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(answer["error"]["code"] == "too_large" && answer.to_string().contains("1000 bytes"), "{answer}");
    }
}

// A model whose tokenizer reads the text [MASK] as the mask.
fn model_that_reads_the_mask() -> TextModel {
    let vocab: serde_json::Map<String, Value> = (0..VOCAB - 1).map(|id| (format!("w{id}"), json!(id))).collect();
    let mask = json!({
        "id": VOCAB - 1, "content": "[MASK]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": false,
    });
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [mask], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"},
    });
    let device = burn::tensor::Device::flex();
    let network = Network::new(&partition(), &device);
    let tokenizer = Tokenizer::from_bytes(json.to_string()).unwrap();
    TextModel::new(partition(), network, tokenizer, GenerationConfig::default(), &device, "test").unwrap()
}

#[tokio::test]
async fn the_mask_is_no_given_token() {
    let server = Server::new(&["tiny".into()], Limits::default(), &[]);
    server.add("tiny", Engine::new(model_that_reads_the_mask(), &EngineOptions::default()).unwrap());
    let app = router(&server);
    for (route, body, field) in [
        ("/v1/completions", json!({"prompt": [1, VOCAB - 1]}), "prompt"),
        ("/v1/completions", json!({"prompt": "w1 [MASK] w2"}), "prompt"),
        ("/v1/completions", json!({"prompt": ["w1", "[MASK]"]}), "prompt"),
        ("/v1/completions", json!({"prompt": "w1", "suffix": "[MASK]", "max_tokens": 3}), "suffix"),
        ("/infill", json!({"template": "w1 {2} [MASK]"}), "template"),
        ("/infill", json!({"input_prefix": "w1 [MASK]", "n_predict": 2}), "input_prefix"),
        ("/infill", json!({"input_prefix": "w1", "input_suffix": "[MASK] w2", "n_predict": 2}), "input_suffix"),
    ] {
        let (status, answer) = send(&app, post(route, &body)).await;
        assert!(status == StatusCode::BAD_REQUEST && answer["error"]["param"] == field, "{body}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("mask"), "{answer}");
    }
    done(&app, "/infill", &json!({"template": "w1 {2} w2"})).await;
}
