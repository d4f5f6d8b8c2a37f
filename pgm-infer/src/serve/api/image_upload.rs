//! From the body of an edit to a picture and what of it is drawn again.

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use crate::InferError;
use crate::picture::{Edit, EditRun, ImageModel, Picture, PixelBox, Region};
use crate::serve::body::{EditArea, EditBody, Upload};
use crate::serve::error::ApiError;
use crate::serve::state::Limits;

// With or without `=` at the end.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The edit that a body asks for, and in how many windows it is drawn.
///
/// # Errors
/// Names the field that cannot be met.
pub fn edit_of(body: &EditBody, model: &ImageModel, limits: &Limits) -> Result<(Arc<Edit>, usize), ApiError> {
    let (width, height, channels) = model.codec().shape();
    let bytes = file_of("image", body.image()?)?;
    let picture = Picture::from_bytes_within(&bytes, channels, limits.max_pixels)
        .map_err(|problem| ApiError::field("image", format!("the image: {problem}")))?;
    let refused = |field| move |error: InferError| ApiError::from(error).about(field);
    let edit = match body.area()? {
        EditArea::Transparent => {
            let region = Region::of_transparency(&bytes).map_err(refused("image"))?;
            let region = region.ok_or_else(|| {
                let message = "nothing says what is drawn again: give mask, box or outpaint, or an image with transparent \
                               pixels";
                ApiError::field("mask", message)
            })?;
            Edit::inpaint(picture, region).map_err(refused("image"))?
        }
        EditArea::Mask(mask) => {
            let mask = file_of("mask", mask)?;
            let region = Region::of_mask(&picture, &mask, "of the request").map_err(refused("mask"))?;
            Edit::inpaint(picture, region).map_err(refused("mask"))?
        }
        EditArea::Box([x, y, width, height]) => {
            let region = Region::of_box(&picture, PixelBox { x, y, width, height }).map_err(refused("box"))?;
            Edit::inpaint(picture, region).map_err(refused("box"))?
        }
        EditArea::Outpaint(edges) => {
            let [left, top, right, bottom] = edges;
            let across = left.saturating_add(picture.width()).saturating_add(right);
            let down = top.saturating_add(picture.height()).saturating_add(bottom);
            if across.saturating_mul(down) > limits.max_pixels {
                let most = limits.max_pixels;
                let message =
                    format!("outpaint makes a picture of {across} x {down} pixels; it may have {most} in all");
                return Err(ApiError::field("outpaint", message));
            }
            Edit::outpaint(&picture, edges).map_err(refused("outpaint"))?
        }
    };
    // A picture that is smaller than the model's has no window.
    let edit = Arc::new(edit);
    EditRun::new(model, Arc::clone(&edit), None, 0).map_err(refused("image"))?;
    let most = limits.max_windows;
    let n_windows = edit.n_windows(width, height, most.saturating_add(1));
    if n_windows > most {
        let message = format!(
            "what is drawn again takes more than {most} windows of the model's {width} x {height} pixels; make it smaller, or \
             make the picture smaller"
        );
        return Err(ApiError::field("image", message));
    }
    Ok((edit, n_windows))
}

fn file_of<'a>(field: &'static str, upload: Upload<'a>) -> Result<std::borrow::Cow<'a, [u8]>, ApiError> {
    let text = match upload {
        Upload::Bytes(bytes) => return Ok(bytes.into()),
        Upload::Text(text) => text.trim(),
    };
    let wrong =
        |problem: String| ApiError::field(field, format!("{field} is neither base64 nor a data URL: {problem}"));
    let code = match text.strip_prefix("data:") {
        Some(url) => {
            let (kind, code) = url.split_once(',').ok_or_else(|| wrong("the URL has no comma".into()))?;
            if !kind.to_ascii_lowercase().ends_with(";base64") {
                return Err(wrong("the URL does not say ;base64".into()));
            }
            code
        }
        None => text,
    };
    // Some programs break lines.
    let code: Vec<u8> = code.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    Ok(BASE64.decode(code).map_err(|error| wrong(error.to_string()))?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_with_lines_without_padding_and_in_a_data_url() {
        let read = |text: &str| file_of("image", Upload::Text(text)).map(|bytes| bytes.to_vec());
        for text in ["UE5HIQ==", "UE5HIQ", "UE5H\r\nIQ==\n", "data:image/png;base64,UE5HIQ==", "data:;base64,UE5HIQ"] {
            assert_eq!(read(text).unwrap(), b"PNG!", "{text}");
        }
        for text in ["UE5H?", "data:image/png,UE5H", "data:image/png;base64", "a b c d e"] {
            let error = read(text).unwrap_err();
            assert!(error.param.as_deref() == Some("image") && error.message.contains("neither base64"), "{text}");
        }
        assert_eq!(*file_of("image", Upload::Bytes(b"\x89")).unwrap(), *b"\x89");
    }
}
