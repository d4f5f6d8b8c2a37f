//! Any text through the template parser; what it reads, written out again, reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../pgm-infer/src/template.rs"]
mod template;

use template::Part;

// What the parser names of its crate.
#[derive(Debug)]
enum InferError {
    Request(String),
}

fuzz_target!(|data: (&str, u8)| {
    let (text, blank) = (data.0, usize::from(data.1));
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
