//! `pgm-train curves`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use pgm_train::{Curve, draw_curves};

#[derive(Args)]
pub struct CurvesArgs {
    /// Runs: each a folder of pgm-train fit, or NAME=FOLDER to name its curve
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<String>,
    /// The picture to write, .svg
    #[arg(long)]
    out: PathBuf,
    /// A logarithmic axis of steps
    #[arg(long)]
    log_steps: bool,
}

pub fn run(args: &CurvesArgs) -> anyhow::Result<ExitCode> {
    if args.out.extension().is_none_or(|extension| extension != "svg") {
        bail!("--out {} must end in .svg", args.out.display());
    }
    let curve = |run: &String| match run.split_once('=') {
        Some((name, folder)) if !PathBuf::from(run).exists() => Curve::read(name, folder.as_ref()),
        _ => Curve::read(run, run.as_ref()),
    };
    let curves = args.runs.iter().map(curve).collect::<Result<Vec<_>, _>>()?;
    draw_curves(&args.out, &curves, args.log_steps)?;
    let mut out = std::io::stdout().lock();
    for curve in &curves {
        if let Some((step, nats)) = curve.lowest() {
            writeln!(out, "{}: lowest validation {nats:.4} nats per token, at step {step}", curve.name)?;
        }
    }
    if let Some((goal, others)) = curves.split_last()
        && let Some((_, lowest)) = goal.lowest()
    {
        for curve in others {
            let Some((step, nats)) = curve.lowest() else { continue };
            match (curve.first_at_most(lowest), goal.first_at_most(nats)) {
                (Some(step), _) => writeln!(out, "{}: first at most {lowest:.4} at step {step}", curve.name)?,
                (None, Some(later)) => {
                    writeln!(out, "{}: {nats:.4} at step {step}, {} at step {later}", curve.name, goal.name)?;
                }
                (None, None) => {}
            }
        }
    }
    writeln!(out, "plot: {}", args.out.display())?;
    Ok(ExitCode::SUCCESS)
}
