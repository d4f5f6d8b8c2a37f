//! The `pgm-data` command.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pgm_data::{
    DataError, DataFolder, Detokenizer, Mode, Prepare, Progress, SpecialNames, Split, TextInputs, TextTokenizer,
    Validation, prepare,
};

/// Turns text into the token rows that pgm-train reads.
#[derive(Parser)]
#[command(name = "pgm-data", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Tokenize text files, JSONL or Parquet into a data folder
    Prepare(PrepareArgs),
    /// Show the counts of a data folder and some of its rows as text
    Inspect(InspectArgs),
    /// Train a byte-level BPE tokenizer
    TrainTokenizer(TrainTokenizerArgs),
}

#[derive(Args)]
struct InputArgs {
    /// Files, folders or glob patterns: *.jsonl, *.ndjson, *.parquet, and any other file as plain text
    #[arg(long, required = true, num_args = 1..)]
    input: Vec<String>,
    /// The text field of JSONL lines
    #[arg(long, default_value = "text")]
    field: String,
    /// The text column of Parquet files
    #[arg(long, default_value = "text")]
    column: String,
    /// Restore the spacing of a corpus: lm1b, wikitext, ptb, lambada, ag-news or papers
    #[arg(long, value_name = "CORPUS")]
    detokenize: Option<Detokenizer>,
}

impl InputArgs {
    fn resolve(&self) -> Result<TextInputs, DataError> {
        self.resolve_patterns(&self.input)
    }

    /// Other files with the same field, column and detokenizer.
    fn resolve_patterns(&self, patterns: &[String]) -> Result<TextInputs, DataError> {
        Ok(TextInputs::resolve(patterns, &self.field, &self.column)?.detokenized(self.detokenize))
    }
}

#[derive(Args)]
struct PrepareArgs {
    #[command(flatten)]
    input: InputArgs,
    /// "bytes", or the path of a Hugging Face tokenizer.json
    #[arg(long)]
    tokenizer: String,
    /// Tokens per row, BOS included
    #[arg(long)]
    length: usize,
    /// The folder to create; it must not exist
    #[arg(long)]
    out: PathBuf,
    /// Hold out this fraction of the text, counted in bytes from the end [default: 0.05]
    #[arg(long, group = "validation")]
    val_fraction: Option<f64>,
    /// Hold out this many of the last documents instead
    #[arg(long, group = "validation")]
    val_documents: Option<u64>,
    /// Use other inputs for validation instead
    #[arg(long, group = "validation", num_args = 1..)]
    val: Option<Vec<String>>,
    /// How documents become rows
    #[arg(long, value_enum, default_value = "pack")]
    mode: ModeArg,
    /// End every packed row with EOS, as in the public code
    #[arg(long)]
    row_eos: bool,
    /// Names of special tokens, for example bos=[CLS],eos=[SEP],pad=[PAD],mask=[MASK]. Others are looked up in
    /// tokenizer_config.json and by the usual names. A vocabulary without a mask gets one more token
    #[arg(long, value_name = "ROLE=NAME,...")]
    special_tokens: Option<SpecialNames>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ModeArg {
    /// Documents concatenated with EOS between them, cut into rows
    Pack,
    /// One document per row, truncated or padded
    Pad,
}

#[derive(Args)]
struct InspectArgs {
    /// The data folder
    folder: PathBuf,
    /// Rows to show from each split
    #[arg(long, default_value_t = 2)]
    rows: usize,
}

#[derive(Args)]
struct TrainTokenizerArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Size of the vocabulary, special tokens included
    #[arg(long)]
    vocab_size: usize,
    /// The tokenizer.json to write
    #[arg(long)]
    out: PathBuf,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Prepare(args) => run_prepare(&args),
        Command::Inspect(args) => run_inspect(&args),
        Command::TrainTokenizer(args) => run_train_tokenizer(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "pgm-data: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_prepare(args: &PrepareArgs) -> anyhow::Result<()> {
    let inputs = args.input.resolve()?;
    let tokenizer = match (args.tokenizer.as_str(), &args.special_tokens) {
        ("bytes", Some(_)) => anyhow::bail!("--special-tokens has no effect with --tokenizer bytes; remove it"),
        ("bytes", None) => TextTokenizer::bytes(),
        (path, names) => TextTokenizer::from_file(Path::new(path), &names.clone().unwrap_or_default())?,
    };
    let validation = match (&args.val, args.val_documents) {
        (Some(patterns), _) => Validation::TextInputs(args.input.resolve_patterns(patterns)?),
        (None, Some(n_documents)) => Validation::Documents(n_documents),
        (None, None) => Validation::Fraction(args.val_fraction.unwrap_or(0.05)),
    };
    let mode = match args.mode {
        ModeArg::Pack => Mode::Pack,
        ModeArg::Pad => Mode::Pad,
    };
    let options = Prepare {
        inputs: &inputs,
        validation: &validation,
        tokenizer: &tokenizer,
        length: args.length,
        mode,
        row_eos: args.row_eos,
        out: &args.out,
    };
    let mut display = ProgressDisplay::new();
    let manifest = prepare(&options, &mut |progress| display.update(progress))?;
    display.finish();
    let mut out = std::io::stdout().lock();
    for (name, split) in [("training", &manifest.train), ("validation", &manifest.validation)] {
        writeln!(
            out,
            "{name}: {} rows of {} tokens from {} documents, {} tokens of {} bytes, {} dropped",
            split.rows, manifest.length, split.documents, split.tokens, split.text_bytes, split.dropped_tokens
        )?;
    }
    writeln!(out, "{}", args.out.display())?;
    Ok(())
}

static STOP: AtomicBool = AtomicBool::new(false);

/// A bar on a terminal, a plain line every few seconds elsewhere.
struct ProgressDisplay {
    bar: ProgressBar,
    plain: bool,
    start: Instant,
    last: Instant,
}

impl ProgressDisplay {
    fn new() -> Self {
        // Without a handler Ctrl-C still ends the program, but the temporary folder remains.
        let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed));
        let plain = !std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let template = "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, plain, start: Instant::now(), last: Instant::now() }
    }

    fn update(&mut self, progress: Progress) -> ControlFlow<()> {
        if progress.total > 0 {
            self.show(progress);
        }
        if STOP.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn show(&mut self, progress: Progress) {
        self.bar.set_length(progress.total);
        self.bar.set_position(progress.done);
        if self.plain && self.last.elapsed() > Duration::from_secs(5) {
            self.last = Instant::now();
            let rate = progress.done as f64 / self.start.elapsed().as_secs_f64();
            let left = (progress.total.saturating_sub(progress.done)) as f64 / rate;
            let percent = 100.0 * progress.done as f64 / progress.total as f64;
            let _ = writeln!(std::io::stderr(), "{percent:.0} %  {:.1} MB/s  {left:.0} s left", rate / 1e6);
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn run_inspect(args: &InspectArgs) -> anyhow::Result<()> {
    let folder = DataFolder::open(&args.folder)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string_pretty(folder.manifest())?)?;
    for (name, split) in [("training", Split::Train), ("validation", Split::Validation)] {
        let rows = folder.rows(split)?;
        for index in 0..args.rows.min(rows.len()) {
            let row = rows.row(index)?;
            let text = folder.tokenizer().decode(&row.tokens[..row.valid])?;
            writeln!(out, "{name} row {index}, {} of {} tokens valid: {text:?}", row.valid, row.tokens.len())?;
        }
    }
    Ok(())
}

fn run_train_tokenizer(args: &TrainTokenizerArgs) -> anyhow::Result<()> {
    let inputs = args.input.resolve()?;
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}{bytes} read in {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    let tokenizer = TextTokenizer::train(&inputs, args.vocab_size, &|n_bytes| bar.set_position(n_bytes))?;
    bar.finish_and_clear();
    tokenizer.save(&args.out)?;
    writeln!(std::io::stdout(), "{} tokens in {}", tokenizer.vocab_size(), args.out.display())?;
    Ok(())
}
