//! From pictures to pictures: a codec, a Partition Generative Model and a MaskGIT of equal size on handwritten digits.
//!
//! ```text
//! cargo run --release -p pgm-examples --example digits
//! ```
//!
//! It takes six to twelve minutes on two cores. All pictures and figures go to a folder. `--smoke` runs the same in seconds and
//! learns nothing.

mod pictures;
mod plan;
mod prepare;
mod report;
mod scores;
mod train;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{anyhow, bail};
use burn::train::Interrupter;
use clap::Parser;
use pgm_data::DataFolder;
use pgm_examples::free_folder;
use pgm_infer::device::{self, DeviceName};

use plan::{Plan, STEPS};
use report::Report;
use scores::Judge;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Trains a codec, a PGM and a MaskGIT on handwritten digits; draws, edits and scores.
#[derive(Parser)]
struct Args {
    /// The digits in MNIST's format, a file of images with its file of labels beside
    /// [default: the 10,000 test digits in examples/data/mnist]
    #[arg(long)]
    digits: Option<PathBuf>,
    /// The smallest sizes: everything runs in seconds, nothing is learned
    #[arg(long)]
    smoke: bool,
    /// Output folder [default: target/digits, or the first free digits-N]
    #[arg(long)]
    out: Option<PathBuf>,
    /// auto, flex, wgpu, vulkan, metal or cuda, as compiled in
    #[arg(long, default_value = "auto")]
    device: DeviceName,
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
    let plan = if args.smoke { Plan::smoke() } else { Plan::full() };
    let (device, device_name) = args.device.open().map_err(|message| anyhow!(message))?;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR"));
    let digits = args.digits.unwrap_or_else(|| examples.join("data/mnist/t10k-images-idx3-ubyte.gz"));
    let out = match &args.out {
        Some(out) if out.exists() => bail!("{} exists already; choose another --out", out.display()),
        Some(out) => {
            std::fs::create_dir_all(out)?;
            out.clone()
        }
        None => free_folder(&examples.join("../target"), "digits")?,
    };
    let out = out.canonicalize()?;
    let interrupter = Interrupter::new();
    let on_signal = interrupter.clone();
    ctrlc::set_handler(move || {
        // The second one ends the program: what comes after the trainings does not look at the interrupter.
        if on_signal.should_stop() {
            std::process::exit(130);
        }
        on_signal.stop(Some("interrupted"));
    })?;
    let training = (&device, &interrupter);
    let mut report = Report::default();

    println!("== 1. Digits ==");
    let folder = |name: &str| out.join(name);
    let data: DataFolder = prepare::pixels(&digits, plan.held_out, &folder("pixels"))?;
    let held_out = pictures::held_out(&data)?;
    report.line(format!(
        "{} digits for training, {} held out, on {device_name}",
        data.manifest().train.rows,
        held_out.len()
    ));
    pictures::sheet_of_originals(&held_out, plan.shown, &folder("real.png"))?;

    println!("\n== 2. A codec: 28 x 28 pixels to 7 x 7 codes ==");
    prepare::codec(&plan, &folder("pixels"), &folder("codec-run"), training, &mut report)?;
    let codec = folder("codec-run").join("codec");
    prepare::codes(&data, &codec, &folder("codes"), &device)?;

    println!("\n== 3. A classifier of real digits, which will score ==");
    let judge = Judge::train(&plan, &data, &device, &mut report)?;

    let mut train = |name, objective, run: &str| {
        println!("\n== 4. {name} ==");
        let (codes, run) = (folder("codes"), folder(run));
        train::train((name, objective), &plan, [&codes, &codec, &run], training, &mut report)
    };
    let models = [train("PGM", "partition", "pgm")?, train("MaskGIT", "maskgit", "maskgit")?];

    println!("\n== 5. Pictures ==");
    let steps = STEPS[STEPS.len() - 1];
    pictures::sheet_of_classes(&models[0].model, plan.shown, steps, &folder("pgm.png"))?;
    pictures::sheet_of_classes(&models[1].model, plan.shown, steps, &folder("maskgit.png"))?;
    pictures::edits(&models[0].model, &held_out, steps, &folder("edits.png"), &mut report)?;
    pictures::film(&models[0].model, steps, &folder("order.png"))?;
    println!("real.png, pgm.png, maskgit.png, edits.png, order.png (a film), codec-run/reconstructions.png");

    println!("\n== 6. Scores ==");
    judge.compare(&plan, &models, &mut report)?;

    report.line(format!("\n{:.0} s in all", start.elapsed().as_secs_f64()));
    report.write(&folder("report.txt"))?;
    println!("everything is in {}", out.display());
    Ok(())
}
