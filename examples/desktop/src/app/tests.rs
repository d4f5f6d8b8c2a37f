//! The state without a window, with the built-in model.

use std::time::{Duration, Instant};

use super::*;

mod pictures;

// Receives messages until a condition holds.
fn until(app: &mut App, what: &str, holds: impl Fn(&App) -> bool) {
    let start = Instant::now();
    while !holds(app) {
        assert!(start.elapsed() < Duration::from_secs(120), "{what}: {:?}, {:?}", app.error, app.generation);
        app.receive_messages();
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn ready(saved: SavedState) -> App {
    let mut app = App::new(saved, Arc::new(|| ()));
    app.start(None, None);
    until(&mut app, "the built-in model opens", |app| !matches!(app.model, ModelState::Opening { .. }));
    assert!(matches!(app.model, ModelState::Ready { .. }), "{:?}", app.error);
    app
}

fn finished(app: &mut App) {
    until(app, "a generation ends", |app| !app.is_running());
}

#[test]
fn a_text_is_filled_and_the_same_seed_reproduces_it() {
    let mut app = ready(SavedState { text: "A {6} b {3}.".into(), ..SavedState::default() });
    app.generate();
    assert_eq!((app.error.clone(), app.n_open()), (None, 9));
    assert!(matches!(&app.shown[0], Segment::Given { text } if text.starts_with('A')), "{:?}", app.shown);
    finished(&mut app);
    let generation = app.generation.as_ref().unwrap();
    assert_eq!((generation.phase, generation.n_tokens, app.n_open()), (GenerationPhase::Complete, 9, 0));
    assert!(!app.shown.iter().any(|segment| matches!(segment, Segment::New { .. })), "{:?}", app.shown);
    let (first, text) = (app.history.get(0).unwrap().clone(), app.shown_text());
    assert_eq!((first.text.as_str(), Some(first.seed)), (text.as_str(), app.shown_seed));
    // Another text in between, then back: the same seed gives the same result.
    app.text = "B {4}".into();
    app.generate();
    finished(&mut app);
    app.restore(1);
    assert_eq!(
        (app.shown_text(), app.text.as_str(), app.settings.seed.as_str()),
        (text.clone(), "A {6} b {3}.", &*first.seed.to_string())
    );
    app.generate();
    finished(&mut app);
    assert_eq!((app.shown_text(), app.history.iter().count()), (text, 3));
}

#[test]
fn a_model_begins_with_its_own_defaults_and_keeps_what_was_set() {
    let settings = AppSettings { seed: "3".into(), blank: 5, ..AppSettings::default() };
    let mut app = ready(SavedState { settings, ..SavedState::default() });
    let found = |app: &App| (app.settings.steps, app.settings.order.clone(), app.settings.temperature);
    assert_eq!(found(&app), (64, "halton".into(), 0.55));
    assert_eq!((app.settings.seed.as_str(), app.settings.blank), ("3", 5));
    app.settings.steps = 40;
    app.reopen();
    until(&mut app, "it opens again", App::can_generate);
    assert_eq!(found(&app), (40, "halton".into(), 0.55));
    // Settings of another model, and those that an earlier version saved, give way.
    for model in [Some("/other/model".to_string()), None] {
        let settings = AppSettings { model, ..app.settings.clone() };
        assert_eq!(found(&ready(SavedState { settings, ..SavedState::default() })).0, 64);
    }
    let saved: AppSettings = serde_json::from_str(r#"{"steps":64,"temperature":0.8}"#).unwrap();
    assert_eq!(saved.model, None);
}

#[test]
fn a_cancelled_generation_keeps_its_partial_result() {
    let settings = AppSettings { model: Some(String::new()), steps: 100_000, ..AppSettings::default() };
    let mut app = ready(SavedState { text: "A {40}".into(), settings, ..SavedState::default() });
    app.generate();
    until(&mut app, "a step is done", |app| app.generation.as_ref().is_some_and(|generation| generation.step > 0));
    app.cancel();
    finished(&mut app);
    assert_eq!(app.generation.as_ref().map(|generation| generation.phase), Some(GenerationPhase::Cancelled));
    assert!(app.n_open() > 0 && app.history.iter().count() == 0 && app.can_generate());
}

#[test]
fn errors_are_one_sentence_and_the_application_continues() {
    let mut app = ready(SavedState { text: "A {0}".into(), ..SavedState::default() });
    let fails = |app: &mut App, what: &str| {
        app.generate();
        let error = app.error.clone().unwrap_or_default();
        assert!(error.contains(what) && error.ends_with('.') && !error.contains("--"), "{error}");
        assert!(app.generation.is_none());
    };
    fails(&mut app, "{0}");
    app.text = "A {3}".into();
    app.settings.seed = "x".into();
    fails(&mut app, "seed");
    app.settings = AppSettings { top_p: 0.0, ..AppSettings::default() };
    fails(&mut app, "0");
    app.settings = AppSettings::default();
    app.open(ModelSource::folder("/nowhere/at/all".into()));
    assert!(!app.can_generate());
    until(&mut app, "a missing folder is noticed", |app| app.error.is_some());
    assert!(app.can_generate() && app.saved_state().folder.is_none(), "the previous model is open again");
    app.settings.device = "abacus".into();
    app.open(ModelSource::Bundled);
    until(&mut app, "a missing device is noticed", |app| app.error.is_some());
    assert_eq!(app.saved_state().settings.device, "auto", "that of the model that is open");
    app.reopen();
    until(&mut app, "the built-in model opens again", App::can_generate);
}

#[test]
fn a_model_and_a_device_that_are_not_there_today_are_not_forgotten_or_kept() {
    let folder = PathBuf::from("/media/unplugged/model");
    let settings = AppSettings {
        model: Some(folder.display().to_string()),
        steps: 77,
        device: "abacus".into(),
        ..AppSettings::default()
    };
    let saved = SavedState { folder: Some(folder.clone()), settings, text: "A {3}".into(), ..SavedState::default() };
    let mut app = App::new(saved, Arc::new(|| ()));
    app.start(None, None);
    until(&mut app, "the built-in model opens in its place", App::can_generate);
    assert!(app.error.as_ref().is_some_and(|error| error.contains("unplugged")), "{:?}", app.error);
    assert_eq!((app.settings.device.as_str(), app.settings.steps), ("auto", 64));
    app.text = "B {3}".into();
    let kept = app.saved_state();
    assert_eq!((kept.folder.as_ref(), kept.settings.steps), (Some(&folder), 77));
    assert_eq!((kept.settings.device.as_str(), kept.text.as_str()), ("abacus", "B {3}"));
    // Until another model is opened.
    app.open(ModelSource::folder("/nowhere/at/all".into()));
    until(&mut app, "a missing folder is noticed", |app| app.error.is_some() && app.can_generate());
    app.reopen();
    until(&mut app, "the built-in model opens again", App::can_generate);
    assert_eq!(app.saved_state().folder.as_ref(), Some(&folder));
    // Found again, it has its settings.
    let found = tempfile::tempdir().unwrap();
    app.lost.as_mut().unwrap().folder = Some(found.path().into());
    app.lost.as_mut().unwrap().settings.model = Some(found.path().display().to_string());
    let bundled = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pgm-infer/demo/text");
    for file in std::fs::read_dir(bundled).unwrap().map(|file| file.unwrap().path()) {
        std::fs::copy(&file, found.path().join(file.file_name().unwrap())).unwrap();
    }
    app.open(ModelSource::folder(found.path().into()));
    until(&mut app, "the model opens", App::can_generate);
    assert_eq!((app.settings.steps, app.settings.device.as_str()), (77, "auto"));
    assert!(app.lost.is_none());
    app.open(ModelSource::Bundled);
    until(&mut app, "it opens", App::can_generate);
    assert_eq!((app.saved_state().folder, app.saved_state().settings.steps), (None, 64));
}

#[test]
fn a_model_s_defaults_stay_as_they_are_until_a_control_is_moved() {
    let mut app = ready(SavedState::default());
    (app.settings.top_p, app.settings.temperature, app.settings.steps) = (0.9994, 0.4567, 9000);
    let context = eframe::egui::Context::default();
    let input = eframe::egui::RawInput::default();
    let mut output = context.run_ui(input, |ui| crate::view::side_panel::show(ui, &mut app));
    output.textures_delta.clear();
    assert_eq!((app.settings.top_p, app.settings.temperature, app.settings.steps), (0.9994, 0.4567, 9000));
}

#[test]
fn a_model_that_opens_too_late_is_dropped() {
    let mut app = App::new(SavedState::default(), Arc::new(|| ()));
    app.open(ModelSource::Bundled);
    app.open(ModelSource::folder("/nowhere/at/all".into()));
    until(&mut app, "the second is answered", |app| app.error.is_some());
    let error = app.error.clone();
    until(&mut app, "the built-in model opens in its place", App::can_generate);
    assert!(app.error == error && app.saved_state().folder.is_none());
}

#[test]
fn opening_another_model_does_not_change_the_shown_text() {
    let settings = AppSettings { model: Some(String::new()), steps: 100_000, ..AppSettings::default() };
    let mut app = ready(SavedState { text: "A {40}".into(), settings, ..SavedState::default() });
    app.generate();
    until(&mut app, "a step is done", |app| app.generation.as_ref().is_some_and(|generation| generation.step > 0));
    app.open(ModelSource::Bundled);
    assert!(!app.is_running());
    let shown = app.shown.clone();
    until(&mut app, "it opens again", App::can_generate);
    assert_eq!(app.shown, shown);
}
