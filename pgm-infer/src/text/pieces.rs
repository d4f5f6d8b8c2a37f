//! The text of each token of a sequence, in time linear in its length.
//!
//! A token's text depends on the few tokens before it: they decide about its space, and about a character that several
//! tokens make together. So each token is decoded behind a short window instead of the whole sequence.

/// Tokens that the window holds before it is cut at the end of a character.
const WINDOW: usize = 12;
/// Tokens that such a cut leaves: no character has more bytes.
const KEPT: usize = 6;
/// Tokens that the window holds before it is cut within bytes that are no text.
const LONGEST_WINDOW: usize = 36;

/// The text that each token adds to the text of those before it. A token that begins a character adds nothing; the
/// character is the text of the token that ends it. Together the pieces are the text of the sequence.
pub(super) fn pieces(tokens: &[u32], mut decode: impl FnMut(&[u32]) -> String) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::with_capacity(tokens.len());
    let mut window: Vec<u32> = Vec::new();
    // The text of the window, and how many of its bytes are settled.
    let (mut text, mut n_settled) = (String::new(), 0);
    for &token in tokens {
        window.push(token);
        let longer = decode(&window);
        if longer == text && !text.is_empty() && !text.ends_with(char::REPLACEMENT_CHARACTER) {
            // A special token has no text, and what has none does not fill the window.
            window.pop();
            pieces.push(String::new());
            continue;
        }
        let settled = settled(&longer);
        // A decoder may change earlier text (as a byte decoder does on an invalid sequence); what agrees is not repeated.
        let common = common_prefix(&text[..n_settled], settled);
        pieces.push(settled[common..].to_string());
        (n_settled, text) = (settled.len(), longer);
        let ends_a_character = n_settled == text.len();
        let n_kept = match window.len() {
            n if n > WINDOW && ends_a_character => KEPT,
            n if n > LONGEST_WINDOW => WINDOW,
            n => n,
        };
        if n_kept < window.len() {
            window.drain(..window.len() - n_kept);
            text = decode(&window);
            n_settled = self::settled(&text).len();
        }
    }
    if let Some(last) = pieces.last_mut() {
        last.push_str(&text[n_settled..]);
    }
    pieces
}

// The text without an unfinished character at its end, which shows as one to three replacement characters.
fn settled(text: &str) -> &str {
    let end = (0..3).fold(text, |text, _| text.strip_suffix(char::REPLACEMENT_CHARACTER).unwrap_or(text));
    &text[..end.len()]
}

fn common_prefix(a: &str, b: &str) -> usize {
    let same = a.char_indices().zip(b.chars()).take_while(|((_, a), b)| a == b);
    same.last().map_or(0, |((at, letter), _)| at + letter.len_utf8())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::Tokenizer;

    use super::*;

    fn tokenizer(model: serde_json::Value, decoder: serde_json::Value, special: &[(u32, &str)]) -> Tokenizer {
        let added: Vec<_> = special
            .iter()
            .map(|(id, content)| {
                serde_json::json!({
                    "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true,
                })
            })
            .collect();
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": null, "post_processor": null, "decoder": decoder, "model": model,
        });
        Tokenizer::from_bytes(json.to_string()).unwrap()
    }

    // A byte-level BPE vocabulary: all bytes, two words, and a token that ends one character and begins another.
    fn byte_level() -> (Tokenizer, u32) {
        let mut alphabet: Vec<char> = (33..=126_u8).chain(161..=172).chain(174..=255).map(char::from).collect();
        alphabet.extend((0..256 - alphabet.len()).map(|index| char::from_u32(256 + index as u32).unwrap()));
        let mut words: Vec<String> = alphabet.iter().map(char::to_string).collect();
        words.extend(["\u{120}the", "\u{120}of"].map(String::from));
        // Bytes A9 C3: the end of one two-byte character and the beginning of the next.
        words.push("\u{a9}\u{c3}".into());
        let vocab: serde_json::Map<String, serde_json::Value> =
            words.iter().enumerate().map(|(id, word)| (word.clone(), id.into())).collect();
        let n = words.len() as u32;
        let model = serde_json::json!({"type": "BPE", "vocab": vocab, "merges": []});
        let decoder = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
        (tokenizer(model, decoder, &[(n, "<s>")]), n + 1)
    }

    fn word_piece() -> (Tokenizer, u32) {
        let words = ["[UNK]", "play", "##ing", "##s", "the", ".", ",", "don", "'", "t", "é"];
        let vocab: serde_json::Map<String, serde_json::Value> =
            words.iter().enumerate().map(|(id, word)| ((*word).to_string(), id.into())).collect();
        let model = serde_json::json!({
            "type": "WordPiece", "vocab": vocab, "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        });
        let decoder = serde_json::json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
        (tokenizer(model, decoder, &[(11, "[SEP]")]), 12)
    }

    fn unigram() -> (Tokenizer, u32) {
        let words = ["<unk>", "\u{2581}the", "\u{2581}", "cat", "s", "\u{2581}é", "日本"];
        let vocab: Vec<_> = words.iter().map(|word| serde_json::json!([word, -1.0])).collect();
        let model = serde_json::json!({"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": false});
        let decoder = serde_json::json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true});
        (tokenizer(model, decoder, &[(7, "</s>")]), 8)
    }

    // Each prefix of the pieces is the text of the same prefix of the tokens, but for an unfinished character.
    fn check(tokenizer: &Tokenizer, tokens: &[u32]) {
        let decode = |tokens: &[u32]| tokenizer.decode(tokens, true).unwrap();
        let pieces = pieces(tokens, decode);
        assert_eq!(pieces.len(), tokens.len());
        for n in 1..=tokens.len() {
            let (expected, found) = (decode(&tokens[..n]), pieces[..n].concat());
            if n < tokens.len() {
                assert_eq!(settled(&expected), found, "{n} of {tokens:?}: {pieces:?}");
            } else {
                assert_eq!(expected, found, "{tokens:?}: {pieces:?}");
            }
        }
    }

    #[test]
    fn a_character_of_several_tokens_is_the_text_of_its_last_token() {
        let (tokenizer, _) = byte_level();
        let id = |byte: &str| tokenizer.token_to_id(byte).unwrap();
        // "é" is C3 A9; "éé" with the token A9 C3 in the middle.
        let tokens = [id("\u{c3}"), id("\u{a9}\u{c3}"), id("\u{a9}"), id("\u{120}the")];
        let pieces = pieces(&tokens, |tokens| tokenizer.decode(tokens, true).unwrap());
        assert_eq!(pieces, ["", "é", "é", " the"]);
        check(&tokenizer, &tokens);
    }

    #[test]
    fn a_long_sequence_is_decoded_in_linear_time() {
        let (tokenizer, _) = byte_level();
        let n_decoded = std::cell::Cell::new(0);
        // Bytes that are no text at all, the worst case.
        let invalid = vec![tokenizer.token_to_id("\u{ff}").unwrap(); 3000];
        let decode = |tokens: &[u32]| {
            n_decoded.set(n_decoded.get() + tokens.len());
            tokenizer.decode(tokens, true).unwrap()
        };
        assert_eq!(pieces(&invalid, decode).concat(), tokenizer.decode(&invalid, true).unwrap());
        assert!(n_decoded.get() < 40 * invalid.len(), "{}", n_decoded.get());
    }

    proptest! {
        #[test]
        fn pieces_are_the_text_of_prefixes(kind in 0..3_usize, ids in prop::collection::vec(any::<u32>(), 0..60)) {
            let (tokenizer, n) = [byte_level, word_piece, unigram][kind]();
            let tokens: Vec<u32> = ids.iter().map(|id| id % n).collect();
            check(&tokenizer, &tokens);
        }

        #[test]
        fn pieces_of_real_text_are_the_text_of_prefixes(text in "[a-zé日🦀 ]{0,40}") {
            let (tokenizer, _) = byte_level();
            let byte = |byte: u8| {
                // The alphabet of byte-level BPE: printable bytes are themselves, the others follow from U+0100 on.
                let printable = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
                let letter = if printable(byte) {
                    char::from(byte)
                } else {
                    char::from_u32(256 + (0..byte).filter(|&byte| !printable(byte)).count() as u32).unwrap()
                };
                tokenizer.token_to_id(&letter.to_string()).unwrap()
            };
            let tokens: Vec<u32> = text.bytes().map(byte).collect();
            check(&tokenizer, &tokens);
        }
    }
}
