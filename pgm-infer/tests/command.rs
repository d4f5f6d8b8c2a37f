//! Flags of the command `pgm-infer`, as a user gives them.
#![cfg(feature = "cli")]

use std::process::Command;

// Whether the command succeeds, and what it writes to stderr.
fn run(args: &[&str], rust_log: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgm-infer"));
    let output = command.args(args).env("RUST_LOG", rust_log).output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn an_unknown_log_level_is_refused_as_a_flag_and_ignored_in_the_environment() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/desktop/model");
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
fn the_benchmarks_sizes_are_checked() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/desktop/model");
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
}

#[cfg(all(unix, feature = "server"))]
mod serve {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::net::UnixStream;
    use std::process::{Child, Stdio};

    use super::*;

    const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/desktop/model=tiny");

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
        rustix::process::kill_process(id, rustix::process::Signal::HUP).unwrap();
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
