//! `pgm-data images`: pictures of every source become rows, and what cannot be read is named.

#[path = "../common/mod.rs"]
mod common;
mod helpers;
mod sources;

use std::ops::ControlFlow;

use image::{DynamicImage, ImageFormat, Luma, LumaA, Rgb, RgbImage, Rgba};
use pgm_data::{
    Crop, DataError, PictureInputs, PictureOptions, PictureValidation, PrepareImages, Split, prepare_images,
};

use common::Case;
use helpers::*;

#[test]
fn class_folders_become_rows_with_the_names_of_their_folders() {
    let case = Case::new();
    case.write("in/red things/1.jpg", plain(RED, 20, 30, ImageFormat::Jpeg));
    case.write("in/blue/deep/er/2.WEBP", plain(BLUE, 8, 8, ImageFormat::WebP));
    // The content decides, as for ImageNet's PNG files named .JPEG.
    case.write("in/Green/3.JPEG", plain(GREEN, 9, 7, ImageFormat::Png));
    case.write("in/.hidden/4.png", b"no picture").write("in/notes.txt", "some text");
    let output = prepare(&case, "--input in --size 8 --val in");
    assert!(output.stdout.contains("training: 3 pictures of 8x8x3, 3 classes"), "{}", output.stdout);
    assert!(output.stderr.contains("left out: in/notes.txt is no picture"), "{}", output.stderr);
    assert_eq!(case.folder().class_names(), ["Green", "blue", "red things"]);
    let rows = rows(&case, Split::Train);
    for ((pixels, class), (color, name)) in rows.iter().zip([(GREEN, "Green"), (BLUE, "blue"), (RED, "red things")]) {
        assert_eq!((pixels.len(), class.as_deref()), (8 * 8 * 3, Some(name)));
        assert!(pixels.chunks(3).all(|pixel| near(pixel, color)), "{name}: {pixels:?}");
    }
    let manifest = case.folder().manifest().clone();
    let image = manifest.image.unwrap();
    assert_eq!((image.crop, image.flip), (Some(Crop::Center), false));
    // inspect draws them.
    let shown = case.run(&["inspect", "out", "--rows", "1"]);
    assert!(shown.ok && shown.stdout.contains("training row 0, class 0 (Green):\n"), "{}", shown.stdout);
}

#[test]
fn split_folders_are_used_and_the_fraction_is_spread_over_the_classes() {
    let case = Case::new();
    for (split, n) in [("train", 3), ("validation", 2), ("test", 1)] {
        for (class, color) in [("a", RED), ("b", BLUE)] {
            for index in 0..n {
                case.write(&format!("in/{split}/{class}/{index}.png"), png(color));
            }
        }
    }
    let output = prepare(&case, "--input in --size 4");
    assert!(output.stderr.contains("left out: in/test belongs to the test split"), "{}", output.stderr);
    assert_eq!((rows(&case, Split::Train).len(), rows(&case, Split::Validation).len()), (6, 4));
    assert_eq!(case.folder().class_names(), ["a", "b"]);

    std::fs::remove_dir_all(case.path("in/validation")).unwrap();
    let output = prepare(&case, "--input in --size 4");
    assert!(output.stderr.contains("note: there is no validation split, so the test split"), "{}", output.stderr);
    assert_eq!(rows(&case, Split::Validation).len(), 2);

    // Without splits every class gives its share.
    prepare(&case, "--input in/train --size 4 --val-fraction 0.34");
    let classes: Vec<_> = firsts(&case, Split::Validation).into_iter().map(|(_, class)| class).collect();
    assert_eq!(classes, [named("a"), named("b")]);
    assert_eq!(rows(&case, Split::Train).len(), 4);
}

#[test]
fn a_file_of_labels_gives_classes_in_every_format() {
    let case = Case::new();
    case.write("in/1.png", png(RED)).write("in/sub/2.png", png(BLUE));
    for (name, content) in [
        ("labels.csv", "1.png,warm\nsub/2.png,cold\n"),
        ("labels.csv", "\u{feff}id,breed\n1,warm\n2,cold\n"),
        ("labels.tsv", "label\tfile_name\nwarm\t1.png\ncold\t./sub/2.png\n"),
        (
            "metadata.jsonl",
            "{\"file_name\": \"1.png\", \"label\": \"warm\"}\n\n{\"file_name\": \"sub/2.png\", \"label\": \"cold\"}\n",
        ),
    ] {
        case.write(&format!("in/{name}"), content);
        prepare(&case, "--input in --val in");
        let expected = [(RED.to_vec(), named("warm")), (BLUE.to_vec(), named("cold"))];
        assert_eq!(firsts(&case, Split::Train), expected, "{content}");
        // Elsewhere it is named.
        std::fs::rename(case.path(&format!("in/{name}")), case.path(name)).unwrap();
        prepare(&case, &format!("--input in --val in --labels {name}"));
        assert_eq!(firsts(&case, Split::Train), expected, "{content}");
    }
    // Numbers get the names that are given.
    case.write("numbers.csv", "1.png,1\n2.png,0\n").write("names.txt", "cold\nwarm\n");
    prepare(&case, "--input in --val in --labels numbers.csv --class-names names.txt");
    assert_eq!(firsts(&case, Split::Train)[0], (RED.to_vec(), named("warm")));

    case.write("short.csv", "1.png,warm\n");
    let message = refusal(&case, "--input in --val in --labels short.csv");
    assert!(message.contains("2.png has no label in short.csv"), "{message}");
    let output = prepare(&case, "--input in --val in --labels short.csv --skip-bad");
    assert!(output.stderr.contains("bad pictures were left out: 2"), "{}", output.stderr);
    for (content, says) in [
        ("1.png\n", "no label at line 1"),
        ("1.png,a\n1.png,b\n", "two labels for 1.png"),
        ("file,label\n", "has no labels"),
        ("1.png,\n", "no file or no label at line 1"),
    ] {
        case.write("bad.csv", content);
        let message = refusal(&case, "--input in --labels bad.csv");
        assert!(message.contains("bad.csv") && message.contains(says), "{message}");
    }
    // Without labels the rows have none, and the user is told.
    let output = prepare(&case, "--input in/1.png --val in/sub/2.png");
    assert!(output.stderr.contains("have no labels"), "{}", output.stderr);
    assert_eq!(firsts(&case, Split::Train), [(RED.to_vec(), None)]);
}

#[test]
fn every_kind_of_pixel_becomes_eight_bits_of_one_or_three_channels() {
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let case = Case::new();
    let of = |picture: DynamicImage| encoded(&picture, ImageFormat::Png);
    let sized = |picture: DynamicImage| picture.resize_exact(8, 8, image::imageops::FilterType::Nearest);
    let grey = sized(DynamicImage::ImageLuma8(image::ImageBuffer::from_pixel(8, 8, Luma([77]))));
    let deep = DynamicImage::ImageRgb16(image::ImageBuffer::from_pixel(8, 8, Rgb([65_535, 257 * 40, 0])));
    let deep_grey = DynamicImage::ImageLuma16(image::ImageBuffer::from_pixel(8, 8, Luma([257 * 90])));
    let clear = DynamicImage::ImageRgba8(image::ImageBuffer::from_pixel(8, 8, Rgba([10, 20, 30, 0])));
    let half = DynamicImage::ImageLumaA8(image::ImageBuffer::from_pixel(8, 8, LumaA([0, 51])));
    for (name, bytes, rgb, luma) in [
        ("grey.png", of(grey), [77; 3], 77),
        ("deep.png", of(deep), [255, 40, 0], 100),
        ("deep_grey.png", of(deep_grey), [90; 3], 90),
        ("clear.png", of(clear), [255; 3], 255),
        ("half.png", of(half), [204; 3], 204),
        ("green.webp", plain(GREEN, 8, 8, ImageFormat::WebP), GREEN, 75),
        ("cmyk.jpg", std::fs::read(fixtures.join("cmyk.jpg")).unwrap(), [0, 255, 255], 179),
    ] {
        case.write(name, bytes);
        for (channels, expected) in [(3, &rgb[..]), (1, &[luma][..])] {
            prepare(&case, &format!("--input {name} --val {name} --labels none --channels {channels}"));
            let pixels = rows(&case, Split::Train)[0].0.clone();
            assert_eq!(pixels.len(), 64 * channels, "{name}");
            let is_near = pixels
                .chunks(channels)
                .all(|pixel| pixel.iter().zip(expected).all(|(&found, &expected)| found.abs_diff(expected) <= 2));
            assert!(is_near, "{name}, {channels}: {:?}", &pixels[..channels]);
        }
    }
    // Red left and blue right, to be turned by 90 degrees: red is above.
    case.write("turned.jpg", std::fs::read(fixtures.join("orientation6.jpg")).unwrap());
    prepare(&case, "--input turned.jpg --val turned.jpg --labels none");
    let shape = case.folder().image().unwrap().pixels.unwrap();
    assert_eq!((shape.height, shape.width), (16, 8));
    let pixels = rows(&case, Split::Train)[0].0.clone();
    assert!(near(&pixels[..3], RED) && near(&pixels[pixels.len() - 3..], BLUE), "{pixels:?}");
}

#[test]
fn flips_double_the_training_rows_and_levels_make_tokens() {
    let case = Case::new();
    let picture = RgbImage::from_fn(2, 1, |x, _| if x == 0 { Rgb(RED) } else { Rgb(BLUE) });
    case.write("in/1.png", encoded(&picture.into(), ImageFormat::Png));
    prepare(&case, "--input in --val in --labels none --flip");
    let (plain, mirrored) = ([RED, BLUE].concat(), [BLUE, RED].concat());
    assert_eq!(rows(&case, Split::Train), [(plain.clone(), None), (mirrored, None)]);
    assert_eq!(rows(&case, Split::Validation), [(plain, None)]);
    assert!(case.folder().image().unwrap().flip);

    let output = prepare(&case, "--input in --val in --labels none --as-tokens 4 --channels 1");
    assert!(output.stdout.contains("as 1x2 tokens of 4 values"), "{}", output.stdout);
    // Luma 76 and 29; BOS is 5, the mask 4.
    assert_eq!(case.tokens(Split::Train), [[5, 1, 0]]);
    for (args, says) in [
        ("--as-tokens 1", "--as-tokens 1 must lie between 2 and 256"),
        ("--channels 2", "--channels 2 must be 1 (grey) or 3"),
        ("--size 0", "--size 0"),
        ("--crop adm", "--crop adm has no effect without --size"),
        ("--val-fraction 1", "--val-fraction 1 must lie between 0 and 1"),
    ] {
        let message = refusal(&case, &format!("--input in {args}"));
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn broken_pictures_are_named_and_stop_or_are_counted() {
    let case = Case::new();
    case.write("in/a/good.png", png(RED));
    for (name, format) in [("x.jpg", ImageFormat::Jpeg), ("x.png", ImageFormat::Png), ("x.webp", ImageFormat::WebP)] {
        let bytes = noisy(format);
        for length in [bytes.len() / 2, bytes.len() - 2, 40] {
            let path = format!("in/a/{name}");
            case.write(&path, &bytes[..length]);
            // The last two bytes of a PNG are those of a checksum after the pixels.
            if name == "x.png" && length == bytes.len() - 2 {
                continue;
            }
            let message = refusal(&case, "--input in --val in --size 4");
            assert!(message.contains(name) && message.contains("--skip-bad"), "{length}: {message}");
            std::fs::remove_file(case.path(&path)).unwrap();
        }
    }
    case.write("in/a/empty.png", b"").write("in/a/text.png", b"not a picture at all");
    let output = prepare(&case, "--input in --val in --size 4 --skip-bad");
    for says in ["bad pictures were left out: 4", "empty.png is empty", "text.png is no PNG, JPEG or WebP"] {
        assert!(output.stderr.contains(says), "{says}: {}", output.stderr);
    }
    assert_eq!(case.folder().manifest().skipped_bad, 4);
    assert_eq!(rows(&case, Split::Train).len(), 1);

    std::fs::remove_file(case.path("in/a/good.png")).unwrap();
    let message = refusal(&case, "--input in --val in --size 4 --skip-bad");
    assert!(message.contains("no training row is left"), "{message}");
}

#[test]
fn what_is_no_set_of_pictures_is_said_in_one_sentence() {
    let case = Case::new();
    std::fs::create_dir_all(case.path("empty")).unwrap();
    case.write("gifs/1.gif", b"GIF89a");
    case.write("hollow/a/1.png", png(RED)).write("hollow/b/notes.txt", b"nothing");
    case.write("mixed/1.png", png(RED)).write("mixed/2.png", plain(BLUE, 5, 4, ImageFormat::Png));
    case.write("loose/a/1.png", png(RED)).write("loose/2.png", png(RED));
    case.write("both/1.png", png(RED)).write("both/x.tar", b"");
    case.write("one/a/1.png", png(RED));
    case.write("names.txt", "b\n");
    for (args, says) in [
        ("--input empty", "empty has no picture"),
        ("--input gifs", "is a gif picture, and only PNG, JPEG and WebP are read"),
        ("--input gifs/1.gif", "is a gif picture"),
        ("--input nothing/*.png", "no file matches nothing/*.png"),
        ("--input hollow", "hollow/b: is a class folder without"),
        ("--input mixed --labels none --val mixed", "mixed/2.png has 5x4 pixels, and mixed/1.png has 4x4; give --size"),
        ("--input loose", "loose/2.png: lies beside the class folders"),
        ("--input both", "both: has pictures and tar files"),
        ("--input one", "no picture is left for validation"),
        ("--input one --val one --class-names names.txt", "the label \"a\", which is no name of a class"),
        ("--input one --val one --labels nothing.csv", "cannot read nothing.csv"),
    ] {
        let message = refusal(&case, args);
        assert!(message.contains(says), "{args}: {message}");
    }
    // An existing folder is kept.
    case.write("out2/keep", b"x");
    let output = case.run(&["images", "--input", "one", "--val", "one", "--out", "out2"]);
    assert!(!output.ok && output.stderr.contains("out2 exists already"), "{}", output.stderr);
    assert!(case.path("out2/keep").exists());
}

#[test]
fn a_dry_run_says_what_is_read_and_writes_nothing() {
    let case = Case::new();
    case.write("in/a/1.png", png(RED))
        .write("in/b/1.png", b"broken")
        .write("in/b/2.png", png(RED))
        .write("in/x.txt", "");
    let output = case.run(&["images", "--input", "in", "--dry-run"]);
    assert!(output.ok, "{}", output.stderr);
    let expected = "read: in (3 pictures, labelled by their folders)\n\
        left out: in/x.txt is no picture and no file of pictures\n\
        pictures: 3\n  a: 1\n  b: 2\n";
    assert_eq!(output.stdout, expected);
    assert!(!case.path("out").exists());
}

#[test]
fn a_stopped_run_leaves_nothing() {
    let case = Case::new();
    for index in 0..3 {
        case.write(&format!("in/{index}.png"), png(RED));
    }
    let inputs = PictureInputs::find(&[common::display(&case.path("in"))], &PictureOptions::default()).unwrap();
    let out = case.path("out");
    let options = PrepareImages {
        inputs: &inputs,
        validation: &PictureValidation::Fraction(0.4),
        size: Some(2),
        crop: Crop::Center,
        flip: false,
        channels: None,
        levels: None,
        class_names: None,
        skip_bad: false,
        out: &out,
    };
    let mut seen = Vec::new();
    let result = prepare_images(&options, &mut |progress| {
        seen.push((progress.done, progress.total));
        if progress.done > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(result, Err(DataError::Stopped)), "{result:?}");
    assert_eq!(seen.last(), Some(&(3, 3)));
    assert_eq!(std::fs::read_dir(case.path("")).unwrap().count(), 1);
}
