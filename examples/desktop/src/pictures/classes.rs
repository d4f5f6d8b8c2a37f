//! A list of classes as text: names or numbers with commas between them, `all`, or nothing for no class in particular.

use pgm_infer::ImageModel;

use crate::settings::sentence;

const ALL: &str = "all";

/// The classes that a text names, each once; no class for an empty text.
///
/// # Errors
/// One sentence that names the class that does not exist.
pub fn parse(text: &str, model: &ImageModel) -> Result<Vec<Option<usize>>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(vec![None]);
    }
    // The name of a class may be "all", or have a comma.
    if let Some(class) = model.image().class_of(text) {
        return Ok(vec![Some(class)]);
    }
    if text == ALL && model.image().n_classes > 0 {
        return Ok((0..model.image().n_classes).map(Some).collect());
    }
    let mut classes = Vec::new();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let class = model.class(name).map(Some).map_err(|error| sentence(&error.to_string()))?;
        if !classes.contains(&class) {
            classes.push(class);
        }
    }
    // Nothing but commas names no class.
    Ok(if classes.is_empty() { vec![None] } else { classes })
}

/// The one class that a text names, or none.
///
/// # Errors
/// As [`parse`], and for several classes.
pub fn parse_one(text: &str, model: &ImageModel) -> Result<Option<usize>, String> {
    match parse(text, model)?[..] {
        [class] => Ok(class),
        _ => Err("A picture is refilled as one class; choose one, or none.".into()),
    }
}

/// The text that names these classes.
pub fn format(classes: &[usize], model: &ImageModel) -> String {
    let n_classes = model.image().n_classes;
    if n_classes > 1 && classes.len() == n_classes && model.image().class_of(ALL).is_none() {
        return ALL.into();
    }
    classes.iter().map(|&class| name(class, model)).collect::<Vec<_>>().join(", ")
}

/// The text that names a class: its name where that is clear, else its number.
pub fn name(class: usize, model: &ImageModel) -> String {
    let (image, name) = (model.image(), model.image().class_name(class));
    let is_clear = image.class_of(&name) == Some(class) && name.trim() == name && !name.contains(',') && name != ALL;
    if is_clear { name } else { class.to_string() }
}

/// The text with a class added, or left out if it was there.
pub fn toggled(text: &str, class: usize, model: &ImageModel) -> String {
    let mut classes: Vec<usize> = parse(text, model).unwrap_or_default().into_iter().flatten().collect();
    match classes.iter().position(|&known| known == class) {
        Some(index) => {
            classes.remove(index);
        }
        None => classes.push(class),
    }
    classes.sort_unstable();
    format(&classes, model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pictures::tiny::tiny;

    #[test]
    fn names_numbers_all_and_nothing_are_lists_of_classes() {
        let model = tiny(["cat", "dog, small", "all"]);
        let parsed = |text: &str| parse(text, &model);
        assert_eq!(parsed(" "), Ok(vec![None]));
        assert_eq!(parsed(",,"), Ok(vec![None]));
        assert_eq!(parsed("cat, 1,, 0"), Ok(vec![Some(0), Some(1)]));
        assert_eq!(parsed("dog, small"), Ok(vec![Some(1)]));
        assert_eq!(parsed("all"), Ok(vec![Some(2)]), "a class of that name");
        assert!(parsed("cat, cow").unwrap_err().contains("\"cow\" does not exist"));
        assert_eq!(parse_one("1", &model), Ok(Some(1)));
        assert!(parse_one("cat,1", &model).unwrap_err().contains("one class"));
        // What is written is read as the same classes.
        for classes in [vec![0], vec![1], vec![2], vec![0, 1, 2]] {
            let expected: Vec<Option<usize>> = classes.iter().copied().map(Some).collect();
            assert_eq!(parsed(&format(&classes, &model)), Ok(expected));
        }
        let model = tiny(["a", "b", "c"]);
        assert_eq!(parse("all", &model).unwrap().len(), 3);
        assert_eq!(toggled("a, c", 1, &model), "all");
        assert_eq!((toggled("all", 1, &model), toggled("b", 1, &model)), ("a, c".into(), String::new()));
    }
}
