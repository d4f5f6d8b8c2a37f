//! A custom order: from both ends towards the middle, with coins of its own.
//!
//! ```text
//! cargo run --release -p pgm-examples --example custom_order -- run/model 'Once upon a time' 3
//! ```
//!
//! The arguments are a model folder, a prompt and a seed.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use burn::tensor::Device;
use pgm_infer::sample::order::{OrderContext, OrderStart};
use pgm_infer::sample::{SampleRow, advance};
use pgm_infer::text::template::Part;
use pgm_infer::{Order, SampleSettings, SamplingPath, TextModel};
use rand::{Rng, RngExt};

/// Decodes the outermost open positions, half of them from either end. Where the number is odd, a coin gives one end one more.
struct Inwards {
    /// A generator of this order alone: the coins leave the draw of tokens as it is.
    coins: Box<dyn Rng + Send>,
}

impl Inwards {
    fn new(start: &OrderStart<'_>) -> Self {
        Self { coins: Box::new(start.independent_rng()) }
    }
}

impl Order for Inwards {
    fn candidates(&mut self, context: &OrderContext<'_>, _rng: &mut dyn Rng) -> Vec<usize> {
        let is_odd = context.n_to_decode % 2 == 1;
        let n_left = context.n_to_decode / 2 + usize::from(is_odd && self.coins.random());
        let (left, rest) = context.open.split_at(n_left);
        let right = &rest[rest.len() - (context.n_to_decode - n_left)..];
        [left, right].concat()
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().context("give a model folder, a prompt and a seed")?;
    let prompt = arguments.next().unwrap_or_default();
    let seed = arguments.next().map_or(Ok(0), |seed| seed.parse()).context("the seed must be a number")?;

    let model = TextModel::load(Path::new(&folder), &Device::flex())?;
    let parts = if prompt.is_empty() { Vec::new() } else { vec![Part::Text(prompt)] };
    let request = model.request(&parts, None, seed)?;
    let settings = SampleSettings { steps: 64, ..SampleSettings::for_model(&model) };
    let mut row = SampleRow::with_order(&request, &settings, |start| Box::new(Inwards::new(&start)))?;
    let denoiser = model.denoiser(SamplingPath::Clean);
    while !row.is_done() {
        for change in advance(denoiser.as_ref(), &mut [&mut row])?.changes {
            change?;
        }
    }
    let sampled = row.sampled(denoiser.mask_index());
    writeln!(std::io::stdout(), "{}", model.decode(&sampled.tokens[1..])?)?;
    Ok(())
}
