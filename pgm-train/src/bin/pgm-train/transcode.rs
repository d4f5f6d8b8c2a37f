//! `pgm-train encode` and `pgm-train decode`: data folders of pixels to codes, and back.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{anyhow, bail};
use clap::Args;
use pgm_data::{CodecIdentity, DataFolder, ImageFolderWriter, ImageInfo, ImageKind, PixelShape, Split};
use pgm_infer::Picture;
use pgm_infer::device::DeviceName;
use pgm_infer::picture::{CodecFolder, PictureCodec};

use crate::progress::{Progress, stop_on_ctrl_c};

/// Pictures that are read at a time.
const BATCH: usize = 64;

#[derive(Args)]
pub struct TranscodeArgs {
    /// The codec folder, or a .pt file of LlamaGen
    #[arg(long)]
    codec: PathBuf,
    /// The data folder to read
    #[arg(long)]
    data: PathBuf,
    /// The data folder to write: a new one
    #[arg(long)]
    out: PathBuf,
    /// auto, flex, ndarray, wgpu[:n], vulkan[:n], metal or cuda[:n]
    #[arg(long, default_value = "auto")]
    device: DeviceName,
}

/// Makes codes of pixels.
pub fn encode(args: &TranscodeArgs) -> anyhow::Result<ExitCode> {
    let (device, _) = args.device.open().map_err(|message| anyhow!(message))?;
    let data = DataFolder::open(&args.data)?;
    let codec = CodecFolder::open(&args.codec, &device)?;
    let pixels = data.pixels(Split::Train)?;
    let Some(PixelShape { height, width, channels }) = pixels.info().pixels else {
        bail!("{} does not say how large its pictures are", args.data.display());
    };
    let grid = codec.grid([height, width])?;
    let identity = CodecIdentity { codebook: codec.n_codes(), hash: Some(codec.hash().to_string()) };
    let shape = PixelShape { height, width, channels: codec.channels() };
    let facts = ImageInfo {
        crop: pixels.info().crop,
        flip: pixels.info().flip,
        ..ImageInfo::of_codes(grid, identity, Some(shape), pixels.info().class_names.clone())
    };
    let mut writer = ImageFolderWriter::create(&args.out, facts)?;
    let codec = codec.for_grid(grid)?;
    stop_on_ctrl_c();
    let mut progress = Progress::new("pictures");
    let (mut n_done, n_pictures) = (0, n_pictures(&data));
    for split in [Split::Train, Split::Validation] {
        let rows = data.pixels(split)?;
        for first in (0..rows.len()).step_by(BATCH) {
            let some = first..(first + BATCH).min(rows.len());
            let picture = |index: usize| {
                let picture = Picture::new(width, height, channels, rows.pixels(index)?);
                anyhow::Ok(picture.with_channels(codec.shape().2))
            };
            let pictures = some.clone().map(picture).collect::<anyhow::Result<Vec<_>>>()?;
            for (index, codes) in some.clone().zip(codec.encode(&pictures)?) {
                writer.push_tokens(split, &codes, rows.label(index)?)?;
            }
            n_done += some.len();
            if progress.update(n_done, n_pictures).is_break() {
                return stopped(n_done, n_pictures);
            }
        }
    }
    writer.finish()?;
    drop(progress);
    let [rows, columns] = grid;
    writeln!(
        std::io::stdout(),
        "{n_done} pictures of {width} x {height} pixels became {rows} x {columns} codes each: {}",
        args.out.display()
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Makes pixels of codes.
pub fn decode(args: &TranscodeArgs) -> anyhow::Result<ExitCode> {
    let (device, _) = args.device.open().map_err(|message| anyhow!(message))?;
    let data = DataFolder::open(&args.data)?;
    let codec = CodecFolder::open(&args.codec, &device)?;
    let info = data.image().filter(|info| info.kind == ImageKind::Codes);
    let Some((info, grid)) = info.and_then(|info| Some((info, info.grid?))) else {
        bail!("{} has no codes; pgm-train encode makes them", args.data.display());
    };
    let hash = info.codec.as_ref().and_then(|codec| codec.hash.as_deref());
    codec.check(&args.data.display().to_string(), hash, info.n_values())?;
    let codec = codec.for_grid(grid)?;
    let (width, height, channels) = codec.shape();
    let facts = ImageInfo {
        crop: info.crop,
        flip: info.flip,
        ..ImageInfo::of_pixels(PixelShape { height, width, channels }, info.class_names.clone())
    };
    let mut writer = ImageFolderWriter::create(&args.out, facts)?;
    stop_on_ctrl_c();
    let mut progress = Progress::new("pictures");
    let (mut n_done, n_pictures) = (0, n_pictures(&data));
    for split in [Split::Train, Split::Validation] {
        let rows = data.rows(split)?;
        for first in (0..rows.len()).step_by(BATCH) {
            let some = first..(first + BATCH).min(rows.len());
            let rows = some.clone().map(|index| rows.row(index)).collect::<Result<Vec<_>, _>>()?;
            // BOS stands before the codes.
            let codes: Vec<&[u32]> = rows.iter().map(|row| &row.tokens[1..]).collect();
            for (row, picture) in rows.iter().zip(codec.decode(&codes)?) {
                writer.push_pixels(split, picture.pixels(), row.label)?;
            }
            n_done += some.len();
            if progress.update(n_done, n_pictures).is_break() {
                return stopped(n_done, n_pictures);
            }
        }
    }
    writer.finish()?;
    drop(progress);
    writeln!(std::io::stdout(), "{n_done} pictures of {width} x {height} pixels: {}", args.out.display())?;
    Ok(ExitCode::SUCCESS)
}

fn n_pictures(data: &DataFolder) -> usize {
    (data.manifest().train.rows + data.manifest().validation.rows) as usize
}

// The folder that was begun goes with its writer.
fn stopped(n_done: usize, n_pictures: usize) -> anyhow::Result<ExitCode> {
    writeln!(std::io::stderr(), "stopped after {n_done} of {n_pictures} pictures; nothing is left, so start again")?;
    Ok(ExitCode::from(130))
}
