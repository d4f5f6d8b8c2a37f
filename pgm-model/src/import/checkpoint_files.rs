//! The files of a checkpoint on disk: one file, shards with their index, or a folder as the Hugging Face Hub has them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::published_checkpoint::PublishedCheckpoint;
use super::tensors::import_error;
use super::torch_file::shortened;
use crate::error::ModelError;
use crate::model_folder::{
    CONFIG_FILE, MappedFile, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE, refuse_substitute,
};

/// Names of the weights in a hub folder; the first that exists is taken.
const WEIGHTS_NAMES: [&str; 4] =
    ["model.safetensors.index.json", WEIGHTS_FILE, "pytorch_model.bin.index.json", "pytorch_model.bin"];
/// Endings of files that may be the weights of a folder that has none of these names.
const WEIGHTS_ENDINGS: [&str; 5] = ["safetensors", "ckpt", "pt", "pth", "bin"];
/// Files of older tokenizers, which name the special tokens only.
const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";
/// The largest number of shards; published models have some hundreds.
const MAX_SHARDS: usize = 1 << 12;
/// The largest JSON file beside the weights, in bytes.
const MAX_JSON: u64 = 1 << 26;

/// The files of a checkpoint, mapped into memory.
#[derive(Debug)]
pub struct CheckpointFiles {
    origin: String,
    shards: Vec<MappedFile>,
    /// Contents and name of `config.json`.
    config: Option<(Vec<u8>, String)>,
    special_names: Vec<Vec<u8>>,
    tokenizer: Option<PathBuf>,
    tokenizer_config: Option<PathBuf>,
}

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct ShardIndex {
    /// The file of each tensor.
    weight_map: BTreeMap<String, String>,
}

impl CheckpointFiles {
    /// Opens a checkpoint file, an index of shards, or a folder with either. What lies beside the weights of a hub folder is
    /// part of the checkpoint: `config.json` and the tokenizer's files.
    ///
    /// # Errors
    /// [`ModelError::Io`] for a file that cannot be read; [`ModelError::Import`] for a folder without weights and for an
    /// index that cannot be used; [`ModelError::Substitute`] for a Git LFS pointer.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let weights = if path.is_dir() { weights_of(path)? } else { path.to_path_buf() };
        let name = weights.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let shards =
            if name.ends_with(".index.json") { open_shards(&weights)? } else { vec![MappedFile::open(&weights)?] };
        // A file with a name of its own may lie in any folder, beside files of other models.
        let folder = (path.is_dir() || WEIGHTS_NAMES.contains(&name)).then(|| folder_of(&weights));
        let beside = |name: &str| folder.map(|folder| folder.join(name)).filter(|path| path.is_file());
        let read = |path: PathBuf| Ok((read_json(&path)?, path.display().to_string()));
        let special = [TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE];
        Ok(Self {
            origin: weights.display().to_string(),
            shards,
            config: beside(CONFIG_FILE).map(read).transpose()?,
            special_names: special
                .into_iter()
                .filter_map(beside)
                .map(|path| read_json(&path))
                .collect::<Result<_, _>>()?,
            tokenizer: beside(TOKENIZER_FILE),
            tokenizer_config: beside(TOKENIZER_CONFIG_FILE),
        })
    }

    /// The checkpoint in the files.
    ///
    /// # Errors
    /// As [`PublishedCheckpoint::parse`].
    pub fn checkpoint(&self) -> Result<PublishedCheckpoint<'_>, ModelError> {
        let shards: Vec<_> = self.shards.iter().map(|shard| (shard.bytes(), shard.origin())).collect();
        let config = self.config.as_ref().map(|(json, origin)| (json.as_slice(), origin.as_str()));
        let mut checkpoint = PublishedCheckpoint::parse_shards(&shards, &self.origin, config)?;
        for json in &self.special_names {
            checkpoint.add_special_names(json);
        }
        Ok(checkpoint)
    }

    /// The `tokenizer.json` of a hub folder.
    pub fn tokenizer(&self) -> Option<&Path> {
        self.tokenizer.as_deref()
    }

    /// The `tokenizer_config.json` of a hub folder.
    pub fn tokenizer_config(&self) -> Option<&Path> {
        self.tokenizer_config.as_deref()
    }
}

fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

fn read_json(path: &Path) -> Result<Vec<u8>, ModelError> {
    let io_error = |cause| ModelError::Io { action: "read", path: path.to_path_buf(), cause };
    let length = std::fs::metadata(path).map_err(io_error)?.len();
    let origin = path.display().to_string();
    if length > MAX_JSON {
        return Err(import_error(&origin, format!("it has {length} bytes, more than any such file; name another")));
    }
    let json = std::fs::read(path).map_err(io_error)?;
    refuse_substitute(&json, &origin)?;
    Ok(json)
}

// The weights in a folder.
fn weights_of(folder: &Path) -> Result<PathBuf, ModelError> {
    if let Some(known) = WEIGHTS_NAMES.iter().map(|name| folder.join(name)).find(|path| path.is_file()) {
        return Ok(known);
    }
    let io_error = |cause| ModelError::Io { action: "read", path: folder.to_path_buf(), cause };
    let mut others = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io_error)? {
        let path = entry.map_err(io_error)?.path();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if WEIGHTS_ENDINGS.contains(&ending) && path.is_file() {
            others.push(path);
        }
    }
    others.sort();
    match others.as_slice() {
        [only] => Ok(only.clone()),
        [] => {
            let problem = format!("the folder has no weights ({}); name the checkpoint file", WEIGHTS_NAMES.join(", "));
            Err(import_error(&folder.display().to_string(), problem))
        }
        [first, ..] => {
            let problem = format!(
                "the folder has {} files that may be the weights, the first is {}; name one of them",
                others.len(),
                first.display()
            );
            Err(import_error(&folder.display().to_string(), problem))
        }
    }
}

fn open_shards(index: &Path) -> Result<Vec<MappedFile>, ModelError> {
    let (json, origin) = (read_json(index)?, index.display().to_string());
    let ShardIndex { weight_map } = serde_json::from_slice(&json)
        .map_err(|error| import_error(&origin, format!("it is no index of shards ({error}); download it again")))?;
    let names: BTreeSet<&str> = weight_map.values().map(String::as_str).collect();
    if names.is_empty() || names.len() > MAX_SHARDS {
        let problem = format!("it names {} files, an index names 1 to {MAX_SHARDS}; download it again", names.len());
        return Err(import_error(&origin, problem));
    }
    let folder = folder_of(index);
    let open = |name: &str| {
        // A shard lies beside its index.
        if Path::new(name).file_name().and_then(|file| file.to_str()) != Some(name) {
            let problem = format!("it names the file {}, which is no file beside it", shortened(name));
            return Err(import_error(&origin, problem));
        }
        let path = folder.join(name);
        if !path.is_file() {
            let problem = format!("it names the shard {}, which is missing; download it, too", shortened(name));
            return Err(import_error(&origin, problem));
        }
        MappedFile::open(&path)
    };
    names.into_iter().map(open).collect()
}
