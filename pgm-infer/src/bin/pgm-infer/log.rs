//! `--log-level`: what is written to stderr beside the commands' own output.

use std::io::IsTerminal;

use anyhow::{Context, anyhow};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

/// What is logged without `--log-level` and `RUST_LOG`.
const DEFAULT: &str = "info";

/// Starts logging; `level` goes before the environment variable `RUST_LOG`.
pub fn start(level: Option<&str>) -> anyhow::Result<()> {
    let from_environment = std::env::var("RUST_LOG").ok().filter(|level| !level.trim().is_empty());
    let (source, level) = match (level, &from_environment) {
        (Some(level), _) => ("--log-level", level),
        (None, Some(level)) => ("RUST_LOG", level.as_str()),
        (None, None) => ("the default", DEFAULT),
    };
    let filter: Targets = level.parse().map_err(|error| {
        anyhow!("{source} {level:?} is no level ({error}); it is off, error, warn, info, debug, trace or a list like info,pgm_infer=debug")
    })?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // A log that cannot be written, on a full disk for one, ends nothing.
        .log_internal_errors(false);
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    tracing::subscriber::set_global_default(subscriber).context("logging was started twice")
}
