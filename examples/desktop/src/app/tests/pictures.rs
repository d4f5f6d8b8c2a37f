//! Pictures without a window, with a model of random weights.

use std::path::Path;

use pgm_infer::Picture;

use super::{finished, until};
use crate::app::*;
use crate::pictures::drawing::Shown;
use crate::pictures::editing::Target;
use crate::pictures::tiny;

fn picture_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    tiny::write(folder.path(), &["cat", "dog", "owl"]).unwrap();
    folder
}

fn ready_for_pictures(folder: &Path, settings: PictureSettings) -> App {
    let saved = SavedState { picture_settings: settings, ..SavedState::default() };
    let mut app = App::new(saved, Arc::new(|| ()));
    app.start(Some(folder.into()), None);
    until(&mut app, "the model of pictures opens", |app| !matches!(app.model, ModelState::Opening { .. }));
    assert!(app.shows_pictures && app.model.pictures().is_some(), "{:?}", app.error);
    app
}

fn shown(app: &App) -> Vec<Arc<Shown>> {
    app.pictures.grid.iter().map(|drawing| drawing.shown.clone()).collect()
}

#[test]
fn a_grid_fills_and_the_same_seed_reproduces_it() {
    let folder = picture_folder();
    let mut app = ready_for_pictures(folder.path(), PictureSettings::default());
    assert_eq!((app.pictures.settings.classes.as_str(), app.pictures.settings.steps), ("all", 32));
    app.pictures.settings.n = 2;
    app.generate();
    assert!(app.pictures.grid.len() == 6 && shown(&app).iter().all(|shown| shown.n_open() == 192));
    finished(&mut app);
    let names: Vec<&str> = app.pictures.grid.iter().map(|drawing| drawing.name.as_str()).collect();
    assert_eq!(names, ["cat", "cat", "dog", "dog", "owl", "owl"]);
    let first = shown(&app);
    assert!(first.iter().all(|shown| shown.n_open() == 0) && first[0] != first[1]);
    app.pictures.settings.classes = "owl, 0".into();
    app.generate();
    finished(&mut app);
    assert_eq!(app.pictures.history.iter().count(), 2);
    app.restore_grid(1);
    assert_eq!((shown(&app), app.pictures.settings.classes.as_str()), (first.clone(), "all"));
    app.generate();
    finished(&mut app);
    assert_eq!(shown(&app), first, "drawn again with the same seed");
    // The next run of the program knows the settings, not the pictures.
    let json = serde_json::to_string(&app.saved_state()).unwrap();
    let saved: SavedState = serde_json::from_str(&json).unwrap();
    let mut app = ready_for_pictures(folder.path(), PictureSettings::default());
    (app.pictures.history, app.pictures.settings) = (saved.picture_history, saved.picture_settings);
    app.restore_grid(0);
    assert!(app.pictures.grid.is_empty() && app.notice.is_some());
    app.generate();
    finished(&mut app);
    assert_eq!(shown(&app), first);
}

#[test]
fn a_marked_part_is_refilled_and_undone_and_all_else_stays() {
    let folder = picture_folder();
    let mut app = ready_for_pictures(folder.path(), PictureSettings { n: 1, ..PictureSettings::default() });
    app.generate();
    finished(&mut app);
    app.edit(Target::Grid(1));
    app.generate();
    assert!(app.error.clone().unwrap().contains("Nothing is marked"), "{:?}", app.error);
    let editing = app.pictures.editing.as_mut().unwrap();
    assert_eq!(editing.class, "dog");
    editing.class = "owl".into();
    editing.mask.stroke([2.0, 8.0], [10.0, 8.0], 6.0, false);
    let marked = editing.mask.marked().to_vec();
    app.update_open_cells();
    let cells = app.pictures.editing.as_ref().unwrap().open.cells.len();
    assert_eq!(cells, marked.iter().filter(|marked| **marked).count(), "a cell is a pixel");
    let (before, all) = (app.canvas().unwrap().clone(), shown(&app));
    let refill = |app: &mut App, seed: &str| {
        app.pictures.settings.seed = seed.into();
        app.generate();
        finished(app);
        assert_eq!(app.error, None);
        app.canvas().unwrap().clone()
    };
    let after = refill(&mut app, "1");
    assert_ne!(after, before);
    for (index, marked) in marked.iter().enumerate().filter(|(_, marked)| !**marked) {
        assert_eq!(after.picture.pixels()[index], before.picture.pixels()[index], "pixel {index}, {marked}");
    }
    assert_eq!((&shown(&app)[0], &shown(&app)[1]), (&all[0], &after), "in the grid, too");
    assert_eq!(app.pictures.history.get(0).unwrap().grid[1].shown, after, "and in the history");
    app.undo();
    assert_eq!(app.canvas(), Some(&before));
    app.undo();
    assert_eq!(app.canvas(), Some(&before), "nothing more to undo");
    assert_eq!(refill(&mut app, "1"), after, "the same seed refills the same");
    app.close_editor();
    assert!(app.pictures.editing.is_none());
}

#[test]
fn cancelled_pictures_stay_open_and_a_cancelled_refill_changes_nothing() {
    let folder = picture_folder();
    let mut app = ready_for_pictures(folder.path(), PictureSettings { n: 30, ..PictureSettings::default() });
    app.pictures.settings.steps = 190;
    app.generate();
    until(&mut app, "a step is done", |app| app.pictures.run.as_ref().is_some_and(|run| run.step > 1));
    app.cancel();
    finished(&mut app);
    let run = app.pictures.run.as_ref().unwrap();
    assert!(run.phase == GenerationPhase::Cancelled && run.step < 190 && app.pictures.history.get(0).is_none());
    assert!(shown(&app).iter().all(|shown| shown.n_open() > 0));
    app.edit(Target::Grid(0));
    assert!(app.pictures.editing.is_none(), "an open picture cannot be edited");

    let path = folder.path().join("grey.png");
    Picture::filled(12, 16, &[85]).write_png(&path).unwrap();
    app.open_path(path);
    until(&mut app, "the file is read", |app| app.pictures.editing.is_some());
    let before = app.canvas().unwrap().clone();
    app.pictures.editing.as_mut().unwrap().mask.stroke([0.0, 0.0], [12.0, 16.0], 30.0, false);
    app.generate();
    until(&mut app, "a step is done", |app| app.pictures.run.as_ref().is_some_and(|run| run.step > 1));
    assert!(app.canvas().unwrap().n_open() > 0, "it is shown while it fills");
    app.cancel();
    finished(&mut app);
    assert_eq!(app.canvas(), Some(&before));
}

#[test]
fn a_file_of_another_size_is_scaled_or_edited_in_its_own() {
    let folder = picture_folder();
    let mut app = ready_for_pictures(folder.path(), PictureSettings { n: 1, ..PictureSettings::default() });
    let read = |app: &mut App, width, height| {
        let path = folder.path().join(format!("{width}.png"));
        Picture::filled(width, height, &[200, 100, 0]).write_png(&path).unwrap();
        (app.pictures.editing, app.error) = (None, None);
        app.open_path(path);
        until(app, "the file is read", |app| app.pictures.editing.is_some() || app.error.is_some());
    };
    read(&mut app, 300, 500);
    assert_eq!(app.canvas().unwrap().picture.pixels().len(), 12 * 16, "grey, and of the model's size");
    assert!(
        app.notice.as_ref().unwrap().contains("300 x 500") && app.pictures.editing.as_ref().unwrap().original.is_none()
    );
    read(&mut app, 24, 20);
    app.use_original_size();
    assert_eq!(app.pictures.editing.as_ref().unwrap().mask.size(), (24, 20));
    app.pictures.editing.as_mut().unwrap().mask.stroke([1.0, 10.0], [23.0, 10.0], 3.0, false);
    app.pictures.settings.steps = 4;
    app.generate();
    finished(&mut app);
    assert_eq!((app.error.clone(), app.canvas().unwrap().n_open()), (None, 0));
    assert_eq!(app.pictures.opened.as_ref().unwrap().before.len(), 1);
    // Back at the grid, the picture and what it was before are still there.
    let refilled = app.canvas().unwrap().picture.clone();
    app.close_editor();
    assert!(app.canvas().is_none());
    app.edit(Target::Opened);
    assert_eq!(app.canvas().unwrap().picture, refilled);
    app.undo();
    assert!(app.canvas().unwrap().picture != refilled);
    std::fs::write(folder.path().join("cut.png"), b"no picture").unwrap();
    app.open_path(folder.path().join("cut.png"));
    until(&mut app, "a damaged file is noticed", |app| app.error.is_some());
    assert!(app.error.as_ref().unwrap().contains("cut.png"), "{:?}", app.error);
}

#[test]
fn a_missing_or_foreign_codec_is_a_sentence_and_the_right_view_is_shown() {
    let folder = picture_folder();
    let mut app = ready_for_pictures(folder.path(), PictureSettings::default());
    let coded = tempfile::tempdir().unwrap();
    tiny::write_coded(coded.path()).unwrap();
    let model = coded.path().join("model");
    app.open_path(model.clone());
    until(&mut app, "the missing codec is noticed", |app| app.error.is_some());
    assert!(app.error.as_ref().unwrap().contains("375 codes of a codec"), "{:?}", app.error);
    assert_eq!(app.wants_codec.as_ref(), Some(&model));
    assert!(app.can_generate() && app.shows_pictures, "the model before is open again");
    // The codec of another model.
    app.open_path(coded.path().join("other"));
    until(&mut app, "the other codec is noticed", |app| app.error.is_some());
    assert!(app.error.as_ref().unwrap().contains("mean other pictures"), "{:?}", app.error);
    // One that is broken.
    let broken = tempfile::tempdir().unwrap();
    std::fs::write(broken.path().join("config.json"), "{\"codec_type\": \"autoencoder\"}").unwrap();
    app.open_path(broken.path().into());
    until(&mut app, "the broken codec is noticed", |app| app.error.is_some());
    assert_eq!(app.wants_codec.as_ref(), Some(&model), "another codec can be chosen");
    assert!(app.error.as_ref().unwrap().ends_with('.'), "{:?}", app.error);
    app.open(ModelSource::folder(broken.path().into()));
    until(&mut app, "a codec is no model", |app| app.error.is_some());
    assert!(app.error.as_ref().unwrap().contains("is a codec; open the model"), "{:?}", app.error);
    // Text and back.
    app.open(ModelSource::Bundled);
    until(&mut app, "the built-in model opens", App::can_generate);
    assert!(!app.shows_pictures && app.wants_codec.is_none());
    app.use_codec(broken.path().into());
    assert!(app.error.as_ref().unwrap().contains("open the model"), "{:?}", app.error);
    app.read_picture("a.png".into());
    assert!(app.error.as_ref().unwrap().contains("writes text"), "{:?}", app.error);
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/../../pgm-infer/tests/byte-model");
    app.open(ModelSource::Folder { folder: text.into(), codec: Some("codec".into()) });
    until(&mut app, "a codec of a model of text is noticed", |app| app.error.is_some());
    assert!(app.error.as_ref().unwrap().contains("has no codec"), "{:?}", app.error);
    app.open_path(folder.path().join("config.json"));
    until(&mut app, "a file stands for its folder", App::can_generate);
    assert!(app.shows_pictures, "{:?}", app.error);
}

#[test]
fn another_model_stops_the_drawing_and_keeps_what_is_shown() {
    let folder = picture_folder();
    let mut app = ready_for_pictures(folder.path(), PictureSettings { n: 30, ..PictureSettings::default() });
    app.pictures.settings.steps = 190;
    app.generate();
    until(&mut app, "a step is done", |app| app.pictures.run.as_ref().is_some_and(|run| run.step > 1));
    app.open(ModelSource::Bundled);
    assert!(!app.is_running());
    let before = shown(&app);
    until(&mut app, "it opens", App::can_generate);
    assert_eq!(shown(&app), before);
    app.generate();
    finished(&mut app);
    assert_eq!(app.generation.as_ref().map(|generation| generation.phase), Some(GenerationPhase::Complete));
}

#[test]
fn a_model_with_its_codec_keeps_the_pixels_far_from_a_refill_and_the_codec_is_remembered() {
    let coded = tempfile::tempdir().unwrap();
    tiny::write_coded(coded.path()).unwrap();
    let path = |name: &str| coded.path().join(name);
    let opened = |app: &mut App| {
        until(app, "the model opens", |app| !matches!(app.model, ModelState::Opening { .. }));
        assert!(app.error.is_none() && app.shows_pictures, "{:?}", app.error);
    };
    let mut app = App::new(SavedState::default(), Arc::new(|| ()));
    app.start(Some(path("model")), Some(path("codec")));
    opened(&mut app);
    (app.pictures.settings.n, app.pictures.settings.seed) = (2, "4".into());
    app.generate();
    finished(&mut app);
    let first = shown(&app);
    assert!(first.len() == 6 && first.iter().all(|shown| shown.open.is_empty()));
    assert_eq!((first[0].picture.width(), first[0].picture.height()), (12, 8));
    app.edit(Target::Grid(2));
    app.pictures.editing.as_mut().unwrap().mask.stroke([1.0, 1.0], [1.0, 2.0], 1.0, false);
    app.update_open_cells();
    let cells = &app.pictures.editing.as_ref().unwrap().open.cells;
    assert!(cells.contains(&[0.0, 0.0, 2.0, 2.0]) && cells.contains(&[2.0, 4.0, 2.0, 2.0]), "{cells:?}");
    assert!(cells.iter().all(|cell| cell[0] <= 2.0), "{cells:?}");
    app.generate();
    finished(&mut app);
    assert_eq!(app.error, None);
    let (before, after) = (&first[2].picture, &app.canvas().unwrap().picture);
    // The blend reaches three pixels.
    for (x, y) in (0..8).flat_map(|y| (0..12).map(move |x| (x, y))).filter(|&(x, y)| x > 4 || y > 6) {
        assert_eq!(after.pixel(x, y), before.pixel(x, y), "pixel {x}, {y}");
    }
    // The next run opens the same model with the same codec.
    let mut app = App::new(app.saved_state(), Arc::new(|| ()));
    app.start(None, None);
    opened(&mut app);
    app.pictures.settings.seed = "4".into();
    app.generate();
    finished(&mut app);
    assert_eq!(shown(&app), first);
}
