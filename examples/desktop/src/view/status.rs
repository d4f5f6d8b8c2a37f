//! The lower edge of the window: what runs, how fast, and the program's memory.

use std::time::{Duration, Instant};

use eframe::egui::{Align, Label, Layout, Ui};
use memory_stats::memory_stats;

use crate::app::{App, ModelState};
use crate::generation::{Generation, GenerationPhase};
use crate::pictures::run::JobRun;

/// The last measurement of memory.
#[derive(Debug, Default)]
pub struct Status {
    memory: Option<(Instant, usize)>,
}

impl Status {
    /// Draws it.
    pub fn show(&mut self, ui: &mut Ui, app: &App) {
        let now = Instant::now();
        if self.memory.is_none_or(|(at, _)| now - at > Duration::from_secs(1)) {
            self.memory = memory_stats().map(|memory| (now, memory.physical_mem));
        }
        ui.horizontal(|ui| {
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                if let Some((_, bytes)) = self.memory {
                    ui.weak(format!("{} MB memory", bytes / 1_000_000))
                        .on_hover_text("Resident memory of this program");
                }
                ui.with_layout(Layout::left_to_right(Align::Center), |ui| what(ui, app));
            });
        });
    }
}

// What was done or what runs, with its figures.
fn what(ui: &mut Ui, app: &App) {
    let run = app.pictures.run.as_ref().filter(|_| app.shows_pictures);
    let generation = app.generation.as_ref().filter(|_| !app.shows_pictures);
    if let (Some(notice), false) = (&app.notice, app.is_running()) {
        ui.add(Label::new(notice).truncate()).on_hover_text(notice);
        return;
    }
    match (&app.model, run, generation) {
        (ModelState::Opening { .. }, ..) => {
            ui.label("Opening the model");
        }
        (ModelState::Absent, ..) => {
            ui.label("No model");
        }
        (_, Some(run), _) => job(ui, run),
        (_, _, Some(generation)) => text(ui, generation),
        _ => {
            ui.label("Ready");
        }
    }
}

fn phase(phase: GenerationPhase, step: usize, n_steps: usize) -> String {
    match phase {
        GenerationPhase::Running => format!("Step {step} of {n_steps}"),
        GenerationPhase::Complete => format!("Done in {step} steps"),
        GenerationPhase::Cancelled => format!("Cancelled at step {step} of {n_steps}"),
        GenerationPhase::Failed => format!("Failed at step {step} of {n_steps}"),
    }
}

fn text(ui: &mut Ui, generation: &Generation) {
    ui.label(phase(generation.phase, generation.step, generation.n_steps));
    ui.weak(format!("{:.1} s", generation.seconds()));
    if let Some(speed) = generation.speed() {
        ui.weak(format!("{speed:.0} tokens/s"));
    }
}

fn job(ui: &mut Ui, run: &JobRun) {
    ui.label(phase(run.phase, run.step, run.n_steps));
    ui.weak(format!("{:.1} s", run.seconds()));
    if let Some(rate) = run.rate() {
        ui.weak(format!("{rate:.1} steps/s"));
    }
    if let Some(left) = run.seconds_left() {
        ui.weak(format!("about {} left", duration(left)));
    }
    if run.phase == GenerationPhase::Complete && run.target.is_none() {
        ui.weak(format!("{:.1} pictures/s", run.n as f64 / run.seconds().max(1e-9)));
    }
    ui.weak(format!("seed {}", run.seed));
}

// 75.2 becomes "1 min 15 s".
fn duration(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_its_two_largest_units() {
        for (seconds, text) in [(0.2, "1 s"), (75.2, "1 min 16 s"), (7325.0, "2 h 2 min")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
