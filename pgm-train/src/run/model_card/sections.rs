//! The card of a model of text or of pictures.

use std::path::Path;

use pgm_data::{ImageKind, Manifest, Mode};
use pgm_model::ModelConfig;
use serde_json::Value;

use super::card::{CardSubject, ModelCard, Recipe};
use super::figures::held_out;
use super::front_matter::front_matter;
use super::seal::sealed;
use super::words::{BURN_VERSION, StoredWeights, counted, grouped, sha256, shown_path};

/// The contents of the card.
pub(crate) fn model_card(card: &ModelCard, subject: &CardSubject) -> Vec<u8> {
    let CardSubject { config, training, weights, .. } = *subject;
    let content = Content::of(config, card.data.as_ref());
    let Kind { title, intro, tag } = kind(config, content);
    let pipeline = if content == Content::Text { "text-generation" } else { "unconditional-image-generation" };
    let mut tags = vec![tag, "burn"];
    if content == Content::Text && !matches!(config, ModelConfig::Autoregressive(_)) {
        tags.push("text-infilling");
    }
    let title = match card.section.name.as_str() {
        "" => format!("{title} with {}", counted(weights.n_parameters as u64, "parameter")),
        name => name.to_string(),
    };
    let mut sections =
        vec![format!("# {title}\n\n{intro}\n\n{}", facts(card, subject, content)), usage(config, content)];
    sections.push(match &card.data {
        Some(data) => data_section(data, &card.section.data, training),
        None => made_of(&card.section.data, training),
    });
    sections.push(training_section(&card.recipe, training));
    sections.extend(held_out(config, card.data.as_ref(), training));
    sections.push(limitations(config, content, card.data.is_none()));
    let front = front_matter(&card.words(training), Some(pipeline), &tags);
    sealed(&format!("{front}\n{}\n", sections.join("\n")))
}

/// What the tokens of a model are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Text,
    /// Codes of a codec.
    Codes,
    /// Levels of pixels.
    Pixels,
}

impl Content {
    fn of(config: &ModelConfig, data: Option<&Manifest>) -> Self {
        match (data.and_then(|data| data.image.as_ref()), config.image()) {
            (Some(info), _) if info.kind == ImageKind::Codes => Self::Codes,
            (Some(_), _) => Self::Pixels,
            (None, Some(_)) => Self::Codes,
            (None, None) => Self::Text,
        }
    }
}

struct Kind {
    title: &'static str,
    intro: &'static str,
    tag: &'static str,
}

fn kind(config: &ModelConfig, content: Content) -> Kind {
    let is_text = content == Content::Text;
    let (title, intro, tag) = match (config, is_text) {
        (ModelConfig::Partition(_), true) => (
            "Partition model of text",
            "A [Partition Generative Model](https://arxiv.org/abs/2505.18883): it fills the blanks of a text in any order,\n\
             several tokens in a step, and computes only the tokens decoded so far.",
            "partition-generative-model",
        ),
        (ModelConfig::Partition(_), false) => (
            "Partition model of pictures",
            "A [Partition Generative Model](https://arxiv.org/abs/2505.18883): it draws a picture, or a part of one, many cells\n\
             in a step, and computes only the cells decoded so far.",
            "partition-generative-model",
        ),
        (ModelConfig::Masked(_), true) => (
            "Masked diffusion model of text",
            "A masked diffusion model ([MDLM](https://arxiv.org/abs/2406.07524)): it fills the blanks of a text in any order,\n\
             several tokens in a step.",
            "masked-diffusion",
        ),
        (ModelConfig::Masked(_), false) => (
            "Masked diffusion model of pictures",
            "A masked diffusion model ([MDLM](https://arxiv.org/abs/2406.07524)) of pictures as plain sequences, without classes.",
            "masked-diffusion",
        ),
        (ModelConfig::Autoregressive(_), _) => (
            if is_text { "Autoregressive model of text" } else { "Autoregressive model of pictures" },
            "An autoregressive Transformer: it writes one token after the other.",
            "autoregressive",
        ),
        (ModelConfig::MaskGit(_), _) => (
            "MaskGIT of pictures",
            "A [MaskGIT](https://arxiv.org/abs/2202.04200): it draws a picture, or a part of one, many cells in a step.",
            "maskgit",
        ),
    };
    Kind { title, intro, tag }
}

// The table of sizes and files.
fn facts(card: &ModelCard, subject: &CardSubject, content: Content) -> String {
    let CardSubject { config, tokenizer, training, weights } = subject;
    let backbone = config.backbone();
    let blocks = match config {
        ModelConfig::Partition(config) => {
            let word = |value: Result<Value, _>| value.map(|value| value.as_str().unwrap_or_default().to_string());
            let queries = word(serde_json::to_value(config.queries)).unwrap_or_default();
            format!(
                "{} and {}, GroupSwap with queries `{queries}`",
                counted(config.encoder_blocks as u64, "encoder block"),
                counted(config.decoder_blocks as u64, "decoder block")
            )
        }
        ModelConfig::Masked(config) => counted(config.n_blocks as u64, "block"),
        ModelConfig::Autoregressive(config) => counted(config.n_blocks as u64, "causal block"),
        ModelConfig::MaskGit(config) => counted(config.n_blocks as u64, "block"),
    };
    let mut text = "| | |\n|---|---|\n".to_string();
    let mut push = |name: &str, value: String| text += &format!("| {name} | {value} |\n");
    push("network", format!("{blocks}, width {}, {}", backbone.hidden_size, counted(backbone.n_heads as u64, "head")));
    push("parameters", grouped(weights.n_parameters as u64));
    push("context length", counted(backbone.length as u64, "token"));
    push("vocabulary", format!("{}, the mask included", counted(backbone.vocab_size as u64, "token")));
    if let Some(image) = config.image() {
        let [rows, columns] = image.grid;
        push("picture", format!("{rows} x {columns} {}", if image.channels == 1 { "cells" } else { "pixels" }));
        push("classes", grouped(image.n_classes as u64));
    }
    let of_data = || card.data.as_ref()?.image.as_ref()?.codec.as_ref()?.hash.clone();
    if let (Content::Codes, Some(hash)) =
        (content, config.image().and_then(|image| image.codec.clone()).or_else(of_data))
    {
        push("codec", format!("the one with the hash `{hash}`"));
    }
    if let Some(json) = tokenizer {
        let algorithm = serde_json::from_slice::<Value>(json).ok();
        let algorithm = algorithm.and_then(|json| json["model"]["type"].as_str().map(str::to_string));
        let algorithm = algorithm.map(|name| format!("{name}, ")).unwrap_or_default();
        push("`tokenizer.json`", format!("{algorithm}SHA-256 `{}`", sha256(json)));
    }
    push("`model.safetensors`", weights_words(weights));
    if let Some(step) = training["step"].as_u64() {
        let steps = training["steps"].as_u64().unwrap_or(step);
        push("training steps", format!("{} of {}", grouped(step), grouped(steps)));
    }
    text
}

/// The size and the hash of the weights.
pub(super) fn weights_words(weights: &StoredWeights) -> String {
    format!("{}, SHA-256 `{}`", counted(weights.n_bytes, "byte"), weights.sha256)
}

fn usage(config: &ModelConfig, content: Content) -> String {
    let mut text = "## Use\n\nFOLDER is this folder.\n\n```text\n".to_string();
    let classes = config.image().map_or(0, |image| image.n_classes);
    let class = if classes > 0 { " --class 0" } else { "" };
    let codec = if content == Content::Codes { " --codec CODEC" } else { "" };
    text += &match (config, content) {
        (ModelConfig::Autoregressive(_), Content::Text) => {
            "pgm-infer generate --model FOLDER --prompt 'The'\n".to_string()
        }
        (_, Content::Text) => "pgm-infer generate --model FOLDER --template 'The {6} of the {*}.'\n".to_string(),
        _ if config.image().is_some() => {
            format!("pgm-infer generate --model FOLDER{codec}{class} -n 4 --out pictures.png\n")
        }
        _ => "pgm-infer info FOLDER\n".to_string(),
    };
    if content == Content::Text || config.image().is_some() {
        text += &format!("pgm-infer serve --model FOLDER{codec}\n");
    }
    text += "```\n";
    if content != Content::Text {
        if config.image().is_some() {
            text += "\nIn Rust, `pgm_infer::engine::ImageEngine::open` loads it.\n";
        }
        return text;
    }
    let input = match config {
        ModelConfig::Autoregressive(_) => "TaskInput::Prompt(\"The\".into())",
        _ => "TaskInput::Template(\"The {6} of the {*}.\".into(), 8)",
    };
    text += &format!(
        "\nIn Rust, with the crates `pgm-infer` and `burn`:\n\n```rust\n\
         use std::{{ops::ControlFlow, path::Path}};\n\n\
         use burn::tensor::Device;\n\
         use pgm_infer::engine::{{Engine, EngineOptions, TaskInput}};\n\n\
         fn main() -> Result<(), pgm_infer::InferError> {{\n    \
             let engine = Engine::open(Path::new(\"FOLDER\"), &Device::flex(), &EngineOptions::default())?;\n    \
             let task = engine.task({input});\n    \
             println!(\"{{}}\", engine.generate(task, &mut |_event| ControlFlow::Continue(()))?[0].text);\n    \
             Ok(())\n\
         }}\n```\n"
    );
    text
}

/// The section of the data that a model was trained on.
pub(super) fn data_section(data: &Manifest, words: &str, training: &Value) -> String {
    let mut text = "## Training data\n\n".to_string();
    if !words.is_empty() {
        text += &format!("{words}\n\n");
    }
    let splits = [("training", &data.train), ("held out", &data.validation)];
    if data.image.is_none() {
        text += "| | documents | bytes of text | tokens | rows |\n|---|---:|---:|---:|---:|\n";
        for (name, split) in splits {
            let numbers = [split.documents, split.text_bytes, split.tokens, split.rows].map(grouped);
            text += &format!("| {name} | {} |\n", numbers.join(" | "));
        }
    } else {
        text += "| | pictures |\n|---|---:|\n";
        for (name, split) in splits {
            text += &format!("| {name} | {} |\n", grouped(split.rows));
        }
    }
    text.push('\n');
    text += &match (&data.image, data.mode) {
        (Some(info), _) => {
            let size = info.pixels.map(|pixels| format!(" of {} x {} pixels", pixels.height, pixels.width));
            let kind = match info.kind {
                ImageKind::Codes => "Codes of pictures",
                ImageKind::Tokens => "Pixels, as tokens, of pictures",
                _ => "Pictures",
            };
            let flip = if info.flip { "; each training picture also mirrored" } else { "" };
            format!(
                "{kind}{}, {}{flip}.",
                size.unwrap_or_default(),
                counted(info.class_names.len() as u64, "class name")
            )
        }
        (None, Mode::Pack) => {
            format!("Rows of {} cut from the documents, one after the other.", counted(data.length as u64, "token"))
        }
        (None, Mode::Pad) => format!("One document for each row of at most {}.", counted(data.length as u64, "token")),
    };
    if let Some(detokenizer) = data.detokenizer.and_then(|detokenizer| serde_json::to_value(detokenizer).ok()) {
        text += &format!(" Detokenizer: `{}`.", detokenizer.as_str().unwrap_or_default());
    }
    if let Some(identity) = training["data"]["data_identity"].as_str() {
        text += &format!("\nIdentity of the data folder: SHA-256 `{identity}`.");
    }
    text.push('\n');
    text
}

// What a conversion was made of stands in place of its data.
fn made_of(words: &str, training: &Value) -> String {
    let mut text = "## Training data\n\n".to_string();
    if !words.is_empty() {
        text += &format!("{words}\n\n");
    }
    text += "None of its own: it was not trained since it was made of another model.\n";
    let before = &training["converted_from"]["training"];
    if let Some(identity) = before["data"]["data_identity"].as_str() {
        text += &format!("That one's data folder: SHA-256 `{identity}`.\n");
    }
    text
}

/// How a model was made.
pub(super) fn training_section(recipe: &Recipe, training: &Value) -> String {
    let version = training["version"].as_str().unwrap_or_default();
    let settings = &training["settings"];
    let seed = [&settings["seed"], &settings["distill"]["seed"], &training["seed"]].into_iter().find_map(Value::as_u64);
    let mut text = format!("## Training\n\npgm-train {version}, Burn {BURN_VERSION}");
    if let Some(seed) = seed {
        text += &format!(", seed {seed}");
    }
    text += ".\n";
    let origins = [
        ("Started from", &settings["init"]),
        ("Made of", &training["converted_from"]),
        ("Taught by", &settings["teacher"]),
    ];
    for (what, origin) in origins {
        let Some(model) = origin["model"].as_str() else { continue };
        let step = origin["step"].as_u64().map(|step| format!(" of step {}", grouped(step))).unwrap_or_default();
        let crc = match &origin["weights_crc32"] {
            Value::String(crc) => crc.clone(),
            crc => format!("{:08x}", crc.as_u64().unwrap_or_default()),
        };
        text += &format!("{what} `{}`{step}, whose weights have the CRC-32 `{crc}`.\n", shown_path(Path::new(model)));
    }
    if let Some(teacher) = settings["teacher"].as_str() {
        let crc = settings["teacher_crc32"].as_u64().unwrap_or_default();
        let (round, name) = (&settings["round"], shown_path(Path::new(teacher)));
        text += &format!("Round {round} of the distillation of `{name}`, whose weights have the CRC-32 `{crc:08x}`.\n");
    }
    let init = match settings["init"]["model"].as_str() {
        Some(_) => " --init MODEL",
        None => "",
    };
    text += &format!("\n```text\n{}{init}\n```\n", recipe.command);
    if let Some((name, toml)) = &recipe.file {
        text += &format!("\n`{name}`:\n\n```toml\n{}\n```\n", toml.trim_end());
    }
    text
}

fn limitations(config: &ModelConfig, content: Content, is_untrained: bool) -> String {
    let length = counted(config.backbone().length as u64, "token");
    let first = match content {
        _ if is_untrained => "It predicts badly until it is trained with `pgm-train fit --init`.",
        Content::Text => {
            "What it writes resembles its data and need not be true; it may repeat passages, errors and prejudices of it."
        }
        _ => "What it draws resembles its data; it may repeat pictures of it.",
    };
    let second = match content {
        Content::Text => {
            format!("It has seen rows of {length} only, and was trained neither on instructions nor for safety.")
        }
        _ => "It knows no other size and no other classes, and nothing filters what it draws.".to_string(),
    };
    format!("## Limitations\n\n{first}\n{second}\n")
}
