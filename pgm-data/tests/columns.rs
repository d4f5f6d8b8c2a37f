//! Parquet and Arrow as other programs write them.

mod common;

use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::types::{Int8Type, Int32Type};
use arrow_array::{
    ArrayRef, BinaryArray, BinaryViewArray, DictionaryArray, Int64Array, LargeBinaryArray, LargeStringArray, ListArray,
    NullArray, RecordBatch, StringArray, StringViewArray, StructArray,
};
use arrow_schema::{DataType, Field, Schema};
use common::{Case, strings};
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use pgm_data::Split;

fn dictionary() -> ArrayRef {
    Arc::new(vec!["one", "two", "one"].into_iter().collect::<DictionaryArray<Int32Type>>())
}

fn nested(texts: &[&str]) -> ArrayRef {
    let field = Arc::new(Field::new("text", DataType::Utf8, true));
    Arc::new(StructArray::from(vec![(field, strings(texts))]))
}

fn ids(rows: Vec<Option<Vec<Option<i32>>>>) -> ArrayRef {
    Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(rows))
}

#[test]
fn text_is_read_from_every_type_that_holds_it() {
    let small: DictionaryArray<Int8Type> = vec!["one", "two", "one"].into_iter().collect();
    let texts = ["one", "two", "one"];
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("Utf8", strings(&texts)),
        ("LargeUtf8", Arc::new(LargeStringArray::from(texts.to_vec()))),
        ("Utf8View", Arc::new(StringViewArray::from(texts.to_vec()))),
        ("Binary", Arc::new(BinaryArray::from_iter_values(texts))),
        ("LargeBinary", Arc::new(LargeBinaryArray::from_iter_values(texts))),
        ("BinaryView", Arc::new(BinaryViewArray::from_iter_values(texts))),
        ("Dictionary", dictionary()),
        ("Dictionary of Int8", Arc::new(small)),
    ];
    for (name, column) in columns {
        let case = Case::new();
        case.write_parquet("a.parquet", vec![("text", column.clone())], Compression::UNCOMPRESSED);
        assert_eq!(case.documents("--input a.parquet"), texts, "Parquet of {name}");
        // Feather, a stream as the datasets library writes, and names that do not tell.
        let batch = RecordBatch::try_from_iter([("id", strings(&["a", "b", "c"])), ("text", column)]).unwrap();
        let mut file = arrow_ipc::writer::FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        file.write(&batch).unwrap();
        let mut stream = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        stream.write(&batch).unwrap();
        let (file, stream) = (file.into_inner().unwrap(), stream.into_inner().unwrap());
        for (file_name, content) in [("a.feather", &file), ("a.ARROW", &stream), ("a.bin", &file), ("a", &stream)] {
            let case = Case::with(file_name, content);
            assert_eq!(case.documents(&format!("--input {file_name}")), texts, "{file_name} of {name}");
        }
    }
}

#[test]
fn every_usual_compression_of_parquet_and_feather_is_read() {
    for compression in [
        Compression::BROTLI(BrotliLevel::default()),
        Compression::GZIP(GzipLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
        Compression::SNAPPY,
        Compression::LZ4_RAW,
    ] {
        let case = Case::new();
        case.write_parquet("a.PARQUET", vec![("text", strings(&["one", "two"]))], compression);
        assert_eq!(case.documents("--input a.PARQUET"), ["one", "two"], "{compression}");
    }
    for compression in [arrow_ipc::CompressionType::LZ4_FRAME, arrow_ipc::CompressionType::ZSTD] {
        let batch = RecordBatch::try_from_iter([("text", strings(&["one", "two"]))]).unwrap();
        let options = arrow_ipc::writer::IpcWriteOptions::default().try_with_compression(Some(compression)).unwrap();
        let mut file =
            arrow_ipc::writer::FileWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
        file.write(&batch).unwrap();
        let case = Case::with("a.feather", file.into_inner().unwrap());
        assert_eq!(case.documents("--input a.feather"), ["one", "two"], "{compression:?}");
    }
}

#[test]
fn nested_columns_have_dotted_paths_and_nulls_at_any_depth() {
    let case = Case::new();
    case.write_parquet(
        "a.parquet",
        vec![("data", nested(&["one", "two"])), ("data.id", nested(&["x", "y"]))],
        Compression::SNAPPY,
    );
    assert_eq!(case.documents("--input a.parquet --column data.text"), ["one", "two"]);
    assert_eq!(case.documents("--input a.parquet --column data.id.text"), ["x", "y"]);
    for (column, says) in [
        ("text", "has no column \"text\", its columns are data.text, data.id.text"),
        ("data", "column \"data\" is a struct of text"),
        ("data.body", "column \"data.body\" is a struct of text"),
        ("data.text.more", "a part of its path has the type Utf8"),
    ] {
        let message = case.refusal(&format!("--input a.parquet --column {column}"));
        assert!(message.contains(says) && message.contains("--column"), "{message}");
    }
    // A struct that is null, a text that is null in a struct, and a column of nulls only.
    let text = Arc::new(Field::new("text", DataType::Utf8, true));
    let inner: ArrayRef = Arc::new(StringArray::from(vec![Some("one"), None, Some("hidden"), Some("two")]));
    let validity = vec![true, true, false, true].into();
    let outer = StructArray::new(vec![text].into(), vec![inner], Some(validity));
    let case = Case::new();
    case.write_parquet("a.parquet", vec![("data", Arc::new(outer))], Compression::SNAPPY);
    assert_eq!(case.documents("--input a.parquet --column data.text"), ["one", "two"]);
    assert_eq!(case.folder().manifest().skipped_nulls, 4);
    let schema = Schema::new(vec![Field::new("text", DataType::Null, true)]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(NullArray::new(3))]).unwrap();
    let mut stream = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    stream.write(&batch).unwrap();
    let message = Case::with("a.arrow", stream.into_inner().unwrap()).refusal("--input a.arrow");
    assert!(message.contains("0 tokens"), "{message}");
}

#[test]
fn lists_of_numbers_are_token_ids_and_lists_of_texts_are_documents() {
    let case = Case::new();
    let rows = vec![Some(vec![Some(256), Some(97), Some(98), Some(256)]), None, Some(vec![Some(99)])];
    let mut texts = ListBuilder::new(StringBuilder::new());
    texts.append_value([Some("a"), Some("b")]);
    texts.append_value([Some("c")]);
    let texts = texts.finish();
    case.write_parquet("ids.parquet", vec![("input_ids", ids(rows))], Compression::SNAPPY);
    case.write_parquet("texts.parquet", vec![("text", Arc::new(texts))], Compression::SNAPPY);
    // BOS and EOS around the ids are not doubled.
    assert_eq!(case.documents("--input ids.parquet --column input_ids"), ["ab", "c"]);
    assert_eq!(case.tokens(Split::Train)[0][..5], [256, 97, 98, 256, 256]);
    assert_eq!(case.documents("--input texts.parquet"), ["a", "b", "c"]);
    case.write("ids.jsonl", "{\"input_ids\": [97, 98]}\n{\"input_ids\": []}\n");
    assert_eq!(case.documents("--input ids.jsonl --field input_ids"), ["ab"]);
    for (rows, says) in [
        (vec![Some(vec![Some(97), Some(258)])], "token id 258 is outside the tokenizer's vocabulary of 258"),
        (vec![Some(vec![Some(97), Some(-1)])], "row 1: has a number that is no token id"),
        (vec![Some(vec![Some(97), Some(257)])], "mask token <|mask|>"),
    ] {
        let case = Case::new();
        case.write_parquet("a.parquet", vec![("text", ids(rows))], Compression::SNAPPY);
        let message = case.refusal("--input a.parquet");
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn what_is_no_text_is_refused_with_its_type_and_bad_rows_with_their_number() {
    let case = Case::new();
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values([&b"one"[..], b"caf\xe9"]));
    case.write_parquet("a.parquet", vec![("n", numbers), ("text", bytes)], Compression::SNAPPY);
    let message = case.refusal("--input a.parquet --column n");
    assert!(message.contains("has the type Int64, not text"), "{message}");
    let message = case.refusal("--input a.parquet");
    assert!(message.contains("row 2: is not UTF-8"), "{message}");
    assert_eq!(case.documents("--input a.parquet --skip-bad"), ["one"]);
    let packed = common::gzip(&std::fs::read(case.path("a.parquet")).unwrap());
    let message = Case::with("a.parquet.gz", packed).refusal("--input a.parquet.gz");
    assert!(message.contains("is parquet within gzip"), "{message}");
}
