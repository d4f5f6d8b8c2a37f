//! Trains the two models of codes by the library's `fit`.

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use burn::tensor::Device;
use burn::train::Interrupter;
use pgm_infer::ImageModel;
use pgm_infer::picture::CodecFolder;
use pgm_model::model_folder;
use pgm_train::{Fit, TrainConfig, TrainEvent, World, fit};

use crate::plan::Plan;
use crate::report::{Report, with_interval};

/// A model with what it is called.
pub struct Named {
    /// "PGM" or "MaskGIT".
    pub name: &'static str,
    /// The model with its codec.
    pub model: ImageModel,
}

/// Trains a model; `objective` is `partition` or `maskgit`.
pub fn train(
    (name, objective): (&'static str, &str),
    plan: &Plan,
    [codes, codec, out]: [&Path; 3],
    (device, interrupter): (&Device, &Interrupter),
    report: &mut Report,
) -> anyhow::Result<Named> {
    let config = TrainConfig::parse(&plan.model_toml(objective), name, &[])?;
    let start = std::time::Instant::now();
    let result = fit(Fit {
        config: &config,
        init: None,
        data: codes,
        out,
        resume: false,
        device,
        interrupter: interrupter.clone(),
        renderer: None,
        observe: Arc::new(show),
        world: World::alone(),
    })?;
    let (true, Some(line)) = (result.complete, result.validation) else {
        bail!("stopped after step {} of {name}", result.step);
    };
    let seconds = start.elapsed().as_secs_f64();
    let folder = out.join("model");
    let codec = CodecFolder::open(codec, device)?.for_model(&model_folder::load_config(&folder)?)?;
    let model = ImageModel::load(&folder, Some(Arc::new(codec)), device)?;
    let bits = |nats: f64| nats / std::f64::consts::LN_2;
    report.line(format!(
        "{name}: {} parameters, {seconds:.0} s of training ({:.1} rows/s), {} bits per code (bound, held-out digits)",
        model.n_parameters(),
        (plan.model[0] * plan.model[1]) as f64 / seconds,
        with_interval(bits(line.val_nelbo), line.val_nelbo_interval.map(|ends| ends.map(bits)), 3),
    ));
    Ok(Named { name, model })
}

#[allow(clippy::print_stdout)]
fn show(event: &TrainEvent) {
    match event {
        TrainEvent::Trained { line, steps, seconds_left } => {
            println!("step {:>4} of {steps}  loss {:.3}  {seconds_left:.0} s left", line.step, line.train_loss);
        }
        TrainEvent::Validated(line) => {
            let bits = line.val_nelbo / std::f64::consts::LN_2;
            println!("step {:>4}  held out: {bits:.3} bits per code", line.step);
        }
        TrainEvent::Notice(text) => println!("{text}"),
        _ => (),
    }
}
