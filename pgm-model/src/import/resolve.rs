//! The configuration of a checkpoint: sizes from its tensors, the rest from whoever knows it first.

use std::collections::BTreeSet;
use std::fmt::Display;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::torch::shortened;
use super::{Checkpoint, Choices, EMBEDDING, SpecialIds, Stored, Taken, import_error};
use crate::ModelError;
use crate::config::{
    AutoregressiveConfig, BackboneConfig, MaskedConfig, ModelConfig, PartitionConfig, Projection, Queries,
};

const FLAG: &str = "the command line";
const FILE: &str = "the file's configuration";
const TENSORS: &str = "the tensors";
const TOKENIZER: &str = "the tokenizer";
const DEFAULT: &str = "the published default";

impl Checkpoint<'_> {
    /// The configuration: sizes from the tensors; the rest from `choices`, the file, the `tokenizer` or the published
    /// defaults, whichever comes first. The list says what was taken from where.
    ///
    /// # Errors
    /// [`ModelError::Import`] when a size or setting can be found nowhere, or names a model that this crate lacks.
    pub fn resolve(&self, choices: &Choices, tokenizer: &SpecialIds) -> Result<(ModelConfig, Vec<Taken>), ModelError> {
        let mut picker = Picker { origin: &self.origin, taken: Vec::new() };
        let (vocab_size, hidden_size) = self.matrix(EMBEDDING)?;
        let (cond_dim, _) = self.matrix("sigma_map.mlp.0.weight")?;
        let masked = !self.raw.keys().any(|name| name.starts_with("encoder.blocks."));
        let blocks = if masked { "blocks." } else { "encoder.blocks." };
        let (mlp_width, _) = self.matrix(&format!("{blocks}0.mlp.0.weight"))?;
        if hidden_size == 0 || !mlp_width.is_multiple_of(hidden_size) {
            let problem =
                format!("the feed-forward layer's {mlp_width} units are no multiple of the width {hidden_size}");
            return Err(self.error(problem));
        }
        picker.sizes(&[("vocab_size", vocab_size), ("hidden_size", hidden_size), ("cond_dim", cond_dim)]);
        let mlp_ratio = mlp_width / hidden_size;
        let (n_blocks, n_decoder_blocks) = (self.n_blocks(blocks), self.n_blocks("decoder.layers."));
        let counts = [("mlp_ratio", mlp_ratio), ("encoder_blocks", n_blocks), ("decoder_blocks", n_decoder_blocks)];
        if masked {
            picker.sizes(&[("mlp_ratio", mlp_ratio), ("n_blocks", n_blocks)]);
        } else {
            picker.sizes(&counts);
        }

        let facts = &self.facts;
        let ours = facts.config.as_ref();
        let ours_backbone = ours.map(ModelConfig::backbone);
        let known = Published::of(vocab_size);
        let n_heads = picker.pick(
            "n_heads",
            [
                (choices.n_heads, FLAG),
                (facts.n_heads.or(ours_backbone.map(|backbone| backbone.n_heads)), FILE),
                (hidden_size.is_multiple_of(64).then_some(hidden_size / 64), "the published head width, 64"),
            ],
            "give --heads",
        )?;
        if n_heads > hidden_size {
            return Err(self.error(format!("{n_heads} heads are more than the width of {hidden_size}; give --heads")));
        }
        let length = picker.pick(
            "length",
            [
                (choices.length, FLAG),
                (facts.length.or(ours_backbone.map(|backbone| backbone.length)), FILE),
                (known.as_ref().map(|known| known.length), DEFAULT),
            ],
            "give --length",
        )?;
        let dropout = picker.pick(
            "dropout",
            [
                (None, FLAG),
                (facts.dropout.or(ours_backbone.map(|backbone| backbone.dropout)), FILE),
                (Some(0.1), DEFAULT),
            ],
            "",
        )?;
        let usual = BackboneConfig::new(vocab_size, hidden_size, n_heads, length);
        let special = |flag: Option<usize>, ours: Option<usize>, tokenizer: Option<usize>, usual: usize| {
            [(flag, FLAG), (ours, FILE), (tokenizer, TOKENIZER), (Some(usual), DEFAULT)]
        };
        let ids = known.as_ref().map_or([usual.mask_index, usual.bos_index, usual.eos_index], |known| known.ids);
        let mask_index = picker.pick(
            "mask_index",
            special(choices.mask_index, ours_backbone.map(|ours| ours.mask_index), tokenizer.mask, ids[0]),
            "give --mask-id",
        )?;
        let bos_index = picker.pick(
            "bos_index",
            special(choices.bos_index, ours_backbone.map(|ours| ours.bos_index), tokenizer.bos, ids[1]),
            "give --bos",
        )?;
        let eos_index = picker.pick(
            "eos_index",
            special(choices.eos_index, ours_backbone.map(|ours| ours.eos_index), tokenizer.eos, ids[2]),
            "give --eos",
        )?;
        let pad_index = picker.pick_if_any(
            "pad_index",
            [
                (ours_backbone.and_then(|ours| ours.pad_index), FILE),
                // MDLM's code adds a padding token to GPT-2's tokenizer, whose id the mask has in the model.
                (tokenizer.pad.filter(|&pad| pad != mask_index && ours.is_none()), TOKENIZER),
                (known.and_then(|known| known.pad).filter(|_| ours.is_none()), DEFAULT),
            ],
        );
        let backbone =
            BackboneConfig { cond_dim, mlp_ratio, dropout, mask_index, bos_index, eos_index, pad_index, ..usual };
        let config = if masked {
            match ours {
                Some(ModelConfig::Autoregressive(_)) => {
                    ModelConfig::Autoregressive(AutoregressiveConfig { backbone, n_blocks })
                }
                _ => ModelConfig::Masked(MaskedConfig { backbone, n_blocks }),
            }
        } else {
            let queries = self.queries(&mut picker, choices)?;
            let projection = if self.raw.contains_key("decoder.group_swap.query_processor.0.weight") {
                Projection::Mlp4
            } else {
                Projection::Linear
            };
            picker.note("projection", name_of(&projection), TENSORS);
            ModelConfig::Partition(PartitionConfig {
                backbone,
                encoder_blocks: n_blocks,
                decoder_blocks: n_decoder_blocks,
                queries,
                projection,
            })
        };
        config.validate()?;
        Ok((config, picker.taken))
    }
    fn matrix(&self, name: &str) -> Result<(usize, usize), ModelError> {
        match self.raw.get(name).map(Stored::shape) {
            Some(&[rows, columns]) => Ok((rows, columns)),
            Some(shape) => Err(self.error(format!("tensor {name} has shape {shape:?}, it should have two dimensions"))),
            None => Err(ModelError::MissingTensor { origin: self.origin.clone(), count: 1, first: name.to_string() }),
        }
    }

    // Blocks by their numbers; one that is missing in between shows when its tensors are looked for.
    fn n_blocks(&self, prefix: &str) -> usize {
        let number = |name: &'_ String| name.strip_prefix(prefix)?.split('.').next()?.parse::<usize>().ok();
        self.raw.keys().filter_map(number).collect::<BTreeSet<_>>().len()
    }

    fn queries(&self, picker: &mut Picker, choices: &Choices) -> Result<Queries, ModelError> {
        let of_file = match (&self.facts.queries, &self.facts.config) {
            (Some(name), _) => Some(by_name::<Queries>(name).ok_or_else(|| {
                let name = shortened(name);
                self.error(format!("its configuration has pre_query_mode {name}, which is unknown; give --queries"))
            })),
            (None, Some(ModelConfig::Partition(config))) => Some(Ok(config.queries)),
            _ => None,
        };
        let (queries, source) = match (choices.queries, of_file) {
            (Some(queries), _) => (queries, FLAG),
            (None, Some(queries)) => (queries?, FILE),
            (None, None) => (Queries::default(), DEFAULT),
        };
        picker.note("queries", name_of(&queries), source);
        Ok(queries)
    }
}
/// What the published models of a vocabulary have in common.
struct Published {
    length: usize,
    /// Mask, BOS, EOS.
    ids: [usize; 3],
    pad: Option<usize>,
}

impl Published {
    fn of(vocab_size: usize) -> Option<Self> {
        let presets = [crate::presets::owt_6_6(), crate::presets::lm1b_6_6()];
        let known = presets.iter().map(ModelConfig::backbone).find(|known| known.vocab_size == vocab_size)?;
        Some(Self {
            length: known.length,
            ids: [known.mask_index, known.bos_index, known.eos_index],
            pad: known.pad_index,
        })
    }
}

/// Takes the first value there is and notes where it was.
struct Picker<'a> {
    origin: &'a str,
    taken: Vec<Taken>,
}

impl Picker<'_> {
    fn note(&mut self, key: &'static str, value: impl Display, source: &str) {
        self.taken.push(Taken { key, value: value.to_string(), source: source.to_string() });
    }

    fn sizes(&mut self, sizes: &[(&'static str, usize)]) {
        for &(key, value) in sizes {
            self.note(key, value, TENSORS);
        }
    }

    fn pick_if_any<T: Display, const N: usize>(
        &mut self,
        key: &'static str,
        candidates: [(Option<T>, &str); N],
    ) -> Option<T> {
        let (value, source) = candidates.into_iter().find_map(|(value, source)| Some((value?, source)))?;
        self.note(key, &value, source);
        Some(value)
    }

    fn pick<T: Display, const N: usize>(
        &mut self,
        key: &'static str,
        candidates: [(Option<T>, &str); N],
        remedy: &str,
    ) -> Result<T, ModelError> {
        let origin = self.origin;
        self.pick_if_any(key, candidates)
            .ok_or_else(|| import_error(origin, format!("nothing in it says its {key}; {remedy}")))
    }
}

fn name_of(variant: &impl Serialize) -> String {
    serde_json::to_value(variant).ok().and_then(|name| name.as_str().map(str::to_string)).unwrap_or_default()
}

fn by_name<T: DeserializeOwned>(name: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(name.to_string())).ok()
}
