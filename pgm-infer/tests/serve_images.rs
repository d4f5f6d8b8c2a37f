//! The server's pictures, in this process.
#![cfg(all(feature = "flex", feature = "server"))]

use std::ops::ControlFlow;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pgm_infer::engine::{EngineOptions, ImageEngine, ImageTask};
use pgm_infer::sample::order::{CandidateLimit, Confidence};
use pgm_infer::sample::{Curve, Refresh};
use pgm_infer::serve::{Limits, Server, router};
use pgm_infer::settings::ImageOverrides;
use pgm_infer::{GenerationConfig, ImageModel, OrderKind, Picture, SampleSettings, SamplingPath, Schedule};
use pgm_model::ImageConfig;
use serde_json::{Value, json};
use tower::ServiceExt;

mod common;
use common::http::{ENDLESS, done, events, get, image_server, post, send, text};
use common::image_models::{COLUMNS, ROWS, config, config_of, model, model_of};

const DRAW: &str = "/v1/images/generations";

fn app() -> Router {
    router(&image_server(model(2, None), Limits::default()))
}

fn png(image: &Value) -> Vec<u8> {
    STANDARD.decode(image["b64_json"].as_str().unwrap()).unwrap()
}

fn settings(model: &ImageModel, overrides: ImageOverrides) -> SampleSettings {
    overrides.settings(model).unwrap()
}

// The PNG of a picture that the library draws.
fn drawn(model: &ImageModel, class: Option<usize>, seed: u64, settings: &SampleSettings) -> Vec<u8> {
    let request = model.request(class, seed);
    let go_on = &mut |_: &pgm_infer::StepView<'_>| ControlFlow::Continue(());
    let output = model.generate(&[request], settings, SamplingPath::Clean, go_on).unwrap();
    model.pictures(&[&output.rows[0]]).unwrap()[0].png().unwrap()
}

#[tokio::test]
async fn the_same_seed_draws_the_librarys_picture() {
    let (app, model) = (app(), model(2, None));
    let body = json!({"prompt": "dog", "n": 3, "seed": 7, "steps": 5, "cfg": 1.5, "cfg_schedule": "linear"});
    let answer = done(&app, DRAW, &body).await;
    let overrides = ImageOverrides {
        steps: Some(5),
        cfg: Some(1.5),
        cfg_schedule: Some(pgm_infer::sample::GuidanceSchedule::Linear),
        has_class: true,
        ..ImageOverrides::default()
    };
    let guided = settings(&model, overrides);
    let data = answer["data"].as_array().unwrap();
    assert_eq!(data.len(), 3);
    for (image, seed) in data.iter().zip(7..) {
        assert!(image["class"] == 1 && image["class_name"] == "dog" && image["steps"] == 5 && image["seed"] == seed);
        assert_eq!(png(image), drawn(&model, Some(1), seed, &guided));
    }
    assert_eq!(
        (&answer["size"], &answer["output_format"], &answer["model"]),
        (&json!("5x6"), &json!("png"), &json!("pixels"))
    );
    let n_cells = ROWS * COLUMNS;
    assert_eq!((&answer["usage"]["output_tokens"], &answer["usage"]["input_tokens"]), (&json!(3 * n_cells), &json!(0)));
    assert_eq!(done(&app, DRAW, &body).await["data"], answer["data"]);

    // No class, the defaults of pictures; a seed of the server's that can be sent again.
    let free = done(&app, DRAW, &json!({})).await;
    assert!(
        free["data"][0]["class"].is_null() && free["data"][0]["steps"] == 30,
        "a step for each cell at most: {free}"
    );
    let seed = free["data"][0]["seed"].as_u64().unwrap();
    let defaults = SampleSettings::for_images(&GenerationConfig::default());
    assert_eq!(png(&free["data"][0]), drawn(&model, None, seed, &defaults));

    // Every field of the command.
    let plain = ImageOverrides { steps: Some(6), ..ImageOverrides::default() };
    let noisy = Confidence { limit: CandidateLimit::Some(9), noise: 2.0 };
    for (fields, overrides) in [
        (
            json!({"order": "confidence", "noise": 2, "candidates": 9, "schedule": "cosine"}),
            ImageOverrides { order: Some(OrderKind::Confidence(noisy)), curve: Some(Curve::Cosine), ..plain },
        ),
        (
            json!({"order": "halton", "roll": true, "temperature": 2, "top_k": 3}),
            ImageOverrides {
                order: Some(OrderKind::Halton { roll: true }),
                temperature: Some(2.0),
                top_k: Some(3),
                ..plain
            },
        ),
        (
            json!({"order": "remask", "remask_rate": 0.2, "schedule": "binomial"}),
            ImageOverrides {
                order: Some(OrderKind::Remask { rate: 0.2 }),
                schedule: Some(Schedule::Binomial),
                ..plain
            },
        ),
        (
            json!({"as_published": true, "temp_warmup": 2, "temperature": 0.8}),
            ImageOverrides { as_published: true, temp_warmup: Some(2), temperature: Some(0.8), ..plain },
        ),
        (
            json!({"as_published": true, "order": "confidence", "noise": 2, "candidates": 9}),
            ImageOverrides { as_published: true, order: Some(OrderKind::Confidence(noisy)), ..plain },
        ),
        (json!({"refresh": 3.0}), ImageOverrides { refresh: Some(Refresh::Every(3)), ..plain }),
        (
            json!({"refresh": "inf", "order": "remask", "remask_rate": 0.3}),
            ImageOverrides { refresh: Some(Refresh::Never), order: Some(OrderKind::Remask { rate: 0.3 }), ..plain },
        ),
        (
            json!({"order": "uniform", "top_p": 0.9, "schedule": "uniform"}),
            ImageOverrides {
                order: Some(OrderKind::Uniform),
                schedule: Some(Schedule::Uniform),
                top_p: Some(0.9),
                ..plain
            },
        ),
    ] {
        let settings = settings(&model, overrides);
        let mut body = fields.clone();
        (body["steps"], body["seed"], body["n"]) = (json!(6), json!(3), json!(4));
        let answer = done(&app, DRAW, &body).await;
        for (image, seed) in answer["data"].as_array().unwrap().iter().zip(3..) {
            assert_eq!(png(image), drawn(&model, None, seed, &settings), "{fields}");
        }
    }
}

#[tokio::test]
async fn a_list_of_classes_is_one_picture_of_each() {
    let app = app();
    let body = json!({"class": ["owl", 0, "1"], "seed": 5, "steps": 4});
    let answer = done(&app, DRAW, &body).await;
    let classes: Vec<&Value> = answer["data"].as_array().unwrap().iter().map(|image| &image["class"]).collect();
    assert_eq!(classes, [2, 0, 1]);
    let second = done(&app, DRAW, &json!({"class": 0, "prompt": "owl", "seed": 6, "steps": 4})).await;
    assert_eq!(
        second["data"][0], answer["data"][1],
        "class counts before prompt, and no picture depends on the others"
    );
}

#[tokio::test]
async fn a_stream_has_unfinished_pictures_before_each_finished_one() {
    let app = app();
    let mut body = json!({"prompt": "cat", "n": 2, "seed": 1, "steps": 8});
    let whole = done(&app, DRAW, &body).await;
    body["stream"] = json!(true);
    for n_partial in [0, 1, 3, 100] {
        body["partial_images"] = json!(n_partial);
        let events = events(&app, DRAW, &body).await;
        for index in 0..2 {
            let own: Vec<(&str, Value)> = events
                .iter()
                .map(|(name, data)| (name.as_deref().unwrap(), serde_json::from_str::<Value>(data).unwrap()))
                .filter(|(_, data)| data["index"] == index)
                .collect();
            let expected = n_partial.min(7);
            assert_eq!(own.len(), expected + 1, "{n_partial}");
            let mut open = usize::MAX;
            for (place, (name, data)) in own.iter().enumerate() {
                assert_eq!(data["type"], *name);
                assert_eq!((&data["size"], &data["output_format"]), (&json!("5x6"), &json!("png")));
                assert!(data["created_at"].as_u64().unwrap() > 0);
                let picture = Picture::from_bytes(&png(data), 1).unwrap();
                if place == expected {
                    assert_eq!(
                        (*name, &data["usage"]["total_tokens"]),
                        ("image_generation.completed", &json!(ROWS * COLUMNS))
                    );
                    assert_eq!(data["b64_json"], whole["data"][index]["b64_json"]);
                    assert_eq!((&data["seed"], &data["class_name"]), (&json!(1 + index), &json!("cat")));
                } else {
                    assert_eq!(
                        (*name, &data["partial_image_index"]),
                        ("image_generation.partial_image", &json!(place))
                    );
                    // Open cells are grey; no level is.
                    let still = picture.pixels().iter().filter(|&&value| value == 112).count();
                    assert!(still > 0 && still < open, "{still} of {open}");
                    open = still;
                }
            }
        }
    }
}

#[tokio::test]
async fn requests_share_evaluations_and_each_ones_pictures_are_its_own() {
    let app = app();
    let bodies: Vec<Value> = (0..5)
        .map(|index| json!({"class": index % 3, "seed": index, "steps": 12 + index, "cfg": index, "n": 2}))
        .collect();
    let mut alone = Vec::new();
    for body in &bodies {
        alone.push(done(&app, DRAW, body).await["data"].clone());
    }
    let together: Vec<_> = bodies
        .iter()
        .map(|body| {
            let (app, body) = (app.clone(), body.clone());
            tokio::spawn(async move { done(&app, DRAW, &body).await["data"].clone() })
        })
        .collect();
    for (alone, together) in alone.iter().zip(together) {
        assert_eq!(*alone, together.await.unwrap());
    }
    let metrics = text(app.oneshot(get("/metrics")).await.unwrap()).await;
    for line in
        ["pgm_samples_total{model=\"pixels\",finish=\"complete\"} 20", "pgm_samples_in_flight{model=\"pixels\"} 0"]
    {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let shared = |most: usize| {
        let rows = format!("pgm_batch_rows_bucket{{le=\"{most}.0\",model=\"pixels\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&rows)).map(|count| count.parse::<usize>().unwrap())
    };
    assert!(shared(2) < shared(16), "some steps had rows of several requests:\n{metrics}");
}

#[tokio::test]
async fn what_cannot_be_drawn_is_one_sentence() {
    let app = app();
    for (body, field, says) in [
        (json!({"prompt": "a wolf"}), "prompt", "\"a wolf\" does not exist; the classes are cat, dog, owl"),
        (json!({"class": "wolf"}), "class", "cat, dog, owl"),
        (json!({"class": 3}), "class", "class \"3\" does not exist"),
        (json!({"class": -1}), "class", "class must be a name"),
        (json!({"class": ["cat", 9]}), "class", "does not exist"),
        (json!({"class": ["cat", "dog"], "n": 3}), "n", "leave n out"),
        (json!({"n": 0}), "n", "1 to 64"),
        (json!({"n": 65}), "n", "1 to 64"),
        (json!({"size": "256x256"}), "size", "5x6"),
        (json!({"size": "large"}), "size", "width and height like 5x6"),
        (json!({"response_format": "url"}), "response_format", "b64_json"),
        (json!({"output_format": "jpeg"}), "output_format", "png"),
        (json!({"class": []}), "class", "class"),
        (json!({"class": 0, "cfg": 1e39}), "cfg", "between 0 and 1000"),
        (json!({"cfg": 2}), "cfg", "no class to count more; give class"),
        (json!({"cfg_schedule": "linear", "class": 0}), "cfg_schedule", "give cfg"),
        (json!({"cfg_schedule": "square", "cfg": 1, "class": 0}), "cfg_schedule", "constant, linear"),
        (json!({"schedule": "spiral"}), "schedule", "arccos"),
        (json!({"order": "spiral"}), "order", "halton"),
        (json!({"noise": 1}), "noise", "belongs to order confidence"),
        (json!({"order": "uniform", "roll": true}), "roll", "belongs to order halton"),
        (json!({"steps": 0}), "steps", "at least 1"),
        (json!({"temp_warmup": 1}), "temp_warmup", "belongs to as_published"),
        (json!({"as_published": true, "order": "uniform"}), "order", "halton or confidence"),
        (json!({"steps": ENDLESS + 1}), "steps", "between 1 and"),
        (json!({"seed": -2}), "seed", "between 0"),
        (json!({"temperature": 9}), "temperature", "between 0 and 2"),
        (json!({"refresh": 0}), "refresh", "from 1 to 65536, or \"inf\""),
        (json!({"partial_images": 2}), "partial_images", "stream"),
        (json!({"template": "w1"}), "template", "unknown"),
        (json!({"model": "tiny"}), "model", "the model tiny writes text"),
    ] {
        let (status, answer) = send(&app, post(DRAW, &body)).await;
        let error = &answer["error"];
        let message = error["message"].as_str().unwrap();
        assert!(
            status == StatusCode::BAD_REQUEST && error["param"] == field && message.contains(says),
            "{body}: {answer}"
        );
        assert!(!message.contains("--"), "{message}");
    }
    let (status, answer) = send(&app, post(DRAW, &json!({"model": "other"}))).await;
    assert!(status == StatusCode::NOT_FOUND && answer["error"]["param"] == "model", "{answer}");
    let long = json!({"prompt": "wolf ".repeat(10_000)});
    let (status, answer) = send(&app, post(DRAW, &long)).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(
        status == StatusCode::BAD_REQUEST && message.len() < 1000 && message.contains("cat, dog, owl"),
        "{message}"
    );
}

#[tokio::test]
async fn routes_of_text_refuse_a_model_of_pictures_and_take_the_first_of_their_own() {
    let app = app();
    for (route, body) in [
        ("/v1/completions", json!({"prompt": "w1", "max_tokens": 2})),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "w1"}]})),
        ("/infill", json!({"template": "w1 {2}"})),
        ("/score", json!({"candidates": ["w1"]})),
        ("/tokenize", json!({"content": "w1"})),
        ("/detokenize", json!({"tokens": [1]})),
    ] {
        let mut of_pictures = body.clone();
        of_pictures["model"] = json!("pixels");
        let (status, answer) = send(&app, post(route, &of_pictures)).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(status == StatusCode::BAD_REQUEST && answer["error"]["param"] == "model", "{route}: {answer}");
        assert!(message.contains("the model pixels draws pictures") && message.contains("ask for tiny"), "{message}");
    }
    done(&app, "/v1/completions", &json!({"prompt": "w1", "max_tokens": 2})).await;
    done(&app, DRAW, &json!({"steps": 2})).await;

    let (_, models) = send(&app, get("/v1/models")).await;
    let (words, pixels) = (&models["data"][0], &models["data"][1]);
    assert!(words["grid"].is_null() && words["context_length"] == 24, "{words}");
    for (field, value) in [
        ("id", json!("pixels")),
        ("kind", json!("partition")),
        ("classes", json!(["cat", "dog", "owl"])),
        ("n_classes", json!(3)),
        ("grid", json!([6, 5])),
        ("size", json!([5, 6])),
        ("channels", json!(1)),
    ] {
        assert_eq!(pixels[field], value, "{pixels}");
    }
    assert_eq!((&pixels["defaults"]["steps"], &pixels["defaults"]["order"]), (&json!(32), &json!("halton")));
    assert_eq!(send(&app, get("/v1/models/pixels")).await.1, *pixels);

    // A server of pictures alone.
    let server = Server::new(&["pixels".into()], Limits::default(), &[]);
    server.add_images("pixels", ImageEngine::new(model(0, None), &EngineOptions::default()).unwrap());
    let app = router(&server);
    assert_eq!(send(&app, get("/health")).await.0, StatusCode::OK);
    for request in [post("/v1/completions", &json!({"prompt": "w1"})), get("/tokenizer_info")] {
        let (status, answer) = send(&app, request).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(
            status == StatusCode::BAD_REQUEST && message.contains("each model of this server draws pictures"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_model_that_keeps_nothing_refuses_refresh() {
    let mask_git = model_of(config(1).masked_baseline(), None);
    let app = router(&image_server(mask_git, Limits::default()));
    done(&app, DRAW, &json!({"steps": 2, "class": "cat"})).await;
    for refresh in [json!(8), json!("inf"), json!(1)] {
        let (status, answer) = send(&app, post(DRAW, &json!({"refresh": refresh, "class": "cat"}))).await;
        let error = &answer["error"];
        assert!(status == StatusCode::BAD_REQUEST && error["param"] == "refresh", "{answer}");
        assert!(error["message"].as_str().unwrap().contains("only a partition model keeps what it has"), "{answer}");
    }
}

#[tokio::test]
async fn a_model_without_classes_draws_without_and_says_so() {
    let config = config_of(ImageConfig { registers: 2, ..ImageConfig::new(0, [ROWS, COLUMNS]) });
    let app = router(&image_server(model_of(config, None), Limits::default()));
    let answer = done(&app, DRAW, &json!({"steps": 3})).await;
    assert!(answer["data"][0]["class"].is_null());
    for class in [json!("cat"), json!(0)] {
        let (status, answer) = send(&app, post(DRAW, &json!({"class": class}))).await;
        assert!(status == StatusCode::BAD_REQUEST, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("the model has no classes"), "{answer}");
    }
}

async fn until(app: &Router, line: &str) {
    for _ in 0..500 {
        if text(app.clone().oneshot(get("/metrics")).await.unwrap()).await.lines().any(|seen| seen == line) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{line} never appears");
}

// A picture that is never finished: the order opens every cell again.
fn endless() -> Value {
    json!({"steps": ENDLESS, "order": "remask", "remask_rate": 1.0, "schedule": "uniform"})
}

#[tokio::test]
async fn the_pixels_of_a_request_are_bounded() {
    // 5 x 6 pixels each, and four of the largest pictures in all.
    let app = router(&image_server(model(0, None), Limits { max_pixels: 30, ..Limits::default() }));
    done(&app, DRAW, &json!({"n": 4, "steps": 1})).await;
    let (status, answer) = send(&app, post(DRAW, &json!({"n": 5, "steps": 1}))).await;
    let error = &answer["error"];
    assert!(status == StatusCode::BAD_REQUEST && error["param"] == "n", "{answer}");
    assert!(error["message"].as_str().unwrap().contains("more than 120 pixels"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_a_client_that_leaves_frees_its_places() {
    for stream in [false, true] {
        let app = router(&image_server(model(0, None), Limits { max_batch: 1, queue: 1, ..Limits::default() }));
        let mut body = endless();
        (body["n"], body["stream"]) = (json!(2), json!(stream));
        let client = tokio::spawn({
            let (app, request) = (app.clone(), post(DRAW, &body));
            async move { text(app.oneshot(request).await.unwrap()).await }
        });
        until(&app, "pgm_samples_waiting{model=\"pixels\"} 1").await;
        let response = app.clone().oneshot(post(DRAW, &json!({"temperature": -1}))).await.unwrap();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS, "before the body is checked");
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        client.abort();
        until(&app, "pgm_samples_in_flight{model=\"pixels\"} 0").await;
        until(&app, "pgm_samples_total{model=\"pixels\",finish=\"cancelled\"} 2").await;
        done(&app, DRAW, &json!({"steps": 2})).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_takes_too_long_ends_with_the_error_timeout() {
    let limits = Limits { timeout: Duration::from_millis(100), ..Limits::default() };
    let app = router(&image_server(model(0, None), limits));
    let (status, answer) = send(&app, post(DRAW, &endless())).await;
    assert!(status == 504 && answer["error"]["code"] == "timeout", "{answer}");
    let mut body = endless();
    body["stream"] = json!(true);
    let events = events(&app, DRAW, &body).await;
    assert!(events.last().unwrap().1.contains("\"timeout\""), "{:?}", events.last());
}

#[test]
fn an_engine_of_pictures_checks_its_rows() {
    let engine = ImageEngine::new(model(2, None), &EngineOptions::default()).unwrap();
    let settings = SampleSettings { steps: 3, ..SampleSettings::for_images(&GenerationConfig::default()) };
    let model = engine.model();
    let rows = vec![model.request(Some(1), 4), model.request_around(None, 5, [(3, 1)].into_iter())];
    let outputs = engine.generate(ImageTask::new(rows.clone(), settings), &mut |_| ControlFlow::Continue(())).unwrap();
    for (row, output) in rows.iter().zip(&outputs) {
        let go_on = &mut |_: &pgm_infer::StepView<'_>| ControlFlow::Continue(());
        let alone = model.generate(std::slice::from_ref(row), &settings, SamplingPath::Clean, go_on).unwrap();
        assert_eq!((output.sampled.tokens.clone(), output.text.as_str()), (alone.rows[0].tokens.clone(), ""));
    }
    let refused = |rows| engine.events(ImageTask::new(rows, settings)).unwrap_err().to_string();
    assert!(refused(Vec::new()).contains("at least 1"));
    assert!(refused(vec![model.request(Some(3), 1)]).contains("class 3 does not exist"));
    assert!(refused(vec![model.request_around(None, 1, [(0, 4)].into_iter())]).contains("one of 4 tokens"));
}
