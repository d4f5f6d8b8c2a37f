//! From paths, folders and patterns to sources of pictures.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::archive::{Archive, ArchiveLabels};
use super::label_file::LabelFile;
use super::packed::{Cifar, Idx};
use super::picture::{RawLabel, malformed};
use super::source::{Columns, PictureFile, PictureFiles, Source};
use super::walk::{FileKind, kind_of, labels_beside, walk};
use crate::error::DataError;
use crate::source::{HubSplit, SkippedFile, split_of};

/// Where the labels of pictures are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PictureLabels {
    /// Where the format has them: class folders, a file of labels in the folder, `.cls` or `.json` beside a member of a tar
    /// file, the column of labels, the file of labels beside an IDX file.
    #[default]
    Auto,
    /// The folder of each picture: the first below the input folder; in a tar file, or for files named one by one, the
    /// folder that holds it.
    Folder,
    /// Nowhere.
    None,
    /// A CSV, TSV or JSON lines file with a file and a label on each line.
    File(PathBuf),
}

impl FromStr for PictureLabels {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        Ok(match text {
            "auto" => Self::Auto,
            "folder" => Self::Folder,
            "none" => Self::None,
            path => Self::File(PathBuf::from(path)),
        })
    }
}

/// How pictures are found.
#[derive(Clone, Debug, Default)]
pub struct PictureOptions {
    /// Where the labels are.
    pub labels: PictureLabels,
    /// The column of pictures, of Parquet and Arrow files.
    pub picture_column: Option<String>,
    /// The column of labels, of Parquet and Arrow files.
    pub label_column: Option<String>,
}

/// Sources of pictures.
#[derive(Clone, Debug, Default)]
pub struct PictureInputs {
    pub(super) sources: Vec<Source>,
    validation: Vec<Source>,
    skipped: Vec<SkippedFile>,
    notes: Vec<String>,
}

impl PictureInputs {
    /// Finds the pictures of files, folders and glob patterns.
    ///
    /// # Errors
    /// [`DataError::NoInput`] for a pattern without pictures; [`DataError::Malformed`] for a class folder without pictures,
    /// for a file that is named and is no source of pictures, and for an unreadable file of labels.
    pub fn find(patterns: &[String], options: &PictureOptions) -> Result<Self, DataError> {
        let label_file = match &options.labels {
            PictureLabels::File(path) => Some(LabelFile::read(path)?),
            PictureLabels::Auto | PictureLabels::Folder | PictureLabels::None => None,
        };
        let mut finder = Finder { options, label_file, found: Self::default() };
        for pattern in patterns {
            finder.push(pattern)?;
        }
        Ok(finder.found)
    }

    /// The pictures of the validation split, of folders that have splits.
    pub fn validation_split(&self) -> Option<Self> {
        let sources = self.validation.clone();
        (!sources.is_empty()).then(|| Self { sources, ..Self::default() })
    }

    /// A line for each source.
    pub fn descriptions(&self) -> Vec<String> {
        self.sources.iter().map(ToString::to_string).collect()
    }

    /// Files that are not read.
    pub fn skipped_files(&self) -> &[SkippedFile] {
        &self.skipped
    }

    /// Sentences for the user.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

struct Finder<'a> {
    options: &'a PictureOptions,
    label_file: Option<LabelFile>,
    found: PictureInputs,
}

impl Finder<'_> {
    fn push(&mut self, pattern: &str) -> Result<(), DataError> {
        let path = Path::new(pattern);
        if path.is_dir() {
            return self.push_folder(path);
        }
        let no_input = || DataError::NoInput { pattern: pattern.to_string(), reasons: Vec::new() };
        let paths: Vec<PathBuf> = if path.exists() {
            vec![path.to_path_buf()]
        } else {
            glob::glob(pattern).map_err(|_| no_input())?.flatten().filter(|path| path.is_file()).collect()
        };
        if paths.is_empty() {
            return Err(no_input());
        }
        let mut pictures = Vec::new();
        for path in paths {
            match kind_of(&path) {
                FileKind::Picture => pictures.push(path),
                FileKind::Other(reason) => return Err(malformed(&path, reason)),
                // The file of images finds it.
                FileKind::IdxLabels => {}
                kind => {
                    let source = self.packed(kind, path)?;
                    self.found.sources.push(source);
                }
            }
        }
        if !pictures.is_empty() {
            let root = pictures[0].parent().unwrap_or(Path::new("")).to_path_buf();
            let source = self.named_files(root, pictures)?;
            self.found.sources.push(source);
        }
        Ok(())
    }

    // Pictures that were named one by one: their class is the folder that holds each.
    fn named_files(&mut self, root: PathBuf, paths: Vec<PathBuf>) -> Result<Source, DataError> {
        let label = |path: &Path| match (&self.options.labels, &self.label_file) {
            (PictureLabels::Folder, _) => match path.parent().and_then(Path::file_name) {
                Some(class) => Ok(Some(RawLabel::Name(class.to_string_lossy().into_owned()))),
                None => Err("lies in no folder, which would be its class".to_string()),
            },
            (_, Some(file)) => file.label(&root, path).map(Some),
            _ => Ok(None),
        };
        let labelled_by = match self.options.labels {
            PictureLabels::Folder => "labelled by their folders",
            PictureLabels::File(_) => "labelled by the file of labels",
            PictureLabels::Auto | PictureLabels::None => "without labels",
        };
        let files = paths.into_iter().map(|path| PictureFile { label: label(&path), path }).collect();
        if self.options.labels == PictureLabels::Auto {
            self.note_unlabelled(&root);
        }
        Ok(Source::Files(PictureFiles { root, labelled_by: labelled_by.to_string(), files }))
    }

    fn note_unlabelled(&mut self, root: &Path) {
        let note = "have no labels, so their rows have none; give --labels folder, or --labels FILE";
        self.found.notes.push(format!("the pictures of {} {note}", root.display()));
    }

    fn packed(&self, kind: FileKind, path: PathBuf) -> Result<Source, DataError> {
        let labels = &self.options.labels;
        let with_labels = *labels != PictureLabels::None;
        if matches!(labels, PictureLabels::File(_)) || (*labels == PictureLabels::Folder && kind != FileKind::Archive) {
            let problem = "has its own labels; use --labels auto or --labels none";
            return Err(malformed(&path, problem));
        }
        Ok(match kind {
            FileKind::IdxImages => {
                let labels = if with_labels { labels_beside(&path) } else { None };
                Source::Idx(Idx { images: path, labels })
            }
            FileKind::Cifar => Source::Cifar(Cifar::new(&path)?),
            FileKind::Archive => {
                let labels = match labels {
                    PictureLabels::Folder => ArchiveLabels::Folder,
                    PictureLabels::None => ArchiveLabels::None,
                    PictureLabels::Auto | PictureLabels::File(_) => ArchiveLabels::Beside,
                };
                Source::Archive(Archive { path, labels })
            }
            FileKind::Columns | FileKind::Picture | FileKind::IdxLabels | FileKind::Other(_) => {
                let (picture_column, label_column) =
                    (self.options.picture_column.clone(), self.options.label_column.clone());
                Source::Columns(Columns { path, picture_column, label_column, with_labels })
            }
        })
    }

    fn push_folder(&mut self, root: &Path) -> Result<(), DataError> {
        let before = self.found.skipped.len();
        let mut paths = Vec::new();
        walk(root, &mut self.found.skipped, &mut paths)?;
        let mut by_kind: Vec<(FileKind, Vec<PathBuf>)> = Vec::new();
        for path in paths {
            match kind_of(&path) {
                FileKind::Other(reason) => self.skip(path, reason),
                FileKind::IdxLabels => {}
                kind => match by_kind.iter_mut().find(|(other, _)| *other == kind) {
                    Some((_, paths)) => paths.push(path),
                    None => by_kind.push((kind, vec![path])),
                },
            }
        }
        if let [(first, _), (second, _), ..] = &by_kind[..] {
            let problem = format!("has {first} and {second}; name one of them with --input");
            return Err(malformed(root, problem));
        }
        match by_kind.pop() {
            Some((FileKind::Picture, paths)) => self.push_pictures(root, paths),
            Some((kind, paths)) => self.push_packed(root, &kind, paths),
            None => {
                let reasons = self.found.skipped[before..].iter().take(5).map(ToString::to_string).collect();
                Err(DataError::EmptyFolder { path: root.to_path_buf(), reasons })
            }
        }
    }

    // Files with many pictures, of one kind. Some of them may be a validation split.
    fn push_packed(&mut self, root: &Path, kind: &FileKind, paths: Vec<PathBuf>) -> Result<(), DataError> {
        let splits: Vec<Option<HubSplit>> = paths.iter().map(|path| split_of_packed(root, path)).collect();
        let has = |split| splits.contains(&Some(split));
        let (has_validation, has_test) = (has(HubSplit::Validation), has(HubSplit::Test));
        let has_splits = has(HubSplit::Train) && (has_validation || has_test);
        for (path, split) in paths.into_iter().zip(splits) {
            match split.filter(|_| has_splits) {
                Some(HubSplit::Test) if has_validation => self.skip(path, "belongs to the test split"),
                Some(HubSplit::Test | HubSplit::Validation) => {
                    let source = self.packed(kind.clone(), path)?;
                    self.found.validation.push(source);
                }
                Some(HubSplit::Train) | None => {
                    let source = self.packed(kind.clone(), path)?;
                    self.found.sources.push(source);
                }
            }
        }
        self.note_test(has_splits && !has_validation);
        Ok(())
    }

    // A folder of pictures, or of folders named for training and validation.
    fn push_pictures(&mut self, root: &Path, paths: Vec<PathBuf>) -> Result<(), DataError> {
        let mut folders: Vec<(PathBuf, Option<HubSplit>, Vec<PathBuf>)> = Vec::new();
        for path in &paths {
            let below = path.strip_prefix(root).unwrap_or(path);
            let top = below.parent().and_then(|parent| parent.iter().next());
            let folder = top.map_or_else(|| root.to_path_buf(), |top| root.join(top));
            match folders.iter_mut().rev().find(|(other, ..)| *other == folder) {
                Some((.., paths)) => paths.push(path.clone()),
                None => {
                    // The word alone: "train" is a split, "train station" is a class.
                    let split = top.and_then(|top| split_of(Path::new(""), &Path::new(top).join("x")));
                    folders.push((folder, split, vec![path.clone()]));
                }
            }
        }
        let has = |split| folders.iter().any(|(_, other, _)| *other == Some(split));
        let (has_validation, has_test) = (has(HubSplit::Validation), has(HubSplit::Test));
        let are_splits = folders.iter().all(|(_, split, _)| split.is_some());
        if !(are_splits && has(HubSplit::Train) && (has_validation || has_test)) {
            let source = self.files(root, paths)?;
            self.found.sources.push(source);
            return Ok(());
        }
        for (folder, split, paths) in folders {
            match split {
                Some(HubSplit::Test) if has_validation => self.skip(folder, "belongs to the test split"),
                Some(HubSplit::Train) | None => {
                    let source = self.files(&folder, paths)?;
                    self.found.sources.push(source);
                }
                Some(HubSplit::Validation | HubSplit::Test) => {
                    let source = self.files(&folder, paths)?;
                    self.found.validation.push(source);
                }
            }
        }
        self.note_test(!has_validation);
        Ok(())
    }

    fn note_test(&mut self, is_used: bool) {
        if is_used {
            self.found.notes.push("there is no validation split, so the test split is used for validation".to_string());
        }
    }

    // The pictures of a folder with their labels.
    fn files(&mut self, root: &Path, paths: Vec<PathBuf>) -> Result<Source, DataError> {
        let beside = LabelFile::beside(root).filter(|_| self.options.labels == PictureLabels::Auto);
        let own_file = beside.as_deref().map(LabelFile::read).transpose()?;
        self.found.skipped.retain(|skipped| Some(&skipped.path) != beside.as_ref());
        let label_file = own_file.as_ref().or(self.label_file.as_ref());
        let mut labelled_by = "without labels".to_string();
        let labels: Vec<Result<Option<RawLabel>, String>> = if let Some(file) = label_file {
            labelled_by = format!("labelled by a file of {} labels", file.len());
            paths.iter().map(|path| file.label(root, path).map(Some)).collect()
        } else {
            let classes: Vec<Option<String>> = paths.iter().map(|path| class_folder(root, path)).collect();
            let n_loose = classes.iter().filter(|class| class.is_none()).count();
            let by_folder = match self.options.labels {
                PictureLabels::Folder => true,
                PictureLabels::Auto => n_loose < paths.len(),
                PictureLabels::None | PictureLabels::File(_) => false,
            };
            if by_folder {
                if let Some(at) = classes.iter().position(Option::is_none) {
                    let problem =
                        "lies beside the class folders, so it has no class; move it into one, or use --labels none";
                    return Err(malformed(&paths[at], problem));
                }
                labelled_by = "labelled by their folders".to_string();
                refuse_empty_classes(root, &classes)?;
                classes.into_iter().map(|class| Ok(class.map(RawLabel::Name))).collect()
            } else {
                if self.options.labels == PictureLabels::Auto {
                    self.note_unlabelled(root);
                }
                vec![Ok(None); paths.len()]
            }
        };
        let files = paths.into_iter().zip(labels).map(|(path, label)| PictureFile { path, label }).collect();
        Ok(Source::Files(PictureFiles { root: root.to_path_buf(), labelled_by, files }))
    }

    fn skip(&mut self, path: PathBuf, reason: impl Into<String>) {
        self.found.skipped.push(SkippedFile { path, reason: reason.into() });
    }
}

// The first folder below `root`.
fn class_folder(root: &Path, path: &Path) -> Option<String> {
    let below = path.strip_prefix(root).ok()?;
    Some(below.parent()?.iter().next()?.to_string_lossy().into_owned())
}

fn refuse_empty_classes(root: &Path, classes: &[Option<String>]) -> Result<(), DataError> {
    let names: std::collections::HashSet<&str> = classes.iter().flatten().map(String::as_str).collect();
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root)
        .map_err(DataError::io("read", root))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    for folder in folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with('.') && name != "__MACOSX" && !names.contains(&*name) {
            return Err(malformed(&folder, "is a class folder without a PNG, JPEG or WebP picture; remove it"));
        }
    }
    Ok(())
}

// MNIST calls its test split t10k, CIFAR-10 its training split data_batch.
fn split_of_packed(root: &Path, path: &Path) -> Option<HubSplit> {
    let name = path.file_name()?.to_string_lossy();
    if name.starts_with("t10k") {
        return Some(HubSplit::Test);
    }
    if name.starts_with("data_batch") {
        return Some(HubSplit::Train);
    }
    split_of(root, path)
}
