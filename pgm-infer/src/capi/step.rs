//! A step of a sample: the struct that a callback receives.

use std::ffi::{CString, c_char};

use crate::TextModel;
use crate::sample::RowChange;
use crate::text::TextRow;
use crate::text::canvas::{Canvas, Segment};

/// What a stretch of a text is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PgmSegmentKind {
    /// Given from the start.
    Given = 0,
    /// Decoded by an earlier step.
    Decoded = 1,
    /// Decoded by this step.
    New = 2,
    /// Still open, or masked again.
    Open = 3,
}

/// A stretch of a text.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PgmSegment {
    /// What it is.
    pub kind: PgmSegmentKind,
    /// Its text; empty for an open one.
    pub text: *const c_char,
    /// Number of open tokens; 0 for any other.
    pub n_open: usize,
}

/// A step of a sample. Later versions add fields at the end.
#[repr(C)]
#[derive(Debug)]
pub struct PgmStep {
    /// The sample's number within the task.
    pub index: usize,
    /// Steps done.
    pub step: usize,
    /// Steps in all; some orders need fewer.
    pub n_steps: usize,
    /// Number of tokens that the step decoded.
    pub n_decoded: usize,
    /// Their positions.
    pub positions: *const usize,
    /// The tokens.
    pub tokens: *const u32,
    /// Number of positions that the step masked again before it decoded; only the order "remask" does.
    pub n_forgotten: usize,
    /// These positions.
    pub forgotten: *const usize,
    /// The text of each decoded token by itself. Bytes that are no whole character show as U+FFFD; see `segments`.
    pub texts: *const *const c_char,
    /// Number of stretches of the text.
    pub n_segments: usize,
    /// The whole text after the step, in stretches.
    pub segments: *const PgmSegment,
}

/// The texts of a task's samples while they are decoded.
pub(super) struct StepTexts {
    canvases: Vec<Canvas>,
}

impl StepTexts {
    /// The texts of `n` samples of a row before the first step.
    pub(super) fn new(row: &TextRow, n: usize) -> Self {
        Self { canvases: vec![Canvas::of_row(row); n] }
    }

    /// Applies a step to a sample, and calls `callback` with it.
    pub(super) fn tell(
        &mut self,
        index: usize,
        (step, n_steps): (usize, usize),
        change: &RowChange,
        model: &TextModel,
        callback: impl FnOnce(&PgmStep) -> i32,
    ) -> i32 {
        let canvas = &mut self.canvases[index];
        canvas.apply(change);
        let (positions, tokens): (Vec<usize>, Vec<u32>) = change.decoded.iter().copied().unzip();
        let text = |&token: &u32| c_text(&model.decode_with_special(&[token]).unwrap_or_default());
        let owned: Vec<CString> = tokens.iter().map(text).collect();
        let texts: Vec<*const c_char> = owned.iter().map(|text| text.as_ptr()).collect();
        let stretches: Vec<(PgmSegmentKind, CString, usize)> = canvas.segments(model).iter().map(stretch).collect();
        let segment = |(kind, text, n_open): &(PgmSegmentKind, CString, usize)| PgmSegment {
            kind: *kind,
            text: text.as_ptr(),
            n_open: *n_open,
        };
        let segments: Vec<PgmSegment> = stretches.iter().map(segment).collect();
        callback(&PgmStep {
            index,
            step,
            n_steps,
            n_decoded: positions.len(),
            positions: positions.as_ptr(),
            tokens: tokens.as_ptr(),
            n_forgotten: change.forgotten.len(),
            forgotten: change.forgotten.as_ptr(),
            texts: texts.as_ptr(),
            n_segments: segments.len(),
            segments: segments.as_ptr(),
        })
    }
}

fn stretch(segment: &Segment) -> (PgmSegmentKind, CString, usize) {
    match segment {
        Segment::Given { text } => (PgmSegmentKind::Given, c_text(text), 0),
        Segment::Decoded { text } => (PgmSegmentKind::Decoded, c_text(text), 0),
        Segment::New { text } => (PgmSegmentKind::New, c_text(text), 0),
        Segment::Open { n } => (PgmSegmentKind::Open, CString::default(), *n),
    }
}

/// A text for C, in which U+FFFD stands for NUL.
pub(super) fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}
