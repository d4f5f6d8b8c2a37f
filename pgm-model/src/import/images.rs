//! The configurations of image models: the class-conditional Partition Transformer and MaskGIT.
//!
//! Sizes come from the tensors. A Partition Transformer has no table of positions, so its grid comes from the length of a
//! row; MaskGIT's comes from its table.

use super::picker::{DEFAULT, FILE, FLAG, Picker, TENSORS};
use super::published_checkpoint::PublishedCheckpoint;
use super::tensors::CODES;
use crate::config::{BackboneConfig, ImageConfig, MaskGitConfig, ModelConfig};
use crate::error::ModelError;
use crate::layers::swiglu_width;

const CLASSES: &str = "cls_embed.embedding_table.weight";
const REGISTERS: &str = "reg_tokens.weight";
/// The largest ratio of the feed-forward layer's width that is tried.
const MAX_RATIO: usize = 64;

impl PublishedCheckpoint<'_> {
    /// Whether the file is a class-conditional Partition Transformer.
    pub(super) fn has_classes(&self) -> bool {
        self.raw.contains_key(CLASSES)
    }

    /// Whether the file is a MaskGIT.
    pub(super) fn is_mask_git(&self) -> bool {
        self.raw.contains_key(CODES)
    }

    /// Classes, registers and grid of a Partition Transformer with rows of `length` tokens.
    ///
    /// # Errors
    /// [`ModelError::Import`] when no square grid has that length.
    pub(super) fn image(&self, length: usize, picker: &mut Picker) -> Result<ImageConfig, ModelError> {
        let (n_rows, _) = self.matrix(CLASSES)?;
        self.image_of(n_rows, length.saturating_sub(1), picker)
    }

    // What a file of ours says beside the sizes stays: the grid, the names of classes, the codec.
    fn image_of(&self, n_rows: usize, n_cells: usize, picker: &mut Picker) -> Result<ImageConfig, ModelError> {
        let n_classes = n_rows.saturating_sub(1);
        let registers = if self.raw.contains_key(REGISTERS) { self.matrix(REGISTERS)?.0 } else { 0 };
        picker.note("n_classes", n_classes, TENSORS);
        picker.note("registers", registers, TENSORS);
        let ours = self.metadata.config.as_ref().and_then(ModelConfig::image);
        let (image, source) = match ours.filter(|ours| ours.n_cells() == n_cells && ours.n_classes == n_classes) {
            Some(ours) => (ImageConfig { registers, ..ours.clone() }, FILE),
            None => {
                let side = n_cells.isqrt();
                if side * side != n_cells {
                    let problem = format!("{n_cells} codes are no square grid; give --length, the codes and BOS");
                    return Err(self.error(problem));
                }
                (ImageConfig { registers, ..ImageConfig::new(n_classes, [side; 2]) }, "the length of a row")
            }
        };
        picker.note("grid", format!("{}x{}", image.grid[0], image.grid[1]), source);
        Ok(image)
    }

    /// The configuration of a MaskGIT. Only the number of heads is not in the tensors.
    ///
    /// # Errors
    /// [`ModelError::Import`] when a size is impossible, [`ModelError::MissingTensor`] when a tensor that gives a size
    /// is missing.
    pub(super) fn mask_git(
        &self,
        [n_heads, length]: [Option<usize>; 2],
        picker: &mut Picker,
    ) -> Result<ModelConfig, ModelError> {
        let (vocab_size, width) = self.matrix(CODES)?;
        let (n_rows, _) = self.matrix("cls_emb.weight")?;
        let (n_cells, _) = self.matrix("pos_emb.weight")?;
        let n_blocks = self.n_blocks("transformer.layers.");
        let (inner, _) = self.matrix("transformer.layers.0.ff.w1.weight")?;
        picker.note("model_type", "maskgit", TENSORS);
        for (key, value) in
            [("vocab_size", vocab_size), ("hidden_size", width), ("n_blocks", n_blocks), ("length", n_cells)]
        {
            picker.note(key, value, TENSORS);
        }
        if let Some(length) = length.filter(|&length| length != n_cells) {
            let problem = format!("its table of positions has {n_cells} rows, --length says {length}; leave it out");
            return Err(self.error(problem));
        }
        let ours = self.metadata.config.as_ref().map(ModelConfig::backbone);
        let n_heads = picker.pick(
            "n_heads",
            [
                (n_heads, FLAG),
                (self.metadata.n_heads.or(ours.map(|ours| ours.n_heads)), FILE),
                (width.is_multiple_of(64).then_some(width / 64), "the published head width, 64"),
            ],
            "give --heads",
        )?;
        let dropout = picker.pick(
            "dropout",
            [(self.metadata.dropout.or(ours.map(|ours| ours.dropout)), FILE), (Some(0.1), DEFAULT)],
            "",
        )?;
        if width == 0 || n_heads == 0 || vocab_size == 0 {
            return Err(self.error("a size is 0; it is no model"));
        }
        let image = self.image_of(n_rows, n_cells, picker)?;
        let sizes = BackboneConfig::for_mask_git(vocab_size - 1, width, n_heads, image);
        // The usual ratio first: several may give the same width.
        let mut ratios = ours.map(|ours| ours.mlp_ratio).into_iter().chain([sizes.mlp_ratio]).chain(1..=MAX_RATIO);
        let mlp_ratio = ratios
            .find(|&mlp_ratio| swiglu_width(&BackboneConfig { mlp_ratio, ..sizes.clone() }) == inner)
            .ok_or_else(|| self.error(format!("no SwiGLU layer of width {width} has {inner} inner units")))?;
        picker.note("mlp_ratio", mlp_ratio, TENSORS);
        let backbone = BackboneConfig { mlp_ratio, dropout, ..sizes };
        Ok(ModelConfig::MaskGit(MaskGitConfig { backbone, n_blocks }))
    }
}
