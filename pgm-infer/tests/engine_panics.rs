//! Panics of a custom order, a listener, the tokenizer and the device: each is an error of its task, and the engine goes on.
#![cfg(feature = "flex")]

use std::ops::ControlFlow;
use std::sync::Arc;

use pgm_infer::engine::{Engine, EngineOptions, Task, TaskEvent, TaskInput};
use pgm_infer::sample::order::{Candidate, Order, OrderContext, OrderStart};
use pgm_infer::{InferError, SampledRow};

mod common;
use common::{failing_model, model, model_whose_tokenizer_panics, partition};

fn task(text: &str, steps: usize, seed: u64) -> Task {
    let mut task = Task::new(TaskInput::Prompt(text.into()));
    (task.settings.steps, task.seed) = (steps, seed);
    task
}

fn quiet(_: &TaskEvent) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

// Panics where it is told to.
struct Broken(&'static str);

impl Broken {
    fn at(&self, place: &str) {
        assert!(self.0 != place, "broken at {place}");
    }
}

impl Order for Broken {
    fn candidates(&mut self, context: &OrderContext<'_>, _rng: &mut dyn rand::Rng) -> Vec<usize> {
        if context.open.len() < 20 {
            self.at("candidates");
        }
        context.open[..context.n_to_decode].to_vec()
    }

    fn select(&mut self, _context: &OrderContext<'_>, drawn: &[Candidate]) -> Vec<usize> {
        self.at("select");
        (0..drawn.len()).collect()
    }

    fn needs_stats(&self) -> bool {
        self.at("needs_stats");
        false
    }

    fn chooses_count(&self) -> bool {
        self.at("chooses_count");
        false
    }

    fn remask(&mut self, _: &OrderContext<'_>, _rng: &mut dyn rand::Rng) -> Vec<usize> {
        self.at("remask");
        Vec::new()
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        self.at("drop");
    }
}

#[test]
fn an_order_or_a_listener_may_panic_and_the_others_go_on() {
    let options = EngineOptions { max_batch: 4, ..EngineOptions::default() };
    let engine = Engine::new(model(&partition()), &options).unwrap();
    // The second of three rows breaks.
    let in_order = |place: &'static str| {
        let n_made = std::sync::atomic::AtomicUsize::new(0);
        let start = move |_: OrderStart<'_>| {
            let number = n_made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            assert!(place != "start" || number != 1, "broken at start");
            Box::new(Broken(if number == 1 { place } else { "" })) as Box<dyn Order>
        };
        Task { n: 3, order: Some(Arc::new(start)), ..task("w1", 11, 0) }
    };
    let whole = engine.generate(in_order("nowhere"), &mut quiet).unwrap();
    for place in ["start", "needs_stats", "chooses_count", "remask", "candidates", "select"] {
        let failure = engine.generate(in_order(place), &mut quiet).unwrap_err();
        assert!(failure.to_string().contains(&format!("broken at {place}")), "{failure}");
        assert!(matches!(*failure.error, InferError::Request(_)), "no fault of the device");
        let others: Vec<(usize, &SampledRow)> = failure.answers.iter().map(|a| (a.index, &a.sampled)).collect();
        assert_eq!(others, [(0, &whole[0].sampled), (2, &whole[2].sampled)], "{place}");
        let decoded = failure.partial.map(|partial| partial.order.len());
        assert_eq!(
            decoded,
            match place {
                "candidates" => Some(4),
                "remask" | "select" => Some(0),
                _ => None,
            },
            "{place}"
        );
    }
    assert_eq!(engine.generate(in_order("drop"), &mut quiet).unwrap().len(), 3);
    // In a listener, and when a listener is dropped.
    let listener = Box::new(|_| panic!("a listener"));
    engine.submit(task("w1", 3, 0), listener).unwrap();
    let bomb = Bomb;
    let listener = move |_| {
        let _ = &bomb;
        ControlFlow::Continue(())
    };
    engine.submit(task("w1", 3, 0), Box::new(listener)).unwrap();
    assert!(engine.generate(task("w1", 3, 0), &mut quiet).is_ok());
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("what a listener holds")
    }
}

#[test]
fn a_failing_device_is_an_error_and_the_engine_goes_on() {
    let engine = Engine::new(failing_model(), &EngineOptions::default()).unwrap();
    let failure = engine.generate(Task { n: 2, ..task("w30", 3, 0) }, &mut quiet).unwrap_err();
    assert!(matches!(*failure.error, InferError::Device(_)), "{failure}");
    assert_eq!(failure.partial.unwrap().tokens[1], 30, "the given token");
    assert!(engine.generate(task("w1", 3, 0), &mut quiet).is_ok());
}

#[test]
fn a_panic_of_the_tokenizer_is_an_error_of_its_task_and_the_engine_goes_on() {
    let engine = Engine::new(model_whose_tokenizer_panics(), &EngineOptions::default()).unwrap();
    // The tokenizer panics when it decodes token 7.
    let with_token = |token| {
        let mut task = Task::new(TaskInput::Tokens { given: vec![(0, 38), (1, token)], length: 4 });
        task.settings.steps = 2;
        task
    };
    for stop in [Vec::new(), vec!["w1 w2 w3".to_string()]] {
        let failure = engine.generate(Task { stop, ..with_token(7) }, &mut quiet).unwrap_err();
        assert!(matches!(*failure.error, InferError::Tokenizer { .. }), "{failure}");
        assert!(engine.is_alive());
    }
    assert!(engine.model().decode(&[7]).is_err());
    // A task without that token is not affected, if it does not draw it.
    let mut answered = 0;
    for seed in 0..20 {
        answered += usize::from(engine.generate(Task { seed, ..with_token(1) }, &mut quiet).is_ok());
    }
    assert!(answered > 0 && engine.is_alive());
}
