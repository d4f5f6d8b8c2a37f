//! The server's routes for editors and chats.
#![cfg(all(feature = "flex", feature = "server"))]

use serde_json::{Value, json};

mod common;
use common::bytes;
use common::http::{app, app_of, done, events, post, send};

#[tokio::test]
async fn editors_bodies_are_answered() {
    let app = app_of(bytes(None));
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
    let app = app_of(bytes(None));
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

const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('no ' + \
                        m.role) }}{% endif %}{{ m.role.upper() }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}A:{% endif %}";

#[tokio::test]
async fn a_chat_follows_the_models_template() {
    let app = app_of(bytes(Some(TEMPLATE)));
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
    let chat = app_of(bytes(Some(TEMPLATE)));
    let plain = app_of(bytes(None));
    let broken = app_of(bytes(Some("{% for %}")));
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
