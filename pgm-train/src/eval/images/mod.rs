//! Scores of pictures: FID, KID, Inception Score, precision and recall, MIND.
//!
//! A score compares features of generated pictures with features of reference pictures. [`Inception`] has the features of
//! the published scores; its weights are a file that the caller names. Scores of other features must be named after them:
//! that of a [`Classifier`] trained on the user's own labelled pictures, which needs no download, is "FD-own", never "FID". The
//! classifier's labels give the agreement of samples with the classes that they were asked for.
//!
//! The network runs in float32, everything after it in float64.

mod classifier;
mod distances;
pub mod inception;
mod inception_score;
mod kid;
mod mind;
mod npz;
mod own;
mod picture;
mod pictures;
mod precision_recall;
mod resize;
mod samples;
mod saved_classifier;
mod score;
mod statistics;

pub use classifier::{Classified, Classifier, ClassifierOptions, ClassifierProgress};
pub use inception::{FeatureLayer, Inception, InceptionOutput};
pub use inception_score::{SplitScore, inception_score};
pub use kid::{KidSettings, SubsetScore, kid, kid_of_all};
pub use mind::mind;
pub use npz::{NpzPictures, read_statistics, write_statistics};
pub use own::{OwnScores, own_scores};
pub use picture::Picture;
pub use pictures::PictureSource;
pub use precision_recall::{PrecisionRecall, precision_recall};
pub use resize::{INPUT_SIZE, Preprocessing};
pub use samples::{ImageSampleSettings, SampledPictures, open_image_model, weights_identity};
pub use saved_classifier::SavedClassifier;
pub use score::{FeatureBatch, ImageScores, PictureFeatures, ScoreSettings, score, scores_against_statistics};
pub use statistics::{FeatureSet, FeatureStatistics, frechet_distance};
