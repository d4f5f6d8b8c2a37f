//! `pgm-infer edit`.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use pgm_infer::Picture;
use pgm_infer::device::{DeviceName, WeightArgs};
use pgm_infer::picture::samples::{SampleInfo, SampleSink};
use pgm_infer::picture::{Edit, PixelBox, Region};
use pgm_infer::sample::order::OrderFlags;
use pgm_infer::sample::{Curve, Refresh};

use crate::devices::{model_path, open_device};
use crate::generate::{handle_interrupts, seed_from_clock, was_interrupted};
use crate::picture_flags::{DrawFlags, PictureFlags, class_name, describe};
use crate::pictures::show;

#[derive(Args)]
pub struct EditArgs {
    /// The model folder, a training run (RUN, RUN@best, RUN@last, RUN@step-N), or demo-digits, the bundled model
    #[arg(long, value_parser = model_path)]
    model: PathBuf,
    /// The picture: PNG, JPEG or WebP
    #[arg(long)]
    image: PathBuf,
    #[command(flatten)]
    area: Area,
    /// A .png file, or with -n a folder or an .npz file
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    picture: PictureFlags,
    /// Number of results; result i uses --seed + i
    #[arg(short, default_value_t = 1)]
    n: usize,
    /// Sampling steps [default: the model's, else 32]
    #[arg(long)]
    steps: Option<usize>,
    /// Share of the open part that is drawn after a share of the steps: arccos, cosine, linear, square or root
    /// [default: arccos]
    #[arg(long, value_name = "CURVE")]
    schedule: Option<Curve>,
    #[command(flatten)]
    order: OrderFlags,
    /// Temperature; 0 takes the most probable token [default: the model's, else 1]
    #[arg(long)]
    temp: Option<f64>,
    /// Keep the k most probable tokens; 0 keeps all
    #[arg(long)]
    top_k: Option<usize>,
    /// Keep the fewest most probable tokens whose probabilities add up to this
    #[arg(long)]
    top_p: Option<f64>,
    /// How often the known and drawn cells are encoded anew, see `generate` [default: the model's]
    #[arg(long, value_name = "R|inf")]
    refresh: Option<Refresh>,
    /// Seed of the first result [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// auto, flex, ndarray, wgpu[:n], vulkan[:n], metal or cuda[:n]
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    #[command(flatten)]
    weights: WeightArgs,
}

/// What is drawn again.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Area {
    /// A picture of the same size; what is white in it, or transparent if it has transparent pixels, is drawn again
    #[arg(long)]
    mask: Option<PathBuf>,
    /// A rectangle that is drawn again: left,top,width,height in pixels
    #[arg(long = "box", value_name = "X,Y,W,H")]
    rectangle: Option<Numbers>,
    /// Continue the picture by so many pixels at its left,top,right,bottom edge
    #[arg(long, value_name = "L,T,R,B")]
    outpaint: Option<Numbers>,
}

#[derive(Clone, Copy)]
struct Numbers([usize; 4]);

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split(',').map(|number| number.trim().parse::<usize>());
        let numbers = numbers.collect::<Result<Vec<_>, _>>().ok().and_then(|numbers| numbers.try_into().ok());
        numbers.map(Self).ok_or_else(|| "four numbers with commas between them are needed, such as 8,8,12,12".into())
    }
}

/// Draws a part of a picture again, or continues it beyond its edges.
pub fn edit(args: &EditArgs) -> anyhow::Result<()> {
    if args.n == 0 {
        bail!("-n must be at least 1");
    }
    if args.picture.as_published || args.picture.temp_warmup.is_some() {
        bail!("--as-published and --temp-warmup do not apply: the public sampler cannot edit");
    }
    let (device, _) = open_device(&args.device)?;
    let model = args.picture.model(&args.model, &device, args.weights.weights())?;
    let class = match args.picture.classes(&model)?[..] {
        [class] => class,
        _ => bail!("--class names several classes; an edit has one"),
    };
    let channels = model.codec().shape().2;
    let picture = Picture::read(&args.image, channels)?;
    let edit = match (&args.area.mask, args.area.rectangle, args.area.outpaint) {
        (Some(path), ..) => {
            let mask = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let region = Region::of_mask(&picture, &mask, &path.display().to_string())?;
            Edit::inpaint(picture, region)?
        }
        (None, Some(Numbers([x, y, width, height])), _) => {
            let region = Region::of_box(&picture, PixelBox { x, y, width, height })?;
            Edit::inpaint(picture, region)?
        }
        (None, None, Some(Numbers(edges))) => Edit::outpaint(&picture, edges)?,
        (None, None, None) => return Err(anyhow!("one of --mask, --box and --outpaint is missing")),
    };
    let draw = DrawFlags {
        steps: args.steps,
        curve: args.schedule,
        order: &args.order,
        temperature: args.temp,
        top_k: args.top_k,
        top_p: args.top_p,
        refresh: args.refresh,
    };
    let settings = args.picture.settings(&model, &draw, None)?;
    let seed = args.seed.unwrap_or_else(seed_from_clock);
    let mut sink = SampleSink::create(&args.out)?;
    handle_interrupts();
    let is_terminal = std::io::stderr().is_terminal();
    let mut n_edited = 0;
    for index in 0..args.n as u64 {
        let seed = seed.wrapping_add(index);
        let edited = model.edit(&edit, class, seed, &settings, &mut |window, view| {
            if is_terminal {
                show(&format!("\rwindow {}, step {} of {}", window + 1, view.step, view.n_steps));
            }
            if was_interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if is_terminal {
            show("\r\x1b[K");
        }
        if !edited.complete {
            break;
        }
        sink.push(edited.picture, SampleInfo { class, name: class_name(&model, class), seed })?;
        n_edited += 1;
    }
    if n_edited == 0 {
        return Ok(());
    }
    let n = sink.finish(&describe(&settings, seed))?;
    writeln!(std::io::stdout(), "{n} edited, seed {seed}: {}", args.out.display())?;
    Ok(())
}
