//! Progress on standard error.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pgm_data::Progress;

static STOP: AtomicBool = AtomicBool::new(false);

/// What is counted.
#[derive(Clone, Copy)]
enum Unit {
    Bytes,
    Pictures,
}

/// A bar on a terminal, a plain line every few seconds elsewhere.
pub(crate) struct ProgressDisplay {
    bar: ProgressBar,
    unit: Unit,
    plain: bool,
    start: Instant,
    last: Instant,
}

impl ProgressDisplay {
    /// Progress in bytes of text.
    pub(crate) fn new() -> Self {
        Self::of(Unit::Bytes, "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left")
    }

    /// Progress in pictures.
    pub(crate) fn of_pictures() -> Self {
        Self::of(Unit::Pictures, "{bar:30} {human_pos}/{human_len} pictures  {per_sec}  {eta} left")
    }

    fn of(unit: Unit, template: &str) -> Self {
        // Without a handler Ctrl-C still ends the program, but the temporary folder remains.
        let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed));
        let plain = !std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, unit, plain, start: Instant::now(), last: Instant::now() }
    }

    pub(crate) fn update(&mut self, progress: Progress) -> ControlFlow<()> {
        if progress.total > 0 {
            self.show(progress);
        }
        if STOP.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn show(&mut self, progress: Progress) {
        self.bar.set_length(progress.total);
        self.bar.set_position(progress.done);
        if self.plain && self.last.elapsed() > Duration::from_secs(5) {
            self.last = Instant::now();
            let rate = progress.done as f64 / self.start.elapsed().as_secs_f64();
            let left = (progress.total.saturating_sub(progress.done)) as f64 / rate;
            let percent = 100.0 * progress.done as f64 / progress.total as f64;
            let rate = match self.unit {
                Unit::Bytes => format!("{:.1} MB/s", rate / 1e6),
                Unit::Pictures => format!("{rate:.0} pictures/s"),
            };
            let _ = writeln!(std::io::stderr(), "{percent:.0} %  {rate}  {left:.0} s left");
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
