//! The engine: batches that change between steps, and everything that a caller can do to it.
#![cfg(feature = "flex")]

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use pgm_infer::engine::{Engine, EngineOptions, Finish, RequestId, StepMetrics, Task, TaskEvent, TaskInput};
use pgm_infer::sample::order::CandidateLimit;
use pgm_infer::{DrawSettings, OrderKind, SampleSettings, SampledRow, Schedule};
use pgm_model::{AutoregressiveConfig, MaskedConfig, ModelConfig};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

mod common;
use common::{VOCAB, backbone, model, partition};

fn engine(max_batch: usize) -> Engine {
    Engine::new(model(&partition()), &EngineOptions { max_batch, ..EngineOptions::default() }).unwrap()
}

fn task(text: &str, steps: usize, seed: u64) -> Task {
    let mut task = Task::new(TaskInput::Prompt(text.into()));
    (task.settings.steps, task.seed) = (steps, seed);
    task
}

fn quiet(_: &TaskEvent) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn an_engine_is_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    let engine = engine(4);
    shared(&engine);
    let texts: Vec<String> = std::thread::scope(|scope| {
        let ask = |seed| {
            scope.spawn({
                let engine = &engine;
                move || engine.generate(task("w1 w2", 5, seed), &mut quiet)
            })
        };
        let asked: Vec<_> = (0..6).map(ask).collect();
        asked.into_iter().map(|thread| thread.join().unwrap().unwrap()[0].text.clone()).collect()
    });
    for (seed, text) in texts.iter().enumerate() {
        assert!(text.starts_with("w1 w2 "), "{text}");
        assert_eq!(*text, engine.generate(task("w1 w2", 5, seed as u64), &mut quiet).unwrap()[0].text);
    }
}

fn autoregressive() -> ModelConfig {
    ModelConfig::Autoregressive(AutoregressiveConfig { backbone: backbone(), n_blocks: 1 })
}

fn masked() -> ModelConfig {
    ModelConfig::Masked(MaskedConfig { backbone: backbone(), n_blocks: 1 })
}

#[test]
fn an_engines_task_has_the_settings_of_its_model() {
    let schedule = |config| {
        let engine = Engine::new(model(&config), &EngineOptions::default()).unwrap();
        engine.task(TaskInput::Prompt("w1".into())).settings.schedule
    };
    assert_eq!((schedule(partition()), schedule(masked())), (Schedule::Uniform, Schedule::Binomial));
}

fn random_task(rng: &mut StdRng) -> Task {
    let length = rng.random_range(2..24_usize);
    let mut given = vec![(0, backbone().bos_index as u32)];
    for position in 1..length {
        if rng.random_bool(0.3) && given.len() + 1 < length {
            given.push((position, rng.random_range(0..VOCAB as u32 - 1)));
        }
    }
    let name = OrderKind::NAMES[rng.random_range(0..OrderKind::NAMES.len())];
    let looked = if rng.random_bool(0.5) { CandidateLimit::All } else { CandidateLimit::Some(rng.random_range(1..9)) };
    let draws = [
        DrawSettings::default(),
        DrawSettings { temperature: 0.0, ..DrawSettings::default() },
        DrawSettings { temperature: 0.7, top_k: 5, top_p: 0.9 },
    ];
    let settings = SampleSettings {
        steps: rng.random_range(1..30),
        schedule: if rng.random_bool(0.5) { Schedule::Uniform } else { Schedule::Binomial },
        order: name.parse::<OrderKind>().unwrap().with_candidates(looked),
        draw: draws[rng.random_range(0..draws.len())],
        ..SampleSettings::default()
    };
    let mut task = Task::new(TaskInput::Tokens { given, length });
    (task.settings, task.seed, task.n) = (settings, rng.random(), rng.random_range(1..3));
    task
}

fn sampled(engine: &Engine, task: &Task) -> Vec<SampledRow> {
    let answers = engine.generate(task.clone(), &mut quiet).unwrap();
    answers.into_iter().map(|answer| answer.sampled).collect()
}

// A beginning of any length, some of them alike.
fn random_continuation(rng: &mut StdRng) -> Task {
    let length = rng.random_range(2..24_usize);
    let n_given = rng.random_range(1..length);
    let word = rng.random_range(0..2);
    let mut given: Vec<(usize, u32)> = (0..n_given).map(|position| (position, word)).collect();
    given[0].1 = backbone().bos_index as u32;
    let mut task = random_task(rng);
    (task.text, task.settings.order) = (TaskInput::Tokens { given, length }, OrderKind::Uniform);
    task
}

#[test]
fn a_thousand_mixtures_give_each_task_the_tokens_it_gets_alone() {
    mixtures(1000, &partition(), random_task);
}

#[test]
fn continuations_share_evaluations_and_keep_the_tokens_they_get_alone() {
    mixtures(300, &autoregressive(), random_continuation);
}

#[test]
fn masked_rows_share_evaluations_and_keep_the_tokens_they_get_alone() {
    mixtures(200, &masked(), random_task);
}

#[allow(clippy::print_stdout)]
fn mixtures(n: usize, config: &ModelConfig, random_task: impl Fn(&mut StdRng) -> Task) {
    let mut rng = StdRng::seed_from_u64(11);
    let engine =
        |max_batch| Engine::new(model(config), &EngineOptions { max_batch, ..EngineOptions::default() }).unwrap();
    let (together, alone) = (engine(8), engine(1));
    let (mut n_rows, mut n_ties) = (0, 0);
    for _ in 0..n {
        let tasks: Vec<Task> = (0..rng.random_range(2..6)).map(|_| random_task(&mut rng)).collect();
        // All are handed over at once or with a pause, so that some join while others are half done.
        let streams: Vec<_> = tasks
            .iter()
            .map(|task| {
                if rng.random_bool(0.3) {
                    std::thread::sleep(Duration::from_micros(rng.random_range(0..3000)));
                }
                together.events(task.clone()).unwrap()
            })
            .collect();
        for (task, events) in tasks.iter().zip(streams) {
            let mut found: Vec<Option<SampledRow>> = vec![None; task.n];
            for event in events {
                match event {
                    TaskEvent::Done(answer) => found[answer.index] = Some(answer.sampled),
                    TaskEvent::Failed { error, .. } => panic!("{error}"),
                    TaskEvent::Step { .. } => {}
                }
            }
            for (found, expected) in found.into_iter().zip(sampled(&alone, task)) {
                let found = found.expect("every sample ends");
                n_rows += 1;
                if found.tokens != expected.tokens || found.order != expected.order {
                    // Only if rounding could decide: at a boundary of the draw, or between two equally sure positions.
                    let chooses = !matches!(
                        task.settings.order,
                        OrderKind::Uniform | OrderKind::Sequential | OrderKind::LowDiscrepancy | OrderKind::Dilated
                    );
                    let near = expected.margins.iter().any(|&margin| margin < 1e-5);
                    assert!(near || chooses, "{task:?}\n{expected:?}\n{found:?}");
                    n_ties += 1;
                }
            }
        }
    }
    println!("{n_rows} rows in {n} mixtures, {n_ties} decided by rounding");
    assert!(n_ties * 500 <= n_rows, "{n_ties} of {n_rows}");
}

#[test]
fn events_tell_every_step_and_then_the_answer() {
    let engine = engine(2);
    let mut task = task("w3", 7, 9);
    task.n = 3;
    let mut tokens: Vec<HashMap<usize, u32>> = vec![HashMap::new(); 3];
    let mut answers = 0;
    for event in engine.events(task).unwrap() {
        match event {
            TaskEvent::Step { index, step, n_steps, change } => {
                assert!(step <= n_steps && n_steps == 7);
                tokens[index].extend(change.decoded);
            }
            TaskEvent::Done(answer) => {
                answers += 1;
                assert_eq!(
                    (answer.finish.clone(), answer.steps, answer.seed),
                    (Finish::Complete, 7, 9 + answer.index as u64)
                );
                assert_eq!(tokens[answer.index].len(), answer.sampled.order.len());
                let told =
                    tokens[answer.index].iter().all(|(&position, &token)| answer.sampled.tokens[position] == token);
                assert!(told);
            }
            TaskEvent::Failed { error, .. } => panic!("{error}"),
        }
    }
    assert_eq!(answers, 3);
}

#[test]
fn a_listener_that_leaves_cancels_its_task_and_others_go_on() {
    let engine = engine(2);
    let mut events = engine.events(task("w1", 20, 1)).unwrap();
    let other = engine.events(task("w2", 20, 2)).unwrap();
    assert!(matches!(events.next(), Some(TaskEvent::Step { .. })));
    drop(events);
    let last = other.last();
    assert!(matches!(last, Some(TaskEvent::Done(answer)) if answer.finish == Finish::Complete));
    // A listener that breaks gets the row as far as it came.
    let (sender, answers) = std::sync::mpsc::channel();
    let mut n = 0;
    let listener = move |event| match event {
        TaskEvent::Step { .. } => {
            n += 1;
            if n == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
        event => {
            sender.send(event).unwrap();
            ControlFlow::Continue(())
        }
    };
    engine.submit(task("w1", 20, 1), Box::new(listener)).unwrap();
    let Ok(TaskEvent::Done(answer)) = answers.recv() else { panic!("a cancelled task is answered") };
    assert!(answer.finish == Finish::Cancelled && answer.steps == 3 && !answer.sampled.complete, "{answer:?}");
}

#[test]
fn a_late_task_ends_with_what_it_has() {
    let engine = engine(1);
    let mut late = task("w1", 20, 1);
    late.timeout = Some(Duration::ZERO);
    let answer = engine.generate(late, &mut quiet).unwrap().remove(0);
    assert!(answer.finish == Finish::Timeout && !answer.sampled.complete && answer.text == "w1", "{answer:?}");
}

#[test]
fn a_stop_string_ends_and_cuts_the_text() {
    let engine = engine(1);
    let sequential = |stop: Vec<String>| {
        let mut task = task("w1", 24, 5);
        task.settings.order = OrderKind::Sequential;
        task.stop = stop;
        engine.generate(task, &mut quiet).unwrap().remove(0)
    };
    let whole = sequential(Vec::new());
    let words: Vec<&str> = whole.text.split(' ').collect();
    let stop = words[6].to_string();
    let cut = sequential(vec![stop.clone()]);
    assert_eq!(cut.finish, Finish::Stop(stop.clone()));
    assert!(cut.steps < whole.steps, "it ends before all is decoded");
    // A row without BOS may draw it; nothing is given then, and any text may end it.
    for seed in 0..40 {
        let mut task = Task::new(TaskInput::Tokens { given: vec![(5, 1)], length: 8 });
        (task.settings.steps, task.seed, task.stop) = (3, seed, vec!["w".into()]);
        assert!(matches!(engine.generate(task, &mut quiet).unwrap()[0].finish, Finish::Stop(_) | Finish::Complete));
    }
    assert!(whole.text.starts_with(&cut.text) && !cut.text[2..].contains(&stop), "{} | {}", whole.text, cut.text);
}

#[test]
fn a_stop_string_cuts_each_blank_and_given_text_stays() {
    let engine = engine(1);
    let fill = |stop: Vec<String>| {
        let mut task = Task::new(TaskInput::Template("w1 {6} w2 {6} w3".into(), 2));
        (task.settings.steps, task.seed, task.stop) = (12, 3, stop);
        task.settings.order = OrderKind::Sequential;
        engine.generate(task, &mut quiet).unwrap().remove(0)
    };
    let whole = fill(Vec::new());
    let second: Vec<&str> = whole.blanks[1].text.split_whitespace().collect();
    let stop = format!("{} ", second[3]);
    let cut = fill(vec![stop.clone()]);
    assert_eq!(cut.finish, Finish::Stop(stop.clone()));
    for (cut, whole) in cut.blanks.iter().zip(&whole.blanks) {
        assert_eq!(cut.text, whole.text.split(&stop).next().unwrap());
    }
    assert!(cut.steps < whole.steps && cut.blanks[1].text.len() < whole.blanks[1].text.len(), "{cut:?}");
    let expected = format!("w1{} w2{} w3", cut.blanks[0].text, cut.blanks[1].text);
    assert_eq!(cut.text.split_whitespace().collect::<Vec<_>>(), expected.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn free_blanks_share_the_room_and_given_text_stays() {
    let engine = engine(1);
    let fill = |template: &str, length| {
        let mut task = Task::new(TaskInput::Template(template.into(), 2));
        (task.length, task.settings.steps) = (length, 4);
        engine
            .generate(task, &mut quiet)
            .map(|answers| answers[0].text.split(' ').map(String::from).collect::<Vec<_>>())
    };
    let words = fill("w1 {*} w2 {3} w3 {*}", Some(16)).unwrap();
    assert_eq!(words.len(), 15);
    // 15 words less 3 given less 3 of a blank: 5 and 4 for the free ones.
    assert_eq!((words[0].as_str(), words[6].as_str(), words[10].as_str()), ("w1", "w2", "w3"));
    let error = fill("w1 {*} w2 {*} w3", Some(5)).unwrap_err().to_string();
    assert!(error.contains('6') && error.contains('5'), "{error}");
}

#[test]
fn a_task_that_cannot_be_done_is_refused_at_once() {
    let engine = engine(1);
    let refuse = |task: Task| engine.generate(task, &mut quiet).unwrap_err().to_string();
    assert!(refuse(task("w1", 0, 0)).contains("--steps 0"));
    assert!(refuse(Task { n: 0, ..task("w1", 1, 0) }).contains("-n 0"));
    assert!(refuse(Task { stop: vec![String::new()], ..task("w1", 1, 0) }).contains("stop string"));
    assert!(refuse(Task { length: Some(2), ..task("w1 w2 w3", 1, 0) }).contains("--length is 2"));
    let long = Task::new(TaskInput::Template("w1 {500} w2".into(), 8));
    assert!(refuse(long.clone()).contains("need 503 tokens"), "longer than the model's rows");
    assert!(engine.submit(Task { length: Some(503), ..long }, Box::new(|_| ControlFlow::Break(()))).is_ok());
    let tokens = |given, length| Task::new(TaskInput::Tokens { given, length });
    assert!(refuse(tokens(vec![(0, 99)], 4)).contains("token 99"));
    assert!(refuse(tokens(vec![(9, 1)], 4)).contains("position 9"));
    assert!(refuse(tokens(vec![(0, 1)], 1)).contains("nothing"));
}

#[test]
fn dropping_the_engine_ends_what_it_does() {
    let engine = engine(1);
    let first = engine.events(task("w1", 24, 1)).unwrap();
    let second = engine.events(task("w1", 24, 1)).unwrap();
    drop(engine);
    for events in [first, second] {
        let Some(TaskEvent::Done(answer)) = events.last() else { panic!("every task is answered") };
        assert!(matches!(answer.finish, Finish::Cancelled | Finish::Complete));
    }
}

#[test]
fn a_listener_may_hold_the_engine() {
    let engine = Arc::new(engine(1));
    let (sender, done) = std::sync::mpsc::channel();
    let held = Arc::clone(&engine);
    let listener = move |event| {
        if let TaskEvent::Done(_) = event {
            sender.send(held.model().n_parameters()).unwrap();
        }
        ControlFlow::Continue(())
    };
    engine.submit(task("w1", 8, 0), Box::new(listener)).unwrap();
    drop(engine);
    assert!(done.recv().unwrap() > 0);
    // The worker drops the engine, and ends without waiting for itself.
    assert!(done.recv().is_err());
}

#[test]
fn the_baselines_are_served_too() {
    let configs = [masked(), autoregressive()];
    for config in configs {
        let engine = Engine::new(model(&config), &EngineOptions::default()).unwrap();
        let mut task = task("w1 w2", 6, 3);
        task.n = 2;
        let answers = engine.generate(task, &mut quiet).unwrap();
        assert!(answers.len() == 2 && answers.iter().all(|answer| answer.text.starts_with("w1 w2 ")), "{answers:?}");
    }
    let causal = &autoregressive();
    let engine = Engine::new(model(causal), &EngineOptions::default()).unwrap();
    let refuse = |task: Task| engine.submit(task, Box::new(|_| ControlFlow::Continue(()))).unwrap_err().to_string();
    assert!(refuse(Task::new(TaskInput::Template("w1 {2} w2".into(), 2))).contains("fill a blank"));
    let mut other = task("w1", 6, 3);
    other.settings.order = OrderKind::Dilated;
    assert!(refuse(other).contains("left to right"));
    // A batch is as large as the engine takes; a stop string ends a text before its last token, whatever the others do.
    let small = Engine::new(model(causal), &EngineOptions { max_batch: 2, ..EngineOptions::default() }).unwrap();
    let all = small.generate(Task { n: 5, ..task("w1", 6, 3) }, &mut quiet).unwrap();
    let indices: Vec<usize> = all.iter().map(|answer| answer.index).collect();
    assert_eq!(indices, [0, 1, 2, 3, 4]);
    let words: Vec<&str> = all[0].text.split(' ').collect();
    let stop = format!("{} ", words[3]);
    let mut cut = small.generate(Task { stop: vec![stop.clone()], n: 2, ..task("w1", 6, 3) }, &mut quiet).unwrap();
    assert_eq!(cut[1].sampled.complete, !all[1].text.contains(&stop), "{cut:?}");
    let cut = cut.remove(0);
    assert!(cut.finish == Finish::Stop(stop) && !cut.sampled.complete && all[0].text.starts_with(&cut.text), "{cut:?}");
    // An engine that goes does not write the text to its end.
    let events = engine.events(Task { length: Some(600), ..task("w1", 6, 3) }).unwrap();
    let mut events = events.inspect(|event| assert!(!matches!(event, TaskEvent::Failed { .. })));
    assert!(events.next().is_some());
    drop(engine);
    assert!(matches!(events.last(), Some(TaskEvent::Done(answer)) if answer.finish == Finish::Cancelled));
}

#[test]
fn a_task_knows_its_deadline_and_its_listener_is_dropped_by_then() {
    let engine = engine(1);
    let mut long = task("w1", 1 << 20, 1);
    long.timeout = Some(Duration::from_millis(200));
    // Stands for a place in the queue of a server. The events are not read.
    let (place, (sender, events)) = (Arc::new(()), std::sync::mpsc::channel());
    let held = Arc::clone(&place);
    let listener = move |event| {
        let _ = &held;
        let _ = sender.send(event);
        ControlFlow::Continue(())
    };
    let began = std::time::Instant::now();
    let handle = engine.submit(long, Box::new(listener)).unwrap();
    assert!(handle.deadline().is_some_and(|deadline| deadline > began));
    // The next task starts when the first has ended.
    assert!(engine.generate(task("w2", 1, 1), &mut quiet).is_ok());
    assert_eq!(Arc::strong_count(&place), 1, "the listener is gone before its events are read");
    assert!(matches!(events.iter().last(), Some(TaskEvent::Done(answer)) if answer.finish == Finish::Timeout));
    assert!(engine.submit(task("w1", 1, 1), Box::new(|_| ControlFlow::Continue(()))).unwrap().deadline().is_none());
}

#[test]
fn a_small_request_gets_its_turn_behind_a_large_one() {
    const STEPS: usize = 8;
    // Rows of a step, samples of the large request, its tasks, the steps of its samples.
    for (max_batch, n, n_tasks, large_steps) in [(1, 64, 1, STEPS), (2, 9, 1, 20), (4, 64, 1, 20), (16, 2, 32, 20)] {
        let steps = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&steps);
        let watch: pgm_infer::engine::StepObserver =
            Arc::new(move |_: &StepMetrics| _ = count.fetch_add(1, Ordering::Relaxed));
        let options = EngineOptions { max_batch, watch: Some(watch), ..EngineOptions::default() };
        let engine = Engine::new(model(&partition()), &options).unwrap();
        let small = task("w1 w2", STEPS, 7);
        let alone = engine.generate(small.clone(), &mut quiet).unwrap();

        // The engine's thread waits in the first step of the large request until the small one is submitted.
        let ((tell_started, started), (go_on, wait)) = (channel(), channel::<()>());
        let (tell_seed, seeds) = channel();
        let request = Some(RequestId::new());
        let (mut is_first, mut waiting) = (true, Some((tell_started, wait)));
        for index in 0..n_tasks {
            let seed = 100 * (index as u64 + 1);
            let large = Task { n, request, ..task("w3", large_steps, seed) };
            let (tell_seed, mut waiting) =
                (tell_seed.clone(), waiting.take().filter(|_| std::mem::take(&mut is_first)));
            let listener = move |event| {
                if let Some((tell_started, wait)) = waiting.take() {
                    tell_started.send(()).unwrap();
                    wait.recv().unwrap();
                }
                if let TaskEvent::Done(answer) = event {
                    tell_seed.send((answer.seed, answer.sampled.tokens)).unwrap();
                }
                ControlFlow::Continue(())
            };
            engine.submit(large, Box::new(listener)).unwrap();
        }
        drop(tell_seed);
        started.recv().unwrap();
        let before = steps.load(Ordering::Relaxed);
        let (tell_done, done) = channel();
        let counted = Arc::clone(&steps);
        let listener = move |event| {
            if let TaskEvent::Done(answer) = event {
                tell_done.send((counted.load(Ordering::Relaxed), answer.sampled)).unwrap();
            }
            ControlFlow::Continue(())
        };
        engine.submit(small, Box::new(listener)).unwrap();
        go_on.send(()).unwrap();
        let (after, sampled) = done.recv().unwrap();
        let took = after - before;
        assert!((STEPS..=2 * STEPS + 1).contains(&took), "{took} steps with {max_batch} rows");
        assert_eq!(sampled, alone[0].sampled, "{max_batch} rows");
        // Samples of the large request that made room went on where they were.
        let found: HashMap<u64, Vec<u32>> = seeds.iter().collect();
        assert_eq!(found.len(), n * n_tasks);
        for (seed, tokens) in found.iter().take(8) {
            assert_eq!(*tokens, engine.generate(task("w3", large_steps, *seed), &mut quiet).unwrap()[0].sampled.tokens);
        }
    }
}
