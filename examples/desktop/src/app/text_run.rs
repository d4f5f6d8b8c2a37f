//! The text as it fills: generations, the result, the history.

use std::ops::ControlFlow;
use std::time::Instant;

use pgm_infer::SampleSettings;
use pgm_infer::engine::{Finish, TaskEvent};
use pgm_infer::sample::RowChange;
use pgm_infer::text::canvas::{Canvas, Segment};
use pgm_infer::text::template;

use super::App;
use crate::generation::{Generation, GenerationPhase};
use crate::history::{self, HistoryEntry};
use crate::settings::{AppSettings, sentence};
use crate::worker::Message;

impl App {
    // Starts to fill the blanks of the text.
    pub(super) fn start_text(&mut self) -> Result<(), String> {
        let generation = self.start_generation()?;
        self.shown_seed = Some(generation.seed);
        self.generation = Some(generation);
        self.update_shown();
        Ok(())
    }

    fn start_generation(&mut self) -> Result<Generation, String> {
        let Some(engine) = self.model.engine() else { return Err("No model of text is open.".into()) };
        let message = |error: pgm_infer::InferError| sentence(&error.to_string());
        let seed = self.settings.seed()?;
        let parts = template::parse(&self.text, self.settings.blank).map_err(message)?;
        let row = engine.model().row(&parts, None, seed).map_err(message)?;
        let task = self.settings.task(parts, seed, SampleSettings::for_model(engine.model()))?;
        let n_steps = task.settings.steps;
        self.next_id += 1;
        let (id, sender) = (self.next_id, self.sender.clone());
        let listener = move |event| match sender.send(Message::TaskEvent { id, event: Box::new(event) }) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        };
        let handle = engine.submit(task, Box::new(listener)).map_err(message)?;
        Ok(Generation {
            id,
            handle,
            canvas: Canvas::of_row(&row),
            changed: true,
            template: self.text.clone(),
            settings: self.settings.clone(),
            started: Instant::now(),
            duration: None,
            seed,
            phase: GenerationPhase::Running,
            step: 0,
            n_steps,
            n_tokens: 0,
        })
    }

    // The settings of another model give way to this one's defaults.
    pub(super) fn fit_text_settings(&mut self) {
        let Some(engine) = self.model.engine() else { return };
        let folder = self.folder_name();
        if self.settings.model.as_ref() != Some(&folder) {
            self.settings = self.settings.for_model(engine.model(), &folder);
        }
    }

    // Cancels the running generation and ignores its later events: another model cannot decode its tokens.
    pub(super) fn abandon_generation(&mut self) {
        self.update_shown();
        let running = |generation: &&mut Generation| generation.phase == GenerationPhase::Running;
        if let Some(generation) = self.generation.as_mut().filter(running) {
            generation.handle.cancel();
            generation.duration = Some(generation.started.elapsed());
            generation.phase = GenerationPhase::Cancelled;
            generation.id = 0;
        }
    }

    /// Shows a result of the history and restores its text, seed and settings.
    pub fn restore(&mut self, index: usize) {
        let Some(entry) = self.history.get(index).cloned() else { return };
        self.cancel();
        self.generation = None;
        self.shown = history::segments(&entry.pieces);
        self.shown_seed = Some(entry.seed);
        self.text = entry.template;
        // Device and model stay as they are now.
        let (device, model) = (std::mem::take(&mut self.settings.device), self.settings.model.take());
        self.settings = AppSettings { seed: entry.seed.to_string(), device, model, ..entry.settings };
        self.error = None;
    }

    /// The result's text without its open tokens.
    pub fn shown_text(&self) -> String {
        let text = |segment: &Segment| match segment {
            Segment::Given { text } | Segment::Decoded { text } | Segment::New { text } => text.clone(),
            Segment::Open { .. } => String::new(),
        };
        self.shown.iter().map(text).collect()
    }

    /// Number of open tokens in the result.
    pub fn n_open(&self) -> usize {
        let open = |segment: &Segment| if let Segment::Open { n } = segment { *n } else { 0 };
        self.shown.iter().map(open).sum()
    }

    pub(super) fn handle_event(&mut self, id: u64, event: TaskEvent) {
        let Some(generation) = self.generation.as_mut().filter(|generation| generation.id == id) else { return };
        match event {
            TaskEvent::Step { step, n_steps, change, .. } => {
                (generation.step, generation.n_steps) = (step, n_steps);
                generation.n_tokens += change.decoded.len();
                generation.canvas.apply(&change);
                generation.changed = true;
            }
            TaskEvent::Done(output) => {
                generation.duration = Some(output.duration);
                generation.step = output.steps;
                if output.finish == Finish::Cancelled {
                    generation.phase = GenerationPhase::Cancelled;
                    return;
                }
                generation.phase = GenerationPhase::Complete;
                // An empty change: no token is new any more.
                generation.canvas.apply(&RowChange::default());
                generation.changed = true;
                let model = self.model.name();
                let entry = HistoryEntry {
                    template: generation.template.clone(),
                    text: output.text,
                    pieces: Vec::new(),
                    seed: generation.seed,
                    settings: generation.settings.clone(),
                    model,
                    steps: output.steps,
                    seconds: output.duration.as_secs_f64(),
                };
                self.update_shown();
                self.history.push(HistoryEntry { pieces: history::pieces(&self.shown), ..entry });
            }
            TaskEvent::Failed { error, .. } => {
                generation.duration = Some(generation.started.elapsed());
                generation.phase = GenerationPhase::Failed;
                self.error = Some(sentence(&error.to_string()));
            }
        }
    }

    pub(super) fn update_shown(&mut self) {
        let Some(generation) = self.generation.as_mut() else { return };
        let Some(engine) = self.model.engine() else { return };
        if std::mem::take(&mut generation.changed) {
            self.shown = generation.canvas.segments(engine.model());
        }
    }
}
