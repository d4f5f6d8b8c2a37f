//! `--self-test DIR`: the program tests itself, for continuous integration.
//!
//! It calls the same functions as the buttons and checks the state after each frame: the model opens, a text fills in several
//! steps, a longer generation is cancelled, a screenshot is saved, the window closes.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use eframe::egui::{ColorImage, Context, ViewportCommand};
use pgm_infer::text::canvas::Segment;

use crate::app::{App, ModelState, SavedState};
use crate::generation::GenerationPhase;
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
    /// The failure, as one sentence.
    pub failure: Option<String>,
}

#[derive(Debug)]
enum Stage {
    Opens,
    Generates { states: Vec<usize> },
    Cancels { asked: bool },
    Pictures(Receiver<Arc<ColorImage>>),
    Closes,
}

/// The running test.
#[derive(Debug)]
pub struct SelfTest {
    folder: PathBuf,
    stage: Stage,
    since: Instant,
    report: SharedReport,
}

impl SelfTest {
    /// A test that saves its screenshot in `folder`.
    pub fn new(folder: &Path, report: SharedReport) -> Self {
        Self { folder: folder.to_path_buf(), stage: Stage::Opens, since: Instant::now(), report }
    }

    /// The state that the window starts with, instead of the user's saved state.
    pub fn initial_state() -> SavedState {
        // The remask order takes all its steps, so that even rare frames see the text fill.
        let (steps, order) = (300, "remask".to_string());
        let settings = AppSettings { steps, order, seed: "7".into(), device: "auto".into(), ..AppSettings::default() };
        let text =
            "Once upon a time there was {10}. Every morning she {10}, and her friend said: \"{10}\" In the end {10}.";
        SavedState { text: text.into(), settings, ..SavedState::default() }
    }

    /// Advances the test. Called after each frame.
    pub fn step(&mut self, context: &Context, app: &mut App) {
        // The test advances once per frame, so it asks for the next one.
        context.request_repaint_after(Duration::from_millis(5));
        let next = match &mut self.stage {
            Stage::Closes => return,
            _ if app.error.is_some() => Err(app.error.clone().unwrap_or_default()),
            stage if self.since.elapsed() > STAGE_TIMEOUT => Err(format!("nothing happened for a minute at {stage:?}")),
            stage => stage.next(context, app, &self.folder),
        };
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        match next {
            Ok(None) => return,
            Ok(Some((passed, stage))) => {
                report.passed.extend(passed);
                self.stage = stage;
                self.since = Instant::now();
            }
            Err(failure) => {
                report.failure = Some(failure);
                self.stage = Stage::Closes;
            }
        }
        if matches!(self.stage, Stage::Closes) {
            context.send_viewport_cmd(ViewportCommand::Close);
        }
    }
}

impl Stage {
    // The name of the passed stage, if it has one, and the next stage. Nothing while this stage is not finished.
    fn next(
        &mut self,
        context: &Context,
        app: &mut App,
        folder: &Path,
    ) -> Result<Option<(Option<&'static str>, Self)>, String> {
        let phase = app.generation.as_ref().map(|generation| generation.phase);
        match self {
            Self::Opens => {
                if !matches!(app.model, ModelState::Ready { .. }) {
                    return Ok(None);
                }
                app.generate();
                Ok(Some((Some("opens"), Self::Generates { states: Vec::new() })))
            }
            Self::Generates { states } => {
                if states.last() != Some(&app.n_open()) {
                    states.push(app.n_open());
                }
                match phase {
                    Some(GenerationPhase::Complete) if states.len() < 3 => {
                        Err(format!("the text filled at once: open tokens {states:?}"))
                    }
                    Some(GenerationPhase::Complete) if app.n_open() > 0 || app.history.get(0).is_none() => {
                        Err("a complete text has open tokens or is not in the history".into())
                    }
                    Some(GenerationPhase::Complete) => {
                        // Long enough that it is not complete before it is cancelled.
                        app.text =
                            "Once upon a time there was {28}. Every morning she {20}, and in the end {12}.".into();
                        app.settings.steps = 1000;
                        app.generate();
                        Ok(Some((Some("generates"), Self::Cancels { asked: false })))
                    }
                    _ => Ok(None),
                }
            }
            Self::Cancels { asked } => match phase {
                Some(GenerationPhase::Cancelled) if *asked => {
                    let (sender, picture) = channel();
                    let wake = context.clone();
                    context.request_screenshot(move |image| {
                        let _ = sender.send(image);
                        wake.request_repaint();
                    });
                    Ok(Some((Some("cancels"), Self::Pictures(picture))))
                }
                Some(GenerationPhase::Running) if !*asked => {
                    let new = app.shown.iter().any(|segment| matches!(segment, Segment::New { .. }));
                    if new && app.n_open() < 28 {
                        *asked = true;
                        app.cancel();
                    }
                    Ok(None)
                }
                Some(GenerationPhase::Running) => Ok(None),
                other => Err(format!("a generation that was cancelled ended as {other:?}")),
            },
            Self::Pictures(picture) => match picture.try_recv() {
                Err(_) => Ok(None),
                Ok(image) => {
                    if image.pixels.iter().all(|pixel| *pixel == image.pixels[0]) {
                        return Err("the window is empty".into());
                    }
                    save(&image, &folder.join("desktop.png"))?;
                    Ok(Some((None, Self::Closes)))
                }
            },
            Self::Closes => Ok(None),
        }
    }
}

fn save(image: &ColorImage, path: &Path) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{} cannot be written: {error}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    }
    let file = std::fs::File::create(path).map_err(|error| failed(&error))?;
    let [width, height] = image.size;
    let mut encoder = png::Encoder::new(std::io::BufWriter::new(file), width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    let bytes: Vec<u8> = image.pixels.iter().flat_map(|pixel| [pixel.r(), pixel.g(), pixel.b()]).collect();
    let mut writer = encoder.write_header().map_err(|error| failed(&error))?;
    writer.write_image_data(&bytes).map_err(|error| failed(&error))?;
    writer.finish().map_err(|error| failed(&error))
}
