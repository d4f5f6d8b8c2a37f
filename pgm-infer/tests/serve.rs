//! The server's routes, in this process.
#![cfg(all(feature = "flex", feature = "server"))]

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use pgm_infer::Engine;
use pgm_infer::engine::EngineOptions;
use pgm_infer::serve::{Limits, Server, ServerPhase, local_only, router};
use serde_json::{Value, json};
use tower::ServiceExt;

mod common;
use common::{failing_model, model, partition};

/// Steps that take longer than any test.
const ENDLESS: usize = 1 << 20;

/// A text that takes long: an order that never comes to rest, before a suffix, so that no EOS ends it.
fn endless() -> Value {
    json!({
        "prompt": "w1", "suffix": "w2", "max_tokens": 20, "steps": ENDLESS, "order": "remask", "remask_rate": 1.0,
    })
}

fn server(limits: Limits, keys: &[String]) -> Arc<Server> {
    let limits = Limits { max_steps: ENDLESS, ..limits };
    let server = Server::new(&["tiny".into()], limits, keys);
    let watch = Some(server.metrics().watch("tiny"));
    let options = EngineOptions { max_batch: limits.max_batch, watch, ..EngineOptions::default() };
    server.add("tiny", Engine::new(model(&partition()), &options).unwrap());
    server
}

fn app() -> Router {
    router(&server(Limits::default(), &[]))
}

fn post(route: &str, body: &Value) -> Request<Body> {
    let json = "application/json";
    Request::post(route).header(header::CONTENT_TYPE, json).body(Body::from(body.to_string())).unwrap()
}

fn get(route: &str) -> Request<Body> {
    Request::get(route).body(Body::empty()).unwrap()
}

async fn text(response: Response) -> String {
    String::from_utf8(to_bytes(response.into_body(), 1 << 24).await.unwrap().to_vec()).unwrap()
}

async fn ask(app: &Router, request: Request<Body>) -> (StatusCode, Value) {
    let response = app.clone().oneshot(request).await.unwrap();
    (response.status(), serde_json::from_str(&text(response).await).unwrap())
}

async fn done(app: &Router, route: &str, body: &Value) -> Value {
    let (status, answer) = ask(app, post(route, body)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

// Names and data of a stream's events.
async fn events(app: &Router, route: &str, body: &Value) -> Vec<(Option<String>, String)> {
    let response = app.clone().oneshot(post(route, body)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let text = text(response).await;
    let event = |block: &str| {
        let field =
            |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(|text| text.trim().to_string());
        (field("event:"), field("data:").unwrap())
    };
    text.split("\n\n").filter(|block| !block.is_empty()).map(event).collect()
}

#[tokio::test]
async fn every_route_of_the_description_answers() {
    let app = app();
    let (_, description) = ask(&app, get("/openapi.json")).await;
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
    let (_, models) = ask(&app, get("/v1/models")).await;
    assert_eq!((&models["data"][0]["id"], &models["data"][0]["context_length"]), (&json!("tiny"), &json!(24)));
    assert_eq!(ask(&app, get("/v1/models/tiny")).await.1, models["data"][0]);
    for (request, status) in [(get("/nothing"), 404), (get("/infill"), 405), (get("/v1/models/other"), 404)] {
        let (found, answer) = ask(&app, request).await;
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

#[tokio::test]
async fn a_completion_is_openais() {
    let app = app();
    let body = json!({"prompt": "w1 w2", "max_tokens": 6, "seed": 5, "steps": 6, "n": 2, "logprobs": 3});
    let answer = done(&app, "/v1/completions", &body).await;
    assert_eq!(answer["usage"], json!({"prompt_tokens": 2, "completion_tokens": 12, "total_tokens": 14}));
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

// What an ordinary client makes of a stream.
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
async fn a_stream_tells_the_finished_beginning_and_every_step() {
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
        // All that was decoded and not forgotten again was told.
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
    // As editors of llama.cpp's protocol send it.
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
async fn what_cannot_be_done_is_said_in_openais_shape() {
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
        ("/v1/completions", json!({"prompt": "w1", "echo": true, "logprobs": 1}), 400, "echo"),
        ("/v1/completions", json!({"prompt": "w1", "stop": ["", "a"]}), 400, "stop"),
        ("/v1/completions", json!({"prompt": "w1", "seed": 1_u64 << 60}), 400, "seed"),
        ("/v1/completions", json!({"prompt": "w1", "model": "other"}), 404, "tiny"),
        ("/v1/completions", json!(["w1"]), 400, "body"),
        ("/infill", json!({}), 400, "template"),
        ("/infill", json!({"template": "w1 {0}"}), 400, "{0}"),
        ("/infill", json!({"template": "w1 {99999999999}"}), 400, "24"),
        ("/infill", json!({"template": "w1", "input_prefix": "w2"}), 400, "not both"),
        ("/infill", json!({"input_prefix": "w1", "n_predict": -2}), 400, "n_predict"),
        ("/infill", json!({"template": "w1 {20} w2 w3 w4 w5"}), 400, "26"),
        ("/infill", json!({"input_prefix": "w1", "seed": -2}), 400, "seed"),
    ];
    for (route, body, status, says) in cases {
        let (found, answer) = ask(&app, post(route, &body)).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(found == status && message.contains(says), "{route} {body}: {found} {answer}");
        assert!(answer["error"]["type"] == "invalid_request_error" && !message.contains("--"), "{answer}");
    }
    let plain = Request::post("/infill").header(header::CONTENT_TYPE, "text/plain").body(Body::from("{}")).unwrap();
    assert_eq!(ask(&app, plain).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let broken =
        Request::post("/infill").header(header::CONTENT_TYPE, "application/json").body(Body::from("{")).unwrap();
    assert_eq!(ask(&app, broken).await.0, StatusCode::BAD_REQUEST);
    let large = json!({"template": "w1 ".repeat(1 << 20)});
    assert_eq!(ask(&app, post("/infill", &large)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_key_is_asked_for_where_there_is_one() {
    let app = router(&server(Limits::default(), &["secret".into(), "other".into()]));
    for (key, status) in [(None, 401), (Some("Bearer wrong"), 401), (Some("secret"), 401), (Some("Bearer other"), 200)]
    {
        let mut request = get("/v1/models");
        if let Some(key) = key {
            request.headers_mut().insert(header::AUTHORIZATION, key.parse().unwrap());
        }
        assert_eq!(ask(&app, request).await.0, status, "{key:?}");
    }
    assert_eq!(ask(&app, get("/metrics")).await.0, 401);
    assert_eq!(ask(&app, get("/v1/models/tiny")).await.0, 401);
    assert_eq!(ask(&app, get("/health")).await.0, 200);
}

#[tokio::test]
async fn a_local_server_answers_to_local_names_only() {
    let app = local_only(app());
    let from = |host: &str| Request::get("/v1/models").header(header::HOST, host).body(Body::empty()).unwrap();
    for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080", "127.3.2.1"] {
        assert_eq!(ask(&app, from(host)).await.0, StatusCode::OK, "{host}");
    }
    for host in ["example.org", "example.org:8080", "10.0.0.1", "localhost.example.org", ""] {
        let (status, answer) = ask(&app, from(host)).await;
        assert!(status == StatusCode::FORBIDDEN && answer["error"]["code"] == "wrong_host", "{host}: {answer}");
    }
    assert_eq!(ask(&app, get("/v1/models")).await.0, StatusCode::OK, "without a name");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_whoever_leaves_frees_the_place() {
    let limits = Limits { max_batch: 1, queue: 1, ..Limits::default() };
    let app = router(&server(limits, &[]));
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let app = app.clone();
            tokio::spawn(async move { ask(&app, post("/v1/completions", &endless())).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let response = app.clone().oneshot(post("/v1/completions", &json!({"prompt": "w1"}))).await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()[header::RETRY_AFTER]),
        (StatusCode::TOO_MANY_REQUESTS, &"1".parse().unwrap())
    );
    let n_waiting = async || {
        let metrics = text(app.clone().oneshot(get("/metrics")).await.unwrap()).await;
        let line = metrics.lines().find(|line| line.starts_with("pgm_samples_waiting{"))?;
        line.rsplit(' ').next()?.parse::<usize>().ok()
    };
    let until = async |n: usize| {
        for _ in 0..500 {
            if n_waiting().await == Some(n) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never are {n} waiting");
    };
    until(1).await;
    // Both clients go away: as a server drops what it does for a connection that is closed.
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    until(0).await;
    for _ in 0..200 {
        let (status, _) = ask(&app, post("/v1/completions", &json!({"prompt": "w1", "max_tokens": 2}))).await;
        if status == StatusCode::OK {
            return;
        }
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the places of those who went away are never free");
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_ended_by_name() {
    let limits = Limits { timeout: Duration::from_millis(50), ..Limits::default() };
    let app = router(&server(limits, &[]));
    let (status, answer) = ask(&app, post("/v1/completions", &endless())).await;
    assert!(status == 504 && answer["error"]["code"] == "timeout", "{answer}");
    let mut stream = endless();
    stream["stream"] = json!(true);
    let events = events(&app, "/v1/completions", &stream).await;
    assert!(events.last().unwrap().1.contains("\"timeout\""), "{:?}", events.last());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_finishes_or_fails_each_request_by_name() {
    let server = server(Limits::default(), &[]);
    let app = router(&server);
    let in_work = {
        let app = app.clone();
        tokio::spawn(async move { ask(&app, post("/v1/completions", &endless())).await })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.set_phase(ServerPhase::Draining);
    assert_eq!(ask(&app, get("/health")).await, (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "stopping"})));
    let (status, answer) = ask(&app, post("/v1/completions", &json!({"prompt": "w1"}))).await;
    assert!(status == 503 && answer["error"]["code"] == "stopping", "{answer}");
    assert!(!in_work.is_finished());
    server.set_phase(ServerPhase::Cut);
    let (status, answer) = in_work.await.unwrap();
    assert!(status == 503 && answer["error"]["code"] == "stopping", "{answer}");
}

#[tokio::test]
async fn a_failing_device_is_said_by_name_and_leaves_nothing_behind() {
    let server = Server::new(&["tiny".into()], Limits::default(), &[]);
    let options = EngineOptions { watch: Some(server.metrics().watch("tiny")), ..EngineOptions::default() };
    server.add("tiny", Engine::new(failing_model(), &options).unwrap());
    let app = router(&server);
    let lost = json!({"template": "w30 {3}", "steps": 2, "seed": 1});
    for stream in [false, true] {
        let mut body = lost.clone();
        body["stream"] = json!(stream);
        if stream {
            let events = events(&app, "/infill", &body).await;
            assert!(events.last().unwrap().1.contains("\"device_error\""), "{:?}", events.last());
        } else {
            let (status, answer) = ask(&app, post("/infill", &body)).await;
            assert!(status == 500 && answer["error"]["code"] == "device_error", "{answer}");
        }
        let health = ask(&app, get("/health")).await;
        assert_eq!(health, (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "failing"})));
    }
    // The engine's thread lets go of the place a moment after it has told of the failure.
    let lines = ["pgm_device_errors_total{model=\"tiny\"} 2", "pgm_samples_in_flight{model=\"tiny\"} 0"];
    let mut metrics = String::new();
    for _ in 0..200 {
        metrics = text(app.clone().oneshot(get("/metrics")).await.unwrap()).await;
        if lines.iter().all(|line| metrics.contains(line)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(lines.iter().all(|line| metrics.contains(line)), "{metrics}");
    // Others are served as before.
    done(&app, "/infill", &json!({"template": "w3 {3}", "steps": 2})).await;
    assert_eq!(ask(&app, get("/health")).await, (StatusCode::OK, json!({"status": "ok"})));
}

#[tokio::test]
async fn nothing_is_answered_before_the_model_is_there() {
    let server = Server::new(&["tiny".into()], Limits::default(), &[]);
    let app = router(&server);
    assert_eq!(ask(&app, get("/health")).await, (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "loading"})));
    let (status, answer) = ask(&app, post("/infill", &json!({"template": "{3}"}))).await;
    assert!(status == 503 && answer["error"]["code"] == "loading", "{answer}");
    server.add("tiny", Engine::new(model(&partition()), &EngineOptions::default()).unwrap());
    assert_eq!(ask(&app, get("/health")).await, (StatusCode::OK, json!({"status": "ok"})));
}
