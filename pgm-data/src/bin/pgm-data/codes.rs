//! `pgm-data codes`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use pgm_data::{CodesFormat, ImportCodes, PixelShape, import_codes, read_class_names};

use crate::images::summary;
use crate::no_shard::NoShard;
use crate::progress::ProgressDisplay;

#[derive(Args)]
pub(crate) struct CodesArgs {
    /// The folder that the other program wrote. A validation or eval split in it becomes the validation rows
    #[arg(long)]
    input: PathBuf,
    /// hf: PGM's data set on disk; halton: Halton-MaskGIT's pickles; llamagen: LlamaGen's pairs of .npy files
    #[arg(long, value_name = "hf|halton|llamagen|auto", default_value = "auto")]
    format: CodesFormat,
    /// Rows and columns of codes, for example 32x32
    #[arg(long, value_name = "HxW", value_parser = parse_grid)]
    grid: [usize; 2],
    /// Number of codes of the codec, for example 16384
    #[arg(long, value_name = "N")]
    codebook: usize,
    /// The hash of the codec. A model of these codes then refuses another codec
    #[arg(long, value_name = "HEX")]
    codec_hash: Option<String>,
    /// The side of the pictures in pixels, where it is known
    #[arg(long)]
    size: Option<usize>,
    /// The names of the classes in the order of their numbers: one on each line, or a JSON list
    #[arg(long, value_name = "FILE")]
    class_names: Option<PathBuf>,
    /// Hold out this fraction of the pictures, spread evenly [default: the validation or eval split, else 0.05]
    #[arg(long)]
    val_fraction: Option<f64>,
    /// The folder to create; it must not exist
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    no_shard: NoShard,
}

fn parse_grid(text: &str) -> Result<[usize; 2], String> {
    let sides = text.split_once(['x', 'X', '×']).and_then(|(rows, columns)| {
        Some([rows.trim().parse().ok().filter(|&n| n > 0)?, columns.trim().parse().ok().filter(|&n| n > 0)?])
    });
    sides.ok_or_else(|| "write rows and columns, for example 32x32".to_string())
}

pub(crate) fn run(args: &CodesArgs) -> anyhow::Result<()> {
    args.no_shard.check("codes", "codes are only copied; run it as one process")?;
    let options = ImportCodes {
        input: &args.input,
        format: args.format,
        grid: args.grid,
        codebook: args.codebook,
        codec_hash: args.codec_hash.clone(),
        pixels: args.size.map(|size| PixelShape { height: size, width: size, channels: 3 }),
        class_names: args.class_names.as_deref().map(read_class_names).transpose()?,
        val_fraction: args.val_fraction,
        out: &args.out,
    };
    let mut display = ProgressDisplay::of_pictures();
    let prepared = import_codes(&options, &mut |progress| display.update(progress));
    display.finish();
    let prepared = prepared?;
    for note in &prepared.notes {
        let _ = writeln!(std::io::stderr(), "note: {note}");
    }
    let mut stdout = std::io::stdout().lock();
    summary(&mut stdout, &prepared.manifest)?;
    writeln!(stdout, "{}", args.out.display())?;
    Ok(())
}
