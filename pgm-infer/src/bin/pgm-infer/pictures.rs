//! `pgm-infer generate` of a model of pictures.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::bail;
use pgm_infer::picture::animation::Animation;
use pgm_infer::picture::samples::{SampleInfo, SampleSink};
use pgm_infer::picture::terminal::half_blocks;
use pgm_infer::picture::{Filling, SheetRow, contact_sheet};
use pgm_infer::{ImageModel, InferError, Picture, SampleRequest, SamplingPath, StepView};
use pgm_model::ModelConfig;
use serde_json::json;

use crate::devices::open_device;
use crate::generate::{GenerateArgs, Sampler, handle_interrupts, seed_from_clock, was_interrupted};
use crate::picture_flags::{DrawFlags, class_name, describe};

/// Pictures of an animation, at most.
const MOST_ANIMATED: usize = 16;
/// Milliseconds of a frame, and how often the last one is repeated.
const FRAME_MS: u16 = 120;
const LAST_FRAMES: usize = 10;
/// Letters of a terminal's line where the environment does not say.
const COLUMNS: usize = 80;

/// Samples pictures.
pub fn generate(args: &GenerateArgs, config: &ModelConfig) -> anyhow::Result<()> {
    if let Some(flag) = args.text_flag() {
        bail!("{flag} belongs to models of text; this model draws pictures");
    }
    if args.out.is_none() && args.animate.is_none() && !args.visual && !args.json {
        bail!("--out is missing: give a .png file, an .npz file or a folder");
    }
    let is_full = matches!(args.sampler, Some(Sampler::Full));
    if is_full && !matches!(config, ModelConfig::Partition(_)) {
        bail!("--sampler full is the partition model's training path; this model is of another kind");
    }
    if is_full && args.picture.as_published {
        bail!("--as-published does not apply to --sampler full: the public sampler runs over clean tokens");
    }
    let (device, device_name) = open_device(&args.device)?;
    let model = args.picture.model(&args.model, &device, args.weights.weights())?;
    let classes = args.picture.classes(&model)?;
    let draw = DrawFlags {
        steps: args.steps,
        curve: args.schedule,
        order: &args.order,
        temperature: args.temp,
        top_k: args.top_k,
        top_p: args.top_p,
        refresh: args.refresh,
    };
    let settings = args.picture.settings(&model, &draw, args.sampled_schedule())?;
    let seed = args.seed.unwrap_or_else(seed_from_clock);
    let requests: Vec<SampleRequest> = classes
        .iter()
        .flat_map(|&class| (0..args.n).map(move |_| class))
        .enumerate()
        .map(|(index, class)| model.request(class, seed.wrapping_add(index as u64)))
        .collect();
    let path = if is_full { SamplingPath::Full } else { SamplingPath::Clean };
    let mut sink = args.out.as_deref().map(SampleSink::create).transpose()?;
    handle_interrupts();

    let (mut out, mut animation) = (std::io::stdout().lock(), None);
    let (start, mut n_sampled, mut n_evaluations) = (Instant::now(), 0, 0);
    for batch in requests.chunks(args.batch) {
        let films = args.animate.is_some() && animation.is_none();
        let mut screen = Screen::new(&model, batch, args.visual, films)?;
        let began = Instant::now();
        let outcome = model.generate(batch, &settings, path, &mut |view| {
            screen.update(view);
            if was_interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let seconds = began.elapsed().as_secs_f64();
        screen.clear();
        if let Some(error) = screen.failed.take() {
            return Err(error.into());
        }
        animation = animation.or(screen.film.take());
        n_evaluations += outcome.n_evaluations;
        let complete: Vec<_> = batch.iter().zip(&outcome.rows).filter(|(_, row)| row.complete).collect();
        n_sampled += complete.len();
        if args.json {
            for (request, row) in batch.iter().zip(&outcome.rows) {
                let object = json!({
                    "class": request.class, "name": class_name(&model, request.class), "seed": request.seed,
                    "tokens": row.tokens, "order": row.order, "log_probabilities": row.log_probabilities,
                    "complete": row.complete, "settings": describe(&settings, seed),
                    "network_evaluations": outcome.n_evaluations, "batch": batch.len(), "seconds": seconds,
                    "device": device_name, "weights": args.weights.weights().name(),
                });
                writeln!(out, "{object}")?;
            }
        }
        if let Some(sink) = &mut sink {
            let pictures = model.pictures(&complete.iter().map(|(_, row)| *row).collect::<Vec<_>>())?;
            for ((request, _), picture) in complete.iter().zip(pictures) {
                let (class, seed) = (request.class, request.seed);
                sink.push(picture, SampleInfo { class, name: class_name(&model, class), seed })?;
            }
        }
        if was_interrupted() {
            break;
        }
    }
    if let (Some(path), Some(animation)) = (&args.animate, &animation) {
        animation.write(path)?;
    }
    // A run that was stopped before its first picture writes none.
    if let (Some(sink), Some(path), true) = (sink, &args.out, n_sampled > 0) {
        let n = sink.finish(&describe(&settings, seed))?;
        let seconds = start.elapsed().as_secs_f64();
        if !args.json {
            writeln!(
                out,
                "{n} picture{} in {seconds:.1} s ({:.2} per second), {n_evaluations} network evaluations, seed {seed}: {}",
                if n == 1 { "" } else { "s" },
                n as f64 / seconds,
                path.display()
            )?;
        }
    }
    Ok(())
}

/// Shows a batch while it is sampled, and films it.
struct Screen<'a> {
    model: &'a ImageModel,
    fillings: Vec<Filling>,
    visual: bool,
    terminal: bool,
    film: Option<Animation>,
    // The first error of a preview.
    failed: Option<InferError>,
}

impl<'a> Screen<'a> {
    fn new(model: &'a ImageModel, batch: &[SampleRequest], visual: bool, films: bool) -> Result<Self, InferError> {
        let terminal = std::io::stderr().is_terminal();
        let n = if films { MOST_ANIMATED } else { usize::from(visual && terminal) };
        let fillings = batch.iter().take(n).map(|request| Filling::new(model, request)).collect();
        let film = films.then(|| Animation::new(FRAME_MS));
        let mut screen = Self { model, fillings, visual, terminal, film, failed: None };
        screen.shoot()?;
        Ok(screen)
    }

    fn update(&mut self, view: &StepView) {
        for (filling, change) in self.fillings.iter_mut().zip(view.changes) {
            filling.apply(self.model, change);
        }
        let is_last = view.step == view.n_steps;
        let decodes = view.changes.iter().any(|change| !change.decoded.is_empty());
        if self.failed.is_none() && decodes {
            let shot = (0..if is_last { LAST_FRAMES } else { 1 }).try_for_each(|_| self.shoot());
            self.failed = shot.err();
        }
        if !self.terminal {
            return;
        }
        let line = format!("step {} of {}", view.step, view.n_steps);
        match self.fillings.first().filter(|_| self.visual).map(|filling| filling.picture(self.model)) {
            Some(Ok(picture)) => show(&format!("\x1b[2J\x1b[H{line}\n\n{}", half_blocks(&picture, columns()))),
            Some(Err(error)) => self.failed = Some(error),
            None => show(&format!("\r{line}")),
        }
    }

    // Adds a frame to the film.
    fn shoot(&mut self) -> Result<(), InferError> {
        let Some(film) = &mut self.film else { return Ok(()) };
        let pictures: Vec<Picture> =
            self.fillings.iter().map(|filling| filling.picture(self.model)).collect::<Result<_, _>>()?;
        film.push(&contact_sheet(&[SheetRow { label: String::new(), pictures }]))
    }

    fn clear(&self) {
        if self.terminal {
            // The last picture stays.
            show(if self.visual { "\n" } else { "\r\x1b[K" });
        }
    }
}

fn columns() -> usize {
    let given = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    given.filter(|columns| *columns > 0).unwrap_or(COLUMNS)
}

// A closed terminal does not end the sampling.
pub fn show(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
