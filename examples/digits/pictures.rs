//! The pictures of the run: a sheet of all classes, edits, and a film of the order.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::ensure;
use pgm_data::{PixelRows, Split};
use pgm_infer::picture::animation::Animation;
use pgm_infer::picture::{Edit, Filling, PixelBox, Region, SheetRow, contact_sheet};
use pgm_infer::sample::{Guidance, GuidanceSchedule};
use pgm_infer::{ImageModel, Picture, SampleRequest, SampleSettings, SampledRow, SamplingPath};

use crate::plan::GUIDANCE;
use crate::report::Report;

/// Versions of each edit.
const VERSIONS: u64 = 6;
/// Milliseconds of a frame, and how often the last one is repeated.
const FRAME_MS: u16 = 250;
const LAST_FRAMES: usize = 8;
/// The grey of what is drawn again.
const OPEN: u8 = 128;

/// Settings of so many steps, with guidance of a weight.
pub fn settings(model: &ImageModel, steps: usize, weight: f64) -> SampleSettings {
    let guidance = Guidance { weight, schedule: GuidanceSchedule::Constant };
    SampleSettings { steps, guidance, ..SampleSettings::for_image_model(model) }
}

/// A sheet with a line of pictures for each class.
pub fn sheet_of_classes(model: &ImageModel, per_class: usize, steps: usize, path: &Path) -> anyhow::Result<()> {
    let n_classes = model.image().n_classes;
    let requests: Vec<SampleRequest> =
        (0..n_classes * per_class).map(|index| model.request(Some(index / per_class), 100 + index as u64)).collect();
    let settings = settings(model, steps, GUIDANCE);
    let output = model.generate(&requests, &settings, SamplingPath::Clean, &mut |_| ControlFlow::Continue(()))?;
    let pictures = model.pictures(&output.rows.iter().collect::<Vec<&SampledRow>>())?;
    let row = |(class, pictures): (usize, &[Picture])| SheetRow {
        label: model.image().class_name(class),
        pictures: pictures.to_vec(),
    };
    let rows: Vec<SheetRow> = pictures.chunks(per_class).enumerate().map(row).collect();
    contact_sheet(&rows).write_png(path)?;
    Ok(())
}

/// A sheet of real digits, to compare.
pub fn sheet_of_originals(rows: &PixelRows, per_class: usize, path: &Path) -> anyhow::Result<()> {
    let names = &rows.info().class_names;
    let mut sheet: Vec<SheetRow> =
        names.iter().map(|name| SheetRow { label: name.clone(), pictures: Vec::new() }).collect();
    for index in 0..rows.len() {
        let class = rows.label(index)?.unwrap_or(0) as usize;
        if sheet[class].pictures.len() < per_class {
            sheet[class].pictures.push(Picture::new(28, 28, 1, rows.pixels(index)?));
        }
    }
    contact_sheet(&sheet).write_png(path)?;
    Ok(())
}

/// Three edits of held-out digits, several versions each: the lower half again, another digit's upper half, and the picture
/// continued to the right. The known codes must stay as they are.
pub fn edits(
    model: &ImageModel,
    rows: &PixelRows,
    steps: usize,
    path: &Path,
    report: &mut Report,
) -> anyhow::Result<()> {
    let find = |class: u32| {
        let mut labels = (0..rows.len()).map(|index| rows.label(index));
        labels.position(|label| label.is_ok_and(|label| label == Some(class))).unwrap_or(0)
    };
    let digit = |class: u32| anyhow::Ok(Picture::new(28, 28, 1, rows.pixels(find(class))?));
    let boxed = |picture: &Picture, y: usize, height: usize| {
        let region = Region::of_box(picture, PixelBox { x: 0, y, width: 28, height })?;
        anyhow::Ok(Edit::inpaint(picture.clone(), region)?)
    };
    let (three, nine, four) = (digit(3)?, digit(9)?, digit(4)?);
    let edits = [
        ("3, lower half", three.clone(), boxed(&three, 14, 14)?, 3),
        ("9 as a 4", nine.clone(), boxed(&nine, 0, 16)?, 4),
        ("4, wider", four.clone(), Edit::outpaint(&four, [0, 0, 12, 0])?, 4),
    ];
    let settings = settings(model, steps, GUIDANCE);
    let (mut sheet, mut n_known) = (Vec::new(), 0);
    for (label, original, edit, class) in edits {
        let mut marked = edit.canvas().clone();
        let mut pixels = marked.pixels().to_vec();
        for (index, pixel) in pixels.iter_mut().enumerate() {
            if edit.region().contains(index % marked.width(), index / marked.width()) {
                *pixel = OPEN;
            }
        }
        marked = Picture::new(marked.width(), marked.height(), 1, pixels);
        let mut pictures = vec![original, marked];
        for seed in 0..VERSIONS {
            let edited = model.edit(&edit, Some(class), seed, &settings, &mut |_, _| ControlFlow::Continue(()))?;
            for window in &edited.windows {
                for &(index, token) in &window.given {
                    ensure!(window.tokens[index] == token, "a known code of {label:?} was changed");
                    n_known += 1;
                }
            }
            pictures.push(edited.picture);
        }
        // Pictures of a sheet have one size: a narrower one stands at the left of its place.
        let width = pictures.iter().map(Picture::width).max().unwrap_or(28);
        let padded = |picture: Picture| {
            let mut place = Picture::filled(width.max(40), 28, &[0]);
            place.paste(&picture, 0, 0);
            place
        };
        sheet.push(SheetRow { label: label.to_string(), pictures: pictures.into_iter().map(padded).collect() });
    }
    contact_sheet(&sheet).write_png(path)?;
    report.line(format!("edits: {n_known} known codes stayed as they were"));
    Ok(())
}

/// A film of one digit of each class while it fills in the order of the sampler.
pub fn film(model: &ImageModel, steps: usize, path: &Path) -> anyhow::Result<()> {
    let requests: Vec<SampleRequest> =
        (0..model.image().n_classes).map(|class| model.request(Some(class), 7 + class as u64)).collect();
    let mut fillings: Vec<Filling> = requests.iter().map(|request| Filling::new(model, request)).collect();
    let mut film = Animation::new(FRAME_MS);
    let mut shoot = |fillings: &[Filling]| -> Result<(), pgm_infer::InferError> {
        let pictures = fillings.iter().map(|filling| filling.picture(model)).collect::<Result<_, _>>()?;
        film.push(&contact_sheet(&[SheetRow { label: String::new(), pictures }]))
    };
    shoot(&fillings)?;
    let mut failed = None;
    let settings = settings(model, steps, GUIDANCE);
    model.generate(&requests, &settings, SamplingPath::Clean, &mut |view| {
        for (filling, change) in fillings.iter_mut().zip(view.changes) {
            filling.apply(model, change);
        }
        failed = failed.take().or(shoot(&fillings).err());
        ControlFlow::Continue(())
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    (0..LAST_FRAMES).try_for_each(|_| shoot(&fillings))?;
    film.write(path)?;
    Ok(())
}

/// The held-out digits.
pub fn held_out(data: &pgm_data::DataFolder) -> anyhow::Result<PixelRows> {
    Ok(data.pixels(Split::Validation)?)
}
