use std::borrow::Cow;

use proptest::prelude::*;

use super::Detokenizer;
use super::rules::is_space;

#[test]
fn each_corpus_is_detokenized_as_in_the_public_code() {
    use Detokenizer::*;
    let cases = [
        (
            Lm1b,
            "The ferry to Oban was late again , then full , and the crew asked forty of us to wait for the next one .",
            "The ferry to Oban was late again, then full, and the crew asked forty of us to wait for the next one.",
        ),
        (
            Lm1b,
            "\" Where to , Mr. Ito ? \" she asked ; he did n't answer : it 's late !",
            "\"Where to, Mr. Ito?\" she asked; he did n't answer: it's late!",
        ),
        (
            Lm1b,
            "He paid $ 12 ( £ 7 ) at http : / / example.com / shop .",
            "He paid $12 (£7) at http://example.com/shop.",
        ),
        (Lm1b, "a . b . c .", "a . b. c."),
        (Lm1b, "They 'll call it ' home ' [ again ] ?\n", "They'll call it 'home' [again]?\n"),
        (Wikitext, " = The ship 's bell = \n", " = The ship's bell =\n"),
        (Wikitext, " = = = Rigging = = = \n", " === Rigging ===\n"),
        (
            Wikitext,
            " The bell ( Japanese : 鐘 , lit . \" bell \" ) weighs 1 @,@ 500 @.@ 5 kg ; the sailors ' best @-@ known one rang at 12 ° C . \n",
            " The bell (Japanese: 鐘, lit. \"bell\") weighs 1,500.5 kg; the sailors' best-known one rang at 12°C.\n",
        ),
        (Wikitext, " a ( ) b [  c ] { d\u{a0}} ' e ' N f\n g", " a () b [c] {d} 'e' 1 f\ng"),
        (
            Ptb,
            "the company 's directors did n't expect <unk> to buy N N N shares at $ N each",
            "the company's directors didn't expect ? to buy 1 1 1 shares at $1 each",
        ),
        (Ptb, "the owners ' share fell to # N and\\/or less", "the owners' share fell to #1 and/or less"),
        (
            Lambada,
            "  “Where is the dog?” he said. “Here,” said\nAnna \n",
            "\n\"Where is the dog?\" he said. \"Here,\" said\nAnna",
        ),
        (
            AgNews,
            "Shares slip (Wire) - Oil\\rose , traders said ; #39;quiet#39; day .",
            "Shares slip (Wire) - Oil\\rose , traders said ; #39;quiet#39; day .",
        ),
        (
            Papers,
            "models of waves ( see e.g. @xcite ) . we call \" x \" and [ y ] wide , as shown .\n the rest",
            "models of waves (see e.g. @xcite). we call \"x\" and [y] wide, as shown .\nthe rest",
        ),
    ];
    for (detokenizer, split, whole) in cases {
        assert_eq!(detokenizer.apply(split), whole, "{detokenizer}: {split:?}");
    }
}

#[test]
fn a_text_without_a_match_is_not_copied() {
    for detokenizer in Detokenizer::ALL.into_iter().filter(|&detokenizer| detokenizer != Detokenizer::Lambada) {
        assert!(matches!(detokenizer.apply("Nothing to do here. Or here?"), Cow::Borrowed(_)), "{detokenizer}");
    }
}

#[test]
fn names_are_those_of_the_manifest_and_an_unknown_name_lists_them_all() {
    for detokenizer in Detokenizer::ALL {
        assert_eq!(detokenizer.name().parse::<Detokenizer>().unwrap(), detokenizer);
        assert_eq!(serde_json::to_value(detokenizer).unwrap(), detokenizer.name());
    }
    let message = "c4".parse::<Detokenizer>().unwrap_err().to_string();
    assert!(message.contains("\"c4\"") && message.contains("lm1b, wikitext, ptb"), "{message}");
}

// Texts full of what the rules match.
fn marked() -> impl Strategy<Value = String> {
    let parts =
        ["a", "Ünï", "鐘", "N", "7", " ", "  ", " ", "'", "\"", "(", ")", "[", "]", "{", "}", ".", "?", "!", ",", ":"];
    let more =
        [";", "/", "\\", "$", "£", "#", "=", "@", "-", "°", "<unk>", "'s", "n't", "“", "”", "\n", "\u{1c}", "http"];
    let part = prop::sample::select([&parts[..], &more[..]].concat());
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_text_is_accepted_and_only_white_space_and_a_few_marks_change(text in prop_oneof![any::<String>(), marked()]) {
        let kept = |text: &str| text.chars().filter(|&c| !is_space(c)).collect::<String>();
        for detokenizer in Detokenizer::ALL {
            let whole = detokenizer.apply(&text);
            if detokenizer == Detokenizer::Lm1b {
                prop_assert_eq!(kept(&whole), kept(&text));
            }
            if detokenizer != Detokenizer::Lambada {
                prop_assert!(whole.len() <= text.len());
            }
        }
    }

    #[test]
    fn lambada_and_ag_news_applied_twice_are_as_applied_once(text in prop_oneof![any::<String>(), marked()]) {
        for detokenizer in [Detokenizer::Lambada, Detokenizer::AgNews] {
            let once = detokenizer.apply(&text).into_owned();
            prop_assert_eq!(&detokenizer.apply(&once), &once);
        }
    }

    #[test]
    fn one_pass_is_enough_for_an_ordinary_sentence_of_lm1b(
        clauses in prop::collection::vec(("[a-z]{2,7}( [a-z]{2,7}){0,3}", " (,|;|:) "), 1..4),
        last in "[a-z]{2,7} (\\.|\\?|!)\n?",
    ) {
        let split: String = clauses.iter().map(|(words, mark)| format!("{words}{mark}")).collect::<String>()
            + "they 'll " + &last;
        let whole = Detokenizer::Lm1b.apply(&split).into_owned();
        prop_assert!(![" ,", " ;", " :", " .", " ?", " !", " '"].iter().any(|mark| whole.contains(mark)), "{}", whole);
        prop_assert_eq!(&Detokenizer::Lm1b.apply(&whole), &whole);
    }
}
