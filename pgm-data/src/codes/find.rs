//! Which files have codes, and in which of the three public formats.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::DataError;
use crate::pictures::picture::malformed;
use crate::source::{HubSplit, split_of};

/// Who wrote the codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CodesFormat {
    /// Found by the files.
    #[default]
    Auto,
    /// A Hugging Face data set on disk, as PGM's public code writes it.
    HuggingFace,
    /// One pickle for each picture, as Halton-MaskGIT writes them.
    Halton,
    /// Pairs of `.npy` files, as LlamaGen writes them.
    LlamaGen,
}

impl fmt::Display for CodesFormat {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::HuggingFace => "hf",
            Self::Halton => "halton",
            Self::LlamaGen => "llamagen",
        })
    }
}

impl FromStr for CodesFormat {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        let formats = [Self::Auto, Self::HuggingFace, Self::Halton, Self::LlamaGen];
        let unknown = || DataError::Option(format!("the format {text:?} is unknown; use hf, halton, llamagen or auto"));
        formats.into_iter().find(|format| format.to_string() == text).ok_or_else(unknown)
    }
}

/// Files of codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CodeFiles {
    Arrow(Vec<PathBuf>),
    Pickles(Vec<PathBuf>),
    /// Codes, and the file of their labels.
    Pairs(Vec<(PathBuf, PathBuf)>),
}

/// The files of a folder by their use.
#[derive(Debug)]
pub(super) struct FoundCodes {
    pub(super) format: CodesFormat,
    pub(super) train: CodeFiles,
    pub(super) validation: Option<CodeFiles>,
}

impl FoundCodes {
    pub(super) fn find(folder: &Path, format: CodesFormat) -> Result<Self, DataError> {
        if !folder.is_dir() {
            return Err(malformed(folder, "is no folder; --input takes the folder that the other program wrote"));
        }
        let mut paths = Vec::new();
        walk(folder, &mut paths)?;
        let format = match format {
            CodesFormat::Auto => detect(folder, &paths)?,
            format => format,
        };
        let wanted: Vec<PathBuf> = paths.into_iter().filter(|path| is_wanted(path, format)).collect();
        let splits: Vec<Option<HubSplit>> = wanted.iter().map(|path| split_of_codes(folder, path)).collect();
        let has = |split| splits.contains(&Some(split));
        let held_out = if has(HubSplit::Validation) { HubSplit::Validation } else { HubSplit::Test };
        let has_splits = has(HubSplit::Train) && has(held_out);
        let (mut train, mut validation) = (Vec::new(), Vec::new());
        for (path, split) in wanted.into_iter().zip(splits) {
            match split.filter(|_| has_splits) {
                Some(HubSplit::Train) | None => train.push(path),
                Some(split) if split == held_out => validation.push(path),
                // A test split beside a validation split.
                Some(_) => {}
            }
        }
        if train.is_empty() {
            return Err(malformed(folder, format!("has no file of codes in the format {format}; check --format")));
        }
        let validation = (!validation.is_empty()).then(|| code_files(validation, format)).transpose()?;
        Ok(Self { format, train: code_files(train, format)?, validation })
    }
}

// A data set's files are in folders named for their splits; names of pickles say nothing.
fn split_of_codes(folder: &Path, path: &Path) -> Option<HubSplit> {
    let below = path.strip_prefix(folder).unwrap_or(path).parent()?;
    below.iter().find_map(|name| split_of(Path::new(""), Path::new(name)))
}

fn is_wanted(path: &Path, format: CodesFormat) -> bool {
    let has_extension = |wanted: &str| path.extension().is_some_and(|extension| extension == wanted);
    match format {
        CodesFormat::HuggingFace => has_extension("arrow"),
        CodesFormat::LlamaGen => has_extension("npy") && folder_name(path).ends_with("_codes"),
        CodesFormat::Halton | CodesFormat::Auto => {
            !["json", "txt", "md", "csv"].iter().any(|extension| has_extension(extension))
        }
    }
}

fn folder_name(path: &Path) -> String {
    let name = path.parent().and_then(Path::file_name);
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn detect(folder: &Path, paths: &[PathBuf]) -> Result<CodesFormat, DataError> {
    for format in [CodesFormat::HuggingFace, CodesFormat::LlamaGen] {
        if paths.iter().any(|path| is_wanted(path, format)) {
            return Ok(format);
        }
    }
    let is_pickle = |path: &PathBuf| {
        use std::io::Read;
        let mut head = [0; 1];
        std::fs::File::open(path).is_ok_and(|mut file| file.read_exact(&mut head).is_ok()) && head == [0x80]
    };
    if paths.iter().filter(|path| is_wanted(path, CodesFormat::Halton)).take(1).any(is_pickle) {
        return Ok(CodesFormat::Halton);
    }
    let problem = "has no codes: no .arrow file, no folder NAME_codes of .npy files, and no pickle; see --format";
    Err(malformed(folder, problem))
}

fn code_files(paths: Vec<PathBuf>, format: CodesFormat) -> Result<CodeFiles, DataError> {
    Ok(match format {
        CodesFormat::HuggingFace => CodeFiles::Arrow(paths),
        CodesFormat::Halton | CodesFormat::Auto => CodeFiles::Pickles(paths),
        CodesFormat::LlamaGen => {
            let pair = |codes: PathBuf| {
                let folder = folder_name(&codes).replace("_codes", "_labels");
                let beside = codes.parent().map(|parent| parent.with_file_name(folder));
                let labels = beside.zip(codes.file_name()).map(|(folder, name)| folder.join(name));
                match labels {
                    Some(labels) if labels.is_file() => Ok((codes, labels)),
                    _ => Err(malformed(&codes, "has no file of labels in the folder NAME_labels beside it")),
                }
            };
            let mut pairs = paths.into_iter().map(pair).collect::<Result<Vec<_>, _>>()?;
            // 10.npy comes after 9.npy.
            pairs.sort_by_key(|(codes, _)| {
                let number = codes.file_stem().and_then(|stem| stem.to_string_lossy().parse::<u64>().ok());
                (codes.parent().map(Path::to_path_buf), number, codes.clone())
            });
            CodeFiles::Pairs(pairs)
        }
    })
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let entries = std::fs::read_dir(folder).map_err(DataError::io("read", folder))?;
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(DataError::io("read", folder))?;
    paths.sort();
    for path in paths {
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        // A link to a folder could lead back to this one.
        let is_link = path.is_symlink();
        if is_hidden {
            continue;
        }
        if path.is_dir() && !is_link {
            walk(&path, files)?;
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}
