//! Pictures that a model draws to be scored.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use pgm_infer::picture::{CodecFolder, PictureCodec};
use pgm_infer::sample::sample;
use pgm_infer::{ImageModel, SampleRequest, SampleSettings, SamplingPath};
use pgm_model::model_folder::{WEIGHTS_FILE, load_config, resolve};
use serde_json::{Value, json};

use super::picture::Picture;
use crate::TrainError;
use crate::eval::ResultLog;
use crate::eval::model::kind;
use crate::files::fingerprint;
use crate::judge::{Observe, report_progress};

/// Pictures that are decoded at a time.
const BATCH: usize = 16;

/// Settings of [`SampledPictures::draw`]. Picture `i` depends on its class and the seed `seed + i` only, not on its batch.
#[derive(Clone, Debug)]
pub struct ImageSampleSettings {
    /// Number of pictures. Picture `i` is of class `i` modulo the number of classes, so that all have equally many.
    pub samples: usize,
    /// How they are sampled.
    pub sampling: SampleSettings,
    /// Seed of the first picture.
    pub seed: u64,
    /// Pictures of a batch.
    pub batch: usize,
}

impl ImageSampleSettings {
    /// Identifies the pictures in a [`ResultLog`]; `model` identifies the model.
    pub fn identity(&self, model: &Value) -> Value {
        // A setting that is younger than logs of before stands in it only where it is used.
        let sampling = format!("{:?}", self.sampling).replace(", as_published: None", "");
        json!({ "eval": "images", "subject": model, "samples": self.samples, "sampling": sampling, "seed": self.seed })
    }
}

/// Opens a model folder or one of a training run, with the codec that makes pictures of its codes; and identifies it in
/// results: its kind, the checksum of its weights, the codec's hash.
///
/// # Errors
/// Names the file that cannot be used; and when the codec is missing or another one.
pub fn open_image_model(
    folder: &Path,
    codec: Option<&Path>,
    device: &Device,
) -> Result<(ImageModel, Value), TrainError> {
    let folder = resolve(folder)?;
    let codec = codec.map(Path::to_path_buf).or_else(|| CodecFolder::within(&folder));
    let opened = codec.map(|path| CodecFolder::open(&path, device)).transpose()?;
    let hash = opened.as_ref().map(|codec| codec.hash().to_string());
    let codec = match opened {
        Some(codec) => Some(Arc::new(codec.for_model(&load_config(&folder)?)?) as Arc<dyn PictureCodec>),
        None => None,
    };
    let model = ImageModel::load(&folder, codec, device)?;
    let weights = folder.join(WEIGHTS_FILE);
    let (_, crc32) = fingerprint(&weights).map_err(|error| TrainError::file("read", &weights, error))?;
    let identity = json!({ "model": kind(model.config()), "weights_crc32": format!("{crc32:08x}"), "codec": hash });
    Ok((model, identity))
}

/// The size and the checksum of a file of weights.
///
/// # Errors
/// Names the file that cannot be read.
pub fn weights_identity(path: &Path) -> Result<String, TrainError> {
    let (size, crc32) = fingerprint(path).map_err(|error| TrainError::file("read", path, error))?;
    Ok(format!("{size} bytes, {crc32:08x}"))
}

/// The pictures of a model, kept as tokens and decoded when they are needed.
#[derive(Debug)]
pub struct SampledPictures {
    model: ImageModel,
    cells: Vec<Vec<u32>>,
}

impl SampledPictures {
    /// Draws them. The tokens so far are in the log.
    ///
    /// # Errors
    /// [`TrainError::Config`] for no picture or an empty batch, and the sampler's errors; [`TrainError::Stopped`] when `observe`
    /// breaks.
    pub fn draw(
        model: ImageModel,
        settings: &ImageSampleSettings,
        mut log: ResultLog<Vec<u32>>,
        observe: &mut Observe,
    ) -> Result<Self, TrainError> {
        if settings.samples == 0 || settings.batch == 0 {
            let problem = "-n and --sample-batch must be at least 1".to_string();
            return Err(TrainError::Config { origin: "eval images".to_string(), problem });
        }
        let denoiser = model.denoiser(SamplingPath::Clean);
        while log.done().len() < settings.samples {
            let n_done = log.done().len();
            report_progress(observe, n_done, settings.samples)?;
            let indices = n_done..settings.samples.min(n_done + settings.batch);
            let requests: Vec<SampleRequest> = indices
                .map(|index| model.request(class_of(&model, index), settings.seed.wrapping_add(index as u64)))
                .collect();
            let mut stopped = false;
            let outcome = sample(denoiser.as_ref(), &requests, &settings.sampling, &mut |_| {
                stopped = observe(n_done, settings.samples).is_break();
                if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if stopped {
                return Err(TrainError::Stopped);
            }
            outcome.rows.iter().try_for_each(|row| log.push(model.cells(row).to_vec()))?;
        }
        report_progress(observe, settings.samples, settings.samples)?;
        drop(denoiser);
        Ok(Self { model, cells: log.into_done() })
    }

    /// Number of pictures.
    #[allow(clippy::len_without_is_empty)] // at least one is drawn
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// The class of every picture; none for a model without classes.
    pub fn classes(&self) -> Option<Vec<u32>> {
        (0..self.cells.len()).map(|index| class_of(&self.model, index).map(|class| class as u32)).collect()
    }

    /// Calls `visit` with the pictures from number `start` on, until it fails.
    ///
    /// # Errors
    /// Those of the codec, and whatever `visit` returns.
    pub fn visit(
        &self,
        start: usize,
        visit: &mut dyn FnMut(Picture) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        for part in self.cells[start.min(self.cells.len())..].chunks(BATCH) {
            let rows: Vec<&[u32]> = part.iter().map(Vec::as_slice).collect();
            for picture in self.model.codec().decode(&rows)? {
                let (width, height) = (picture.width(), picture.height());
                let picture = Picture::of_channels(height, width, picture.pixels())
                    .ok_or_else(|| TrainError::judge("a sample", "has no pixels"))?;
                visit(picture)?;
            }
        }
        Ok(())
    }
}

fn class_of(model: &ImageModel, index: usize) -> Option<usize> {
    let n_classes = model.image().n_classes;
    (n_classes > 0).then(|| index % n_classes)
}

#[cfg(test)]
mod tests {
    use pgm_infer::GenerationConfig;
    use pgm_model::{BackboneConfig, ImageConfig, ModelConfig, Network, PartitionConfig};

    use super::*;

    // Pictures of 4 x 4 pixels, which are the tokens: no codec.
    fn config() -> ModelConfig {
        let image = ImageConfig { registers: 2, ..ImageConfig::new(3, [4, 4]) };
        ModelConfig::Partition(PartitionConfig {
            backbone: BackboneConfig::for_codes(8, 16, 2, image),
            encoder_blocks: 1,
            decoder_blocks: 1,
            queries: Default::default(),
            projection: Default::default(),
            sets: Default::default(),
        })
    }

    fn draw(network: &Network, path: Option<&Path>, stop_at: Option<usize>) -> Result<SampledPictures, TrainError> {
        let device = Device::flex();
        let model = ImageModel::new(config(), network.clone(), GenerationConfig::default(), None, &device).unwrap();
        let sampling = SampleSettings { steps: 4, ..SampleSettings::for_images(&GenerationConfig::default()) };
        let settings = ImageSampleSettings { samples: 7, sampling, seed: 5, batch: 3 };
        let log = ResultLog::open(path, &settings.identity(&json!("a model"))).unwrap();
        SampledPictures::draw(model, &settings, log, &mut |done, _| match stop_at {
            Some(n) if done >= n => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
    }

    #[test]
    fn a_stopped_draw_continues_to_the_same_pictures_of_equally_many_classes() {
        let device = Device::flex();
        device.seed(3);
        let network = Network::new(&config(), &device);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("progress");
        let unbroken = draw(&network, None, None).unwrap();
        assert!(matches!(draw(&network, Some(&path), Some(3)), Err(TrainError::Stopped)));
        let log = std::fs::read_to_string(&path).unwrap();
        assert_eq!(log.lines().count(), 1 + 3, "the first batch is kept");
        let resumed = draw(&network, Some(&path), None).unwrap();
        assert_eq!(resumed.cells, unbroken.cells);
        assert_eq!(resumed.classes(), Some(vec![0, 1, 2, 0, 1, 2, 0]));
        let mut shown = Vec::new();
        let mut collect = |picture: Picture| {
            shown.push(picture);
            Ok(())
        };
        resumed.visit(0, &mut collect).unwrap();
        resumed.visit(5, &mut collect).unwrap();
        assert_eq!((shown.len(), &shown[7..]), (9, &shown[5..7]));
        assert_eq!((shown[0].height(), shown[0].width()), (4, 4));
    }
}
