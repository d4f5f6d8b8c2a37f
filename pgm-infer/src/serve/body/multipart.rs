//! `multipart/form-data` (RFC 7578) of a body that is in memory.

use super::parse::BodyError;

/// The most parts of a form.
const MAX_PARTS: usize = 128;
/// The most bytes of a part's headers.
const MAX_HEADERS: usize = 8 << 10;
/// The most characters of a boundary (RFC 2046).
const MAX_BOUNDARY: usize = 70;

/// A field of a form.
#[derive(Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// Its name.
    pub name: String,
    /// Whether it is a file: it names one.
    pub is_file: bool,
    /// Its bytes.
    pub content: &'a [u8],
}

/// The boundary that a Content-Type of `multipart/form-data` names; none for another type.
pub fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameter(parameters, "boundary")?;
    (1..=MAX_BOUNDARY).contains(&boundary.chars().count()).then_some(boundary)
}

/// The fields of a form, in their order.
///
/// # Errors
/// When the body does not begin, go on or end as the boundary says, and when a part has no name.
pub fn parts<'a>(body: &'a [u8], boundary: &str) -> Result<Vec<Part<'a>>, BodyError> {
    let wrong = |problem: &str| {
        let message = format!("the body is not the multipart/form-data that its Content-Type says: {problem}");
        BodyError { field: None, message }
    };
    let delimiter = format!("\r\n--{boundary}").into_bytes();
    // The first delimiter may stand at the very beginning.
    let mut rest = match body.strip_prefix(&delimiter[2..]) {
        Some(rest) => rest,
        None => &body[find(body, &delimiter).ok_or_else(|| wrong("the boundary is missing"))? + delimiter.len()..],
    };
    let mut parts = Vec::new();
    while !rest.starts_with(b"--") {
        if parts.len() == MAX_PARTS {
            return Err(wrong(&format!("it has more than {MAX_PARTS} parts")));
        }
        // Spaces may stand behind a boundary.
        let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let part = rest[padding..].strip_prefix(b"\r\n").ok_or_else(|| wrong("a boundary ends no line"))?;
        // A part without headers begins with the empty line.
        let (headers, content) = match part.strip_prefix(b"\r\n") {
            Some(content) => (&b""[..], content),
            None => {
                let end = find(&part[..part.len().min(MAX_HEADERS)], b"\r\n\r\n");
                let end = end.ok_or_else(|| wrong("the headers of a part do not end"))?;
                (&part[..end], &part[end + 4..])
            }
        };
        let end = find(content, &delimiter).ok_or_else(|| wrong("it ends within a part"))?;
        let headers = String::from_utf8_lossy(headers);
        let disposition = headers.split("\r\n").find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let (kind, parameters) = value.split_once(';')?;
            let fits = name.trim().eq_ignore_ascii_case("content-disposition")
                && kind.trim().eq_ignore_ascii_case("form-data");
            fits.then(|| (parameter(parameters, "name"), parameter(parameters, "filename")))
        });
        let Some((Some(name), file)) = disposition else { return Err(wrong("a part has no name")) };
        let is_file = file.is_some() || headers.to_ascii_lowercase().contains("filename*=");
        parts.push(Part { name, is_file, content: &content[..end] });
        rest = &content[end + delimiter.len()..];
    }
    Ok(parts)
}

// The value of a parameter in `a=b; c="d"`. A backslash in a quoted value makes a quote or a backslash a letter.
fn parameter(text: &str, wanted: &str) -> Option<String> {
    let mut rest = text;
    loop {
        let (name, value) = rest.split_once('=')?;
        let (name, value) = (name.trim_matches(|c: char| c == ';' || c.is_whitespace()), value.trim_start());
        let (found, after) = match value.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let (found, after) = value.split_once(';').unwrap_or((value, ""));
                (found.trim().to_string(), after)
            }
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(found);
        }
        rest = after;
    }
}

// The text up to the closing quote, and what follows it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut found = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((found, &text[at + 1..])),
            '\\' => {
                // Old browsers send paths with backslashes.
                let (_, next) = letters.next()?;
                if !matches!(next, '"' | '\\') {
                    found.push('\\');
                }
                found.push(next);
            }
            _ => found.push(letter),
        }
    }
    None
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boundary_is_read_from_the_type() {
        for (kind, expected) in [
            ("multipart/form-data; boundary=abc", Some("abc")),
            ("Multipart/Form-Data; charset=utf-8; Boundary=\"a b\"", Some("a b")),
            ("multipart/form-data; boundary=\"a\\\"b\"; x=y", Some("a\"b")),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("multipart/form-data; boundary=\"abc", None),
            ("multipart/mixed; boundary=abc", None),
            ("application/json", None),
        ] {
            assert_eq!(boundary(kind).as_deref(), expected, "{kind}");
        }
        assert_eq!(boundary(&format!("multipart/form-data; boundary={}", "x".repeat(71))), None);
    }

    #[test]
    fn parts_have_names_files_and_any_bytes() {
        let body = b"a preamble\r\n--XX  \r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na \"cat\"\r\n\
            --XX\r\ncontent-type: image/png\r\ncontent-disposition: form-data; filename=\"a\\\"; name=b.png\"; name=image\r\n\r\n\
            \x89PNG\r\n\r\n--X\0\xff\r\n--XX\r\nContent-Disposition: form-data; name=\"\"\r\n\r\n\r\n--XX--\r\nan epilogue";
        let found = parts(body, "XX").unwrap();
        let part = |name: &str, is_file, content: &'static [u8]| Part { name: name.into(), is_file, content };
        let expected = [
            part("prompt", false, b"a \"cat\""),
            part("image", true, b"\x89PNG\r\n\r\n--X\0\xff"),
            part("", false, b""),
        ];
        assert_eq!(found, expected);
        assert_eq!(parts(b"--XX--", "XX").unwrap(), []);
    }

    #[test]
    fn a_form_that_is_cut_or_nameless_is_an_error() {
        let whole = b"--XX\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n1\r\n--XX--\r\n";
        assert_eq!(parts(whole, "XX").unwrap().len(), 1);
        for end in 0..whole.len() - 4 {
            assert!(parts(&whole[..end], "XX").is_err(), "{end}");
        }
        for body in [
            &b"--XX\r\n\r\n1\r\n--XX--"[..],
            b"--XX\r\nContent-Disposition: attachment; name=\"n\"\r\n\r\n1\r\n--XX--",
            b"--XXY\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n1\r\n--XXY--",
            b"{\"n\": 1}",
        ] {
            assert!(parts(body, "XX").unwrap_err().message.contains("multipart/form-data"));
        }
        let many = b"--XX\r\nContent-Disposition: form-data; name=n\r\n\r\n\r\n".repeat(200);
        assert!(parts(&many, "XX").unwrap_err().message.contains("more than 128"));
        let header = [&b"--XX\r\n"[..], &b"a: b\r\n".repeat(2000), b"\r\n\r\n--XX--"].concat();
        assert!(parts(&header, "XX").unwrap_err().message.contains("headers"));
    }
}
