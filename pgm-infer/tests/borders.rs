//! Text beside a blank: the given text comes back byte for byte, and the tokens at a blank's borders agree with it.
#![cfg(feature = "flex")]

use std::ops::ControlFlow;

use burn::tensor::Device;
use pgm_infer::sample::AllowedTokens;
use pgm_infer::text::template::Part;
use pgm_infer::{GenerationConfig, SampleSettings, SamplingPath, TextModel};
use pgm_model::{BackboneConfig, ModelConfig, Network, PartitionConfig, Projection, Queries};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

const LENGTH: usize = 64;

fn model(mut tokenizer: Value) -> TextModel {
    let vocab = &tokenizer["model"]["vocab"];
    let n = vocab.as_object().map_or_else(|| vocab.as_array().unwrap().len(), serde_json::Map::len);
    let special = json!({
        "id": n, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": true,
    });
    tokenizer["added_tokens"] = json!([special]);
    for key in ["normalizer", "post_processor", "truncation", "padding"] {
        if tokenizer[key].is_null() {
            tokenizer[key] = Value::Null;
        }
    }
    tokenizer["version"] = "1.0".into();
    let backbone = BackboneConfig { cond_dim: 8, ..BackboneConfig::new(n + 2, 16, 2, LENGTH) };
    let config = ModelConfig::Partition(PartitionConfig {
        backbone: BackboneConfig { bos_index: n, eos_index: n, mask_index: n + 1, ..backbone },
        encoder_blocks: 1,
        decoder_blocks: 1,
        queries: Queries::LearnFreqs,
        projection: Projection::Linear,
    });
    let device = Device::flex();
    let network = Network::new(&config, &device).with_noise(0.5, 4);
    let tokenizer = Tokenizer::from_bytes(tokenizer.to_string()).unwrap();
    TextModel::new(config, network, tokenizer, GenerationConfig::default(), &device, "test").unwrap()
}

fn letters() -> Vec<String> {
    let printable = |byte: &u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let others = (0..=255_u8).filter(|byte| !printable(byte)).count() as u32;
    let printable = (0..=255_u8).filter(printable).map(|byte| char::from(byte).to_string());
    printable.chain((256..256 + others).map(|letter| char::from_u32(letter).unwrap().to_string())).collect()
}

// Byte-level BPE with these words, each by merges from the left.
fn byte_level(words: &[&str]) -> TextModel {
    let (mut tokens, mut merges) = (letters(), Vec::new());
    for word in words {
        let letters: Vec<char> = word.chars().collect();
        for end in 1..letters.len() {
            let left: String = letters[..end].iter().collect();
            let whole = format!("{left}{}", letters[end]);
            if !tokens.contains(&whole) {
                merges.push(format!("{left} {}", letters[end]));
                tokens.push(whole);
            }
        }
    }
    let vocab: serde_json::Map<String, Value> =
        tokens.into_iter().enumerate().map(|(id, token)| (token, id.into())).collect();
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    model(json!({
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
        "pre_tokenizer": level, "post_processor": level, "decoder": level,
    }))
}

fn bpe() -> TextModel {
    byte_level(&[
        "\u{120}king",
        "\u{120}kingdom",
        "\u{120}of",
        "the",
        "\u{120}the",
        "\u{120}thereof",
        "of",
        "\u{120}beg",
    ])
}

fn bytes() -> TextModel {
    byte_level(&[])
}

fn word_piece() -> TextModel {
    let mut tokens = vec!["[UNK]".to_string()];
    for letter in ('a'..='z').chain(['é', ',', '.', '\'']) {
        tokens.extend([letter.to_string(), format!("##{letter}")]);
    }
    tokens.extend(["king", "##dom", "##s", "of", "the", "there", "##of", "beg"].map(String::from));
    tokens.dedup();
    let vocab: serde_json::Map<String, Value> =
        tokens.into_iter().enumerate().map(|(id, token)| (token, id.into())).collect();
    model(json!({
        "model": {"type": "WordPiece", "vocab": vocab, "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": false},
    }))
}

fn unigram() -> TextModel {
    let mut vocab = vec![json!(["<unk>", 0.0]), json!(["\u{2581}", -3.0])];
    vocab.extend(('a'..='z').chain(['é', ',', '.', '\n', '\'']).map(|letter| json!([letter.to_string(), -5.0])));
    let words =
        ["\u{2581}king", "\u{2581}kingdom", "\u{2581}of", "of", "\u{2581}the", "\u{2581}thereof", "\u{2581}beg"];
    vocab.extend(words.map(|word| json!([word, -4.0])));
    let space = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true});
    model(json!({
        "model": {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": false},
        "pre_tokenizer": space, "decoder": space,
    }))
}

// Llama's form: BPE over whole texts, with a space before each, and bytes for unknown letters.
fn llama() -> TextModel {
    let mut tokens = vec!["<unk>".to_string(), "\u{2581}".to_string()];
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend(('a'..='z').chain([',', '.']).map(|letter| letter.to_string()));
    let mut merges = Vec::new();
    for word in ["\u{2581}king", "\u{2581}of", "\u{2581}the", "\u{2581}beg", "of"] {
        let letters: Vec<char> = word.chars().collect();
        for end in 1..letters.len() {
            let left: String = letters[..end].iter().collect();
            let whole = format!("{left}{}", letters[end]);
            if !tokens.contains(&whole) {
                merges.push(format!("{left} {}", letters[end]));
                tokens.push(whole);
            }
        }
    }
    let vocab: serde_json::Map<String, Value> =
        tokens.into_iter().enumerate().map(|(id, token)| (token, id.into())).collect();
    model(json!({
        "model": {"type": "BPE", "vocab": vocab, "merges": merges, "unk_token": "<unk>", "byte_fallback": true, "fuse_unk": true},
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        ]},
        "pre_tokenizer": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
    }))
}

// Samples a template; its text, which must have the given texts at both ends.
fn check(name: &str, model: &TextModel, parts: &[Part], seed: u64) {
    let row = model.row(parts, None, seed).unwrap();
    let settings = SampleSettings { steps: 3, ..SampleSettings::default() };
    let mut watch = |_: &pgm_infer::StepView<'_>| ControlFlow::Continue(());
    let sampled =
        model.generate(std::slice::from_ref(&row.request), &settings, SamplingPath::Clean, &mut watch).unwrap();
    let sampled = &sampled.rows[0];
    let text = row.read(model, sampled).unwrap();
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
    assert!(row.n_replaced() <= row.request.allowed.len());
    for AllowedTokens { position, tokens } in &row.request.allowed {
        assert!(tokens.contains(&sampled.tokens[*position]), "{name}: {parts:?} at {position}");
    }
}

fn models() -> [(&'static str, TextModel); 5] {
    [("bpe", bpe()), ("word piece", word_piece()), ("unigram", unigram()), ("llama", llama()), ("bytes", bytes())]
}

#[test]
fn text_that_is_cut_at_any_byte_comes_back_and_blanks_have_their_lengths() {
    let text = "the king of,  thé beg.\nthereof of the ";
    let part = |text: &str| Part::Text(text.to_string());
    for (name, model) in models() {
        for cut in (0..=text.len()).filter(|&cut| text.is_char_boundary(cut)) {
            let (left, right) = (&text[..cut], &text[cut..]);
            let seed = cut as u64;
            check(name, &model, &[part(left), Part::Blank(3), part(right)], seed);
            check(name, &model, &[part(left), Part::Blank(1), part(right)], seed);
            check(name, &model, &[part(left)], seed);
            check(name, &model, &[Part::Blank(2), part(left), Part::Free, part(right), Part::Blank(1)], seed);
            for end in (cut + 1..(cut + 4).min(text.len())).filter(|&end| text.is_char_boundary(end)) {
                check(
                    name,
                    &model,
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
    row.request.allowed.iter().map(|allowed| allowed.tokens.iter().map(name).collect()).collect()
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
        assert!(row.request.allowed.is_empty(), "{parts:?}");
        let n_left = left.len();
        let tokens: Vec<u32> = [model.encode(left).unwrap(), model.encode(right).unwrap()].concat();
        let positions = (1..=n_left).chain(n_left + 5..row.request.length);
        assert_eq!(row.request.given[1..], positions.zip(tokens).collect::<Vec<_>>());
    }
}
