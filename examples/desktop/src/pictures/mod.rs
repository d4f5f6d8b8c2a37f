//! Pictures: what is drawn, what is edited, and the work behind both. It draws nothing in the window.
//!
//! | file | what |
//! |---|---|
//! | `settings.rs`, `classes.rs` | the settings that are saved; a list of classes as text |
//! | `drawing.rs` | a picture with its class, its seed and its earlier versions |
//! | `mask.rs` | what the brush has marked |
//! | `editing.rs` | the picture on the canvas |
//! | `job.rs`, `preview.rs` | draws or refills on a thread of its own, and shows it while it fills |
//! | `run.rs` | a job as the window sees it |
//! | `history.rs` | earlier grids |
//! | `fit.rs`, `files.rs` | pictures of another size; names of files, sheets |
//! | `tiny.rs` | a model with random weights for the self-test |

pub mod classes;
pub mod drawing;
pub mod editing;
pub mod files;
pub mod fit;
pub mod history;
pub mod job;
pub mod mask;
mod preview;
pub mod run;
pub mod settings;
pub mod tiny;

use drawing::Drawing;
use editing::{Brush, Editing, Target};
use history::PictureHistory;
use run::JobRun;
use settings::PictureSettings;

/// The state of the picture view.
#[derive(Debug, Default)]
pub struct Pictures {
    /// The settings.
    pub settings: PictureSettings,
    /// Earlier grids.
    pub history: PictureHistory,
    /// The pictures of the grid.
    pub grid: Vec<Drawing>,
    /// The picture that was opened from a file.
    pub opened: Option<Drawing>,
    /// The picture on the canvas; without one the grid is shown.
    pub editing: Option<Editing>,
    /// The brush.
    pub brush: Brush,
    /// The running or the last job.
    pub run: Option<JobRun>,
    /// The number of the grid, which its entry in the history has, too.
    pub grid_id: u64,
}

impl Pictures {
    /// A picture of the grid, or the opened one.
    pub fn drawing(&self, target: Target) -> Option<&Drawing> {
        match target {
            Target::Grid(index) => self.grid.get(index),
            Target::Opened => self.opened.as_ref(),
        }
    }

    /// As [`drawing`](Self::drawing), to change it.
    pub fn drawing_mut(&mut self, target: Target) -> Option<&mut Drawing> {
        match target {
            Target::Grid(index) => self.grid.get_mut(index),
            Target::Opened => self.opened.as_mut(),
        }
    }

    /// Whether a job runs.
    pub fn is_running(&self) -> bool {
        self.run.as_ref().is_some_and(JobRun::is_running)
    }
}
