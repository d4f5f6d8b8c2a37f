//! The `pgm-data` command.

mod args;
mod codes;
mod images;
mod inspect;
mod listing;
mod merge;
mod no_shard;
mod prepare;
mod progress;
mod train_tokenizer;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use args::{Cli, Command};

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
        Command::Merge(args) => merge::run(&args),
        Command::Images(args) => images::run(&args),
        Command::Codes(args) => codes::run(&args),
        Command::Inspect(args) => inspect::run(&args),
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
