//! The one table from our parameter paths to the names of the published checkpoints.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

use crate::networks::Network;

/// What the names in a published file begin with.
pub(super) const PREFIX: &str = "backbone.";
/// Name of the rotary frequencies, which published files have in addition to the parameters.
pub(super) const FREQUENCIES: &str = "rotary_emb.inv_freq";

/// Whole names, ours and the published one.
const WHOLE: [(&str, &str); 9] = [
    ("embedding.weight", "vocab_embed.embedding"),
    ("swap.base", "decoder.group_swap.base_embedding"),
    ("classes.weight", "cls_embed.embedding_table.weight"),
    ("registers.weight", "reg_tokens.weight"),
    ("input.codes.weight", "tok_emb.weight"),
    ("input.positions.weight", "pos_emb.weight"),
    ("input.classes.weight", "cls_emb.weight"),
    ("input.registers.weight", "reg_tokens.weight"),
    ("output.bias", "head.bias"),
];

/// Beginnings of the published names of embeddings that end in `.weight`, as those of linear layers do.
const EMBEDDINGS: [&str; 5] = ["cls_embed.", "reg_tokens.", "tok_emb.", "pos_emb.", "cls_emb."];

/// The head's weight in MaskGIT's files, and the embedding whose weight it is.
pub(crate) const TIED: (&str, &str) = ("head.weight", "tok_emb.weight");

/// Beginnings of names; the first that matches counts.
const BEGINNINGS: [(&str, &str); 14] = [
    ("time.input.", "sigma_map.mlp.0."),
    ("time.output.", "sigma_map.mlp.2."),
    ("decoder.", "decoder.layers."),
    ("swap.norm.", "decoder.group_swap.pre_query_norm."),
    ("swap.projection.up.", "decoder.group_swap.query_processor.0."),
    ("swap.projection.down.", "decoder.group_swap.query_processor.2."),
    ("swap.projection.", "decoder.group_swap.query_processor."),
    ("swap.kv.", "decoder.group_swap.hidden_to_key_value."),
    ("swap.out.", "decoder.group_swap.output_linear."),
    ("output.norm.", "last_norm.norm_final."),
    ("output.modulation.", "last_norm.mlp.1."),
    ("head.norm.", "output_layer.norm_final."),
    ("head.modulation.", "output_layer.adaLN_modulation."),
    ("head.linear.", "output_layer.linear."),
];

/// Beginnings of the names of encoder blocks: those of the partition model, and those of the baselines.
const ENCODER_BLOCKS: [(&str, &str); 3] =
    [("encoder.", "encoder.blocks."), ("blocks.", "blocks."), ("layers.", MASK_GIT_BLOCKS)];

/// Beginning of the published names of MaskGIT's blocks.
const MASK_GIT_BLOCKS: &str = "transformer.layers.";

/// Parts of the names inside a block of MaskGIT.
const IN_MASK_GIT_BLOCKS: [(&str, &str); 10] = [
    (".modulation.", ".mlp.1."),
    (".norm1.", ".ln1."),
    (".norm2.", ".ln2."),
    (".q.", ".attn.wq."),
    (".k.", ".attn.wk."),
    (".v.", ".attn.wv."),
    (".out.", ".attn.wo."),
    (".gate.", ".ff.w1."),
    (".down.", ".ff.w2."),
    (".up.", ".ff.w3."),
];

/// Parts of the names inside a block.
const IN_BLOCKS: [(&str, &str); 7] = [
    (".modulation.", ".adaLN_modulation."),
    (".qkv.", ".attn_qkv."),
    (".q.", ".attn_q."),
    (".kv.", ".attn_kv."),
    (".out.", ".attn_out."),
    (".mlp.up.", ".mlp.0."),
    (".mlp.down.", ".mlp.2."),
];

// The published name of a parameter, from its path in our modules; both without the `backbone.` prefix.
fn published_name(path: &str) -> String {
    if let Some((_, name)) = WHOLE.iter().find(|(ours, _)| *ours == path) {
        return (*name).to_string();
    }
    let mut beginnings = ENCODER_BLOCKS.iter().chain(&BEGINNINGS);
    let mut name = match beginnings.find(|(ours, _)| path.starts_with(ours)) {
        Some((ours, published)) => format!("{published}{}", &path[ours.len()..]),
        None => path.to_string(),
    };
    if ["encoder.blocks.", "blocks.", "decoder.layers."].iter().any(|beginning| name.starts_with(beginning)) {
        for (ours, published) in IN_BLOCKS {
            name = name.replace(ours, published);
        }
    }
    if name.starts_with(MASK_GIT_BLOCKS) {
        for (ours, published) in IN_MASK_GIT_BLOCKS {
            name = name.replace(ours, published);
        }
    }
    // Burn calls a norm's weight gamma and its bias beta.
    name.replace(".gamma", ".weight").replace(".beta", ".bias")
}

/// Whether a tensor is a linear weight, which is stored transposed.
pub(super) fn is_linear_weight(name: &str, rank: usize) -> bool {
    rank == 2 && name.ends_with(".weight") && !EMBEDDINGS.iter().any(|beginning| name.starts_with(beginning))
}

/// Whether a published tensor is a buffer, which training never changes: the rotary frequencies.
pub(crate) fn is_buffer(name: &str) -> bool {
    name.ends_with("inv_freq")
}

/// The path from the network's root to the parameter that is visited.
#[derive(Default)]
pub(super) struct ParameterPath(Vec<String>);

impl ParameterPath {
    pub(super) fn enter(&mut self, name: &str) {
        self.0.push(name.to_string());
    }

    pub(super) fn exit(&mut self) {
        self.0.pop();
    }

    /// The published name of the parameter.
    pub(super) fn published(&self) -> String {
        // Names of enum variants are no part of a path.
        let is_variant = |part: &str| part.starts_with(char::is_uppercase);
        let parts: Vec<&str> = self.0.iter().map(String::as_str).filter(|part| !is_variant(part)).collect();
        published_name(&parts.join("."))
    }
}

/// The published name of each parameter, in the modules' order.
pub fn known_names(network: &Network) -> Vec<String> {
    #[derive(Default)]
    struct Names {
        path: ParameterPath,
        names: Vec<String>,
    }
    impl ModuleVisitor for Names {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.enter(name);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<D>>) {
            self.names.push(self.path.published());
        }
    }
    let mut names = Names::default();
    network.visit(&mut names);
    names.names
}
