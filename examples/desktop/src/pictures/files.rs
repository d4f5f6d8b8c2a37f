//! Names of files, and the sheet of a grid.

use std::path::{Path, PathBuf};

use pgm_infer::Picture;
use pgm_infer::picture::{SheetRow, contact_sheet};

use super::drawing::Drawing;

/// The complete pictures of a grid in one, a line for each class; none without a complete picture.
pub fn sheet(grid: &[Drawing]) -> Option<Picture> {
    let mut rows: Vec<SheetRow> = Vec::new();
    for drawing in grid.iter().filter(|drawing| drawing.is_complete()) {
        let picture = drawing.shown.picture.clone();
        match rows.last_mut() {
            Some(row) if row.label == drawing.name => row.pictures.push(picture),
            _ => rows.push(SheetRow { label: drawing.name.clone(), pictures: vec![picture] }),
        }
    }
    (!rows.is_empty()).then(|| contact_sheet(&rows))
}

/// A file's name for a picture: letters and digits of its name, and its seed.
pub fn file_name(name: &str, seed: Option<u64>) -> String {
    let plain = |letter: char| if letter.is_alphanumeric() { letter } else { '-' };
    let name: String = name.trim().chars().take(40).map(plain).collect();
    let name = if name.trim_matches('-').is_empty() { "picture" } else { name.trim_matches('-') };
    seed.map_or_else(|| format!("{name}.png"), |seed| format!("{name}-{seed}.png"))
}

/// The path of a new file in a folder: the name, or the name with the first free number behind it.
pub fn free_path(folder: &Path, name: &str) -> PathBuf {
    let stem = name.strip_suffix(".png").unwrap_or(name);
    let numbered = (2..).map(|number| folder.join(format!("{stem}-{number}.png")));
    let mut paths = std::iter::once(folder.join(format!("{stem}.png"))).chain(numbered);
    paths.find(|path| !path.exists()).unwrap_or_else(|| folder.join(name))
}

/// The path that was chosen, as a PNG: without an ending it gets one, and then it is a new file.
pub fn png_path(chosen: PathBuf) -> PathBuf {
    match (chosen.extension(), chosen.parent(), chosen.file_name()) {
        (None, Some(folder), Some(name)) => free_path(folder, &name.to_string_lossy()),
        _ => chosen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pictures::drawing::Shown;

    #[test]
    fn a_sheet_has_the_complete_pictures() {
        let drawing = |name: &str, shown| Drawing {
            name: name.into(),
            class: name.into(),
            seed: None,
            shown,
            before: Vec::new(),
        };
        let picture = || Shown::complete(Picture::filled(64, 64, &[9]));
        assert_eq!(sheet(&[drawing("a", Shown::blank((64, 64, 1)))]), None);
        let one = sheet(&[drawing("a", picture())]).unwrap();
        let two = sheet(&[drawing("a", picture()), drawing("a", Shown::blank((64, 64, 1))), drawing("b", picture())]);
        assert!(two.unwrap().height() > one.height());
    }

    #[test]
    fn a_new_file_never_replaces_another() {
        assert_eq!(file_name("a dog/é", Some(4)), "a-dog-é-4.png");
        assert_eq!((file_name("", None), file_name("../", Some(1))), ("picture.png".into(), "picture-1.png".into()));
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert_eq!(free_path(folder.path(), "cat.png"), at("cat.png"));
        std::fs::write(at("cat.png"), b"").unwrap();
        assert_eq!(free_path(folder.path(), "cat.png"), at("cat-2.png"));
        assert_eq!(png_path(at("cat")), at("cat-2.png"));
        assert_eq!(png_path(at("cat.png")), at("cat.png"), "the dialog has asked");
    }
}
