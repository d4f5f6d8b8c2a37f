//! Models that know one codec's codes.
#![cfg(all(feature = "flex", feature = "cli"))]

use std::path::PathBuf;
use std::process::Command;

use burn::tensor::Device;
use pgm_infer::Picture;
use pgm_model::codec::{Autoencoder, AutoencoderConfig, Codec, CodecConfig, CodecNetwork, QuantizerConfig};
use pgm_model::{
    BackboneConfig, ImageConfig, ModelConfig, Network, PartitionConfig, Projection, Queries, model_folder,
};

const HEIGHT: usize = 4;
const WIDTH: usize = 6;

fn codec() -> Codec {
    let quantizer = QuantizerConfig::Fsq { levels: vec![4, 3] };
    let config = AutoencoderConfig { height: HEIGHT, width: WIDTH, channels: 1, widths: vec![3], blocks: 1, quantizer };
    let network = CodecNetwork::Autoencoder(Autoencoder::new(&config, &Device::flex()));
    Codec::new(CodecConfig::Autoencoder(config), network).unwrap()
}

fn picture(index: usize) -> Picture {
    let pixels = (0..HEIGHT * WIDTH).map(|place| (place * 37 + index * 91) as u8).collect();
    Picture::new(WIDTH, HEIGHT, 1, pixels)
}

struct Folder(tempfile::TempDir);

impl Folder {
    // Two codecs, a model of the first codec's codes.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let ours = codec();
        ours.save(&path("codec")).unwrap();
        codec().save(&path("other")).unwrap();
        let names: Vec<String> = ["cat", "dog"].map(String::from).to_vec();
        let image = ImageConfig {
            codec: Some(ours.hash().to_string()),
            class_names: names,
            ..ImageConfig::new(2, ours.config().grid())
        };
        let config = ModelConfig::Partition(PartitionConfig {
            backbone: BackboneConfig::for_codes(ours.config().n_codes(), 32, 2, image),
            encoder_blocks: 1,
            decoder_blocks: 1,
            queries: Queries::LearnFreqs,
            projection: Projection::Linear,
            sets: Default::default(),
        });
        let network = Network::new(&config, &Device::flex()).with_noise(0.5, 1);
        model_folder::save(&path("model"), &config, &network).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    // Whether a command succeeds, and all that it says.
    fn run(&self, args: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgm-infer"));
        let output = command.current_dir(self.0.path()).args(args).args(["--device", "flex"]).output().unwrap();
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

#[test]
fn a_model_takes_its_codec_and_no_other() {
    let folder = Folder::new();
    let generate = ["generate", "--model", "model", "--steps", "3", "--seed", "2", "--class", "dog", "-n", "3"];
    let with = |rest: &[&'static str]| [&generate[..], rest].concat();
    folder.succeeds(&with(&["--codec", "codec", "--out", "pictures", "--animate", "film.png"]));
    let first = Picture::read(&folder.path("pictures/000000.png"), 1).unwrap();
    assert_eq!((first.width(), first.height()), (WIDTH, HEIGHT));
    let says = folder.fails(&with(&["--codec", "other", "--out", "a.png"]));
    assert!(says.contains("the model has codes of the codec") && says.contains("mean other pictures"), "{says}");
    let says = folder.fails(&with(&["--out", "a.png"]));
    assert!(says.contains("12 codes of a codec") && says.contains("--codec"), "{says}");
    let says = folder.fails(&with(&["--codec", "missing", "--out", "a.png"]));
    assert!(says.contains("missing"), "{says}");

    picture(1).write_png(&folder.path("in.png")).unwrap();
    let edit =
        ["edit", "--model", "model", "--codec", "codec", "--image", "in.png", "--box", "4,0,2,1", "--out", "out.png"];
    folder.succeeds(&edit);
    let edited = Picture::read(&folder.path("out.png"), 1).unwrap();
    assert_eq!(edited.window(0, 2, 1, 2), picture(1).window(0, 2, 1, 2), "far from the box");
}

#[test]
fn a_model_takes_the_codec_in_its_own_folder() {
    let folder = Folder::new();
    let generate = ["generate", "--model", "model", "--steps", "3", "--seed", "2", "--class", "dog", "--out"];
    folder.succeeds(&[&generate[..], &["named.png", "--codec", "codec"]].concat());
    std::fs::rename(folder.path("codec"), folder.path("model/codec")).unwrap();
    folder.succeeds(&[&generate[..], &["own.png"]].concat());
    assert!(std::fs::read(folder.path("own.png")).unwrap() == std::fs::read(folder.path("named.png")).unwrap());
    let says = folder.fails(&[&generate[..], &["other.png", "--codec", "other"]].concat());
    assert!(says.contains("mean other pictures"), "{says}");
    // Another model's codec in the folder is not taken either.
    std::fs::rename(folder.path("model/codec"), folder.path("codec")).unwrap();
    std::fs::rename(folder.path("other"), folder.path("model/codec")).unwrap();
    let says = folder.fails(&[&generate[..], &["wrong.png"]].concat());
    assert!(says.contains("mean other pictures") && !folder.path("wrong.png").exists(), "{says}");
}

#[cfg(feature = "server")]
mod serve {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpStream;
    use std::process::{Child, Stdio};

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    const TEXT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/byte-model=tiny");

    // A server that is ready, and its address.
    struct Server(Child, String);

    impl Server {
        fn start(folder: &Folder, args: &[&str]) -> Self {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pgm-infer"));
            command.current_dir(folder.0.path()).args(["serve", "--port", "0", "--device", "flex"]).args(args);
            let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
            let mut log = BufReader::new(child.stderr.take().unwrap());
            let (mut line, mut address) = (String::new(), String::new());
            while !line.contains("ready") {
                line.clear();
                assert!(log.read_line(&mut line).unwrap() > 0, "the server ends");
                if let Some((_, found)) = line.trim().split_once("listening at http://") {
                    address = found.to_string();
                }
            }
            Self(child, address)
        }

        fn post(&self, route: &str, body: &serde_json::Value) -> serde_json::Value {
            let (mut connection, body) = (TcpStream::connect(&self.1).unwrap(), body.to_string());
            let head = format!("POST {route} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json", self.1);
            write!(connection, "{head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            let mut answer = String::new();
            connection.read_to_string(&mut answer).unwrap();
            serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn png(answer: &serde_json::Value, index: usize) -> Vec<u8> {
        let image = answer["data"][index]["b64_json"].as_str().unwrap_or_else(|| panic!("{answer}"));
        STANDARD.decode(image).unwrap()
    }

    #[test]
    fn a_server_gives_the_bytes_that_the_command_writes() {
        let folder = Folder::new();
        let models = ["--model", TEXT, "--model", "model=coded", "--model", "model=again", "--codec", "codec"];
        let server = Server::start(&folder, &models);
        let flags = ["--steps", "3", "--seed", "2", "--class", "dog", "--cfg", "1.5", "--codec", "codec"];
        let with = |rest: &[&'static str]| [rest, &flags[..]].concat();
        folder.succeeds(&with(&["generate", "--model", "model", "-n", "2", "--out", "pictures"]));
        let body = serde_json::json!({"prompt": "dog", "steps": 3, "seed": 2, "cfg": 1.5, "n": 2, "model": "again"});
        let answer = server.post("/v1/images/generations", &body);
        for index in 0..2 {
            let file = std::fs::read(folder.path(&format!("pictures/00000{index}.png"))).unwrap();
            assert_eq!(png(&answer, index), file);
        }
        picture(1).write_png(&folder.path("in.png")).unwrap();
        folder.succeeds(&with(&[
            "edit", "--model", "model", "--image", "in.png", "--box", "2,0,2,2", "--out", "out.png",
        ]));
        let image = STANDARD.encode(std::fs::read(folder.path("in.png")).unwrap());
        let body = serde_json::json!({
            "image": image, "box": [2, 0, 2, 2], "class": "dog", "steps": 3, "seed": 2, "cfg": 1.5,
        });
        let answer = server.post("/v1/images/edits", &body);
        assert_eq!(png(&answer, 0), std::fs::read(folder.path("out.png")).unwrap());
        let text = server.post("/v1/completions", &serde_json::json!({"prompt": "a", "max_tokens": 2}));
        assert_eq!(text["model"], "tiny", "{text}");
    }

    #[test]
    fn a_server_without_the_right_codec_says_which_one_is_missing() {
        let folder = Folder::new();
        let serve = ["serve", "--port", "0", "--log-level", "error", "--model", "model"];
        for (flags, says) in [
            (&[][..], "12 codes of a codec; name its folder with --codec"),
            (&["--codec", "other"], "mean other pictures"),
            (&["--codec", "other", "--codec", "other"], "its codes are those of the codec"),
            (&["--codec", "codec", "--codec", "other"], "--codec other belongs to no --model"),
            (&["--codec", "missing"], "missing"),
        ] {
            let said = folder.fails(&[&serve[..], flags].concat());
            assert!(said.contains(says), "{flags:?}: {said}");
        }
    }
}
