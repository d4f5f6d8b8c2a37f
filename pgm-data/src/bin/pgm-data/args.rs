//! The arguments of the command.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use pgm_data::{
    DataError, Detokenizer, Documents, FileFormat, PartIndex, ReadOptions, SpecialNames, TextEncoding, TextInputs,
};

use crate::codes::CodesArgs;
use crate::images::ImagesArgs;
use crate::no_shard::NoShard;

/// Turns text and pictures into the rows that pgm-train reads.
#[derive(Parser)]
#[command(name = "pgm-data", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Tokenize text, JSON, CSV, Parquet or Arrow files into a data folder
    Prepare(Box<PrepareArgs>),
    /// Make one data folder of the parts of prepare --shard
    Merge(MergeArgs),
    /// Turn pictures into a data folder of pixels, or of pixels as tokens
    Images(Box<ImagesArgs>),
    /// Turn codes that other programs made of pictures into a data folder
    Codes(Box<CodesArgs>),
    /// Show the counts of a data folder and some of its rows as text, codes or pictures
    Inspect(InspectArgs),
    /// Train a byte-level BPE tokenizer
    TrainTokenizer(TrainTokenizerArgs),
}

#[derive(Args)]
pub(crate) struct InputArgs {
    /// Files, folders or glob patterns, or - for standard input. JSON, CSV, TSV, Parquet and Arrow files are known by
    /// their extension and content, also with .gz or .zst; any other file is plain text
    #[arg(long, required = true, num_args = 1..)]
    pub(crate) input: Vec<String>,
    /// The text field of JSON records: a name, a dotted path such as data.text, or a JSON Pointer
    #[arg(long, default_value = "text")]
    field: String,
    /// The text column of Parquet, Arrow, CSV and TSV files: a name or a dotted path. A column of lists of numbers has
    /// token ids
    #[arg(long, default_value = "text")]
    column: String,
    /// The format of all files: text, json-lines, json, csv, tsv, parquet or arrow
    #[arg(long)]
    format: Option<FileFormat>,
    /// The encoding of the files that are not UTF-8: utf-16le, latin1, shift_jis, ...
    #[arg(long)]
    encoding: Option<TextEncoding>,
    /// A document of plain text: file, line, blank-line, or any other text as the separator
    #[arg(long, value_name = "file|line|blank-line|SEPARATOR", default_value = "file", allow_hyphen_values = true)]
    documents: Documents,
    /// Count and name records that cannot be read, and leave them out
    #[arg(long)]
    skip_bad: bool,
    /// Restore the spacing of a corpus: lm1b, wikitext, ptb, lambada, ag-news or papers
    #[arg(long, value_name = "CORPUS")]
    detokenize: Option<Detokenizer>,
}

impl InputArgs {
    pub(crate) fn resolve(&self) -> Result<TextInputs, DataError> {
        self.resolve_patterns(&self.input)
    }

    /// Other files with the same settings.
    pub(crate) fn resolve_patterns(&self, patterns: &[String]) -> Result<TextInputs, DataError> {
        let options = ReadOptions {
            field: self.field.clone(),
            column: self.column.clone(),
            format: self.format,
            encoding: self.encoding,
            documents: self.documents.clone(),
            skip_bad: self.skip_bad,
        };
        Ok(TextInputs::find(patterns, &options)?.detokenized(self.detokenize))
    }
}

#[derive(Args)]
pub(crate) struct PrepareArgs {
    #[command(flatten)]
    pub(crate) input: InputArgs,
    /// "bytes", or the path of a Hugging Face tokenizer.json or of its folder
    #[arg(long, required_unless_present = "dry_run")]
    pub(crate) tokenizer: Option<String>,
    /// Tokens per row, BOS included
    #[arg(long, required_unless_present = "dry_run")]
    pub(crate) length: Option<usize>,
    /// The folder to create; it must not exist. With --shard it is the folder of all parts, and may exist
    #[arg(long, required_unless_present = "dry_run")]
    pub(crate) out: Option<PathBuf>,
    /// Prepare only part I of N, with I from 0 to N - 1 as in SLURM_ARRAY_TASK_ID and JOB_COMPLETION_INDEX. Run the same
    /// command for every I, on any machines that share --out, in any order; then pgm-data merge OUT makes the same data
    /// folder as one process would. A finished part is skipped, one that was killed starts over
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<PartIndex>,
    /// Only say which files are read, how, and which are left out
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The weight of the --input before it, in a mixture of several --input: its share of the bytes of text. Each
    /// --input needs one. No text is used twice: the input that is smallest for its weight is taken whole, of the
    /// others as much as fits
    #[arg(long, value_name = "NUMBER")]
    pub(crate) weight: Vec<f64>,
    /// Put the documents in a random order, which depends on this number only
    #[arg(long, value_name = "SEED")]
    pub(crate) shuffle_documents: Option<u64>,
    /// Hold out this fraction of the text, counted in bytes from the end [default: 0.05]. Documents stay whole, unless
    /// no row is left then
    #[arg(long, group = "validation")]
    pub(crate) val_fraction: Option<f64>,
    /// Hold out this many of the last documents instead
    #[arg(long, group = "validation")]
    pub(crate) val_documents: Option<u64>,
    /// Use other inputs for validation instead. A folder with a validation split needs no option: it is used
    #[arg(long, group = "validation", num_args = 1..)]
    pub(crate) val: Option<Vec<String>>,
    /// How documents become rows
    #[arg(long, value_enum, default_value = "pack")]
    pub(crate) mode: ModeArg,
    /// End every packed row with EOS, as in the public code
    #[arg(long)]
    pub(crate) row_eos: bool,
    /// Names of special tokens, for example bos=[CLS],eos=[SEP],pad=[PAD],mask=[MASK]. Others are looked up in
    /// tokenizer_config.json and by the usual names. A vocabulary without BOS, EOS or mask gets one more token for each
    #[arg(long, value_name = "ROLE=NAME,...")]
    pub(crate) special_tokens: Option<SpecialNames>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ModeArg {
    /// Documents concatenated with EOS between them, cut into rows
    Pack,
    /// One document per row, truncated or padded
    Pad,
}

#[derive(Args)]
pub(crate) struct MergeArgs {
    /// The --out of prepare --shard, or several such folders, or single parts. All parts must be there, made of the same
    /// inputs with the same options
    #[arg(required = true, num_args = 1..)]
    pub(crate) parts: Vec<PathBuf>,
    /// The folder to create; it must not exist [default: the data folder is made in the folder of the parts]
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Remove the parts when the data folder is complete
    #[arg(long)]
    pub(crate) remove_parts: bool,
}

#[derive(Args)]
pub(crate) struct InspectArgs {
    /// The data folder
    pub(crate) folder: PathBuf,
    /// Rows to show from each split
    #[arg(long, default_value_t = 2)]
    pub(crate) rows: usize,
}

#[derive(Args)]
pub(crate) struct TrainTokenizerArgs {
    #[command(flatten)]
    pub(crate) input: InputArgs,
    /// Size of the vocabulary, special tokens included
    #[arg(long)]
    pub(crate) vocab_size: usize,
    /// The tokenizer.json to write
    #[arg(long)]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) no_shard: NoShard,
}
