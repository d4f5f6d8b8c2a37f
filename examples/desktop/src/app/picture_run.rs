//! Pictures: grids, refills, files, the history.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use pgm_infer::engine::ImageEngine;
use pgm_infer::{Picture, SampleSettings};

use super::App;
use crate::generation::GenerationPhase;
use crate::pictures::classes;
use crate::pictures::drawing::{Drawing, Shown};
use crate::pictures::editing::{Editing, Target, has_editable_size};
use crate::pictures::files::{file_name, sheet};
use crate::pictures::fit::fit;
use crate::pictures::history::PictureEntry;
use crate::pictures::job::{Job, JobEvent, Work};
use crate::pictures::run::JobRun;
use crate::pictures::settings::PictureSettings;
use crate::settings::{seed, sentence};
use crate::worker::{self, Message};

impl App {
    // Draws the grid, or refills the picture on the canvas.
    pub(super) fn start_pictures(&mut self) -> Result<(), String> {
        let engine = self.model.picture_engine().cloned().ok_or("No model of pictures is open.")?;
        if self.pictures.editing.is_some() { self.start_refill(engine) } else { self.start_grid(engine) }
    }

    fn start_grid(&mut self, engine: Arc<ImageEngine>) -> Result<(), String> {
        let (model, settings) = (engine.model(), &self.pictures.settings);
        let seed = seed(&settings.seed)?;
        let pictures = settings.pictures(model, seed)?;
        let sampler = settings.sampler(model, pictures.iter().any(|(class, _)| class.is_some()))?;
        let blank = Shown::blank(model.codec().shape());
        let drawing = |&(class, seed): &(Option<usize>, u64)| Drawing {
            name: class.map_or_else(String::new, |class| model.image().class_name(class)),
            class: class.map_or_else(String::new, |class| classes::name(class, model)),
            seed: Some(seed),
            shown: blank.clone(),
            before: Vec::new(),
        };
        self.pictures.grid = pictures.iter().map(drawing).collect();
        self.start_job(engine, sampler, Work::Draw(pictures), None, seed);
        self.pictures.grid_id = self.next_id;
        Ok(())
    }

    fn start_refill(&mut self, engine: Arc<ImageEngine>) -> Result<(), String> {
        let model = engine.model();
        let Some(editing) = &self.pictures.editing else { return Ok(()) };
        let drawing = self.pictures.drawing(editing.target).ok_or("The picture is no longer there; choose another.")?;
        let picture = &drawing.shown.picture;
        if editing.mask.is_empty() {
            return Err("Nothing is marked yet; paint over what is to be drawn again.".into());
        }
        let (width, height, _) = model.codec().shape();
        let (has_width, has_height) = (picture.width(), picture.height());
        if has_width < width || has_height < height {
            return Err(format!(
                "The picture has {has_width} x {has_height} pixels and this model draws {width} x {height}; save it and \
                 open the file, which scales it."
            ));
        }
        let class = classes::parse_one(&editing.class, model)?;
        let seed = seed(&self.pictures.settings.seed)?;
        let sampler = self.pictures.settings.sampler(model, class.is_some())?;
        let edit = editing.edit(picture).map_err(|error| sentence(&error.to_string()))?;
        let (target, work) = (editing.target, Work::Refill { edit: Box::new(edit), class, seed });
        if let Some(editing) = &mut self.pictures.editing {
            editing.refilled = Some(editing.mask.revision());
        }
        self.start_job(engine, sampler, work, Some(target), seed);
        Ok(())
    }

    fn start_job(
        &mut self,
        engine: Arc<ImageEngine>,
        settings: SampleSettings,
        work: Work,
        target: Option<Target>,
        seed: u64,
    ) {
        self.next_id += 1;
        let (id, sender, n_steps) = (self.next_id, self.sender.clone(), settings.steps);
        let n = if let Work::Draw(pictures) = &work { pictures.len() } else { 1 };
        let job = Job { engine, settings, work };
        let cancelled = job.start(move |event| sender.send(Message::JobEvent { id, event }));
        let (phase, started) = (GenerationPhase::Running, Instant::now());
        let (duration, filling, step) = (None, None, 0);
        let settings = self.pictures.settings.clone();
        self.pictures.run =
            Some(JobRun { id, target, seed, settings, phase, started, duration, step, n_steps, n, cancelled, filling });
    }

    pub(super) fn handle_job_event(&mut self, id: u64, event: JobEvent) {
        let Some(run) = self.pictures.run.as_mut().filter(|run| run.id == id) else { return };
        match event {
            JobEvent::Step { done, total, shown } => {
                (run.step, run.n_steps) = (done, total);
                for (index, shown) in shown {
                    match (run.target, self.pictures.grid.get_mut(index)) {
                        (Some(_), _) => run.filling = Some(shown),
                        (None, Some(drawing)) => drawing.shown = shown,
                        (None, None) => {}
                    }
                }
            }
            JobEvent::Ended { complete: false } => run.end(GenerationPhase::Cancelled),
            JobEvent::Ended { complete: true } => {
                run.end(GenerationPhase::Complete);
                match run.target.zip(run.filling.take()) {
                    Some((target, shown)) => self.refilled(target, shown),
                    None => self.drawn(),
                }
            }
            JobEvent::Failed(error) => {
                run.end(GenerationPhase::Failed);
                self.error = Some(error);
            }
        }
    }

    fn refilled(&mut self, target: Target, shown: Arc<Shown>) {
        let Some(drawing) = self.pictures.drawing_mut(target) else { return };
        drawing.replace(shown);
        self.remember(target);
    }

    // The history shows a grid as it is now.
    fn remember(&mut self, target: Target) {
        if let Target::Grid(index) = target {
            let grid_id = self.pictures.grid_id;
            self.pictures.history.update(grid_id, index, &self.pictures.grid[index]);
        }
    }

    fn drawn(&mut self) {
        let Some(run) = &self.pictures.run else { return };
        self.pictures.history.push(PictureEntry {
            settings: run.settings.clone(),
            seed: run.seed,
            n: run.n,
            model: self.model.name(),
            seconds: run.seconds(),
            grid_id: run.id,
            grid: self.pictures.grid.clone(),
        });
    }

    // Cancels the running job and ignores its later events.
    pub(super) fn abandon_job(&mut self) {
        if let Some(run) = self.pictures.run.as_mut().filter(|run| run.is_running()) {
            run.cancel();
            run.end(GenerationPhase::Cancelled);
            run.id = 0;
        }
    }

    // The settings of another model give way to this one's defaults.
    pub(super) fn fit_picture_settings(&mut self) {
        let Some(model) = self.model.pictures() else { return };
        let name = self.folder_name();
        let settings = &mut self.pictures.settings;
        if settings.model != name || classes::parse(&settings.classes, model).is_err() {
            *settings = settings.for_model(model, &name);
        }
        if let Some(editing) = &mut self.pictures.editing {
            if classes::parse_one(&editing.class, model).is_err() {
                editing.class.clear();
            }
            editing.mask_changed();
        }
    }

    /// Puts a picture on the canvas.
    pub fn edit(&mut self, target: Target) {
        if let Some(drawing) = self.pictures.drawing(target).filter(|drawing| drawing.is_complete()) {
            let editing = Editing::new(target, &drawing.shown.picture, drawing.class.clone());
            self.notice = None;
            self.put_on_canvas(editing);
        }
    }

    /// Shows the grid again.
    pub fn close_editor(&mut self) {
        self.pictures.editing = None;
        (self.error, self.notice) = (None, None);
    }

    /// Brings the picture before the last refill back.
    pub fn undo(&mut self) {
        let Some(target) = self.pictures.editing.as_ref().map(|editing| editing.target) else { return };
        if !self.pictures.is_running() && self.pictures.drawing_mut(target).is_some_and(Drawing::undo) {
            self.remember(target);
            if let Some(editing) = &mut self.pictures.editing {
                editing.refilled = None;
            }
        }
    }

    /// The picture on the canvas: as it fills while it is refilled.
    pub fn canvas(&self) -> Option<&Arc<Shown>> {
        let target = self.pictures.editing.as_ref()?.target;
        let run = self.pictures.run.as_ref().filter(|run| run.is_running() && run.target == Some(target));
        run.and_then(|run| run.filling.as_ref()).or_else(|| Some(&self.pictures.drawing(target)?.shown))
    }

    /// Finds the cells that the mask opens.
    pub fn update_open_cells(&mut self) {
        let (Some(shown), Some(model)) = (self.canvas().cloned(), self.model.pictures()) else { return };
        if let Some(editing) = &mut self.pictures.editing {
            editing.update_open(&shown.picture, model);
        }
    }

    /// Reads a picture to edit it.
    pub fn read_picture(&mut self, path: PathBuf) {
        if self.shows_pictures {
            worker::read_picture(path, self.sender.clone());
        } else {
            self.error = Some("The open model writes text; open a model of pictures to edit a picture.".into());
        }
    }

    // Puts the picture of a file on the canvas. One of another size is cut and scaled to the model's.
    pub(super) fn edit_file(&mut self, path: &Path, picture: Picture) {
        let Some(model) = self.model.pictures() else { return };
        let (width, height, channels) = model.codec().shape();
        let picture = picture.with_channels(channels);
        let fitted = fit(&picture, width, height);
        let size = format!("{} x {}", picture.width(), picture.height());
        let original = (fitted != picture && has_editable_size(&picture, model)).then(|| picture.clone());
        self.notice = (fitted != picture).then(|| {
            format!("The middle of this picture of {size} pixels was scaled to {width} x {height}, the model's size.")
        });
        if self.pictures.run.as_ref().is_some_and(|run| run.target == Some(Target::Opened)) {
            self.abandon_job();
        }
        let name = path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        self.set_opened(name, fitted, original);
    }

    fn set_opened(&mut self, name: String, picture: Picture, original: Option<Picture>) {
        let editing = Editing { original, ..Editing::new(Target::Opened, &picture, String::new()) };
        let (shown, class) = (Shown::complete(picture), String::new());
        self.pictures.opened = Some(Drawing { name, class, seed: None, shown, before: Vec::new() });
        self.put_on_canvas(editing);
    }

    fn put_on_canvas(&mut self, editing: Editing) {
        self.pictures.brush.fit(editing.mask.size().0);
        self.pictures.editing = Some(editing);
        self.error = None;
    }

    /// Edits the file's picture in its own size instead of the model's.
    pub fn use_original_size(&mut self) {
        let original = self.pictures.editing.as_mut().and_then(|editing| editing.original.take());
        if let (Some(picture), Some(name)) = (original, self.pictures.opened.as_ref().map(|opened| opened.name.clone()))
        {
            self.set_opened(name, picture, None);
            self.notice = None;
        }
    }

    /// Saves a picture.
    pub fn save_picture(&mut self, target: Target) {
        let Some(drawing) = self.pictures.drawing(target).filter(|drawing| drawing.is_complete()) else { return };
        let name = match target {
            Target::Grid(_) => file_name(&drawing.name, drawing.seed),
            Target::Opened => file_name(&format!("{}-edited", drawing.name), None),
        };
        self.save(drawing.shown.picture.clone(), name);
    }

    /// Saves all complete pictures of the grid in one.
    pub fn save_sheet(&mut self) {
        if let Some(sheet) = sheet(&self.pictures.grid) {
            let seed = self.pictures.grid.first().and_then(|drawing| drawing.seed);
            self.save(sheet, file_name("pictures", seed));
        }
    }

    fn save(&mut self, picture: Picture, name: String) {
        if !std::mem::replace(&mut self.choosing, true) {
            (self.error, self.notice) = (None, None);
            let folder = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
            worker::save_picture(picture, name, folder, self.sender.clone());
        }
    }

    /// Shows a grid of the history and restores its settings and its seed. The pictures of an earlier run of the program
    /// are drawn again by [`App::generate`].
    pub fn restore_grid(&mut self, index: usize) {
        let Some(entry) = self.pictures.history.get(index).cloned() else { return };
        self.abandon_job();
        self.pictures.run = None;
        (self.pictures.editing, self.error, self.notice) = (None, None, None);
        let model = std::mem::take(&mut self.pictures.settings.model);
        // The settings stay those of the open model.
        self.pictures.settings = PictureSettings { seed: entry.seed.to_string(), model, ..entry.settings };
        if entry.grid.is_empty() {
            self.notice = Some("Generate draws these pictures again.".into());
        } else {
            (self.pictures.grid, self.pictures.grid_id) = (entry.grid, entry.grid_id);
        }
    }
}
