//! Tar files: samples of webdataset, or class folders in an archive.
//!
//! In webdataset the members of a sample follow each other and share their path up to the first dot: `0001.jpg` and
//! `0001.cls` or `0001.json`.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::classes::Survey;
use super::packed::open;
use super::picture::{BadPicture, Picture, PictureContent, PictureSink, Poll, RawLabel, malformed};
use crate::error::DataError;

/// Extensions of pictures, in lower case.
pub(super) const PICTURE_EXTENSIONS: [&str; 5] = ["png", "jpg", "jpeg", "jpe", "webp"];
/// Keys of a sample's JSON that hold its label, in the order in which they are looked up.
const JSON_KEYS: [&str; 6] = ["label", "cls", "class", "class_id", "target", "class_name"];
/// Bytes of a tar file's block.
const BLOCK: usize = 512;
/// Bytes of a label that are read, at most.
const MOST_LABEL_BYTES: u64 = 1 << 20;

/// Where the labels of an archive's pictures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ArchiveLabels {
    /// Beside each picture, in a `.cls` or `.json`.
    Beside,
    /// The folder of each picture.
    Folder,
    /// Nowhere.
    None,
}

/// A tar file of pictures.
#[derive(Clone, Debug)]
pub(super) struct Archive {
    pub(super) path: PathBuf,
    pub(super) labels: ArchiveLabels,
}

/// The members of a sample that were seen so far.
#[derive(Default)]
struct Sample {
    key: String,
    picture: Option<(String, Vec<u8>)>,
    cls: Option<RawLabel>,
    json: Option<RawLabel>,
    problem: Option<String>,
}

impl Archive {
    pub(super) fn survey(&self, poll: &mut Poll) -> Result<Survey, DataError> {
        let mut survey = Survey::default();
        self.each(false, &mut |sample| {
            poll()?;
            // A picture of which the label cannot be read counts: reading names it.
            survey.count(sample.label().as_ref(), u64::from(sample.picture.is_some()));
            Ok(())
        })?;
        Ok(survey)
    }

    pub(super) fn read(&self, sink: &mut PictureSink) -> Result<(), DataError> {
        self.each(true, &mut |sample| {
            let label = sample.label();
            let Some((member, bytes)) = sample.picture else { return Ok(()) };
            let place = format!("{member} of {}", self.path.display());
            sink(match sample.problem {
                Some(problem) => Err(BadPicture { place, problem }),
                None => Ok(Picture { place, content: PictureContent::Encoded(bytes), label }),
            })
        })
    }

    fn each(&self, with_bytes: bool, take: &mut dyn FnMut(Sample) -> Result<(), DataError>) -> Result<(), DataError> {
        let mut head = [0; 2];
        let mut file = File::open(&self.path).map_err(DataError::io("read", &self.path))?;
        let is_compressed = file.read_exact(&mut head).is_ok() && head == [0x1f, 0x8b];
        if is_compressed {
            let mut archive = tar::Archive::new(open(&self.path)?);
            self.each_of(archive.entries(), with_bytes, take)
        } else {
            // Members that are not needed are skipped without reading them.
            self.check_end(&mut file)?;
            file.rewind().map_err(DataError::io("read", &self.path))?;
            let mut archive = tar::Archive::new(file);
            self.each_of(archive.entries_with_seek(), with_bytes, take)
        }
    }

    // A file that was cut between two members is a shorter archive, but for the empty blocks that end a complete one.
    fn check_end(&self, file: &mut File) -> Result<(), DataError> {
        let mut last = [0; BLOCK];
        let read = file.seek(SeekFrom::End(-(BLOCK as i64))).and_then(|_| file.read_exact(&mut last));
        match read {
            Ok(()) if last == [0; BLOCK] => Ok(()),
            _ => Err(malformed(
                &self.path,
                "lacks the empty blocks at the end of a tar file, so it was cut; get it again",
            )),
        }
    }

    fn each_of<R: Read>(
        &self,
        entries: std::io::Result<tar::Entries<'_, R>>,
        with_bytes: bool,
        take: &mut dyn FnMut(Sample) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let broken = |error: std::io::Error| malformed(&self.path, format!("is a broken tar file ({error})"));
        let mut sample = Sample::default();
        for entry in entries.map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let member = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = member.rsplit('/').next().unwrap_or_default();
            if name.starts_with('.') {
                continue;
            }
            let folder = &member[..member.len() - name.len()];
            let (stem, extension) = self.split_name(name);
            let extension = extension.to_lowercase();
            let key = format!("{folder}{stem}");
            if key != sample.key {
                take(std::mem::replace(&mut sample, Sample { key, ..Sample::default() }))?;
            }
            let mut bytes = Vec::new();
            if PICTURE_EXTENSIONS.contains(&extension.as_str()) {
                let expected = entry.size();
                if with_bytes {
                    entry.read_to_end(&mut bytes).map_err(broken)?;
                    if bytes.len() as u64 != expected {
                        return Err(malformed(&self.path, format!("ends within {member}; get the file again")));
                    }
                }
                if self.labels == ArchiveLabels::Folder {
                    match folder.trim_matches('/').rsplit('/').next().filter(|name| !name.is_empty() && *name != ".") {
                        Some(class) => sample.cls = Some(RawLabel::Name(class.to_string())),
                        None => sample.problem = Some("lies in no folder, which would be its class".to_string()),
                    }
                }
                sample.picture = Some((member, bytes));
            } else if self.labels == ArchiveLabels::Beside && (extension == "cls" || extension == "json") {
                entry.by_ref().take(MOST_LABEL_BYTES).read_to_end(&mut bytes).map_err(broken)?;
                sample.read_label(&extension, &bytes);
            }
        }
        take(sample)
    }

    // Webdataset's extension begins at the first dot, a file's at the last.
    fn split_name<'n>(&self, name: &'n str) -> (&'n str, &'n str) {
        let split = if self.labels == ArchiveLabels::Folder { name.rsplit_once('.') } else { name.split_once('.') };
        split.unwrap_or((name, ""))
    }
}

impl Sample {
    fn label(&self) -> Option<RawLabel> {
        self.cls.clone().or_else(|| self.json.clone())
    }

    fn read_label(&mut self, extension: &str, bytes: &[u8]) {
        if extension == "cls" {
            match std::str::from_utf8(bytes).map(str::trim) {
                Ok(text) if !text.is_empty() => self.cls = Some(RawLabel::parse(text)),
                _ => self.problem = Some("has a .cls that is no number and no name".to_string()),
            }
            return;
        }
        match serde_json::from_slice::<Value>(bytes) {
            Ok(Value::Object(fields)) => {
                let value = JSON_KEYS.iter().find_map(|key| fields.get(*key));
                self.json = value.and_then(label_of_json);
            }
            Ok(value) => self.json = label_of_json(&value),
            Err(error) => self.problem = Some(format!("has a .json that cannot be read ({error})")),
        }
    }
}

/// A number or a text as a label.
pub(super) fn label_of_json(value: &Value) -> Option<RawLabel> {
    match value {
        Value::Number(number) => number.as_u64().map(RawLabel::Number),
        Value::String(text) if !text.trim().is_empty() => Some(RawLabel::parse(text)),
        _ => None,
    }
}

/// Whether a file name is that of a tar file.
pub(super) fn is_archive(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    [".tar", ".tar.gz", ".tgz"].iter().any(|extension| name.ends_with(extension))
}
