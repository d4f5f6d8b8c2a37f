//! The body of `POST /v1/images/edits`, as JSON or as a form.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};

use super::parse::{BodyError, RequestBody, parse};
use super::picture::PictureFields;

/// Fields of a form that are no texts.
const JSON_FIELDS: [&str; 14] = [
    "n",
    "partial_images",
    "cfg",
    "steps",
    "candidates",
    "entropy_bound",
    "remask_rate",
    "noise",
    "temperature",
    "top_p",
    "top_k",
    "refresh",
    "seed",
    "output_compression",
];

/// The body of `POST /v1/images/edits`. The comments of the fields are their descriptions in `/openapi.json`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = ImageEditRequest, description = "A picture and what of it is drawn again.")]
pub struct EditBody {
    #[serde(flatten)]
    #[schema(inline)]
    pub picture: PictureFields,
    /// The picture: PNG, JPEG or WebP in base64, or a data URL. Without mask, box and outpaint its transparent pixels are drawn
    /// again.
    #[schema(value_type = Option<String>)]
    image: Option<Value>,
    /// A picture of the same size. What is transparent in it is drawn again; if nothing is, what is white.
    #[schema(value_type = Option<String>)]
    mask: Option<Value>,
    #[serde(rename = "box")]
    #[schema(schema_with = box_schema)]
    rectangle: Option<[usize; 4]>,
    #[schema(schema_with = outpaint_schema)]
    outpaint: Option<[usize; 4]>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Map<String, Value>,
    // The files of a form.
    #[serde(skip)]
    #[schema(ignore)]
    image_file: Option<Vec<u8>>,
    #[serde(skip)]
    #[schema(ignore)]
    mask_file: Option<Vec<u8>>,
}

/// A field of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormField {
    /// Its name.
    pub name: String,
    /// Whether it is a file: it names one.
    pub is_file: bool,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// A picture, as a body has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upload<'a> {
    /// In base64, or as a data URL.
    Text(&'a str),
    /// The file.
    Bytes(&'a [u8]),
}

/// What of a picture is drawn again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditArea<'a> {
    /// Its transparent pixels.
    Transparent,
    /// What a mask marks.
    Mask(Upload<'a>),
    /// A rectangle: left, top, width, height.
    Box([usize; 4]),
    /// What is added at its left, top, right and bottom edge.
    Outpaint([usize; 4]),
}

fn numbers(description: &'static str) -> Schema {
    let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
    ArrayBuilder::new()
        .schema_type(SchemaType::Array(vec![Type::Array, Type::Null]))
        .items(number)
        .min_items(Some(4))
        .max_items(Some(4))
        .description(Some(description))
        .into()
}

fn box_schema() -> Schema {
    numbers("A rectangle that is drawn again: left, top, width and height in pixels.")
}

fn outpaint_schema() -> Schema {
    numbers("Continue the picture by so many pixels at its left, top, right and bottom edge.")
}

impl EditBody {
    /// The body of a form. [`RequestBody::check`] has yet to be called.
    ///
    /// # Errors
    /// As [`parse`], and when a field is given twice or is no text.
    pub fn from_form(form: Vec<FormField>) -> Result<Self, BodyError> {
        let (mut fields, mut classes) = (Map::new(), Vec::new());
        let (mut image, mut mask) = (None, None);
        for FormField { name, is_file, content } in form {
            // PHP's and OpenAI's form of a list.
            let name = name.strip_suffix("[]").unwrap_or(&name).to_string();
            let twice = |message: &str| Err(BodyError::field(name.clone(), format!("{name} {message}")));
            let file = match name.as_str() {
                "image" => Some(&mut image),
                "mask" => Some(&mut mask),
                _ => None,
            };
            // What a browser sends for a field that was left empty.
            if content.is_empty() && (file.is_some() || name == "class") {
                continue;
            }
            if let Some(file) = file {
                if file.is_some() || fields.contains_key(&name) {
                    return twice("is given twice; one picture is edited at a time");
                }
                if is_file || std::str::from_utf8(&content).is_err() {
                    *file = Some(content);
                    continue;
                }
            }
            let text = std::str::from_utf8(&content)
                .map_err(|_| BodyError::field(name.clone(), format!("{name} must be a text in UTF-8")))?;
            if name == "class" {
                classes.push(Value::from(text));
                continue;
            }
            if fields.insert(name.clone(), field_value(&name, text)).is_some() {
                return twice("is given twice");
            }
        }
        match classes.len() {
            0 => {}
            1 => _ = fields.insert("class".into(), classes.remove(0)),
            _ => _ = fields.insert("class".into(), Value::Array(classes)),
        }
        let read: Self = parse(Value::Object(fields).to_string().as_bytes())?;
        Ok(Self { image_file: image, mask_file: mask, ..read })
    }

    /// The picture.
    ///
    /// # Errors
    /// When it is missing, or no text.
    pub fn image(&self) -> Result<Upload<'_>, BodyError> {
        let image = upload("image", self.image_file.as_deref(), self.image.as_ref())?;
        image.ok_or_else(|| BodyError::field("image", "image is missing: the picture to edit"))
    }

    /// What is drawn again.
    ///
    /// # Errors
    /// When more than one of `mask`, `box` and `outpaint` is given, or the mask is no text.
    pub fn area(&self) -> Result<EditArea<'_>, BodyError> {
        let mask = upload("mask", self.mask_file.as_deref(), self.mask.as_ref())?;
        match (mask, self.rectangle, self.outpaint) {
            (None, None, None) => Ok(EditArea::Transparent),
            (Some(mask), None, None) => Ok(EditArea::Mask(mask)),
            (None, Some(rectangle), None) => Ok(EditArea::Box(rectangle)),
            (None, None, Some(edges)) => Ok(EditArea::Outpaint(edges)),
            (mask, ..) => {
                let field = if mask.is_some() { "mask" } else { "box" };
                Err(BodyError::field(field, "give one of mask, box and outpaint"))
            }
        }
    }
}

// A form has texts only: numbers and truth values are read as in JSON, `1,2,3,4` is a list, and an empty field is none.
fn field_value(name: &str, text: &str) -> Value {
    let text = text.trim();
    let read = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    match name {
        _ if text.is_empty() => Value::Null,
        "box" | "outpaint" if !text.starts_with('[') => read(&format!("[{text}]")),
        "box" | "outpaint" => read(text),
        "stream" | "roll" => read(&text.to_ascii_lowercase()),
        _ if JSON_FIELDS.contains(&name) => read(text),
        _ => Value::from(text),
    }
}

// The picture of a field: a file, a text, or OpenAI's object with an `image_url`; of a list, the only one.
fn upload<'a>(
    field: &'static str,
    file: Option<&'a [u8]>,
    value: Option<&'a Value>,
) -> Result<Option<Upload<'a>>, BodyError> {
    if let Some(bytes) = file {
        return Ok(Some(Upload::Bytes(bytes)));
    }
    let value = match value {
        Some(Value::Array(values)) if values.len() == 1 => values.first(),
        value => value,
    };
    let url = |object: &'a Map<String, Value>| match object.get("image_url") {
        Some(Value::Object(url)) => url.get("url"),
        url => url,
    };
    let text = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(object)) => url(object).and_then(Value::as_str),
        Some(value) => value.as_str(),
    };
    let text = text.ok_or_else(|| {
        let message = format!("{field} must be one picture in base64, or as a data URL");
        BodyError::field(field, message)
    })?;
    if text.starts_with("http:") || text.starts_with("https:") {
        let message = format!("{field} is an address, and the server fetches nothing: send the picture in base64");
        return Err(BodyError::field(field, message));
    }
    Ok(Some(Upload::Text(text)))
}

impl RequestBody for EditBody {
    fn check(&self) -> Result<(), BodyError> {
        self.picture.check(&self.unknown)?;
        self.image()?;
        self.area().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn form(fields: &[(&str, Option<&str>, &str)]) -> Result<EditBody, BodyError> {
        let field = |(name, file, content): &(&str, Option<&str>, &str)| FormField {
            name: (*name).to_string(),
            is_file: file.is_some(),
            content: content.as_bytes().to_vec(),
        };
        EditBody::from_form(fields.iter().map(field).collect())
    }

    #[test]
    fn a_form_is_read_as_the_json_of_its_fields() {
        let read = form(&[
            ("image[]", Some("a.png"), "PNG"),
            ("prompt", None, "cat"),
            ("n", None, "2"),
            ("seed", None, " 7 "),
            ("stream", None, "True"),
            ("partial_images", None, "3"),
            ("box", None, "1, 2,3,4"),
            ("size", None, ""),
        ]);
        let read = read.unwrap();
        assert!(read.check().is_ok());
        assert_eq!((read.image().unwrap(), read.area().unwrap()), (Upload::Bytes(b"PNG"), EditArea::Box([1, 2, 3, 4])));
        let picture = &read.picture;
        assert_eq!((picture.n_pictures(), picture.seed(), picture.n_partial()), (2, Some(7), 3));
        assert_eq!((picture.stream, picture.size.as_deref()), (Some(true), None));
        // As browsers send a form whose fields were left empty.
        let empty = form(&[
            ("image", Some("a.png"), "PNG"),
            ("mask", Some(""), ""),
            ("class", None, ""),
            ("prompt", None, "cat"),
            ("box", None, "1,2,3,4"),
        ]);
        let empty = empty.unwrap();
        assert!(empty.check().is_ok() && empty.picture.class_field() == "prompt");
        assert_eq!(empty.area().unwrap(), EditArea::Box([1, 2, 3, 4]));
        let two =
            form(&[("image", None, "UE5H"), ("class", None, "cat"), ("class", None, "1"), ("mask", Some("m"), "M")]);
        let two = two.unwrap();
        assert_eq!((two.picture.n_pictures(), two.image().unwrap()), (2, Upload::Text("UE5H")));
        assert_eq!(two.area().unwrap(), EditArea::Mask(Upload::Bytes(b"M")));
        for (text, refresh) in [("8", Some("8")), ("8.0", Some("8")), ("inf", Some("inf")), ("", None)] {
            let read = form(&[("image", Some("a"), "x"), ("refresh", None, text)]).unwrap();
            assert!(read.check().is_ok() && read.picture.refresh().unwrap().as_deref() == refresh, "{text}");
        }
        for (fields, field) in [
            (&[("image", Some("a"), "x"), ("image", Some("b"), "y")][..], "image"),
            (&[("n", None, "1"), ("n", None, "2")], "n"),
            (&[("n", None, "two")], "n"),
            (&[("box", None, "1,2,3")], "box"),
            (&[("outpaint", None, "1,2,x,3")], "outpaint"),
        ] {
            assert_eq!(form(fields).unwrap_err().field.as_deref(), Some(field), "{fields:?}");
        }
    }

    #[test]
    fn json_has_a_picture_and_at_most_one_area() {
        let body = |json: &Value| parse::<EditBody>(json.to_string().as_bytes()).unwrap();
        for image in
            [json!("UE5H"), json!(["UE5H"]), json!({"image_url": "UE5H"}), json!([{"image_url": {"url": "UE5H"}}])]
        {
            let body = body(&json!({"image": image, "outpaint": [0, 0, 4, 0]}));
            assert!(body.check().is_ok());
            assert_eq!(body.image().unwrap(), Upload::Text("UE5H"));
            assert_eq!(body.area().unwrap(), EditArea::Outpaint([0, 0, 4, 0]));
        }
        assert_eq!(body(&json!({"image": "a"})).area().unwrap(), EditArea::Transparent);
        for (json, field) in [
            (json!({"prompt": "x"}), "image"),
            (json!({"image": 7}), "image"),
            (json!({"image": ["a", "b"]}), "image"),
            (json!({"image": {"file_id": "f"}}), "image"),
            (json!({"image": "https://example.org/a.png"}), "image"),
            (json!({"image": "a", "mask": true}), "mask"),
            (json!({"image": "a", "mask": "m", "box": [1, 2, 3, 4]}), "mask"),
            (json!({"image": "a", "box": [1, 2, 3, 4], "outpaint": [1, 2, 3, 4]}), "box"),
            (json!({"image": "a", "template": "x"}), "template"),
            (json!({"image": "a", "as_published": true}), "as_published"),
        ] {
            assert_eq!(body(&json).check().unwrap_err().field.as_deref(), Some(field), "{json}");
        }
        let error = parse::<EditBody>(json!({"image": "a", "box": [1, 2]}).to_string().as_bytes()).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("box"));
    }
}
