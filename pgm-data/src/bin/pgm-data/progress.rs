//! Progress on standard error.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pgm_data::Progress;

static STOP: AtomicBool = AtomicBool::new(false);

/// A bar on a terminal, a plain line every few seconds elsewhere.
pub(crate) struct ProgressDisplay {
    bar: ProgressBar,
    plain: bool,
    start: Instant,
    last: Instant,
}

impl ProgressDisplay {
    pub(crate) fn new() -> Self {
        // Without a handler Ctrl-C still ends the program, but the temporary folder remains.
        let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed));
        let plain = !std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let template = "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, plain, start: Instant::now(), last: Instant::now() }
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
            let _ = writeln!(std::io::stderr(), "{percent:.0} %  {:.1} MB/s  {left:.0} s left", rate / 1e6);
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
