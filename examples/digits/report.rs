//! What the run found: printed, and written to `report.txt`.

use std::path::Path;

use pgm_model::model_folder::write_file;

/// The lines of the report.
#[derive(Default)]
pub struct Report {
    lines: Vec<String>,
}

impl Report {
    /// Prints a line and keeps it.
    #[allow(clippy::print_stdout)]
    pub fn line(&mut self, line: impl Into<String>) {
        let line = line.into();
        println!("{line}");
        self.lines.push(line);
    }

    /// Writes the lines.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        Ok(write_file(path, (self.lines.join("\n") + "\n").as_bytes())?)
    }
}

/// A number with its interval.
pub fn with_interval(value: f64, interval: Option<[f64; 2]>, digits: usize) -> String {
    match interval {
        Some([low, high]) => format!("{value:.digits$} ({low:.digits$} to {high:.digits$})"),
        None => format!("{value:.digits$}"),
    }
}
