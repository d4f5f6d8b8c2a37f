//! A masked model folder to a partition model folder, see [`pgm_model::convert`].
// B rows, L length, H hidden

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_data::{DataFolder, Row, RowOrder, Split};
use pgm_model::convert::{SwapStart, VisibleStates, partition_config, partition_from_masked};
use pgm_model::loss::GroupDistribution;
use pgm_model::model_folder::{
    self, CONFIG_FILE, GENERATION_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, TRAINING_FILE, WEIGHTS_FILE, write_file,
};
use pgm_model::{
    MaskedConfig, MaskedTransformer, ModelConfig, Network, PartitionConfig, Positions, Projection, Queries,
};
use rand::RngExt;
use serde_json::{Value, json};

use crate::TrainError;
use crate::batches::random::{CONVERSION, stream};
use crate::batches::{draw_groups, read_rows};
use crate::eval::{check_same_tokens, kind};
use crate::run::{CardSubject, DataIdentity, InitModel, ModelCard, Recipe, StoredWeights, model_card, write_card};
use crate::token_nll::read;

/// Rows whose tokens the GroupSwap starts from.
const N_ROWS: usize = 64;
/// Rows of an evaluation.
const ROWS_AT_ONCE: usize = 8;

/// The arguments of [`convert()`].
pub struct Convert<'a> {
    /// The masked model: a model folder, or a training run; see [`model_folder::resolve`].
    pub from: &'a Path,
    /// The folder to write, new or empty.
    pub out: &'a Path,
    /// Encoder blocks; without them, what the decoder leaves, or the larger half.
    pub encoder: Option<usize>,
    /// Decoder blocks; without them, what the encoder leaves.
    pub decoder: Option<usize>,
    /// What the queries of the GroupSwap are made of.
    pub queries: Queries,
    /// How they are projected.
    pub projection: Projection,
    /// A data folder whose rows give the states that the GroupSwap starts from; without one, a row of masks does.
    pub data: Option<&'a Path>,
    /// Seed of the GroupSwap's weights, and of the rows and their masks.
    pub seed: u64,
    /// Where to compute.
    pub device: &'a Device,
}

/// What a conversion wrote.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The configuration of the partition model.
    pub config: PartitionConfig,
    /// Its parameters.
    pub n_parameters: usize,
    /// The masked model's folder.
    pub folder: PathBuf,
    /// Mask tokens whose mean state the GroupSwap starts from.
    pub n_masks: usize,
    /// Rows that they are in.
    pub n_rows: usize,
    /// Whether these rows are the data's. Otherwise it is a row of masks: no data was given, or none of its rows had a mask.
    pub from_data: bool,
    /// Whether the folder has a tokenizer.
    pub has_tokenizer: bool,
}

/// Writes the partition model that a masked one becomes before any training. Tokenizer and sampler defaults are the masked
/// model's, and `training.json` says what it was made of.
///
/// # Errors
/// [`TrainError::Config`] when the model is not masked, the blocks do not add up, the data is not the model's or `out` is not
/// empty; [`TrainError::Model`] or [`TrainError::File`] when a file cannot be read or written.
pub fn convert(args: &Convert) -> Result<Converted, TrainError> {
    let refuse = |problem: &str| Err(config_error(format!("--out {}", args.out.display()), problem));
    match std::fs::read_dir(args.out).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return refuse("exists and is not empty; name a new folder"),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(TrainError::file("write", args.out, error));
        }
        _ => {}
    }
    let from = InitModel::open(args.from)?;
    let masked = masked_config(args.from, from.config())?;
    let blocks = blocks(args, masked.n_blocks)?;
    let config = partition_config(masked, blocks, args.queries, args.projection)?;
    let device = args.device.clone().without_autodiff();
    let network =
        finite(args.from, model_folder::load_weights(&from.folder().join(WEIGHTS_FILE), from.config(), &device)?)?;
    let rows = match args.data {
        Some(path) => MaskedRows::drawn(path, &from, masked, args.seed)?,
        None => MaskedRows::of_masks(masked.backbone.length),
    };
    let first = |n: usize| rows.states(&network.clone().first_blocks(n), masked.backbone.mask_index, &device);
    let (after, before) = (first(config.encoder_blocks)?, first(config.encoder_blocks - 1)?);
    let visible = (after.n_visible > 0).then_some(VisibleStates {
        masks_before: before.masks,
        mean: after.visible,
        deviation: after.deviation,
    });
    let (start, n_masks) = (SwapStart { masks: after.masks, visible }, after.n_masks);
    device.seed(args.seed);
    let partition = partition_from_masked(network, &config, &start, &device)?;

    let mut training = json!({
        "converted_from": from.provenance(),
        "group_swap": { "rows": rows.tokens.len(), "masks": n_masks, "data": rows.data },
        "seed": args.seed,
        "version": env!("CARGO_PKG_VERSION"),
    });
    let read_file = |name: &str| match std::fs::read(from.folder().join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TrainError::file("read", from.folder().join(name), error)),
    };
    if let Some(before) = read_file(TRAINING_FILE)?.and_then(|json| serde_json::from_slice::<Value>(&json).ok()) {
        training["converted_from"]["training"] = before;
    }
    std::fs::create_dir_all(args.out).map_err(|error| TrainError::file("write", args.out, error))?;
    let mut tokenizer = None;
    for name in [TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, GENERATION_FILE] {
        if let Some(bytes) = read_file(name)? {
            write_file(&args.out.join(name), &bytes)?;
            if name == TOKENIZER_FILE {
                tokenizer = Some(bytes);
            }
        }
    }
    let json = serde_json::to_vec_pretty(&training).expect("JSON values always serialise");
    write_file(&args.out.join(TRAINING_FILE), &json)?;
    let (network, model_config) = (Network::Partition(partition), ModelConfig::Partition(config.clone()));
    let bytes = model_folder::to_safetensors(&network)?;
    write_file(&args.out.join(WEIGHTS_FILE), &bytes)?;
    let weights = StoredWeights::new(network.n_parameters(), &bytes);
    let card = ModelCard { recipe: recipe(args, &config), ..ModelCard::default() };
    let (tokenizer, training) = (tokenizer.as_deref(), &training);
    let subject = CardSubject { config: &model_config, tokenizer, training, weights: &weights };
    write_card(args.out, &model_card(&card, &subject))?;
    // The configuration is written last: a folder that has one is complete.
    let json = serde_json::to_vec_pretty(&model_config).expect("a configuration always serialises");
    write_file(&args.out.join(CONFIG_FILE), &json)?;
    Ok(Converted {
        n_parameters: network.n_parameters(),
        folder: from.folder().to_path_buf(),
        n_rows: rows.tokens.len(),
        from_data: rows.data.is_some(),
        config,
        n_masks,
        has_tokenizer: tokenizer.is_some(),
    })
}

// The command with its defaults filled in.
fn recipe(args: &Convert, config: &PartitionConfig) -> Recipe {
    let word = |value: serde_json::Result<Value>| match value {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    };
    let data = if args.data.is_some() { " --data DATA" } else { "" };
    let command = format!(
        "pgm-train convert --from MODEL --out OUT --encoder {} --decoder {} --queries {} --projection {} --seed {}{data}",
        config.encoder_blocks,
        config.decoder_blocks,
        word(serde_json::to_value(config.queries)),
        word(serde_json::to_value(config.projection)),
        args.seed
    );
    Recipe { command, file: None }
}

fn config_error(origin: String, problem: impl Into<String>) -> TrainError {
    TrainError::Config { origin, problem: problem.into() }
}

fn masked_config<'a>(from: &Path, config: &'a ModelConfig) -> Result<&'a MaskedConfig, TrainError> {
    let problem = match config {
        ModelConfig::Masked(config) => return Ok(config),
        ModelConfig::Partition(_) => "is a partition model already; train it with fit --init".to_string(),
        ModelConfig::MaskGit(_) => {
            "is a MaskGIT of images, whose blocks (RMSNorm, SwiGLU, learned positions) are not those of a partition model; \
             train one with objective = \"partition\""
                .to_string()
        }
        other => format!("is of the kind {}; only a masked model of text can be converted", kind(other)),
    };
    Err(config_error(format!("--from {}", from.display()), problem))
}

// The blocks of encoder and decoder.
fn blocks(args: &Convert, n_blocks: usize) -> Result<[usize; 2], TrainError> {
    let (shown, from) = (|(flag, n): (&str, Option<usize>)| n.map(|n| format!("--{flag} {n}")), args.from.display());
    let flags = [("encoder", args.encoder), ("decoder", args.decoder)];
    let flags: Vec<String> = flags.into_iter().filter_map(shown).collect();
    if n_blocks < 2 {
        let problem = format!("has {n_blocks} block; a partition model needs an encoder block and a decoder block");
        return Err(config_error(format!("--from {from}"), problem));
    }
    let found = match (args.encoder, args.decoder) {
        (None, None) => Some([n_blocks.div_ceil(2), n_blocks / 2]),
        (Some(encoder), None) => n_blocks.checked_sub(encoder).map(|decoder| [encoder, decoder]),
        (None, Some(decoder)) => n_blocks.checked_sub(decoder).map(|encoder| [encoder, decoder]),
        (Some(encoder), Some(decoder)) => Some([encoder, decoder]),
    };
    let found = found
        .filter(|[encoder, decoder]| encoder.checked_add(*decoder) == Some(n_blocks) && *encoder > 0 && *decoder > 0);
    found.ok_or_else(|| {
        let problem = format!(
            "does not divide the {n_blocks} blocks of {from}; encoder and decoder are at least 1 each and {n_blocks} in all"
        );
        config_error(flags.join(" "), problem)
    })
}

fn finite(from: &Path, network: Network) -> Result<MaskedTransformer, TrainError> {
    let norm = crate::run::weight_norm(&network).try_into_scalar::<f32>();
    let is_finite = norm.map_err(|error| TrainError::Device(error.to_string()))?.is_finite();
    match network {
        Network::Masked(network) if is_finite => Ok(network),
        _ => Err(config_error(
            format!("--from {}", from.display()),
            "has weights that are not finite: its run diverged or the file is damaged; take an earlier checkpoint",
        )),
    }
}

/// Rows with masks.
struct MaskedRows {
    tokens: Vec<Vec<u32>>,
    is_masked: Vec<Vec<bool>>,
    // Tokens before the padding.
    valid: Vec<usize>,
    data: Option<DataIdentity>,
}

impl MaskedRows {
    /// A row of masks alone.
    fn of_masks(length: usize) -> Self {
        Self { tokens: vec![vec![0; length]], is_masked: vec![vec![true; length]], valid: vec![length], data: None }
    }

    /// Rows of a data folder, masked as in training.
    fn drawn(path: &Path, from: &InitModel, masked: &MaskedConfig, seed: u64) -> Result<Self, TrainError> {
        let data = DataFolder::open(path)?;
        if data.image().is_some() {
            let problem =
                "is a folder of pictures; give the text that the masked model was trained on, or leave --data out";
            return Err(config_error(format!("--data {}", path.display()), problem));
        }
        check_same_tokens(from.folder(), "--from", &ModelConfig::Masked(masked.clone()), &data)?;
        let train = data.rows(Split::Train)?;
        let indices = RowOrder::new(seed, train.len()).step(0, N_ROWS.min(train.len()));
        let rows = read_rows(&train, &indices).map_err(|error| TrainError::Learner(error.to_string()))?;
        let mut rng = stream(seed, CONVERSION, 0);
        let uniforms: Vec<f64> = rows.iter().map(|_| rng.random()).collect();
        let distribution = GroupDistribution::default();
        let is_masked = draw_groups(&rows, distribution, &distribution.levels(&uniforms), &mut rng);
        let has_mask = |(row, is_masked): (&Row, &Vec<bool>)| is_masked[..row.valid].contains(&true);
        if !rows.iter().zip(&is_masked).any(has_mask) {
            // A handful of short rows.
            return Ok(Self::of_masks(data.manifest().length));
        }
        Ok(Self {
            valid: rows.iter().map(|row| row.valid).collect(),
            tokens: rows.into_iter().map(|row| row.tokens).collect(),
            is_masked,
            data: Some(DataIdentity::new(&data)?),
        })
    }

    /// The mean states of its tokens after the network's blocks.
    fn states(
        &self,
        network: &MaskedTransformer,
        mask_index: usize,
        device: &Device,
    ) -> Result<TokenStates, TrainError> {
        let mut sums: [Vec<f64>; 2] = Default::default();
        let (mut counts, mut variance) = ([0_usize; 2], 0.0);
        let rows: Vec<usize> = (0..self.tokens.len()).collect();
        for rows in rows.chunks(ROWS_AT_ONCE) {
            let length = self.tokens[rows[0]].len();
            let (mut ids, mut roles) = (Vec::new(), Vec::new());
            for &row in rows {
                for (position, (&token, &is_masked)) in self.tokens[row].iter().zip(&self.is_masked[row]).enumerate() {
                    ids.push(if is_masked { mask_index as i32 } else { token as i32 });
                    roles.push((position < self.valid[row]).then_some(usize::from(!is_masked)));
                }
            }
            let tokens: Tensor<2, Int> = Tensor::from_data(TensorData::new(ids, [rows.len(), length]), device);
            let states = network.hidden_at(tokens, &Positions::all(rows.len(), length, device)); // [B, L, H]
            let width = states.dims()[2];
            for (state, role) in read(states)?.chunks(width).zip(roles) {
                let Some(role) = role else { continue };
                counts[role] += 1;
                sums[role].resize(width, 0.0);
                sums[role].iter_mut().zip(state).for_each(|(sum, &x)| *sum += f64::from(x));
                if role == 1 {
                    let mean = state.iter().map(|&x| f64::from(x)).sum::<f64>() / width as f64;
                    variance += state.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / width as f64;
                }
            }
        }
        let [masks, visible] = std::array::from_fn(|role| {
            sums[role].iter().map(|sum| (sum / counts[role] as f64) as f32).collect::<Vec<f32>>()
        });
        let [n_masks, n_visible] = counts;
        // As a norm divides: no state has a deviation of 0.
        let deviation = (variance / n_visible.max(1) as f64 + 1e-5).sqrt() as f32;
        Ok(TokenStates { masks, visible, deviation, n_masks, n_visible })
    }
}

/// Mean states of the tokens of rows.
struct TokenStates {
    /// Of mask tokens, `[H]`.
    masks: Vec<f32>,
    /// Of the others, `[H]`; empty if there are none.
    visible: Vec<f32>,
    /// Root of the mean variance of the others over H.
    deviation: f32,
    n_masks: usize,
    n_visible: usize,
}

#[cfg(test)]
mod tests {
    use pgm_model::BackboneConfig;

    use super::*;

    #[test]
    fn mean_states_are_those_of_tokens_before_the_padding() {
        let (device, length, width) = (Device::flex(), 5, 8);
        let config = MaskedConfig { backbone: BackboneConfig::new(11, width, 2, length), n_blocks: 2 };
        let network = Network::new(&ModelConfig::Masked(config), &device).with_noise(0.4, 7);
        let Network::Masked(network) = network else { unreachable!() };
        // More rows than are evaluated at once.
        let n_rows = ROWS_AT_ONCE + 3;
        let rows = MaskedRows {
            tokens: (0..n_rows as u32).map(|row| (0..5).map(|i| (row * 3 + i) % 10).collect()).collect(),
            is_masked: (0..n_rows).map(|row| (0..length).map(|i| (row + i) % 3 != 0).collect()).collect(),
            valid: (0..n_rows).map(|row| 1 + row % length).collect(),
            data: None,
        };
        let (mut sum, mut n, mut others, mut variances) = (vec![0.0; width], 0, vec![0.0; width], Vec::new());
        for row in 0..n_rows {
            let ids = (0..length).map(|i| if rows.is_masked[row][i] { 10 } else { rows.tokens[row][i] as i32 });
            let tokens: Tensor<2, Int> =
                Tensor::from_data(TensorData::new(ids.collect::<Vec<_>>(), [1, length]), &device);
            let states =
                network.hidden_at(tokens, &Positions::all(1, length, &device)).try_into_vec_as::<f32>().unwrap();
            for i in 0..rows.valid[row] {
                let state = &states[i * width..(i + 1) * width];
                let sum = if rows.is_masked[row][i] { &mut sum } else { &mut others };
                sum.iter_mut().zip(state).for_each(|(sum, state)| *sum += state);
                if rows.is_masked[row][i] {
                    n += 1;
                } else {
                    let mean = state.iter().sum::<f32>() / width as f32;
                    variances.push(state.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / width as f32);
                }
            }
        }
        let found = rows.states(&network, 10, &device).unwrap();
        let n_visible = variances.len();
        assert_eq!((found.masks.len(), found.visible.len()), (width, width));
        assert_eq!((found.n_masks, found.n_visible), (n, n_visible));
        let near = |found: f32, expected: f32| {
            assert!((found - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{found} for {expected}");
        };
        found.masks.iter().zip(&sum).for_each(|(found, sum)| near(*found, sum / n as f32));
        found.visible.iter().zip(&others).for_each(|(found, sum)| near(*found, sum / n_visible as f32));
        near(found.deviation, (variances.iter().sum::<f32>() / n_visible as f32 + 1e-5).sqrt());
        // Without data it is a row of masks.
        let found = MaskedRows::of_masks(length).states(&network, 10, &device).unwrap();
        assert_eq!((found.n_masks, found.n_visible, found.visible.len()), (length, 0, 0));
    }
}
