//! Several copies of a model behind one engine and one server.
#![cfg(feature = "flex")]

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use pgm_infer::engine::{
    EngineOptions, ImageEngine, ImageTask, ReplicaState, StepMetrics, Task, TaskEvent, TaskInput, TaskOutput,
};
use pgm_infer::sample::Refresh;
use pgm_infer::{Engine, InferError, OrderKind, SampleSettings, TextModel};

mod common;
use common::{broken_model, failing_model, image_models, model, partition};

fn task(text: &str, steps: usize, n: usize, seed: u64) -> Task {
    let mut task = Task::new(TaskInput::Prompt(text.into()));
    (task.settings.steps, task.n, task.seed) = (steps, n, seed);
    task
}

fn quiet(_: &TaskEvent) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

// Places of a device that is there as often as one likes.
fn cpus(n: usize) -> Vec<(Device, String)> {
    (0..n).map(|number| (Device::flex(), format!("flex-{number}"))).collect()
}

fn options() -> EngineOptions {
    EngineOptions { threads: Some(1), ..EngineOptions::default() }
}

fn engine_of(models: Vec<TextModel>, options: &EngineOptions) -> Engine {
    let names = cpus(models.len()).into_iter().map(|(_, name)| name);
    Engine::of_replicas(models.into_iter().zip(names).collect(), options).unwrap()
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

// What does not depend on rounding: a sample's batch is another on another replica.
fn rows(answers: Vec<TaskOutput>) -> Vec<(usize, u64, String, Vec<u32>, Vec<usize>)> {
    let row =
        |answer: TaskOutput| (answer.index, answer.seed, answer.text, answer.sampled.tokens, answer.sampled.order);
    answers.into_iter().map(row).collect()
}

#[test]
fn a_text_is_the_same_from_one_replica_and_from_several() {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let note = Arc::clone(&seen);
    let watch = Arc::new(move |step: &StepMetrics| _ = note.lock().unwrap().insert((step.replica, step.n_rows > 0)));
    let one = Engine::new(model(&partition()), &EngineOptions::default()).unwrap();
    let several = EngineOptions { watch: Some(watch), ..options() };
    let several = Engine::on_devices(model(&partition()), &cpus(3), &several).unwrap();
    let of_order =
        |order: OrderKind, refresh: Refresh| SampleSettings { steps: 7, order, refresh, ..Default::default() };
    for (settings, n) in [
        (of_order(OrderKind::Uniform, Refresh::default()), 1),
        (of_order(OrderKind::Uniform, Refresh::default()), 7),
        (of_order("entropy".parse().unwrap(), Refresh::default()), 5),
        (of_order("remask".parse().unwrap(), Refresh::default()), 4),
        (of_order(OrderKind::Uniform, "4".parse().unwrap()), 8),
    ] {
        let task = Task { settings, ..task("w1 w2", 7, n, 40) };
        let expected = rows(one.generate(task.clone(), &mut quiet).unwrap());
        assert_eq!(expected.len(), n);
        assert_eq!(rows(several.generate(task, &mut quiet).unwrap()), expected);
    }
    let seen = seen.lock().unwrap();
    assert!((0..3).all(|replica| seen.contains(&(Some(replica), true))), "each of them worked: {seen:?}");
    let states: Vec<_> = several.replicas().into_iter().map(|replica| (replica.device, replica.state)).collect();
    assert_eq!(states, cpus(3).into_iter().map(|(_, name)| (name, ReplicaState::Working)).collect::<Vec<_>>());
}

#[test]
fn a_picture_is_the_same_from_one_replica_and_from_several() {
    let model = || image_models::model(0, Some(Arc::new(image_models::Blocks)));
    let one = ImageEngine::new(model(), &EngineOptions::default()).unwrap();
    let several = ImageEngine::on_devices(model(), &cpus(2), &options()).unwrap();
    let settings = SampleSettings { steps: 6, ..SampleSettings::default() };
    let rows_of = |engine: &ImageEngine| {
        let requests = (0..5).map(|seed| engine.model().request(Some(seed as usize % 3), seed)).collect();
        rows(engine.generate(ImageTask::new(requests, settings), &mut quiet).unwrap())
    };
    assert_eq!(rows_of(&several), rows_of(&one));
    assert_eq!(several.replicas().len(), 2);
}

#[test]
fn a_sample_goes_to_the_replica_with_the_fewest() {
    let engine =
        Engine::on_devices(model(&partition()), &cpus(2), &EngineOptions { max_batch: 2, ..options() }).unwrap();
    let loads = || engine.replicas().iter().map(|replica| replica.n_samples).collect::<Vec<_>>();
    // A listener that waits keeps the threads within their first steps.
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let submit = |n: usize| {
        let gate = Arc::clone(&gate);
        let listener = move |_| {
            drop(gate.lock());
            ControlFlow::Continue(())
        };
        engine.submit(task("w1", 1 << 20, n, 1), Box::new(listener)).unwrap()
    };
    let first = submit(5);
    assert_eq!(loads(), [3, 2]);
    let second = submit(2);
    assert_eq!(loads(), [4, 3]);
    let third = submit(1);
    assert_eq!(loads(), [4, 4]);
    drop(closed);
    first.cancel();
    until("the first task is gone", || loads().iter().sum::<usize>() == 3);
    let before = loads();
    submit(5);
    let after = loads();
    assert!(after.iter().sum::<usize>() == 8 && after[0].abs_diff(after[1]) <= 1, "{before:?} became {after:?}");
    second.cancel();
    third.cancel();
}

#[test]
fn a_replica_has_threads_of_its_own_and_may_be_dropped_on_them() {
    for n in [1, 3] {
        let options = EngineOptions { threads: Some(n), ..EngineOptions::default() };
        let engine = Arc::new(Engine::on_devices(model(&partition()), &cpus(2), &options).unwrap());
        let (tell, told) = channel();
        // The listener is the last to hold the engine.
        let own = Arc::clone(&engine);
        let listener = move |event| {
            let _ = &own;
            if let TaskEvent::Done(_) = event {
                let _ = tell.send(rayon::current_num_threads());
            }
            ControlFlow::Continue(())
        };
        engine.submit(task("w1", 3, 1, 0), Box::new(listener)).unwrap();
        drop(engine);
        assert_eq!(told.recv().unwrap(), n);
        assert!(told.recv().is_err(), "the engine and its listeners are gone");
    }
    let none = EngineOptions { threads: Some(0), ..EngineOptions::default() };
    assert!(matches!(Engine::new(model(&partition()), &none), Err(InferError::Setting { name: "threads", .. })));
    assert!(matches!(Engine::of_replicas(Vec::new(), &options()), Err(InferError::Setting { name: "--device", .. })));
}

#[test]
fn a_replica_that_fails_gets_no_samples_while_others_work() {
    let one = Engine::new(model(&partition()), &EngineOptions::default()).unwrap();
    let engine = engine_of(vec![model(&partition()), broken_model()], &options());
    let failure = engine.generate(task("w1", 3, 2, 0), &mut quiet).unwrap_err();
    assert!(matches!(*failure.error, InferError::Device(_)), "{failure}");
    assert!(failure.to_string().starts_with("the device failed: replica 1 on flex-1: "), "{failure}");
    let states = || engine.replicas().iter().map(|replica| replica.state).collect::<Vec<_>>();
    assert_eq!(states(), [ReplicaState::Working, ReplicaState::Failing]);
    for n in [1, 2, 7] {
        let answers = rows(engine.generate(task("w1 w2", 5, n, 3), &mut quiet).unwrap());
        assert_eq!(answers, rows(one.generate(task("w1 w2", 5, n, 3), &mut quiet).unwrap()));
    }
    assert_eq!(states(), [ReplicaState::Working, ReplicaState::Failing]);
    assert!(engine.is_alive());
    // Where none works, they are asked all the same: each request says why it failed.
    let engine = engine_of(vec![broken_model(), broken_model()], &options());
    for _ in 0..3 {
        let failure = engine.generate(task("w1", 3, 2, 0), &mut quiet).unwrap_err();
        assert!(matches!(*failure.error, InferError::Device(_)), "{failure}");
    }
}

#[test]
fn a_replica_that_failed_tries_a_step_of_its_own_before_it_gets_samples_again() {
    let failed = Arc::new(Mutex::new([0_usize; 2]));
    let count = Arc::clone(&failed);
    let watch = Arc::new(move |step: &StepMetrics| {
        count.lock().unwrap()[step.replica.unwrap()] += usize::from(step.failed);
    });
    let options = EngineOptions { probe_after: Duration::from_millis(30), watch: Some(watch), ..options() };
    // The first fails on one text, the second on all.
    let engine = engine_of(vec![failing_model(), broken_model()], &options);
    // The rows are those of the first model.
    let state = |replica: usize| engine.replicas()[replica].state;
    // A listener that goes on, so that both samples fail.
    let (tell, told) = channel();
    let listener = move |event| {
        let _ = tell.send(matches!(event, TaskEvent::Failed { error: InferError::Device(_), .. }));
        ControlFlow::Continue(())
    };
    engine.submit(task("w30", 3, 2, 0), Box::new(listener)).unwrap();
    assert_eq!(told.iter().collect::<Vec<_>>(), [true, true]);
    until("the first works again without a request", || state(0) == ReplicaState::Working);
    until("the second is tried again", || failed.lock().unwrap()[1] >= 3);
    assert_eq!((failed.lock().unwrap()[0], state(1)), (1, ReplicaState::Failing));
    assert_eq!(engine.generate(task("w3", 3, 4, 0), &mut quiet).unwrap().len(), 4);
}

#[cfg(feature = "server")]
mod server {
    use axum::Router;
    use axum::http::StatusCode;
    use pgm_infer::serve::{Limits, Server, router};
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;
    use crate::common::http::{app, done, endless, events, get, image_server, post, send, server_of_replicas, text};

    fn named(models: Vec<TextModel>) -> Vec<(TextModel, String)> {
        models.into_iter().zip(cpus(9)).map(|(model, (_, name))| (model, name)).collect()
    }

    fn two(limits: Limits) -> Router {
        router(&server_of_replicas(named(vec![model(&partition()), model(&partition())]), limits))
    }

    async fn until(app: &Router, is_so: impl Fn(&str) -> bool) -> String {
        let mut seen = String::new();
        for _ in 0..500 {
            seen = text(app.clone().oneshot(get("/metrics")).await.unwrap()).await;
            if is_so(&seen) {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it never becomes so in\n{seen}");
    }

    // The sum over all replicas of a counter.
    fn sum(metrics: &str, name: &str) -> f64 {
        let of = |line: &str| line.strip_prefix(name)?.strip_prefix('{')?.split_once("} ")?.1.parse::<f64>().ok();
        metrics.lines().filter_map(of).sum()
    }

    fn choices(answer: &Value) -> Vec<&str> {
        answer["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_answer_is_the_same_from_one_replica_and_from_two() {
        let (one, two) = (app(), two(Limits::default()));
        let body = json!({"prompt": ["w1", "w2 w3"], "max_tokens": 9, "steps": 4, "n": 4, "seed": 7});
        let (a, b) = (done(&one, "/v1/completions", &body).await, done(&two, "/v1/completions", &body).await);
        assert_eq!(choices(&a), choices(&b));
        assert_eq!(choices(&a).len(), 8);
        let mut streamed = body.clone();
        streamed["stream"] = json!(true);
        let mut texts = vec![String::new(); 8];
        for (_, data) in events(&two, "/v1/completions", &streamed).await {
            let Ok(event) = serde_json::from_str::<Value>(&data) else { continue };
            for choice in event["choices"].as_array().into_iter().flatten() {
                texts[choice["index"].as_u64().unwrap() as usize] += choice["text"].as_str().unwrap();
            }
        }
        assert_eq!(texts, choices(&a));
        let body = json!({"context": "w1 w2", "candidates": ["w3", "w4 w5"], "seed": 3, "draws": 16});
        assert_eq!(done(&one, "/score", &body).await["scores"], done(&two, "/score", &body).await["scores"]);
        let metrics = until(&two, |_| true).await;
        for replica in [0, 1] {
            let line = format!("pgm_tokens_total{{model=\"tiny\",replica=\"{replica}\"}} ");
            assert!(metrics.lines().any(|seen| seen.strip_prefix(&line).is_some_and(|n| n != "0")), "{line}{metrics}");
            assert!(metrics.contains(&format!("pgm_replica_up{{model=\"tiny\",replica=\"{replica}\"}} 1\n")));
        }
        assert!(metrics.contains("pgm_replica_info{model=\"tiny\",replica=\"1\",device=\"flex-1\"} 1\n"), "{metrics}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pictures_are_the_same_from_one_replica_and_from_two() {
        let model = || image_models::model(0, Some(Arc::new(image_models::Blocks)));
        let server = Server::new(&["pixels".into()], Limits::default(), &[]);
        server.add_images("pixels", ImageEngine::on_devices(model(), &cpus(2), &options()).unwrap());
        let (one, two) = (router(&image_server(model(), Limits::default())), router(&server));
        let body = json!({"model": "pixels", "prompt": "dog", "n": 5, "seed": 2, "steps": 4});
        let (one, two) =
            (done(&one, "/v1/images/generations", &body).await, done(&two, "/v1/images/generations", &body).await);
        assert!(one["data"].as_array().unwrap().len() == 5 && one["data"] == two["data"], "{two}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_broken_replica_is_named_and_the_server_stays_healthy() {
        let server = server_of_replicas(named(vec![model(&partition()), broken_model()]), Limits::default());
        let app = router(&server);
        assert_eq!(send(&app, get("/health")).await, (StatusCode::OK, json!({"status": "ok"})));
        let both = json!({"prompt": "w1", "max_tokens": 3, "n": 2});
        let (status, answer) = send(&app, post("/v1/completions", &both)).await;
        assert!(status == 500 && answer["error"]["code"] == "device_error", "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("replica 1 on flex-1"), "{answer}");
        let broken = json!([{"model": "tiny", "replica": 1, "device": "flex-1", "state": "failing"}]);
        let health = send(&app, get("/health")).await;
        assert_eq!(health, (StatusCode::OK, json!({"status": "ok", "broken": broken})));
        // It gets nothing more.
        for _ in 0..5 {
            done(&app, "/v1/completions", &both).await;
        }
        let metrics = until(&app, |metrics| sum(metrics, "pgm_samples_in_flight") == 0.0).await;
        for line in [
            "pgm_replica_up{model=\"tiny\",replica=\"0\"} 1",
            "pgm_replica_up{model=\"tiny\",replica=\"1\"} 0",
            "pgm_device_errors_total{model=\"tiny\",replica=\"1\"} 1",
            "pgm_device_failed_at_seconds{model=\"tiny\",replica=\"0\"} 0",
        ] {
            assert!(metrics.lines().any(|seen| seen == line), "{line} is not in\n{metrics}");
        }
        // Without a replica that works the server is ill.
        let app = router(&server_of_replicas(named(vec![broken_model(), broken_model()]), Limits::default()));
        for _ in 0..2 {
            let (status, _) = send(&app, post("/v1/completions", &json!({"prompt": "w1", "max_tokens": 3}))).await;
            assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        }
        let (status, health) = send(&app, get("/health")).await;
        assert!(status == StatusCode::SERVICE_UNAVAILABLE && health["status"] == "failing", "{health}");
        assert_eq!(health["broken"].as_array().unwrap().len(), 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_queue_has_the_rows_of_each_replica_and_is_bounded() {
        let app = two(Limits { max_batch: 2, queue: 1, ..Limits::default() });
        let client = |_| {
            let (app, request) = (app.clone(), post("/v1/completions", &endless()));
            tokio::spawn(async move { text(app.oneshot(request).await.unwrap()).await })
        };
        // Two rows for each replica, and one that waits.
        let clients: Vec<_> = (0..5).map(client).collect();
        until(&app, |metrics| sum(metrics, "pgm_samples_waiting") == 1.0).await;
        let (status, _) = send(&app, post("/v1/completions", &json!({"prompt": "w1"}))).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
        clients.iter().for_each(tokio::task::JoinHandle::abort);
        until(&app, |metrics| sum(metrics, "pgm_samples_in_flight") == 0.0).await;
        done(&app, "/v1/completions", &json!({"prompt": "w1", "max_tokens": 2, "n": 3})).await;
    }
}
