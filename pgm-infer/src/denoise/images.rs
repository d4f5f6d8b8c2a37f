//! What a denoiser knows of a model of image codes: its classes, and the tokens that no cell holds.

use pgm_model::ModelConfig;

use crate::InferError;
use crate::sample::SampleRequest;

/// The tokens that are never drawn, and how many classes may be asked for.
#[derive(Clone, Debug)]
pub(super) struct Drawable {
    pub(super) excluded: Vec<usize>,
    n_classes: usize,
}

impl Drawable {
    /// Of a text model: the mask is never drawn.
    pub(super) fn without(mask_index: usize) -> Self {
        Self { excluded: vec![mask_index], n_classes: 0 }
    }

    /// Of any model. In a model of image codes neither the mask nor BOS is ever drawn: the codes stand first in the vocabulary.
    pub(super) fn new(config: &ModelConfig) -> Self {
        let backbone = config.backbone();
        match config.image() {
            Some(image) => {
                Self { excluded: (backbone.mask_index..backbone.vocab_size).collect(), n_classes: image.n_classes }
            }
            None => Self::without(backbone.mask_index),
        }
    }

    /// Refuses a class that the model does not have.
    pub(super) fn check(&self, request: &SampleRequest) -> Result<(), InferError> {
        match request.class {
            Some(class) if self.n_classes == 0 => {
                Err(InferError::Request(format!("class {class} is asked for, but this model has no classes")))
            }
            Some(class) if class >= self.n_classes => {
                let last = self.n_classes - 1;
                Err(InferError::Request(format!("class {class} does not exist; the model's classes are 0 to {last}")))
            }
            _ => Ok(()),
        }
    }
}
