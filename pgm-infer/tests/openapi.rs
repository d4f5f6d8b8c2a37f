//! `/openapi.json` names every route, field, limit and status.
#![cfg(all(feature = "flex", feature = "server"))]

use std::collections::BTreeSet;

use pgm_infer::OrderKind;
use pgm_infer::sample::{Curve, GuidanceSchedule};
use pgm_infer::serve::{Limits, router};
use serde_json::{Value, json};

mod common;
use common::http::{app, done, get, image_server, post, send};
use common::image_models::model;

const GENERATE: &[&str] = &["200", "400", "401", "404", "408", "413", "415", "429", "500", "503", "504"];

const EDIT: &[&str] = &["200", "400", "401", "403", "404", "408", "413", "415", "429", "500", "503", "504"];

async fn document() -> Value {
    send(&app(), get("/openapi.json")).await.1
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn texts(value: &Value) -> BTreeSet<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

// The schema that a value refers to.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(path) => document.pointer(path.trim_start_matches('#')).unwrap_or_else(|| panic!("{path} is missing")),
        None => schema,
    }
}

#[tokio::test]
async fn every_route_has_its_statuses() {
    let routes: [(&str, &str, &[&str]); 14] = [
        ("/v1/completions", "post", GENERATE),
        ("/v1/chat/completions", "post", GENERATE),
        ("/infill", "post", GENERATE),
        ("/v1/images/generations", "post", GENERATE),
        ("/v1/images/edits", "post", EDIT),
        ("/score", "post", GENERATE),
        ("/tokenize", "post", GENERATE),
        ("/detokenize", "post", GENERATE),
        ("/tokenizer_info", "get", &["200", "400", "401", "404", "503"]),
        ("/v1/models", "get", &["200", "401"]),
        ("/v1/models/{id}", "get", &["200", "401", "404", "503"]),
        ("/health", "get", &["200", "503"]),
        ("/metrics", "get", &["200", "401"]),
        ("/version", "get", &["200"]),
    ];
    let document = document().await;
    assert_eq!(keys(&document["paths"]), routes.iter().map(|(route, ..)| *route).collect());
    for (route, method, statuses) in routes {
        let operation = &document["paths"][route][method];
        assert_eq!(keys(&operation["responses"]), statuses.iter().copied().collect(), "{route}");
        for (status, response) in operation["responses"].as_object().unwrap() {
            assert!(!response["description"].as_str().unwrap().is_empty(), "{route} {status}");
            let json = &response["content"]["application/json"]["schema"];
            let is_error = status != "200" && route != "/health";
            assert!(!is_error || json["$ref"] == "#/components/schemas/Error", "{route} {status}: {json}");
            resolved(&document, json);
        }
        assert!(operation["summary"].is_string() && operation["operationId"].is_string(), "{route}");
    }
    assert_eq!(document["components"]["securitySchemes"]["key"]["scheme"], "bearer");
    assert_eq!(
        keys(&document["paths"]["/infill"]["post"]["responses"]["200"]["content"]),
        ["application/json", "text/event-stream"].into()
    );
}

#[tokio::test]
async fn bodies_have_their_fields_and_limits() {
    let document = document().await;
    let common = [
        "candidates",
        "entropy_bound",
        "model",
        "order",
        "refresh",
        "remask_rate",
        "seed",
        "steps",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "top_k",
        "top_p",
    ];
    let completion = [
        "best_of",
        "echo",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "n",
        "presence_penalty",
        "prompt",
        "suffix",
        "user",
    ];
    // Those of llama.cpp without an effect are described as such.
    let properties = document["components"]["schemas"]["InfillRequest"]["properties"].as_object().unwrap();
    let is_llama =
        |field: &Value| field["description"].as_str().is_some_and(|text| text.starts_with("llama.cpp's own"));
    let llama: Vec<&str> =
        properties.iter().filter(|(_, field)| is_llama(field)).map(|(name, _)| name.as_str()).collect();
    for name in ["id_slot", "n_cmpl", "samplers", "cache_prompt", "input_extra", "t_max_predict_ms", "min_p"] {
        assert!(llama.contains(&name), "{name}");
    }
    let own = ["blank", "input_prefix", "input_suffix", "length", "n_predict", "prompt", "response_fields", "template"];
    let infill: Vec<&str> = own.into_iter().chain(llama).collect();
    let chat = [
        "add_generation_prompt",
        "chat_template",
        "chat_template_kwargs",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "n",
        "top_logprobs",
    ];
    let limits = Limits::default();
    for (name, route, own, required) in [
        ("CompletionRequest", "/v1/completions", &completion[..], Value::Null),
        ("InfillRequest", "/infill", &infill[..], Value::Null),
        ("ChatRequest", "/v1/chat/completions", &chat[..], json!(["messages"])),
    ] {
        let schema = &document["components"]["schemas"][name];
        let body = &document["paths"][route]["post"]["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(resolved(&document, body), schema);
        assert_eq!(keys(&schema["properties"]), common.iter().chain(own).copied().collect(), "{name}");
        let others = json!({"type": "null"});
        assert_eq!((&schema["additionalProperties"], &schema["required"]), (&others, &required), "{name}");
        let field = |name: &str| &schema["properties"][name];
        for name in keys(&schema["properties"]) {
            let described = resolved(&document, field(name)).get("description").or(field(name).get("oneOf"));
            assert!(described.is_some(), "{name}: {}", field(name));
        }
        let range = |name: &str| (field(name)["minimum"].as_f64(), field(name)["maximum"].as_f64());
        assert_eq!(range("steps"), (Some(1.0), Some(limits.max_steps as f64)));
        assert_eq!(range("temperature"), (Some(0.0), Some(2.0)));
        assert_eq!(range("top_k"), (Some(0.0), Some(1e6)));
        assert_eq!(range("seed"), (Some(-1.0), Some(((1_u64 << 53) - 1) as f64)));
        assert_eq!(range("candidates"), (Some(1.0), Some(1e6)));
        assert_eq!(range("remask_rate"), (Some(0.0), Some(1.0)));
        assert_eq!(range("entropy_bound").0, Some(0.0));
        assert_eq!((field("top_p")["exclusiveMinimum"].as_f64(), range("top_p").1), (Some(0.0), Some(1.0)));
        let stop = field("stop").to_string();
        assert!(
            stop.contains("\"maxItems\":16") && stop.contains("\"minLength\":1") && stop.contains("null"),
            "{stop}"
        );
        let orders: Vec<&str> = field("order")["enum"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(orders, OrderKind::NAMES);
    }
    let field = |body: &str, name: &str| document["components"]["schemas"][body]["properties"][name].clone();
    for (body, name, minimum, maximum) in [
        ("CompletionRequest", "n", 1, limits.max_samples as u64),
        ("CompletionRequest", "best_of", 1, limits.max_samples as u64),
        ("CompletionRequest", "logprobs", 0, 5),
        ("CompletionRequest", "max_tokens", 0, 1 << 24),
        ("ChatRequest", "max_tokens", 1, 1 << 24),
        ("ChatRequest", "max_completion_tokens", 1, 1 << 24),
        ("ChatRequest", "top_logprobs", 0, 20),
        ("ScoreRequest", "draws", 1, 4096),
        ("CompletionRequest", "presence_penalty", 0, 0),
        ("CompletionRequest", "frequency_penalty", 0, 0),
        ("InfillRequest", "blank", 1, 1 << 24),
        ("InfillRequest", "length", 1, 1 << 24),
    ] {
        let field = field(body, name);
        let range = (field["minimum"].as_f64(), field["maximum"].as_f64());
        assert_eq!(range, (Some(minimum as f64), Some(maximum as f64)), "{name}: {field}");
    }
    let n_predict = field("InfillRequest", "n_predict");
    let most = ((1_u64 << 53) - 1) as f64;
    assert_eq!((n_predict["minimum"].as_f64(), n_predict["maximum"].as_f64()), (Some(-most), Some(most)));
    for (body, fields) in [
        (
            "ScoreRequest",
            &["candidates", "context", "draws", "model", "one_pass", "reduction", "seed", "separator"][..],
        ),
        (
            "TokenizeRequest",
            &[
                "add_special",
                "add_special_tokens",
                "content",
                "model",
                "parse_special",
                "prompt",
                "return_token_strs",
                "with_pieces",
            ],
        ),
        ("DetokenizeRequest", &["model", "tokens"]),
    ] {
        let schema = &document["components"]["schemas"][body];
        assert_eq!(keys(&schema["properties"]), fields.iter().copied().collect(), "{body}");
        assert_eq!(schema["additionalProperties"], json!({"type": "null"}), "{body}");
    }
    assert_eq!(field("CompletionRequest", "logit_bias")["maxProperties"], 0);
    let prompt = field("CompletionRequest", "prompt");
    assert_eq!(prompt["anyOf"].as_array().unwrap().len(), 5, "{prompt}");
    let options = &document["components"]["schemas"]["StreamOptions"];
    assert_eq!(keys(&options["properties"]), ["denoise", "include_obfuscation", "include_usage"].into());
    assert_eq!(options["additionalProperties"], false);
}

// A value has the fields that its schema requires, and no others.
fn check(document: &Value, schema: &Value, value: &Value, path: &str) {
    let mut schema = resolved(document, schema);
    // One of several kinds: the one with these fields.
    if let Some(kinds) = schema["oneOf"].as_array().filter(|_| value.is_object()) {
        let fits = |kind: &&Value| keys(&resolved(document, kind)["properties"]) == keys(value);
        schema = resolved(document, kinds.iter().find(fits).unwrap_or_else(|| panic!("{path}: {value}")));
    }
    match value {
        Value::Object(fields) if schema["properties"].is_object() => {
            assert_eq!(keys(value), texts(&schema["required"]), "{path}");
            assert_eq!(keys(value), keys(&schema["properties"]), "{path}");
            for (name, value) in fields {
                check(document, &schema["properties"][name], value, &format!("{path}.{name}"));
            }
        }
        Value::Array(items) => items.iter().for_each(|item| check(document, &schema["items"], item, path)),
        Value::String(text) if schema["enum"].is_array() => {
            assert!(texts(&schema["enum"]).contains(text.as_str()), "{path}: {text}");
        }
        _ => {}
    }
}

#[tokio::test]
async fn bodies_of_pictures_have_their_fields_and_limits() {
    let document = document().await;
    let fields = [
        "background",
        "candidates",
        "cfg",
        "cfg_schedule",
        "class",
        "entropy_bound",
        "input_fidelity",
        "model",
        "moderation",
        "n",
        "noise",
        "order",
        "output_compression",
        "output_format",
        "partial_images",
        "prompt",
        "quality",
        "refresh",
        "remask_rate",
        "response_format",
        "roll",
        "schedule",
        "seed",
        "size",
        "steps",
        "stream",
        "style",
        "temperature",
        "top_k",
        "top_p",
        "user",
    ];
    let edit = ["box", "image", "mask", "outpaint"];
    let (json, form) = ("application/json", "multipart/form-data");
    for (name, route, kind, own) in [
        ("ImageRequest", "/v1/images/generations", json, &["as_published", "temp_warmup"][..]),
        ("ImageEditRequest", "/v1/images/edits", json, &edit),
        ("ImageEditForm", "/v1/images/edits", form, &edit),
    ] {
        let schema = &document["components"]["schemas"][name];
        let body = &document["paths"][route]["post"]["requestBody"]["content"][kind]["schema"];
        assert_eq!(resolved(&document, body), schema, "{name}");
        assert_eq!(keys(&schema["properties"]), fields.iter().chain(own).copied().collect(), "{name}");
        assert_eq!(schema["additionalProperties"], json!({"type": "null"}), "{name}");
        for (name, field) in schema["properties"].as_object().unwrap() {
            assert!(field["description"].is_string(), "{name}: {field}");
        }
        let field = |name: &str| &schema["properties"][name];
        let range = |name: &str| (field(name)["minimum"].as_f64(), field(name)["maximum"].as_f64());
        let limits = Limits::default();
        assert_eq!(range("n"), (Some(1.0), Some(limits.max_samples as f64)));
        assert_eq!(range("steps"), (Some(1.0), Some(limits.max_steps as f64)));
        assert_eq!((range("cfg"), range("noise")), ((Some(0.0), Some(1000.0)), (Some(0.0), Some(1000.0))));
        let words = |name: &str| -> Vec<&str> {
            field(name)["enum"].as_array().unwrap().iter().filter_map(Value::as_str).collect()
        };
        assert_eq!(words("order"), OrderKind::NAMES);
        assert_eq!(words("cfg_schedule"), GuidanceSchedule::NAMES);
        assert_eq!(words("schedule"), [&Curve::NAMES[..], &["uniform", "binomial"]].concat());
        assert_eq!((words("response_format"), words("output_format")), (vec!["b64_json"], vec!["png"]));
        let required = if name == "ImageRequest" { Value::Null } else { json!(["image"]) };
        assert_eq!(schema["required"], required, "{name}");
    }
    let form = &document["components"]["schemas"]["ImageEditForm"]["properties"];
    assert_eq!((&form["image"]["format"], &form["mask"]["format"]), (&json!("binary"), &json!("binary")));
}

#[tokio::test]
async fn answers_have_exactly_the_required_fields() {
    let (app, document) = (app(), document().await);
    let completion = done(&app, "/v1/completions", &json!({"prompt": "w1", "max_tokens": 3, "logprobs": 2})).await;
    let infill = done(&app, "/infill", &json!({"template": "w1 {3}", "steps": 2})).await;
    let error = send(&app, get("/v1/models/other")).await.1;
    let pictures = router(&image_server(model(2, None), Limits::default()));
    let images = done(&pictures, "/v1/images/generations", &json!({"class": ["cat", "dog"], "steps": 2})).await;
    let no_class = done(&pictures, "/v1/images/generations", &json!({"steps": 2})).await;
    let score = json!({"context": "w1", "candidates": ["w2", "w3"], "draws": 2});
    let copies = [common::model(&common::partition()), common::broken_model()];
    let copies = copies.into_iter().map(|model| (model, "flex".to_string())).collect();
    let copies = router(&common::http::server_of_replicas(copies, Limits::default()));
    send(&copies, post("/v1/completions", &json!({"prompt": "w1", "n": 2}))).await;
    let broken = send(&copies, get("/health")).await.1;
    assert_eq!(broken["broken"][0]["replica"], 1);
    for (name, answer) in [
        ("Scores", done(&app, "/score", &score).await),
        ("Tokens", done(&app, "/tokenize", &json!({"content": "w1 w2"})).await),
        ("Detokenized", done(&app, "/detokenize", &json!({"tokens": [1, 2]})).await),
        ("TokenizerInfo", send(&app, get("/tokenizer_info")).await.1),
        ("Completion", completion),
        ("Infill", infill),
        ("Models", send(&pictures, get("/v1/models")).await.1),
        ("Model", send(&app, get("/v1/models/tiny")).await.1),
        ("Model", send(&pictures, get("/v1/models/pixels")).await.1),
        ("Images", images),
        ("Images", no_class),
        ("Health", send(&app, get("/health")).await.1),
        ("Health", broken),
        ("Version", send(&app, get("/version")).await.1),
        ("Error", error),
    ] {
        let schema = &document["components"]["schemas"][name];
        assert!(schema["required"].is_array() || schema["oneOf"].is_array(), "{name} has no schema");
        check(&document, schema, &answer, name);
    }
}
