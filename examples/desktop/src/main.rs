//! Fills blanks in a text, in a window: `pgm-desktop [--theme light|dark] [--self-test DIR] [MODEL FOLDER]`.
//!
//! `app.rs` is the state, `worker.rs` the threads beside it, `view.rs` draws it (`paint.rs` has the colours and the text as it
//! fills), `settings.rs` and `history.rs` are what is kept between runs, `blanks.rs` knows where blanks are in a text that is
//! being edited, `self_test.rs` tries it all.

#![cfg_attr(not(debug_assertions), windows_subsystem = "windows")]

mod app;
mod blanks;
mod history;
mod paint;
mod self_test;
mod settings;
mod view;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, PoisonError};

use eframe::egui::{ThemePreference, Ui, ViewportBuilder};

use crate::app::{App, Kept};
use crate::self_test::{Findings, SelfTest};
use crate::view::View;

const NAME: &str = "pgm-desktop";
const KEPT: &str = "kept";
const USAGE: &str = "\
Fills blanks in a text with a Partition Generative Model, in a window.

Usage: pgm-desktop [OPTIONS] [MODEL FOLDER]

Without a folder it opens the one that was open last, or its built-in model.

EngineOptions:
  --theme <light|dark|system>  Colours [default: system]
  --self-test <DIR>            Try everything, write DIR/desktop.png, close
  --help                       Print help
  --version                    Print version";

#[derive(Debug, Default)]
struct Args {
    folder: Option<PathBuf>,
    theme: Option<ThemePreference>,
    self_test: Option<PathBuf>,
    says: Option<String>,
}

impl Args {
    fn read(mut words: impl Iterator<Item = std::ffi::OsString>) -> Result<Self, String> {
        let mut args = Self::default();
        while let Some(word) = words.next() {
            match word.to_str() {
                Some("--help" | "-h") => args.says = Some(USAGE.to_string()),
                Some("--version" | "-V") => args.says = Some(format!("{NAME} {}", env!("CARGO_PKG_VERSION"))),
                Some("--self-test") => {
                    args.self_test = Some(words.next().ok_or("--self-test needs a folder for its picture")?.into());
                }
                Some("--theme") => {
                    args.theme = Some(match words.next().as_deref().and_then(std::ffi::OsStr::to_str) {
                        Some("light") => ThemePreference::Light,
                        Some("dark") => ThemePreference::Dark,
                        Some("system") => ThemePreference::System,
                        _ => return Err("--theme is light, dark or system".into()),
                    });
                }
                Some(option) if option.starts_with("--") => return Err(format!("unknown option {option}; see --help")),
                _ if args.folder.is_some() => return Err("one model folder at a time; see --help".into()),
                _ => args.folder = Some(word.into()),
            }
        }
        Ok(args)
    }
}

struct Window {
    app: App,
    view: View,
    self_test: Option<SelfTest>,
}

impl eframe::App for Window {
    fn ui(&mut self, ui: &mut Ui, _frame: &mut eframe::Frame) {
        self.app.take_in();
        self.view.show(ui, &mut self.app);
        if let Some(test) = &mut self.self_test {
            test.step(ui.ctx(), &mut self.app);
        }
    }

    fn save(&mut self, storage: &mut dyn eframe::Storage) {
        if self.self_test.is_none() {
            eframe::set_value(storage, KEPT, &self.app.kept());
        }
    }

    fn persist_egui_memory(&self) -> bool {
        false
    }
}

#[allow(clippy::print_stdout, clippy::print_stderr)]
fn main() -> ExitCode {
    let args = match Args::read(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(problem) => {
            eprintln!("{NAME}: {problem}");
            return ExitCode::from(2);
        }
    };
    if let Some(says) = args.says {
        println!("{says}");
        return ExitCode::SUCCESS;
    }
    let findings = args.self_test.as_ref().map(|_| Findings::default());
    let outcome = run(&args, findings.clone());
    let problem = match (outcome, &findings) {
        (Err(error), _) => Some(format!("the window could not be opened: {error}")),
        (Ok(()), None) => None,
        (Ok(()), Some(findings)) => {
            let mut report = findings.lock().unwrap_or_else(PoisonError::into_inner);
            if report.failure.is_none() && report.passed.len() == 3 {
                report.passed.push("closes");
            }
            let n = report.passed.len();
            println!("{n} passed, {} failed", 4 - n);
            match (report.failure.take(), n) {
                (None, 4) => None,
                (None, _) => Some("the window was closed before the test was over".to_string()),
                (failure, _) => failure,
            }
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

fn run(args: &Args, findings: Option<Findings>) -> eframe::Result {
    let is_test = findings.is_some();
    // Where a test looks for what was kept, there is nothing, and it keeps nothing.
    let nowhere = std::env::temp_dir().join(format!("{NAME}-self-test-{}.ron", std::process::id()));
    let viewport = ViewportBuilder::default()
        .with_title("Partition Generative Model")
        .with_app_id(NAME)
        .with_inner_size([1120.0, 740.0])
        .with_min_inner_size([820.0, 600.0])
        .with_icon(paint::icon());
    let options = eframe::NativeOptions {
        viewport,
        persist_window: !is_test,
        persistence_path: is_test.then_some(nowhere),
        ..eframe::NativeOptions::default()
    };
    let (folder, theme) = (args.folder.clone(), args.theme);
    let self_test = args.self_test.as_deref().zip(findings).map(|(folder, findings)| SelfTest::new(folder, findings));
    eframe::run_native(
        NAME,
        options,
        Box::new(move |context| {
            view::set_style(&context.egui_ctx);
            if let Some(theme) = theme {
                context.egui_ctx.set_theme(theme);
            }
            let kept = match (context.storage, &self_test) {
                (_, Some(_)) => SelfTest::kept(),
                (Some(storage), None) => eframe::get_value(storage, KEPT).unwrap_or_default(),
                (None, None) => Kept::default(),
            };
            let wake = context.egui_ctx.clone();
            let mut app = App::new(kept, Arc::new(move || wake.request_repaint()));
            app.start(folder);
            Ok(Box::new(Window { app, view: View::default(), self_test }))
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_and_wrong_ones_get_a_sentence() {
        let read = |words: &[&str]| Args::read(words.iter().map(std::ffi::OsString::from));
        let args = read(&["--theme", "dark", "run/model"]).unwrap();
        assert_eq!((args.folder, args.theme), (Some("run/model".into()), Some(ThemePreference::Dark)));
        assert_eq!(read(&["--self-test", "out"]).unwrap().self_test, Some("out".into()));
        for (words, says) in [
            (&["--theme", "blue"] as &[&str], "light, dark"),
            (&["--self-test"], "folder"),
            (&["--colour"], "--colour"),
            (&["a", "b"], "one model"),
        ] {
            assert!(read(words).unwrap_err().contains(says));
        }
    }
}
