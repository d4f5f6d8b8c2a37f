//! A job as the window sees it: its progress and its figures for the status line.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::drawing::Shown;
use super::editing::Target;
use super::settings::PictureSettings;
use crate::generation::GenerationPhase;

/// A job. It is kept after its end for the status line.
#[derive(Debug)]
pub struct JobRun {
    /// Identifies its events. 0 once its events are ignored.
    pub id: u64,
    /// The picture that it refills; none if it draws the grid.
    pub target: Option<Target>,
    /// The seed.
    pub seed: u64,
    /// The settings at the start.
    pub settings: PictureSettings,
    /// The phase.
    pub phase: GenerationPhase,
    /// Start time.
    pub started: Instant,
    /// Duration; absent while it runs.
    pub duration: Option<Duration>,
    /// Sampling steps done.
    pub step: usize,
    /// Sampling steps in all.
    pub n_steps: usize,
    /// Number of pictures.
    pub n: usize,
    /// Stops it after the current step.
    pub cancelled: Arc<AtomicBool>,
    /// The picture that it refills, as it fills.
    pub filling: Option<Arc<Shown>>,
}

impl JobRun {
    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.phase == GenerationPhase::Running
    }

    /// Stops it after the current step.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// It is over.
    pub fn end(&mut self, phase: GenerationPhase) {
        self.phase = phase;
        self.duration = Some(self.started.elapsed());
    }

    /// Seconds since the start, or from start to end.
    pub fn seconds(&self) -> f64 {
        self.duration.unwrap_or_else(|| self.started.elapsed()).as_secs_f64()
    }

    /// Steps per second; absent before the first step.
    pub fn rate(&self) -> Option<f64> {
        let seconds = self.seconds();
        (self.step > 0 && seconds > 0.0).then(|| self.step as f64 / seconds)
    }

    /// Seconds left, if it goes on as until now; absent before the first step and after the end.
    pub fn seconds_left(&self) -> Option<f64> {
        let rate = self.rate().filter(|_| self.is_running())?;
        Some(self.n_steps.saturating_sub(self.step) as f64 / rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_from_the_rate() {
        let mut run = JobRun {
            id: 1,
            target: None,
            seed: 0,
            settings: PictureSettings::default(),
            phase: GenerationPhase::Running,
            started: Instant::now(),
            duration: Some(Duration::from_secs(4)),
            step: 0,
            n_steps: 40,
            n: 3,
            cancelled: Arc::default(),
            filling: None,
        };
        assert_eq!((run.rate(), run.seconds_left()), (None, None));
        run.step = 8;
        assert_eq!((run.rate(), run.seconds_left()), (Some(2.0), Some(16.0)));
        run.end(GenerationPhase::Complete);
        assert_eq!(run.seconds_left(), None);
    }
}
