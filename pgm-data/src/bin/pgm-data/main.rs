//! The `pgm-data` command.

mod args;
mod listing;
mod prepare;
mod progress;
mod train_tokenizer;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use pgm_data::{DataFolder, Split};

use args::{Cli, Command, InspectArgs};

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let result = match cli.command {
        Command::Prepare(args) => {
            // How many patterns each --input has, for the weights.
            let occurrences = matches.subcommand_matches("prepare").and_then(|m| m.get_occurrences::<String>("input"));
            let inputs = occurrences.into_iter().flatten().map(|patterns| patterns.cloned().collect()).collect();
            prepare::run(&args, inputs)
        }
        Command::Inspect(args) => inspect(&args),
        Command::TrainTokenizer(args) => train_tokenizer::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the output has enough of it, as `head` has.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "pgm-data: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn inspect(args: &InspectArgs) -> anyhow::Result<()> {
    let folder = DataFolder::open(&args.folder)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string_pretty(folder.manifest())?)?;
    if folder.image().is_some() {
        return Ok(());
    }
    let tokenizer = folder.tokenizer()?;
    for (name, split) in [("training", Split::Train), ("validation", Split::Validation)] {
        let rows = folder.rows(split)?;
        for index in 0..args.rows.min(rows.len()) {
            let row = rows.row(index)?;
            let text = tokenizer.decode(&row.tokens[..row.valid])?;
            writeln!(out, "{name} row {index}, {} of {} tokens valid: {text:?}", row.valid, row.tokens.len())?;
        }
    }
    Ok(())
}
