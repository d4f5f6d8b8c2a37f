//! Feeds arbitrary text to the template parser. The spans cover the text, and its parts, written as a template, parse
//! to the same parts.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../pgm-infer/src/text/template.rs"]
mod template;

use template::Part;

// The error type that the parser uses.
#[derive(Debug)]
enum InferError {
    Request(String),
}

fuzz_target!(|data: (&str, u8)| {
    let (text, blank) = (data.0, usize::from(data.1));
    let ranges: Vec<_> = template::spans(text).into_iter().map(|span| span.range).collect();
    assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
    assert_eq!(ranges.iter().map(|range| text[range.clone()].len()).sum::<usize>(), text.len());
    let parts = match template::parse(text, blank) {
        Ok(parts) => parts,
        Err(InferError::Request(message)) => return assert!(message.contains("at least one token")),
    };
    assert!(parts.windows(2).all(|pair| !matches!(pair, [Part::Text(_), Part::Text(_)])));
    let written: String = parts.iter().map(write).collect();
    assert_eq!(template::parse(&written, 1).unwrap(), parts);
});

fn write(part: &Part) -> String {
    match part {
        Part::Text(text) => {
            assert!(!text.is_empty());
            text.replace('\\', r"\\").replace('{', r"\{").replace('_', r"\_")
        }
        Part::Blank(count) => {
            assert!(*count > 0);
            format!("{{{count}}}")
        }
        Part::Free => "{*}".into(),
    }
}
