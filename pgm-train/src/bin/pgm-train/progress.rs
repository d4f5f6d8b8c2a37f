//! Progress of an evaluation, which Ctrl-C stops.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

static STOP: AtomicBool = AtomicBool::new(false);

/// Makes Ctrl-C break at the next update of a progress.
pub fn stop_on_ctrl_c() {
    let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed));
}

/// A progress bar on a terminal, otherwise a line every few seconds.
pub struct Progress {
    bar: ProgressBar,
    what: &'static str,
    plain: bool,
    start: Instant,
    last: Instant,
    first: Option<usize>,
}

impl Progress {
    pub fn new(what: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let template = format!("{{bar:30}} {{pos}}/{{len}} {what}  {{per_sec}}  {{eta}} left");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        let now = Instant::now();
        Self { bar, what, plain: !std::io::stderr().is_terminal(), start: now, last: now, first: None }
    }

    /// Shows the rate, the time left and the name that [`update_named`](Self::update_named) gets.
    pub fn with_name(what: &'static str) -> Self {
        let progress = Self::new(what);
        if let Ok(style) = ProgressStyle::with_template(&format!("{{bar:30}} {{pos}}/{{len}} {what}  {{msg}}")) {
            progress.bar.set_style(style);
        }
        progress
    }

    /// As [`update`](Self::update), with the seconds left where the caller knows them better than the rate tells, and the
    /// name of what is at work.
    pub fn update_named(&mut self, done: usize, all: usize, left: Option<f64>, name: &str) -> ControlFlow<()> {
        let first = *self.first.get_or_insert(done);
        self.bar.set_length(all as u64);
        self.bar.set_position(done as u64);
        let rate = (done - first.min(done)) as f64 / self.start.elapsed().as_secs_f64();
        let left = left.or_else(|| (rate > 0.0).then(|| (all - done.min(all)) as f64 / rate));
        let left = left.map_or(String::new(), |left| format!("  {left:.0} s left"));
        self.bar.set_message(format!("{rate:.2}/s{left}  {name}"));
        if self.plain && self.last.elapsed() > Duration::from_secs(5) {
            self.last = Instant::now();
            let _ = writeln!(std::io::stderr(), "{done} of {all} {}  {rate:.2}/s{left}  {name}", self.what);
        }
        if STOP.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    pub fn update(&mut self, done: usize, all: usize) -> ControlFlow<()> {
        let first = *self.first.get_or_insert(done);
        self.bar.set_length(all as u64);
        self.bar.set_position(done as u64);
        if self.plain && done > first && self.last.elapsed() > Duration::from_secs(5) {
            self.last = Instant::now();
            let rate = (done - first) as f64 / self.start.elapsed().as_secs_f64();
            let left = (all - done) as f64 / rate;
            let _ = writeln!(std::io::stderr(), "{done} of {all} {}  {rate:.2}/s  {left:.0} s left", self.what);
        }
        if STOP.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
