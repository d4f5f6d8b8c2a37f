//! A folder of inputs, and the command run in it.
#![allow(dead_code)] // each test file uses its part

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use pgm_data::{DataFolder, Split, TextInputs, TextTokenizer};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What a run of the command gave.
pub struct Output {
    pub ok: bool,
    pub stdout: String,
    pub stderr: String,
}

/// A folder in which the command runs.
pub struct Case(TempDir);

impl Case {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A folder with one file.
    pub fn with(name: &str, content: impl AsRef<[u8]>) -> Self {
        let case = Self::new();
        case.write(name, content);
        case
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    pub fn write_json(&self, name: &str, value: &Value) -> &Self {
        self.write(name, serde_json::to_vec(value).unwrap())
    }

    pub fn write_parquet(&self, name: &str, columns: Vec<(&str, ArrayRef)>, compression: Compression) -> &Self {
        self.write(name, parquet(columns, compression))
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.run_with_input(args, b"")
    }

    pub fn run_with_input(&self, args: &[&str], input: &[u8]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgm-data"));
        command.args(args).current_dir(self.0.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Output { ok: output.status.success(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Prepares bytes in rows of one document each. The folder is `out`.
    pub fn prepare(&self, args: &str) -> Output {
        let _ = std::fs::remove_dir_all(self.path("out"));
        let fixed = "prepare --tokenizer bytes --length 64 --mode pad --out out";
        let args: Vec<&str> = fixed.split(' ').chain(args.split_whitespace()).collect();
        self.run(&args)
    }

    /// The documents of the rows that [`prepare`](Self::prepare) gives, with the inputs as validation text too.
    pub fn documents(&self, args: &str) -> Vec<String> {
        let input = args.split_whitespace().nth(1).unwrap();
        let output = self.prepare(&format!("{args} --val {input}"));
        assert!(output.ok, "{args}: {}", output.stderr);
        self.rows(Split::Train)
    }

    /// What [`prepare`](Self::prepare) says where it fails.
    pub fn refusal(&self, args: &str) -> String {
        let output = self.prepare(args);
        assert!(!output.ok, "{args} was not refused: {}", output.stdout);
        assert!(!self.path("out").exists());
        output.stderr
    }

    pub fn folder(&self) -> DataFolder {
        DataFolder::open(&self.path("out")).unwrap()
    }

    /// The texts of a split's rows.
    pub fn rows(&self, split: Split) -> Vec<String> {
        let folder = self.folder();
        let rows = folder.rows(split).unwrap();
        let text = |row: pgm_data::Row| folder.tokenizer().unwrap().decode(&row.tokens[..row.valid]).unwrap();
        (0..rows.len()).map(|index| text(rows.row(index).unwrap())).collect()
    }

    /// The tokens of a split's rows.
    pub fn tokens(&self, split: Split) -> Vec<Vec<u32>> {
        let rows = self.folder().rows(split).unwrap();
        (0..rows.len()).map(|index| rows.row(index).unwrap().tokens).collect()
    }
}

pub fn parquet(columns: Vec<(&str, ArrayRef)>, compression: Compression) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)));
    let batch = batch.unwrap();
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

pub fn strings(texts: &[&str]) -> ArrayRef {
    Arc::new(arrow_array::StringArray::from(texts.to_vec()))
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The `tokenizer.json` of a small byte-level BPE, with `<|endoftext|>` and `<|mask|>` as its last tokens.
pub fn small_bpe() -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.txt");
    std::fs::write(&path, "the quick brown fox jumps over the lazy dog and the river runs ".repeat(20)).unwrap();
    let inputs = TextInputs::resolve(&[path.display().to_string()], "text", "text").unwrap();
    let tokenizer = TextTokenizer::train(&inputs, 300, &|_| ()).unwrap();
    serde_json::from_slice(tokenizer.json()).unwrap()
}

/// The same without special tokens.
pub fn small_bpe_without_special_tokens() -> Value {
    let mut tokenizer = small_bpe();
    tokenizer["added_tokens"] = json!([]);
    tokenizer
}

/// A special token for `added_tokens`.
pub fn added(id: u64, name: &str, special: bool) -> Value {
    json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
           "normalized": false, "special": special})
}

/// The arguments of `prepare` for files in the folder.
pub fn display(path: &Path) -> String {
    path.display().to_string()
}
