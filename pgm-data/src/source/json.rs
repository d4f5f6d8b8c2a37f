//! JSON lines, JSON arrays, and JSON values one after the other: one document per record.

use std::io::BufRead;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::error::Category;

use super::field_path::{FieldPath, FieldReader, FieldSeed};
use super::input_file::InputFile;
use super::open::{OpenedText, read_error};
use super::plain_text::PIECE;
use super::records::RecordSink;
use crate::error::DataError;

/// Longer texts are cut into pieces while the parser has them, so that memory holds them once.
const LONG: usize = 2 * PIECE;

/// Reads the text in `field` of each line. Empty lines are skipped.
pub(super) fn read_lines(
    file: &InputFile,
    opened: OpenedText,
    field: &str,
    sink: &mut RecordSink,
) -> Result<(), DataError> {
    let path = FieldPath::new(field);
    let OpenedText { mut reader, mark_bytes, before } = opened;
    let (mut line, mut offset, mut number) = (Vec::new(), before + mark_bytes, 0_u64);
    loop {
        line.clear();
        let n_bytes = reader.read_until(b'\n', &mut line).map_err(|error| read_error(file, error))?;
        if n_bytes == 0 {
            return Ok(());
        }
        number += 1;
        let place = || match before {
            0 => format!("line {number}"),
            // The lines before were not counted.
            _ => format!("line {number} after byte {before}"),
        };
        match std::str::from_utf8(&line) {
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) => read_line(text, &path, field, &place, sink)?,
            Err(error) => {
                let at = offset + error.valid_up_to() as u64;
                let problem = format!("is not UTF-8 at byte {at} of the file; give its encoding with --encoding");
                sink.bad(&place(), &problem)?;
            }
        }
        offset += n_bytes as u64;
        if line.capacity() > LONG && n_bytes < LONG {
            line = Vec::new();
        }
    }
}

fn read_line(
    line: &str,
    path: &FieldPath,
    field: &str,
    place: &dyn Fn() -> String,
    sink: &mut RecordSink,
) -> Result<(), DataError> {
    // A long text is passed on before the end of its line is parsed, so the line is checked before.
    if line.len() > LONG
        && let Err(error) = serde_json::from_str::<IgnoredAny>(line)
    {
        return sink.bad(&place(), &format!("is not JSON ({error})"));
    }
    let (mut values, problem) = {
        let mut long = |text: &str| sink.push_long(text, place);
        let mut reader = FieldReader::new(path, LONG, &mut long);
        let mut parser = serde_json::Deserializer::from_str(line);
        let parsed = reader.record().deserialize(&mut parser).and_then(|()| parser.end());
        if let Some(error) = reader.failed.take() {
            return Err(error);
        }
        let problem = match parsed {
            Err(error) => Some(format!("is not JSON ({error})")),
            Ok(()) => reader.problem(field),
        };
        (std::mem::take(&mut reader.values), problem)
    };
    match problem {
        Some(problem) => {
            values.clear();
            sink.bad(&place(), &problem)
        }
        None => sink.push(values, place),
    }
}

/// Reads a file of JSON values: arrays of records, records, or lines of records.
pub(super) fn read_values(
    file: &InputFile,
    mut opened: OpenedText,
    field: &str,
    sink: &mut RecordSink,
) -> Result<(), DataError> {
    if starts_with_a_line(&mut opened).map_err(|error| read_error(file, error))? {
        return read_lines(file, opened, field, sink);
    }
    let path = FieldPath::new(field);
    let mut parser = serde_json::Deserializer::from_reader(opened.reader);
    let mut records = Records { path: &path, field, sink, index: 0, failed: None };
    while parser.end().is_err() {
        if let Err(error) = (TopSeed { records: &mut records }).deserialize(&mut parser) {
            if let Some(failed) = records.failed.take() {
                return Err(failed);
            }
            if error.classify() == Category::Io {
                return Err(read_error(file, error.into()));
            }
            let problem = format!("record {}: is not JSON ({error})", records.index + 1);
            return Err(DataError::Malformed { path: file.path().to_path_buf(), problem });
        }
    }
    Ok(())
}

// Whether the file starts with an object that ends on its line, as JSON lines do.
fn starts_with_a_line(opened: &mut OpenedText) -> std::io::Result<bool> {
    let mut start = Vec::new();
    let end = loop {
        let buffer = opened.reader.fill_buf()?;
        if buffer.is_empty() {
            break None;
        }
        if start.is_empty() && buffer[0].is_ascii_whitespace() {
            opened.reader.consume(1);
            continue;
        }
        if start.is_empty() && buffer[0] != b'{' {
            return Ok(false);
        }
        let newline = buffer.iter().position(|&byte| byte == b'\n');
        let n_bytes = newline.unwrap_or(buffer.len());
        start.extend_from_slice(&buffer[..n_bytes]);
        opened.reader.consume(n_bytes);
        if newline.is_some() || start.len() > LONG {
            break newline;
        }
    };
    let long = end.is_none() && start.len() > LONG;
    let is_line = long || serde_json::from_slice::<IgnoredAny>(&start).is_ok();
    let rest = std::mem::replace(&mut opened.reader, Box::new(std::io::empty()));
    opened.reader = Box::new(std::io::Read::chain(std::io::Cursor::new(start), rest));
    Ok(is_line)
}

struct Records<'p, 's, 'k> {
    path: &'p FieldPath,
    field: &'p str,
    sink: &'s mut RecordSink<'k>,
    index: u64,
    failed: Option<DataError>,
}

/// A value at the top of a file: an array of records, or a record.
struct TopSeed<'r, 'p, 's, 'k> {
    records: &'r mut Records<'p, 's, 'k>,
}

impl<'de> DeserializeSeed<'de> for TopSeed<'_, '_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TopSeed<'_, '_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("an array of records, or records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element_seed(RecordSeed { records: &mut *self.records })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, entries: A) -> Result<(), A::Error> {
        self.records.read(|seed| seed.visit_map(entries))
    }
}

struct RecordSeed<'r, 'p, 's, 'k> {
    records: &'r mut Records<'p, 's, 'k>,
}

impl<'de> DeserializeSeed<'de> for RecordSeed<'_, '_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.records.read(|seed| seed.deserialize(deserializer))
    }
}

impl Records<'_, '_, '_> {
    fn read<E: serde::de::Error>(
        &mut self,
        parse: impl FnOnce(FieldSeed<'_, '_, '_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let index = self.index + 1;
        let place = move || format!("record {index}");
        let sink = &mut *self.sink;
        let (values, problem) = {
            let mut long = |text: &str| sink.push_long(text, &place);
            let mut reader = FieldReader::new(self.path, LONG, &mut long);
            let parsed = parse(reader.record());
            self.failed = reader.failed.take();
            parsed?;
            let problem = reader.problem(self.field);
            (std::mem::take(&mut reader.values), problem)
        };
        self.index = index;
        let pushed = match problem {
            Some(problem) => self.sink.bad(&place(), &problem),
            None => self.sink.push(values, &place),
        };
        pushed.map_err(|error| {
            self.failed = Some(error);
            E::custom("stopped")
        })
    }
}
