//! Edits of pictures by the server, in this process.
#![cfg(all(feature = "flex", feature = "server"))]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use pgm_infer::picture::{Edit, EditedPicture, PixelBox, Region};
use pgm_infer::sample::Refresh;
use pgm_infer::serve::{Limits, router};
use pgm_infer::settings::ImageOverrides;
use pgm_infer::{ImageModel, Picture};
use serde_json::{Value, json};
use tower::ServiceExt;

mod common;
use common::http::{ENDLESS, done, events, get, image_server, post, send, text};
use common::image_models::{Blocks, COLUMNS, ROWS, model, striped};

const EDIT: &str = "/v1/images/edits";
// Width and height of the pictures of the model with a codec.
const WIDTH: usize = 2 * COLUMNS;
const HEIGHT: usize = 2 * ROWS;

fn coded() -> ImageModel {
    model(2, Some(Arc::new(Blocks)))
}

fn app() -> Router {
    router(&image_server(coded(), Limits::default()))
}

fn code(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn striped_png(width: usize, height: usize) -> Vec<u8> {
    striped(width, height).png().unwrap()
}

fn picture(image: &Value) -> Picture {
    Picture::from_bytes(&STANDARD.decode(image["b64_json"].as_str().unwrap()).unwrap(), 1).unwrap()
}

// Grey and transparency.
fn transparent_png(width: usize, height: usize, is_clear: impl Fn(usize, usize) -> bool) -> Vec<u8> {
    let picture = striped(width, height);
    let pixel = |index: usize| {
        let (x, y) = (index % width, index / width);
        [picture.pixel(x, y)[0], if is_clear(x, y) { 0 } else { 255 }]
    };
    let pixels: Vec<u8> = (0..width * height).flat_map(pixel).collect();
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes).write_image(&pixels, width as u32, height as u32, ExtendedColorType::La8).unwrap();
    bytes
}

fn form(fields: &[(&str, &[u8])]) -> Request<Body> {
    let mut body = Vec::new();
    for (name, content) in fields {
        let file = if name.trim_end_matches("[]") == "image" || *name == "mask" { "; filename=\"a.png\"" } else { "" };
        body.extend(format!("--XyZ\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n").bytes());
        body.extend(*content);
        body.extend(b"\r\n");
    }
    body.extend(b"--XyZ--\r\n");
    let kind = "multipart/form-data; boundary=XyZ";
    Request::post(EDIT).header(header::CONTENT_TYPE, kind).body(Body::from(body)).unwrap()
}

// The same edit by the library.
fn edited(
    model: &ImageModel,
    edit: &Edit,
    class: Option<usize>,
    seed: u64,
    overrides: ImageOverrides,
) -> EditedPicture {
    let settings = overrides.settings(model).unwrap();
    model.edit(edit, class, seed, &settings, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

#[tokio::test]
async fn every_way_to_say_the_same_area_draws_the_librarys_edit() {
    let (app, model) = (app(), coded());
    let picture_ = striped(WIDTH, HEIGHT);
    let area = PixelBox { x: 4, y: 5, width: 2, height: 1 };
    let inside = |x: usize, y: usize| (4..6).contains(&x) && y == 5;
    let edit = Edit::inpaint(picture_.clone(), Region::of_box(&picture_, area).unwrap()).unwrap();
    let overrides = ImageOverrides { steps: Some(4), cfg: Some(1.0), has_class: true, ..ImageOverrides::default() };
    let expected: Vec<EditedPicture> = (3..5).map(|seed| edited(&model, &edit, Some(1), seed, overrides)).collect();

    let image = picture_.png().unwrap();
    let mut white = Picture::filled(WIDTH, HEIGHT, &[0]);
    white.paste(&Picture::filled(2, 1, &[255]), 4, 5);
    let white = white.png().unwrap();
    let clear = transparent_png(WIDTH, HEIGHT, inside);
    let own = |fields: Value| {
        let mut body = json!({"class": "dog", "n": 2, "seed": 3, "steps": 4, "cfg": 1});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        post(EDIT, &body)
    };
    let settings: [(&str, &[u8]); 5] =
        [("prompt", b"dog"), ("n", b"2"), ("seed", b"3"), ("steps", b"4"), ("cfg", b"1")];
    let with = |fields: &[(&str, &[u8])]| form(&[&settings[..], fields].concat());
    let requests = [
        own(json!({"image": code(&image), "box": [4, 5, 2, 1]})),
        own(json!({"image": format!("data:image/png;base64,{}", code(&image)), "mask": code(&white)})),
        own(json!({"image": code(&image), "mask": format!("data:image/png;base64,{}", code(&clear))})),
        own(json!({"image": code(&clear)})),
        with(&[("image", &image), ("mask", &clear), ("size", b"auto"), ("input_fidelity", b"high")]),
        with(&[("image[]", &image), ("mask", &white), ("size", b"10x12")]),
        with(&[("image", &image), ("box", b"4,5,2,1")]),
    ];
    for (index, request) in requests.into_iter().enumerate() {
        let (status, answer) = send(&app, request).await;
        assert_eq!(status, StatusCode::OK, "{index}: {answer}");
        for (image, expected) in answer["data"].as_array().unwrap().iter().zip(&expected) {
            assert!(picture(image) == expected.picture, "request {index}");
            assert_eq!((&image["class_name"], &image["steps"]), (&json!("dog"), &json!(4)));
        }
        // One cell and its eight neighbours are drawn, in each of both.
        let usage = &answer["usage"];
        assert_eq!((&usage["output_tokens"], &usage["input_tokens"]), (&json!(18), &json!(2 * (ROWS * COLUMNS - 9))));
        assert_eq!(answer["size"], "10x12");
    }
    // Codes that are known are never drawn again.
    for expected in &expected {
        for &(cell, token) in &expected.windows[0].given {
            assert_eq!(expected.windows[0].tokens[cell], token);
        }
    }
}

#[tokio::test]
async fn an_edit_may_keep_what_it_has_encoded() {
    let (app, model, given) = (app(), coded(), striped(2 * WIDTH, HEIGHT));
    let region = Region::of_box(&given, PixelBox { x: 2, y: 2, width: 14, height: 8 }).unwrap();
    let edit = Edit::inpaint(given.clone(), region).unwrap();
    let with = |seed, refresh| {
        let overrides = ImageOverrides { steps: Some(6), refresh, ..ImageOverrides::default() };
        edited(&model, &edit, None, seed, overrides).picture
    };
    let png = given.png().unwrap();
    for (text, refresh) in [("1", Refresh::Always), ("2", Refresh::Every(2)), ("inf", Refresh::Never)] {
        let fields: [(&str, &[u8]); 5] =
            [("image", &png), ("box", b"2,2,14,8"), ("seed", b"5"), ("steps", b"6"), ("refresh", text.as_bytes())];
        let (status, answer) = send(&app, form(&fields)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert!(picture(&answer["data"][0]) == with(5, Some(refresh)), "{text}");
    }
    assert!(with(5, None) == with(5, Some(Refresh::Always)));
    assert!((0..50).any(|seed| with(seed, None) != with(seed, Some(Refresh::Never))), "it is an approximation");
}

#[tokio::test]
async fn a_continued_picture_keeps_its_pixels_and_streams_its_windows() {
    let exact = model(0, None);
    let app = router(&image_server(model(0, None), Limits::default()));
    let given = striped(COLUMNS, ROWS);
    let edges = [3, 0, 8, 4];
    let edit = Edit::outpaint(&given, edges).unwrap();
    let overrides = ImageOverrides { steps: Some(3), ..ImageOverrides::default() };
    let expected = edited(&exact, &edit, None, 9, overrides);
    let n_windows = expected.windows.len();
    assert!(n_windows > 3);
    let mut body = json!({"image": code(&given.png().unwrap()), "outpaint": edges, "seed": 9, "steps": 3});
    let answer = done(&app, EDIT, &body).await;
    assert_eq!(picture(&answer["data"][0]), expected.picture);
    assert_eq!((&answer["size"], &answer["data"][0]["steps"]), (&json!("16x10"), &json!(expected.n_evaluations)));
    body["stream"] = json!(true);
    for n_partial in [0, 2, 1000] {
        body["partial_images"] = json!(n_partial);
        let events = events(&app, EDIT, &body).await;
        // Each step but the very last one shows something new.
        assert_eq!(events.len(), n_partial.min(expected.n_evaluations - 1) + 1);
        for (place, (name, data)) in events.iter().enumerate() {
            let data: Value = serde_json::from_str(data).unwrap();
            let shown = picture(&data);
            assert_eq!(shown.window(3, 0, COLUMNS, ROWS), given, "what is known is there from the start");
            if place + 1 == events.len() {
                assert_eq!(name.as_deref(), Some("image_edit.completed"));
                assert_eq!((shown, &data["type"]), (expected.picture.clone(), &json!("image_edit.completed")));
            } else {
                assert_eq!(name.as_deref(), Some("image_edit.partial_image"));
                assert_eq!((&data["partial_image_index"], &data["size"]), (&json!(place), &json!("16x10")));
                assert_eq!(data["n_steps"], 3 * n_windows);
            }
        }
    }
    // A picture that is larger than the model's, with a class for each result.
    let large = code(&striped_png(20, 18));
    let body = json!({"image": large, "box": [9, 9, 2, 2], "class": ["cat", "owl"], "steps": 2, "seed": 1});
    let answer = done(&app, EDIT, &body).await;
    for (image, class) in answer["data"].as_array().unwrap().iter().zip([0, 2]) {
        let mut restored = picture(image);
        restored.paste(&striped(20, 18).window(9, 9, 2, 2), 9, 9);
        assert!(image["class"] == class && restored == striped(20, 18));
    }
}

// A PNG of one colour whose header says so many pixels, with a correct checksum and the beginning of its data.
fn header_of(width: u32, height: u32) -> Vec<u8> {
    fn crc(bytes: &[u8]) -> [u8; 4] {
        let step = |crc: u32, byte: &u8| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        };
        (!bytes.iter().fold(u32::MAX, step)).to_be_bytes()
    }
    let chunk = |kind: &[u8], content: &[u8]| {
        let named = [kind, content].concat();
        [&(content.len() as u32).to_be_bytes()[..], &named, &crc(&named)].concat()
    };
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &header), &chunk(b"IDAT", b"\x78\x9c"), &chunk(b"IEND", b"")].concat()
}

#[tokio::test]
async fn what_cannot_be_edited_is_one_sentence() {
    let app = app();
    let image = code(&striped_png(WIDTH, HEIGHT));
    let broken = {
        let png = striped_png(WIDTH, HEIGHT);
        code(&png[..png.len() / 2])
    };
    let black = code(&Picture::filled(WIDTH, HEIGHT, &[0]).png().unwrap());
    let cases = [
        (json!({"box": [1, 1, 1, 1]}), "image", "image is missing"),
        (json!({"image": "not base64?"}), "image", "neither base64 nor a data URL"),
        (json!({"image": code(b"a text file")}), "image", "no PNG, JPEG or WebP"),
        (json!({"image": code(b"GIF89a\x01\0\x01\0\0\0\0;"), "box": [0, 0, 1, 1]}), "image", "no PNG, JPEG or WebP"),
        (json!({"image": broken}), "image", "truncated"),
        (
            json!({"image": code(&header_of(30_000, 30_000)), "box": [0, 0, 1, 1]}),
            "image",
            "30000 x 30000 pixels; it may have",
        ),
        (json!({"image": "https://example.org/a.png"}), "image", "fetches nothing"),
        (json!({"image": image}), "mask", "give mask, box or outpaint"),
        (
            json!({"image": image, "mask": code(&striped_png(WIDTH, 7))}),
            "mask",
            "10 x 7 pixels and the picture 10 x 12",
        ),
        (json!({"image": image, "mask": code(&header_of(30_000, 30_000))}), "mask", "they must be equal"),
        (json!({"image": image, "mask": black}), "mask", "marks nothing"),
        (json!({"image": image, "mask": image, "box": [0, 0, 1, 1]}), "mask", "one of mask, box and outpaint"),
        (json!({"image": image, "box": [9, 9, 5, 5]}), "box", "beyond the picture of 10 x 12"),
        (json!({"image": image, "box": [0, 0, 0, 5]}), "box", "no pixel"),
        (json!({"image": image, "box": [0, 0, 5]}), "box", "length 3"),
        (json!({"image": image, "box": [-1, 0, 5, 5]}), "box", "not negative"),
        (json!({"image": image, "outpaint": [0, 0, 0, 0]}), "outpaint", "adds nothing"),
        (json!({"image": image, "outpaint": [0, 0, 1_u64 << 40, 0]}), "outpaint", "it may have"),
        (json!({"image": image, "outpaint": [600, 0, 600, 0]}), "image", "more than 64 windows of the model's 10 x 12"),
        (json!({"image": code(&striped_png(6, 6)), "box": [0, 0, 1, 1]}), "image", "the model draws 10 x 12"),
        (json!({"image": image, "box": [0, 0, 1, 1], "size": "256x256"}), "size", "10x12"),
        (json!({"image": image, "box": [0, 0, 1, 1], "prompt": "emu"}), "prompt", "cat, dog, owl"),
        (json!({"image": image, "box": [0, 0, 1, 1], "n": 0}), "n", "1 to 64"),
        (json!({"image": image, "box": [0, 0, 1, 1], "response_format": "url"}), "response_format", "b64_json"),
        (json!({"image": image, "box": [0, 0, 1, 1], "model": "tiny"}), "model", "writes text"),
        (json!({"image": image, "box": [0, 0, 1, 1], "margin": 3}), "margin", "unknown"),
    ];
    for (body, field, says) in cases {
        let (status, answer) = send(&app, post(EDIT, &body)).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(status == StatusCode::BAD_REQUEST && answer["error"]["param"] == field, "{field} {says}: {answer}");
        assert!(message.contains(says) && !message.contains("--") && message.len() < 300, "{says}: {message}");
    }
    let png = striped_png(WIDTH, HEIGHT);
    let forms: [(&[(&str, &[u8])], Option<&str>, &str); 6] = [
        (&[("image", b"a text file"), ("box", b"0,0,1,1")], Some("image"), "no PNG"),
        (&[("prompt", b"cat")], Some("image"), "missing"),
        (&[("image", &png), ("image", &png)], Some("image"), "twice"),
        (&[("image", &png), ("n", b"many")], Some("n"), "not \"many\""),
        (&[("image", &png), ("prompt", b"\xff\xfe")], Some("prompt"), "UTF-8"),
        (&[("image", &png), ("mask", &header_of(10, 12))], Some("mask"), "truncated"),
    ];
    for (fields, field, says) in forms {
        let (status, answer) = send(&app, form(fields)).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(status == StatusCode::BAD_REQUEST && answer["error"]["param"].as_str() == field, "{says}: {answer}");
        assert!(message.contains(says), "{says}: {message}");
    }
    for (kind, body, expected) in [
        ("multipart/form-data; boundary=AbC", "--XyZ\r\n", 400),
        ("multipart/form-data", "x", 415),
        ("image/png", "x", 415),
        ("application/x-www-form-urlencoded", "image=x", 415),
        ("application/json", "{\"image\": ", 400),
    ] {
        let request = Request::post(EDIT).header(header::CONTENT_TYPE, kind).body(Body::from(body)).unwrap();
        let (status, answer) = send(&app, request).await;
        assert!(status == expected && answer["error"]["message"].is_string(), "{kind}: {answer}");
    }
}

#[tokio::test]
async fn large_bodies_are_taken_up_to_their_limit_and_other_routes_keep_theirs() {
    let limits = Limits { max_picture_body: 3 << 20, ..Limits::default() };
    let app = router(&image_server(coded(), limits));
    let png = striped_png(WIDTH, HEIGHT);
    // Bytes behind the end of a PNG are not looked at.
    let padded = |n: usize| [png.clone(), vec![0; n]].concat();
    let (status, answer) = send(&app, form(&[("image", &padded(2 << 20)), ("box", b"0,0,1,1"), ("steps", b"1")])).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let (status, answer) = send(&app, form(&[("image", &padded(3 << 20)), ("box", b"0,0,1,1")])).await;
    assert!(status == StatusCode::PAYLOAD_TOO_LARGE, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("3145728 bytes"), "{answer}");
    let long = json!({"prompt": "x".repeat(2 << 20)});
    let (status, answer) = send(&app, post("/v1/images/generations", &long)).await;
    assert!(status == StatusCode::PAYLOAD_TOO_LARGE, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("1048576 bytes"), "{answer}");
}

#[tokio::test]
async fn a_form_of_another_sites_page_is_refused() {
    let app = app();
    let png = striped_png(WIDTH, HEIGHT);
    let ask = |headers: &[(&'static str, &'static str)]| {
        let mut request = form(&[("image", &png), ("box", b"0,0,1,1"), ("steps", b"1")]);
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        request
    };
    for (headers, expected) in [
        (&[][..], 200),
        (&[("host", "localhost:8080"), ("origin", "http://localhost:8080")], 200),
        (&[("host", "localhost:8080"), ("origin", "http://example.org"), ("sec-fetch-site", "same-origin")], 200),
        (&[("host", "localhost:8080"), ("origin", "http://localhost:3000")], 403),
        (&[("host", "localhost:8080"), ("origin", "null")], 403),
        (&[("host", "localhost:8080"), ("sec-fetch-site", "cross-site")], 403),
    ] {
        let (status, answer) = send(&app, ask(headers)).await;
        assert_eq!(status, expected, "{headers:?}: {answer}");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_large_answer_holds_its_place_until_it_is_read() {
    let app = router(&image_server(coded(), Limits { max_batch: 1, queue: 1, ..Limits::default() }));
    // Noise, which a PNG cannot shorten.
    let noise = |index: usize| ((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8;
    let large = Picture::new(600, 600, 1, (0..600 * 600).map(noise).collect());
    let body = json!({"image": code(&large.png().unwrap()), "box": [0, 0, 2, 2], "steps": 1});
    let unread = app.clone().oneshot(post(EDIT, &body)).await.unwrap();
    assert_eq!(unread.status(), StatusCode::OK);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    until(&app, "pgm_samples_in_flight{model=\"pixels\"} 1").await;
    drop(unread);
    until(&app, "pgm_samples_in_flight{model=\"pixels\"} 0").await;
    let read = text(app.clone().oneshot(post(EDIT, &body)).await.unwrap()).await;
    let answer: Value = serde_json::from_str(&read).unwrap();
    assert_eq!(picture(&answer["data"][0]).width(), 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_the_places_of_its_edit() {
    let app = router(&image_server(coded(), Limits { max_batch: 1, queue: 1, ..Limits::default() }));
    let image = code(&striped_png(WIDTH, HEIGHT));
    for stream in [false, true] {
        let body = json!({
            "image": image, "box": [0, 0, 6, 6], "n": 2, "steps": ENDLESS, "order": "remask", "remask_rate": 1.0,
            "schedule": "uniform", "stream": stream,
        });
        let client = tokio::spawn({
            let (app, request) = (app.clone(), post(EDIT, &body));
            async move { text(app.oneshot(request).await.unwrap()).await }
        });
        until(&app, "pgm_samples_waiting{model=\"pixels\"} 1").await;
        assert_eq!(send(&app, post(EDIT, &json!({"image": 7}))).await.0, StatusCode::TOO_MANY_REQUESTS);
        client.abort();
        until(&app, "pgm_samples_in_flight{model=\"pixels\"} 0").await;
        done(&app, EDIT, &json!({"image": image, "box": [0, 0, 2, 2], "steps": 1})).await;
        // The engine drops its share of the place after the answer.
        until(&app, "pgm_samples_in_flight{model=\"pixels\"} 0").await;
    }
}
