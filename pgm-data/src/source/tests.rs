use std::path::Path;

use super::plain_text::PIECE;
use super::{InputSize, TextInputs, TextPiece};
use crate::detokenize::Detokenizer;
use crate::error::DataError;

fn pieces(path: &Path) -> Result<Vec<TextPiece>, DataError> {
    let inputs = TextInputs::resolve(&[path.display().to_string()], "text", "text")?;
    let mut pieces = Vec::new();
    inputs.for_each_piece(&mut |piece| {
        pieces.push(piece);
        Ok(())
    })?;
    Ok(pieces)
}

#[test]
fn the_pieces_of_a_long_text_make_the_whole_text() {
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
fn plain_text_is_detokenized_by_line_wherever_the_pieces_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.txt");
    // Lines of all lengths. One is longer than several pieces, and none ends at a multiple of the piece size.
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
    assert_eq!(inputs.size(&mut || Ok(())).unwrap(), InputSize { bytes: source_bytes, documents: 1 });
    std::fs::write(&path, [text.as_bytes(), b"\xe9"].concat()).unwrap();
    let message = inputs.for_each_piece(&mut |_| Ok(())).unwrap_err().to_string();
    assert!(message.contains(&format!("at byte {}", text.len())), "{message}");
}

#[test]
fn bytes_that_are_not_utf8_are_named_with_their_offset() {
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

#[cfg(not(feature = "columns"))]
#[test]
fn a_parquet_file_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.parquet", "a.arrow"] {
        let path = folder.path().join(name);
        std::fs::write(&path, "PAR1").unwrap();
        let message = pieces(&path).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("prepare it with pgm-data"), "{message}");
    }
}

#[cfg(feature = "columns")]
#[test]
fn parquet_columns_are_documents_and_a_missing_column_is_named() {
    use std::sync::Arc;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let column: arrow_array::ArrayRef = Arc::new(arrow_array::StringArray::from(vec![Some("one"), None, Some("zwei")]));
    let batch = arrow_array::RecordBatch::try_from_iter([("text", column)]).unwrap();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let texts: Vec<String> = pieces(&path).unwrap().into_iter().map(|piece| piece.text).collect();
    assert_eq!(texts, ["one", "zwei"]);
    let inputs = TextInputs::resolve(&[path.display().to_string()], "text", "text").unwrap();
    assert_eq!(inputs.size(&mut || Ok(())).unwrap(), InputSize { bytes: 7, documents: 2 });
    let inputs = TextInputs::resolve(&[path.display().to_string()], "text", "body").unwrap();
    let message = inputs.for_each_piece(&mut |_| Ok(())).unwrap_err().to_string();
    assert!(message.contains("no column \"body\", its columns are text"), "{message}");
}

#[test]
fn folders_and_globs_are_searched_and_a_pattern_without_a_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("b")).unwrap();
    std::fs::write(folder.path().join("b/2.txt"), "two").unwrap();
    std::fs::write(folder.path().join("1.txt"), "one").unwrap();
    std::fs::write(folder.path().join("image.png"), [1, 0, 2]).unwrap();
    std::fs::write(folder.path().join(".hidden"), "no").unwrap();
    let count = |pattern: String| TextInputs::resolve(&[pattern], "text", "text").map(|inputs| inputs.files().len());
    assert_eq!(count(folder.path().display().to_string()).unwrap(), 2);
    assert_eq!(count(format!("{}/*.txt", folder.path().display())).unwrap(), 1);
    assert!(matches!(count(format!("{}/*.md", folder.path().display())), Err(DataError::NoInput { .. })));
}
