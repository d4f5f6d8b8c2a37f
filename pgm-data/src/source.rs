//! Where text comes from: plain files, JSONL and Parquet, each read in a stream.
//!
//! A detokenizer sees text before it is cut: documents of JSONL and Parquet whole, plain text line by line. So the
//! pieces make the same text wherever they end.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rayon::prelude::*;
use serde_json::Value;

use crate::{DataError, Detokenizer};

/// Bytes of text handed on at a time. A longer text file comes in several pieces.
const PIECE: usize = 256 * 1024;

/// A stretch of text, and whether a document ends with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The text.
    pub text: String,
    /// Whether it is the document's last piece.
    pub ends_document: bool,
    /// Whether a validation split may cut it: plain text may be cut anywhere, other documents stay whole.
    pub divisible: bool,
    /// Bytes of text in the file that it was made of; without a detokenizer its own.
    pub source_bytes: u64,
}

impl Piece {
    fn document(text: String, source_bytes: usize) -> Self {
        Self { text, ends_document: true, divisible: false, source_bytes: source_bytes as u64 }
    }
}

/// What inputs hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes of text, before any detokenizer.
    pub bytes: u64,
    /// Documents: plain files, lines of JSONL, rows of Parquet that are not null.
    pub documents: u64,
}

/// Files to read, in order, with the names of the text field and column.
#[derive(Clone, Debug)]
pub struct TextInputs {
    files: Vec<PathBuf>,
    field: String,
    column: String,
    detokenizer: Option<Detokenizer>,
}

impl TextInputs {
    /// Resolves paths, folders (searched recursively, hidden and binary files left out) and glob patterns.
    ///
    /// `*.jsonl` and `*.ndjson` are read as JSONL with the text in `field`, `*.parquet` as Parquet with the text in
    /// `column`, anything else as plain text, one document a file.
    ///
    /// # Errors
    /// [`DataError::NoInput`] for a pattern without a file, [`DataError::Io`] for an unreadable folder.
    pub fn resolve(patterns: &[String], field: &str, column: &str) -> Result<Self, DataError> {
        let mut files = Vec::new();
        for pattern in patterns {
            let path = Path::new(pattern);
            let before = files.len();
            if path.is_dir() {
                walk(path, &mut files)?;
            } else if path.is_file() {
                files.push(path.to_path_buf());
            } else {
                let no_input = || DataError::NoInput { pattern: pattern.clone() };
                let matches = glob::glob(pattern).map_err(|_| no_input())?;
                files.extend(matches.flatten().filter(|path| path.is_file()));
            }
            if files.len() == before {
                return Err(DataError::NoInput { pattern: pattern.clone() });
            }
        }
        Ok(Self { files, field: field.to_string(), column: column.to_string(), detokenizer: None })
    }

    /// The same files, their text detokenised.
    pub fn detokenized(self, detokenizer: Option<Detokenizer>) -> Self {
        Self { detokenizer, ..self }
    }

    /// What undoes the spacing of the text, if anything.
    pub fn detokenizer(&self) -> Option<Detokenizer> {
        self.detokenizer
    }

    /// The files, in the order in which they are read.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Bytes of text and documents in all files. Plain files are not opened for it; JSONL and Parquet are read once,
    /// with `poll` called at every document so that the caller can stop.
    ///
    /// # Errors
    /// As [`for_each_piece`](Self::for_each_piece), and what `poll` returns.
    pub fn size(&self, poll: &mut dyn FnMut() -> Result<(), DataError>) -> Result<Size, DataError> {
        let mut total = Size::default();
        for path in &self.files {
            if matches!(Kind::of(path), Kind::Text) {
                total.bytes += path.metadata().map_err(DataError::io("read", path))?.len();
                total.documents += 1;
            } else {
                self.read_file(path, None, &mut |piece| {
                    total.bytes += piece.source_bytes;
                    total.documents += 1;
                    poll()
                })?;
            }
        }
        Ok(total)
    }

    /// Hands on all text in order, in pieces of bounded size.
    ///
    /// # Errors
    /// What the files hold wrong, by file and place, and whatever `f` returns.
    pub fn for_each_piece(&self, f: &mut dyn FnMut(Piece) -> Result<(), DataError>) -> Result<(), DataError> {
        self.files.iter().try_for_each(|path| self.read_file(path, self.detokenizer, f))
    }

    fn read_file(
        &self,
        path: &Path,
        detokenizer: Option<Detokenizer>,
        f: &mut dyn FnMut(Piece) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        match (Kind::of(path), detokenizer) {
            (Kind::Text, None) => read_text(path, f),
            (Kind::Text, Some(detokenizer)) => read_detokenized_text(path, detokenizer, f),
            (Kind::JsonLines, _) => read_json_lines(path, &self.field, detokenizer, f),
            (Kind::Parquet, _) => read_parquet(path, &self.column, detokenizer, f),
        }
    }
}

enum Kind {
    Text,
    JsonLines,
    Parquet,
}

impl Kind {
    fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("jsonl" | "ndjson") => Self::JsonLines,
            Some("parquet") => Self::Parquet,
            _ => Self::Text,
        }
    }
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let entries = std::fs::read_dir(folder).map_err(DataError::io("read", folder))?;
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
    let paths = paths.as_mut().map_err(|_| DataError::NoInput { pattern: folder.display().to_string() })?;
    paths.sort();
    for path in paths.iter() {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden {
            continue;
        }
        if path.is_dir() {
            walk(path, files)?;
        } else if path.is_file() && (!matches!(Kind::of(path), Kind::Text) || !looks_binary(path)?) {
            files.push(path.clone());
        }
    }
    Ok(())
}

fn looks_binary(path: &Path) -> Result<bool, DataError> {
    let mut start = Vec::new();
    let file = File::open(path).map_err(DataError::io("read", path))?;
    file.take(8192).read_to_end(&mut start).map_err(DataError::io("read", path))?;
    Ok(start.contains(&0))
}

fn read_text(path: &Path, f: &mut dyn FnMut(Piece) -> Result<(), DataError>) -> Result<(), DataError> {
    let mut file = File::open(path).map_err(DataError::io("read", path))?;
    let mut buffer = Vec::with_capacity(2 * PIECE);
    let mut offset = 0_u64;
    loop {
        let wanted = (2 * PIECE - buffer.len()) as u64;
        let read = (&mut file).take(wanted).read_to_end(&mut buffer).map_err(DataError::io("read", path))?;
        let at_end = (read as u64) < wanted;
        let text = match std::str::from_utf8(&buffer) {
            Ok(text) => text,
            // A character cut by the buffer's end is whole in the next round.
            Err(error) if error.error_len().is_none() && !at_end => {
                std::str::from_utf8(&buffer[..error.valid_up_to()]).expect("valid up to there")
            }
            Err(error) => {
                let offset = offset + error.valid_up_to() as u64;
                return Err(DataError::NotUtf8 { path: path.to_path_buf(), offset });
            }
        };
        if at_end {
            let source_bytes = text.len() as u64;
            return f(Piece { text: text.to_string(), ends_document: true, divisible: true, source_bytes });
        }
        let cut = cut_point(text);
        let source_bytes = cut as u64;
        f(Piece { text: text[..cut].to_string(), ends_document: false, divisible: true, source_bytes })?;
        buffer.drain(..cut);
        offset += cut as u64;
    }
}

// As `read_text`, each line detokenised before the text is cut. A line is held in memory whole.
fn read_detokenized_text(
    path: &Path,
    detokenizer: Detokenizer,
    f: &mut dyn FnMut(Piece) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut file = BufReader::new(File::open(path).map_err(DataError::io("read", path))?);
    let (mut text, mut source_bytes, mut offset) = (String::new(), 0_u64, 0_u64);
    loop {
        let (mut lines, mut n_bytes) = (Vec::new(), 0);
        while n_bytes < 2 * PIECE {
            let mut line = Vec::new();
            let read = file.read_until(b'\n', &mut line).map_err(DataError::io("read", path))?;
            if read == 0 {
                break;
            }
            let line = String::from_utf8(line).map_err(|error| DataError::NotUtf8 {
                path: path.to_path_buf(),
                offset: offset + error.utf8_error().valid_up_to() as u64,
            })?;
            lines.push(line);
            n_bytes += read;
            offset += read as u64;
        }
        let whole: Vec<Cow<str>> = lines.par_iter().map(|line| detokenizer.apply(line)).collect();
        text.extend(whole);
        source_bytes += n_bytes as u64;
        if n_bytes < 2 * PIECE {
            return f(Piece { text, ends_document: true, divisible: true, source_bytes });
        }
        let rest = text.split_off(cut_point(&text));
        // The bytes of the file are shared out by length, which is all that a split by bytes needs.
        let all = (text.len() + rest.len()).max(1);
        let rest_bytes = (u128::from(source_bytes) * rest.len() as u128 / all as u128) as u64;
        f(Piece { text, ends_document: false, divisible: true, source_bytes: source_bytes - rest_bytes })?;
        (text, source_bytes) = (rest, rest_bytes);
    }
}

// The last white space that follows something else: tokenizers that split before white space, GPT-2's and BERT's among
// them, give the same tokens for the two halves as for the whole.
fn cut_point(text: &str) -> usize {
    let mut later_is_space = None;
    for (index, character) in text.char_indices().rev() {
        match later_is_space {
            Some(cut) if !character.is_whitespace() => return cut,
            _ => later_is_space = character.is_whitespace().then_some(index),
        }
    }
    text.len()
}

fn read_json_lines(
    path: &Path,
    field: &str,
    detokenizer: Option<Detokenizer>,
    f: &mut dyn FnMut(Piece) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let malformed = |line: usize, problem: String| DataError::Malformed {
        path: path.to_path_buf(),
        problem: format!("line {line}: {problem}"),
    };
    let file = File::open(path).map_err(DataError::io("read", path))?;
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(DataError::io("read", path))?;
        if line.trim().is_empty() {
            continue;
        }
        let value: Value =
            serde_json::from_str(&line).map_err(|error| malformed(index + 1, format!("is not JSON ({error})")))?;
        let Some(text) = value.get(field).and_then(Value::as_str) else {
            return Err(malformed(index + 1, format!("has no text field {field:?}; name it with --field")));
        };
        f(Piece::document(whole(text, detokenizer), text.len()))?;
    }
    Ok(())
}

fn whole(text: &str, detokenizer: Option<Detokenizer>) -> String {
    detokenizer.map_or(Cow::Borrowed(text), |detokenizer| detokenizer.apply(text)).into_owned()
}

fn read_parquet(
    path: &Path,
    column: &str,
    detokenizer: Option<Detokenizer>,
    f: &mut dyn FnMut(Piece) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let malformed = |problem: String| DataError::Malformed { path: path.to_path_buf(), problem };
    let unreadable = |error: String| malformed(format!("is not a readable Parquet file ({error})"));
    let file = File::open(path).map_err(DataError::io("read", path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| unreadable(error.to_string()))?;
    let names: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let Some(index) = names.iter().position(|name| name == column) else {
        return Err(malformed(format!("has no column {column:?}, but {}; name one with --column", names.join(", "))));
    };
    let mask = ProjectionMask::roots(builder.parquet_schema(), [index]);
    let reader = builder.with_projection(mask).with_batch_size(256).build();
    for batch in reader.map_err(|error| unreadable(error.to_string()))? {
        let batch = batch.map_err(|error| unreadable(error.to_string()))?;
        let array = batch.column(0);
        let texts: Vec<&str> = if let Some(strings) = array.as_string_opt::<i32>() {
            strings.iter().flatten().collect()
        } else if let Some(strings) = array.as_string_opt::<i64>() {
            strings.iter().flatten().collect()
        } else if let Some(strings) = array.as_string_view_opt() {
            strings.iter().flatten().collect()
        } else {
            return Err(malformed(format!("column {column:?} holds {}, not text", array.data_type())));
        };
        let documents: Vec<Piece> =
            texts.into_par_iter().map(|text| Piece::document(whole(text, detokenizer), text.len())).collect();
        documents.into_iter().try_for_each(&mut *f)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(path: &Path) -> Result<Vec<Piece>, DataError> {
        let inputs = TextInputs::resolve(&[path.display().to_string()], "text", "text")?;
        let mut pieces = Vec::new();
        inputs.for_each_piece(&mut |piece| {
            pieces.push(piece);
            Ok(())
        })?;
        Ok(pieces)
    }

    #[test]
    fn a_long_text_comes_in_pieces_that_make_it_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long.txt");
        let text: String = (0..200_000).map(|i| if i % 9 == 0 { "ünï\n\ncode " } else { "word " }).collect();
        std::fs::write(&path, &text).unwrap();
        let pieces = pieces(&path).unwrap();
        assert!(pieces.len() > 1);
        assert_eq!(pieces.iter().filter(|piece| piece.ends_document).count(), 1);
        for piece in &pieces[1..] {
            assert!(piece.text.starts_with(char::is_whitespace));
        }
        assert!(pieces.into_iter().map(|piece| piece.text).collect::<String>() == text);
    }

    #[test]
    fn plain_text_is_detokenised_by_line_whatever_the_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long.txt");
        // Lines of all lengths, one longer than several pieces, and none ends at a multiple of the piece.
        let long = "so , \" it \" is ; ".repeat(5 * PIECE / 15);
        let lines: Vec<String> =
            (0..40_000).map(|i| format!("{}ünï said : \" no , {i} \" .\n", "well , ".repeat(i % 7))).collect();
        let text = [&lines[..20_000].concat(), &long, "\n", &lines[20_000..].concat(), "the end ."].concat();
        std::fs::write(&path, &text).unwrap();
        let inputs = TextInputs::resolve(&[path.display().to_string()], "text", "text").unwrap();
        let inputs = inputs.detokenized(Some(Detokenizer::Lm1b));
        let (mut whole, mut n_pieces, mut source_bytes) = (String::new(), 0, 0);
        inputs
            .for_each_piece(&mut |piece| {
                assert!(whole.is_empty() || piece.text.starts_with(char::is_whitespace));
                whole.push_str(&piece.text);
                n_pieces += 1;
                source_bytes += piece.source_bytes;
                Ok(())
            })
            .unwrap();
        let expected: String = text.split_inclusive('\n').map(|line| Detokenizer::Lm1b.apply(line)).collect();
        assert!(whole == expected && whole.ends_with("\"no, 39999\" .\nthe end."));
        assert!(n_pieces > 3);
        assert_eq!(source_bytes, text.len() as u64);
        assert_eq!(inputs.size(&mut || Ok(())).unwrap(), Size { bytes: source_bytes, documents: 1 });
        std::fs::write(&path, [text.as_bytes(), b"\xe9"].concat()).unwrap();
        let message = inputs.for_each_piece(&mut |_| Ok(())).unwrap_err().to_string();
        assert!(message.contains(&format!("at byte {}", text.len())), "{message}");
    }

    #[test]
    fn bytes_that_are_no_text_are_named_with_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latin1.txt");
        let mut bytes = vec![b'a'; 3 * PIECE];
        bytes.push(0xe9);
        bytes.extend(b" la carte");
        std::fs::write(&path, bytes).unwrap();
        let message = pieces(&path).unwrap_err().to_string();
        assert!(message.contains(&format!("at byte {}", 3 * PIECE)), "{message}");
    }

    #[test]
    fn json_lines_are_documents_and_a_bad_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, "{\"text\":\"one\\n\"}\n\n{\"text\":\"two\",\"n\":1}\n").unwrap();
        let texts: Vec<String> = pieces(&path).unwrap().into_iter().map(|piece| piece.text).collect();
        assert_eq!(texts, ["one\n", "two"]);
        std::fs::write(&path, "{\"text\":\"one\"}\n{\"body\":\"two\"}\n").unwrap();
        let message = pieces(&path).unwrap_err().to_string();
        assert!(message.contains("line 2") && message.contains("--field"), "{message}");
    }

    #[test]
    fn parquet_columns_are_documents_and_a_missing_column_is_named() {
        use std::sync::Arc;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let column: arrow_array::ArrayRef =
            Arc::new(arrow_array::StringArray::from(vec![Some("one"), None, Some("zwei")]));
        let batch = arrow_array::RecordBatch::try_from_iter([("text", column)]).unwrap();
        let mut writer =
            parquet::arrow::ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let texts: Vec<String> = pieces(&path).unwrap().into_iter().map(|piece| piece.text).collect();
        assert_eq!(texts, ["one", "zwei"]);
        let inputs = TextInputs::resolve(&[path.display().to_string()], "text", "text").unwrap();
        assert_eq!(inputs.size(&mut || Ok(())).unwrap(), Size { bytes: 7, documents: 2 });
        let inputs = TextInputs::resolve(&[path.display().to_string()], "text", "body").unwrap();
        let message = inputs.for_each_piece(&mut |_| Ok(())).unwrap_err().to_string();
        assert!(message.contains("no column \"body\", but text"), "{message}");
    }

    #[test]
    fn folders_and_globs_are_searched_and_an_empty_match_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("b")).unwrap();
        std::fs::write(folder.path().join("b/2.txt"), "two").unwrap();
        std::fs::write(folder.path().join("1.txt"), "one").unwrap();
        std::fs::write(folder.path().join("image.png"), [1, 0, 2]).unwrap();
        std::fs::write(folder.path().join(".hidden"), "no").unwrap();
        let count = |pattern: String| TextInputs::resolve(&[pattern], "text", "text").map(|inputs| inputs.files.len());
        assert_eq!(count(folder.path().display().to_string()).unwrap(), 2);
        assert_eq!(count(format!("{}/*.txt", folder.path().display())).unwrap(), 1);
        assert!(matches!(count(format!("{}/*.md", folder.path().display())), Err(DataError::NoInput { .. })));
    }
}
