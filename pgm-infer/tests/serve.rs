//! The server's routes, in this process.
#![cfg(all(feature = "flex", feature = "server"))]

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use pgm_infer::serve::{Limits, router, router_for};
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

// A row as a client of the event `denoise` keeps it: the text of each position, none for an open one.
fn replay(row: &mut Vec<Option<String>>, step: &Value) {
    let number = |value: &Value| value.as_u64().unwrap() as usize;
    let list = |name: &str| step[name].as_array().cloned().unwrap_or_default();
    for segment in list("segments") {
        assert_eq!(number(&segment["start"]), row.len());
        let is_open = segment["kind"] == "open";
        let first = (!is_open).then(|| segment["text"].as_str().unwrap().to_string());
        row.push(first);
        row.extend((1..number(&segment["n"])).map(|_| (!is_open).then(String::new)));
    }
    for position in list("forgotten") {
        assert!(row[number(&position)].take().is_some(), "it was not open: {step}");
    }
    for decoded in list("decoded") {
        assert!(decoded["logprob"].as_f64().unwrap() <= 0.0);
        let before = row[number(&decoded["position"])].replace(decoded["text"].as_str().unwrap().to_string());
        assert!(before.is_none(), "it was open: {step}");
    }
    for changed in list("changed") {
        let before = row[number(&changed["position"])].replace(changed["text"].as_str().unwrap().to_string());
        assert!(before.is_some(), "an open position has no text: {step}");
    }
}

#[tokio::test]
async fn a_stream_has_the_finished_beginning_and_where_asked_for_every_step() {
    let app = app();
    for order in ["uniform", "sequential", "remask", "entropy-bounded"] {
        let mut body = json!({"prompt": "w1 w2", "max_tokens": 8, "seed": 3, "steps": 12, "order": order, "n": 2});
        let whole = done(&app, "/v1/completions", &body).await;
        body["stream"] = json!(true);
        for steps in [false, true] {
            body["stream_options"] = json!({"include_usage": true, "denoise": steps});
            let events = events(&app, "/v1/completions", &body).await;
            for index in 0..2 {
                assert_eq!(joined(&events, index), whole["choices"][index as usize]["text"], "{order}");
            }
            assert_eq!(events.last().unwrap().1, "[DONE]");
            let usage: Value = serde_json::from_str(&events[events.len() - 2].1).unwrap();
            assert_eq!((&usage["usage"], &usage["choices"]), (&whole["usage"], &json!([])), "{order}");
            let told: Vec<Value> = events
                .iter()
                .filter(|(name, _)| name.as_deref() == Some("denoise"))
                .map(|(_, data)| serde_json::from_str(data).unwrap())
                .collect();
            if !steps {
                assert!(told.is_empty(), "{order}");
                continue;
            }
            for index in 0..2 {
                let mut row = Vec::new();
                for step in told.iter().filter(|step| step["index"] == index) {
                    let changes = !step["decoded"].as_array().unwrap().is_empty() || step["forgotten"].is_array();
                    assert!(changes != (step["step"] == 0), "no event for a step that changes nothing: {step}");
                    replay(&mut row, step);
                }
                let choice = &whole["choices"][index];
                let text: String = row.iter().map(|text| text.as_deref().unwrap_or("_")).collect();
                if choice["finish_reason"] == "length" {
                    // BOS is a word of this tokenizer.
                    let bos = common::backbone().bos_index;
                    assert_eq!(text, format!("w{bos} w1 w2{}", choice["text"].as_str().unwrap()), "{order}");
                } else {
                    assert_eq!(row.len(), 11);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_stream_takes_few_bytes_for_each_token() {
    let app = router(&server(Limits { max_length: Some(1100), ..Limits::default() }, &[]));
    for order in ["uniform", "sequential"] {
        // Before a suffix no EOS ends the text.
        let mut body = json!({
            "prompt": "w1", "suffix": " w2", "max_tokens": 256, "seed": 3, "steps": 256, "order": order, "stream": true,
        });
        let bytes = async |body: &Value| {
            let response = app.clone().oneshot(post("/v1/completions", body)).await.unwrap();
            text(response).await.len() / 256
        };
        let (plain, n) = (bytes(&body).await, 300);
        assert!(plain <= n, "{order}: {plain} bytes a token");
        body["stream_options"] = json!({"denoise": true});
        let with_steps = bytes(&body).await;
        assert!(with_steps > plain && with_steps <= 2 * n, "{order}: {with_steps} bytes a token with all steps");
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
    ahead["stream"] = json!(true);
    let nothing = events(&app, "/infill", &ahead).await;
    let nothing: Value = serde_json::from_str(&nothing[0].1).unwrap();
    assert!(nothing["stop"] == true && nothing["content"] == "", "{nothing}");
    // A length bounds the row, and the blank keeps its own.
    for (n_predict, n) in [(0, 0), (3, 3), (-1, 7)] {
        let body =
            json!({"input_prefix": "w1", "input_suffix": "w2", "n_predict": n_predict, "length": 10, "steps": 2});
        let answer = done(&app, "/infill", &body).await;
        let words = answer["content"].as_str().unwrap().split_whitespace().count();
        assert!(words == n && answer["text"].as_str().unwrap().ends_with("w2"), "{body}: {answer}");
    }
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
async fn pages_of_allowed_origins_may_use_the_server() {
    let preflight = |origin: &str| {
        Request::options("/v1/completions")
            .header(header::ORIGIN, origin)
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
            .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization,content-type")
            .body(Body::empty())
            .unwrap()
    };
    let allowed = |response: &axum::response::Response| {
        response.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN).map(|origin| origin.to_str().unwrap().to_string())
    };
    let keys = ["secret".to_string()];
    let server = server(Limits::default(), &keys);
    let response = router(&server).oneshot(preflight("http://localhost:3000")).await.unwrap();
    assert!(response.status() == StatusCode::METHOD_NOT_ALLOWED && allowed(&response).is_none());
    for (origins, origin, expected) in [
        (&["http://localhost:3000"][..], "http://localhost:3000", Some("http://localhost:3000")),
        (&["http://localhost:3000"], "http://example.org", None),
        (&["http://a.org", "https://B.org"], "https://b.org", Some("https://b.org")),
        (&["*"], "http://example.org", Some("*")),
    ] {
        let origins: Vec<String> = origins.iter().map(ToString::to_string).collect();
        let app = router_for(&server, &origins, false).unwrap();
        // The preflight has no key.
        let response = app.clone().oneshot(preflight(origin)).await.unwrap();
        assert_eq!((response.status(), allowed(&response).as_deref()), (StatusCode::OK, expected), "{origin}");
        let names = response.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap();
        assert!(names.contains("authorization") && names.contains("content-type"), "{names}");
        for (key, status) in [("Bearer secret", StatusCode::OK), ("Bearer wrong", StatusCode::UNAUTHORIZED)] {
            let mut request = post("/v1/completions", &json!({"prompt": "w1", "max_tokens": 2, "stream": true}));
            request.headers_mut().insert(header::ORIGIN, origin.parse().unwrap());
            request.headers_mut().insert(header::AUTHORIZATION, key.parse().unwrap());
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!((response.status(), allowed(&response).as_deref()), (status, expected), "{origin}");
        }
    }
    assert!(router_for(&server, &["example.org".into()], false).is_err());
}

#[tokio::test]
async fn a_server_with_keys_asks_for_one() {
    let app = router(&server(Limits::default(), &["secret".into(), "other".into()]));
    for (key, status) in [
        (None, 401),
        (Some("Bearer wrong"), 401),
        (Some("secret"), 401),
        (Some("Bearer other"), 200),
        (Some("bearer other"), 200),
        (Some("BEARER  other "), 200),
        (Some("Basic other"), 401),
    ] {
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
    let server = server(Limits::default(), &[]);
    let app = router_for(&server, &[], true).unwrap();
    let from = |host: &str| Request::get("/v1/models").header(header::HOST, host).body(Body::empty()).unwrap();
    for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080", "127.3.2.1"] {
        assert_eq!(send(&app, from(host)).await.0, StatusCode::OK, "{host}");
    }
    for host in ["example.org", "example.org:8080", "10.0.0.1", "localhost.example.org", ""] {
        let (status, answer) = send(&app, from(host)).await;
        assert!(status == StatusCode::FORBIDDEN && answer["error"]["code"] == "wrong_host", "{host}: {answer}");
        let response = app.clone().oneshot(from(host)).await.unwrap();
        assert!(response.headers().contains_key("x-request-id"), "{host}");
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
    for odd in ["a b", "", &"x".repeat(129)] {
        let request = Request::get("/health").header("x-request-id", odd).body(Body::empty()).unwrap();
        let found = id(request).await;
        assert!(found != odd && !found.is_empty(), "{odd:?} became {found:?}");
    }
}
