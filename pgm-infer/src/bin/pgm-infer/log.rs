//! `--log-level`: which messages go to stderr, beside the commands' own output.

use std::io::IsTerminal;

use anyhow::{Context, anyhow};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;

/// Starts logging at `--log-level`, else at the level of the variable `RUST_LOG`, else at `info`.
pub fn start(level: Option<&str>) -> anyhow::Result<()> {
    let filter = match level {
        Some(level) => parse(level)?,
        // Other programs read the variable, too, so an unknown value is not an error.
        None => std::env::var("RUST_LOG").ok().and_then(|level| level.parse().ok()).unwrap_or_else(default),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // A log that cannot be written, on a full disk for example, must not end the program.
        .log_internal_errors(false);
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    tracing::subscriber::set_global_default(subscriber).context("cannot start logging")
}

fn default() -> Targets {
    Targets::new().with_default(LevelFilter::INFO)
}

fn parse(level: &str) -> anyhow::Result<Targets> {
    // A list takes a single word for the name of a module.
    let is_list = level.contains(['=', ',']);
    let filter = if is_list {
        level.parse().ok()
    } else {
        level.parse().ok().map(|level: LevelFilter| Targets::new().with_default(level))
    };
    filter.ok_or_else(|| {
        anyhow!(
            "--log-level {level:?} is not a level; give off, error, warn, info, debug, trace, or a list like info,pgm_infer=debug"
        )
    })
}
