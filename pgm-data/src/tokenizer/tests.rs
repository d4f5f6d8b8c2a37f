use serde_json::{Value, json};

use super::*;

#[test]
fn the_bytes_tokenizer_maps_every_byte_to_itself_and_back() {
    let tokenizer = TextTokenizer::bytes();
    let text: String = (0..=0x24f_u32).filter_map(char::from_u32).chain("日本 <|endoftext|> 🦀".chars()).collect();
    let ids = tokenizer.encode(&text).unwrap();
    let bytes: Vec<u32> = text.bytes().map(u32::from).collect();
    assert_eq!(ids, bytes);
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    assert_eq!(tokenizer.decode(&[256, 104, 105, 257]).unwrap(), "hi");
    let again = TextTokenizer::from_json(tokenizer.json, "x", &SpecialNames::default(), None).unwrap();
    assert_eq!((again.special, again.vocab_size), (tokenizer.special, 258));
}

#[test]
fn a_trained_tokenizer_gives_the_same_tokens_for_the_pieces_as_for_the_whole_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.txt");
    let words = ["the", "cat's", "  hat", "\n\n", "sat,", "don't", "42", "\n\tcode"];
    let text: String = (0..150_000_usize).map(|i| format!("{} ", words[(i * i + i / 7) % words.len()])).collect();
    std::fs::write(&path, &text).unwrap();
    let inputs = TextInputs::resolve(&[path.display().to_string()], "text", "text").unwrap();
    let tokenizer = TextTokenizer::train(&inputs, 300, &|_| ()).unwrap();
    assert!(tokenizer.vocab_size() <= 300 && tokenizer.vocab_size() > 258);
    assert_eq!(tokenizer.special().mask as usize, tokenizer.vocab_size() - 1);
    assert_eq!(tokenizer.special().bos, tokenizer.special().eos);
    let (mut ids, mut n_pieces) = (Vec::new(), 0);
    inputs
        .for_each_piece(&mut |piece| {
            ids.extend(tokenizer.encode(&piece.text)?);
            n_pieces += 1;
            Ok(())
        })
        .unwrap();
    assert!(n_pieces > 1);
    assert!(ids == tokenizer.encode(&text).unwrap(), "the pieces give other tokens than the whole");
    assert!(tokenizer.decode(&ids).unwrap() == text);
}

#[test]
fn special_tokens_come_from_names_then_the_config_then_the_usual_names() {
    let json = TextTokenizer::bytes().json;
    let resolve = |names: &SpecialNames, config: Value| {
        TextTokenizer::from_json(json.clone(), "t", names, Some(serde_json::to_vec(&config).unwrap()))
    };
    let config = json!({"bos_token": "A", "eos_token": {"content": "B"}});
    let special = resolve(&SpecialNames::default(), config).unwrap().special;
    assert_eq!(special, SpecialTokens { bos: 65, eos: 66, pad: None, mask: 257 });
    let names = SpecialNames { bos: Some("C".into()), pad: Some("D".into()), ..SpecialNames::default() };
    let special = resolve(&names, Value::Null).unwrap().special;
    assert_eq!(special, SpecialTokens { bos: 67, eos: 256, pad: Some(68), mask: 257 });
    let names = SpecialNames { mask: Some("nothing".into()), ..SpecialNames::default() };
    let message = resolve(&names, Value::Null).unwrap_err().to_string();
    assert!(message.contains("\"nothing\"") && message.contains("mask token"), "{message}");
}

#[test]
fn a_vocabulary_without_a_mask_gets_one_more_id() {
    let mut json: Value = serde_json::from_slice(&TextTokenizer::bytes().json).unwrap();
    json["added_tokens"].as_array_mut().unwrap().pop();
    let json = serde_json::to_vec(&json).unwrap();
    let tokenizer = TextTokenizer::from_json(json, "t", &SpecialNames::default(), None).unwrap();
    assert_eq!((tokenizer.special.mask, tokenizer.vocab_size), (257, 258));
}
