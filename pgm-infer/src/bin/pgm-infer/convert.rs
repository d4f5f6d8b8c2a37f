//! `pgm-infer import` and `pgm-infer export`: published checkpoints to model folders, and back.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use pgm_infer::device::Dtype;
use pgm_infer::{GenerationConfig, text};
use pgm_model::import::{
    CheckpointFiles, CheckpointWeights, ImportOverrides, PublishedCheckpoint, ResolvedSetting, SpecialIds,
};
use pgm_model::model_folder::{self, GENERATION_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE};
use pgm_model::{ModelConfig, Queries};
use tokenizers::Tokenizer;

use crate::devices::model_path;

#[derive(Args)]
pub struct ImportArgs {
    /// A Lightning .ckpt, a state dict as .pt or .bin, a .safetensors file with the published names, an index of shards
    /// (.index.json), or a folder of the Hugging Face Hub
    #[arg(long)]
    from: PathBuf,
    /// The model's tokenizer.json, or its folder [default: the one in the file or in the hub folder, if there is one]
    #[arg(long)]
    tokenizer: Option<PathBuf>,
    /// Attention heads [default: the file's, else the width divided by 64]
    #[arg(long)]
    heads: Option<usize>,
    /// Tokens of a training row [default: the file's, else 1024 for GPT-2's vocabulary and 128 for BERT's]
    #[arg(long)]
    length: Option<usize>,
    /// Inputs of the GroupSwap's queries: learn, learn+freqs, learn+freqs+mean or learn+freqs+logsumexp
    /// [default: the file's, else learn+freqs]
    #[arg(long, value_parser = parse_queries)]
    queries: Option<Queries>,
    /// Id of the mask token [default: the tokenizer's, else the last]
    #[arg(long)]
    mask_id: Option<usize>,
    /// Id of the token at position 0 [default: the tokenizer's, else the last but one]
    #[arg(long)]
    bos: Option<usize>,
    /// Id of the token between documents [default: the tokenizer's, else the last but one]
    #[arg(long)]
    eos: Option<usize>,
    /// Which weights to take [default: the averaged ones if the file has them]
    #[arg(long, value_enum)]
    weights: Option<WeightsName>,
    /// The model folder to write: a new or an empty folder
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum WeightsName {
    /// The exponential moving average
    Ema,
    /// The weights after the last optimiser step
    Raw,
}

#[derive(Args)]
pub struct ExportArgs {
    /// The model folder, a training run (RUN, RUN@best, RUN@last, RUN@step-N), or a bundled model: demo or
    /// demo-digits
    #[arg(long, value_parser = model_path)]
    model: PathBuf,
    /// The .safetensors file to write; a name is `backbone.` and the published name
    #[arg(long)]
    out: PathBuf,
    /// Dtype of the stored weights
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Dtype,
}

fn parse_queries(name: &str) -> Result<Queries, String> {
    serde_json::from_value(name.into())
        .map_err(|_| "it must be learn, learn+freqs, learn+freqs+mean or learn+freqs+logsumexp".to_string())
}

/// Converts a published checkpoint to a model folder and prints where each setting came from.
pub fn import(args: &ImportArgs, device: &Device) -> anyhow::Result<()> {
    refuse_used(&args.out)?;
    let files = CheckpointFiles::open(&args.from)?;
    let mut checkpoint = files.checkpoint()?;
    let tokenizer = read_tokenizer(args, &files, &checkpoint)?;
    let tokenizer_config = read_tokenizer_config(args, &files, &mut checkpoint)?;
    let special = tokenizer.as_ref().map(|found| special_ids(&checkpoint, &found.tokenizer)).unwrap_or_default();
    let overrides = ImportOverrides {
        n_heads: args.heads,
        length: args.length,
        queries: args.queries,
        mask_index: args.mask_id,
        bos_index: args.bos,
        eos_index: args.eos,
    };
    let (config, mut taken) = checkpoint.resolve(&overrides, &special)?;
    if let Some(found) = &tokenizer {
        text::check_tokenizer(&found.tokenizer, &config, &found.origin)?;
    }
    let weights = match args.weights {
        Some(WeightsName::Ema) => CheckpointWeights::Ema,
        Some(WeightsName::Raw) => CheckpointWeights::Raw,
        None => checkpoint.default_weights(),
    };
    let network = checkpoint.network(weights, &config, device)?;
    let (name, source) = match (weights, args.weights) {
        (CheckpointWeights::Ema, _) => ("ema", checkpoint.ema_place().unwrap_or("the file")),
        (CheckpointWeights::Raw, Some(_)) => ("raw", "the state dict"),
        (CheckpointWeights::Raw, None) => ("raw", "the state dict; the file has no averaged weights"),
    };
    taken.push(ResolvedSetting { key: "weights", value: name.to_string(), source: source.to_string() });

    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot write {}", args.out.display()))?;
    let (steps, top_p) = checkpoint.sampling();
    let defaults = GenerationConfig { steps, top_p, ..GenerationConfig::default() };
    model_folder::write_file(&args.out.join(GENERATION_FILE), &serde_json::to_vec_pretty(&defaults)?)?;
    if let Some(found) = &tokenizer {
        model_folder::write_file(&args.out.join(TOKENIZER_FILE), &found.json)?;
        taken.push(ResolvedSetting {
            key: "tokenizer",
            value: TOKENIZER_FILE.to_string(),
            source: found.origin.clone(),
        });
    }
    if let Some((json, origin)) = tokenizer_config {
        model_folder::write_file(&args.out.join(TOKENIZER_CONFIG_FILE), &json)?;
        taken.push(ResolvedSetting { key: "tokenizer_cfg", value: TOKENIZER_CONFIG_FILE.to_string(), source: origin });
    }
    // The configuration is written last: a folder that has one is complete.
    model_folder::save(&args.out, &config, &network)?;

    let mut out = std::io::stdout().lock();
    for ResolvedSetting { key, value, source } in &taken {
        writeln!(out, "{key:<15} {value:<14} from {source}")?;
    }
    if let Some(missing) = checkpoint.tied() {
        writeln!(
            out,
            "tied weights: the file leaves out {missing}; head and embedding begin with the same values and are trained apart"
        )?;
    }
    if let Some(first) = checkpoint.left_out().first() {
        writeln!(
            out,
            "left out: {} tensors that the model does not have, the first is {first}",
            checkpoint.left_out().len()
        )?;
    }
    if let Some(image) = config.image() {
        let what = if image.codec.is_some() { "the codec of config.json" } else { "the codec that made its codes" };
        writeln!(out, "a model of images has no tokenizer; it needs {what} to show pictures")?;
    } else if tokenizer.is_none() {
        writeln!(
            out,
            "the file holds no tokenizer.json: copy the model's to {} before generating, and check \
             bos_index, eos_index and mask_index in {}",
            args.out.join(TOKENIZER_FILE).display(),
            model_folder::CONFIG_FILE
        )?;
    }
    writeln!(out, "{} parameters written to {}", network.n_parameters(), args.out.display())?;
    Ok(())
}

/// Writes a model folder's weights under the published names.
pub fn export(args: &ExportArgs, device: &Device) -> anyhow::Result<()> {
    if args.out.extension().is_none_or(|extension| extension != "safetensors") {
        bail!(
            "--out {} must end in .safetensors; PyTorch reads it with safetensors.torch.load_file",
            args.out.display()
        );
    }
    let folder = model_folder::resolve(&args.model)?;
    let (config, network) = model_folder::load(&folder, device)?;
    let tokenizer_config = folder.join(TOKENIZER_CONFIG_FILE);
    let tokenizer_config = tokenizer_config.exists().then(|| read_text(&tokenizer_config)).transpose()?;
    let weights = args.dtype.weights();
    let published = model_folder::to_published_with_tokenizer(&network, &config, weights, tokenizer_config.as_deref())?;
    model_folder::write_file(&args.out, &published)?;
    let kind = match config {
        ModelConfig::Partition(_) => "partition",
        ModelConfig::Masked(_) => "masked",
        ModelConfig::Autoregressive(_) => "autoregressive",
        ModelConfig::MaskGit(_) => "MaskGIT",
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} parameters of the {kind} model written to {}", network.n_parameters(), args.out.display())?;
    let tokenizer = folder.join(TOKENIZER_FILE);
    if tokenizer.exists() {
        writeln!(out, "to import the file again, add --tokenizer {}", tokenizer.display())?;
    }
    Ok(())
}

fn refuse_used(folder: &Path) -> anyhow::Result<()> {
    match std::fs::read_dir(folder).map(|mut entries| entries.next().is_some()) {
        Ok(true) => bail!("--out {} exists and is not empty; name a new folder", folder.display()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot use --out {}", folder.display()))
        }
        _ => Ok(()),
    }
}

struct FoundTokenizer {
    json: Vec<u8>,
    tokenizer: Tokenizer,
    origin: String,
}

fn read_tokenizer(
    args: &ImportArgs,
    files: &CheckpointFiles,
    checkpoint: &PublishedCheckpoint,
) -> anyhow::Result<Option<FoundTokenizer>> {
    let named = args.tokenizer.as_deref().map(tokenizer_file);
    let (json, origin) = match (named.as_deref().or(files.tokenizer()), checkpoint.tokenizer_json()) {
        (Some(path), _) => {
            let origin = path.display().to_string();
            (std::fs::read(path).with_context(|| format!("cannot read {origin}"))?, origin)
        }
        (None, Some(json)) => (json.to_vec(), format!("the tokenizer in {}", args.from.display())),
        (None, None) => return Ok(None),
    };
    model_folder::refuse_substitute(&json, &origin)?;
    let tokenizer =
        Tokenizer::from_bytes(&json).map_err(|error| anyhow!("{origin} is not a valid tokenizer.json: {error}"))?;
    Ok(Some(FoundTokenizer { json, tokenizer, origin }))
}

// `--tokenizer` names the file or its folder.
fn tokenizer_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(TOKENIZER_FILE) } else { path.to_path_buf() }
}

/// The contents of `tokenizer_config.json` and where they come from: beside the tokenizer, else the file itself.
fn read_tokenizer_config(
    args: &ImportArgs,
    files: &CheckpointFiles,
    checkpoint: &mut PublishedCheckpoint,
) -> anyhow::Result<Option<(Vec<u8>, String)>> {
    let beside = args.tokenizer.as_deref().map(|path| tokenizer_file(path).with_file_name(TOKENIZER_CONFIG_FILE));
    let beside = beside.filter(|path| path.exists());
    if let Some(path) = beside.as_deref().or(files.tokenizer_config()) {
        let text = read_text(path)?;
        checkpoint.add_special_names(text.as_bytes());
        return Ok(Some((text.into_bytes(), path.display().to_string())));
    }
    let of_file = checkpoint.tokenizer_config_json();
    Ok(of_file.map(|json| (json, format!("the special tokens in {}", args.from.display()))))
}

// A JSON file as text.
fn read_text(path: &Path) -> anyhow::Result<String> {
    let origin = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {origin}"))?;
    model_folder::refuse_substitute(text.as_bytes(), &origin)?;
    serde_json::from_str::<serde_json::Value>(&text).with_context(|| format!("{origin} is not valid JSON"))?;
    Ok(text)
}

fn special_ids(checkpoint: &PublishedCheckpoint, tokenizer: &Tokenizer) -> SpecialIds {
    let names = checkpoint.special_names();
    let id = |name: &Option<String>| tokenizer.token_to_id(name.as_deref()?).map(|id| id as usize);
    SpecialIds { mask: id(&names.mask), bos: id(&names.bos), eos: id(&names.eos), pad: id(&names.pad) }
}
