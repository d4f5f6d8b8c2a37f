//! Fills blanks in a text and draws pictures, in a window:
//! `pgm-desktop [--codec DIR] [--theme light|dark] [--self-test DIR] [MODEL FOLDER]`.
//!
//! | file | what |
//! |---|---|
//! | `app.rs`, `app/`, `generation.rs`, `pictures/` | the state |
//! | `settings.rs`, `history.rs` | the parts of the state of text that are saved |
//! | `models.rs`, `worker.rs` | slow work on other threads |
//! | `view/`, `paint.rs` | drawing; colours and text layouts |
//! | `blanks.rs` | inserts blanks in the editor |
//! | `self_test/` | `--self-test` |

#![cfg_attr(not(debug_assertions), windows_subsystem = "windows")]

mod app;
mod blanks;
mod generation;
mod history;
mod models;
mod paint;
mod pictures;
mod self_test;
mod settings;
mod view;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, PoisonError};

use eframe::egui::{Context, RawInput, ThemePreference, Ui, ViewportBuilder};

use crate::app::{App, SavedState};
use crate::self_test::{SelfTest, SharedReport};
use crate::view::AppView;

const NAME: &str = "pgm-desktop";
/// Key of the saved state in eframe's storage.
const STORAGE_KEY: &str = "kept";
const USAGE: &str = "\
Fills blanks in a text, or draws and edits pictures, with a Partition Generative Model, in a window.

Usage: pgm-desktop [OPTIONS] [MODEL FOLDER]

Without a folder it opens the last model, or its built-in model.

Options:
  --codec <DIR>                The codec of a model of pictures; a model whose tokens are pixels needs none
  --theme <light|dark|system>  Colours [default: system]
  --self-test <DIR>            Test the program, save pictures of the window in DIR, close
  --help                       Print help
  --version                    Print version";

#[derive(Debug, Default)]
struct Args {
    folder: Option<PathBuf>,
    codec: Option<PathBuf>,
    theme: Option<ThemePreference>,
    self_test: Option<PathBuf>,
    message: Option<String>,
}

impl Args {
    fn parse(mut words: impl Iterator<Item = std::ffi::OsString>) -> Result<Self, String> {
        let mut args = Self::default();
        while let Some(word) = words.next() {
            match word.to_str() {
                Some("--help" | "-h") => args.message = Some(USAGE.to_string()),
                Some("--version" | "-V") => args.message = Some(format!("{NAME} {}", env!("CARGO_PKG_VERSION"))),
                Some("--self-test") => {
                    args.self_test = Some(words.next().ok_or("--self-test needs a folder for its pictures")?.into());
                }
                Some("--codec") => {
                    args.codec = Some(words.next().ok_or("--codec needs the folder of a codec")?.into());
                }
                Some("--theme") => {
                    args.theme = Some(match words.next().as_deref().and_then(std::ffi::OsStr::to_str) {
                        Some("light") => ThemePreference::Light,
                        Some("dark") => ThemePreference::Dark,
                        Some("system") => ThemePreference::System,
                        _ => return Err("--theme must be light, dark or system".into()),
                    });
                }
                Some(option) if option.starts_with("--") => return Err(format!("unknown option {option}; see --help")),
                _ if args.folder.is_some() => return Err("only one model folder can be given; see --help".into()),
                _ => args.folder = Some(word.into()),
            }
        }
        if args.codec.is_some() && args.folder.is_none() {
            return Err("--codec belongs to a model; give the model's folder, too".into());
        }
        Ok(args)
    }
}

struct Window {
    app: App,
    view: AppView,
    self_test: Option<SelfTest>,
}

impl eframe::App for Window {
    fn raw_input_hook(&mut self, _context: &Context, input: &mut RawInput) {
        if let Some(test) = &mut self.self_test {
            test.add_input(input);
        }
    }

    fn ui(&mut self, ui: &mut Ui, _frame: &mut eframe::Frame) {
        self.app.receive_messages();
        self.view.show(ui, &mut self.app);
        if let Some(test) = &mut self.self_test {
            test.step(ui.ctx(), &mut self.app);
        }
    }

    fn save(&mut self, storage: &mut dyn eframe::Storage) {
        if self.self_test.is_none() {
            eframe::set_value(storage, STORAGE_KEY, &self.app.saved_state());
        }
    }

    fn persist_egui_memory(&self) -> bool {
        false
    }
}

#[allow(clippy::print_stdout, clippy::print_stderr)]
fn main() -> ExitCode {
    let args = match Args::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(problem) => {
            eprintln!("{NAME}: {problem}");
            return ExitCode::from(2);
        }
    };
    if let Some(message) = args.message {
        println!("{message}");
        return ExitCode::SUCCESS;
    }
    let report = args.self_test.as_ref().map(|_| SharedReport::default());
    let result = run(&args, report.clone());
    let problem = match (result, &report) {
        (Err(error), _) => Some(format!("the window could not be opened: {error}")),
        (Ok(()), None) => None,
        (Ok(()), Some(report)) => {
            let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
            let failure = match report.failure.take() {
                None if !report.is_over => Some("the window was closed before the test was over".to_string()),
                failure => failure,
            };
            if failure.is_none() {
                report.passed.push("closes");
            }
            println!("{} passed, {} failed: {}", report.passed.len(), failure.iter().len(), report.passed.join(", "));
            failure
        }
    };
    match problem {
        None => ExitCode::SUCCESS,
        Some(problem) => {
            eprintln!("{NAME}: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args, report: Option<SharedReport>) -> eframe::Result {
    let is_test = report.is_some();
    // The self-test neither reads nor writes the user's saved state.
    let test_storage = std::env::temp_dir().join(format!("{NAME}-self-test-{}.ron", std::process::id()));
    let viewport = ViewportBuilder::default()
        .with_title("Partition Generative Model")
        .with_app_id(NAME)
        .with_inner_size([1120.0, 740.0])
        .with_min_inner_size([820.0, 600.0])
        .with_icon(paint::icon());
    let options = eframe::NativeOptions {
        viewport,
        persist_window: !is_test,
        persistence_path: is_test.then_some(test_storage),
        ..eframe::NativeOptions::default()
    };
    let (folder, codec, theme) = (args.folder.clone(), args.codec.clone(), args.theme);
    let self_test = args.self_test.as_deref().zip(report).map(|(folder, report)| SelfTest::new(folder, report));
    eframe::run_native(
        NAME,
        options,
        Box::new(move |context| {
            view::set_style(&context.egui_ctx);
            if let Some(theme) = theme {
                context.egui_ctx.set_theme(theme);
            }
            let saved = match (context.storage, &self_test) {
                (_, Some(_)) => SelfTest::initial_state(),
                (Some(storage), None) => eframe::get_value(storage, STORAGE_KEY).unwrap_or_default(),
                (None, None) => SavedState::default(),
            };
            let wake = context.egui_ctx.clone();
            let mut app = App::new(saved, Arc::new(move || wake.request_repaint()));
            app.start(folder, codec);
            Ok(Box::new(Window { app, view: AppView::default(), self_test }))
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_parsed_and_invalid_ones_are_an_error() {
        let parse = |words: &[&str]| Args::parse(words.iter().map(std::ffi::OsString::from));
        let args = parse(&["--theme", "dark", "run/model"]).unwrap();
        assert_eq!((args.folder, args.theme), (Some("run/model".into()), Some(ThemePreference::Dark)));
        let args = parse(&["run/model", "--codec", "c"]).unwrap();
        assert_eq!((args.folder, args.codec), (Some("run/model".into()), Some("c".into())));
        assert_eq!(parse(&["--self-test", "out"]).unwrap().self_test, Some("out".into()));
        for (words, message) in [
            (&["--theme", "blue"] as &[&str], "light, dark"),
            (&["--self-test"], "folder"),
            (&["--codec"], "folder"),
            (&["--codec", "c"], "give the model's folder"),
            (&["--colour"], "--colour"),
            (&["a", "b"], "one model"),
        ] {
            assert!(parse(words).unwrap_err().contains(message));
        }
    }
}
