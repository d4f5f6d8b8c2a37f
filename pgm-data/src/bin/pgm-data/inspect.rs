//! `pgm-data inspect`.

use std::io::{self, Write};

use pgm_data::{DataFolder, ImageInfo, ImageKind, PixelShape, Split};

use crate::args::InspectArgs;
use crate::images::summary;

/// Codes of a row that are shown.
const N_CODES: usize = 16;
/// Columns of a drawn picture.
const COLUMNS: usize = 56;
/// From dark to bright.
const SHADES: &[u8] = b" .:-=+*#%@";

const SPLITS: [(&str, Split); 2] = [("training", Split::Train), ("validation", Split::Validation)];

pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let folder = DataFolder::open(&args.folder)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string_pretty(folder.manifest())?)?;
    if let Some(image) = folder.image() {
        summary(&mut out, folder.manifest())?;
        return match image.kind {
            ImageKind::Codes => codes(&mut out, args, &folder, image),
            _ => pictures(&mut out, args, &folder, image),
        };
    }
    let tokenizer = folder.tokenizer()?;
    for (name, split) in SPLITS {
        let rows = folder.rows(split)?;
        for index in 0..args.rows.min(rows.len()) {
            let row = rows.row(index)?;
            let text = tokenizer.decode(&row.tokens[..row.valid])?;
            writeln!(out, "{name} row {index}, {} of {} tokens valid: {text:?}", row.valid, row.tokens.len())?;
        }
    }
    Ok(())
}

fn codes(out: &mut dyn Write, args: &InspectArgs, folder: &DataFolder, image: &ImageInfo) -> anyhow::Result<()> {
    for (name, split) in SPLITS {
        let rows = folder.rows(split)?;
        for index in 0..args.rows.min(rows.len()) {
            let row = rows.row(index)?;
            let codes: Vec<String> = row.tokens[1..].iter().take(N_CODES).map(ToString::to_string).collect();
            let more = if row.tokens.len() > N_CODES + 1 { " ..." } else { "" };
            writeln!(out, "{name} row {index}{}: {}{more}", class(image, row.label), codes.join(" "))?;
        }
    }
    Ok(())
}

fn pictures(out: &mut dyn Write, args: &InspectArgs, folder: &DataFolder, image: &ImageInfo) -> anyhow::Result<()> {
    for (name, split) in SPLITS {
        let rows = folder.pixels(split)?;
        for index in 0..args.rows.min(rows.len()) {
            writeln!(out, "{name} row {index}{}:", class(image, rows.label(index)?))?;
            if let Some(shape) = image.pixels {
                draw(out, &rows.pixels(index)?, shape)?;
            }
        }
    }
    Ok(())
}

fn class(image: &ImageInfo, label: Option<u32>) -> String {
    let name = label.and_then(|label| Some((label, image.class_names.get(label as usize)?)));
    name.map(|(label, name)| format!(", class {label} ({name})")).unwrap_or_default()
}

// A character is twice as high as wide.
fn draw(out: &mut dyn Write, pixels: &[u8], shape: PixelShape) -> io::Result<()> {
    let columns = COLUMNS.min(2 * shape.width);
    let lines = (columns * shape.height).div_ceil(2 * shape.width);
    for line in 0..lines {
        let y = (2 * line + 1) * shape.height / (2 * lines);
        let shades = (0..columns).map(|column| {
            let x = (2 * column + 1) * shape.width / (2 * columns);
            let pixel = &pixels[(y * shape.width + x) * shape.channels..][..shape.channels];
            let mean = pixel.iter().map(|&value| usize::from(value)).sum::<usize>() / shape.channels;
            char::from(SHADES[mean * SHADES.len() / 256])
        });
        writeln!(out, "{}", shades.collect::<String>().trim_end())?;
    }
    Ok(())
}
