//! The stages of text.

use std::path::Path;

use eframe::egui::Context;
use pgm_infer::text::canvas::Segment;

use super::next::Next;
use super::screenshot::Screenshot;
use crate::app::App;
use crate::generation::GenerationPhase;

/// A stage of text.
#[derive(Debug)]
pub enum TextStage {
    /// A text fills; its numbers of open tokens.
    Generates {
        /// In their order.
        states: Vec<usize>,
    },
    /// A longer one is cancelled.
    Cancels {
        /// Whether it was asked to stop.
        asked: bool,
    },
    /// The window is saved.
    Screen(Screenshot),
}

impl TextStage {
    /// The first stage.
    pub fn begin(app: &mut App) -> Self {
        app.generate();
        Self::Generates { states: Vec::new() }
    }

    /// Looks at the stage after a frame.
    ///
    /// # Errors
    /// A sentence when a test fails.
    pub fn next(&mut self, context: &Context, app: &mut App, folder: &Path) -> Result<Next<Self>, String> {
        let phase = app.generation.as_ref().map(|generation| generation.phase);
        match self {
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
                            "And it came to pass that {28}. And the king said, {20}, and the people {12}.".into();
                        app.settings.steps = 1000;
                        app.generate();
                        Ok(Next::Passed("generates", Self::Cancels { asked: false }))
                    }
                    _ => Ok(Next::Wait),
                }
            }
            Self::Cancels { asked } => match phase {
                Some(GenerationPhase::Cancelled) if *asked => {
                    let screen = Screenshot::request(context, folder.join("desktop.png"));
                    Ok(Next::Passed("cancels", Self::Screen(screen)))
                }
                Some(GenerationPhase::Running) if !*asked => {
                    let new = app.shown.iter().any(|segment| matches!(segment, Segment::New { .. }));
                    if new && app.n_open() < 28 {
                        *asked = true;
                        app.cancel();
                    }
                    Ok(Next::Wait)
                }
                Some(GenerationPhase::Running) => Ok(Next::Wait),
                other => Err(format!("a generation that was cancelled ended as {other:?}")),
            },
            Self::Screen(screen) => Ok(if screen.is_saved()? { Next::Done } else { Next::Wait }),
        }
    }
}
