//! `pgm-data images`.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use pgm_data::{
    Crop, DataError, Manifest, PictureInputs, PictureLabels, PictureOptions, PictureValidation, PrepareImages,
    prepare_images, read_class_names,
};

use crate::listing;
use crate::no_shard::NoShard;
use crate::progress::ProgressDisplay;

/// Classes that are listed before the rest is counted.
const N_CLASSES: usize = 20;

#[derive(Args)]
pub(crate) struct ImagesArgs {
    /// Folders, files or glob patterns: folders of class folders of PNG, JPEG or WebP files, flat folders with a labels.csv,
    /// MNIST's IDX files (.gz too), CIFAR's binary files, tar files of webdataset, Parquet or Arrow files
    #[arg(long, required = true, num_args = 1..)]
    input: Vec<String>,
    /// auto: where the format has them; folder: the class is the folder of each picture; none; or a .csv, .tsv or .jsonl
    /// file with a file and a label on each line
    #[arg(long, value_name = "auto|folder|none|FILE", default_value = "auto")]
    labels: PictureLabels,
    /// The names of the classes in the order of their numbers: one on each line, or a JSON list
    #[arg(long, value_name = "FILE")]
    class_names: Option<PathBuf>,
    /// The side of the square that each picture becomes. Without it all pictures must have one size already
    #[arg(long)]
    size: Option<usize>,
    /// center: the shorter side is resized (bilinear, antialiased), then the middle is cut out, as in torchvision;
    /// adm: halved with a box filter, then bicubic, then the middle; random: as center, at a random place
    #[arg(long, value_name = "center|adm|random", default_value = "center")]
    crop: Crop,
    /// Add each training picture a second time, mirrored
    #[arg(long)]
    flip: bool,
    /// 1: grey, 3: colour [default: 1 for IDX files, else 3]
    #[arg(long, value_name = "1|3")]
    channels: Option<usize>,
    /// Make the pixels tokens of so many levels per channel (2 to 256), so that a model trains without a codec
    #[arg(long, value_name = "LEVELS")]
    as_tokens: Option<usize>,
    /// The column of pictures of Parquet and Arrow files [default: the first one with bytes]
    #[arg(long)]
    column: Option<String>,
    /// The column of labels of Parquet and Arrow files [default: a ClassLabel, or label, labels, fine_label, ...]
    #[arg(long)]
    label_column: Option<String>,
    /// Hold out this fraction of the pictures, spread evenly over the inputs [default: 0.05]
    #[arg(long, group = "validation")]
    val_fraction: Option<f64>,
    /// Use other inputs for validation instead. A folder with a validation or test split needs no option: it is used
    #[arg(long, visible_alias = "val-input", group = "validation", num_args = 1..)]
    val: Option<Vec<String>>,
    /// Count and name pictures that cannot be read or have no label, and leave them out
    #[arg(long)]
    skip_bad: bool,
    /// Only say what is read: sources, pictures, classes, and files that are left out
    #[arg(long)]
    dry_run: bool,
    /// The folder to create; it must not exist
    #[arg(long, required_unless_present = "dry_run")]
    out: Option<PathBuf>,
    #[command(flatten)]
    no_shard: NoShard,
}

pub(crate) fn run(args: &ImagesArgs) -> anyhow::Result<()> {
    args.no_shard.check("images", "the classes and the validation pictures are chosen among all pictures; run it as one process, which decodes on all cores")?;
    let options = PictureOptions {
        labels: args.labels.clone(),
        picture_column: args.column.clone(),
        label_column: args.label_column.clone(),
    };
    let class_names = args.class_names.as_deref().map(read_class_names).transpose()?;
    let inputs = PictureInputs::find(&args.input, &options)?;
    let validation = match (&args.val, args.val_fraction, inputs.validation_split()) {
        (Some(patterns), ..) => {
            let other = PictureInputs::find(patterns, &options)?;
            PictureValidation::Inputs(other.validation_split().unwrap_or(other))
        }
        (None, None, Some(split)) => PictureValidation::Inputs(split),
        (None, fraction, _) => PictureValidation::Fraction(fraction.unwrap_or(0.05)),
    };
    let Some(out) = args.out.as_ref().filter(|_| !args.dry_run) else {
        return dry_run(&inputs, &validation, class_names);
    };
    list(&mut std::io::stderr(), &inputs, &validation, false)?;
    let options = PrepareImages {
        inputs: &inputs,
        validation: &validation,
        size: args.size,
        crop: args.crop,
        flip: args.flip,
        channels: args.channels,
        levels: args.as_tokens,
        class_names,
        skip_bad: args.skip_bad,
        out,
    };
    let mut display = ProgressDisplay::of_pictures();
    let prepared = prepare_images(&options, &mut |progress| display.update(progress));
    display.finish();
    let prepared = prepared?;
    for note in &prepared.notes {
        let _ = writeln!(std::io::stderr(), "note: {note}");
    }
    let mut stdout = std::io::stdout().lock();
    summary(&mut stdout, &prepared.manifest)?;
    writeln!(stdout, "{}", out.display())?;
    Ok(())
}

/// A line for each split of a folder of pictures.
pub(crate) fn summary(out: &mut dyn Write, manifest: &Manifest) -> std::io::Result<()> {
    let Some(image) = &manifest.image else { return Ok(()) };
    let shape = image.pixels.map(|shape| format!(" of {}x{}x{}", shape.height, shape.width, shape.channels));
    let tokens =
        image.grid.map(|[rows, columns]| format!(" as {rows}x{columns} tokens of {} values", image.n_values()));
    let classes = match image.class_names.len() {
        0 => "no labels".to_string(),
        1 => "1 class".to_string(),
        n_classes => format!("{n_classes} classes"),
    };
    for (name, split) in [("training", &manifest.train), ("validation", &manifest.validation)] {
        let (shape, tokens) = (shape.as_deref().unwrap_or_default(), tokens.as_deref().unwrap_or_default());
        writeln!(out, "{name}: {} pictures{shape}{tokens}, {classes}", split.rows)?;
    }
    Ok(())
}

fn list(out: &mut dyn Write, inputs: &PictureInputs, validation: &PictureValidation, all: bool) -> std::io::Result<()> {
    listing::write_list(out, "read", inputs.descriptions().into_iter(), all)?;
    if let PictureValidation::Inputs(inputs) = validation {
        listing::write_list(out, "read for validation", inputs.descriptions().into_iter(), all)?;
    }
    listing::write_list(out, "left out", inputs.skipped_files().iter().map(ToString::to_string), all)
}

fn dry_run(
    inputs: &PictureInputs,
    validation: &PictureValidation,
    class_names: Option<Vec<String>>,
) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    list(&mut stdout, inputs, validation, true)?;
    let mut display = ProgressDisplay::of_pictures();
    let mut poll = || match display.update(pgm_data::Progress { done: 0, total: 0 }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(DataError::Stopped),
    };
    let held_out = match validation {
        PictureValidation::Inputs(inputs) => Some(inputs),
        PictureValidation::Fraction(_) => None,
    };
    for (name, inputs) in [("pictures", Some(inputs)), ("validation pictures", held_out)] {
        let Some(inputs) = inputs else { continue };
        let counts = inputs.count(class_names.clone(), &mut poll)?;
        writeln!(stdout, "{name}: {}", counts.pictures)?;
        for (class, count) in counts.classes.iter().take(N_CLASSES) {
            writeln!(stdout, "  {class}: {count}")?;
        }
        if counts.classes.len() > N_CLASSES {
            writeln!(stdout, "  and {} more classes", counts.classes.len() - N_CLASSES)?;
        }
    }
    for note in inputs.notes() {
        writeln!(stdout, "note: {note}")?;
    }
    Ok(())
}
