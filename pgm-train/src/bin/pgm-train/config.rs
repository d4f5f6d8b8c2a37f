//! `pgm-train config`.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use pgm_train::Objective;
use pgm_train::config::reference::{FileKind, commented_toml};

#[derive(Args)]
pub struct ConfigArgs {
    /// What the file is for: a training with this objective, a distillation, or a codec
    #[arg(long, value_enum, default_value = "partition")]
    objective: ObjectiveArg,
}

#[derive(Clone, Copy, ValueEnum)]
enum ObjectiveArg {
    Partition,
    Masked,
    MaskedComplementary,
    Autoregressive,
    Maskgit,
    Distill,
    Codec,
}

pub fn run(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let kind = match args.objective {
        ObjectiveArg::Partition => FileKind::Train(Objective::Partition),
        ObjectiveArg::Masked => FileKind::Train(Objective::Masked),
        ObjectiveArg::MaskedComplementary => FileKind::Train(Objective::MaskedComplementary),
        ObjectiveArg::Autoregressive => FileKind::Train(Objective::Autoregressive),
        ObjectiveArg::Maskgit => FileKind::Train(Objective::Maskgit),
        ObjectiveArg::Distill => FileKind::Distill,
        ObjectiveArg::Codec => FileKind::Codec,
    };
    std::io::stdout().write_all(commented_toml(kind).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
