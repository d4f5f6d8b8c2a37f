//! The card of a codec.

use pgm_model::codec::{AutoencoderConfig, QuantizerConfig};
use serde_json::Value;

use super::card::ModelCard;
use super::figures::{FIGURES_HEAD, figure, figure_line};
use super::front_matter::front_matter;
use super::seal::sealed;
use super::sections::{data_section, training_section, weights_words};
use super::words::{StoredWeights, counted, grouped};

/// The contents of a codec's card.
pub(crate) fn codec_card(
    card: &ModelCard,
    config: &AutoencoderConfig,
    training: &Value,
    (weights, hash): (&StoredWeights, &str),
) -> Vec<u8> {
    let title = match card.section.name.as_str() {
        "" => format!("Codec of pictures with {}", counted(weights.n_parameters as u64, "parameter")),
        name => name.to_string(),
    };
    let front = front_matter(&card.words(training), None, &["image-tokenizer", "burn"]);
    let [rows, columns] = config.grid();
    let quantizer = match &config.quantizer {
        QuantizerConfig::Fsq { levels } => format!("FSQ with the levels {levels:?}"),
        QuantizerConfig::Vq { codes, width } => format!("{} learned vectors of width {width}", grouped(*codes as u64)),
    };
    let mut text = format!(
        "{front}\n# {title}\n\nAn autoencoder: it turns a picture into a grid of codes, on which a model of pictures is \
         trained, and codes into a picture.\n\n| | |\n|---|---|\n"
    );
    let mut push = |name: &str, value: String| text += &format!("| {name} | {value} |\n");
    push(
        "picture",
        format!("{} x {} pixels, {}", config.height, config.width, counted(config.channels as u64, "channel")),
    );
    push("codes", format!("{rows} x {columns} of {}, {quantizer}", grouped(config.quantizer.n_codes() as u64)));
    push("parameters", grouped(weights.n_parameters as u64));
    push("hash of the codec", format!("`{hash}`"));
    push("`model.safetensors`", weights_words(weights));
    if let Some(step) = training["step"].as_u64() {
        push("training steps", grouped(step));
    }
    text += "\n## Use\n\nFOLDER is this folder.\n\n```text\n\
             pgm-data images --input PICTURES --size SIZE --out pixels\n\
             pgm-train encode --codec FOLDER --data pixels --out codes\n\
             pgm-infer generate --model MODEL --codec FOLDER -n 4 --out pictures.png\n```\n\n";
    if let Some(data) = &card.data {
        text += &format!("{}\n", data_section(data, &card.section.data, training));
    }
    text += &format!("{}\n", training_section(&card.recipe, training));
    text += &held_out(&training["validation"]);
    text += "## Limitations\n\nDetails that are rare in its data are lost or drawn otherwise.\n\
             It takes pictures of this size only, and was measured on held-out pictures of the same kind only.\n\n";
    sealed(&text)
}

fn held_out(validation: &Value) -> String {
    let mut text = format!("## Held-out figures\n\n{FIGURES_HEAD}");
    let figures = [
        ("val_loss", "loss of reconstructions"),
        ("val_psnr", "PSNR, dB"),
        ("val_ssim", "SSIM"),
        ("val_usage", "share of the codes that is used"),
        ("val_code_perplexity", "perplexity of the codes"),
    ];
    for (key, name) in figures {
        if let Some((value, interval)) = figure(validation, key) {
            text += &figure_line(name, value, interval);
        }
    }
    text + "\nThe intervals are over the pictures.\n\n"
}
