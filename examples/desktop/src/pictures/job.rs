//! Draws pictures, or refills a part of one, on a thread of its own.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pgm_infer::picture::Edit;
use pgm_infer::{ImageModel, InferError, SampleRequest, SampleSettings, SamplingPath, StepView};

use super::drawing::Shown;
use super::preview::{BatchPreview, Budget, WindowPreview};
use crate::settings::sentence;

/// Tokens of a batch: more pictures at once are faster, but a step takes longer to cancel.
const BATCH_TOKENS: usize = 1 << 14;
const MOST_BATCH: usize = 64;
/// Pictures that are decoded at once when their tokens are complete.
const DECODED_AT_ONCE: usize = 8;

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
    /// The model.
    pub model: Arc<ImageModel>,
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

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    // Whether the job goes on.
    fn tell(&self, done: usize, total: usize, shown: Vec<(usize, Arc<Shown>)>) -> ControlFlow<()> {
        let is_heard = (self.send)(JobEvent::Step { done, total, shown });
        if is_heard && !self.is_cancelled() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn draw(&self, pictures: &[(Option<usize>, u64)]) -> Result<bool, InferError> {
        let (model, settings) = (self.job.model.as_ref(), &self.job.settings);
        let batch = (BATCH_TOKENS / model.config().backbone().length).clamp(1, MOST_BATCH);
        let n_batches = pictures.len().div_ceil(batch);
        let (mut done, mut total) = (0, n_batches * settings.steps);
        for (number, pictures) in pictures.chunks(batch).enumerate() {
            let first = number * batch;
            let requests: Vec<SampleRequest> =
                pictures.iter().map(|&(class, seed)| model.request(class, seed)).collect();
            let mut preview = BatchPreview::new(model, &requests, first);
            let (mut failed, mut steps) = (None, 0);
            let output = model.generate(&requests, settings, SamplingPath::Clean, &mut |view: &StepView<'_>| {
                (steps, total) = (view.step, done + view.n_steps * (n_batches - number));
                match preview.step(view.changes) {
                    Ok(shown) => self.tell(done + steps, total, shown),
                    Err(error) => {
                        failed = Some(error);
                        ControlFlow::Break(())
                    }
                }
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
            done += steps;
            if output.rows.iter().any(|row| !row.complete) {
                let _ = self.tell(done, total, preview.rest()?);
                return Ok(false);
            }
            let rows: Vec<_> = output.rows.iter().collect();
            for (group, rows) in rows.chunks(DECODED_AT_ONCE).enumerate() {
                let first = first + group * DECODED_AT_ONCE;
                let drawn = model.pictures(rows)?.into_iter().enumerate();
                let shown = drawn.map(|(index, picture)| (first + index, Shown::complete(picture))).collect();
                let is_last = first + rows.len() == number * batch + pictures.len() && number + 1 == n_batches;
                if self.tell(done, total, shown).is_break() {
                    return Ok(is_last);
                }
            }
        }
        Ok(true)
    }

    fn refill(&self, edit: &Edit, class: Option<usize>, seed: u64) -> Result<bool, InferError> {
        let (model, settings) = (self.job.model.as_ref(), &self.job.settings);
        let windows = model.open_windows(edit)?;
        let canvas = edit.canvas().clone().with_channels(model.codec().shape().2);
        let mut preview = WindowPreview::new(model, canvas, &windows)?;
        if self.tell(0, windows.len() * settings.steps, vec![(0, Arc::new(preview.show()?))]).is_break() {
            return Ok(false);
        }
        let (mut current, mut done, mut steps, mut failed, mut budget) = (0, 0, 0, None, Budget::new());
        let mut step = |number: usize, view: &StepView<'_>| -> Result<ControlFlow<()>, InferError> {
            if number != current {
                (current, done) = (number, done + steps);
                preview = WindowPreview::new(model, preview.show()?.picture, &windows[number..])?;
            }
            steps = view.step;
            preview.step(&view.changes[0]);
            budget.earn();
            let mut shown = Vec::new();
            if budget.is_left() {
                shown.push((0, Arc::new(preview.show()?)));
                budget.spend();
            }
            Ok(self.tell(done + steps, done + view.n_steps * (windows.len() - number), shown))
        };
        let edited = model.edit(edit, class, seed, settings, &mut |number, view| match step(number, view) {
            Ok(flow) => flow,
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        if edited.complete {
            let done = done + steps;
            let _ = self.tell(done, done, vec![(0, Shown::complete(edited.picture))]);
        }
        Ok(edited.complete)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use pgm_infer::picture::Region;
    use pgm_infer::{GenerationConfig, Picture};

    use super::*;
    use crate::pictures::tiny::tiny;

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
        let model = Arc::new(tiny(["a", "b", "c"]));
        let pictures: Vec<(Option<usize>, u64)> = (0..70).map(|index| (Some(index % 3), index as u64)).collect();
        let job = Job { model: model.clone(), settings: settings(4), work: Work::Draw(pictures.clone()) };
        let events = events(job, usize::MAX);
        assert!(matches!(events.last(), Some(JobEvent::Ended { complete: true })));
        let steps: Vec<(usize, usize)> = events
            .iter()
            .filter_map(
                |event| if let JobEvent::Step { done, total, .. } = event { Some((*done, *total)) } else { None },
            )
            .collect();
        assert!(steps.is_sorted() && steps.iter().all(|&(done, total)| done <= total), "{steps:?}");
        assert_eq!(steps.last(), Some(&(8, 8)));
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
        let model = Arc::new(tiny(["a"]));
        let work = Work::Draw(vec![(Some(0), 1), (None, 2)]);
        let events = events(Job { model, settings: settings(100), work }, 3);
        assert!(matches!(events.last(), Some(JobEvent::Ended { complete: false })));
        let shown = last_shown(&events, 1).unwrap();
        assert!(shown.n_open() > 0 && shown.n_open() < 12 * 16, "{}", shown.n_open());
    }

    #[test]
    fn a_refill_shows_the_open_part_and_keeps_the_rest() {
        let model = Arc::new(tiny(["a", "b"]));
        // Wider than the model's pictures: drawn in several windows.
        for (width, height) in [(12, 16), (30, 16)] {
            let picture =
                Picture::new(width, height, 1, (0..width * height).map(|value| (value * 85 % 256) as u8).collect());
            let marked: Vec<bool> = (0..width * height).map(|index| (3..9).contains(&(index / width))).collect();
            let region = Region::of_pixels(&picture, marked.clone()).unwrap();
            let edit = Box::new(Edit::inpaint(picture.clone(), region).unwrap());
            let work = Work::Refill { edit, class: Some(1), seed: 4 };
            let job = Job { model: model.clone(), settings: settings(8), work };
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
        let model = Arc::new(tiny(["a"]));
        let job = Job { model, settings: settings(4), work: Work::Draw(vec![(Some(7), 1)]) };
        let events = events(job, usize::MAX);
        assert!(matches!(events.last(), Some(JobEvent::Failed(error)) if error.ends_with('.')), "{events:?}");
    }
}
