//! The server's routes, in this process.
#![cfg(all(feature = "flex", feature = "server"))]

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use pgm_infer::serve::{Limits, local_only, router};
use serde_json::{Value, json};
use tower::ServiceExt;

mod common;
use common::http::{app, done, events, get, post, send, server, text};

#[tokio::test]
async fn every_documented_route_answers() {
    let app = app();
    let (_, description) = send(&app, get("/openapi.json")).await;
    for (route, methods) in description["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            let route = route.replace("{id}", "tiny");
            let request = Request::builder().method(method.as_str()).uri(&route).body(Body::empty()).unwrap();
            let status = app.clone().oneshot(request).await.unwrap().status();
            assert!(
                ![StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED].contains(&status),
                "{method} {route}: {status}"
            );
        }
    }
    let (_, models) = send(&app, get("/v1/models")).await;
    assert_eq!((&models["data"][0]["id"], &models["data"][0]["context_length"]), (&json!("tiny"), &json!(24)));
    assert_eq!(send(&app, get("/v1/models/tiny")).await.1, models["data"][0]);
    for (request, status) in [(get("/nothing"), 404), (get("/infill"), 405), (get("/v1/models/other"), 404)] {
        let (found, answer) = send(&app, request).await;
        assert!(found == status && answer["error"]["message"].is_string(), "{found} {answer}");
    }
    let response = app.clone().oneshot(get("/")).await.unwrap();
    assert!(response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("default-src 'none'"));
    let _ = done(&app, "/v1/completions", &json!({"prompt": "w1", "max_tokens": 3})).await;
    let metrics = text(app.oneshot(get("/metrics")).await.unwrap()).await;
    for line in ["pgm_tokens_total{model=\"tiny\"} 3", "pgm_samples_total{model=\"tiny\",finish=\"complete\"} 1"] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

fn n_words(choice: &Value) -> usize {
    choice["text"].as_str().unwrap().split_whitespace().count()
}

#[tokio::test]
async fn a_completion_has_openais_form() {
    let app = app();
    let body = json!({"prompt": "w1 w2", "max_tokens": 6, "seed": 5, "steps": 6, "n": 2, "logprobs": 3});
    let answer = done(&app, "/v1/completions", &body).await;
    let n_kept: usize = answer["choices"].as_array().unwrap().iter().map(n_words).sum();
    let usage =
        json!({"prompt_tokens": 2, "completion_tokens": n_kept, "total_tokens": 2 + n_kept, "drawn_tokens": 12});
    assert_eq!(answer["usage"], usage);
    assert!(answer["id"].as_str().unwrap().starts_with("cmpl-") && answer["object"] == "text_completion");
    for (index, choice) in answer["choices"].as_array().unwrap().iter().enumerate() {
        assert_eq!((&choice["index"], &choice["seed"]), (&json!(index), &json!(5 + index)));
        let (text, logprobs) = (choice["text"].as_str().unwrap(), &choice["logprobs"]);
        let words: Vec<&str> = text.split_whitespace().collect();
        // An EOS in the text ends it.
        assert!(choice["finish_reason"] == if words.len() == 6 { "length" } else { "stop" }, "{choice}");
        for (place, word) in words.iter().enumerate() {
            let value = logprobs["token_logprobs"][place].as_f64().unwrap();
            let best = logprobs["top_logprobs"][place].as_object().unwrap();
            assert!(logprobs["tokens"][place] == *word && value < 0.0 && best[*word] == value, "{choice}");
            assert!(best.len() == 3 || best.len() == 4);
            let offset = logprobs["text_offset"][place].as_u64().unwrap() as usize;
            assert!(text[offset..].trim_start().starts_with(word), "{choice}");
        }
    }
    // The same again; the same from tokens; the second sample alone; several prompts at once.
    let same = done(&app, "/v1/completions", &body).await;
    assert_eq!(same["choices"], answer["choices"]);
    // The tokenizer's ids are the numbers of its words.
    let from_tokens = json!({"prompt": [1, 2], "max_tokens": 6, "seed": 6, "steps": 6});
    let second = done(&app, "/v1/completions", &from_tokens).await;
    assert_eq!(second["choices"][0]["text"], answer["choices"][1]["text"]);
    let two = json!({"prompt": ["w1 w2", "w3"], "max_tokens": 6, "seed": 5, "steps": 6, "echo": true});
    let two = done(&app, "/v1/completions", &two).await;
    let of = |index: usize| two["choices"][index]["text"].as_str().unwrap();
    assert_eq!(of(0), format!("w1 w2{}", answer["choices"][0]["text"].as_str().unwrap()));
    assert!(of(1).starts_with("w3 "), "{two}");
}

#[tokio::test]
async fn a_suffix_stays_outside_and_a_stop_string_cuts() {
    let app = app();
    let body =
        json!({"prompt": "w1", "suffix": " w2 w3", "max_tokens": 5, "seed": 1, "order": "sequential", "steps": 5});
    let whole = done(&app, "/v1/completions", &body).await;
    let text = whole["choices"][0]["text"].as_str().unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!((words.len(), &whole["usage"]["prompt_tokens"]), (5, &json!(3)), "{whole}");
    let mut stopped = body.clone();
    stopped["stop"] = json!([words[3]]);
    let cut = done(&app, "/v1/completions", &stopped).await;
    let place = text.find(words[3]).unwrap();
    assert_eq!(
        (&cut["choices"][0]["text"], &cut["choices"][0]["finish_reason"]),
        (&json!(text[..place]), &json!("stop"))
    );
    assert!(cut["usage"]["completion_tokens"].as_u64().unwrap() < 5, "it ends before the rest is written: {cut}");
    stopped["stream"] = json!(true);
    let streamed = joined(&events(&app, "/v1/completions", &stopped).await, 0);
    assert_eq!(streamed, text[..place]);
}

// The text that a client reads from a stream.
fn joined(events: &[(Option<String>, String)], index: u64) -> String {
    let pieces = events.iter().filter(|(_, data)| data != "[DONE]");
    let choices = pieces.flat_map(|(_, data)| {
        let data: Value = serde_json::from_str(data).unwrap();
        data["choices"].as_array().unwrap().clone()
    });
    choices
        .filter(|choice| choice["index"] == index)
        .map(|choice| choice["text"].as_str().unwrap().to_string())
        .collect()
}

#[tokio::test]
async fn a_stream_has_the_finished_beginning_and_every_step() {
    let app = app();
    for order in ["uniform", "sequential", "remask", "entropy-bounded"] {
        let mut body = json!({"prompt": "w1 w2", "max_tokens": 8, "seed": 3, "steps": 8, "order": order, "n": 2});
        let whole = done(&app, "/v1/completions", &body).await;
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
        let events = events(&app, "/v1/completions", &body).await;
        for index in 0..2 {
            assert_eq!(joined(&events, index), whole["choices"][index as usize]["text"], "{order}");
        }
        assert_eq!(events.last().unwrap().1, "[DONE]");
        let usage: Value = serde_json::from_str(&events[events.len() - 2].1).unwrap();
        assert_eq!((&usage["usage"], &usage["choices"]), (&whole["usage"], &json!([])), "{order}");
        // The events add up: what was decoded and not masked again is no longer open.
        let mut open: Vec<usize> = Vec::new();
        for (_, data) in events.iter().filter(|(name, _)| name.as_deref() == Some("denoise")) {
            let data: Value = serde_json::from_str(data).unwrap();
            if data["index"] != 1 {
                continue;
            }
            let n_open: u64 =
                data["segments"].as_array().unwrap().iter().filter_map(|segment| segment["n"].as_u64()).sum();
            if data["step"] == 0 {
                open = (3..11).collect();
            }
            let forgotten = data["forgotten"].as_array().unwrap().iter();
            open.extend(forgotten.map(|position| position.as_u64().unwrap() as usize));
            for decoded in data["decoded"].as_array().unwrap() {
                let position = decoded["position"].as_u64().unwrap() as usize;
                open.remove(open.iter().position(|open| *open == position).expect("it was open"));
                assert!(decoded["logprob"].as_f64().unwrap() <= 0.0 && decoded["text"].is_string());
            }
            assert_eq!(open.len() as u64, n_open, "{order}: {data}");
        }
        let ended_at_eos = whole["choices"][1]["finish_reason"] == "stop";
        assert!(open.is_empty() || ended_at_eos, "{order}");
    }
}

#[tokio::test]
async fn infilling_takes_a_template_or_two_sides() {
    let app = app();
    let body = json!({"template": "w1 {2} w2 {3} w3", "seed": 2, "steps": 4});
    let answer = done(&app, "/infill", &body).await;
    let words: Vec<&str> = answer["text"].as_str().unwrap().split(' ').collect();
    assert_eq!((words[0], words[3], words[7]), ("w1", "w2", "w3"), "{answer}");
    let blanks = answer["blanks"].as_array().unwrap();
    assert_eq!(blanks[1].as_str().unwrap().split_whitespace().count(), 3);
    assert_eq!((&answer["tokens_predicted"], &answer["tokens_evaluated"]), (&json!(5), &json!(3)));
    let sides = json!({"input_prefix": "w1", "input_suffix": "w2", "n_predict": 4, "seed": 2, "steps": 4});
    let sides = done(&app, "/infill", &sides).await;
    let same = done(&app, "/infill", &json!({"template": "w1 {4} w2", "seed": 2, "steps": 4})).await;
    assert_eq!((&sides["text"], &sides["content"]), (&same["text"], &same["blanks"][0]));
    // As editors that speak llama.cpp's protocol send it.
    let editor = json!({
        "input_prefix": "w1 ", "prompt": "w4 ", "input_suffix": "w3", "n_predict": 2, "seed": -1, "cache_prompt": true,
        "input_extra": [{"filename": "a.txt", "text": "w9"}], "n_indent": 0, "samplers": ["top_k", "top_p", "infill"],
        "top_k": 40, "top_p": 0.99, "stop": [], "t_max_prompt_ms": 500, "t_max_predict_ms": 1000, "stream": false,
        "response_fields": ["content", "timings/prompt_n"], "steps": 2,
    });
    let words = done(&app, "/infill", &editor).await["text"].as_str().unwrap().to_string();
    let words: Vec<&str> = words.split_whitespace().collect();
    assert_eq!((words.len(), words[0], words[1], words[4]), (5, "w1", "w4", "w3"));
    let mut ahead = editor.clone();
    ahead["n_predict"] = json!(0);
    assert_eq!(done(&app, "/infill", &ahead).await["content"], "");
    let free = done(&app, "/infill", &json!({"input_prefix": "w1", "input_suffix": "w2"})).await;
    assert_eq!(free["tokens"].as_array().unwrap().len(), 24, "it fills the model's length");

    let mut stream = body.clone();
    stream["stream"] = json!(true);
    let events = events(&app, "/infill", &stream).await;
    let last: Value = serde_json::from_str(&events.last().unwrap().1).unwrap();
    assert!(last["stop"] == true && last["text"] == answer["text"] && last["blanks"] == answer["blanks"], "{last}");
    let pieces: String = events
        .iter()
        .map(|(_, data)| serde_json::from_str::<Value>(data).unwrap()["content"].as_str().unwrap().to_string())
        .collect();
    assert_eq!(pieces, answer["content"].as_str().unwrap());
}

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
async fn a_server_with_keys_asks_for_one() {
    let app = router(&server(Limits::default(), &["secret".into(), "other".into()]));
    for (key, status) in [(None, 401), (Some("Bearer wrong"), 401), (Some("secret"), 401), (Some("Bearer other"), 200)]
    {
        let mut request = get("/v1/models");
        if let Some(key) = key {
            request.headers_mut().insert(header::AUTHORIZATION, key.parse().unwrap());
        }
        assert_eq!(send(&app, request).await.0, status, "{key:?}");
    }
    assert_eq!(send(&app, get("/metrics")).await.0, 401);
    assert_eq!(send(&app, get("/v1/models/tiny")).await.0, 401);
    assert_eq!(send(&app, get("/health")).await.0, 200);
}

#[tokio::test]
async fn a_local_server_answers_to_local_names_only() {
    let app = local_only(app());
    let from = |host: &str| Request::get("/v1/models").header(header::HOST, host).body(Body::empty()).unwrap();
    for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080", "127.3.2.1"] {
        assert_eq!(send(&app, from(host)).await.0, StatusCode::OK, "{host}");
    }
    for host in ["example.org", "example.org:8080", "10.0.0.1", "localhost.example.org", ""] {
        let (status, answer) = send(&app, from(host)).await;
        assert!(status == StatusCode::FORBIDDEN && answer["error"]["code"] == "wrong_host", "{host}: {answer}");
    }
    assert_eq!(send(&app, get("/v1/models")).await.0, StatusCode::OK, "without a name");
}

#[tokio::test]
async fn every_response_has_a_request_id() {
    let app = app();
    let id = async |request: Request<Body>| {
        let response = app.clone().oneshot(request).await.unwrap();
        response.headers()["x-request-id"].to_str().unwrap().to_string()
    };
    let (first, second) = (id(get("/health")).await, id(get("/nothing")).await);
    assert!(!first.is_empty() && first != second);
    let request = Request::get("/health").header("x-request-id", "mine").body(Body::empty()).unwrap();
    assert_eq!(id(request).await, "mine");
}
