//! From text to samples in a few minutes: prepare a text, train a model, continue a text, fill blanks, measure the speed.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```
//!
//! The text is on every machine that has built this project: the sources of its dependencies. `--text PATH` takes another
//! text.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{anyhow, bail};
use burn::train::Interrupter;
use clap::Parser;
use pgm_data::{DataFolder, Mode, Prepare, TextInputs, TextTokenizer, Validation, prepare};
use pgm_examples::{dependency_sources, free_folder};
use pgm_infer::bench::{Workload, alternate};
use pgm_infer::denoise::HeadPositions;
use pgm_infer::device::{self, DeviceName};
use pgm_infer::sample::order::OrderKind;
use pgm_infer::text::template::{self, Part};
use pgm_infer::{DrawSettings, SampleSettings, SamplingPath, Schedule, TextModel};
use pgm_model::Network;
use pgm_train::history::{self, Line};
use pgm_train::{Fit, TrainConfig, TrainEvent, World, fit};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Prepares a text, trains a small Partition Generative Model on it, and samples from it.
#[derive(Parser)]
struct Args {
    /// A text file, a folder or a glob pattern instead of the dependencies' sources
    #[arg(long)]
    text: Option<String>,
    /// Training steps
    #[arg(long, default_value_t = 600)]
    steps: usize,
    /// Output folder [default: target/quickstart, or the first free quickstart-N]
    #[arg(long)]
    out: Option<PathBuf>,
    /// auto, flex, wgpu, vulkan, metal or cuda, as compiled in
    #[arg(long, default_value = "auto")]
    device: DeviceName,
}

const LENGTH: usize = 128;
const TEXT_BYTES: u64 = 4_000_000;

const RUN: &str = r#"
objective = "partition"
steps = 600
batch = 16
seed = 1
log_every = 20
validate_every = 200
validate_rows = 64
checkpoint_every = 200

[model]
hidden = 128
heads = 4
encoder = 2
decoder = 2
length = 128

[optim]
lr = 1e-3
warmup = 50
ema = 0.99
"#;

#[allow(clippy::print_stdout)]
fn main() -> anyhow::Result<()> {
    // SAFETY: no other thread runs yet.
    #[allow(unsafe_code)]
    unsafe {
        device::restore_through_the_cpu();
    }
    let args = Args::parse();
    let start = Instant::now();
    let (device, device_name) = args.device.open().map_err(|message| anyhow!(message))?;
    let out = match &args.out {
        Some(out) if out.exists() => bail!("{} exists already; choose another --out", out.display()),
        Some(out) => out.clone(),
        None => free_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), "quickstart")?,
    };

    println!("== 1. Text ==");
    let patterns = match &args.text {
        Some(text) => vec![text.clone()],
        None => dependency_sources(TEXT_BYTES)?,
    };
    let inputs = TextInputs::resolve(&patterns, "text", "text")?;
    let data = out.join("data");
    let tokenizer = TextTokenizer::bytes();
    let what = Prepare {
        inputs: &inputs,
        validation: &Validation::Fraction(0.05),
        tokenizer: &tokenizer,
        length: LENGTH,
        mode: Mode::Pack,
        row_eos: false,
        out: &data,
    };
    let manifest = prepare(&what, &mut |_| ControlFlow::Continue(()))?;
    println!(
        "{} files, {:.1} MB: {} training rows and {} held out, of {LENGTH} bytes each",
        inputs.files().len(),
        manifest.train.text_bytes as f64 / 1e6,
        manifest.train.rows,
        manifest.validation.rows
    );

    println!("\n== 2. Training on {device_name} ==");
    let config = TrainConfig::parse(RUN, "quickstart", &[format!("steps={}", args.steps)])?;
    let run = out.join("run");
    let interrupter = Interrupter::new();
    let on_signal = interrupter.clone();
    ctrlc::set_handler(move || on_signal.stop(Some("interrupted")))?;
    let finished = fit(Fit {
        config: &config,
        data: &data,
        out: &run,
        init: None,
        resume: false,
        device: &device,
        interrupter,
        renderer: None,
        observe: Arc::new(show),
        world: World::alone(),
    })?;
    if !finished.complete {
        bail!("stopped after step {}", finished.step);
    }
    let bits = |nats: f64| nats / std::f64::consts::LN_2;
    let validations: Vec<f64> = history::read(&run)?
        .into_iter()
        .filter_map(|line| if let Line::Validation(line) = line { Some(bits(line.val_nelbo)) } else { None })
        .collect();
    if let (Some(before), Some(after)) = (validations.first(), validations.last()) {
        println!("held-out text: {before:.2} bits per byte before, {after:.2} after");
    }

    println!("\n== 3. Writing ==");
    let model = TextModel::load(&run.join("model"), &device)?;
    let settings = SampleSettings {
        steps: 64,
        schedule: Schedule::Uniform,
        draw: DrawSettings { temperature: 0.8, ..DrawSettings::default() },
        ..SampleSettings::default()
    };
    let held_out = held_out_text(&data)?;
    let prompt = held_out.chars().take(32).collect::<String>();
    let write = |parts: &[Part], length, seed| -> anyhow::Result<String> {
        let request = model.request(parts, length, seed)?;
        let outcome = model.generate(&[request], &settings, SamplingPath::Clean, &mut |_| ControlFlow::Continue(()))?;
        Ok(model.decode(&outcome.rows[0].tokens)?)
    };
    println!("-- freely --\n{}\n", write(&[], Some(LENGTH), 1)?);
    println!("-- from {prompt:?} --\n{}\n", write(&[Part::Text(prompt.clone())], Some(LENGTH), 2)?);
    let template = "pub fn new({12}) -> Self {{24} }";
    println!("-- the blanks of {template:?} --\n{}", write(&template::parse(template, 8)?, None, 3)?);

    println!("\n== 4. Speed against a masked model of the same size ==");
    let baseline_config = model.config().masked_baseline();
    let baseline = Network::new(&baseline_config, &device);
    let workload = Workload {
        length: LENGTH,
        batch: 8,
        steps: 32,
        warmup: 1,
        runs: 3,
        head_at: HeadPositions::Masked,
        order: OrderKind::Uniform,
        guidance: 0.0,
        refresh: None,
    };
    let models = [(model.network(), model.config()), (&baseline, &baseline_config)];
    let measured = alternate(&models, &device, &workload)?;
    let rates: Vec<f64> =
        measured.iter().map(|figures| (workload.batch * LENGTH) as f64 / figures.seconds_median()).collect();
    println!(
        "8 rows of {LENGTH} tokens in 32 steps: {:.0} tokens/s against {:.0}, {:.1} times as many",
        rates[0],
        rates[1],
        rates[0] / rates[1]
    );

    println!("\nmodel folder:  {}", shown(&run.join("model")));
    println!("learning curve: {}", shown(&run.join("loss.svg")));
    println!(
        "try it:         cargo run --release -p pgm-infer -- generate --model {} --visual",
        shown(&run.join("model"))
    );
    println!("{:.0} s in all", start.elapsed().as_secs_f64());
    Ok(())
}

fn shown(path: &Path) -> String {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf()).display().to_string()
}

#[allow(clippy::print_stdout)]
fn show(event: &TrainEvent) {
    match event {
        TrainEvent::Round { .. } => {}
        TrainEvent::Started { parameters, rows, .. } => println!("{parameters} parameters, {rows} rows"),
        TrainEvent::Trained { line, steps } => {
            let left = (steps - line.step) as f64 * line.seconds / line.step as f64;
            println!("step {:>4} of {steps}  loss {:.3}  {:.0} s left", line.step, line.train_loss, left);
        }
        TrainEvent::Validated(line) => {
            println!("step {:>4}  held out: {:.3} bits per byte", line.step, line.val_nelbo / std::f64::consts::LN_2);
        }
        TrainEvent::Saved { .. } => (),
        TrainEvent::Notice(text) => println!("{text}"),
    }
}

fn held_out_text(data: &Path) -> anyhow::Result<String> {
    let folder = DataFolder::open(data)?;
    let row = folder.rows(pgm_data::Split::Validation)?.row(0)?;
    Ok(folder.tokenizer()?.decode(&row.tokens)?)
}
