//! The state without a window, on the built-in model.

use super::*;

// Takes in messages until something holds.
fn until(app: &mut App, what: &str, holds: impl Fn(&App) -> bool) {
    let start = Instant::now();
    while !holds(app) {
        assert!(start.elapsed() < Duration::from_secs(120), "{what}: {:?}, {:?}", app.error, app.run);
        app.take_in();
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn ready(kept: Kept) -> App {
    let mut app = App::new(kept, Arc::new(|| ()));
    app.start(None);
    until(&mut app, "the built-in model opens", |app| !matches!(app.model, Model::Opening { .. }));
    assert!(matches!(app.model, Model::Ready { .. }), "{:?}", app.error);
    app
}

fn finished(app: &mut App) {
    until(app, "a generation ends", |app| !app.is_running());
}

#[test]
fn a_text_is_filled_and_can_be_written_again() {
    let mut app = ready(Kept { text: "A {6} b {3}.".into(), ..Kept::default() });
    app.generate();
    assert_eq!((app.error.clone(), app.n_open()), (None, 9));
    assert!(matches!(&app.shown[0], Segment::Given { text } if text.starts_with('A')), "{:?}", app.shown);
    finished(&mut app);
    let run = app.run.as_ref().unwrap();
    assert_eq!((run.phase, run.n_tokens, app.n_open()), (Phase::Complete, 9, 0));
    assert!(!app.shown.iter().any(|segment| matches!(segment, Segment::New { .. })), "{:?}", app.shown);
    let (first, text) = (app.history.get(0).unwrap().clone(), app.shown_text());
    assert_eq!((first.text.as_str(), Some(first.seed)), (text.as_str(), app.shown_seed));
    // Something else in between, then back: the same seed writes the same text.
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
fn a_cancelled_text_stays_as_far_as_it_came() {
    let settings = Settings { steps: 100_000, ..Settings::default() };
    let mut app = ready(Kept { text: "A {40}".into(), settings, ..Kept::default() });
    app.generate();
    until(&mut app, "something is written", |app| app.run.as_ref().is_some_and(|run| run.step > 0));
    app.cancel();
    finished(&mut app);
    assert_eq!(app.run.as_ref().map(|run| run.phase), Some(Phase::Cancelled));
    assert!(app.n_open() > 0 && app.history.iter().count() == 0 && app.can_generate());
}

#[test]
fn what_is_wrong_is_one_sentence_and_the_window_goes_on() {
    let mut app = ready(Kept { text: "A {0}".into(), ..Kept::default() });
    let said = |app: &mut App, what: &str| {
        app.generate();
        let error = app.error.clone().unwrap_or_default();
        assert!(error.contains(what) && error.ends_with('.') && !error.contains("--"), "{error}");
        assert!(app.run.is_none());
    };
    said(&mut app, "{0}");
    app.text = "A {3}".into();
    app.settings.seed = "x".into();
    said(&mut app, "seed");
    app.settings = Settings { top_p: 0.0, ..Settings::default() };
    said(&mut app, "0");
    app.settings = Settings::default();
    app.open(Source::Folder("/nowhere/at/all".into()));
    assert!(!app.can_generate());
    until(&mut app, "a missing folder is noticed", |app| app.error.is_some());
    assert!(app.can_generate() && app.kept().folder.is_none(), "what was open is open again");
    app.settings.device = "abacus".into();
    app.open(Source::Bundled);
    until(&mut app, "a missing device is noticed", |app| app.error.is_some());
    app.settings.device = "auto".into();
    app.reopen();
    until(&mut app, "the built-in model opens again", App::can_generate);
}

#[test]
fn a_model_that_comes_too_late_is_let_go() {
    let mut app = App::new(Kept::default(), Arc::new(|| ()));
    app.open(Source::Bundled);
    app.open(Source::Folder("/nowhere/at/all".into()));
    until(&mut app, "the second is answered", |app| app.error.is_some());
    let told = app.error.clone();
    until(&mut app, "the built-in model opens in its place", App::can_generate);
    assert!(app.error == told && app.kept().folder.is_none());
}

#[test]
fn another_model_does_not_touch_what_was_written() {
    let settings = Settings { steps: 100_000, ..Settings::default() };
    let mut app = ready(Kept { text: "A {40}".into(), settings, ..Kept::default() });
    app.generate();
    until(&mut app, "something is written", |app| app.run.as_ref().is_some_and(|run| run.step > 0));
    app.open(Source::Bundled);
    assert!(!app.is_running());
    let shown = app.shown.clone();
    until(&mut app, "it opens again", App::can_generate);
    assert_eq!(app.shown, shown);
}
