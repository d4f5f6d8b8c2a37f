//! Numbers and texts of a pickle.

use std::borrow::Cow;

use super::value::Value;

/// A decimal integer; `None` when it is no number.
pub(super) fn decimal<'a>(digits: &[u8]) -> Option<Value<'a>> {
    let digits = digits.trim_ascii();
    let (sign, magnitude) = digits.split_at(usize::from(digits.starts_with(b"-")));
    if magnitude.is_empty() || !magnitude.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let parsed = std::str::from_utf8(magnitude).ok().and_then(|text| text.parse::<i64>().ok());
    Some(parsed.map_or(Value::BigInt, |value| Value::Int(if sign.is_empty() { value } else { -value })))
}

/// An integer in two's complement, little-endian.
pub(super) fn long<'a>(digits: &[u8]) -> Value<'a> {
    let Some(&last) = digits.last() else { return Value::Int(0) };
    let fill = if last >= 0x80 { 0xff } else { 0 };
    let mut bytes = [fill; 8];
    let n_significant = digits.iter().rposition(|&digit| digit != fill).map_or(0, |index| index + 1);
    if n_significant > 8 {
        return Value::BigInt;
    }
    bytes[..n_significant].copy_from_slice(&digits[..n_significant]);
    let value = i64::from_le_bytes(bytes);
    // Eight significant bytes may have lost their sign to the ninth.
    if (value < 0) == (fill == 0xff) { Value::Int(value) } else { Value::BigInt }
}

/// A text of protocol 0: ASCII with `\x`, `\u` and `\U` escapes and those of Python's `repr`.
pub(super) fn unescape(bytes: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(bytes);
    if !text.contains('\\') {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    while let Some(start) = rest.find('\\') {
        plain.push_str(&rest[..start]);
        let escape = &rest[start + 1..];
        let n_digits = match escape.as_bytes().first() {
            Some(b'x') => 2,
            Some(b'u') => 4,
            Some(b'U') => 8,
            _ => 0,
        };
        let code = escape.get(1..1 + n_digits).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        if let Some(letter) = code.and_then(char::from_u32).filter(|_| n_digits > 0) {
            plain.push(letter);
            rest = &escape[1 + n_digits..];
            continue;
        }
        let simple = match escape.as_bytes().first() {
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(&quote @ (b'\\' | b'\'' | b'"')) => char::from(quote),
            _ => {
                plain.push('\\');
                rest = escape;
                continue;
            }
        };
        plain.push(simple);
        rest = &escape[1..];
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}
