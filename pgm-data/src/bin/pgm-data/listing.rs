//! Which files are read, and which are left out.

use std::io::{self, Write};

use pgm_data::{Compression, InputFile, TextInputs};

/// Files of one kind that are named before the rest is counted.
const N_NAMED: usize = 20;

/// Writes a line for every file, or for the first of many.
pub(crate) fn write(
    out: &mut dyn Write,
    inputs: &TextInputs,
    validation: Option<&TextInputs>,
    all: bool,
) -> io::Result<()> {
    write_list(out, "read", inputs.input_files().iter().map(described), all)?;
    if let Some(validation) = validation {
        write_list(out, "read for validation", validation.input_files().iter().map(described), all)?;
    }
    let skipped = inputs.skipped_files().iter().chain(validation.into_iter().flat_map(TextInputs::skipped_files));
    write_list(out, "left out", skipped.map(|file| format!("{} ({})", file.path.display(), file.reason)), all)
}

fn described(file: &InputFile) -> String {
    let compression = match file.compression {
        Compression::None => String::new(),
        compression => format!(", {compression}"),
    };
    let encoding = file.encoding.map(|encoding| format!(", {encoding}")).unwrap_or_default();
    format!("{} ({}{encoding}{compression})", file.path().display(), file.format)
}

/// Writes a line for each entry, or for the first of many.
pub(crate) fn write_list(
    out: &mut dyn Write,
    what: &str,
    lines: impl Iterator<Item = String>,
    all: bool,
) -> io::Result<()> {
    let lines: Vec<String> = lines.collect();
    let n_named = if all { lines.len() } else { lines.len().min(N_NAMED) };
    for line in &lines[..n_named] {
        writeln!(out, "{what}: {line}")?;
    }
    if n_named < lines.len() {
        writeln!(out, "{what}: {} more, which --dry-run names", lines.len() - n_named)?;
    }
    Ok(())
}
