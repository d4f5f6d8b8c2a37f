//! The stages of pictures, with the model that is open, or with a small one of random weights.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use eframe::egui::{Context, Event, Id, Modifiers, PointerButton, Pos2, Rect, pos2};
use pgm_infer::{ImageModel, Picture};

use super::gesture::Gesture;
use super::next::Next;
use super::screenshot::Screenshot;
use crate::app::App;
use crate::generation::GenerationPhase;
use crate::models::ModelSource;
use crate::pictures::drawing::{Drawing, Shown};
use crate::pictures::editing::Target;
use crate::pictures::tiny;
use crate::view::CANVAS;

/// Places on the picture that the pointer goes through with its button held.
const STROKE: [(f32, f32); 8] =
    [(0.2, 0.6), (0.5, 0.62), (0.8, 0.6), (0.8, 0.72), (0.5, 0.74), (0.2, 0.72), (0.3, 0.85), (0.7, 0.85)];
/// Where the pointer is on nothing.
const ASIDE: Pos2 = pos2(4.0, 4.0);
/// Frames that a click on the window needs until its effect is drawn.
const FRAMES: usize = 3;

/// A stage of pictures.
#[derive(Debug)]
pub enum PictureStage {
    /// The model opens.
    Opens,
    /// A grid fills; its numbers of open pixels.
    Draws {
        /// In their order.
        states: Vec<usize>,
        /// Of the grid, half full.
        screen: Option<Screenshot>,
    },
    /// The grid is saved.
    Grid(Screenshot),
    /// A file is dropped and opens; the picture in it.
    Drops(Picture),
    /// The pointer paints a mask.
    Paints {
        /// Frames since the pointer was released; absent before it was pressed.
        frames: Option<usize>,
    },
    /// The mask is saved.
    Mask(Screenshot),
    /// The marked part is refilled; the picture before.
    Refills(Arc<Shown>),
    /// The result is saved; the picture before.
    Refilled(Screenshot, Arc<Shown>),
}

impl PictureStage {
    /// The first stage: makes a model in `folder` and opens it.
    ///
    /// # Errors
    /// A sentence when it cannot be written.
    pub fn begin(app: &mut App, folder: &Path) -> Result<Self, String> {
        let folder = folder.join("model-of-pictures");
        tiny::write(&folder, &["cat", "dog", "owl"])?;
        app.open(ModelSource::folder(folder));
        Ok(Self::Opens)
    }

    /// Looks at the stage after a frame; `gestures` go to the window, one in each frame.
    ///
    /// # Errors
    /// A sentence when a test fails.
    pub fn next(
        &mut self,
        context: &Context,
        app: &mut App,
        folder: &Path,
        gestures: &mut VecDeque<Gesture>,
    ) -> Result<Next<Self>, String> {
        let phase = app.pictures.run.as_ref().map(|run| run.phase);
        match self {
            Self::Opens => {
                let Some(model) = app.model.pictures() else { return Ok(Next::Wait) };
                let settings = &mut app.pictures.settings;
                (settings.n, settings.guidance, settings.seed) = (4, 1.5, "5".into());
                settings.steps = model.grid().n_tokens().min(160);
                app.generate();
                Ok(Next::Passed("opens a model of pictures", Self::Draws { states: Vec::new(), screen: None }))
            }
            Self::Draws { states, screen } => {
                // The pointer of a new screen stands in its middle.
                if gestures.is_empty() {
                    gestures.push_back(Gesture::Pointer(Event::PointerMoved(ASIDE)));
                }
                let n_open: usize = app.pictures.grid.iter().map(|drawing| drawing.shown.n_open()).sum();
                if states.last() != Some(&n_open) {
                    states.push(n_open);
                }
                let is_half = n_open > 0 && n_open < states[0] / 2;
                if is_half && screen.is_none() {
                    *screen = Some(Screenshot::request(context, folder.join("pictures-filling.png")));
                }
                match phase {
                    Some(GenerationPhase::Complete) => {}
                    Some(GenerationPhase::Running) => return Ok(Next::Wait),
                    other => return Err(format!("the grid ended as {other:?}")),
                }
                if let Some(screen) = screen {
                    screen.is_saved()?;
                }
                if states.len() < 3 {
                    return Err(format!("the grid filled at once: open pixels {states:?}"));
                }
                if !app.pictures.grid.iter().all(Drawing::is_complete) || app.pictures.history.get(0).is_none() {
                    return Err("a complete grid has open pixels or is not in the history".into());
                }
                let screen = Screenshot::request(context, folder.join("pictures.png"));
                Ok(Next::Passed("draws a grid", Self::Grid(screen)))
            }
            Self::Grid(screen) => {
                if !screen.is_saved()? {
                    return Ok(Next::Wait);
                }
                let (path, picture) = (folder.join("dropped.png"), app.pictures.grid[0].shown.picture.clone());
                picture.write_png(&path).map_err(|error| error.to_string())?;
                gestures.extend([Gesture::Hover(path.clone()), Gesture::Drop(path)]);
                Ok(Next::Go(Self::Drops(picture)))
            }
            Self::Drops(picture) => {
                if app.pictures.editing.is_none() {
                    return Ok(Next::Wait);
                }
                let opened = app.pictures.opened.as_ref().ok_or("the dropped file is not what is edited")?;
                if opened.name != "dropped" || opened.shown.picture != *picture {
                    return Err("another picture than the dropped one is on the canvas".into());
                }
                app.edit(Target::Grid(app.pictures.grid.len() / 2));
                Ok(Next::Passed("opens a dropped picture", Self::Paints { frames: None }))
            }
            Self::Paints { frames: None } => {
                let Some(canvas) = context.read_response(Id::unique(CANVAS)) else { return Ok(Next::Wait) };
                gestures.extend(stroke(canvas.rect).into_iter().map(Gesture::Pointer));
                Ok(Next::Go(Self::Paints { frames: Some(0) }))
            }
            Self::Paints { frames: Some(frames) } => {
                *frames += usize::from(gestures.is_empty());
                if *frames < FRAMES {
                    return Ok(Next::Wait);
                }
                check_mask(app)?;
                let screen = Screenshot::request(context, folder.join("mask.png"));
                Ok(Next::Passed("paints a mask", Self::Mask(screen)))
            }
            Self::Mask(screen) => {
                let (true, Some(editing)) = (screen.is_saved()?, app.pictures.editing.as_ref()) else {
                    return Ok(Next::Wait);
                };
                let before = app.pictures.drawing(editing.target).ok_or("the picture is gone")?.shown.clone();
                app.generate();
                Ok(Next::Go(Self::Refills(before)))
            }
            Self::Refills(before) => match phase {
                Some(GenerationPhase::Running) => Ok(Next::Wait),
                Some(GenerationPhase::Complete) => {
                    check_refill(app, &before.picture)?;
                    let screen = Screenshot::request(context, folder.join("refilled.png"));
                    Ok(Next::Passed("refills the marked part alone", Self::Refilled(screen, before.clone())))
                }
                other => Err(format!("the refill ended as {other:?}")),
            },
            Self::Refilled(screen, before) => {
                if !screen.is_saved()? {
                    return Ok(Next::Wait);
                }
                app.undo();
                if app.canvas() != Some(&*before) {
                    return Err("undo did not bring the picture before back".into());
                }
                Ok(Next::Done)
            }
        }
    }
}

fn stroke(canvas: Rect) -> Vec<Event> {
    let at = |(x, y): (f32, f32)| pos2(canvas.min.x + x * canvas.width(), canvas.min.y + y * canvas.height());
    let button = |place, pressed| Event::PointerButton {
        pos: at(place),
        button: PointerButton::Primary,
        pressed,
        modifiers: Modifiers::NONE,
    };
    let moves = STROKE.into_iter().map(|place| Event::PointerMoved(at(place)));
    let (first, last) = (STROKE[0], STROKE[STROKE.len() - 1]);
    let before = [Event::PointerMoved(at(first)), button(first, true)];
    before.into_iter().chain(moves).chain([button(last, false), Event::PointerMoved(ASIDE)]).collect()
}

fn check_mask(app: &App) -> Result<(), String> {
    let editing = app.pictures.editing.as_ref().ok_or("no picture is on the canvas")?;
    let (width, height) = editing.mask.size();
    let marked =
        |x: f32, y: f32| editing.mask.marked()[(y * height as f32) as usize * width + (x * width as f32) as usize];
    for (x, y) in STROKE {
        if !marked(x, y) {
            return Err(format!("the pointer went over {x}, {y}, which is not marked"));
        }
    }
    if marked(0.5, 0.1) || editing.open.cells.is_empty() {
        return Err("the mask marks what the pointer did not touch, or opens no cell".into());
    }
    Ok(())
}

fn check_refill(app: &App, before: &Picture) -> Result<(), String> {
    let (model, editing) = (app.model.pictures(), app.pictures.editing.as_ref());
    let (model, editing) = model.zip(editing).ok_or("no picture is on the canvas")?;
    let after = &app.canvas().ok_or("the picture is gone")?.picture;
    let (width, height) = editing.mask.size();
    let reach = reach(model);
    let near = |x: usize, y: usize| {
        let columns = x.saturating_sub(reach)..(x + reach + 1).min(width);
        let mut rows = y.saturating_sub(reach)..(y + reach + 1).min(height);
        rows.any(|row| columns.clone().any(|column| editing.mask.marked()[row * width + column]))
    };
    let mut n_kept = 0;
    for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).filter(|&(x, y)| !near(x, y)) {
        if before.pixel(x, y) != after.pixel(x, y) {
            return Err(format!("the pixel {x}, {y} was not marked and has changed"));
        }
        n_kept += 1;
    }
    if n_kept == 0 || before == after {
        return Err(format!("of the picture {n_kept} pixels were kept, and a refill changes the others"));
    }
    Ok(())
}

// Pixels over which a refill is blended with a codec's picture; pixels as tokens are exact.
fn reach(model: &ImageModel) -> usize {
    if model.codec().is_exact() { 0 } else { (model.codec().shape().0 / model.grid().columns * 3).div_ceil(2) }
}
