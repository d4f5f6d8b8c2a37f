//! What a model of image codes has beside its sizes: classes, registers, a grid, a codec.

use serde::{Deserialize, Serialize};

use super::{BackboneConfig, invalid};
use crate::error::ModelError;

/// The most classes of a model. A larger number is a mistake or an attack.
pub const MAX_CLASSES: usize = 1 << 24;

/// Classes, registers and grid of a class-conditional model of image codes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// Number of classes, 0 for images without labels. The class embedding has one more row, the last, for "no class".
    pub n_classes: usize,
    /// Register tokens. In a Partition Transformer: none, or two, one for each group, which stand before the sequence. In a
    /// MaskGIT: any number, behind the sequence.
    #[serde(default)]
    pub registers: usize,
    /// Rows and columns of codes. A sequence holds them in raster order.
    pub grid: [usize; 2],
    /// Tokens of each cell of the grid: 1 for codes; 3 where the tokens are the channels of pixels, side by side.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub channels: usize,
    /// The identity of the codec whose codes the model knows: the hash of its weights. Absent if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
    /// The names of the classes in the order of their numbers; empty if they have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_names: Vec<String>,
}

fn one() -> usize {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the form that serde calls
fn is_one(n: &usize) -> bool {
    *n == 1
}

impl ImageConfig {
    /// A grid of codes with classes, without registers.
    pub fn new(n_classes: usize, grid: [usize; 2]) -> Self {
        Self { n_classes, registers: 0, grid, channels: 1, codec: None, class_names: Vec::new() }
    }

    /// Number of tokens of an image, without BOS.
    pub fn n_cells(&self) -> usize {
        self.grid[0].saturating_mul(self.grid[1]).saturating_mul(self.channels)
    }

    /// The class of that name, or of that number.
    pub fn class_of(&self, name: &str) -> Option<usize> {
        let named = self.class_names.iter().position(|known| known == name);
        named.or_else(|| name.parse().ok().filter(|&class| class < self.n_classes))
    }

    /// The name of a class, or its number where it has none.
    pub fn class_name(&self, class: usize) -> String {
        self.class_names.get(class).cloned().unwrap_or_else(|| class.to_string())
    }

    /// Checks everything but the number of registers, which depends on the network.
    pub(super) fn validate(&self, backbone: &BackboneConfig, n_before: usize) -> Result<(), ModelError> {
        if self.n_classes > MAX_CLASSES {
            return Err(invalid("image.n_classes", self.n_classes, format!("must be at most {MAX_CLASSES}")));
        }
        let grid = format!("{}x{}x{}", self.grid[0], self.grid[1], self.channels);
        if self.n_cells() == 0 {
            return Err(invalid("image.grid", grid, "must have at least one cell"));
        }
        let length = self.n_cells().saturating_add(n_before);
        if length != backbone.length {
            let problem = format!("does not fit length = {}: it needs {length}", backbone.length);
            return Err(invalid("image.grid", grid, problem));
        }
        if backbone.cond_dim != backbone.hidden_size {
            let problem = format!("must be hidden_size = {}, the width of a class's vector", backbone.hidden_size);
            return Err(invalid("cond_dim", backbone.cond_dim, problem));
        }
        if !self.class_names.is_empty() && self.class_names.len() != self.n_classes {
            let problem = format!("are not as many as n_classes = {}", self.n_classes);
            return Err(invalid("image.class_names", format!("{} names", self.class_names.len()), problem));
        }
        Ok(())
    }
}
