//! The paper's comparison at the size of a laptop: partition, masked, masked-complementary and autoregressive models of
//! equal width and steps on one real text, with several seeds, besides a wider partition model and one that encodes each token
//! once. The first partition model and the masked one are also distilled. `pgm_train::eval` measures all of them, and the
//! results are written as tables and plots.
//!
//! ```text
//! cargo run --release -p pgm-examples --example study             # some hours on two cores
//! cargo run --release -p pgm-examples --example study -- --quick  # four minutes
//! ```
//!
//! The output folder keeps what is done: the same command continues where it was stopped.

mod conclusions;
mod evaluate;
mod frontier;
mod plan;
mod plots;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use burn::tensor::Device;
use burn::train::Interrupter;
use clap::Parser;
use pgm_data::{Mode, Prepare, ReadOptions, TextInputs, TextTokenizer, Validation, prepare};
use pgm_examples::dependency_sources;
use pgm_infer::device::{self, DeviceName};
use pgm_model::model_folder::{CONFIG_FILE, write_file};
use pgm_train::{Distill, DistillConfig, Fit, Objective, TrainConfig, TrainEvent, World, distill, fit};
use plan::{Plan, Size};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Compares the paper's models on one text and writes the results.
#[derive(Parser)]
struct Args {
    /// Minutes instead of hours
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// A night instead of hours
    #[arg(long)]
    full: bool,
    /// One minute, to test that everything runs
    #[arg(long, hide = true, conflicts_with_all = ["quick", "full"])]
    smoke: bool,
    /// A text file, a folder or a glob pattern instead of the dependencies' sources
    #[arg(long)]
    text: Option<String>,
    /// What a document of --text is, as in pgm-data prepare: file, line, blank-line, or any other text as a separator
    #[arg(long, default_value = "file", requires = "text")]
    documents: String,
    /// Working folder [default: target/study, target/study-quick or target/study-full]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Folder for results.md and its plots [default: docs; with --quick, the folder of --out]
    #[arg(long)]
    report: Option<PathBuf>,
    /// auto, flex, wgpu, vulkan, metal or cuda, as compiled in
    #[arg(long, default_value = "auto")]
    device: DeviceName,
}

/// The kinds of model, in the order of the tables.
pub const KINDS: [(Objective, &str); 6] = [
    (Objective::Partition, "pgm"),
    (Objective::Partition, WIDE),
    (Objective::Partition, SET_CAUSAL),
    (Objective::Masked, "masked"),
    (Objective::MaskedComplementary, "complementary"),
    (Objective::Autoregressive, "ar"),
];

/// The partition model with one more head, as the paper's 6/6-1024 is wider than the masked model beside it.
pub const WIDE: &str = "pgm-wide";

/// The partition model with an ordered set for each token, which encodes each once.
pub const SET_CAUSAL: &str = "set-causal";

/// The kinds that are distilled, too.
pub const DISTILLED: [&str; 2] = ["pgm", "masked"];

/// A study: its plan, its folder, its device.
pub struct Study {
    /// Its sizes.
    pub plan: Plan,
    /// Its working folder.
    pub out: PathBuf,
    /// The device.
    pub device: Device,
    /// The device's name.
    pub device_name: String,
    /// A description of the text.
    pub text_name: String,
    interrupter: Interrupter,
}

#[allow(clippy::print_stdout)]
fn main() -> anyhow::Result<()> {
    // SAFETY: no other thread runs yet.
    #[allow(unsafe_code)]
    unsafe {
        device::restore_through_the_cpu();
    }
    let args = Args::parse();
    let start = Instant::now();
    let (size, name) = match (args.quick, args.full, args.smoke) {
        (true, ..) => (Size::Quick, "study-quick"),
        (_, true, _) => (Size::Full, "study-full"),
        (.., true) => (Size::Smoke, "study-smoke"),
        _ => (Size::Usual, "study"),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the examples have no folder above them")?;
    let out = args.out.clone().unwrap_or_else(|| root.join("target").join(name));
    std::fs::create_dir_all(&out).with_context(|| format!("cannot write {}", out.display()))?;
    let (device, device_name) = args.device.open().map_err(|message| anyhow!(message))?;
    let interrupter = Interrupter::new();
    let on_signal = interrupter.clone();
    ctrlc::set_handler(move || on_signal.stop(Some("interrupted")))?;
    let text_name = match &args.text {
        Some(text) => format!("`{text}`"),
        None => "the Rust sources of this project's dependencies".to_string(),
    };
    let study = Study { plan: Plan::of(size), out, device, device_name, text_name, interrupter };
    study.prepare(&args)?;
    study.train()?;
    study.distill()?;
    let found = study.evaluate()?;
    let folder = match size {
        Size::Quick | Size::Smoke => study.out.clone(),
        Size::Usual | Size::Full => root.join("docs"),
    };
    let folder = args.report.clone().unwrap_or(folder);
    study.report(&found, &folder, &args.command(size))?;
    println!(
        "{:.0} s and at most {:.0} MB in this run; {} and its plots are written, models and measurements are in {}",
        start.elapsed().as_secs_f64(),
        report::peak_megabytes(),
        folder.join("results.md").display(),
        study.out.display()
    );
    Ok(())
}

impl Args {
    /// The command that gives the same numbers.
    fn command(&self, size: Size) -> String {
        let mut options = match size {
            Size::Smoke => vec!["--smoke".to_string()],
            Size::Quick => vec!["--quick".to_string()],
            Size::Usual => Vec::new(),
            Size::Full => vec!["--full".to_string()],
        };
        if let Some(text) = &self.text {
            options.push(format!("--text '{text}'"));
            if self.documents != "file" {
                options.push(format!("--documents '{}'", self.documents));
            }
        }
        if !options.is_empty() {
            options.insert(0, "--".to_string());
        }
        options.insert(0, "cargo run --release -p pgm-examples --example study".to_string());
        options.join(" ")
    }
}

impl Study {
    /// Whether Ctrl-C was pressed.
    pub fn stopped(&self) -> bool {
        self.interrupter.should_stop()
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.out.join("data")
    }

    /// The folder of a trained model.
    pub fn model(&self, kind: &str, seed: u64) -> PathBuf {
        self.out.join(format!("{kind}-{seed}")).join("model")
    }

    /// The judge's folder.
    pub fn judge(&self) -> PathBuf {
        self.out.join("judge").join("model")
    }

    /// The folder of a student.
    pub fn student(&self, kind: &str, targets: &str, round: usize) -> PathBuf {
        self.out.join(format!("{kind}-distilled-{targets}")).join(format!("round-{round}")).join("model")
    }

    // Prepares the text, unless that is done. Refuses a working folder of a study with other settings.
    fn prepare(&self, args: &Args) -> anyhow::Result<()> {
        let path = self.out.join("plan.json");
        let now = json!({ "plan": self.plan, "text": args.text, "documents": args.documents });
        match std::fs::read(&path) {
            Ok(before) => {
                let before: serde_json::Value =
                    serde_json::from_slice(&before).with_context(|| format!("cannot read {}", path.display()))?;
                if before != now {
                    bail!("{} holds a study with other settings; choose another --out", self.out.display());
                }
            }
            Err(_) => {
                self.prepare_text(args)?;
                // Last, so that a text that cannot be read does not bind the folder to it.
                write_file(&path, &serde_json::to_vec_pretty(&now)?)?;
            }
        }
        Ok(())
    }

    #[allow(clippy::print_stdout)]
    fn prepare_text(&self, args: &Args) -> anyhow::Result<()> {
        println!("== text ==");
        let patterns = match &args.text {
            Some(text) => vec![text.clone()],
            None => dependency_sources(self.plan.text_bytes)?,
        };
        let options = ReadOptions { documents: args.documents.parse()?, ..ReadOptions::default() };
        // In random order, so that what is held out is like what is trained on.
        let inputs = TextInputs::find(&patterns, &options)?.shuffled(Some(1));
        let tokenizer = TextTokenizer::bytes();
        let what = Prepare {
            inputs: &inputs,
            validation: &Validation::Fraction(0.05),
            tokenizer: &tokenizer,
            length: self.plan.length,
            mode: Mode::Pack,
            row_eos: false,
            out: &self.data(),
        };
        let manifest = prepare(&what, &mut |_| std::ops::ControlFlow::Continue(()))?;
        let (train, validation) = (manifest.train, manifest.validation);
        println!("{} rows of {} tokens, {} held out", train.rows, self.plan.length, validation.rows);
        Ok(())
    }

    fn train(&self) -> anyhow::Result<()> {
        for &seed in &self.plan.seeds {
            for (objective, kind) in KINDS {
                self.train_one(&format!("{kind}-{seed}"), &self.plan.training(objective, kind, seed, self.plan.steps))?;
            }
        }
        self.train_one("judge", &self.plan.training(Objective::Autoregressive, "judge", 1000, self.plan.judge_steps))
    }

    #[allow(clippy::print_stdout)]
    fn train_one(&self, name: &str, config: &str) -> anyhow::Result<()> {
        let out = self.out.join(name);
        if out.join("model").join(CONFIG_FILE).exists() {
            return Ok(());
        }
        println!("== {name} ==");
        let config = TrainConfig::parse(config, "study", &[])?;
        let finished = fit(Fit {
            config: &config,
            data: &self.data(),
            out: &out,
            init: None,
            resume: out.exists(),
            device: &self.device,
            interrupter: self.interrupter.clone(),
            renderer: None,
            observe: Arc::new(show),
            world: World::alone(),
        })?;
        if !finished.complete {
            bail!("stopped in {name} after step {}; the same command continues", finished.step);
        }
        Ok(())
    }

    #[allow(clippy::print_stdout)]
    fn distill(&self) -> anyhow::Result<()> {
        for kind in DISTILLED {
            for targets in ["one", "both"] {
                if self.student(kind, targets, self.plan.rounds).join(CONFIG_FILE).exists() {
                    continue;
                }
                println!("== distilling {kind}, targets over {targets} ==");
                let out = self.out.join(format!("{kind}-distilled-{targets}"));
                let distilled = distill(Distill {
                    config: &DistillConfig::parse(&self.plan.distillation(targets), "study", &[])?,
                    teacher: &self.model(kind, self.plan.seeds[0]),
                    data: &self.data(),
                    out: &out,
                    resume: out.exists(),
                    device: &self.device,
                    interrupter: self.interrupter.clone(),
                    observe: Arc::new(show),
                    world: World::alone(),
                })?;
                if distilled.stopped_at.is_some() {
                    bail!("stopped while distilling; the same command continues");
                }
            }
        }
        Ok(())
    }
}

#[allow(clippy::print_stdout)]
fn show(event: &TrainEvent) {
    match event {
        TrainEvent::Round { round, n_rounds, teacher_steps, student_steps } => {
            println!("round {round} of {n_rounds}: {teacher_steps} steps in {student_steps}");
        }
        TrainEvent::Started { parameters, rows, step, .. } => {
            println!("{parameters} parameters, {rows} rows, from step {step}")
        }
        TrainEvent::Trained { line, steps, seconds_left } => {
            println!("step {:>4} of {steps}  loss {:.3}  {seconds_left:.0} s left", line.step, line.train_loss);
        }
        TrainEvent::Validated(line) => println!("step {:>4}  held out: perplexity {:.2}", line.step, line.val_ppl),
        TrainEvent::Saved { .. } => (),
        TrainEvent::Notice(text) => println!("{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_of_a_report_is_the_one_that_was_given() {
        let command = |options: &[&str], size| {
            let options = ["study"].iter().chain(options);
            Args::try_parse_from(options).unwrap().command(size)
        };
        let study = "cargo run --release -p pgm-examples --example study";
        assert_eq!(command(&[], Size::Usual), study);
        assert_eq!(command(&["--quick"], Size::Quick), format!("{study} -- --quick"));
        let text = ["--text", "a b.txt", "--documents", "blank-line"];
        assert_eq!(command(&text, Size::Usual), format!("{study} -- --text 'a b.txt' --documents 'blank-line'"));
        assert!(Args::try_parse_from(["study", "--documents", "line"]).is_err());
    }
}
