//! Tokenizers as people have them: folders, names, missing tokens, dropout, a mask in the text, unknown text.

mod common;

use common::{Case, added, small_bpe, small_bpe_without_special_tokens};
use pgm_data::{SpecialNames, Split};
use serde_json::{Value, json};

const TEXT: &str = "the quick brown fox jumps over the lazy dog and the river runs ";

/// A folder with a text, and `tokenizer.json`.
fn case_with(tokenizer: &Value) -> Case {
    let case = Case::with("a.txt", TEXT.repeat(40));
    case.write_json("tokenizer.json", tokenizer);
    case
}

fn prepare(case: &Case, args: &str) -> common::Output {
    let _ = std::fs::remove_dir_all(case.path("out"));
    let fixed = "prepare --input a.txt --length 16 --out out";
    case.run(&fixed.split(' ').chain(args.split(' ')).collect::<Vec<_>>())
}

fn names(case: &Case) -> SpecialNames {
    case.folder().manifest().special_names.clone().unwrap()
}

#[test]
fn the_tokenizer_can_be_a_folder_with_its_names() {
    let mut tokenizer = small_bpe();
    let n_known = tokenizer["model"]["vocab"].as_object().unwrap().len() as u64;
    let tokens = tokenizer["added_tokens"].as_array_mut().unwrap();
    tokens.extend([added(n_known + 2, "<|im_start|>", true), added(n_known + 3, "<|im_end|>", true)]);
    let case = case_with(&json!({}));
    let config = "{\"bos_token\": \"<|im_start|>\",\n \"eos_token\": {\"content\": \"<|im_end|>\"}, \"mask_token\": \"<|mask|>\", \"extra\": 1}";
    case.write_json("tok/tokenizer.json", &tokenizer).write("tok/tokenizer_config.json", config);
    let output = prepare(&case, "--tokenizer tok");
    assert!(output.ok, "{}", output.stderr);
    let expected = SpecialNames {
        bos: Some("<|im_start|>".into()),
        eos: Some("<|im_end|>".into()),
        pad: None,
        mask: Some("<|mask|>".into()),
    };
    assert_eq!(names(&case), expected);
    // The data folder is such a folder too: its configuration is the original to the byte.
    assert_eq!(std::fs::read_to_string(case.path("out/tokenizer_config.json")).unwrap(), config);
    assert_eq!(case.folder().tokenizer().unwrap().config_json(), Some(config.as_bytes()));
    let special = case.folder().manifest().special.clone();
    std::fs::rename(case.path("out"), case.path("first")).unwrap();
    assert!(prepare(&case, "--tokenizer first").ok);
    assert_eq!((case.folder().manifest().special.clone(), names(&case)), (special, expected));

    std::fs::create_dir(case.path("empty")).unwrap();
    let message = prepare(&case, "--tokenizer empty").stderr;
    assert!(message.contains("empty: is a folder without tokenizer.json"), "{message}");
    case.write("empty/tokenizer.model", "");
    let message = prepare(&case, "--tokenizer empty").stderr;
    assert!(message.contains("AutoTokenizer"), "{message}");
}

#[test]
fn names_that_a_user_chose_are_found_again() {
    let case = case_with(&small_bpe());
    assert!(prepare(&case, "--tokenizer tokenizer.json").ok);
    assert!(!case.path("out/tokenizer_config.json").exists(), "the usual names need no file");
    assert!(prepare(&case, "--tokenizer tokenizer.json --special-tokens bos=q,eos=z").ok);
    let special = case.folder().manifest().special.clone();
    std::fs::rename(case.path("out"), case.path("first")).unwrap();
    assert!(prepare(&case, "--tokenizer first/tokenizer.json").ok);
    assert_eq!(case.folder().manifest().special, special);
    assert_eq!((names(&case).bos, names(&case).eos), (Some("q".into()), Some("z".into())));
}

#[test]
fn missing_bos_and_eos_are_made_as_the_mask_is() {
    let tokenizer = small_bpe_without_special_tokens();
    let n_known = tokenizer["model"]["vocab"].as_object().unwrap().len() as u32;
    let case = case_with(&tokenizer);
    let output = prepare(&case, "--tokenizer tokenizer.json");
    assert!(output.ok, "{}", output.stderr);
    for made in ["<|bos|> is added with the id", "<|eos|> is added with the id"] {
        assert!(output.stderr.contains(made), "{}", output.stderr);
    }
    let manifest = case.folder().manifest().clone();
    let special = &manifest.special;
    assert_eq!((special.bos, special.eos, special.mask), (n_known, n_known + 1, n_known + 2));
    assert_eq!(manifest.vocab_size as u32, n_known + 3);
    assert!(case.tokens(Split::Train).iter().all(|row| row[0] == n_known));
    // Their names are no tokens of text, and the data folder's tokenizer gives the same ids.
    let folder = case.folder();
    let ids = folder.tokenizer().unwrap().encode("<|bos|> the <|eos|>").unwrap();
    assert!(ids.iter().all(|&id| id < n_known), "{ids:?}");
    assert_eq!(
        folder.tokenizer().unwrap().decode(&[&[special.bos], &ids[..], &[special.eos]].concat()).unwrap(),
        "<|bos|> the <|eos|>"
    );
    std::fs::rename(case.path("out"), case.path("first")).unwrap();
    let output = prepare(&case, "--tokenizer first");
    assert!(output.ok && !output.stderr.contains("is added"), "{}", output.stderr);
    let again = case.folder().manifest().clone();
    assert_eq!((&again.special, &again.tokenizer_sha256), (special, &manifest.tokenizer_sha256));
    // Prepared anew from the original it is the same tokenizer.
    assert!(prepare(&case, "--tokenizer tokenizer.json").ok);
    assert_eq!(case.folder().manifest(), &manifest);
}

#[test]
fn names_that_the_vocabulary_lacks_are_errors() {
    let case = case_with(&small_bpe());
    for role in ["bos", "eos", "pad", "mask"] {
        let output = prepare(&case, &format!("--tokenizer tokenizer.json --special-tokens {role}=<none>"));
        assert!(!output.ok && output.stderr.contains("no token \"<none>\""), "{}", output.stderr);
        case.write("tokenizer_config.json", format!("{{\"{role}_token\": \"<none>\"}}"));
        let output = prepare(&case, "--tokenizer tokenizer.json");
        let says = format!("\"<none>\", which tokenizer_config.json names as {role}_token");
        assert!(!output.ok && output.stderr.contains(&says), "{}", output.stderr);
        // The user's name comes first.
        let output = prepare(&case, &format!("--tokenizer tokenizer.json --special-tokens {role}=q"));
        assert!(output.ok, "{}", output.stderr);
        std::fs::remove_file(case.path("tokenizer_config.json")).unwrap();
    }
    let output = prepare(&case, "--tokenizer tokenizer.json --special-tokens bos=<|mask|>");
    assert!(!output.ok && output.stderr.contains("one token for bos and mask"), "{}", output.stderr);
    case.write("tokenizer_config.json", "{oops");
    assert!(prepare(&case, "--tokenizer tokenizer.json").stderr.contains("tokenizer_config.json that is not JSON"));
}

#[test]
fn dropout_is_turned_off_for_good() {
    let mut tokenizer = small_bpe();
    let case = case_with(&tokenizer);
    assert!(prepare(&case, "--tokenizer tokenizer.json").ok);
    let plain = case.tokens(Split::Train);
    tokenizer["model"]["dropout"] = json!(0.5);
    let case = case_with(&tokenizer);
    let output = prepare(&case, "--tokenizer tokenizer.json");
    assert!(output.stderr.contains("BPE dropout 0.5 is turned off"), "{}", output.stderr);
    assert_eq!(case.tokens(Split::Train), plain);
    // The model's tokenizer has none either.
    let written: Value = serde_json::from_slice(case.folder().tokenizer().unwrap().json()).unwrap();
    assert_eq!(written["model"]["dropout"], Value::Null);
    let folder = case.folder();
    let encode = || folder.tokenizer().unwrap().encode(TEXT).unwrap();
    assert_eq!(encode(), encode());
}

#[test]
fn no_row_has_the_mask() {
    // An added token that is not special would be found in the text.
    let mut tokenizer = small_bpe();
    for token in tokenizer["added_tokens"].as_array_mut().unwrap() {
        token["special"] = json!(false);
    }
    let case = case_with(&tokenizer);
    case.write("a.txt", "the river <|mask|> runs <|endoftext|> over ".repeat(30));
    let output = prepare(&case, "--tokenizer tokenizer.json");
    assert!(output.ok, "{}", output.stderr);
    assert!(output.stderr.contains("<|mask|> is a special token now"), "{}", output.stderr);
    assert!(output.stderr.contains("the special token <|mask|> as ordinary text: 30"), "{}", output.stderr);
    let special = case.folder().manifest().special.clone();
    for split in [Split::Train, Split::Validation] {
        assert!(
            case.tokens(split).iter().all(|row| !row[1..].contains(&special.mask) && !row[1..].contains(&special.eos))
        );
    }
    assert!(case.rows(Split::Train).concat().contains("<|mask|>"));
    // A mask that is a word of the vocabulary is refused where the text has it.
    let words = ["[UNK]", "[CLS]", "[SEP]", "the", "river", "runs"];
    let vocab: serde_json::Map<String, Value> =
        words.iter().zip(0..).map(|(word, id)| (word.to_string(), json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": vocab},
    });
    let case = case_with(&tokenizer);
    case.write("a.txt", "the river runs ".repeat(40));
    let output = prepare(&case, "--tokenizer tokenizer.json --special-tokens mask=runs");
    assert!(!output.ok && output.stderr.contains("the text has the mask token runs"), "{}", output.stderr);
}

#[test]
fn unknown_text_is_counted_and_refused_where_it_is_most_of_it() {
    let words = ["[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "river", "runs"];
    let vocab: serde_json::Map<String, Value> =
        words.iter().zip(0..).map(|(word, id)| (word.to_string(), json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": vocab},
    });
    let case = case_with(&tokenizer);
    case.write("a.txt", "the river runs slowly ".repeat(400));
    let output = prepare(&case, "--tokenizer tokenizer.json");
    assert!(
        output.stderr.contains("of the training tokens are unknown to the tokenizer: 380 of 1520"),
        "{}",
        output.stderr
    );
    assert_eq!(case.folder().manifest().train.unknown_tokens, 380);
    case.write("a.txt", "der Fluss runs ".repeat(400));
    let output = prepare(&case, "--tokenizer tokenizer.json");
    assert!(!output.ok && output.stderr.contains("66 % of the training tokens are unknown"), "{}", output.stderr);

    // A model without a token for the unknown drops it.
    let vocab: serde_json::Map<String, Value> =
        "abcdefgh ".chars().zip(0..).map(|(letter, id)| (letter.to_string(), json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [],
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []},
    });
    let case = case_with(&tokenizer);
    case.write("a.txt", "abc def gx ".repeat(400));
    let output = prepare(&case, "--tokenizer tokenizer.json");
    assert!(output.ok && output.stderr.contains("drops characters that it does not know: 9.1 %"), "{}", output.stderr);
    case.write("a.txt", "xyz uvw gx ".repeat(400));
    let output = prepare(&case, "--tokenizer tokenizer.json");
    assert!(
        !output.ok && output.stderr.contains("63 % of the training characters are in no token"),
        "{}",
        output.stderr
    );
}
