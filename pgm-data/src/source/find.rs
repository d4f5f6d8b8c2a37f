//! From paths, folders and patterns to the files that are read, and those that are left out.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::detect::{Detected, DetectedFormat, detect};
use super::hub;
use super::input_file::{InputFile, SkippedFile};
use super::options::ReadOptions;
use crate::error::DataError;

/// The name of standard input among the patterns.
const STANDARD_INPUT: &str = "-";

/// The files of some patterns.
#[derive(Clone, Debug, Default)]
pub(super) struct FoundFiles {
    /// Files to read, in order.
    pub(super) files: Vec<InputFile>,
    /// Files of the validation split of folders that have splits.
    pub(super) validation: Vec<InputFile>,
    /// What is left out.
    pub(super) skipped: Vec<SkippedFile>,
}

impl FoundFiles {
    /// Finds the files of all patterns.
    pub(super) fn of_patterns(patterns: &[String], options: &ReadOptions) -> Result<Self, DataError> {
        let (mut found, mut known) = (Self::default(), HashSet::new());
        for pattern in patterns {
            let path = Path::new(pattern);
            let before = found.files.len();
            let (n_validation, n_skipped) = (found.validation.len(), found.skipped.len());
            if pattern == STANDARD_INPUT {
                found.push_copy(Path::new("standard input"), &mut std::io::stdin().lock(), options)?;
            } else if path.is_dir() {
                found.push_folder(path, options)?;
            } else if path.is_file() {
                found.push_named(path, options)?;
            } else if path.exists() {
                // A pipe, such as the shell's <(command).
                let mut pipe = File::open(path).map_err(DataError::io("read", path))?;
                found.push_copy(path, &mut pipe, options)?;
            } else {
                found.push_glob(pattern, options)?;
            }
            if found.files.len() == before {
                let reasons: Vec<String> = found.skipped[n_skipped..].iter().map(ToString::to_string).collect();
                return Err(DataError::NoInput { pattern: pattern.clone(), reasons });
            }
            found.leave_out_known(before, n_validation, &mut known);
        }
        Ok(found)
    }

    // Leaves out files from a place on that were found before: read twice, held-out text would be in the training text, too.
    fn leave_out_known(&mut self, n_files: usize, n_validation: usize, known: &mut HashSet<PathBuf>) {
        let (files, validation) = (self.files.split_off(n_files), self.validation.split_off(n_validation));
        let mut is_new = |file: &InputFile| file.identity().is_none_or(|path| known.insert(path));
        let (files, again): (Vec<_>, Vec<_>) = files.into_iter().partition(&mut is_new);
        let (validation, also_again): (Vec<_>, Vec<_>) = validation.into_iter().partition(&mut is_new);
        self.files.extend(files);
        self.validation.extend(validation);
        for file in again.into_iter().chain(also_again) {
            self.skip(file.path().to_path_buf(), "is read already");
        }
    }

    // A file that was named: what cannot be read is an error.
    fn push_named(&mut self, path: &Path, options: &ReadOptions) -> Result<(), DataError> {
        match detect(path, &path.to_string_lossy(), options)? {
            Detected::Readable(detected) => {
                self.files.push(InputFile::new(path.to_path_buf(), detected, None));
                Ok(())
            }
            Detected::Unreadable(problem) => Err(DataError::Malformed { path: path.to_path_buf(), problem }),
        }
    }

    fn push_copy(
        &mut self,
        name: &Path,
        reader: &mut dyn std::io::Read,
        options: &ReadOptions,
    ) -> Result<(), DataError> {
        let mut copy = || {
            let mut file = tempfile::NamedTempFile::new()?;
            std::io::copy(reader, &mut file)?;
            Ok(file.into_temp_path())
        };
        let copy = copy().map_err(DataError::io("read", name))?;
        match detect(&copy, "", options)? {
            Detected::Readable(detected) => {
                self.files.push(InputFile::new(name.to_path_buf(), detected, Some(Arc::new(copy))));
                Ok(())
            }
            Detected::Unreadable(problem) => Err(DataError::Malformed { path: name.to_path_buf(), problem }),
        }
    }

    fn push_glob(&mut self, pattern: &str, options: &ReadOptions) -> Result<(), DataError> {
        let no_input = || DataError::NoInput { pattern: pattern.to_string(), reasons: Vec::new() };
        for path in glob::glob(pattern).map_err(|_| no_input())?.flatten() {
            if path.is_file() {
                self.push_named(&path, options)?;
            } else if path.is_dir() && !pattern.contains("**") {
                self.skip(path, "is a folder; name it without a pattern, or use **");
            }
        }
        Ok(())
    }

    // A folder: what cannot be read is left out.
    fn push_folder(&mut self, folder: &Path, options: &ReadOptions) -> Result<(), DataError> {
        let mut paths = Vec::new();
        self.walk(folder, &mut HashSet::new(), &mut paths)?;
        let mut files = Vec::new();
        for path in paths {
            match detect(&path, &path.to_string_lossy(), options)? {
                Detected::Readable(DetectedFormat { not_utf8: Some(at), .. }) => {
                    let reason =
                        format!("is not UTF-8 text at byte {at}; read it with --encoding (latin1, for example)");
                    self.skip(path, &reason);
                }
                Detected::Readable(detected) => files.push(InputFile::new(path, detected, None)),
                Detected::Unreadable(reason) => self.skip(path, &reason),
            }
        }
        let sorted = hub::sort_splits(folder, files);
        self.files.extend(sorted.train);
        self.validation.extend(sorted.validation);
        for (file, reason) in sorted.skipped {
            self.skip(file.path().to_path_buf(), reason);
        }
        Ok(())
    }

    fn walk(
        &mut self,
        folder: &Path,
        visited: &mut HashSet<PathBuf>,
        files: &mut Vec<PathBuf>,
    ) -> Result<(), DataError> {
        let real = folder.canonicalize().map_err(DataError::io("read", folder))?;
        if !visited.insert(real) {
            self.skip(folder.to_path_buf(), "is a link to a folder that is read already");
            return Ok(());
        }
        let entries = std::fs::read_dir(folder).map_err(DataError::io("read", folder))?;
        let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
        let mut paths = paths.map_err(DataError::io("read", folder))?;
        paths.sort();
        for path in paths {
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if hidden {
                self.skip(path, "is hidden");
            } else if path.is_dir() {
                self.walk(&path, visited, files)?;
            } else if path.is_file() {
                files.push(path);
            } else if path.exists() {
                self.skip(path, "is no regular file");
            } else {
                self.skip(path, "is a link to nothing");
            }
        }
        Ok(())
    }

    fn skip(&mut self, path: PathBuf, reason: &str) {
        self.skipped.push(SkippedFile { path, reason: reason.to_string() });
    }
}
