//! Models of pictures with random weights: guidance, classes, edits, and the files that the command writes.
#![cfg(feature = "flex")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use pgm_infer::picture::{Edit, EditRun, Filling, PictureCodec, PixelBox, Region};
use pgm_infer::sample::{Curve, Guidance, GuidanceSchedule};
use pgm_infer::{
    DrawSettings, GenerationConfig, ImageModel, ModelBytes, OrderKind, Picture, SampleRequest, SampleSettings,
    SampledRow, SamplingPath, Schedule, StepView, TextModel,
};
use pgm_model::{BackboneConfig, CleanTokens, ModelConfig, Network, PartitionConfig, Positions, model_folder};

mod common;
use common::image_models::{Blocks, COLUMNS, LEVELS, ROWS, config, model, network, striped};

fn settings(steps: usize) -> SampleSettings {
    SampleSettings { steps, ..SampleSettings::for_images(&GenerationConfig::default()) }
}

fn guided(weight: f64, schedule: GuidanceSchedule) -> Guidance {
    Guidance { weight, schedule }
}

fn draw(model: &ImageModel, requests: &[SampleRequest], settings: &SampleSettings) -> Vec<SampledRow> {
    model.generate(requests, settings, SamplingPath::Clean, &mut |_| ControlFlow::Continue(())).unwrap().rows
}

#[test]
fn the_bytes_of_a_model_of_pictures_are_refused_as_a_model_of_text() {
    let config = config(0);
    let weights = model_folder::to_safetensors(&network(&config)).unwrap();
    let config = serde_json::to_vec(&config).unwrap();
    let files = ModelBytes { config: &config, weights: &weights, tokenizer: b"{}", generation: None };
    let error = TextModel::from_bytes(&files, &Device::flex(), &|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "this is a model of pictures, and a model of text is needed");
}

#[test]
fn pictures_hold_levels_only_and_do_not_depend_on_their_batch() {
    for registers in [0, 2] {
        let model = model(registers, None);
        let mut settings = settings(7);
        settings.guidance = guided(1.5, GuidanceSchedule::Linear);
        let classes = [Some(0), None, Some(2), Some(1)];
        let requests: Vec<SampleRequest> =
            classes.iter().zip(5..).map(|(&class, seed)| model.request(class, seed)).collect();
        let rows = draw(&model, &requests, &settings);
        for (request, row) in requests.iter().zip(&rows) {
            assert!(row.complete && model.cells(row).iter().all(|&token| (token as usize) < LEVELS));
            let alone = &draw(&model, std::slice::from_ref(request), &settings)[0];
            assert_eq!((&alone.tokens, &alone.order), (&row.tokens, &row.order));
        }
        let pictures = model.pictures(&rows.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!((pictures[0].width(), pictures[0].height(), pictures[0].channels()), (COLUMNS, ROWS, 1));
        let mut filling = Filling::new(&model, &requests[0]);
        assert!(filling.picture(&model).unwrap().pixels().iter().all(|&value| value == 112), "all is open");
        let observe = &mut |view: &StepView<'_>| {
            filling.apply(&model, &view.changes[0]);
            ControlFlow::Continue(())
        };
        model.generate(&requests[..1], &settings, SamplingPath::Clean, observe).unwrap();
        assert_eq!(filling.picture(&model).unwrap(), pictures[0]);
    }
}

#[test]
fn a_maskgit_draws_every_class_under_guidance_in_any_batch() {
    let config = config(2).masked_baseline();
    let network = Network::new(&config, &Device::flex()).with_noise(0.6, 5);
    let model = ImageModel::new(config, network, GenerationConfig::default(), None, &Device::flex()).unwrap();
    assert_eq!(model.grid().start, 0, "it has no BOS");
    let guidance = guided(2.0, GuidanceSchedule::Constant);
    let settings = SampleSettings { guidance, ..settings(6) };
    let requests = [model.request(Some(2), 3), model.request(None, 4), model.request(Some(0), 5)];
    let rows = draw(&model, &requests, &settings);
    for (request, row) in requests.iter().zip(&rows) {
        assert!(row.complete && row.tokens.len() == ROWS * COLUMNS);
        assert!(row.tokens.iter().all(|&token| (token as usize) < LEVELS));
        assert_eq!(draw(&model, std::slice::from_ref(request), &settings)[0].tokens, row.tokens);
    }
    let other = draw(&model, &[SampleRequest { class: Some(1), ..requests[0].clone() }], &settings);
    assert_ne!(other[0].tokens, rows[0].tokens, "the class matters");
}

#[test]
fn a_guided_step_takes_the_token_of_the_extrapolated_logits() {
    let (model, config, device) = (model(2, None), config(2), Device::flex());
    let Network::Partition(network) = network(&config) else { unreachable!() };
    let weight = 2.5;
    let request = |class| model.request_around(class, 1, [(3, 1), (17, 2), (20, 0)].into_iter());
    let first_step = |class: Option<usize>, weight, path| {
        let draw = DrawSettings { temperature: 0.0, ..DrawSettings::default() };
        let guidance = guided(weight, GuidanceSchedule::Constant);
        let settings = SampleSettings { steps: 1, draw, guidance, ..settings(1) };
        // Rows of different lengths are packed.
        let requests = [request(class), model.request(Some(1), 2)];
        let output = model.generate(&requests, &settings, path, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(output.n_evaluations, 1);
        output.rows[0].clone()
    };
    let bos = config.backbone().bos_index as u32;
    let logits = |class: Option<usize>| {
        let clean = CleanTokens::new(&[vec![bos, 1, 2, 0]], &[vec![0, 4, 18, 21]], &device).with_classes(vec![class]);
        let open: Vec<usize> = (1..=ROWS * COLUMNS).filter(|position| ![4, 18, 21].contains(position)).collect();
        let logits = network.forward_clean(&clean, &Positions::new(std::slice::from_ref(&open), &device));
        (open, logits.try_into_vec_as::<f32>().unwrap())
    };
    let ((open, with), (_, without)) = (logits(Some(0)), logits(None));
    let best = |weight: f32| -> Vec<usize> {
        let rows = with.chunks_exact(LEVELS + 2).zip(without.chunks_exact(LEVELS + 2));
        let combined =
            rows.map(|(c, u)| (0..LEVELS).map(|i| (1.0 + weight) * c[i] - weight * u[i]).collect::<Vec<_>>());
        combined.map(|row| (0..LEVELS).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap()).collect()
    };
    assert_ne!(best(weight as f32), best(0.0), "the weight matters");
    for path in [SamplingPath::Clean, SamplingPath::Full] {
        for weight in [weight, 0.0] {
            let row = first_step(Some(0), weight, path);
            let found: Vec<usize> = open.iter().map(|&position| row.tokens[position] as usize).collect();
            assert_eq!(found, best(weight as f32), "{path:?}, weight {weight}");
        }
    }
}

#[test]
fn classes_that_do_not_exist_are_named() {
    let model = model(0, None);
    assert_eq!((model.class("dog").unwrap(), model.class("2").unwrap()), (1, 2));
    let error = model.class("wolf").unwrap_err().to_string();
    assert!(error.contains("\"wolf\"") && error.contains("cat, dog, owl"), "{error}");
    let outside = SampleRequest { class: Some(3), ..model.request(None, 1) };
    let error = model.generate(&[outside], &settings(2), SamplingPath::Clean, &mut |_| ControlFlow::Continue(()));
    assert!(error.unwrap_err().to_string().contains("class 3 does not exist"));
}

#[test]
fn an_edit_keeps_the_known_codes_and_draws_the_cells_around_the_region() {
    let model = model(2, Some(Arc::new(Blocks)));
    let picture = striped(2 * COLUMNS, 2 * ROWS);
    let region = Region::of_box(&picture, PixelBox { x: 4, y: 5, width: 2, height: 1 }).unwrap();
    let edit = Edit::inpaint(picture.clone(), region).unwrap();
    let run = |seed, guidance| {
        let settings = SampleSettings { guidance, ..settings(4) };
        model.edit(&edit, Some(1), seed, &settings, &mut |_, _| ControlFlow::Continue(())).unwrap()
    };
    let edited = run(3, guided(0.0, GuidanceSchedule::Constant));
    assert!(edited.complete && edited.windows.len() == 1 && edited.n_evaluations == 4);
    let window = &edited.windows[0];
    // One cell and its eight neighbours are open.
    assert_eq!(window.given.len(), ROWS * COLUMNS - 9);
    let known = Blocks.encode(std::slice::from_ref(&picture)).unwrap().remove(0);
    for &(cell, token) in &window.given {
        assert_eq!((window.tokens[cell], token), (known[cell], known[cell]), "cell {cell}");
    }
    // Far from the region no pixel has changed; in it, it is the drawn one.
    assert_eq!(edited.picture.window(0, 10, 10, 2), picture.window(0, 10, 10, 2));
    let drawn = Blocks.decode(&[&window.tokens]).unwrap().remove(0);
    assert_eq!(edited.picture.window(4, 5, 2, 1), drawn.window(4, 5, 2, 1));
    assert_eq!(run(3, guided(0.0, GuidanceSchedule::Constant)).picture, edited.picture);
    let others = (4..9).map(|seed| run(seed, guided(2.0, GuidanceSchedule::Linear)).picture);
    assert!(others.into_iter().any(|picture| picture != edited.picture));
}

#[test]
fn an_edit_of_pixels_changes_the_region_and_nothing_else() {
    let model = model(0, None);
    let picture = striped(COLUMNS, ROWS);
    let area = PixelBox { x: 1, y: 2, width: 3, height: 2 };
    let edit = Edit::inpaint(picture.clone(), Region::of_box(&picture, area).unwrap()).unwrap();
    let edited = model.edit(&edit, None, 1, &settings(3), &mut |_, _| ControlFlow::Continue(())).unwrap();
    let mut expected = picture.clone();
    expected.paste(&edited.picture.window(1, 2, 3, 2), 1, 2);
    assert_eq!(edited.picture, expected, "known pixels are exact");
    assert_eq!(edited.windows[0].given.len(), ROWS * COLUMNS - 6);

    // The same region as a value for each pixel.
    let values: Vec<bool> = (0..ROWS * COLUMNS)
        .map(|index| (1..4).contains(&(index % COLUMNS)) && (2..4).contains(&(index / COLUMNS)))
        .collect();
    assert_eq!(Region::of_pixels(&picture, values.clone()).unwrap(), Region::of_box(&picture, area).unwrap());
    assert_eq!(model.open_windows(&edit).unwrap()[0].cells, values, "a cell is a pixel");
    assert!(Region::of_pixels(&picture, vec![false; ROWS * COLUMNS]).unwrap_err().to_string().contains("nothing"));
    assert!(Region::of_pixels(&picture, vec![true; 7]).unwrap_err().to_string().contains("7 values"));

    // Beyond its edges, in several windows.
    let edit = Edit::outpaint(&picture, [3, 0, 8, 4]).unwrap();
    let edited = model.edit(&edit, Some(0), 1, &settings(3), &mut |_, _| ControlFlow::Continue(())).unwrap();
    for (open, drawn) in model.open_windows(&edit).unwrap().iter().zip(&edited.windows) {
        let known = open.cells.iter().filter(|open| !**open).count();
        assert_eq!((open.area, known), (drawn.area, drawn.given.len()));
    }
    assert_eq!((edited.picture.width(), edited.picture.height()), (COLUMNS + 11, ROWS + 4));
    assert_eq!(edited.picture.window(3, 0, COLUMNS, ROWS), picture);
    assert!(edited.windows.len() > 3);
    let small = Edit::inpaint(
        striped(4, 4),
        Region::of_box(&striped(4, 4), PixelBox { x: 0, y: 0, width: 1, height: 1 }).unwrap(),
    );
    let error = model.edit(&small.unwrap(), None, 1, &settings(3), &mut |_, _| ControlFlow::Continue(()));
    assert!(error.unwrap_err().to_string().contains("4 x 4 pixels and the model draws 5 x 6"));
    let stopped = model.edit(&edit, None, 1, &settings(3), &mut |_, _| ControlFlow::Break(())).unwrap();
    assert!(!stopped.complete && stopped.windows.is_empty());
}

#[test]
fn windows_of_edits_with_neighbouring_seeds_have_seeds_of_their_own() {
    let model = model(0, None);
    let edit = Arc::new(Edit::outpaint(&striped(COLUMNS, ROWS), [3, 0, 8, 4]).unwrap());
    let mut seeds = Vec::new();
    for seed in 7..11 {
        let mut run = EditRun::new(&model, Arc::clone(&edit), Some(0), seed).unwrap();
        let first = seeds.len();
        while let Some(row) = run.next_row(&model).unwrap() {
            seeds.push(row.seed);
            run.finish_row(&model, &draw(&model, &[row], &settings(2))[0]).unwrap();
        }
        assert_eq!(seeds[first], seed, "the first window has the seed itself");
    }
    let n = seeds.len();
    seeds.sort_unstable();
    seeds.dedup();
    assert!(seeds.len() == n && n > 8, "{seeds:?}");
}

#[test]
fn the_open_pixels_of_an_edit_are_those_of_its_region_that_no_step_has_drawn() {
    // Cells of one pixel, and cells of a codec, whose neighbours are drawn again without being part of the region.
    for (model, side) in [(model(0, None), 1), (model(2, Some(Arc::new(Blocks))), 2)] {
        let picture = striped(2 * side * COLUMNS, side * ROWS);
        let area = PixelBox { x: side, y: side, width: side * (2 * COLUMNS - 2), height: 3 * side };
        let region = Region::of_box(&picture, area).unwrap();
        let is_open = |x: usize, y: usize| region.contains(x, y);
        let edit = Arc::new(Edit::inpaint(picture.clone(), region.clone()).unwrap());
        let mut run = EditRun::new(&model, edit, Some(0), 7).unwrap();
        let mut drawn = vec![false; picture.width() * picture.height()];
        let mut n_windows = 0;
        while let Some(row) = run.next_row(&model).unwrap() {
            let mut filling = Filling::new(&model, &row);
            let observe = &mut |view: &StepView<'_>| {
                filling.apply(&model, &view.changes[0]);
                let open = run.open_pixels(&model, &filling);
                for (index, &open) in open.iter().enumerate() {
                    let (x, y) = (index % picture.width(), index / picture.width());
                    assert!(!open || is_open(x, y) && !drawn[index], "{x} {y}");
                    drawn[index] |= is_open(x, y) && !open;
                }
                ControlFlow::Continue(())
            };
            let output = model.generate(&[row], &settings(4), SamplingPath::Clean, observe).unwrap();
            run.finish_row(&model, &output.rows[0]).unwrap();
            n_windows += 1;
        }
        assert!(n_windows > 1, "the region needs several windows");
        let expected: Vec<bool> = (0..drawn.len()).map(|i| is_open(i % picture.width(), i / picture.width())).collect();
        assert_eq!(drawn, expected);
    }
}

#[test]
fn a_text_model_and_a_model_whose_codec_is_missing_are_refused() {
    let build = |config: ModelConfig| {
        let network = Network::new(&config, &Device::flex());
        ImageModel::new(config, network, GenerationConfig::default(), None, &Device::flex()).unwrap_err().to_string()
    };
    let mut coded = config(0);
    coded.backbone_mut().image.as_mut().unwrap().codec = Some("5f2a".into());
    assert!(build(coded).contains("--codec"));
    let text = BackboneConfig { cond_dim: 8, ..BackboneConfig::new(40, 32, 2, 24) };
    let ModelConfig::Partition(partition) = config(0) else { unreachable!() };
    assert!(build(ModelConfig::Partition(PartitionConfig { backbone: text, ..partition })).contains("writes text"));
}

#[test]
fn the_defaults_of_pictures_are_haltons_order_and_the_arccos() {
    let defaults = SampleSettings::for_images(&GenerationConfig { steps: Some(9), ..GenerationConfig::default() });
    assert_eq!((defaults.steps, defaults.schedule), (9, Schedule::Curve(Curve::Arccos)));
    assert_eq!(defaults.order, OrderKind::Halton { roll: false });
}

#[cfg(feature = "cli")]
mod command {
    use std::process::Command;

    use npyz::npz::NpzArchive;
    use pgm_infer::picture::samples::{MANIFEST_FILE, ManifestEntry};

    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        // A model folder among an empty folder's files.
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let config = config(2);
            model_folder::save(&folder.path().join("model"), &config, &network(&config)).unwrap();
            Self(folder)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        // Whether a command succeeds, and all that it says.
        fn run(&self, args: &[&str]) -> (bool, String) {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pgm-infer"));
            command.current_dir(self.0.path()).args(args);
            if args[0] != "info" {
                command.args(["--device", "flex"]);
            }
            let output = command.output().unwrap();
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            (output.status.success(), text(output.stdout) + &text(output.stderr))
        }

        fn succeeds(&self, args: &[&str]) -> String {
            let (succeeds, says) = self.run(args);
            assert!(succeeds, "{args:?}: {says}");
            says
        }

        fn fails(&self, args: &[&str]) -> String {
            let (succeeds, says) = self.run(args);
            assert!(!succeeds && says.lines().count() == 1, "{args:?}: {says}");
            says
        }
    }

    fn generate<'a>(rest: &[&'a str]) -> Vec<&'a str> {
        [&["generate", "--model", "model", "--steps", "5", "--seed", "7"][..], rest].concat()
    }

    #[test]
    fn the_same_pictures_go_to_a_sheet_a_folder_and_an_array() {
        let folder = Folder::new();
        let flags = ["--class", "all", "-n", "2", "--cfg", "1.5", "--cfg-schedule", "linear", "--batch", "4"];
        let says = folder.succeeds(&generate(&[&flags[..], &["--out", "a.npz"]].concat()));
        assert!(says.starts_with("6 pictures in") && says.contains("seed 7: a.npz"), "{says}");
        folder.succeeds(&generate(&[&flags[..], &["--out", "pictures"]].concat()));
        folder.succeeds(&generate(&[&flags[..], &["--out", "sheet.png", "--animate", "film.png"]].concat()));
        let mut archive = NpzArchive::open(folder.path("a.npz")).unwrap();
        let labels = archive.by_name("arr_1").unwrap().unwrap().into_vec::<i64>().unwrap();
        assert_eq!(labels, [0, 0, 1, 1, 2, 2]);
        let pixels = archive.by_name("arr_0").unwrap().unwrap();
        assert_eq!(pixels.shape(), [6, ROWS as u64, COLUMNS as u64, 1]);
        let pixels = pixels.into_vec::<u8>().unwrap();
        let manifest = std::fs::read(folder.path("pictures").join(MANIFEST_FILE)).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let entries: Vec<ManifestEntry> = serde_json::from_value(manifest["pictures"].clone()).unwrap();
        assert_eq!((entries[3].info.name.as_str(), entries[3].info.seed), ("dog", 10));
        for (entry, pixels) in entries.iter().zip(pixels.chunks_exact(ROWS * COLUMNS)) {
            let picture = Picture::read(&folder.path("pictures").join(&entry.file), 1).unwrap();
            assert_eq!(picture.pixels(), pixels);
        }
        assert_eq!(manifest["settings"]["guidance"]["schedule"], "linear");
        let sheet = Picture::read(&folder.path("sheet.png"), 1).unwrap();
        assert!(sheet.width() > 2 * COLUMNS && sheet.height() > 3 * ROWS);
        let film = std::fs::read(folder.path("film.png")).unwrap();
        assert!(film.windows(4).filter(|bytes| bytes == b"fcTL").count() > 5);
    }

    #[test]
    fn orders_schedules_and_the_public_quirks_can_be_chosen() {
        let folder = Folder::new();
        for (index, flags) in [
            &["--order", "halton", "--roll", "--schedule", "cosine"][..],
            &["--order", "confidence", "--noise", "5", "--class", "cat,owl", "--cfg", "1"],
            &["--order", "uniform", "--sampler", "full", "--top-k", "2", "--temp", "0.8"],
            &["--as-published", "--class", "1", "--cfg", "2", "--temp", "1.2"],
            &["--as-published", "--temp-warmup", "2"],
            &["--as-published", "--order", "confidence", "--noise", "5", "--class", "dog", "--cfg", "1"],
            &["--sampler", "binomial", "--visual"],
        ]
        .into_iter()
        .enumerate()
        {
            let out = format!("{index}.png");
            folder.succeeds(&generate(&[flags, &["--out", &out][..]].concat()));
            assert!(folder.path(&out).exists());
        }
        let says = folder.succeeds(&generate(&["--class", "owl", "--json"]));
        let object: serde_json::Value = serde_json::from_str(&says).unwrap();
        assert_eq!((object["name"].as_str(), object["class"].as_u64()), (Some("owl"), Some(2)));
        assert_eq!(object["tokens"].as_array().unwrap().len(), 1 + ROWS * COLUMNS);
        let info = folder.succeeds(&["info", "model"]);
        assert!(info.contains("class_names") && info.contains("parameters:"), "{info}");
    }

    #[test]
    fn an_edit_by_the_command_keeps_the_known_pixels() {
        let folder = Folder::new();
        let picture = striped(COLUMNS, ROWS);
        picture.write_png(&folder.path("in.png")).unwrap();
        let mut mask = Picture::filled(COLUMNS, ROWS, &[0]);
        mask.paste(&Picture::filled(2, 2, &[255]), 3, 0);
        mask.write_png(&folder.path("mask.png")).unwrap();
        let edit = |rest: &[&'static str]| [&["edit", "--model", "model", "--image", "in.png"][..], rest].concat();
        folder.succeeds(&edit(&["--mask", "mask.png", "--class", "cat", "--seed", "3", "--out", "out.png"]));
        let edited = Picture::read(&folder.path("out.png"), 1).unwrap();
        for index in 0..ROWS * COLUMNS {
            let (x, y) = (index % COLUMNS, index / COLUMNS);
            if x < 3 || y > 1 {
                assert_eq!(edited.pixel(x, y), picture.pixel(x, y), "{x} {y}");
            }
        }
        folder.succeeds(&edit(&["--outpaint", "0,0,4,0", "--out", "wide.png"]));
        let wide = Picture::read(&folder.path("wide.png"), 1).unwrap();
        assert_eq!((wide.width(), wide.window(0, 0, COLUMNS, ROWS)), (COLUMNS + 4, picture));
        folder.succeeds(&edit(&["--box", "0,0,2,2", "-n", "3", "--cfg", "1", "--class", "1", "--out", "three"]));
        assert_eq!(std::fs::read_dir(folder.path("three")).unwrap().count(), 4);

        let cases: [(&[&'static str], &str); 7] = [
            (&["--box", "3,3,9,9", "--out", "o.png"], "beyond the picture of 5 x 6"),
            (&["--mask", "in.jpg", "--out", "o.png"], "in.jpg"),
            (&["--mask", "wide.png", "--out", "o.png"], "the picture 5 x 6; they must be equal"),
            (&["--box", "0,0,1,1", "--class", "all", "--out", "o.png"], "an edit has one"),
            (&["--box", "0,0,1,1", "--class", "emu", "--out", "o.png"], "cat, dog, owl"),
            (&["--box", "0,0,1,1", "--out", "o.gif"], ".npz file or a folder"),
            (&["--box", "0,0,1,1", "--as-published", "--out", "o.png"], "cannot edit"),
        ];
        for (flags, says) in cases {
            let said = folder.fails(&edit(flags));
            assert!(said.contains(says), "{flags:?}: {said}");
        }
        assert!(!folder.path("o.png").exists());
    }

    #[test]
    fn flags_that_do_not_fit_are_one_sentence() {
        let folder = Folder::new();
        let text = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/byte-model");
        let cases: [(Vec<&str>, &str); 14] = [
            (generate(&["--class", "emu", "--out", "o.png"]), "\"emu\" does not exist; the classes are cat, dog, owl"),
            (generate(&["--class", "3", "--out", "o.png"]), "does not exist"),
            (generate(&["--cfg", "2", "--out", "o.png"]), "give --class"),
            (generate(&["--class", "cat", "--cfg", "-1", "--out", "o.png"]), "--cfg"),
            (generate(&["--class", "cat", "--cfg-schedule", "linear", "--out", "o.png"]), "give --cfg"),
            (generate(&["--prompt", "a cat", "--out", "o.png"]), "--prompt belongs to models of text"),
            (generate(&[]), "--out is missing"),
            (generate(&["--out", "o.bmp"]), "ends in .bmp"),
            (generate(&["--out", "o.png", "--noise", "2"]), "--noise belongs to --order confidence"),
            (generate(&["--out", "o.png", "--sampler", "uniform", "--schedule", "root"]), "give one of them"),
            (vec!["generate", "--model", text, "--class", "cat"], "--class belongs to models of pictures"),
            (generate(&["--out", "o.png", "--temp-warmup", "1"]), "belongs to --as-published"),
            (generate(&["--out", "o.png", "--as-published", "--order", "margin"]), "halton or confidence"),
            (generate(&["--out", "o.png", "--as-published", "--sampler", "full"]), "does not apply to --sampler full"),
        ];
        for (flags, says) in cases {
            let said = folder.fails(&flags);
            assert!(said.contains(says), "{flags:?}: {said}");
        }
        assert!(!folder.path("o.png").exists());
        let path: &Path = folder.0.path();
        assert_eq!(std::fs::read_dir(path).unwrap().count(), 1, "nothing but the model is there");
    }
}
