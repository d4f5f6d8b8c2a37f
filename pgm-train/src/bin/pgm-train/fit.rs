//! `pgm-train fit`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::channel;

use burn::train::Interrupter;
use burn::train::renderer::{MetricsRenderer, tui::TuiMetricsRendererWrapper};
use clap::Args;
use pgm_data::DataFolder;
use pgm_infer::device::DeviceName;
use pgm_model::model_folder;
use pgm_train::{Fit, InitModel, TrainConfig, TrainEvent, World, fit, launcher_size};

use crate::events::{print_event, stopped_by_signals, validation_text};
use crate::ranks::RankArgs;

#[derive(Args)]
pub struct FitArgs {
    /// The configuration, a TOML file; `pgm-train config` prints one
    #[arg(long)]
    config: PathBuf,
    /// A folder made by pgm-data prepare
    #[arg(long)]
    data: PathBuf,
    /// Start from this model (fine-tuning): a model folder, or a training run: RUN, RUN@best, RUN@last or RUN@step-N. The
    /// configuration may leave out [model] and objective
    #[arg(long, value_name = "MODEL")]
    init: Option<PathBuf>,
    /// The folder of the run. Its model has a card, README.md; the section card of the configuration completes it
    #[arg(long)]
    out: PathBuf,
    /// Change a key of the TOML, as in optim.lr=1e-3
    #[arg(long, value_name = "KEY=VALUE", num_args = 1..)]
    set: Vec<String>,
    /// Resume from the newest checkpoint in --out
    #[arg(long)]
    resume: bool,
    /// auto, flex, ndarray, wgpu[:n], vulkan[:n], metal or cuda[:n]
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    #[command(flatten)]
    ranks: RankArgs,
}

pub fn run(args: &FitArgs) -> anyhow::Result<ExitCode> {
    // First of all: a launcher may pass a signal on at any time.
    let interrupter = stopped_by_signals()?;
    args.ranks.run(|world| fit_in(args, world, interrupter))
}

fn fit_in(args: &FitArgs, world: &World, interrupter: Interrupter) -> anyhow::Result<ExitCode> {
    let init = args.init.as_deref().map(InitModel::open).transpose()?;
    let config = load_config(args, init.as_ref())?;
    let device = args.ranks.open_device(&args.device, world)?;
    // mpirun makes a terminal of a file.
    let terminal = std::io::stdout().is_terminal() && launcher_size().is_none();
    if terminal {
        // The dashboard covers what is printed later.
        for warning in config.warnings() {
            let _ = writeln!(std::io::stderr(), "note: {warning}");
        }
    }
    let renderer: Option<Box<dyn MetricsRenderer>> =
        terminal.then(|| Box::new(TuiMetricsRendererWrapper::new(interrupter.clone(), None)) as _);
    // The dashboard covers the terminal, so notices are printed after it.
    let (send, notices) = channel();
    let observe: Arc<dyn Fn(&TrainEvent) + Send + Sync> = if terminal {
        Arc::new(move |event| {
            keep_ctrl_c_a_signal();
            if let TrainEvent::Notice(text) = event {
                let _ = send.send(text.clone());
            }
        })
    } else {
        Arc::new(print_event)
    };
    let result = fit(Fit {
        config: &config,
        data: &args.data,
        out: &args.out,
        init: init.as_ref(),
        resume: args.resume,
        device: &device,
        interrupter,
        renderer,
        observe,
        world: world.clone(),
    });
    for notice in notices.try_iter() {
        let _ = writeln!(std::io::stderr(), "note: {notice}");
    }
    let result = result?;
    if !world.is_first() {
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout().lock();
    let out_folder = args.out.display();
    if let Some(validation) = &result.validation {
        writeln!(out, "validation: {}", validation_text(validation))?;
    }
    if result.complete {
        writeln!(out, "model: {out_folder}/model   curve: {out_folder}/loss.svg")?;
        if let Some(best) = result.best.filter(|best| best.step < result.step) {
            let (step, nats) = (best.step, best.val_nelbo);
            writeln!(out, "the validation was lowest at step {step}, {nats:.4} nats per token: {out_folder}@best")?;
        }
        Ok(ExitCode::SUCCESS)
    } else {
        let (step, steps) = (result.step, config.steps);
        writeln!(out, "stopped after step {step} of {steps}; continue with --resume; the model so far: {out_folder}")?;
        Ok(ExitCode::from(130))
    }
}

/// The configuration. Where it starts from a model, or resumes a run, the model's architecture need not be in the file.
fn load_config(args: &FitArgs, init: Option<&InitModel>) -> anyhow::Result<TrainConfig> {
    let of_run = args.resume.then(|| model_folder::resolve(&args.out).ok()).flatten();
    Ok(match (init, of_run) {
        (Some(init), _) => {
            let length = DataFolder::open(&args.data)?.manifest().length;
            TrainConfig::load_for_model(&args.config, &args.set, init.config(), length)?
        }
        (None, Some(folder)) => TrainConfig::load_for_run(&args.config, &args.set, &folder)?,
        (None, None) => TrainConfig::load(&args.config, &args.set)?,
    })
}

/// The dashboard sets the terminal's raw mode, in which Ctrl-C is an ordinary key; this makes it a signal again. The
/// dashboard does so on a thread of its own, so this is called with every event.
fn keep_ctrl_c_a_signal() {
    #[cfg(unix)]
    {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let stdin = std::io::stdin();
        if let Ok(mut mode) = tcgetattr(&stdin)
            && !mode.local_modes.contains(LocalModes::ISIG)
        {
            mode.local_modes.insert(LocalModes::ISIG);
            // If this fails, q in the dashboard still stops the run.
            let _ = tcsetattr(&stdin, OptionalActions::Now, &mode);
        }
    }
}
