//! A server that is full, slow, stopping or failing, in this process.
#![cfg(all(feature = "flex", feature = "server"))]

use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use pgm_infer::Engine;
use pgm_infer::engine::EngineOptions;
use pgm_infer::serve::{Limits, Server, ServerPhase, router};
use serde_json::{Value, json};
use tower::ServiceExt;

mod common;
use common::http::{done, endless, events, get, post, send, server, text};
use common::{failing_model, model, model_whose_tokenizer_cannot_encode, model_whose_tokenizer_panics, partition};

async fn metrics(app: &Router) -> String {
    text(app.clone().oneshot(get("/metrics")).await.unwrap()).await
}

// Waits until a line is among the metrics.
async fn until(app: &Router, line: &str) {
    let mut seen = String::new();
    for _ in 0..500 {
        seen = metrics(app).await;
        if seen.lines().any(|seen| seen == line) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{line} never appears in\n{seen}");
}

fn streamed(mut body: Value) -> Value {
    body["stream"] = json!(true);
    body
}

// Clients whose requests do not end by themselves. Aborting a client is leaving.
fn clients(app: &Router, n: usize, body: &Value) -> Vec<tokio::task::JoinHandle<()>> {
    let client = |_| {
        let (app, request) = (app.clone(), post("/v1/completions", body));
        tokio::spawn(async move {
            let response = app.oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            text(response).await;
        })
    };
    (0..n).map(client).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_a_client_that_leaves_frees_its_place() {
    for body in [endless(), streamed(endless())] {
        let app = router(&server(Limits { max_batch: 1, queue: 1, ..Limits::default() }, &[]));
        let clients = clients(&app, 2, &body);
        until(&app, "pgm_samples_waiting{model=\"tiny\"} 1").await;
        let response = app.clone().oneshot(post("/v1/completions", &json!({"prompt": "w1"}))).await.unwrap();
        assert_eq!(
            (response.status(), &response.headers()[header::RETRY_AFTER]),
            (StatusCode::TOO_MANY_REQUESTS, &"1".parse().unwrap())
        );
        // A server drops the response of a connection that is closed.
        clients.iter().for_each(tokio::task::JoinHandle::abort);
        until(&app, "pgm_samples_in_flight{model=\"tiny\"} 0").await;
        until(&app, "pgm_samples_total{model=\"tiny\",finish=\"cancelled\"} 2").await;
        done(&app, "/v1/completions", &json!({"prompt": "w1", "max_tokens": 2})).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_refuses_before_it_checks_or_tokenises_a_body() {
    let app = router(&server(Limits { max_batch: 1, queue: 2, ..Limits::default() }, &[]));
    let clients = clients(&app, 2, &endless());
    until(&app, "pgm_samples_in_flight{model=\"tiny\"} 2").await;
    // The model refuses both bodies, but they do not get that far.
    let two = json!({"prompt": ["w1", "w2"], "temperature": -1});
    assert_eq!(send(&app, post("/v1/completions", &two)).await.0, StatusCode::TOO_MANY_REQUESTS);
    let (status, answer) = send(&app, post("/v1/completions", &json!({"prompt": "w1", "max_tokens": 9999}))).await;
    assert!(status == StatusCode::BAD_REQUEST, "one place is free: {answer}");
    clients.iter().for_each(tokio::task::JoinHandle::abort);
    until(&app, "pgm_samples_in_flight{model=\"tiny\"} 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_loses_its_place_when_its_time_is_over() {
    let limits = Limits { max_batch: 1, queue: 0, timeout: Duration::from_secs(1), ..Limits::default() };
    let app = router(&server(limits, &[]));
    // The response is kept, so the client has not left; but nothing reads it.
    let mut body = streamed(endless());
    body["stream_options"] = json!({"denoise": true});
    let response = app.clone().oneshot(post("/v1/completions", &body)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    until(&app, "pgm_samples_in_flight{model=\"tiny\"} 1").await;
    until(&app, "pgm_samples_in_flight{model=\"tiny\"} 0").await;
    done(&app, "/v1/completions", &json!({"prompt": "w1", "max_tokens": 2})).await;
    // A client that wakes up finds the beginning and the error.
    let text = text(response).await;
    assert!(text.contains("event: denoise") && text.contains("\"timeout\""), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_too_many_steps_wait_for_its_client() {
    let app = router(&server(Limits { max_batch: 1, queue: 1, ..Limits::default() }, &[]));
    let mut body = streamed(endless());
    (body["logprobs"], body["stream_options"]) = (json!(5), json!({"denoise": true}));
    let response = app.clone().oneshot(post("/v1/completions", &body)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    // There is one row, so this is answered when the engine has given up the stream that nothing reads.
    done(&app, "/v1/completions", &json!({"prompt": "w1", "max_tokens": 2})).await;
    let text = text(response).await;
    let end = text.trim_end().rsplit("\n\n").next().unwrap();
    assert!(text.contains("event: denoise") && end.contains("reads the stream much more slowly"), "{end}");
}

// Requests whose answers are larger than what lies between the server and a client that reads nothing, and their places.
fn large() -> [(&'static str, Value, usize); 2] {
    let completion = json!({"prompt": "w1", "max_tokens": 20, "n": 64, "logprobs": 5, "steps": 2});
    [
        ("/v1/completions", completion, 64),
        ("/tokenize", json!({"content": "w1 w2 ".repeat(9000), "with_pieces": true}), 1),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_answer_holds_its_places_until_the_client_has_read_it() {
    for (route, body, n_places) in large() {
        let limits = Limits { max_batch: n_places, queue: 0, ..Limits::default() };
        let app = router(&server(limits, &[]));
        let none = "pgm_samples_in_flight{model=\"tiny\"} 0";
        // One client reads its answer late, the other one leaves.
        for reads in [true, false] {
            let response = app.clone().oneshot(post(route, &body)).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            tokio::time::sleep(Duration::from_millis(200)).await;
            until(&app, &format!("pgm_samples_in_flight{{model=\"tiny\"}} {n_places}")).await;
            let (status, _) = send(&app, post("/v1/completions", &json!({"prompt": "w1"}))).await;
            assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{route}");
            if reads {
                let length: usize = response.headers()[header::CONTENT_LENGTH].to_str().unwrap().parse().unwrap();
                assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
                let answer = text(response).await;
                assert!(answer.len() == length && length > 200_000, "{route}: {length} bytes");
                serde_json::from_str::<Value>(&answer).unwrap();
            } else {
                drop(response);
            }
            until(&app, none).await;
            done(&app, "/v1/completions", &json!({"prompt": "w1", "max_tokens": 2})).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_its_answer_loses_its_place_when_its_time_is_over() {
    for (route, body, n_places) in large() {
        let limits = Limits { max_batch: n_places, queue: 0, timeout: Duration::from_secs(2), ..Limits::default() };
        let app = router(&server(limits, &[]));
        let response = app.clone().oneshot(post(route, &body)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{route}");
        until(&app, &format!("pgm_samples_in_flight{{model=\"tiny\"}} {n_places}")).await;
        until(&app, "pgm_samples_in_flight{model=\"tiny\"} 0").await;
        done(&app, "/v1/completions", &json!({"prompt": "w1", "max_tokens": 2})).await;
        // What is left of the answer is its beginning.
        let read = axum::body::to_bytes(response.into_body(), 1 << 24).await;
        assert!(read.map_or(true, |bytes| bytes.len() < 200_000), "{route}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_tokenizer_fails_its_request_and_no_other() {
    let server = Server::new(&["tiny".into()], Limits::default(), &[]);
    server.add("tiny", Engine::new(model_whose_tokenizer_cannot_encode(), &EngineOptions::default()).unwrap());
    let app = router(&server);
    for (route, body) in [("/v1/completions", json!({"prompt": "w1"})), ("/infill", json!({"template": "w1 {3}"}))] {
        for body in [body.clone(), streamed(body)] {
            let (status, answer) = send(&app, post(route, &body)).await;
            assert!(status == 500 && answer["error"]["code"] == "internal_error", "{answer}");
        }
    }
    until(&app, "pgm_samples_in_flight{model=\"tiny\"} 0").await;
    // Tokens need no tokenizer.
    done(&app, "/v1/completions", &json!({"prompt": [1, 2], "max_tokens": 3})).await;
    assert_eq!(send(&app, get("/health")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_panic_while_a_stream_is_sent_is_an_error_of_that_stream() {
    let server = Server::new(&["tiny".into()], Limits::default(), &[]);
    server.add("tiny", Engine::new(model_whose_tokenizer_panics(), &EngineOptions::default()).unwrap());
    let app = router(&server);
    // The tokenizer encodes this text and cannot decode it.
    let found = events(&app, "/infill", &streamed(json!({"template": "w {3}", "steps": 2}))).await;
    assert!(found.last().unwrap().1.contains("\"internal_error\""), "{:?}", found.last());
    until(&app, "pgm_samples_in_flight{model=\"tiny\"} 0").await;
    assert_eq!(send(&app, get("/health")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_request_that_takes_too_long_ends_with_the_error_timeout() {
    let limits = Limits { timeout: Duration::from_millis(50), ..Limits::default() };
    let app = router(&server(limits, &[]));
    let (status, answer) = send(&app, post("/v1/completions", &endless())).await;
    assert!(status == 504 && answer["error"]["code"] == "timeout", "{answer}");
    let events = events(&app, "/v1/completions", &streamed(endless())).await;
    assert!(events.last().unwrap().1.contains("\"timeout\""), "{:?}", events.last());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_finishes_a_request_or_ends_it_with_an_error() {
    let server = server(Limits::default(), &[]);
    let app = router(&server);
    let in_work = {
        let app = app.clone();
        tokio::spawn(async move { send(&app, post("/v1/completions", &endless())).await })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.set_phase(ServerPhase::Draining);
    assert_eq!(send(&app, get("/health")).await, (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "stopping"})));
    let (status, answer) = send(&app, post("/v1/completions", &json!({"prompt": "w1"}))).await;
    assert!(status == 503 && answer["error"]["code"] == "stopping", "{answer}");
    assert!(!in_work.is_finished());
    server.set_phase(ServerPhase::Cut);
    let (status, answer) = in_work.await.unwrap();
    assert!(status == 503 && answer["error"]["code"] == "stopping", "{answer}");
}

#[tokio::test]
async fn a_server_that_leaves_takes_requests_and_says_that_it_is_stopping() {
    let server = server(Limits::default(), &[]);
    let app = router(&server);
    server.set_phase(ServerPhase::Leaving);
    assert_eq!(send(&app, get("/health")).await, (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "stopping"})));
    done(&app, "/v1/completions", &json!({"prompt": "w1", "max_tokens": 2})).await;
    let streamed = events(&app, "/v1/completions", &streamed(json!({"prompt": "w1", "max_tokens": 2}))).await;
    assert_eq!(streamed.last().unwrap().1, "[DONE]");
    server.set_phase(ServerPhase::Draining);
    assert_eq!(send(&app, post("/v1/completions", &json!({"prompt": "w1"}))).await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_failing_device_is_an_error_and_frees_its_places() {
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
            let (status, answer) = send(&app, post("/infill", &body)).await;
            assert!(status == 500 && answer["error"]["code"] == "device_error", "{answer}");
        }
        let health = send(&app, get("/health")).await;
        assert_eq!(health, (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "failing"})));
    }
    // The engine drops a listener a moment after it has reported the failure.
    until(&app, "pgm_device_errors_total{model=\"tiny\"} 2").await;
    until(&app, "pgm_samples_in_flight{model=\"tiny\"} 0").await;
    // Other requests are served as before.
    done(&app, "/infill", &json!({"template": "w3 {3}", "steps": 2})).await;
    assert_eq!(send(&app, get("/health")).await, (StatusCode::OK, json!({"status": "ok"})));
}

#[tokio::test]
async fn requests_are_refused_until_the_model_is_loaded() {
    let server = Server::new(&["tiny".into()], Limits::default(), &[]);
    let app = router(&server);
    assert_eq!(send(&app, get("/health")).await, (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "loading"})));
    let (status, answer) = send(&app, post("/infill", &json!({"template": "{3}"}))).await;
    assert!(status == 503 && answer["error"]["code"] == "loading", "{answer}");
    server.add("tiny", Engine::new(model(&partition()), &EngineOptions::default()).unwrap());
    assert_eq!(send(&app, get("/health")).await, (StatusCode::OK, json!({"status": "ok"})));
}
