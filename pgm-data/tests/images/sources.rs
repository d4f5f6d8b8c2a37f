//! Files with many pictures: IDX, CIFAR, tar, Parquet.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field, Fields, Schema};
use image::ImageFormat;
use pgm_data::Split;

use crate::common::{Case, gzip};
use crate::helpers::*;

fn idx(images: &[[u8; 6]], labels: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let header = |magic: u8, n: usize| [vec![0, 0, 8, magic], (n as u32).to_be_bytes().to_vec()].concat();
    let sides = [2_u32.to_be_bytes(), 3_u32.to_be_bytes()].concat();
    let of_images = [header(3, images.len()), sides, images.concat()].concat();
    (of_images, [header(1, labels.len()), labels.to_vec()].concat())
}

#[test]
fn idx_files_find_their_labels_and_are_grey() {
    let case = Case::new();
    let pictures = [[1, 2, 3, 4, 5, 6], [255; 6], [0, 9, 0, 9, 0, 9]];
    let (of_images, of_labels) = idx(&pictures, &[7, 0, 2]);
    case.write("in/train-images-idx3-ubyte.gz", gzip(&of_images));
    case.write("in/train-labels-idx1-ubyte.gz", gzip(&of_labels));
    let (of_tests, of_test_labels) = idx(&pictures[..1], &[9]);
    case.write("in/t10k-images.idx3-ubyte", of_tests).write("in/t10k-labels.idx1-ubyte", of_test_labels);
    let output = prepare(&case, "--input in");
    assert!(output.stdout.contains("3 pictures of 2x3x1, 10 classes"), "{}", output.stdout);
    let expected =
        [(pictures[0].to_vec(), named("7")), (pictures[1].to_vec(), named("0")), (pictures[2].to_vec(), named("2"))];
    assert_eq!(rows(&case, Split::Train), expected);
    assert_eq!(rows(&case, Split::Validation), [(pictures[0].to_vec(), named("9"))]);
    // A single file, three channels, no labels.
    prepare(&case, "--input in/train-images-idx3-ubyte.gz --channels 3 --labels none --val-fraction 0.4");
    assert_eq!(rows(&case, Split::Train)[0], (pictures[0].iter().flat_map(|&grey| [grey; 3]).collect(), None));

    let (_, too_few) = idx(&pictures, &[7, 0]);
    case.write("in/train-labels-idx1-ubyte.gz", gzip(&too_few));
    let message = refusal(&case, "--input in");
    assert!(message.contains("has 2 labels") && message.contains("has 3 images"), "{message}");
    std::fs::remove_file(case.path("in/train-labels-idx1-ubyte.gz")).unwrap();
    case.write("in/train-images-idx3-ubyte.gz", &of_images[..of_images.len() - 1]);
    let message = refusal(&case, "--input in/train-images-idx3-ubyte.gz");
    assert!(message.contains("ends before its last picture"), "{message}");
}

#[test]
fn cifar_files_have_planes_of_colours() {
    let case = Case::new();
    let planes = |color: [u8; 3]| color.iter().flat_map(|&value| [value; 1024]).collect::<Vec<u8>>();
    let ten = |labels: &[u8]| {
        labels.iter().flat_map(|&label| [vec![label], planes([label, 100, 200])].concat()).collect::<Vec<u8>>()
    };
    case.write("ten/data_batch_1.bin", ten(&[1, 0]))
        .write("ten/data_batch_2.bin", ten(&[1]))
        .write("ten/test_batch.bin", ten(&[0]));
    case.write("ten/batches.meta.txt", "airplane\nautomobile\n\n");
    prepare(&case, "--input ten");
    let expected = [(vec![1, 100, 200], named("automobile")), (vec![0, 100, 200], named("airplane"))];
    assert_eq!(firsts(&case, Split::Train)[..2], expected);
    assert_eq!((rows(&case, Split::Train).len(), rows(&case, Split::Validation).len()), (3, 1));
    assert_eq!(rows(&case, Split::Train)[0].0.len(), 3072);

    let hundred = |fine: u8| [vec![5, fine], planes([fine, 0, 9])].concat();
    case.write("hundred/train.bin", hundred(1)).write("hundred/test.bin", hundred(0));
    case.write("hundred/fine_label_names.txt", "apple\nbear\n");
    prepare(&case, "--input hundred");
    assert_eq!(firsts(&case, Split::Train), [(vec![1, 0, 9], named("bear"))]);
    case.write("ten/data_batch_2.bin", [0; 3000]);
    assert!(refusal(&case, "--input ten").contains("no whole number of CIFAR-10 pictures"));
}

fn tar(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn tar_files_of_webdataset_give_pictures_with_their_labels() {
    let case = Case::new();
    let sample = |key: &str, color, label: &str| {
        vec![
            (format!("{key}.cls"), label.as_bytes().to_vec()),
            (format!("{key}.jpg"), plain(color, 4, 4, ImageFormat::Png)),
            (format!("{key}.seg.png"), b"another picture of the sample".to_vec()),
        ]
    };
    let members = |samples: Vec<Vec<(String, Vec<u8>)>>| {
        let members: Vec<(String, Vec<u8>)> = samples.concat();
        tar(&members.iter().map(|(name, content)| (name.as_str(), content.clone())).collect::<Vec<_>>())
    };
    let first = members(vec![sample("a/0001", RED, "2\n"), sample("a/0002", BLUE, "0")]);
    case.write("wds/train-000.tar", &first);
    case.write("wds/train-001.tar", members(vec![sample("b/0001", GREEN, "1")]));
    case.write("names.json", "[\"zero\", \"one\", \"two\"]");
    prepare(&case, "--input wds/train-*.tar --val wds/train-001.tar --class-names names.json");
    let expected = [(RED.to_vec(), named("two")), (BLUE.to_vec(), named("zero")), (GREEN.to_vec(), named("one"))];
    assert_eq!(firsts(&case, Split::Train), expected);

    // JSON, gzip, names of classes, and a file that is no sample.
    let json = tar(&[
        ("README.md", b"about the data".to_vec()),
        ("x.png", png(RED)),
        ("x.json", b"{\"label\": \"warm\", \"width\": 4}".to_vec()),
        ("y.json", b"{\"class\": \"cold\"}".to_vec()),
        ("y.png", png(BLUE)),
    ]);
    case.write("json.tar.gz", gzip(&json));
    prepare(&case, "--input json.tar.gz --val json.tar.gz");
    assert_eq!(firsts(&case, Split::Train), [(RED.to_vec(), named("warm")), (BLUE.to_vec(), named("cold"))]);

    // Class folders in an archive.
    case.write("folders.tar", tar(&[("d/cats/x.1.png", png(RED)), ("d/dogs/x.1.png", png(BLUE))]));
    prepare(&case, "--input folders.tar --val folders.tar --labels folder");
    assert_eq!(case.folder().class_names(), ["cats", "dogs"]);

    case.write("half.tar", tar(&[("x.png", png(RED)), ("x.cls", b"0".to_vec()), ("y.png", png(BLUE))]));
    let message = refusal(&case, "--input half.tar");
    assert!(message.contains("y.png of half.tar has no label"), "{message}");
    // Within a member, and between two of them.
    for length in [1556, 1024] {
        case.write("cut.tar", &first[..length]);
        let message = refusal(&case, "--input cut.tar --labels none");
        assert!(message.contains("cut.tar") && message.contains("it was cut; get it again"), "{message}");
    }
}

fn parquet_of(pictures: &[Option<Vec<u8>>], labels: ArrayRef, features: Option<&str>) -> Vec<u8> {
    let batch = batch_of(pictures, labels, features);
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

// As the hub's library writes a data set to the disk (a stream), and as Feather (a file).
fn arrow_of(batch: &RecordBatch) -> [Vec<u8>; 2] {
    let mut stream = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    stream.write(batch).unwrap();
    let mut file = arrow_ipc::writer::FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    file.write(batch).unwrap();
    [stream.into_inner().unwrap(), file.into_inner().unwrap()]
}

fn batch_of(pictures: &[Option<Vec<u8>>], labels: ArrayRef, features: Option<&str>) -> RecordBatch {
    let bytes = BinaryArray::from_iter(pictures.iter().map(|bytes| bytes.as_deref()));
    let paths = StringArray::from_iter(pictures.iter().map(|_| Some("x.png")));
    let fields =
        Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)]);
    let image = StructArray::new(fields.clone(), vec![Arc::new(bytes), Arc::new(paths)], None);
    let fields = vec![
        Field::new("image", DataType::Struct(fields), true),
        Field::new("coarse", DataType::Int64, true),
        Field::new("fine", labels.data_type().clone(), true),
    ];
    let metadata = features.map(|features| ("huggingface".to_string(), features.to_string()));
    let schema = Arc::new(Schema::new_with_metadata(fields, metadata.into_iter().collect::<HashMap<_, _>>()));
    let coarse = Arc::new(Int64Array::from(vec![0; pictures.len()]));
    RecordBatch::try_new(schema, vec![Arc::new(image), coarse, labels]).unwrap()
}

#[test]
fn parquet_files_of_the_hub_know_their_classes() {
    let case = Case::new();
    let features = r#"{"info": {"features": {"image": {"_type": "Image"}, "coarse": {"_type": "Value"},
        "fine": {"names": ["cold", "warm"], "_type": "ClassLabel"}}}}"#;
    let pictures = [Some(png(RED)), Some(png(BLUE))];
    let file = parquet_of(&pictures, Arc::new(Int64Array::from(vec![1, 0])), Some(features));
    case.write("hub/data/train-00000-of-00001.parquet", &file).write("hub/data/test-00000-of-00001.parquet", &file);
    case.write("hub/README.md", "---\nlicense: mit\n---\n");
    prepare(&case, "--input hub");
    let expected = [(RED.to_vec(), named("warm")), (BLUE.to_vec(), named("cold"))];
    assert_eq!(firsts(&case, Split::Train), expected);
    assert_eq!(firsts(&case, Split::Validation), expected);

    // A column of text, chosen by its name.
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["w", "c"]));
    case.write("text.parquet", parquet_of(&pictures, texts, None));
    prepare(&case, "--input text.parquet --val text.parquet --label-column fine");
    assert_eq!(firsts(&case, Split::Train), [(RED.to_vec(), named("w")), (BLUE.to_vec(), named("c"))]);
    for (args, says) in [
        ("--label-column nothing", "has no column \"nothing\", its columns are image, coarse, fine"),
        ("--column coarse", "has no pictures in the column \"coarse\""),
        ("--labels folder", "has its own labels"),
    ] {
        let message = refusal(&case, &format!("--input text.parquet {args}"));
        assert!(message.contains(says), "{message}");
    }
    case.write("null.parquet", parquet_of(&[Some(png(RED)), None], Arc::new(Int64Array::from(vec![0, -1])), None));
    let message = refusal(&case, "--input null.parquet --label-column fine");
    assert!(message.contains("row 2 of null.parquet has no bytes"), "{message}");
    case.write("cut.parquet", &file[..file.len() / 2]);
    assert!(refusal(&case, "--input cut.parquet").contains("not a readable Parquet file"));
}

#[test]
fn arrow_files_give_pictures_as_parquet_does() {
    let case = Case::new();
    let features = r#"{"info": {"features": {"fine": {"names": ["cold", "warm"], "_type": "ClassLabel"}}}}"#;
    let pictures = [Some(png(RED)), Some(png(BLUE))];
    let batch = batch_of(&pictures, Arc::new(Int64Array::from(vec![1, 0])), Some(features));
    for (name, bytes) in ["stream.arrow", "file.feather"].into_iter().zip(arrow_of(&batch)) {
        case.write(name, &bytes);
        prepare(&case, &format!("--input {name} --val {name} --label-column fine"));
        let expected = [(RED.to_vec(), named("warm")), (BLUE.to_vec(), named("cold"))];
        assert_eq!(firsts(&case, Split::Train), expected, "{name}");
        case.write(name, &bytes[..bytes.len() / 2]);
        let message = refusal(&case, &format!("--input {name} --label-column fine"));
        assert!(message.contains(name) && !message.contains("panicked"), "{message}");
    }
}

#[test]
fn the_digits_of_the_examples_become_pixels_and_tokens() {
    let case = Case::new();
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/data/mnist");
    let output = prepare(&case, &format!("--input {digits} --size 28 --channels 1"));
    assert!(output.stdout.contains("training: 9500 pictures of 28x28x1, 10 classes"), "{}", output.stdout);
    let folder = case.folder();
    let (train, validation) = (folder.pixels(Split::Train).unwrap(), folder.pixels(Split::Validation).unwrap());
    assert_eq!((train.len(), validation.len()), (9500, 500));
    // The first digit of the file is a 7: its bar is in the upper half, and nothing is at the edge.
    assert_eq!(train.label(0).unwrap(), Some(7));
    let seven = train.pixels(0).unwrap();
    assert!(
        seven[..28].iter().all(|&value| value == 0) && seven[9 * 28 + 10..9 * 28 + 16].iter().all(|&value| value > 50)
    );

    let output = prepare(&case, &format!("--input {digits} --as-tokens 16"));
    assert!(output.stdout.contains("500 pictures of 28x28x1 as 28x28 tokens of 16 values"), "{}", output.stdout);
    let row = case.folder().rows(Split::Train).unwrap().row(0).unwrap();
    assert_eq!((row.tokens.len(), row.tokens[0], row.label), (785, 17, Some(7)));
    assert_eq!(
        row.tokens[1..].iter().map(|&level| level as u8).collect::<Vec<u8>>(),
        seven.iter().map(|value| value / 16).collect::<Vec<u8>>()
    );
}
