//! From text to samples in a few minutes: train a tokenizer, prepare a text, train a model, continue a text, fill blanks, measure
//! the speed.
//!
//! ```text
//! cargo run --release -p pgm-examples --example quickstart
//! ```
//!
//! The text is on every machine that has built this project: the English sentences in the documentation of its dependencies.
//! `--text PATH` takes another text. Ctrl-C stops; `--resume --out FOLDER` goes on.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{anyhow, bail};
use burn::tensor::Device;
use burn::train::Interrupter;
use clap::Parser;
use pgm_data::{DataFolder, Mode, Prepare, TextInputs, TextTokenizer, Validation, prepare};
use pgm_examples::{dependency_documentation, free_folder};
use pgm_infer::bench::{Workload, alternate};
use pgm_infer::denoise::HeadPositions;
use pgm_infer::device::{self, DeviceName};
use pgm_infer::sample::order::OrderKind;
use pgm_infer::text::TextAnimation;
use pgm_infer::text::template::{self, Part};
use pgm_infer::{DrawSettings, SampleSettings, SamplingPath, Schedule, TextModel};
use pgm_model::Network;
use pgm_model::model_folder::write_file;
use pgm_train::history::{self, Line};
use pgm_train::{Fit, TrainConfig, TrainEvent, World, bits_per_byte_of_a_nat, fit};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Prepares a text, trains a small Partition Generative Model on it, and samples from it.
#[derive(Parser)]
struct Args {
    /// A text file, a folder or a glob pattern instead of the dependencies' documentation
    #[arg(long)]
    text: Option<String>,
    /// Training steps
    #[arg(long, default_value_t = 1000)]
    steps: usize,
    /// Output folder [default: target/quickstart, or the first free quickstart-N]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Go on with the training that was stopped in --out
    #[arg(long, requires = "out")]
    resume: bool,
    /// auto, flex, wgpu, vulkan, metal or cuda, as compiled in
    #[arg(long, default_value = "auto")]
    device: DeviceName,
}

const LENGTH: usize = 128;
const TEXT_BYTES: usize = 4_000_000;
const VOCAB_SIZE: usize = 1024;

const RUN: &str = r#"
objective = "partition"
steps = 1000
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
dropout = 0.05
embedding_scale = 5.0

[optim]
lr = 1e-3
warmup = 150
weight_decay = 0.05
ema = 0.99
"#;

#[allow(clippy::print_stdout)]
fn main() -> anyhow::Result<ExitCode> {
    // SAFETY: no other thread runs yet.
    #[allow(unsafe_code)]
    unsafe {
        device::restore_through_the_cpu();
    }
    let args = Args::parse();
    let start = Instant::now();
    let (device, device_name) = args.device.open().map_err(|message| anyhow!(message))?;
    let out = match &args.out {
        Some(out) if out.exists() && !args.resume => {
            bail!("{} exists already; choose another --out, or go on there with --resume", out.display())
        }
        Some(out) => out.clone(),
        None => free_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), "quickstart")?,
    };

    println!("== 1. Text ==");
    let data = out.join("data");
    if !data.exists() {
        prepare_text(args.text.as_deref(), &out)?;
    }
    let folder = DataFolder::open(&data)?;
    let (train, held_out) = (&folder.manifest().train, &folder.manifest().validation);
    println!(
        "{:.1} MB in tokens of {:.1} bytes: {} training rows and {} held out, of {LENGTH} tokens each",
        train.text_bytes as f64 / 1e6,
        train.text_bytes as f64 / train.tokens as f64,
        train.rows,
        held_out.rows
    );

    println!("\n== 2. Training on {device_name} ==");
    let config = TrainConfig::parse(RUN, "quickstart", &[format!("steps={}", args.steps)])?;
    let run = out.join("run");
    let interrupter = Interrupter::new();
    let on_signal = interrupter.clone();
    ctrlc::set_handler(move || on_signal.stop(Some("interrupted")))?;
    // Used for validations only, which need held-out text.
    let bits_per_byte = bits_per_byte_of_a_nat(folder.manifest(), false).unwrap_or_default();
    let finished = fit(Fit {
        config: &config,
        data: &data,
        out: &run,
        init: None,
        resume: args.resume,
        device: &device,
        interrupter,
        renderer: None,
        observe: Arc::new(move |event| show(event, bits_per_byte)),
        world: World::alone(),
    })?;
    let steps = args.steps;
    if !finished.complete {
        println!("stopped after step {} of {steps}. To go on:", finished.step);
        println!(
            "    cargo run --release -p pgm-examples --example quickstart -- --steps {steps} --resume --out {}",
            shown(&out)
        );
        return Ok(ExitCode::from(130));
    }
    let validations: Vec<f64> = history::read(&run)?
        .into_iter()
        .filter_map(|line| if let Line::Validation(line) = line { Some(line.val_nelbo * bits_per_byte) } else { None })
        .collect();
    if let (Some(before), Some(after)) = (validations.first(), validations.last()) {
        println!("held-out text: {before:.2} bits per byte before, {after:.2} after");
    }

    println!("\n== 3. Writing ==");
    let model = TextModel::load(&run.join("model"), &device)?;
    let settings = SampleSettings {
        steps: 64,
        schedule: Schedule::Uniform,
        draw: DrawSettings { temperature: 0.5, ..DrawSettings::default() },
        ..SampleSettings::default()
    };
    let write = |parts: &[Part], length, seed| -> anyhow::Result<(String, TextAnimation)> {
        let row = model.row(parts, length, seed)?;
        let mut animation = TextAnimation::of_row(&row);
        let outcome =
            model.generate(std::slice::from_ref(&row.request), &settings, SamplingPath::Clean, &mut |view| {
                animation.apply(&view.changes[0]);
                ControlFlow::Continue(())
            })?;
        Ok((row.read(&model, &outcome.rows[0])?, animation))
    };
    let prompt = held_out_text(&folder)?.chars().take(32).collect::<String>();
    let (text, animation) = write(&[], Some(LENGTH), 1)?;
    println!("-- freely --\n{text}\n");
    let order = out.join("order.svg");
    write_file(&order, animation.svg(&model).as_bytes())?;
    println!("-- from {prompt:?} --\n{}\n", write(&[Part::Text(prompt.clone())], Some(LENGTH), 2)?.0);
    println!("-- the blanks of {TEMPLATE:?} --\n{}", write(&template::parse(TEMPLATE, 8)?, None, 3)?.0);

    println!("\n== 4. Speed against a masked model of the same size ==");
    measure(&model, &device)?;

    let model = shown(&run.join("model"));
    println!("\n{:.0} s in all. Look at (a browser shows them):", start.elapsed().as_secs_f64());
    println!("    {}   how the loss fell", shown(&run.join("loss.svg")));
    println!("    {}   the order in which the first text was decoded", shown(&order));
    println!("Try next (the first command is built first, which takes some minutes):");
    println!("    cargo run --release -p pgm-infer -- generate --model {model} --template {TEMPLATE:?} --visual");
    println!("    cargo run --release -p pgm-infer -- serve --model {model}");
    println!(
        "    cargo run --release -p pgm-examples --example quickstart -- --steps 6000 --text 'your/texts/**/*.txt'"
    );
    Ok(ExitCode::SUCCESS)
}

const TEMPLATE: &str = "Returns the {6} of the {4}, if it {12}.";

// Trains a tokenizer, and makes rows of tokens in the folder `data`.
#[allow(clippy::print_stdout)]
fn prepare_text(text: Option<&str>, out: &Path) -> anyhow::Result<()> {
    let pattern = match text {
        Some(text) => text.to_string(),
        None => {
            let path = out.join("documentation.txt");
            std::fs::create_dir_all(out)?;
            write_file(&path, dependency_documentation(TEXT_BYTES)?.as_bytes())?;
            path.display().to_string()
        }
    };
    let inputs = TextInputs::resolve(std::slice::from_ref(&pattern), "text", "text")
        .map_err(|error| anyhow!(error.to_string().replace("--input", "--text")))?;
    println!("{pattern}: {} files; a tokenizer of {VOCAB_SIZE} tokens is trained on them", inputs.files().len());
    let tokenizer = TextTokenizer::train(&inputs, VOCAB_SIZE, &|_| ())?;
    let what = Prepare {
        inputs: &inputs,
        validation: &Validation::Fraction(0.05),
        tokenizer: &tokenizer,
        length: LENGTH,
        mode: Mode::Pack,
        row_eos: false,
        out: &out.join("data"),
    };
    prepare(&what, &mut |_| ControlFlow::Continue(()))?;
    Ok(())
}

#[allow(clippy::print_stdout)]
fn measure(model: &TextModel, device: &Device) -> anyhow::Result<()> {
    let baseline_config = model.config().masked_baseline();
    let baseline = Network::new(&baseline_config, device);
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
    let measured = alternate(&models, device, &workload)?;
    let rates: Vec<f64> =
        measured.iter().map(|figures| (workload.batch * LENGTH) as f64 / figures.seconds_median()).collect();
    println!(
        "8 rows of {LENGTH} tokens in 32 steps: {:.0} tokens/s against {:.0}, {:.1} times as many",
        rates[0],
        rates[1],
        rates[0] / rates[1]
    );
    Ok(())
}

fn shown(path: &Path) -> String {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf()).display().to_string()
}

#[allow(clippy::print_stdout)]
fn show(event: &TrainEvent, bits_per_byte: f64) {
    match event {
        TrainEvent::Round { .. } | TrainEvent::Saved { .. } => {}
        TrainEvent::Started { parameters, rows, .. } => println!("{parameters} parameters, {rows} rows"),
        TrainEvent::Trained { line, steps, seconds_left } => {
            println!("step {:>4} of {steps}  loss {:.3}  {seconds_left:.0} s left", line.step, line.train_loss);
        }
        TrainEvent::Validated(line) => {
            println!("step {:>4}  held out: {:.3} bits per byte", line.step, line.val_nelbo * bits_per_byte);
        }
        TrainEvent::Notice(text) => println!("{text}"),
    }
}

fn held_out_text(folder: &DataFolder) -> anyhow::Result<String> {
    let row = folder.rows(pgm_data::Split::Validation)?.row(0)?;
    Ok(folder.tokenizer()?.decode(&row.tokens)?)
}
