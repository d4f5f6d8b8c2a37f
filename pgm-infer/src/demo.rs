//! The bundled models: `--model demo` writes English, `--model demo-digits` draws digits.

use std::io;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use etcetera::BaseStrategy;

use crate::{InferError, ModelBytes, TextModel};

/// A model that is part of the library.
#[derive(Clone, Copy, Debug)]
pub struct BundledModel {
    /// The name by which commands know it.
    pub name: &'static str,
    /// The files of its folder: paths and contents. The configuration is the last.
    pub files: &'static [(&'static str, &'static [u8])],
}

/// The files of the model of English text. Its card is `pgm-infer/demo/text/README.md`.
pub const TEXT: ModelBytes<'static> = ModelBytes {
    config: include_bytes!("../demo/text/config.json"),
    weights: include_bytes!("../demo/text/model.safetensors"),
    tokenizer: include_bytes!("../demo/text/tokenizer.json"),
    generation: Some(include_bytes!("../demo/text/generation_config.json")),
};

/// All bundled models.
pub const MODELS: [BundledModel; 2] = [
    BundledModel {
        name: "demo",
        files: &[
            ("README.md", include_bytes!("../demo/text/README.md")),
            ("model.safetensors", TEXT.weights),
            ("tokenizer.json", TEXT.tokenizer),
            ("generation_config.json", include_bytes!("../demo/text/generation_config.json")),
            ("config.json", TEXT.config),
        ],
    },
    BundledModel {
        name: "demo-digits",
        files: &[
            ("README.md", include_bytes!("../demo/digits/README.md")),
            ("codec/model.safetensors", include_bytes!("../demo/digits/codec/model.safetensors")),
            ("codec/config.json", include_bytes!("../demo/digits/codec/config.json")),
            ("model.safetensors", include_bytes!("../demo/digits/model.safetensors")),
            ("generation_config.json", include_bytes!("../demo/digits/generation_config.json")),
            ("config.json", include_bytes!("../demo/digits/config.json")),
        ],
    },
];

/// The bundled model of English text, ready to generate.
///
/// # Errors
/// As [`TextModel::from_bytes`].
pub fn load(device: &Device) -> Result<TextModel, InferError> {
    TextModel::from_bytes(&TEXT, device, &|_| ())
}

/// `path`, unless it is the name of a bundled model and nothing has that name: then a folder with that model.
///
/// # Errors
/// As [`BundledModel::folder`].
pub fn resolve(path: &Path) -> Result<PathBuf, InferError> {
    match MODELS.iter().find(|model| Path::new(model.name) == path && !path.exists()) {
        Some(model) => model.folder(),
        None => Ok(path.to_path_buf()),
    }
}

impl BundledModel {
    /// A folder with the model, in the user's cache folder, or in the folder for temporary files where that cannot be written
    /// to.
    ///
    /// # Errors
    /// [`InferError::Write`] when neither can be written to.
    pub fn folder(&self) -> Result<PathBuf, InferError> {
        let name = format!("{}-{}", self.name, env!("CARGO_PKG_VERSION"));
        let cache = etcetera::choose_base_strategy().map(|user| user.cache_dir().join("pgm").join(&name));
        if let Some(folder) = cache.ok().filter(|folder| self.write(folder).is_ok()) {
            return Ok(folder);
        }
        let folder = std::env::temp_dir().join(format!("pgm-{name}"));
        self.write(&folder).map_err(|error| InferError::Write { path: folder.clone(), problem: error.to_string() })?;
        Ok(folder)
    }

    // Leaves files as they are that have the right content already: other processes may have them open.
    fn write(&self, folder: &Path) -> io::Result<()> {
        for (name, bytes) in self.files {
            let path = folder.join(name);
            if std::fs::read(&path).is_ok_and(|found| found == *bytes) {
                continue;
            }
            let beside = path.with_extension(format!("writing-{}", std::process::id()));
            std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
            std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, &path)).inspect_err(|_| {
                let _ = std::fs::remove_file(&beside);
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_copy_is_mended_and_a_whole_one_left_alone() {
        let home = tempfile::tempdir().unwrap();
        for model in MODELS {
            let folder = home.path().join("pgm").join(model.name);
            model.write(&folder).unwrap();
            let weights = folder.join("model.safetensors");
            let modified = || std::fs::metadata(&weights).unwrap().modified().unwrap();
            let before = modified();
            std::fs::write(folder.join("config.json"), b"{").unwrap();
            model.write(&folder).unwrap();
            assert_eq!(modified(), before);
            for (name, bytes) in model.files {
                assert!(std::fs::read(folder.join(name)).unwrap() == *bytes, "{name}");
            }
            let is_writing = |name: &std::ffi::OsStr| name.to_string_lossy().contains("writing");
            assert!(std::fs::read_dir(&folder).unwrap().all(|entry| !is_writing(&entry.unwrap().file_name())));
            assert!(model.write(&weights.join("below a file")).is_err());
        }
    }

    #[test]
    fn other_names_are_paths() {
        for path in ["other", "a/demo", "demo-"] {
            assert_eq!(resolve(Path::new(path)).unwrap(), Path::new(path));
        }
    }
}
