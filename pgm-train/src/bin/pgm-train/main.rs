//! The `pgm-train` command: one file per subcommand.

mod bench;
mod codec;
mod config;
mod convert;
mod curves;
mod distill;
mod eval;
mod eval_cache;
mod eval_frontier;
mod eval_images;
mod events;
mod fit;
mod memory;
mod progress;
mod ranks;
mod transcode;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pgm_infer::device;

/// Trains, distils and measures Partition Generative Models and their baselines.
#[derive(Parser)]
#[command(name = "pgm-train", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Trains a model on a prepared data folder
    Fit(fit::FitArgs),
    /// Trains a codec on a folder of pixels: pictures to codes and back
    Codec(codec::CodecArgs),
    /// Makes a data folder of codes from one of pixels
    Encode(transcode::TranscodeArgs),
    /// Makes a data folder of pixels from one of codes
    Decode(transcode::TranscodeArgs),
    /// Makes a partition model of a masked one, for fit to train on
    Convert(convert::ConvertArgs),
    /// Distils a model in rounds: the student of each learns to do in one step what its teacher does in two
    Distill(distill::DistillArgs),
    /// Measures a model and prints one JSON object
    #[command(subcommand)]
    Eval(Box<eval::EvalCommand>),
    /// Times one step and prints one JSON object
    Bench(bench::BenchArgs),
    /// Draws the validations of several runs in one picture; the last run is the goal of the others
    Curves(curves::CurvesArgs),
    /// Prints a configuration file with every key, its default and its meaning
    Config(config::ConfigArgs),
}

fn main() -> ExitCode {
    // SAFETY: no other thread runs yet.
    #[allow(unsafe_code)]
    unsafe {
        device::restore_through_the_cpu();
    }
    memory::keep_what_is_freed();
    let command = Cli::parse().command;
    let in_ranks = matches!(command, Command::Fit(_) | Command::Distill(_));
    let allowed = if in_ranks { Ok(()) } else { pgm_train::processes_started("this command") };
    let result = allowed.map_err(|message| anyhow::anyhow!(message)).and_then(|()| run(command));
    result.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "pgm-train: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Fit(args) => fit::run(&args),
        Command::Distill(args) => distill::run(&args),
        Command::Codec(args) => codec::run(&args),
        Command::Encode(args) => transcode::encode(&args),
        Command::Decode(args) => transcode::decode(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Eval(command) => eval::run(&command),
        Command::Bench(args) => bench::run(&args),
        Command::Curves(args) => curves::run(&args),
        Command::Config(args) => config::run(&args),
    }
}
