//! `--self-test DIR`: the program looks at itself, for machines that build it.
//!
//! It drives the state as buttons do and watches what is drawn: the model opens, a text fills in more than one step, a longer
//! one is cancelled, a picture of the window is kept, the window closes.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use eframe::egui::{ColorImage, Context, ViewportCommand};
use pgm_infer::text::canvas::Segment;

use crate::app::{App, Kept, Model, Phase};
use crate::settings::Settings;

/// Longer than this no stage takes, on a slow machine without a graphics card.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was found; shared with `main`, which outlives the window.
pub type Findings = Arc<Mutex<SelfTestReport>>;

/// What was found.
#[derive(Debug, Default)]
pub struct SelfTestReport {
    /// What works.
    pub passed: Vec<&'static str>,
    /// One sentence on what does not.
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

/// The test as it goes on.
#[derive(Debug)]
pub struct SelfTest {
    folder: PathBuf,
    stage: Stage,
    since: Instant,
    findings: Findings,
}

impl SelfTest {
    /// Writes its picture into a folder.
    pub fn new(folder: &Path, findings: Findings) -> Self {
        Self { folder: folder.to_path_buf(), stage: Stage::Opens, since: Instant::now(), findings }
    }

    /// What the window starts with: nothing of the user's.
    pub fn kept() -> Kept {
        // An order that forgets takes all its steps, so that windows that are drawn seldom see it fill, too.
        let (steps, order) = (300, "remask".to_string());
        let settings = Settings { steps, order, seed: "7".into(), device: "auto".into(), ..Settings::default() };
        let text =
            "Once upon a time there was {10}. Every morning she {10}, and her friend said: \"{10}\" In the end {10}.";
        Kept { text: text.into(), settings, ..Kept::default() }
    }

    /// After each frame.
    pub fn step(&mut self, context: &Context, app: &mut App) {
        // Frames come as they would on a screen.
        context.request_repaint_after(Duration::from_millis(5));
        let next = match &mut self.stage {
            Stage::Closes => return,
            _ if app.error.is_some() => Err(app.error.clone().unwrap_or_default()),
            stage if self.since.elapsed() > PATIENCE => Err(format!("nothing happened for a minute at {stage:?}")),
            stage => stage.next(context, app, &self.folder),
        };
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        match next {
            Ok(None) => return,
            Ok(Some((passed, stage))) => {
                findings.passed.extend(passed);
                self.stage = stage;
                self.since = Instant::now();
            }
            Err(failure) => {
                findings.failure = Some(failure);
                self.stage = Stage::Closes;
            }
        }
        if matches!(self.stage, Stage::Closes) {
            context.send_viewport_cmd(ViewportCommand::Close);
        }
    }
}

impl Stage {
    // The next stage, once this one is through.
    fn next(
        &mut self,
        context: &Context,
        app: &mut App,
        folder: &Path,
    ) -> Result<Option<(Option<&'static str>, Self)>, String> {
        let phase = app.run.as_ref().map(|run| run.phase);
        match self {
            Self::Opens => {
                if !matches!(app.model, Model::Ready { .. }) {
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
                    Some(Phase::Complete) if states.len() < 3 => {
                        Err(format!("the text filled at once: open tokens {states:?}"))
                    }
                    Some(Phase::Complete) if app.n_open() > 0 || app.history.get(0).is_none() => {
                        Err("a complete text has open tokens or is not in the history".into())
                    }
                    Some(Phase::Complete) => {
                        // Long enough not to be done before it is cancelled.
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
                Some(Phase::Cancelled) if *asked => {
                    let (sender, picture) = channel();
                    let wake = context.clone();
                    context.request_screenshot(move |image| {
                        let _ = sender.send(image);
                        wake.request_repaint();
                    });
                    Ok(Some((Some("cancels"), Self::Pictures(picture))))
                }
                Some(Phase::SampleRow) if !*asked => {
                    let new = app.shown.iter().any(|segment| matches!(segment, Segment::New { .. }));
                    if new && app.n_open() < 28 {
                        *asked = true;
                        app.cancel();
                    }
                    Ok(None)
                }
                Some(Phase::SampleRow) => Ok(None),
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
