//! `--self-test DIR`: the program tests itself, for continuous integration.
//!
//! It calls the same functions as the buttons and checks the state after each frame. Text: the model opens, a text fills in
//! several steps, a longer generation is cancelled. Pictures: a grid fills in several steps, a file is dropped and opens, the
//! pointer paints a mask, the marked part is refilled and all else stays, the refill is undone. A screenshot is saved of each,
//! and the window closes.
//!
//! | file | what |
//! |---|---|
//! | `text.rs`, `pictures.rs` | the stages of both |
//! | `next.rs`, `gesture.rs`, `screenshot.rs` | what follows a stage; what the pointer does; pictures of the window |

mod gesture;
mod next;
mod pictures;
mod screenshot;
mod text;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use eframe::egui::{Context, RawInput, ViewportCommand};

use self::gesture::Gesture;
use self::next::Next;
use self::pictures::PictureStage;
use self::text::TextStage;
use crate::app::{App, ModelState, SavedState};
use crate::settings::AppSettings;

/// Time limit of a stage, enough for a slow machine without a GPU.
const STAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// The report, shared with `main`, which outlives the window.
pub type SharedReport = Arc<Mutex<SelfTestReport>>;

/// The report of the self-test.
#[derive(Debug, Default)]
pub struct SelfTestReport {
    /// Names of the passed stages.
    pub passed: Vec<&'static str>,
    /// Whether the last stage was reached.
    pub is_over: bool,
    /// The failure, as one sentence.
    pub failure: Option<String>,
}

#[derive(Debug)]
enum Stage {
    Opens,
    Text(TextStage),
    Pictures(PictureStage),
    Closes,
}

/// The running test.
#[derive(Debug)]
pub struct SelfTest {
    folder: PathBuf,
    stage: Stage,
    since: Instant,
    report: SharedReport,
    // One for each frame.
    gestures: VecDeque<Gesture>,
}

impl SelfTest {
    /// A test that saves its screenshots in `folder`.
    pub fn new(folder: &Path, report: SharedReport) -> Self {
        let (stage, since, gestures) = (Stage::Opens, Instant::now(), VecDeque::new());
        Self { folder: folder.to_path_buf(), stage, since, report, gestures }
    }

    /// The state that the window starts with, instead of the user's saved state.
    pub fn initial_state() -> SavedState {
        // The remask order takes all its steps, so that even rare frames see the text fill.
        let (steps, order) = (300, "remask".to_string());
        let (model, temperature, seed) = (Some(String::new()), 0.45, "7".into());
        let settings = AppSettings { model, steps, order, temperature, seed, ..AppSettings::default() };
        let text = "And it came to pass that {10}. And the king said, {10}, and {10}. So the people went {10}.";
        SavedState { text: text.into(), settings, ..SavedState::default() }
    }

    /// Adds the next gesture to a frame's input.
    pub fn add_input(&mut self, input: &mut RawInput) {
        if let Some(gesture) = self.gestures.pop_front() {
            gesture.add(input);
        }
    }

    /// Advances the test. Called after each frame.
    pub fn step(&mut self, context: &Context, app: &mut App) {
        // The test advances once per frame, so it asks for the next one.
        context.request_repaint_after(Duration::from_millis(5));
        if matches!(self.stage, Stage::Closes) {
            return;
        }
        let next = if let Some(error) = app.error.clone() {
            Err(error)
        } else if self.since.elapsed() > STAGE_TIMEOUT {
            Err(format!("nothing happened for a minute at {:?}", self.stage))
        } else {
            self.next(context, app)
        };
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        let (passed, stage) = match next {
            Ok(Next::Wait) => return,
            Ok(Next::Go(stage)) => (None, stage),
            Ok(Next::Passed(name, stage)) => (Some(name), stage),
            Ok(Next::Done) => {
                report.is_over = true;
                (None, Stage::Closes)
            }
            Err(failure) => {
                report.failure = Some(failure);
                (None, Stage::Closes)
            }
        };
        report.passed.extend(passed);
        (self.stage, self.since) = (stage, Instant::now());
        if matches!(self.stage, Stage::Closes) {
            context.send_viewport_cmd(ViewportCommand::Close);
        }
    }

    fn next(&mut self, context: &Context, app: &mut App) -> Result<Next<Stage>, String> {
        Ok(match &mut self.stage {
            Stage::Opens if !matches!(app.model, ModelState::Ready { .. }) => Next::Wait,
            Stage::Opens if app.shows_pictures => Next::Go(Stage::Pictures(PictureStage::Opens)),
            Stage::Opens => Next::Passed("opens", Stage::Text(TextStage::begin(app))),
            Stage::Text(stage) => match stage.next(context, app, &self.folder)? {
                Next::Done => Next::Go(Stage::Pictures(PictureStage::begin(app, &self.folder)?)),
                next => wrapped(next, Stage::Text),
            },
            Stage::Pictures(stage) => {
                wrapped(stage.next(context, app, &self.folder, &mut self.gestures)?, Stage::Pictures)
            }
            Stage::Closes => Next::Wait,
        })
    }
}

fn wrapped<S>(next: Next<S>, wrap: impl Fn(S) -> Stage) -> Next<Stage> {
    match next {
        Next::Wait => Next::Wait,
        Next::Go(stage) => Next::Go(wrap(stage)),
        Next::Passed(name, stage) => Next::Passed(name, wrap(stage)),
        Next::Done => Next::Done,
    }
}
