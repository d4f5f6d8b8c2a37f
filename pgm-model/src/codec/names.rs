//! The published names of a codec's parameters.

use crate::model_folder::Naming;

/// The names in LlamaGen's files. Nothing is stored transposed: Burn keeps convolutions as PyTorch does.
pub(super) static VQ: Naming = Naming { published, is_transposed: |_, _| false };

/// A buffer in LlamaGen's files that counts codes in training.
pub(super) const USED_CODES: &str = "quantize.codebook_used";

fn published(path: &str) -> String {
    let parts = [
        (".mid.first.", ".mid.0."),
        (".mid.attention.", ".mid.1."),
        (".mid.last.", ".mid.2."),
        (".gamma", ".weight"),
        (".beta", ".bias"),
    ];
    parts.iter().fold(path.to_string(), |name, (ours, published)| name.replace(ours, published))
}
