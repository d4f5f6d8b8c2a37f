//! The section `[model]`.

use pgm_data::{ImageInfo, Manifest};
use pgm_model::{
    AutoregressiveConfig, BackboneConfig, ImageConfig, MaskGitConfig, MaskedConfig, ModelConfig, PartitionConfig,
    Projection, Queries, Sets,
};
use serde::{Deserialize, Serialize};

use super::objective::Objective;
use crate::TrainError;

/// Sizes of the network. Vocabulary and special tokens come from the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSection {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Encoder blocks; a masked or autoregressive network, and a MaskGIT, has encoder + decoder blocks.
    pub encoder: usize,
    /// Decoder blocks.
    pub decoder: usize,
    /// Tokens of a row, as in the prepared data.
    pub length: usize,
    /// Dropout probability.
    #[serde(default)]
    pub dropout: f64,
    /// What the queries of the GroupSwap are made of.
    #[serde(default)]
    pub queries: Queries,
    /// How the queries of the GroupSwap are projected.
    #[serde(default)]
    pub projection: Projection,
    /// How the clean tokens of a partition model see each other: "one" set, all together, as in the paper; a number of ordered
    /// sets, where a token sees its own set and earlier ones, so that sampling encodes each token once; or "mix", where each
    /// group draws the number, so that one model serves every number.
    #[serde(default)]
    pub sets: Sets,
    /// Factor on the token embedding of a new network; 1 is the paper's. With 20 to 60 a small network of bytes leaves its first
    /// plateau hundreds of steps earlier. Not for `maskgit`.
    #[serde(default = "default_scale")]
    pub embedding_scale: f64,
    /// Width of the conditioning vector of a text model; that of an image model is `hidden`.
    #[serde(default = "default_cond")]
    pub cond: usize,
    /// Classes of an image model; 0 takes those of the data, another number must be theirs.
    #[serde(default)]
    pub classes: usize,
    /// Register tokens of an image model: 0 or 2 with `partition` (one for each group), any number with `maskgit`.
    #[serde(default = "default_registers")]
    pub registers: usize,
}

fn default_registers() -> usize {
    2
}

fn default_scale() -> f64 {
    1.0
}

fn default_cond() -> usize {
    128
}

impl ModelSection {
    /// The sizes of a model. A network without a decoder has all its blocks in `encoder`.
    pub fn of(model: &ModelConfig) -> Self {
        let backbone = model.backbone();
        let (encoder, decoder, queries, projection, sets) = match model {
            ModelConfig::Partition(config) => {
                (config.encoder_blocks, config.decoder_blocks, config.queries, config.projection, config.sets)
            }
            ModelConfig::Masked(MaskedConfig { n_blocks, .. })
            | ModelConfig::Autoregressive(AutoregressiveConfig { n_blocks, .. })
            | ModelConfig::MaskGit(MaskGitConfig { n_blocks, .. }) => {
                (*n_blocks, 0, Queries::default(), Projection::default(), Sets::default())
            }
        };
        Self {
            hidden: backbone.hidden_size,
            heads: backbone.n_heads,
            encoder,
            decoder,
            length: backbone.length,
            dropout: backbone.dropout,
            queries,
            projection,
            sets,
            embedding_scale: default_scale(),
            cond: backbone.cond_dim,
            classes: backbone.image.as_ref().map_or(0, |image| image.n_classes),
            registers: backbone.image.as_ref().map_or_else(default_registers, |image| image.registers),
        }
    }

    /// The first key whose value is another than that of `model`: the key, the value here, the value there. Dropout, the
    /// length of a row and the sets may be others: no weight depends on them.
    pub(crate) fn first_difference(&self, model: &ModelConfig) -> Option<(&'static str, String, String)> {
        let other = Self::of(model);
        let sizes = [("hidden", self.hidden, other.hidden), ("heads", self.heads, other.heads)];
        let blocks = match model {
            ModelConfig::Partition(_) => {
                vec![("encoder", self.encoder, other.encoder), ("decoder", self.decoder, other.decoder)]
            }
            _ => vec![("encoder + model.decoder", self.encoder + self.decoder, other.encoder)],
        };
        // The condition of an image model is as wide as the model, and 0 classes are those of the data.
        let is_image = model.image().is_some();
        let of_text = [("cond", self.cond, other.cond)].into_iter().filter(|_| !is_image);
        let classes = if self.classes == 0 { other.classes } else { self.classes };
        let of_image = [("classes", classes, other.classes), ("registers", self.registers, other.registers)];
        let of_image = of_image.into_iter().filter(|_| is_image);
        let sizes = sizes.into_iter().chain(blocks).chain(of_text).chain(of_image);
        let words = [
            ("queries", json_word(self.queries), json_word(other.queries)),
            ("projection", json_word(self.projection), json_word(other.projection)),
        ];
        let is_partition = matches!(model, ModelConfig::Partition(_));
        sizes
            .map(|(key, here, there)| (key, here.to_string(), there.to_string()))
            .chain(words.into_iter().filter(|_| is_partition))
            .find(|(_, here, there)| here != there)
    }

    /// Refuses data whose rows have another length.
    pub(crate) fn check_length(&self, data: &Manifest) -> Result<(), TrainError> {
        if self.length == data.length {
            return Ok(());
        }
        Err(TrainError::Config {
            origin: "model.length".to_string(),
            problem: format!(
                "is {}, but the data's rows have {} tokens; set model.length={1} or prepare the data again",
                self.length, data.length
            ),
        })
    }

    /// The network of an objective for data of that manifest.
    pub(super) fn model_config(&self, objective: Objective, data: &Manifest) -> Result<ModelConfig, TrainError> {
        self.check_length(data)?;
        let special = &data.special;
        let backbone = BackboneConfig {
            cond_dim: self.cond,
            dropout: self.dropout,
            mask_index: special.mask as usize,
            bos_index: special.bos as usize,
            eos_index: special.eos as usize,
            pad_index: special.pad.map(|pad| pad as usize),
            ..BackboneConfig::new(data.vocab_size, self.hidden, self.heads, self.length)
        };
        let n_blocks = self.encoder + self.decoder;
        let refuse = |origin: &str, problem: String| Err(TrainError::Config { origin: origin.to_string(), problem });
        let backbone = match (&data.image, objective) {
            (Some(info), Objective::Partition | Objective::Maskgit) => self.image_backbone(info, backbone)?,
            (None, Objective::Maskgit) => {
                return refuse("objective", "is maskgit, which learns image codes, but the data is text".to_string());
            }
            (None, _) if self.classes > 0 => {
                return refuse("model.classes", format!("is {}, but the data is text without classes", self.classes));
            }
            // Rows of pixels or codes as plain sequences.
            _ => backbone,
        };
        let config = match objective {
            Objective::Maskgit => {
                // It has neither BOS nor an id for it in its vocabulary.
                let sizes = BackboneConfig { vocab_size: backbone.vocab_size - 1, length: data.length - 1, ..backbone };
                ModelConfig::MaskGit(MaskGitConfig { backbone: sizes, n_blocks })
            }
            Objective::Partition => ModelConfig::Partition(PartitionConfig {
                backbone,
                encoder_blocks: self.encoder,
                decoder_blocks: self.decoder,
                queries: self.queries,
                projection: self.projection,
                sets: self.sets,
            }),
            Objective::Masked | Objective::MaskedComplementary => {
                ModelConfig::Masked(MaskedConfig { backbone, n_blocks })
            }
            Objective::Autoregressive => ModelConfig::Autoregressive(AutoregressiveConfig { backbone, n_blocks }),
        };
        config.validate()?;
        Ok(config)
    }

    // The sizes of a class-conditional model.
    fn image_backbone(&self, info: &ImageInfo, backbone: BackboneConfig) -> Result<BackboneConfig, TrainError> {
        let n_classes = info.class_names.len();
        if self.classes != 0 && self.classes != n_classes {
            return Err(TrainError::Config {
                origin: "model.classes".to_string(),
                problem: format!(
                    "is {}, but the data has {n_classes} classes; leave it out, or prepare the data with these labels",
                    self.classes
                ),
            });
        }
        let (grid, channels) = info.cells(backbone.length);
        let image = ImageConfig {
            n_classes,
            registers: self.registers,
            grid,
            channels,
            codec: info.codec.as_ref().and_then(|codec| codec.hash.clone()),
            class_names: info.class_names.clone(),
        };
        Ok(BackboneConfig { cond_dim: self.hidden, image: Some(image), ..backbone })
    }
}

// An enum's value as in the file.
fn json_word(value: impl Serialize) -> String {
    serde_json::to_value(value).expect("an enum always serialises").as_str().unwrap_or_default().to_string()
}
