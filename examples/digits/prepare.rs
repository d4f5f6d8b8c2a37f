//! From the digits' files to pixels, a codec and codes.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use burn::tensor::Device;
use burn::train::Interrupter;
use pgm_data::pictures::{PictureInputs, PictureOptions, PictureValidation, PrepareImages, prepare_images};
use pgm_data::{CodecIdentity, Crop, DataFolder, ImageFolderWriter, ImageInfo, PixelShape, Split};
use pgm_infer::Picture;
use pgm_infer::picture::{CodecFolder, PictureCodec};
use pgm_train::codec::{CodecLine, FitCodec, fit_codec};
use pgm_train::{CodecTrainConfig, TrainEvent};

use crate::plan::{GRID, Plan};
use crate::report::{Report, with_interval};

/// Pictures that are encoded at a time.
const BATCH: usize = 256;

/// Makes a data folder of pixels.
pub fn pixels(digits: &Path, held_out: f64, out: &Path) -> anyhow::Result<DataFolder> {
    let inputs = PictureInputs::find(&[digits.display().to_string()], &PictureOptions::default())?;
    let options = PrepareImages {
        inputs: &inputs,
        validation: &PictureValidation::Fraction(held_out),
        size: None,
        crop: Crop::Center,
        flip: false,
        channels: Some(1),
        levels: None,
        class_names: None,
        skip_bad: false,
        out,
    };
    prepare_images(&options, &mut |_| ControlFlow::Continue(()))?;
    Ok(DataFolder::open(out)?)
}

/// Trains the codec; its folder is `out/codec`.
pub fn codec(
    plan: &Plan,
    data: &Path,
    out: &Path,
    (device, interrupter): (&Device, &Interrupter),
    report: &mut Report,
) -> anyhow::Result<()> {
    let config = CodecTrainConfig::parse(&plan.codec_toml(), "the codec of this example", &[])?;
    let result = fit_codec(FitCodec {
        config: &config,
        data,
        out,
        resume: false,
        device,
        interrupter: interrupter.clone(),
        observe: Arc::new(show),
    })?;
    let (true, Some(line)) = (result.complete, result.validation) else {
        bail!("stopped after step {} of the codec", result.step);
    };
    report.line(format!(
        "codec: PSNR {} dB, SSIM {}, {} of 125 codes in use, perplexity {} (held-out digits)",
        with_interval(line.val_psnr, line.val_psnr_interval, 2),
        with_interval(line.val_ssim, line.val_ssim_interval, 3),
        line.val_codes,
        with_interval(line.val_code_perplexity, line.val_code_perplexity_interval, 1),
    ));
    Ok(())
}

/// Makes a data folder of codes.
pub fn codes(pixels: &DataFolder, codec: &Path, out: &Path, device: &Device) -> anyhow::Result<()> {
    let codec = CodecFolder::open(codec, device)?;
    let identity = CodecIdentity { codebook: codec.n_codes(), hash: Some(codec.hash().to_string()) };
    let shape = PixelShape { height: 28, width: 28, channels: 1 };
    let info = ImageInfo::of_codes(GRID, identity, Some(shape), pixels.class_names().to_vec());
    let codec = codec.for_grid(GRID)?;
    let mut writer = ImageFolderWriter::create(out, info)?;
    for split in [Split::Train, Split::Validation] {
        let rows = pixels.pixels(split)?;
        let indices: Vec<usize> = (0..rows.len()).collect();
        for some in indices.chunks(BATCH) {
            let picture = |&index: &usize| anyhow::Ok(Picture::new(28, 28, 1, rows.pixels(index)?));
            let pictures: Vec<Picture> = some.iter().map(picture).collect::<anyhow::Result<_>>()?;
            for (&index, codes) in some.iter().zip(codec.encode(&pictures)?) {
                writer.push_tokens(split, &codes, rows.label(index)?)?;
            }
        }
    }
    writer.finish()?;
    Ok(())
}

#[allow(clippy::print_stdout)]
fn show(event: &TrainEvent<CodecLine>) {
    match event {
        TrainEvent::Trained { line, steps, seconds_left } => {
            println!("step {:>4} of {steps}  loss {:.4}  {seconds_left:.0} s left", line.step, line.train_loss);
        }
        TrainEvent::Validated(line) => {
            println!("step {:>4}  held out: PSNR {:.2} dB, SSIM {:.3}", line.step, line.val_psnr, line.val_ssim);
        }
        TrainEvent::Notice(text) => println!("{text}"),
        _ => (),
    }
}
