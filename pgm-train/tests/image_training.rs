//! Training of models of image codes: batches, learning with labels, resuming, refusals.

use std::path::Path;
use std::sync::{Arc, Mutex};

use burn::tensor::{Device, Int, Tensor};
use burn::train::Interrupter;
use pgm_data::{CodecIdentity, DataFolder, ImageFolderWriter, ImageInfo, PixelShape, Split};
use pgm_model::{ModelConfig, model_folder};
use pgm_train::batches::{NetworkInputs, ObjectiveBatch, TrainLoader};
use pgm_train::{
    Distill, DistillConfig, Fit, FitResult, InitModel, TrainConfig, TrainError, TrainEvent, World, distill, fit,
    history,
};

const TOML: &str = "
objective = \"partition\"
steps = 8
batch = 4
accumulate = 2
seed = 3
log_every = 3
validate_every = 4
validate_rows = 6
checkpoint_every = 3
[model]
hidden = 16
heads = 2
encoder = 1
decoder = 1
length = 10
dropout = 0.2
[optim]
lr = 1e-2
warmup = 2
ema = 0.9
weight_decay = 0.03
";
const N_CODES: u32 = 6;
const OBJECTIVES: [&str; 2] = ["objective=partition", "objective=maskgit"];

// Pictures of 3 x 3 codes: a code of a picture of class c is 2 c or 2 c + 1, by its place.
fn data(out: &Path, n_rows: usize) {
    let codec = CodecIdentity { codebook: N_CODES as usize, hash: Some("c0dec".to_string()) };
    let names = ["cat", "dog", "owl"].map(str::to_string).to_vec();
    let mut writer = ImageFolderWriter::create(out, ImageInfo::of_codes([3, 3], codec, None, names)).unwrap();
    for row in 0..n_rows as u32 {
        let class = row % 3;
        let codes: Vec<u32> = (0..9).map(|cell| 2 * class + cell * cell % 2).collect();
        let split = if row % 4 == 0 { Split::Validation } else { Split::Train };
        writer.push_tokens(split, &codes, Some(class)).unwrap();
    }
    writer.finish().unwrap();
}

fn config(settings: &[&str]) -> TrainConfig {
    let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_string()).collect();
    TrainConfig::parse(TOML, "test", &settings).unwrap()
}

fn run(folder: &Path, out: &str, config: &TrainConfig, resume: bool, stop_at: Option<usize>) -> FitResult {
    try_run(folder, out, config, resume, stop_at).unwrap()
}

fn try_run(
    folder: &Path,
    out: &str,
    config: &TrainConfig,
    resume: bool,
    stop_at: Option<usize>,
) -> Result<FitResult, TrainError> {
    run_from(folder, None, out, config, resume, stop_at)
}

fn run_from(
    folder: &Path,
    init: Option<&InitModel>,
    out: &str,
    config: &TrainConfig,
    resume: bool,
    stop_at: Option<usize>,
) -> Result<FitResult, TrainError> {
    let interrupter = Interrupter::new();
    let stop = interrupter.clone();
    fit(Fit {
        config,
        init,
        data: &folder.join("data"),
        out: &folder.join(out),
        resume,
        device: &Device::flex(),
        interrupter,
        renderer: None,
        observe: Arc::new(move |event| {
            if let TrainEvent::Trained { line, .. } = event
                && Some(line.step) == stop_at
            {
                stop.stop(None);
            }
        }),
        world: World::alone(),
    })
}

// The generator of dropout is the process's, so only one test may train at a time.
static DEVICE: Mutex<()> = Mutex::new(());

fn ints(tensor: Tensor<2, Int>) -> Vec<i32> {
    tensor.try_into_vec_as::<i32>().unwrap()
}

#[test]
fn groups_follow_the_arccos_bos_is_no_target_and_classes_are_dropped() {
    let folder = tempfile::tempdir().unwrap();
    data(&folder.path().join("data"), 40);
    let opened = DataFolder::open(&folder.path().join("data")).unwrap();
    let rows = Arc::new(opened.rows(Split::Train).unwrap());
    let (n_steps, batch) = (300, 8);
    let step = |objective: &str, step: usize| -> Vec<ObjectiveBatch> {
        let config = Arc::new(config(&[objective, "batch=8", "accumulate=2", "class_dropout=0.3"]));
        TrainLoader::new(rows.clone(), config, N_CODES, Device::flex(), 0).of_images(true).step(step).unwrap()
    };
    let (mut n_one, mut n_dropped) = (0, 0);
    for index in 0..n_steps {
        for part in step(OBJECTIVES[0], index) {
            assert_eq!(part.n_valid, batch / 2 * 9, "BOS does not count");
            let weights = part.weights.try_into_vec_as::<f32>().unwrap();
            for row in weights.chunks(10) {
                assert_eq!(row[0], 0.0, "BOS is no target");
                assert!(row[1..].iter().all(|&weight| (weight - 1.0 / 72.0).abs() < 1e-7), "{row:?}");
            }
            let NetworkInputs::Partition(partition) = part.inputs else { panic!("a partition") };
            let groups = ints(partition.groups().clone());
            assert!(groups.chunks(10).all(|row| row[0] == 0), "BOS is in group 0");
            n_one += groups.iter().sum::<i32>();
            let classes = partition.classes().expect("rows have classes");
            n_dropped += classes.iter().filter(|class| class.is_none()).count();
            for (row, class) in ints(part.tokens).chunks(10).zip(classes) {
                assert!(class.is_none_or(|class| row[1] as usize / 2 == class), "{row:?} is of class {class:?}");
            }
        }
    }
    let share = f64::from(n_one) / (n_steps * batch * 9) as f64;
    assert!((share - 2.0 / std::f64::consts::PI).abs() < 0.02, "{share} of the codes are in group 1");
    let share = n_dropped as f64 / (n_steps * batch) as f64;
    assert!((share - 0.3).abs() < 0.03, "{share} of the classes are dropped");

    // MaskGIT: no BOS, the same groups are behind masks, every code counts.
    let of_partition = step(OBJECTIVES[0], 5).remove(1);
    let of_maskgit = step(OBJECTIVES[1], 5).remove(1);
    let NetworkInputs::MaskGit(masked, classes) = of_maskgit.inputs else { panic!("codes with masks") };
    let NetworkInputs::Partition(partition) = of_partition.inputs else { panic!("a partition") };
    assert_eq!(Some(&classes[..]), partition.classes());
    let (groups, codes) = (ints(partition.groups().clone()), ints(of_maskgit.tokens.clone()));
    let expected = groups.chunks(10).flat_map(|row| &row[1..]).zip(&codes);
    let expected: Vec<i32> = expected.map(|(&group, &code)| if group == 1 { N_CODES as i32 } else { code }).collect();
    assert_eq!((ints(masked), of_maskgit.tokens.dims()), (expected, [4, 9]));
    let weights = of_maskgit.weights.try_into_vec_as::<f32>().unwrap();
    assert!(weights.iter().all(|&weight| (weight - 1.0 / 72.0).abs() < 1e-7), "visible codes count, too");
}

#[test]
fn a_resumed_run_equals_the_unbroken_one_for_both_networks() {
    let _one_at_a_time = DEVICE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    data(&folder.join("data"), 40);
    for (index, objective) in OBJECTIVES.into_iter().enumerate() {
        let [whole, cut] = ["whole", "cut"].map(|name| format!("{name}-{index}"));
        let settings = [objective, "log_every=1"];
        let result = run(folder, &whole, &config(&settings), false, None);
        assert!(result.complete && result.validation.is_some());
        assert!(!run(folder, &cut, &config(&settings), false, Some(5)).complete);
        assert!(run(folder, &cut, &config(&settings), true, None).complete);
        let weights = |out: &str| std::fs::read(folder.join(out).join("model/model.safetensors")).unwrap();
        assert!(weights(&whole) == weights(&cut), "{objective}");
        let losses = |out: &str| {
            let lines = history::read(&folder.join(out)).unwrap().into_iter();
            lines
                .map(|line| format!("{line:?}").split("tokens_per_second").next().unwrap().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(losses(&whole), losses(&cut));

        // The model folder says what the codes are, and has no tokenizer.
        let (config, _) = model_folder::load(&folder.join(&whole).join("model"), &Device::flex()).unwrap();
        let image = config.image().unwrap();
        assert_eq!((image.grid, image.n_classes, image.codec.as_deref()), ([3, 3], 3, Some("c0dec")));
        assert_eq!(image.class_of("owl"), Some(2));
        let expected = if index == 0 { (10, N_CODES as usize + 2) } else { (9, N_CODES as usize + 1) };
        assert_eq!((config.backbone().length, config.backbone().vocab_size), expected);
        assert_eq!(matches!(config, ModelConfig::MaskGit(_)), index == 1);
        assert!(!folder.join(&whole).join("model/tokenizer.json").exists());
    }
}

#[test]
fn a_run_goes_on_and_is_fine_tuned_with_a_file_that_leaves_the_data_s_sizes_out() {
    let _one_at_a_time = DEVICE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    data(&folder.join("data"), 40);
    let file = folder.join("run.toml");
    std::fs::write(&file, TOML).unwrap();
    for (index, objective) in OBJECTIVES.into_iter().enumerate() {
        let out = format!("run-{index}");
        run(folder, &out, &config(&[objective, "steps=3", "model.dropout=0"]), false, None);
        // As the command reads the file of a run that is resumed.
        let settings = [objective, "steps=5", "model.dropout=0"].map(str::to_string);
        let resumed = TrainConfig::load_for_run(&file, &settings, &folder.join(&out).join("model")).unwrap();
        assert_eq!(run(folder, &out, &resumed, true, None).step, 5, "{objective}");

        let init = InitModel::open(&folder.join(&out)).unwrap();
        let settings = ["steps=2", "optim.lr=1e-30"].map(str::to_string);
        let tune = "steps = 2\nbatch = 4\n[optim]\nwarmup = 1\n";
        let tuned = TrainConfig::parse_for_model(tune, &settings, init.config(), 10).unwrap();
        let name = format!("tuned-{index}");
        run_from(folder, Some(&init), &name, &tuned, false, None).unwrap();
        let config = |run: &str| model_folder::load_config(&folder.join(run).join("model")).unwrap();
        assert_eq!(config(&name), config(&out), "{objective}");
    }
    // Pictures of other classes.
    std::fs::rename(folder.join("data"), folder.join("before")).unwrap();
    let codec = CodecIdentity { codebook: N_CODES as usize, hash: Some("c0dec".to_string()) };
    let info = ImageInfo::of_codes([3, 3], codec, None, vec!["cat".to_string()]);
    let mut writer = ImageFolderWriter::create(&folder.join("data"), info).unwrap();
    for split in [Split::Train, Split::Validation] {
        writer.push_tokens(split, &[1; 9], Some(0)).unwrap();
    }
    writer.finish().unwrap();
    let init = InitModel::open(&folder.join("run-0")).unwrap();
    let tuned = TrainConfig::parse_for_model("steps = 2\nbatch = 4\n", &[], init.config(), 10).unwrap();
    let message = run_from(folder, Some(&init), "refused", &tuned, false, None).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("--init") && message.contains("has 3 classes, the data has 1"), "{message}");
}

#[test]
fn both_networks_learn_what_a_class_looks_like() {
    let _one_at_a_time = DEVICE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    data(&folder.join("data"), 90);
    for (index, objective) in OBJECTIVES.into_iter().enumerate() {
        let settings = [
            objective,
            "steps=500",
            "batch=16",
            "accumulate=1",
            "model.dropout=0",
            "validate_every=500",
            "validate_rows=0",
            "checkpoint_every=500",
            "log_every=100",
            "class_dropout=0",
            "optim.lr=3e-3",
            "optim.weight_decay=0",
        ];
        let result = run(folder, &format!("learn-{index}"), &config(&settings), false, None);
        // The class says everything. Without it a picture has ln 3 nats, 0.122 for each code.
        let nats = result.validation.unwrap().val_nelbo;
        assert!((0.0..0.06).contains(&nats), "{objective}: {nats} nats per code");
    }
}

#[test]
fn what_cannot_be_trained_is_refused_in_a_sentence() {
    let _one_at_a_time = DEVICE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    data(&folder.join("data"), 16);
    let refusal = |settings: &[&str]| {
        try_run(folder, "refused", &config(settings), false, None).map(|_| ()).unwrap_err().to_string()
    };
    for (setting, says) in [
        ("model.classes=4", "is 4, but the data has 3 classes"),
        ("model.registers=3", "image.registers = 3 must be 0, or 2"),
        ("model.length=9", "the data's rows have 10 tokens"),
    ] {
        let message = refusal(&[setting]);
        assert!(message.contains(says), "{message}");
    }
    assert!(
        config(&["model.classes=3", "model.registers=0"])
            .model_config(DataFolder::open(&folder.join("data")).unwrap().manifest())
            .is_ok()
    );

    // Pixels are no tokens.
    let shape = PixelShape { height: 3, width: 3, channels: 1 };
    std::fs::rename(folder.join("data"), folder.join("codes")).unwrap();
    let mut writer = ImageFolderWriter::create(&folder.join("data"), ImageInfo::of_pixels(shape, Vec::new())).unwrap();
    for split in [Split::Train, Split::Validation] {
        writer.push_pixels(split, &[7; 9], None).unwrap();
    }
    writer.finish().unwrap();
    assert!(refusal(&["model.length=9"]).contains("pixels"), "{}", refusal(&["model.length=9"]));
}

#[test]
fn pixels_as_tokens_without_labels_train_without_a_codec() {
    let _one_at_a_time = DEVICE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let shape = PixelShape { height: 2, width: 3, channels: 3 };
    let mut writer =
        ImageFolderWriter::create(&folder.join("data"), ImageInfo::of_levels(shape, 4, Vec::new())).unwrap();
    for row in 0..12_u8 {
        let split = if row % 4 == 0 { Split::Validation } else { Split::Train };
        writer.push_pixels(split, &[row * 20; 18], None).unwrap();
    }
    writer.finish().unwrap();
    for (index, objective) in OBJECTIVES.into_iter().chain(["objective=autoregressive"]).enumerate() {
        let out = format!("run-{index}");
        let result = run(folder, &out, &config(&[objective, "model.length=19"]), false, None);
        assert!(result.complete);
        let config = model_folder::load_config(&folder.join(out).join("model")).unwrap();
        let image = config.image().map(|image| (image.grid, image.channels, image.n_classes, image.codec.clone()));
        let expected = (index < 2).then_some(([2, 3], 3, 0, None));
        assert_eq!(image, expected, "{objective}");
    }
}

#[test]
fn models_of_images_are_distilled_as_models_of_text_are() {
    let _one_at_a_time = DEVICE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    data(&folder.join("data"), 40);
    let toml = "rounds = 1\nround_steps = 2\nbatch = 4\naccumulate = 2\nteacher_steps = 16\nvalidate_rows = 4\n";
    let distilled = |teacher: &str, out: &str, targets: &str| {
        let config = DistillConfig::parse(toml, "test", &[format!("targets={targets}")]).unwrap();
        distill(Distill {
            config: &config,
            teacher: &folder.join(teacher).join("model"),
            data: &folder.join("data"),
            out: &folder.join(out),
            resume: false,
            device: &Device::flex(),
            interrupter: Interrupter::new(),
            observe: Arc::new(|_| ()),
            world: World::alone(),
        })
    };
    for (index, objective) in OBJECTIVES.into_iter().enumerate() {
        let teacher = format!("teacher-{index}");
        run(folder, &teacher, &config(&[objective, "steps=4"]), false, None);
        for targets in ["one", "both"] {
            let out = format!("student-{index}-{targets}");
            assert_eq!(distilled(&teacher, &out, targets).unwrap().models.len(), 1, "{objective}, {targets}");
            let student = folder.join(&out).join("round-1/model");
            let found = model_folder::load_config(&student).unwrap();
            assert_eq!(found, model_folder::load_config(&folder.join(&teacher).join("model")).unwrap());
            assert!(!student.join("tokenizer.json").exists());
        }
    }
    // Codes of another codec.
    std::fs::rename(folder.join("data"), folder.join("before")).unwrap();
    let codec = CodecIdentity { codebook: N_CODES as usize, hash: Some("0ther".to_string()) };
    let names = ["cat", "dog", "owl"].map(str::to_string).to_vec();
    let mut writer =
        ImageFolderWriter::create(&folder.join("data"), ImageInfo::of_codes([3, 3], codec, None, names)).unwrap();
    for split in [Split::Train, Split::Validation] {
        writer.push_tokens(split, &[1; 9], Some(0)).unwrap();
    }
    writer.finish().unwrap();
    let message = distilled("teacher-0", "refused", "one").unwrap_err().to_string();
    assert!(message.contains("c0dec") && message.contains("0ther"), "{message}");
}
