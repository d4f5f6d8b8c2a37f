//! Measures of pictures that need no downloaded weights.
//!
//! A small classifier is trained on the user's own labelled pictures. Its features give a Frechet distance, which is called
//! FD-own and never FID, because FID is a number of one published network. Its labels give the agreement of samples with
//! the classes that they were asked for.

mod classifier;
mod frechet;

pub use classifier::{Classified, Classifier, ClassifierOptions, ClassifierProgress};
pub use frechet::{FeatureMoments, frechet_distance};
