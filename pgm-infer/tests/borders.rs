//! Text beside a blank: the given text comes back byte for byte, and the tokens at a blank's borders agree with it.
#![cfg(feature = "flex")]

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use pgm_infer::sample::BorderPart;
use pgm_infer::text::template::{Part, parse};
use pgm_infer::{SampleSettings, SamplingPath, TextModel};
use proptest::prelude::*;

mod common;
use common::text_models::{LENGTH, bpe, bytes, causal_bpe, llama, masked_bpe, unigram, word_piece};

// Samples a template; its text, which must have the given texts at both ends.
fn check(name: &str, model: &TextModel, parts: &[Part], seed: u64) {
    let row = model.row(parts, None, seed).unwrap();
    let settings = SampleSettings { steps: 3, ..SampleSettings::default() };
    let mut watch = |_: &pgm_infer::StepView<'_>| ControlFlow::Continue(());
    let sampled =
        model.generate(std::slice::from_ref(&row.request), &settings, SamplingPath::Clean, &mut watch).unwrap();
    let sampled = &sampled.rows[0];
    let text = row.read(model, sampled).unwrap();
    let filled = row.read_blanks(model, sampled).unwrap();
    assert_eq!(filled.text, text);
    let mut end = 0;
    for blank in &filled.blanks {
        let at = text[end..].find(&blank.text).unwrap_or_else(|| panic!("{name}: {text:?} lacks {blank:?}"));
        end += at + blank.text.len();
    }
    let mut rest = text.as_str();
    for (index, part) in parts.iter().enumerate() {
        let Part::Text(given) = part else { continue };
        if given.is_empty() {
            continue;
        }
        let at = if index > 0 && index + 1 == parts.len() {
            rest.len().checked_sub(given.len())
        } else {
            rest.find(given.as_str())
        };
        let at = at.filter(|&at| rest.get(at..).is_some_and(|rest| rest.starts_with(given.as_str())));
        let at = at.unwrap_or_else(|| panic!("{name}: {parts:?} came back as {text:?}"));
        assert!(index > 0 || at == 0, "{name}: {parts:?} came back as {text:?}");
        rest = &rest[at + given.len()..];
    }
    // A blank of N tokens has N, beside those that replace a given token.
    let wanted: usize = parts.iter().map(|part| if let Part::Blank(count) = part { *count } else { 0 }).sum();
    let n_open = row.request.length - row.request.given.len();
    if !parts.contains(&Part::Free) && wanted > 0 {
        assert_eq!(n_open, wanted + row.n_replaced(), "{name}: {parts:?}");
    }
    assert_eq!((sampled.order.len(), sampled.complete), (n_open, true));
    assert!(row.n_replaced() <= row.request.borders.iter().map(|border| border.parts.len()).sum());
    for border in row.request.borders.iter().filter(|border| !border.parts.is_empty()) {
        // The plain tokens of some parts, then one that completes the given characters.
        let drawn = |part: &BorderPart| sampled.tokens[part.position];
        let n_plain = border.parts.iter().take_while(|part| part.plain == Some(drawn(part))).count();
        let completes = |part: &BorderPart| part.allowed.contains(&drawn(part));
        assert!(border.parts[..=n_plain].iter().any(completes), "{name}: {parts:?}: {border:?}");
    }
    if ["bpe", "bytes"].contains(&name) {
        // Here tokens are stretches of bytes, so together they are the text.
        assert_eq!(model.decode(&sampled.tokens[1..]).unwrap(), text, "{name}: {parts:?}");
    }
}

static MODELS: LazyLock<[(&str, TextModel); 5]> = LazyLock::new(|| {
    [("bpe", bpe()), ("word piece", word_piece()), ("unigram", unigram()), ("llama", llama()), ("bytes", bytes())]
});

#[test]
fn text_that_is_cut_at_any_byte_comes_back_and_blanks_have_their_lengths() {
    let text = "the king of,  thé beg.\nthereof of the ";
    let part = |text: &str| Part::Text(text.to_string());
    for (name, model) in &*MODELS {
        for cut in (0..=text.len()).filter(|&cut| text.is_char_boundary(cut)) {
            let (left, right) = (&text[..cut], &text[cut..]);
            let seed = cut as u64;
            check(name, model, &[part(left), Part::Blank(3), part(right)], seed);
            check(name, model, &[part(left), Part::Blank(1), part(right)], seed);
            check(name, model, &[part(left)], seed);
            check(name, model, &[Part::Blank(2), part(left), Part::Free, part(right), Part::Blank(1)], seed);
            for end in (cut + 1..(cut + 4).min(text.len())).filter(|&end| text.is_char_boundary(end)) {
                check(
                    name,
                    model,
                    &[part("of "), Part::Blank(1), part(&text[cut..end]), Part::Blank(2), part("of")],
                    seed,
                );
            }
        }
    }
}

// The tokens that a template leaves to the blank's borders, as text.
fn borders(model: &TextModel, parts: &[Part]) -> Vec<Vec<String>> {
    let name = |&token: &u32| model.decode(&[token]).unwrap();
    let row = model.row(parts, None, 0).unwrap();
    let parts = row.request.borders.iter().flat_map(|border| &border.parts);
    parts.map(|part| part.allowed.iter().map(name).collect()).collect()
}

#[test]
fn a_space_before_a_blank_belongs_to_its_first_token() {
    let (model, text) = (bpe(), |text: &str| Part::Text(text.to_string()));
    let with_space = [text("the king "), Part::Blank(4), text(" of the")];
    let row = model.row(&with_space, None, 0).unwrap();
    let king = model.encode("the king").unwrap();
    let given: Vec<u32> = row.request.given[1..=king.len()].iter().map(|(_, token)| *token).collect();
    assert_eq!(given, king);
    assert_eq!(row.request.length, 1 + king.len() + 4 + model.encode(" of the").unwrap().len());
    let found = &borders(&model, &with_space)[0];
    assert!(found.contains(&" kingdom".to_string()) && found.iter().all(|token| token.starts_with(' ')), "{found:?}");
    // A prompt, too.
    assert_eq!(borders(&model, &[text("the king ")])[0], *found);
    let row = model.row(&[text("the king ")], None, 0).unwrap();
    assert_eq!((row.request.length, row.request.given.len()), (LENGTH, 1 + king.len()));
}

#[test]
fn a_blank_may_begin_and_end_inside_a_word() {
    let (model, text) = (bpe(), |text: &str| Part::Text(text.to_string()));
    let found = borders(&model, &[text("the king"), Part::Blank(4), text("of the")]);
    assert_eq!(found[0], [" king", " kingd", " kingdo", " kingdom"]);
    assert!([" of", " thereof", "of"].iter().all(|token| found[1].contains(&(*token).to_string())), "{found:?}");
    assert!(found[1].iter().all(|token| token.ends_with("of")));
    let row = model.row(&[text("the king"), Part::Blank(4), text("of the")], None, 0).unwrap();
    assert_eq!(row.n_replaced(), 2, "both take the place of a given token");
    assert!(borders(&model, &[text("the kingdom"), Part::Blank(4), text(" of the")]).is_empty());
}

#[test]
fn tokens_of_single_bytes_and_of_whole_words_are_all_given() {
    let text = |text: &str| Part::Text(text.to_string());
    let model = bytes();
    for (left, right) in [("the ", " of"), ("th", "of"), ("é", "é "), (" ", "\n")] {
        let parts = [text(left), Part::Blank(4), text(right)];
        let row = model.row(&parts, None, 0).unwrap();
        assert!(row.request.borders.iter().all(|border| border.parts.is_empty()), "{parts:?}");
        let n_left = left.len();
        let tokens: Vec<u32> = [model.encode(left).unwrap(), model.encode(right).unwrap()].concat();
        let positions = (1..=n_left).chain(n_left + 5..row.request.length);
        assert_eq!(row.request.given[1..], positions.zip(tokens).collect::<Vec<_>>());
    }
}

#[test]
fn a_border_reaches_over_as_many_given_tokens_as_a_longer_token_has() {
    let (model, text) = (bpe(), |text: &str| Part::Text(text.to_string()));
    let parts = [text("the king"), Part::Blank(2), text("dom of the")];
    let row = model.row(&parts, None, 0).unwrap();
    let [tail, head] = &row.request.borders[..] else { panic!("{:?}", row.request.borders) };
    assert_eq!((tail.parts.len(), head.parts.len()), (1, 3), "the tokens d, o and m are not given");
    let name = |tokens: &[u32]| tokens.iter().map(|&token| model.decode(&[token]).unwrap()).collect::<Vec<_>>();
    // From the token that may hold all three letters to the one that holds the first.
    assert_eq!(name(&head.parts[0].allowed), [" kingdom"]);
    assert_eq!(head.parts[1].allowed.len(), 1, "{:?}", name(&head.parts[1].allowed));
    assert!(name(&head.parts[2].allowed).contains(&"d".to_string()));
    let plain: Vec<Option<u32>> = head.parts.iter().map(|part| part.plain).collect();
    assert_eq!(plain, [Some(model.encode("m").unwrap()[0]), Some(model.encode("o").unwrap()[0]), None]);
    let positions: Vec<usize> = head.parts.iter().map(|part| part.position).collect();
    assert!(positions.windows(2).all(|pair| pair[0] == pair[1] + 1), "{positions:?}");
    // Blanks count the same: the king, two tokens, d, o and m.
    assert_eq!(row.n_replaced(), 4);
    let n_given = row.request.given.len();
    assert_eq!(row.request.length, n_given + 4 + 2);
}

#[test]
fn masked_and_autoregressive_models_have_the_same_borders() {
    let text = |text: &str| Part::Text(text.to_string());
    let causal = causal_bpe();
    for (seed, prompt) in
        ["the king", "the kingdo", "thereo", "the kin", "of ", "é", "b", " be", "the k"].iter().enumerate()
    {
        // Its cache forgets the tokens of alternatives that are not drawn.
        for seed in 20 * seed..20 * seed + 6 {
            check("bpe", &causal, &[text(prompt)], seed as u64);
        }
    }
    // Text behind a blank is refused, also where all of it is a border.
    for template in ["the {2}of", "the {1}of", "the {1}of {2}", "the king{1}of", "the king {2}s", "{2}of"] {
        let row = causal.row(&parse(template, 0).unwrap(), None, 0).unwrap();
        assert!(!row.request.borders.is_empty(), "{template}: {row:?}");
        let denoiser = causal.denoiser(SamplingPath::Clean);
        let message = denoiser.row(&row.request, &SampleSettings::default()).unwrap_err().to_string();
        assert!(message.contains("only continues a text"), "{template}: {message}");
    }
    let (masked, whole) = (masked_bpe(), "the kingdom of the beg");
    for cut in 1..whole.len() {
        check("bpe", &masked, &[text(&whole[..cut]), Part::Blank(3), text(&whole[cut..])], cut as u64);
    }
}

#[test]
fn blanks_that_do_not_fit_are_refused_before_the_text_between_them_is_read() {
    // The text is one that the tokenizer must not see.
    let model = common::model_whose_tokenizer_cannot_encode();
    for template in [" {*}".repeat(50_000), "a {1}".repeat(50_000)] {
        let message = model.row(&parse(&template, 0).unwrap(), None, 0).unwrap_err().to_string();
        assert!(message.contains("50000 blanks"), "{message}");
    }
    // Rows with the same border hold one list of its tokens.
    let model = bpe();
    let row = model.row(&parse(&" {1}".repeat(9), 0).unwrap(), None, 0).unwrap();
    let lists: Vec<_> = row.request.borders.iter().map(|border| &border.parts[0].allowed).collect();
    assert!(lists.len() > 5 && lists.iter().all(|list| Arc::ptr_eq(list, lists[0])), "{lists:?}");
}

// Pieces of texts that tokenizers treat in ways of their own.
fn texts() -> impl Strategy<Value = String> {
    let pieces = [
        "the",
        " the",
        "king",
        " kingdom",
        " of",
        "of",
        "thereof",
        " beg",
        "a",
        "é",
        "e\u{301}",
        "日本",
        "שלום",
        "नमस्ते",
        "🦀",
        "👩\u{200d}👩\u{200d}👧",
        "🇩🇪",
        "\r\n",
        "\n",
        "\n\n",
        "\t",
        " ",
        "  ",
        "\u{a0}",
        ".",
        ", ",
        "'s",
        "ﬁ",
        "\u{feff}",
        "<|x|>",
        "{",
        "_",
    ];
    // With the blanks it must fit a row of 64 tokens, which may be bytes.
    let texts = prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..7).prop_map(|pieces| pieces.concat());
    texts.prop_filter("the text is too long for a row", |text| text.len() <= 52)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_text_that_is_cut_anywhere_comes_back_byte_for_byte(
        text in texts(), cuts in prop::array::uniform2(any::<prop::sample::Index>()), seed in any::<u64>(), form in 0..5_usize
    ) {
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let mut cuts = cuts.map(|cut| places[cut.index(places.len())]);
        cuts.sort_unstable();
        let [left, middle, right] =
            [&text[..cuts[0]], &text[cuts[0]..cuts[1]], &text[cuts[1]..]].map(|text| Part::Text(text.to_string()));
        let parts = match form {
            0 => vec![left, Part::Blank(2), right],
            1 => vec![left, Part::Blank(1), middle, Part::Blank(2), right],
            2 => vec![Part::Blank(1), middle, Part::Free, right, Part::Blank(1)],
            3 => vec![left, middle, Part::Blank(3), Part::Blank(1), right],
            _ => vec![left],
        };
        for (name, model) in &*MODELS {
            check(name, model, &parts, seed);
        }
    }
}

#[test]
fn a_replacement_character_beside_a_blank_is_given_once() {
    let (model, text) = (bytes(), |text: &str| Part::Text(text.to_string()));
    let settings = SampleSettings { steps: 3, ..SampleSettings::default() };
    let mut watch = |_: &pgm_infer::StepView<'_>| ControlFlow::Continue(());
    for (given, seed) in ["abc\u{fffd}", "\u{fffd}", "é\u{fffd}\u{fffd}\u{fffd}\u{fffd}"].into_iter().zip(0..) {
        let row = model.row(&[text(given), Part::Blank(3), text("\u{fffd}z")], None, seed).unwrap();
        let rows = std::slice::from_ref(&row.request);
        let sampled = model.generate(rows, &settings, SamplingPath::Clean, &mut watch).unwrap();
        let start = 1 + given.len();
        let blank = model.decode(&sampled.rows[0].tokens[start..start + 3]).unwrap();
        assert_eq!(row.read(&model, &sampled.rows[0]).unwrap(), format!("{given}{blank}\u{fffd}z"));
    }
}

#[cfg(feature = "server")]
mod served {
    use axum::Router;
    use pgm_infer::Engine;
    use pgm_infer::engine::EngineOptions;
    use pgm_infer::serve::{Limits, Server, router};
    use serde_json::{Value, json};

    use super::common::http::{done, events};
    use super::*;

    fn app(model: TextModel) -> Router {
        let server = Server::new(&["tiny".into()], Limits::default(), &[]);
        server.add("tiny", Engine::new(model, &EngineOptions::default()).unwrap());
        router(&server)
    }

    // Texts before and behind a blank, with every kind of border.
    const SIDES: [(&str, &str); 8] = [
        ("the king ", " of the"),
        ("the king", "of the"),
        ("the kingd", "dom of"),
        ("thereo", "gdom"),
        (" ", "f the"),
        ("é", "é of"),
        ("the \r\n", "\u{301} of"),
        ("", "king"),
    ];

    // All texts of a stream's events, in order.
    fn joined(events: &[(Option<String>, String)], text: impl Fn(&Value) -> Option<String>) -> String {
        let data = events.iter().filter(|(_, data)| data != "[DONE]");
        data.filter_map(|(_, data)| text(&serde_json::from_str(data).unwrap())).collect()
    }

    // The text that the steps say, as the client in docs/server.md keeps it: one text for each position.
    fn text_of_steps(steps: &[Value]) -> String {
        let list = |step: &Value, name: &str| step[name].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value["text"].as_str().unwrap_or_default().to_string();
        let mut texts: Vec<String> = Vec::new();
        for step in steps {
            for segment in list(step, "segments") {
                let (start, n) = (segment["start"].as_u64().unwrap() as usize, segment["n"].as_u64().unwrap() as usize);
                texts.resize(texts.len().max(start + n), String::new());
                if segment["kind"] == "given" {
                    texts[start] = text(&segment);
                }
            }
            for position in list(step, "forgotten") {
                texts[position.as_u64().unwrap() as usize].clear();
            }
            for changed in list(step, "decoded").iter().chain(&list(step, "changed")) {
                texts[changed["position"].as_u64().unwrap() as usize] = text(changed);
            }
        }
        texts.concat()
    }

    #[tokio::test]
    async fn a_stream_of_healed_text_is_the_plain_answer_byte_for_byte() {
        for (model, is_bpe) in [(bpe as fn() -> _, true), (unigram, false), (llama, false), (bytes, false)] {
            let app = app(model());
            for (index, (left, right)) in SIDES.into_iter().enumerate() {
                for order in ["uniform", "sequential", "confidence", "remask"] {
                    let mut body = json!({
                        "input_prefix": left, "input_suffix": right, "n_predict": 5, "seed": index, "steps": 4, "order": order,
                    });
                    let plain = done(&app, "/infill", &body).await;
                    let content = plain["content"].as_str().unwrap();
                    assert_eq!(plain["text"], format!("{left}{content}{right}"), "{left:?} {right:?} {order}");
                    assert_eq!(plain["tokens_predicted"], 5, "{left:?} {right:?} {order}");
                    body["stream"] = json!(true);
                    body["stream_options"] = json!({"denoise": true});
                    let events = events(&app, "/infill", &body).await;
                    let streamed = joined(&events, |data| Some(data["content"].as_str()?.to_string()));
                    let last: Value = serde_json::from_str(&events.last().unwrap().1).unwrap();
                    assert_eq!(last["tokens"], plain["tokens"]);
                    assert_eq!(streamed, content, "{left:?} {right:?} {order}");
                    let steps = events.iter().filter(|(name, _)| name.as_deref() == Some("denoise"));
                    let steps: Vec<Value> = steps.map(|(_, data)| serde_json::from_str(data).unwrap()).collect();
                    // The number of steps, those of the borders with them, is told from the first on. A given space that the
                    // blank's first token holds comes with that token.
                    assert!(steps.iter().all(|step| step["n_steps"] == steps[0]["n_steps"]), "{steps:?}");
                    // Behind a blank that ends inside a word a token may read as the beginning of one. A character that the
                    // vocabulary lacks reads as unknown, and so may bytes that are no character.
                    let is_known = |text: &str| text.chars().all(|char| char == ' ' || char.is_ascii_alphanumeric());
                    if is_bpe && is_known(left) && is_known(right) && !right.starts_with(char::is_alphanumeric) {
                        assert_eq!(
                            text_of_steps(&steps),
                            plain["text"].as_str().unwrap(),
                            "{left:?} {right:?} {order}"
                        );
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn a_completion_with_a_suffix_tells_where_its_tokens_stand() {
        let app = app(bpe());
        for (index, (left, right)) in SIDES.into_iter().enumerate() {
            let mut body = json!({
                "prompt": left, "suffix": right, "max_tokens": 6, "seed": index, "steps": 9, "logprobs": 2,
            });
            let plain = done(&app, "/v1/completions", &body).await;
            let choice = &plain["choices"][0];
            let text = choice["text"].as_str().unwrap();
            assert_eq!(plain["usage"]["completion_tokens"], 6);
            let list = |name: &str| choice["logprobs"][name].as_array().unwrap().clone();
            let tokens: Vec<String> = list("tokens").iter().map(|token| token.as_str().unwrap().into()).collect();
            let offsets: Vec<usize> = list("text_offset").iter().map(|at| at.as_u64().unwrap() as usize).collect();
            let n_chars = text.chars().count();
            assert!(offsets.is_sorted() && offsets[0] == 0 && *offsets.last().unwrap() < n_chars.max(1), "{choice}");
            let from = |at: usize| text.chars().skip(at).collect::<String>();
            for (place, (token, &at)) in tokens.iter().zip(&offsets).enumerate() {
                let until = offsets.get(place + 1).copied().unwrap_or(n_chars);
                let own: String = from(at).chars().take(until - at).collect();
                // A token at a border also has given characters; bytes of broken characters read differently alone.
                let is_broken = token.starts_with("bytes:") || own.contains('\u{fffd}');
                assert!(is_broken || own.is_empty() || token.contains(&own), "{token:?} at {at} has {own:?}: {choice}");
                let is_inside = place > 0 && place + 1 < tokens.len();
                assert!(is_broken || !is_inside || from(at).starts_with(token), "{token:?} at {at}: {choice}");
            }
            body["stream"] = json!(true);
            let events = events(&app, "/v1/completions", &body).await;
            let streamed = joined(&events, |data| Some(data["choices"][0]["text"].as_str()?.to_string()));
            assert_eq!(streamed, text, "{left:?} {right:?}");
        }
    }

    #[tokio::test]
    async fn a_prompt_of_tokens_may_end_inside_a_character() {
        let app = app(bytes());
        let tokens = bytes().encode("né 🦀").unwrap();
        for cut in 1..tokens.len() {
            for suffix in ["", "king"] {
                let mut body = json!({
                    "prompt": tokens[..cut], "suffix": suffix, "max_tokens": 4, "seed": cut, "steps": 4, "echo": true,
                });
                let plain = done(&app, "/v1/completions", &body).await;
                let text = plain["choices"][0]["text"].as_str().unwrap().to_string();
                body["stream"] = json!(true);
                let events = events(&app, "/v1/completions", &body).await;
                let streamed = joined(&events, |data| Some(data["choices"][0]["text"].as_str()?.to_string()));
                assert_eq!(streamed, text, "{cut} {suffix:?}");
            }
        }
    }
}
