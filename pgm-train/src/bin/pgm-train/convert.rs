//! `pgm-train convert`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;
use pgm_infer::device::DeviceName;
use pgm_model::{Projection, Queries};
use pgm_train::{Convert, convert};
use serde::de::DeserializeOwned;

#[derive(Args)]
#[command(
    after_help = "The new model predicts badly until it is trained: fit --init OUT, with the masked model as its [teacher]."
)]
pub struct ConvertArgs {
    /// The masked model: a model folder, or a training run: RUN, RUN@best, RUN@last or RUN@step-N
    #[arg(long, value_name = "MODEL")]
    from: PathBuf,
    /// The model folder to write, with a model card: a new or an empty folder
    #[arg(long)]
    out: PathBuf,
    /// Blocks that become the encoder [default: what the decoder leaves, else the larger half]
    #[arg(long, value_name = "N")]
    encoder: Option<usize>,
    /// Blocks that become the decoder [default: what the encoder leaves]
    #[arg(long, value_name = "N")]
    decoder: Option<usize>,
    /// Inputs of the GroupSwap's queries: learn, learn+freqs, learn+freqs+mean or learn+freqs+logsumexp
    #[arg(long, value_parser = parse_queries, default_value = "learn+freqs")]
    queries: Queries,
    /// Projection of the GroupSwap's queries: linear or mlp4
    #[arg(long, value_parser = parse_projection, default_value = "linear")]
    projection: Projection,
    /// A folder made by pgm-data prepare, recommended: the GroupSwap starts from states of tokens in some of its rows
    /// [default: from states of masks alone]
    #[arg(long)]
    data: Option<PathBuf>,
    /// Seed of the GroupSwap's weights and of the masks
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// auto, flex, ndarray, wgpu[:n], vulkan[:n], metal or cuda[:n]
    #[arg(long, default_value = "auto")]
    device: DeviceName,
}

fn parse<T: DeserializeOwned>(word: &str, problem: &str) -> Result<T, String> {
    serde_json::from_value(word.into()).map_err(|_| problem.to_string())
}

fn parse_queries(word: &str) -> Result<Queries, String> {
    parse(word, "it must be learn, learn+freqs, learn+freqs+mean or learn+freqs+logsumexp")
}

fn parse_projection(word: &str) -> Result<Projection, String> {
    parse(word, "it must be linear or mlp4")
}

pub fn run(args: &ConvertArgs) -> anyhow::Result<ExitCode> {
    let (device, _) = args.device.open().map_err(|message| anyhow!(message))?;
    let converted = convert(&Convert {
        from: &args.from,
        out: &args.out,
        encoder: args.encoder,
        decoder: args.decoder,
        queries: args.queries,
        projection: args.projection,
        data: args.data.as_deref(),
        seed: args.seed,
        device: &device,
    })?;
    let mut out = std::io::stdout().lock();
    let (from, folder) = (converted.folder.display(), args.out.display());
    let (config, n) = (&converted.config, converted.n_parameters);
    let (encoder, decoder) = (config.encoder_blocks, config.decoder_blocks);
    writeln!(
        out,
        "{from}: the first {encoder} of {} blocks become the encoder, {decoder} the decoder",
        encoder + decoder
    )?;
    let rows = match (&args.data, converted.from_data, converted.n_rows) {
        (Some(_), true, 1) => "a row of the data".to_string(),
        (Some(_), true, n_rows) => format!("{n_rows} rows of the data"),
        (Some(_), false, _) => "a row of masks, since no row of the data was given a mask".to_string(),
        (None, ..) => "a row of masks; --data starts it better".to_string(),
    };
    writeln!(out, "the GroupSwap is new; it starts from {} mask tokens in {rows}", converted.n_masks)?;
    if !converted.has_tokenizer {
        writeln!(
            out,
            "the masked model has no tokenizer.json; put the model's into {folder} before you train or generate"
        )?;
    }
    writeln!(out, "{n} parameters written to {folder}; train them with fit --init {folder}")?;
    Ok(ExitCode::SUCCESS)
}
