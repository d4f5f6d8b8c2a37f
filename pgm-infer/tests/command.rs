//! Flags of the command `pgm-infer`, as a user gives them.
#![cfg(feature = "cli")]

use std::path::Path;
use std::process::Command;

// Whether the command succeeds, and what it writes to stderr.
fn run(args: &[&str], rust_log: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgm-infer"));
    let output = command.args(args).env("RUST_LOG", rust_log).output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn an_unknown_log_level_is_refused_as_a_flag_and_ignored_in_the_environment() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/byte-model");
    for level in ["loud", "info,pgm_infer=loud"] {
        let (succeeds, message) = run(&["--log-level", level, "info", model], "");
        assert!(!succeeds && message.contains("--log-level") && message.contains("debug"), "{message}");
    }
    for (args, rust_log) in [
        (&["info", model][..], "one=two=three"),
        (&["info", model], "pgm_infer=debug"),
        (&["info", model, "--log-level", "info,pgm_infer=debug"], ""),
        (&["--log-level", "off", "info", model], ""),
    ] {
        let (succeeds, message) = run(args, rust_log);
        assert!(succeeds, "{args:?} {rust_log}: {message}");
    }
}

#[test]
fn a_model_that_is_not_there_is_told_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = folder.path().join("nothing").display().to_string();
    for model in [&nothing, &format!("{nothing}@best"), "demo-digit"] {
        let (succeeds, message) = run(&["generate", "--model", model, "--prompt", "x"], "");
        assert!(!succeeds && message.contains(&format!("{model} is not there; name a model folder")), "{message}");
        assert_eq!(message.contains("demo or demo-digits"), cfg!(feature = "demo"), "{message}");
    }
}

#[test]
#[cfg(feature = "flex")]
fn rows_beyond_the_trained_length_get_a_note_and_others_none() {
    // Trained with rows of 128 tokens.
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/byte-model");
    let generate = |more: &[&str]| {
        let fixed =
            ["generate", "--model", model, "--device", "flex", "--steps", "1", "--seed", "1", "--prompt", "To be"];
        let (succeeds, message) = run(&[&fixed, more].concat(), "");
        assert!(succeeds, "{message}");
        message
    };
    for (length, times) in [("129", "1.0"), ("320", "2.5"), ("1280", "10.0")] {
        let message = generate(&["--length", length]);
        let note = format!("note: {length} tokens are {times} times the 128 of the rows that the model was trained on");
        assert!(message.contains(&note) && message.matches("note:").count() == 1, "{message}");
    }
    for more in [&["--length", "128"][..], &["--length", "40"], &[]] {
        let message = generate(more);
        assert!(!message.contains("note:"), "{message}");
    }
    // Longer than any row may be.
    let fixed = ["generate", "--model", model, "--device", "flex", "--prompt", "To be", "--length", "99999999"];
    let (succeeds, message) = run(&fixed, "");
    assert!(!succeeds && message.contains("--length is 99999999"), "{message}");
}

#[test]
fn several_devices_are_for_the_server_and_of_one_kind() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/byte-model");
    for (args, says) in [
        (&["generate", "--model", model, "--device", "flex,flex"][..], "only pgm-infer serve uses; choose one"),
        (&["bench", "--preset", "owt-6-6", "--device", "cuda:0,cuda:1"], "for example cuda:0"),
        (&["serve", "--model", model, "--device", "cuda:0,flex"], "cuda and flex round differently"),
        (&["serve", "--model", model, "--device", "flex,"], "lacks a device beside a comma"),
        (&["serve", "--model", model, "--port", "0", "--device", "flex,flex:9"], "no such device or driver"),
    ] {
        let (succeeds, message) = run(args, "");
        assert!(!succeeds && message.contains(says), "{args:?}: {message}");
    }
}

#[test]
fn a_training_run_is_named_in_the_place_of_its_model_folder() {
    let folder = tempfile::tempdir().unwrap();
    let run_folder = folder.path().join("run");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/byte-model");
    let newest = run_folder.join("checkpoints/step-00000250");
    for target in [&newest, &run_folder.join("checkpoints/best-00000100")] {
        std::fs::create_dir_all(target).unwrap();
        for file in std::fs::read_dir(&model).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), target.join(file.file_name())).unwrap();
        }
    }
    let training = r#"{"step": 250, "steps": 1000, "validation": {"step": 250, "val_nelbo": 2.5}}"#;
    std::fs::write(newest.join("training.json"), training).unwrap();
    let command = |args: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_pgm-infer")).args(args).current_dir(folder.path()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    let (succeeds, text) = command(&["info", "run"]);
    assert!(succeeds && text.contains("folder: run/checkpoints/step-00000250"), "{text}");
    assert!(text.contains("trained: step 250 of 1000; validation 2.5000 nats per token at step 250"), "{text}");
    let sample = ["--device", "flex", "--length", "8", "--steps", "2", "--seed", "1"];
    for (name, target) in
        [("run@best", "best-00000100"), ("run@step-250", "step-00000250"), ("run@last", "step-00000250")]
    {
        let (succeeds, text) = command(&[&["generate", "--model", name][..], &sample].concat());
        assert!(succeeds && text.contains(&format!("note: the model is run/checkpoints/{target}")), "{text}");
    }
    let (succeeds, text) = command(&["export", "--model", "run@best", "--out", "best.safetensors"]);
    assert!(succeeds && text.contains("--tokenizer run/checkpoints/best-00000100/tokenizer.json"), "{text}");
    let (succeeds, text) =
        command(&["bench", "--model", "run", "--device", "flex", "--length", "8", "--steps", "2", "--runs", "1"]);
    assert!(succeeds, "{text}");
    for (name, says) in [
        ("run@step-300", "no step-300 in run; there are step-250, best (step 100)"),
        ("run@newest", "run@newest: what follows @ is best, last or step-N; there are step-250"),
        (".", ". is no model folder, since it has no config.json, and no training run"),
        ("run/checkpoints/step-00000250@best", "is a model folder, not a training run, and has no @best"),
    ] {
        for args in [
            &["info", name][..],
            &["export", "--model", name, "--out", "x.safetensors"],
            &["generate", "--model", name],
        ] {
            let (succeeds, text) = command(args);
            assert!(!succeeds && text.contains(says) && text.trim().lines().count() == 1, "{args:?}: {text}");
        }
    }
}

#[test]
fn the_benchmarks_sizes_are_checked() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/byte-model");
    for (flag, value, says) in [
        ("--length", "99999999999", "--length is 99999999999, a row has at most 16777216 tokens"),
        ("--length", "16777217", "a row has at most 16777216 tokens"),
        ("--length", "1", "at least 2"),
        ("--length", "0", "at least 2"),
        ("--batch", "99999999999", "--batch is 99999999999"),
        ("--batch", "1000000", "at most 16777216 tokens"),
        ("--steps", "0", "--steps is 0"),
        ("--runs", "18446744073709551615", "--runs is"),
        ("--warmup", "18446744073709551615", "--warmup is"),
    ] {
        for source in [["--model", model], ["--preset", "tiny"]] {
            let (succeeds, message) = run(&["bench", source[0], source[1], flag, value], "");
            let is_known = !message.contains("--preset tiny is unknown");
            assert!(!succeeds && (message.contains(says) || !is_known), "{flag} {value}: {message}");
            assert!(!message.contains("panicked"), "{message}");
        }
    }
    for (preset, flag, value, says) in [
        ("images-49", "--cfg", "-3", "--cfg -3 must lie between 0 and 1000"),
        ("images-49", "--cfg", "1e39", "between 0 and 1000"),
        ("images-49", "--order", "confidence", "bench counts uniform and halton"),
        ("bytes-tiny", "--order", "halton", "are for models of images"),
    ] {
        let (succeeds, message) = run(&["bench", "--preset", preset, flag, value], "");
        assert!(!succeeds && message.contains(says), "{flag} {value}: {message}");
    }
}

#[test]
#[cfg(all(feature = "flex", feature = "demo"))]
fn the_bundled_models_are_known_by_name_and_a_text_is_drawn_while_it_fills() {
    let home = tempfile::tempdir().unwrap();
    let command = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgm-infer"));
        command.current_dir(home.path()).args(args);
        let output =
            command.env("HOME", home.path()).env("XDG_CACHE_HOME", home.path().join("cache")).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let generate =
        ["generate", "--model", "demo", "--device", "flex", "--seed", "4", "--template", "And {6} the king."];
    let (succeeds, text, message) = command(&[&generate[..], &["--animate", "order.svg"]].concat());
    assert!(succeeds && text.starts_with("And ") && text.ends_with(" the king.\n"), "{text}{message}");
    // Its folder names an order, which a flag overrides.
    for (flags, order) in
        [(&["--json"][..], r#""decoding_order":{"halton""#), (&["--json", "--order", "dilated"], r#""dilated""#)]
    {
        let (_, text, message) = command(&[&generate[..], flags].concat());
        assert!(text.contains(order) && text.contains(r#""steps":"#), "{text}{message}");
    }
    let svg = std::fs::read_to_string(home.path().join("order.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("<animate") && svg.contains(">king.<"), "{svg}");
    let (succeeds, _, message) = command(&[&generate[..], &["--animate", "order.png"]].concat());
    assert!(!succeeds && message.contains("must end with .svg"), "{message}");
    let draw = ["generate", "--device", "flex", "--class", "3", "--out", "three.png", "--model"];
    let (succeeds, text, message) = command(&[&draw[..], &["demo-digits"]].concat());
    assert!(succeeds && text.starts_with("1 picture in "), "{text}{message}");
    // A folder of that name is itself.
    std::fs::create_dir(home.path().join("demo-digits")).unwrap();
    let (succeeds, _, message) = command(&[&draw[..], &["demo-digits"]].concat());
    assert!(!succeeds && message.contains("demo-digits"), "{message}");
}

#[cfg(all(unix, feature = "server"))]
mod serve {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::net::UnixStream;
    use std::process::{Child, Stdio};

    use super::*;

    const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/byte-model=tiny");

    struct Server {
        child: Child,
        log: BufReader<std::process::ChildStderr>,
    }

    impl Server {
        // A server that is ready.
        fn start(args: &[&str]) -> Self {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pgm-infer"));
            command.args(["serve", "--model", MODEL]).args(args).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut log = BufReader::new(child.stderr.take().unwrap());
            let mut line = String::new();
            while !line.contains("ready") {
                line.clear();
                assert!(log.read_line(&mut line).unwrap() > 0, "the server ends");
            }
            Self { child, log }
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn ask(connection: &mut UnixStream, body: &str) {
        let n = body.len();
        let head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close";
        write!(connection, "{head}\r\nContent-Length: {n}\r\n\r\n{body}").unwrap();
    }

    #[test]
    fn a_server_on_a_socket_finishes_its_requests_when_the_terminal_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgm.sock");
        let host = format!("unix:{}", path.display());
        let mut server = Server::start(&["--host", &host]);
        let (succeeds, message) = run(&["serve", "--model", MODEL, "--host", &host], "");
        assert!(!succeeds && message.contains("another program listens there"), "{message}");
        let mut half = UnixStream::connect(&path).unwrap();
        half.write_all(b"GET /hea").unwrap();
        let mut connection = UnixStream::connect(&path).unwrap();
        ask(
            &mut connection,
            r#"{"prompt": "To be", "max_tokens": 100, "steps": 1500, "order": "remask", "stream": true,
            "stream_options": {"denoise": true}}"#,
        );
        let mut answer = BufReader::new(connection);
        let mut line = String::new();
        while !line.starts_with("event: denoise") {
            line.clear();
            assert!(answer.read_line(&mut line).unwrap() > 0);
        }
        let id = rustix::process::Pid::from_child(&server.child);
        // A server that was started under nohup, as these tests may be, outlives its terminal.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or("0").trim();
        let is_ignored = u64::from_str_radix(ignored, 16).is_ok_and(|mask| mask & 1 == 1);
        let signal = if is_ignored { rustix::process::Signal::TERM } else { rustix::process::Signal::HUP };
        rustix::process::kill_process(id, signal).unwrap();
        let mut rest = String::new();
        answer.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("[DONE]"), "the stream ends as it should: {}", &rest[rest.len().saturating_sub(300)..]);
        assert!(server.child.wait().unwrap().success());
        assert!(!path.exists(), "the socket is removed");
        let mut log = String::new();
        server.log.read_to_string(&mut log).unwrap();
        assert!(log.contains("stopping"), "{log}");
    }

    #[test]
    fn wrong_flags_of_the_server_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        std::fs::write(&keys, "secret\nk\u{e9}y\n").unwrap();
        for (args, says) in [
            (["--api-key-file", keys.to_str().unwrap()], "line 2"),
            (["--cors-origin", "example.org"], "--cors-origin"),
            (["--host", "unix:"], "--host unix:"),
            (["--socket-mode", "999"], "octal"),
            (["--max-connections", "0"], "--max-connections"),
            (["--idle-timeout", "0"], "--idle-timeout"),
        ] {
            let (succeeds, message) = run(&["serve", "--model", MODEL, "--port", "0", args[0], args[1]], "");
            assert!(!succeeds && message.contains(says), "{args:?}: {message}");
        }
    }
}
