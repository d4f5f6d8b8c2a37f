//! How rows of a byte-level BPE read: whole, early ended, and while they fill.

use std::sync::LazyLock;

use burn::tensor::Device;
use pgm_model::{BackboneConfig, ModelConfig, Network, PartitionConfig, Projection, Queries};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::canvas::{Canvas, Segment};
use super::reader::{BlankEnd, RowReader};
use super::request::RowPart;
use super::template::Part;
use super::{GenerationConfig, TextAnimation, TextModel, TextRow};
use crate::sample::RowChange;

// The tokens are printable bytes, the space, the first byte of é, and two words by merges from the left.
static MODEL: LazyLock<TextModel> = LazyLock::new(|| {
    let mut tokens: Vec<String> = ('!'..='~').chain(['\u{120}', '\u{c3}', '\u{a9}']).map(String::from).collect();
    let mut merges = Vec::new();
    for word in ["\u{120}kingdom", "\u{120}of"] {
        let letters: Vec<char> = word.chars().collect();
        for end in 1..letters.len() {
            let left: String = letters[..end].iter().collect();
            merges.push(format!("{left} {}", letters[end]));
            tokens.push(format!("{left}{}", letters[end]));
        }
    }
    let n = tokens.len();
    let vocab: serde_json::Map<String, Value> =
        tokens.into_iter().enumerate().map(|(id, token)| (token, id.into())).collect();
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [{
            "id": n, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true,
        }],
        "pre_tokenizer": level, "decoder": level, "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    });
    let backbone = BackboneConfig { cond_dim: 8, ..BackboneConfig::new(n + 2, 16, 2, 32) };
    let config = ModelConfig::Partition(PartitionConfig {
        backbone: BackboneConfig { bos_index: n, eos_index: n, mask_index: n + 1, ..backbone },
        encoder_blocks: 1,
        decoder_blocks: 1,
        queries: Queries::LearnFreqs,
        projection: Projection::Linear,
        sets: Default::default(),
    });
    let device = Device::flex();
    let network = Network::new(&config, &device);
    let tokenizer = Tokenizer::from_bytes(json.to_string()).unwrap();
    TextModel::new(config, network, tokenizer, GenerationConfig::default(), &device, "test").unwrap()
});

fn text(text: &str) -> RowPart {
    RowPart::Template(Part::Text(text.into()))
}

fn blank(n: usize) -> RowPart {
    RowPart::Template(Part::Blank(n))
}

fn token(text: &str) -> u32 {
    let tokens = MODEL.encode(text).unwrap();
    assert_eq!(tokens.len(), 1, "{text}");
    tokens[0]
}

// The row with these tokens at its open positions, from the left.
fn filled(row: &TextRow, tokens: &[u32]) -> Vec<u32> {
    let mask = MODEL.config().backbone().mask_index as u32;
    let mut all = vec![mask; row.request.length];
    for &(position, token) in &row.request.given {
        all[position] = token;
    }
    let open: Vec<usize> = (0..all.len()).filter(|&position| all[position] == mask).collect();
    open.into_iter().zip(tokens).for_each(|(position, &token)| all[position] = token);
    all
}

#[test]
fn a_text_that_ends_early_keeps_the_suffix_whose_first_token_is_drawn() {
    let bos = MODEL.config().backbone().bos_index as u32;
    // The suffix has its border in its first token, whatever the prompt is given as.
    let prompts =
        [text("of"), RowPart::Tokens(MODEL.encode("of").unwrap()), RowPart::Tokens(vec![token("o"), token("f")])];
    for prompt in prompts {
        let row = MODEL.row_of_parts(&[prompt, blank(3), text("of !")], 0).unwrap();
        assert!(row.n_replaced() >= 1);
        let n_open = row.request.length - row.request.given.len();
        let own = [token("a"), token("!"), token("b")];
        let before = [token("o"), token("f")];
        // The prompt's tokens that a border replaces, the blank, and the border of the suffix.
        let mut tokens = [before[before.len() - (n_open - 4)..].to_vec(), own.to_vec(), vec![token(" of")]].concat();
        let read = |stop: &[&str], tokens: &[u32]| {
            let stop = stop.iter().map(|stop| (*stop).to_string()).collect();
            let reader = RowReader::new(row.layout.clone(), stop, true);
            reader.read(&MODEL, &filled(&row, tokens), true).unwrap()
        };
        assert_eq!(read(&[], &tokens).text, "ofa!b of !");
        let stopped = read(&["!"], &tokens);
        assert_eq!((stopped.text.as_str(), stopped.blanks[0].text.as_str()), ("ofaof !", "a"));
        assert_eq!(stopped.ended, Some(BlankEnd::Stop("!".into())));
        let n = tokens.len();
        tokens[n - 3] = bos;
        let ended = read(&[], &tokens);
        assert_eq!((ended.text.as_str(), ended.ended), ("ofaof !", Some(BlankEnd::Eos)));
    }
}

#[test]
fn a_prompt_of_tokens_ends_its_character_in_the_blank() {
    let first = MODEL.encode("é").unwrap()[0];
    for suffix in ["", "of"] {
        let prompt = RowPart::Tokens(vec![token("n"), first]);
        let row = MODEL.row_of_parts(&[prompt, blank(2), text(suffix)], 0).unwrap();
        let second = MODEL.encode("é").unwrap()[1];
        let tokens = filled(&row, &[second, token("!"), token(" of")]);
        let read = RowReader::new(row.layout.clone(), Vec::new(), false).read(&MODEL, &tokens, true).unwrap();
        let expected = if suffix.is_empty() { "né!".to_string() } else { "né! of".into() };
        assert_eq!(read.text, expected);
    }
}

#[test]
fn a_canvas_shows_given_text_as_given_and_the_rest_of_a_border_as_decoded() {
    let row = MODEL.row_of_parts(&[text("! ki"), blank(2), text("of")], 0).unwrap();
    let mut canvas = Canvas::of_row(&row);
    let given = |text: &str| Segment::Given { text: text.into() };
    let open: Vec<usize> = (0..row.request.length)
        .filter(|position| row.request.given.iter().all(|(given, _)| given != position))
        .collect();
    assert_eq!(open.len(), 4, "a border of one token on either side");
    assert_eq!(canvas.segments(&MODEL), [given("! ki"), Segment::Open { n: 4 }, given("of")]);
    let decode = |decoded: Vec<(usize, u32)>| RowChange { decoded, ..RowChange::default() };
    canvas.apply(&decode(vec![(open[0], token(" kingdom")), (open[3], token(" of"))]));
    let new = |text: &str| Segment::New { text: text.into() };
    assert_eq!(canvas.segments(&MODEL), [given("! ki"), new("ngdom"), Segment::Open { n: 2 }, new(" "), given("of")]);
    canvas.apply(&decode(vec![(open[1], token("a")), (open[2], token("!"))]));
    let decoded = |text: &str| Segment::Decoded { text: text.into() };
    assert_eq!(canvas.segments(&MODEL), [given("! ki"), decoded("ngdom"), new("a!"), decoded(" "), given("of")]);
}

#[test]
fn an_animation_shows_each_token_when_its_step_came_and_given_text_always() {
    let row = MODEL.row_of_parts(&[text("<a ki"), blank(2), text("of")], 0).unwrap();
    let mut animation = TextAnimation::of_row(&row);
    let given = &row.request.given;
    let open: Vec<usize> =
        (0..row.request.length).filter(|position| given.iter().all(|(given, _)| given != position)).collect();
    let decode = |decoded: Vec<(usize, u32)>| RowChange { decoded, ..RowChange::default() };
    animation.apply(&decode(vec![(open[0], token(" kingdom"))]));
    assert_eq!(animation.svg(&MODEL).matches('░').count(), 3);
    animation.apply(&decode(vec![(open[3], token(" of")), (open[2], token("&"))]));
    animation.apply(&decode(vec![(open[1], token("Z"))]));
    let svg = animation.svg(&MODEL);
    let element = |text: &str| {
        let found = svg.lines().filter(|line| line.contains(&format!(">{text}<"))).collect::<Vec<_>>();
        assert_eq!(found.len(), 1, "{text}: {svg}");
        found[0]
    };
    for given in ["&lt;a\u{a0}", "ki", "of"] {
        assert!(!element(given).contains("animate"), "{given}");
    }
    // Three steps in the first 8 of 12 seconds.
    for (text, at) in [("ngdom", "0;0.0000"), ("&amp;", "0;0.2222"), ("Z", "0;0.4444")] {
        assert!(element(text).contains(&format!("keyTimes=\"{at}\"")), "{text}: {}", element(text));
    }
    assert!(!svg.contains('░'));
}
