//! Folders laid out as data sets on a hub: files of several splits, a card, and descriptions.

use std::path::Path;

use super::format::FileFormat;
use super::input_file::InputFile;

/// The files of a folder by their use.
#[derive(Default)]
pub(super) struct SortedFiles {
    /// Files to read.
    pub(super) train: Vec<InputFile>,
    /// Files of the validation split.
    pub(super) validation: Vec<InputFile>,
    /// Files that are left out, with the reason.
    pub(super) skipped: Vec<(InputFile, &'static str)>,
}

/// The use of a file, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HubSplit {
    Train,
    Validation,
    Test,
}

/// Sorts the files of `folder`. A folder has splits when some of its files are named for training and others for
/// validation or tests; files that are named for none belong to the training text.
pub(super) fn sort_splits(folder: &Path, files: Vec<InputFile>) -> SortedFiles {
    let mut sorted = SortedFiles::default();
    let has_records = files.iter().any(|file| file.format != FileFormat::Text && !is_description(file.path()));
    let (cards, files): (Vec<InputFile>, Vec<InputFile>) = files
        .into_iter()
        .partition(|file| is_description(file.path()) || (is_card(file.path()) && (has_records || has_header(file))));
    sorted.skipped.extend(cards.into_iter().map(|file| (file, "describes the data set")));
    let splits: Vec<Option<HubSplit>> = files.iter().map(|file| split_of(folder, file.path())).collect();
    let has = |split| splits.contains(&Some(split));
    let has_splits = has(HubSplit::Train) && (has(HubSplit::Validation) || has(HubSplit::Test));
    for (file, split) in files.into_iter().zip(splits) {
        match split.filter(|_| has_splits) {
            Some(HubSplit::Validation) => sorted.validation.push(file),
            Some(HubSplit::Test) => sorted.skipped.push((file, "belongs to the test split")),
            Some(HubSplit::Train) | None if has_splits && is_card(file.path()) => {
                sorted.skipped.push((file, "describes the data set"));
            }
            Some(HubSplit::Train) | None => sorted.train.push(file),
        }
    }
    sorted
}

/// The split of a file below `folder`: a word of its name, or the name of a folder above it, names it.
pub(crate) fn split_of(folder: &Path, path: &Path) -> Option<HubSplit> {
    let below = path.strip_prefix(folder).unwrap_or(path);
    let name = below.file_name()?.to_string_lossy().to_lowercase();
    let folders = below.parent().into_iter().flat_map(|parent| parent.iter());
    let folders = folders.map(|name| name.to_string_lossy().to_lowercase());
    let words = name.split(|character: char| !character.is_alphanumeric()).map(str::to_string);
    words.chain(folders).find_map(|word| match word.trim_end_matches(|character: char| character.is_ascii_digit()) {
        "train" | "training" => Some(HubSplit::Train),
        "validation" | "valid" | "val" | "dev" => Some(HubSplit::Validation),
        "test" | "testing" | "eval" | "evaluation" => Some(HubSplit::Test),
        _ => None,
    })
}

// Files that libraries write beside the data. They have no text.
fn is_description(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    ["dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "croissant.json"]
        .contains(&name.as_str())
}

fn is_card(path: &Path) -> bool {
    let name = path.file_stem().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default();
    let words = ["readme", "license", "licence", "citation", "dataset_card", "datasheet", "changelog"];
    words.contains(&name.as_str()) && ["", "md", "txt", "rst", "cff", "bib"].contains(&extension.as_str())
}

// The YAML header of a card.
fn has_header(file: &InputFile) -> bool {
    use std::io::Read;
    let mut start = [0; 4];
    let read = std::fs::File::open(file.path()).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && &start == b"---\n"
}
