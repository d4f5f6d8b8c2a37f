//! The `pgm-infer` command.

mod bench;
mod convert;
mod devices;
mod edit;
mod generate;
mod info;
#[cfg(feature = "server")]
mod listen;
mod log;
mod picture_flags;
mod pictures;
mod plot;
#[cfg(feature = "server")]
mod serve;
#[cfg(feature = "server")]
mod signals;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

// Burn's Flex backend allocates a new tensor for every result. This allocator keeps freed memory, which saves the page
// faults of getting it from the system again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Generates text or pictures with a Partition Generative Model: in parallel, in any order, around what is given.
#[derive(Parser)]
#[command(name = "pgm-infer", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What to log: off, error, warn, info, debug, trace, or a list like info,pgm_infer=debug
    /// [default: the variable RUST_LOG, else info]
    #[arg(long, global = true, value_name = "LEVEL", display_order = 900)]
    log_level: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Continues a prompt, fills in a template, or writes freely; draws pictures
    Generate(Box<generate::GenerateArgs>),
    /// Draws a part of a picture again, or continues it beyond its edges
    Edit(Box<edit::EditArgs>),
    /// Shows the configuration, the size and the sampler defaults of a model folder
    Info(info::InfoArgs),
    /// Measures sampling speed and prints one JSON object
    Bench(bench::BenchArgs),
    /// Converts a published checkpoint to a model folder
    Import(convert::ImportArgs),
    /// Writes a model folder's weights under the published names
    Export(convert::ExportArgs),
    /// Serves models over HTTP: OpenAI's completions and images, infilling, a page
    #[cfg(feature = "server")]
    Serve(serve::ServeArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match log::start(cli.log_level.as_deref()).and_then(|()| run(&cli.command)) {
        // As a shell reports a program that Ctrl-C ended.
        Ok(()) if generate::was_interrupted() => ExitCode::from(130),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "pgm-infer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Generate(args) => generate::generate(args),
        Command::Edit(args) => edit::edit(args),
        Command::Info(args) => info::info(args),
        Command::Bench(args) => bench::bench(args),
        Command::Import(args) => convert::import(args, &devices::any_device()?),
        Command::Export(args) => convert::export(args, &devices::any_device()?),
        #[cfg(feature = "server")]
        Command::Serve(args) => serve::serve(args),
    }
}
