//! Any bytes through the readers of the server's bodies; the first byte chooses the route.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../pgm-infer/src/serve/body.rs"]
mod body;

use body::{CompletionBody, InfillBody, BodyError};

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else { return };
    match choice % 2 {
        0 => match body::read::<CompletionBody>(rest) {
            Ok(body) => {
                assert!(!body.prompts().unwrap().is_empty() && body.max_tokens != Some(0));
                check(&body.common);
            }
            Err(wrong) => told(&wrong),
        },
        _ => match body::read::<InfillBody>(rest) {
            Ok(body) => {
                let in_two = body.input_prefix.is_some() || body.input_suffix.is_some() || body.prompt.is_some();
                assert!(body.template.is_some() != in_two);
                check(&body.common);
            }
            Err(wrong) => told(&wrong),
        },
    }
});

// What is taken is within its bounds.
fn check(common: &body::Common) {
    assert!(common.stops().unwrap().iter().all(|stop| !stop.is_empty()));
    assert!(common.seed().is_none_or(|seed| seed <= body::MAX_SEED));
    assert!(common.temperature.is_none_or(|temperature| (0.0..=2.0).contains(&temperature)));
}

// What is refused is refused in words.
fn told(wrong: &BodyError) {
    assert!(!wrong.message.is_empty());
}
