//! Training of a codec: it learns, a resumed run equals the unbroken one, and what cannot be is refused.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};
use burn::train::Interrupter;
use pgm_data::{CodecIdentity, DataFolder, ImageFolderWriter, ImageInfo, PixelShape, Split};
use pgm_model::codec::Codec;
use pgm_train::codec::{CodecLine, FitCodec, FitCodecResult, bytes_of_pixels, fit_codec, pixels_of_bytes, psnr};
use pgm_train::eval::images::{Classifier, ClassifierOptions};
use pgm_train::history::{Line, read_lines};
use pgm_train::{CodecTrainConfig, TrainError, TrainEvent};

const TOML: &str = "
steps = 12
batch = 6
accumulate = 2
seed = 3
log_every = 5
validate_every = 4
validate_rows = 7
checkpoint_every = 3
[codec]
widths = [4, 6]
levels = [5, 4]
[optim]
lr = 1e-2
warmup = 2
ema = 0.9
";
const SHAPE: PixelShape = PixelShape { height: 8, width: 12, channels: 3 };

// Weights are drawn from the device's generator, which the whole process shares.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

// Pictures of one bright rectangle each.
fn pixels(out: &Path, shape: PixelShape, flip: bool) {
    let mut writer = ImageFolderWriter::create(out, ImageInfo::of_pixels(shape, Vec::new())).unwrap();
    for index in 0..40_usize {
        let (top, left) = (index % 5, index * 7 % 6);
        let mut picture = vec![20_u8; shape.len()];
        for y in top..top + 3 {
            for x in left..left + 5 {
                let x = if flip { shape.width - 1 - x } else { x };
                let at = (y * shape.width + x) * shape.channels;
                picture[at..at + shape.channels].fill(200 + index as u8);
            }
        }
        let split = if index < 30 { Split::Train } else { Split::Validation };
        writer.push_pixels(split, &picture, None).unwrap();
    }
    writer.finish().unwrap();
}

/// Runs, stopping after `stop_at` steps.
fn run(
    folder: &Path,
    out: &str,
    settings: &[&str],
    resume: bool,
    stop_at: Option<usize>,
) -> Result<FitCodecResult, TrainError> {
    let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_string()).collect();
    // Levels belong to the other quantizer.
    let is_vq = settings.iter().any(|setting| setting.ends_with("vq"));
    let toml = if is_vq { TOML.replace("levels = [5, 4]\n", "") } else { TOML.to_string() };
    let config = CodecTrainConfig::parse(&toml, "test", &settings)?;
    let interrupter = Interrupter::new();
    let stop = interrupter.clone();
    fit_codec(FitCodec {
        config: &config,
        data: &folder.join("data"),
        out: &folder.join(out),
        resume,
        device: &Device::flex(),
        interrupter,
        observe: Arc::new(move |event| {
            if let TrainEvent::Trained { line, .. } = event
                && Some(line.step) == stop_at
            {
                stop.stop(None);
            }
        }),
    })
}

/// The lines of a run without times.
fn lines(folder: &Path, out: &str) -> Vec<String> {
    let exact = |line: Line<CodecLine>| match line {
        Line::Train(line) => format!("{} {} {} {}", line.step, line.train_loss, line.lr, line.grad_norm),
        Line::Validation(line) => format!("{line:?}"),
    };
    read_lines(&folder.join(out)).unwrap().into_iter().map(exact).collect()
}

fn weights(folder: &Path, out: &str) -> Vec<u8> {
    std::fs::read(folder.join(out).join("codec/model.safetensors")).unwrap()
}

#[test]
fn a_resumed_codec_equals_the_unbroken_one_to_the_last_digit() {
    let _alone = alone();
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    pixels(&folder.join("data"), SHAPE, false);
    let vq = ["codec.quantizer=vq", "codec.codes=16", "loss=l2"];
    for (quantizer, settings) in [("fsq", &[][..]), ("vq", &vq[..])] {
        let settings: Vec<&str> = settings.iter().copied().chain(["log_every=1"]).collect();
        let run = |out: &str, resume, stop_at| run(folder, out, &settings, resume, stop_at).unwrap();
        let (whole, stopped) = (format!("{quantizer}-whole"), format!("{quantizer}-stopped"));
        assert!(run(&whole, false, None).complete);
        let cut = run(&stopped, false, Some(5));
        assert!(!cut.complete && cut.step == 5 && !folder.join(&stopped).join("codec").exists());
        assert!(folder.join(&stopped).join("reconstructions.png").exists());
        assert!(run(&stopped, true, None).complete);
        assert_eq!(lines(folder, &stopped), lines(folder, &whole));
        assert_eq!(weights(folder, &stopped), weights(folder, &whole));
        let card = |out: &str| std::fs::read_to_string(folder.join(out).join("codec/README.md")).unwrap();
        assert_eq!(card(&stopped), card(&whole));
        let text = card(&whole);
        let toml = text.split_once("```toml\n").unwrap().1.split_once("```").unwrap().0;
        let settings: Vec<String> = settings.iter().map(|setting| setting.to_string()).collect();
        assert!(
            CodecTrainConfig::parse(toml, "card", &[]).is_ok_and(|config| settings.is_empty() || config.log_every == 1)
        );
        assert!(text.contains("| PSNR, dB | ") && text.contains("image-tokenizer") && !text.contains("/tmp"), "{text}");
        // 12 lines of training, validations at 0, 4, 8, 12.
        assert_eq!(lines(folder, &whole).len(), 16);
        assert!(folder.join(&whole).join("loss.svg").exists());
    }
}

#[test]
fn a_codec_learns_and_its_folder_reconstructs_as_the_validation_says() {
    let _alone = alone();
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    pixels(&folder.join("data"), SHAPE, false);
    let result = run(folder, "run", &["steps=150", "batch=16", "validate_every=150"], false, None).unwrap();
    let validations: Vec<CodecLine> = read_lines(&folder.join("run"))
        .unwrap()
        .into_iter()
        .filter_map(|line| if let Line::Validation(line) = line { Some(line) } else { None })
        .collect();
    let (before, after) = (&validations[0], &validations[1]);
    assert_eq!(result.validation.as_ref(), Some(after));
    assert!(after.val_psnr > before.val_psnr + 6.0 && after.val_ssim > before.val_ssim, "{validations:?}");
    assert!(after.val_usage > 0.0 && after.val_usage <= 1.0 && after.val_codes <= 20, "{after:?}");
    let [low, high] = after.val_psnr_interval.unwrap();
    assert!(low <= after.val_psnr && after.val_psnr <= high);

    let device = Device::flex();
    let codec = Codec::load(&folder.join("run/codec"), &device).unwrap();
    assert_eq!((codec.config().grid(), codec.config().n_codes()), ([2, 3], 20));
    let rows = DataFolder::open(&folder.join("data")).unwrap().pixels(Split::Validation).unwrap();
    let mut sum = 0.0;
    for index in 0..7 {
        let original = pixels_of_bytes(&rows.pixels(index).unwrap(), 3);
        let pixels = Tensor::<4>::from_data(TensorData::new(original.clone(), [1, 3, 8, 12]), &device);
        let decoded = codec.decode(codec.encode(pixels)).clamp(-1.0, 1.0).try_into_vec_as::<f32>().unwrap();
        assert_eq!(bytes_of_pixels(&decoded, 3).len(), SHAPE.len());
        sum += psnr(&original, &decoded);
    }
    assert!((sum / 7.0 - after.val_psnr).abs() < 1e-3, "{} and {}", sum / 7.0, after.val_psnr);
}

#[test]
fn a_classifier_is_a_function_of_pictures_and_options() {
    let _alone = alone();
    let temporary = tempfile::tempdir().unwrap();
    let out = temporary.path().join("data");
    let names = ["dark", "bright"].map(String::from).to_vec();
    let mut writer = ImageFolderWriter::create(&out, ImageInfo::of_pixels(SHAPE, names)).unwrap();
    for index in 0..20_u32 {
        let split = if index < 14 { Split::Train } else { Split::Validation };
        let picture = vec![(100 * (index % 2) + index) as u8; SHAPE.len()];
        writer.push_pixels(split, &picture, Some(index % 2)).unwrap();
    }
    writer.finish().unwrap();
    let data = DataFolder::open(&out).unwrap();
    let features = |seed| {
        let options = ClassifierOptions { steps: 5, batch: 4, width: 4, features: 8, seed, ..Default::default() };
        let rows = data.pixels(Split::Train).unwrap();
        let proceed = &mut |_| ControlFlow::Continue(());
        let classifier = Classifier::train(&rows, &options, &Device::flex(), proceed).unwrap();
        classifier.classify_rows(&data.pixels(Split::Validation).unwrap()).unwrap().0
    };
    assert_eq!(features(1), features(1));
    assert_ne!(features(1).features, features(2).features);
}

#[test]
fn what_no_codec_can_be_trained_on_is_refused_in_a_sentence() {
    let _alone = alone();
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    pixels(&folder.join("data"), SHAPE, false);
    let refused = |out: &str, settings: &[&str], resume| {
        let message = run(folder, out, settings, resume, None).unwrap_err().to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    };
    assert!(refused("wide", &["codec.widths=[4,4,4,4]"], false).contains("height = 8 must be a multiple of 16"));
    assert!(refused("levels", &["codec.levels=[1]"], false).contains("levels = 1 must be 2 to 256"));
    let wild = refused("wild", &["optim.lr=1e30", "optim.clip=0", "log_every=1"], false);
    assert!(wild.contains("not finite at step"), "{wild}");
    assert!(!folder.join("wild/codec").exists());

    run(folder, "run", &["steps=2"], false, None).unwrap();
    let message = run(folder, "run", &["steps=2"], false, None).unwrap_err();
    assert!(matches!(message, TrainError::Exists { .. }), "{message}");
    // Nor does it empty the figures of a run whose checkpoints are gone.
    std::fs::create_dir(folder.join("figures")).unwrap();
    std::fs::copy(folder.join("run/metrics.jsonl"), folder.join("figures/metrics.jsonl")).unwrap();
    let message = run(folder, "figures", &["steps=2"], false, None).unwrap_err();
    assert!(matches!(message, TrainError::Exists { .. }), "{message}");
    assert!(refused("run", &["loss=l2"], true).contains("loss was \"l1\" and is now \"l2\""));
    assert!(refused("run", &["steps=1"], true).contains("steps was 2 done"));
    // More steps are allowed, other pictures are not.
    assert!(run(folder, "run", &["steps=3"], true, None).unwrap().complete);
    std::fs::rename(folder.join("data"), folder.join("old")).unwrap();
    pixels(&folder.join("data"), SHAPE, true);
    assert!(refused("run", &["steps=3"], true).contains("--data was"));

    // Pixels as tokens are pixels, too; codes are not.
    std::fs::remove_dir_all(folder.join("data")).unwrap();
    let levels = ImageInfo::of_levels(SHAPE, 16, Vec::new());
    let mut writer = ImageFolderWriter::create(&folder.join("data"), levels).unwrap();
    for split in [Split::Train, Split::Validation] {
        writer.push_pixels(split, &vec![77; SHAPE.len()], None).unwrap();
    }
    writer.finish().unwrap();
    assert!(run(folder, "levels", &["steps=1"], false, None).unwrap().complete);
    std::fs::remove_dir_all(folder.join("data")).unwrap();
    let codec = CodecIdentity { codebook: 9, hash: None };
    let codes = ImageInfo::of_codes([2, 2], codec, Some(SHAPE), Vec::new());
    let mut writer = ImageFolderWriter::create(&folder.join("data"), codes).unwrap();
    for split in [Split::Train, Split::Validation] {
        writer.push_tokens(split, &[1, 2, 3, 4], None).unwrap();
    }
    writer.finish().unwrap();
    assert!(refused("codes", &[], false).contains("codes"));
}

#[test]
fn the_command_says_what_it_does_and_fails_in_a_sentence() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    pixels(&folder.join("data"), PixelShape { channels: 1, ..SHAPE }, false);
    std::fs::write(folder.join("codec.toml"), TOML).unwrap();
    let outcomes = Mutex::new(Vec::new());
    let command = |arguments: &[&str]| {
        let path = |name: &str| folder.join(name).display().to_string();
        let (config, data, out) = (path("codec.toml"), path("data"), path("out"));
        let mut command = Command::new(PathBuf::from(env!("CARGO_BIN_EXE_pgm-train")));
        command.args(["codec", "--config", &config, "--data", &data, "--out", &out, "--device", "flex"]);
        let output = command.args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        outcomes.lock().unwrap().push(output.status.code());
        (text(&output.stdout), text(&output.stderr))
    };
    let (out, error) = command(&["--set", "steps=4", "log_every=2"]);
    assert!(error.is_empty(), "{error}");
    for says in [
        "parameters, 30 training rows, from step 0",
        "step 2/4  loss ",
        " pictures/s  0:0",
        "step 4  validation loss ",
        " dB  SSIM ",
        "codes in use ",
        "/codec   originals above",
    ] {
        assert!(out.contains(says), "{says:?} in {out}");
    }
    // The commands that the card names exist.
    let card = std::fs::read_to_string(folder.join("out/codec/README.md")).unwrap();
    let named: Vec<&str> =
        card.lines().filter(|line| line.contains(" --")).filter_map(|line| line.strip_prefix("pgm-train ")).collect();
    assert!(!named.is_empty() && card.contains("pgm-train encode --codec"), "{card}");
    for arguments in named {
        let name = arguments.split(' ').next().unwrap();
        let help = std::process::Command::new(env!("CARGO_BIN_EXE_pgm-train")).args([name, "-h"]).output().unwrap();
        assert!(help.status.success(), "pgm-train {name}");
    }
    let image = image::open(folder.join("out/reconstructions.png")).unwrap();
    // Ten pairs of 8 x 12 pixels, five times as large.
    assert_eq!((image.width(), image.height()), (10 * 62 + 2, 2 * 40 + 4));
    let (_, error) = command(&[]);
    assert!(error.contains("holds a run already; continue it with --resume"), "{error}");
    let (_, error) = command(&["--set", "codec.wide=3"]);
    assert!(error.contains("unknown key codec.wide"), "{error}");
    std::fs::remove_dir_all(folder.join("data")).unwrap();
    let (_, error) = command(&["--resume"]);
    assert!(error.lines().count() == 1 && error.contains("data.json"), "{error}");
    assert_eq!(*outcomes.lock().unwrap(), [Some(0), Some(1), Some(1), Some(1)]);
}
