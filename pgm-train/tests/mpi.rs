//! Several processes under Open MPI's launcher. Built with the feature `mpi` only; without mpirun the tests say so and pass.
#![cfg(all(unix, feature = "mpi"))]

mod common;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use pgm_data::Mode;

const TRAIN: &str = env!("CARGO_BIN_EXE_pgm-train");

const MODEL: &str = "[model]\nhidden = 32\nheads = 4\nencoder = 1\ndecoder = 1\nlength = 32\ndropout = 0.1\n";
const RUN: &str = "batch = 8\naccumulate = 2\nseed = 5\nlog_every = 1\nvalidate_every = 4\nvalidate_rows = 12\nvalidate_times = 4\n\
                   checkpoint_every = 4\n";
const OPTIM: &str = "[optim]\nlr = 2e-3\nwarmup = 3\nema = 0.9\nschedule = \"constant\"\n";

fn config(objective: &str) -> String {
    format!("objective = \"{objective}\"\nsteps = 8\n{RUN}{MODEL}{OPTIM}")
}

/// A folder with data and configurations.
struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    /// Nothing where there is no mpirun.
    fn new() -> Option<Self> {
        if Command::new("mpirun").arg("--version").output().is_err() {
            println!("left out: there is no mpirun");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text.txt");
        let line =
            |index: usize| format!("line {index} of {} is {}\n", index * 7, "a text to learn ".repeat(index % 4));
        std::fs::write(&text, (0..150).map(line).collect::<String>()).unwrap();
        common::byte_data(&text, &folder.path().join("data"), (32, Mode::Pack), 0.1);
        Some(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// `pgm-train fit` of a configuration into `out`, with more flags.
    fn fit(&self, config: &Path, out: &str, more: &[&str]) -> Vec<String> {
        let own = ["fit", "--config"].map(str::to_string).into_iter().chain([config.display().to_string()]);
        let rest = ["--data".to_string(), self.path("data").display().to_string(), "--out".to_string()];
        let out = self.path(out).display().to_string();
        [TRAIN.to_string()]
            .into_iter()
            .chain(own)
            .chain(rest)
            .chain([out])
            .chain(more.iter().map(|f| (*f).to_string()))
            .collect()
    }

    fn weights(&self, out: &str) -> Vec<u8> {
        std::fs::read(self.path(out).join("model/model.safetensors")).unwrap()
    }

    /// The figures of a run without times.
    fn figures(&self, out: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.path(out).join("metrics.jsonl")).unwrap();
        let without_times = |line: &str| {
            let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
            for key in ["seconds", "tokens_per_second", "world"] {
                value.as_object_mut().unwrap().remove(key);
            }
            value.to_string()
        };
        text.lines().map(without_times).collect()
    }
}

fn mpirun(ranks: usize, command: &[String]) -> Command {
    several(&[], &[(ranks, command)])
}

/// mpirun of several commands, each with a number of ranks.
fn several(flags: &[&str], commands: &[(usize, &[String])]) -> Command {
    let mut mpirun = Command::new("mpirun");
    mpirun.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]).args(flags);
    for (index, (ranks, command)) in commands.iter().enumerate() {
        if index > 0 {
            mpirun.arg(":");
        }
        mpirun.args(["-n", &ranks.to_string()]).args(*command);
    }
    mpirun.env("RAYON_NUM_THREADS", "1").stdin(Stdio::null());
    mpirun
}

fn succeed(mut command: Command) -> Output {
    let output = command.output().unwrap();
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{out}\n{err}");
    output
}

/// What is written to stderr by a command that must fail, and the seconds that it took.
fn fail(mut command: Command) -> (String, f64) {
    let start = Instant::now();
    let output = command.output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{err}");
    (err, start.elapsed().as_secs_f64())
}

fn alone(command: &[String]) -> Command {
    let mut process = Command::new(&command[0]);
    process.args(&command[1..]).env("RAYON_NUM_THREADS", "1");
    process
}

/// A running command and the lines that it writes.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn new(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (send, lines) = channel();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let from_err = send.clone();
        std::thread::spawn(move || {
            BufReader::new(err).lines().map_while(Result::ok).for_each(|line| drop(from_err.send(line)))
        });
        std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).for_each(|line| drop(send.send(line)))
        });
        Self { child, lines }
    }

    fn wait_for(&self, text: &str) {
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(120)) {
            if line.contains(text) {
                return;
            }
            seen.push(line);
        }
        panic!("{text:?} was not written, but {seen:#?}");
    }

    /// The processes of the ranks, in order.
    fn ranks(&self) -> Vec<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let status = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let after = status.rsplit(')').next().unwrap_or_default();
            let parent: Option<u32> = after.split_whitespace().nth(1).and_then(|parent| parent.parse().ok());
            if parent == Some(self.child.id()) {
                let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
                let rank = environment.split(|&byte| byte == 0).find_map(|variable| {
                    std::str::from_utf8(variable).ok()?.strip_prefix("OMPI_COMM_WORLD_RANK=")?.parse::<usize>().ok()
                });
                found.extend(rank.map(|rank| (rank, entry.file_name().into_string().unwrap())));
            }
        }
        found.sort();
        found.into_iter().map(|(_, process)| process).collect()
    }

    fn end(mut self) -> (std::process::ExitStatus, String, f64) {
        let start = Instant::now();
        let status = self.child.wait().unwrap();
        (status, self.lines.iter().collect::<Vec<_>>().join("\n"), start.elapsed().as_secs_f64())
    }
}

fn signal(name: &str, process: &str) {
    assert!(Command::new("kill").args([name, process]).status().unwrap().success());
}

#[test]
fn two_ranks_give_the_numbers_of_one_process_to_the_last_digit() {
    let Some(case) = Case::new() else { return };
    for objective in ["partition", "masked", "masked-complementary", "autoregressive"] {
        let toml = case.write("run.toml", &config(objective));
        let (one, two) = (format!("{objective}-1"), format!("{objective}-2"));
        succeed(alone(&case.fit(&toml, &one, &[])));
        // Over sockets, as between machines.
        let sockets: &[&str] = match objective {
            "partition" => &["--mca", "btl", "self,tcp", "--mca", "btl_tcp_if_include", "lo"],
            _ => &[],
        };
        succeed(several(sockets, &[(2, &case.fit(&toml, &two, &[]))]));
        assert_eq!(case.figures(&two), case.figures(&one), "{objective}");
        assert!(case.weights(&two) == case.weights(&one), "{objective}");
        // The weights of step 12 have the moments of step 8 in them.
        for (out, ranks) in [(&one, 1), (&two, 2)] {
            let more = case.fit(&toml, out, &["--resume", "--set", "steps=12"]);
            succeed(if ranks == 1 { alone(&more) } else { mpirun(2, &more) });
        }
        assert!(case.weights(&two) == case.weights(&one), "{objective}, resumed");
        let text = std::fs::read_to_string(case.path(&two).join("metrics.jsonl")).unwrap();
        assert!(text.contains("\"world\":{\"size\":2,"), "{text}");
    }
}

#[test]
fn ranks_that_add_their_own_micro_batches_first_differ_by_rounding_and_are_reproducible() {
    let Some(case) = Case::new() else { return };
    let toml = case.write(
        "run.toml",
        &config("partition").replace("accumulate = 2", "accumulate = 8").replace("steps = 8", "steps = 20"),
    );
    succeed(alone(&case.fit(&toml, "one", &[])));
    for out in ["four", "again"] {
        succeed(mpirun(4, &case.fit(&toml, out, &[])));
    }
    assert!(case.weights("four") == case.weights("again"));
    let loss = |out: &str| -> Vec<f64> {
        let figures =
            case.figures(out).into_iter().map(|line| serde_json::from_str::<serde_json::Value>(&line).unwrap());
        figures.filter_map(|line| line["train_loss"].as_f64()).collect()
    };
    let (one, four) = (loss("one"), loss("four"));
    assert_eq!(one.len(), 20);
    assert!(one.iter().zip(&four).all(|(one, four)| ((one - four) / one).abs() < 1e-5), "{one:?} {four:?}");
    // One micro-batch for each rank: the sums are those of one process.
    let toml = case.write("run4.toml", &config("partition").replace("accumulate = 2", "accumulate = 4"));
    succeed(alone(&case.fit(&toml, "exact-1", &[])));
    succeed(mpirun(4, &case.fit(&toml, "exact-4", &[])));
    assert!(case.weights("exact-1") == case.weights("exact-4"));
}

#[test]
fn two_ranks_distil_as_one_process_does() {
    let Some(case) = Case::new() else { return };
    let toml = case.write("run.toml", &config("partition"));
    succeed(alone(&case.fit(&toml, "teacher", &[])));
    let toml = case.write("distill.toml", &format!("rounds = 2\nround_steps = 4\nteacher_steps = 32\n{RUN}{OPTIM}"));
    let distill = |out: &str, more: &[&str]| -> Vec<String> {
        let [toml, teacher, data, out] = [toml.clone(), case.path("teacher"), case.path("data"), case.path(out)]
            .map(|path| path.display().to_string());
        let flags = ["distill", "--config", &toml, "--teacher", &teacher, "--data", &data, "--out", &out];
        [TRAIN].into_iter().chain(flags).chain(more.iter().copied()).map(str::to_string).collect()
    };
    succeed(alone(&distill("one", &[])));
    // Two ranks do the first round, are stopped, and one process does what is left of the second.
    let running = Running::new(mpirun(2, &distill("two", &[])));
    running.wait_for("round 2 of 2");
    signal("-USR1", &running.child.id().to_string());
    let (_, text, _) = running.end();
    assert!(case.path("two/round-1/model/config.json").exists(), "{text}");
    succeed(alone(&distill("two", &["--resume"])));
    succeed(mpirun(2, &distill("both", &[])));
    for round in ["round-1", "round-2"] {
        assert!(case.weights(&format!("two/{round}")) == case.weights(&format!("one/{round}")), "{round}");
        assert!(case.weights(&format!("both/{round}")) == case.weights(&format!("one/{round}")), "{round}");
    }
}

#[test]
fn ranks_that_disagree_or_cannot_share_the_work_are_refused_with_the_reason() {
    let Some(case) = Case::new() else { return };
    let toml = case.write("run.toml", &config("partition"));
    let other = case.write("other.toml", &config("partition").replace("lr = 2e-3", "lr = 1e-3"));
    let (own, others) = (case.fit(&toml, "run", &[]), case.fit(&other, "run", &[]));
    let (err, _) = fail(several(&[], &[(1, &own), (1, &others)]));
    assert!(
        err.contains("rank 1 was started otherwise than rank 0: optim.lr is 0.001 there and 0.002 on rank 0"),
        "{err}"
    );
    assert_eq!(err.matches("was started otherwise").count(), 1, "{err}");
    assert!(!case.path("run/checkpoints").exists());
    let toml = case.write("run3.toml", &config("partition").replace("accumulate = 2", "accumulate = 4"));
    let (err, _) = fail(mpirun(3, &case.fit(&toml, "run", &[])));
    assert!(err.contains("the 4 micro-batches of a step cannot be divided among 3 ranks"), "{err}");
    let (err, _) = fail(mpirun(2, &[TRAIN.to_string(), "config".to_string()]));
    assert!(err.contains("mpirun started 2 processes, but this command runs in one"), "{err}");
}

#[test]
fn a_run_that_loses_a_rank_ends_at_once_and_goes_on_with_any_number_of_ranks() {
    let Some(case) = Case::new() else { return };
    let toml = case.write("run.toml", &config("partition").replace("steps = 8", "steps = 60"));
    succeed(alone(&case.fit(&toml, "whole", &[])));
    for (lost, ranks) in [(1, 2), (0, 1)] {
        let out = format!("killed-{lost}");
        // Rank 0 saves after every step, so it is likely to be killed while it writes.
        let running = Running::new(mpirun(2, &case.fit(&toml, &out, &["--set", "checkpoint_every=1"])));
        running.wait_for("step 9  saved");
        signal("-9", &running.ranks()[lost]);
        let (status, text, seconds) = running.end();
        assert!(!status.success() && seconds < 10.0, "{seconds} s: {text}");
        assert!(text.contains(&format!("rank {lost}")), "{text}");
        let resume = case.fit(&toml, &out, &["--resume", "--set", "checkpoint_every=1"]);
        succeed(if ranks == 1 { alone(&resume) } else { mpirun(ranks, &resume) });
        assert!(case.weights(&out) == case.weights("whole"), "resumed on {ranks}");
    }
}

#[test]
fn a_rank_that_hangs_is_named_and_all_end() {
    let Some(case) = Case::new() else { return };
    let toml = case.write("run.toml", &config("partition").replace("steps = 8", "steps = 5000"));
    for stopped in [1, 0] {
        let out = format!("hung-{stopped}");
        let running = Running::new(mpirun(
            3,
            &case.fit(&toml, &out, &["--exchange-timeout", "3", "--set", "accumulate=3", "batch=9"]),
        ));
        running.wait_for("step 4  saved");
        signal("-STOP", &running.ranks()[stopped]);
        let (status, text, seconds) = running.end();
        assert!(!status.success() && seconds < 20.0, "{seconds} s: {text}");
        let named = format!("rank {stopped} did not come to ");
        assert!(text.contains(&named) && text.contains("within 3 seconds"), "{text}");
        assert_eq!(text.matches("did not come").count(), 1, "{text}");
    }
}

#[test]
fn a_full_disk_on_rank_0_ends_all_with_one_sentence() {
    let Some(case) = Case::new() else { return };
    let toml = case.write("run.toml", &config("partition"));
    let command = case.fit(&toml, "full", &[]);
    // No file of rank 0 may be larger than 20 blocks of 1024 bytes: writing a checkpoint fails.
    let limited = ["bash", "-c", "trap '' XFSZ; ulimit -f 20; exec \"$@\"", "bash"].map(str::to_string);
    let first: Vec<String> = limited.into_iter().chain(command.clone()).collect();
    let (err, seconds) = fail(several(&[], &[(1, &first), (1, &command)]));
    assert!(err.contains("rank 0: cannot write") && err.matches("cannot write").count() == 1, "{err}");
    assert!(seconds < 60.0, "{seconds}");
}

#[test]
fn sigusr1_stops_all_ranks_after_a_step_which_is_saved() {
    let Some(case) = Case::new() else { return };
    let toml = case.write("run.toml", &config("partition").replace("steps = 8", "steps = 40"));
    succeed(alone(&case.fit(&toml, "whole", &[])));
    let running = Running::new(mpirun(2, &case.fit(&toml, "stopped", &[])));
    running.wait_for("step 5/40");
    // mpirun passes it on to all ranks.
    signal("-USR1", &running.child.id().to_string());
    let (status, text, _) = running.end();
    assert!(status.code() == Some(130) && text.contains("continue with --resume"), "{status} {text}");
    succeed(mpirun(2, &case.fit(&toml, "stopped", &["--resume"])));
    assert!(case.weights("stopped") == case.weights("whole"));
}
