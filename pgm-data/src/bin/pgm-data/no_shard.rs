//! `--shard` of commands that have no such option.

use clap::Args;

/// `--shard` where there is no such option, so that its absence can be explained.
#[derive(Args)]
pub(crate) struct NoShard {
    #[arg(long, hide = true, value_name = "I/N")]
    shard: Option<String>,
}

impl NoShard {
    /// `why` is a sentence without its full stop.
    pub(crate) fn check(&self, command: &str, why: &str) -> anyhow::Result<()> {
        anyhow::ensure!(self.shard.is_none(), "pgm-data {command} has no --shard: {why}");
        Ok(())
    }
}
