//! What tests of training and evaluation share.

use std::ops::ControlFlow;
use std::path::Path;

use pgm_data::{DataFolder, Mode, Prepare, TextInputs, TextTokenizer, Validation, prepare};

/// The data folder `out` of a file: its bytes as tokens, in rows of `length`, with a fraction of the text held out.
pub fn byte_data(file: &Path, out: &Path, (length, mode): (usize, Mode), held_out: f64) -> DataFolder {
    let what = Prepare {
        inputs: &TextInputs::resolve(&[file.display().to_string()], "text", "--input").unwrap(),
        validation: &Validation::Fraction(held_out),
        tokenizer: &TextTokenizer::bytes(),
        length,
        mode,
        row_eos: false,
        out,
    };
    prepare(&what, &mut |_| ControlFlow::Continue(())).unwrap();
    DataFolder::open(out).unwrap()
}
