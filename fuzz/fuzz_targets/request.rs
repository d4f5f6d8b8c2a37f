//! Feeds arbitrary bytes to the parsers of the server's request bodies. The first byte selects the route.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, unused_imports)]
#[path = "../../pgm-infer/src/serve/body/mod.rs"]
mod body;

use body::{
    BodyError, ChatBody, CompletionBody, EditBody, FormField, GenerationBody, InfillBody, PictureFields, RequestBody,
    ScoreBody, TokenizeBody,
};

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else { return };
    match choice % 8 {
        0 => match checked::<CompletionBody>(rest) {
            Ok(body) => {
                assert!(!body.prompts().unwrap().is_empty() && (body.max_tokens != Some(0) || body.echo == Some(true)));
                assert_eq!(body.prompts().unwrap().len(), body.n_prompts());
                check_common(&body.common);
            }
            Err(error) => assert!(!error.message.is_empty()),
        },
        1 => match checked::<ChatBody>(rest) {
            Ok(body) => {
                assert!(!body.messages().unwrap().is_empty() && body.max_tokens() != Some(0));
                check_common(&body.common);
            }
            Err(error) => assert!(!error.message.is_empty()),
        },
        2 => match checked::<ScoreBody>(rest) {
            Ok(body) => assert!(body.texts().len() == body.candidates().len() && body.draws() > 0),
            Err(error) => assert!(!error.message.is_empty()),
        },
        3 => match checked::<TokenizeBody>(rest) {
            Ok(body) => assert!(body.text().len() <= rest.len() * 3),
            Err(error) => assert!(!error.message.is_empty()),
        },
        4 => match checked::<GenerationBody>(rest) {
            Ok(body) => check_picture(&body.picture),
            Err(error) => assert!(!error.message.is_empty()),
        },
        5 => match checked::<EditBody>(rest) {
            Ok(body) => check_edit(&body),
            Err(error) => assert!(!error.message.is_empty()),
        },
        6 => match EditBody::from_form(form(rest)).and_then(|body| body.check().map(|()| body)) {
            Ok(body) => check_edit(&body),
            Err(error) => assert!(!error.message.is_empty()),
        },
        _ => match checked::<InfillBody>(rest) {
            Ok(body) => {
                let has_sides = body.input_prefix.is_some() || body.input_suffix.is_some() || body.prompt.is_some();
                assert!(body.template.is_some() != has_sides);
                check_common(&body.common);
            }
            Err(error) => assert!(!error.message.is_empty()),
        },
    }
});

// Names and contents in turn, between zeros; every third field is a file.
fn form(bytes: &[u8]) -> Vec<FormField> {
    let pieces: Vec<&[u8]> = bytes.split(|byte| *byte == 0).collect();
    let field = |(index, pair): (usize, &[&[u8]])| FormField {
        name: String::from_utf8_lossy(pair[0]).into_owned(),
        is_file: index % 3 == 2,
        content: pair.get(1).map_or_else(Vec::new, |content| content.to_vec()),
    };
    pieces.chunks(2).enumerate().map(field).collect()
}

fn checked<B: RequestBody>(bytes: &[u8]) -> Result<B, BodyError> {
    let body: B = body::parse(bytes)?;
    body.check()?;
    Ok(body)
}

// An accepted body is within its bounds.
fn check_common(common: &body::Common) {
    assert!(common.stops().unwrap().iter().all(|stop| !stop.is_empty()));
    assert!(common.seed().is_none_or(|seed| seed <= body::MAX_SEED));
    assert!(common.temperature.is_none_or(|temperature| (0.0..=2.0).contains(&temperature)));
}

fn check_picture(picture: &PictureFields) {
    assert!(picture.classes().is_ok());
    assert!(picture.seed().is_none_or(|seed| seed <= body::MAX_SEED));
    assert!(picture.n_partial() == 0 || picture.stream == Some(true));
}

fn check_edit(body: &EditBody) {
    check_picture(&body.picture);
    assert!(body.image().is_ok() && body.area().is_ok());
}
