//! Draws pictures on the model's engine, or refills a part of one, and shows them while they fill. A job waits for the
//! engine's events and decodes on a thread of its own.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pgm_infer::engine::{Finish, ImageEngine, ImageTask, TaskEvent};
use pgm_infer::picture::{Edit, EditRun, Filling};
use pgm_infer::{InferError, SampleRequest, SampleSettings};

use super::drawing::Shown;
use super::preview::{Budget, Preview};
use crate::settings::sentence;

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Work {
    /// Draws pictures: class and seed of each.
    Draw(Vec<(Option<usize>, u64)>),
    /// Refills the region of an edit.
    Refill {
        /// The picture and the region.
        edit: Box<Edit>,
        /// The class; none for no class in particular.
        class: Option<usize>,
        /// The seed.
        seed: u64,
    },
}

/// What a job tells.
#[derive(Clone, Debug)]
pub enum JobEvent {
    /// A step is done.
    Step {
        /// Steps done.
        done: usize,
        /// Steps in all; an order that chooses its own count may need fewer.
        total: usize,
        /// The pictures that look other than before, with their numbers; a refill has number 0.
        shown: Vec<(usize, Arc<Shown>)>,
    },
    /// The job is over; not complete if it was cancelled.
    Ended {
        /// Whether everything was drawn.
        complete: bool,
    },
    /// The job failed, in one sentence.
    Failed(String),
}

/// A model with its settings and the work for it.
#[derive(Clone, Debug)]
pub struct Job {
    /// The model, on its engine.
    pub engine: Arc<ImageEngine>,
    /// The sampler's settings.
    pub settings: SampleSettings,
    /// The work.
    pub work: Work,
}

impl Job {
    /// Starts the job. It ends after the current step once the returned flag is set, or once `send` returns false; its last
    /// event is [`JobEvent::Ended`] or [`JobEvent::Failed`].
    pub fn start(self, send: impl Fn(JobEvent) -> bool + Send + 'static) -> Arc<AtomicBool> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let flag = cancelled.clone();
        std::thread::spawn(move || {
            let run = Run { job: &self, cancelled: &flag, send: &send };
            let end = match catch_unwind(AssertUnwindSafe(|| run.run())) {
                Ok(Ok(complete)) => JobEvent::Ended { complete },
                Ok(Err(error)) => JobEvent::Failed(sentence(&error.to_string())),
                Err(_) => JobEvent::Failed("The device failed; open the model again or choose another device.".into()),
            };
            send(end);
        });
        cancelled
    }
}

struct Run<'a> {
    job: &'a Job,
    cancelled: &'a AtomicBool,
    send: &'a dyn Fn(JobEvent) -> bool,
}

impl Run<'_> {
    fn run(&self) -> Result<bool, InferError> {
        match &self.job.work {
            Work::Draw(pictures) => self.draw(pictures),
            Work::Refill { edit, class, seed } => self.refill(edit, *class, *seed),
        }
    }

    // Whether the job goes on.
    fn tell(&self, (done, total): (usize, usize), shown: Vec<(usize, Arc<Shown>)>) -> bool {
        (self.send)(JobEvent::Step { done, total, shown }) && !self.cancelled.load(Ordering::Relaxed)
    }

    // Runs rows on the engine until `observe` fails or breaks. Whether all of them are complete.
    fn sample(
        &self,
        rows: Vec<SampleRequest>,
        observe: &mut dyn FnMut(TaskEvent) -> Result<ControlFlow<()>, InferError>,
    ) -> Result<bool, InferError> {
        let (mut events, mut complete) = (self.job.engine.events(ImageTask::new(rows, self.job.settings))?, true);
        while let Some(event) = events.next() {
            match event {
                TaskEvent::Failed { error, .. } => return Err(error),
                TaskEvent::Done(output) if output.finish != Finish::Complete => complete = false,
                event => {
                    if observe(event)?.is_break() {
                        events.handle().cancel();
                    }
                }
            }
        }
        Ok(complete)
    }

    fn draw(&self, pictures: &[(Option<usize>, u64)]) -> Result<bool, InferError> {
        let model = self.job.engine.model();
        let rows: Vec<SampleRequest> = pictures.iter().map(|&(class, seed)| model.request(class, seed)).collect();
        let mut preview = Preview::new(model, &rows);
        // Steps of all pictures. A picture may need fewer than it has.
        let (mut done, mut total) = (0, self.job.settings.steps);
        let complete = self.sample(rows, &mut |event| {
            let shown = match event {
                TaskEvent::Step { index, n_steps, change, .. } => {
                    (done, total) = (done + 1, n_steps);
                    preview.step(index, &change)?
                }
                TaskEvent::Done(output) => {
                    done += total - output.steps;
                    preview.drawn(output.index);
                    let picture = model.pictures(&[&output.sampled])?.remove(0);
                    vec![(output.index, Shown::complete(picture))]
                }
                TaskEvent::Failed { .. } => Vec::new(),
            };
            let goes_on = self.tell((done / pictures.len(), total), shown);
            Ok(if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        if !complete {
            self.tell((done / pictures.len(), total), preview.rest()?);
        }
        Ok(complete)
    }

    fn refill(&self, edit: &Edit, class: Option<usize>, seed: u64) -> Result<bool, InferError> {
        let model = self.job.engine.model();
        let mut run = EditRun::new(model, Arc::new(edit.clone()), class, seed)?;
        let (width, height, _) = model.codec().shape();
        let (n_windows, mut budget) = (edit.n_windows(width, height, usize::MAX), Budget::new());
        let mut total = n_windows * self.job.settings.steps;
        for number in 0..n_windows {
            let Some(row) = run.next_row(model)? else { break };
            let mut filling = Filling::new(model, &row);
            if number == 0 {
                let shown = Shown::new(run.picture().clone(), run.open_pixels(model, &filling));
                self.tell((0, total), vec![(0, shown)]);
            }
            let complete = self.sample(vec![row], &mut |event| {
                let (step, n_steps) = match event {
                    TaskEvent::Step { step, n_steps, change, .. } => {
                        filling.apply(model, &change);
                        (step, n_steps)
                    }
                    TaskEvent::Done(output) => {
                        run.finish_row(model, &output.sampled)?;
                        return Ok(ControlFlow::Continue(()));
                    }
                    TaskEvent::Failed { .. } => return Ok(ControlFlow::Continue(())),
                };
                let (mut shown, done) = (Vec::new(), number * n_steps + step);
                total = n_windows * n_steps;
                budget.earn();
                if budget.is_left() {
                    let picture = run.preview(model, &filling)?;
                    shown.push((0, Shown::new(picture, run.open_pixels(model, &filling))));
                    budget.spend();
                }
                let goes_on = self.tell((done, total), shown);
                Ok(if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })?;
            if !complete {
                return Ok(false);
            }
        }
        self.tell((total, total), vec![(0, Shown::complete(run.picture().clone()))]);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use pgm_infer::engine::EngineOptions;
    use pgm_infer::picture::Region;
    use pgm_infer::{GenerationConfig, Picture, SamplingPath, StepView};

    use super::*;
    use crate::pictures::tiny::tiny;

    fn engine<const N: usize>(classes: [&str; N]) -> Arc<ImageEngine> {
        Arc::new(ImageEngine::new(tiny(classes), &EngineOptions::default()).unwrap())
    }

    // The events of a job that is cancelled after so many steps.
    fn events(job: Job, cancel_after: usize) -> Vec<JobEvent> {
        let (sender, receiver) = channel();
        let flag = job.start(move |event| sender.send(event).is_ok());
        let mut events = Vec::new();
        for event in receiver {
            if matches!(event, JobEvent::Step { done, .. } if done >= cancel_after) {
                flag.store(true, Ordering::Relaxed);
            }
            events.push(event);
        }
        events
    }

    fn last_shown(events: &[JobEvent], index: usize) -> Option<Arc<Shown>> {
        let of = |event: &JobEvent| match event {
            JobEvent::Step { shown, .. } => {
                shown.iter().find(|(number, _)| *number == index).map(|(_, shown)| shown.clone())
            }
            _ => None,
        };
        events.iter().rev().find_map(of)
    }

    fn settings(steps: usize) -> SampleSettings {
        SampleSettings { steps, ..SampleSettings::for_images(&GenerationConfig::default()) }
    }

    #[test]
    fn a_grid_of_several_batches_fills_to_the_pictures_of_the_library() {
        let engine = engine(["a", "b", "c"]);
        let pictures: Vec<(Option<usize>, u64)> = (0..70).map(|index| (Some(index % 3), index as u64)).collect();
        let work = Work::Draw(pictures.clone());
        let job = Job { engine: engine.clone(), settings: settings(4), work };
        let events = events(job, usize::MAX);
        assert!(matches!(events.last(), Some(JobEvent::Ended { complete: true })));
        let steps: Vec<(usize, usize)> = events
            .iter()
            .filter_map(
                |event| if let JobEvent::Step { done, total, .. } = event { Some((*done, *total)) } else { None },
            )
            .collect();
        assert!(steps.is_sorted() && steps.iter().all(|&(done, total)| done <= total), "{steps:?}");
        assert_eq!(steps.last(), Some(&(4, 4)), "steps of a picture, on average");
        let model = engine.model();
        for index in [0, 37, 63, 64, 69] {
            let (class, seed) = pictures[index];
            let request = model.request(class, seed);
            let continues = &mut |_: &StepView<'_>| ControlFlow::Continue(());
            let output = model.generate(&[request], &settings(4), SamplingPath::Clean, continues).unwrap();
            let expected = model.pictures(&[&output.rows[0]]).unwrap().remove(0);
            assert_eq!(last_shown(&events, index).unwrap(), Shown::complete(expected), "picture {index}");
        }
    }

    #[test]
    fn a_cancelled_grid_shows_what_is_open() {
        let work = Work::Draw(vec![(Some(0), 1), (None, 2)]);
        let events = events(Job { engine: engine(["a"]), settings: settings(100), work }, 3);
        assert!(matches!(events.last(), Some(JobEvent::Ended { complete: false })));
        let shown = last_shown(&events, 1).unwrap();
        assert!(shown.n_open() > 0 && shown.n_open() < 12 * 16, "{}", shown.n_open());
    }

    #[test]
    fn a_refill_shows_the_open_part_and_keeps_the_rest() {
        let engine = engine(["a", "b"]);
        // Wider than the model's pictures: drawn in several windows.
        for (width, height) in [(12, 16), (30, 16)] {
            let picture =
                Picture::new(width, height, 1, (0..width * height).map(|value| (value * 85 % 256) as u8).collect());
            let marked: Vec<bool> = (0..width * height).map(|index| (3..9).contains(&(index / width))).collect();
            let region = Region::of_pixels(&picture, marked.clone()).unwrap();
            let edit = Box::new(Edit::inpaint(picture.clone(), region).unwrap());
            let work = Work::Refill { edit, class: Some(1), seed: 4 };
            let job = Job { engine: engine.clone(), settings: settings(8), work };
            let all = events(job.clone(), usize::MAX);
            let JobEvent::Step { done: 0, shown, .. } = &all[0] else { panic!("{:?}", all[0]) };
            assert_eq!((&shown[0].1.open, &shown[0].1.picture), (&marked, &picture));
            let last = last_shown(&all, 0).unwrap();
            assert!(last.open.is_empty() && last.picture != picture);
            for index in (0..width * height).filter(|&index| !marked[index]) {
                assert_eq!(last.picture.pixels()[index], picture.pixels()[index], "pixel {index}");
            }
            assert!(matches!(all.last(), Some(JobEvent::Ended { complete: true })));
            assert!(matches!(events(job, 2).last(), Some(JobEvent::Ended { complete: false })));
        }
    }

    #[test]
    fn an_impossible_job_is_one_sentence() {
        let job = Job { engine: engine(["a"]), settings: settings(4), work: Work::Draw(vec![(Some(7), 1)]) };
        let events = events(job, usize::MAX);
        assert!(matches!(events.last(), Some(JobEvent::Failed(error)) if error.ends_with('.')), "{events:?}");
    }
}
