//! Drawing the pictures of a request: each on a task of its own, which asks the engine for one row after the other (an edit
//! has several) and codes pixels beside the engine, one request of a replica at a time.

use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::Instrument;

use super::error::ApiError;
use super::run::{Run, RunningRequest, SampleEvent, in_background};
use super::state::LoadedImages;
use crate::InferError;
use crate::picture::{EditRun, Filling, ImageModel, Picture};
use crate::sample::{RowChange, SampleRequest, SampleSettings, SampledRow};
use crate::unwind::catch;

/// Events of pictures that wait to be sent.
const BUFFERED_EVENTS: usize = 4;

/// A picture to draw.
pub struct PictureSample {
    /// Its class; none for no class in particular.
    pub class: Option<usize>,
    /// Its seed.
    pub seed: u64,
    /// What is drawn.
    pub drawing: Drawing,
}

/// A picture that is being drawn.
pub enum Drawing {
    /// A new one: its row, then the picture.
    New(Option<SampleRequest>, Option<Picture>),
    /// An edit of a given one, and its number of windows.
    Edit(Box<EditRun>, usize),
}

impl Drawing {
    /// A new picture.
    pub fn new(row: SampleRequest) -> Self {
        Self::New(Some(row), None)
    }

    fn n_rows(&self) -> usize {
        match self {
            Self::New(..) => 1,
            Self::Edit(_, n_windows) => *n_windows,
        }
    }

    fn next_row(&mut self, model: &ImageModel) -> Result<Option<SampleRequest>, InferError> {
        match self {
            Self::New(row, _) => Ok(row.take()),
            Self::Edit(run, _) => run.next_row(model),
        }
    }

    fn finish_row(&mut self, model: &ImageModel, row: &SampledRow) -> Result<(), InferError> {
        match self {
            Self::New(_, picture) => *picture = model.pictures(&[row])?.pop(),
            Self::Edit(run, _) => run.finish_row(model, row)?,
        }
        Ok(())
    }

    fn preview(&self, model: &ImageModel, filling: &Filling) -> Result<Picture, InferError> {
        match self {
            Self::New(..) => filling.picture(model),
            Self::Edit(run, _) => run.preview(model, filling),
        }
    }

    fn picture(&self) -> Option<&Picture> {
        match self {
            Self::New(_, picture) => picture.as_ref(),
            Self::Edit(run, _) => Some(run.picture()),
        }
    }
}

/// An event of a picture; pictures are numbered over the request.
pub enum PictureEvent {
    /// How the picture looks before it is finished.
    Partial(PartialPicture),
    /// The picture.
    Done(DrawnPicture),
}

/// An unfinished picture.
pub struct PartialPicture {
    /// The number of the picture.
    pub number: usize,
    /// The number of the event among those of the picture.
    pub index: usize,
    /// Steps so far, and in all, over all windows.
    pub steps: (usize, usize),
    /// The PNG file in base64.
    pub png: String,
}

/// A finished picture.
pub struct DrawnPicture {
    /// The number of the picture.
    pub number: usize,
    pub class: Option<usize>,
    pub seed: u64,
    /// Steps over all windows.
    pub steps: usize,
    /// Cells' tokens that were given, and that were drawn, over all windows.
    pub n_given: usize,
    pub n_drawn: usize,
    /// The PNG file in base64.
    pub png: String,
}

/// The pictures of a request, while they are drawn. Dropping it ends their drawing.
pub struct Pictures {
    events: mpsc::Receiver<Result<PictureEvent, ApiError>>,
    n_running: usize,
    deadline: Option<Instant>,
    late: ApiError,
    _drawing: JoinSet<()>,
}

impl Pictures {
    /// Starts drawing. With `n_partial` each picture has so many events before it is finished, or one a step where it has
    /// fewer steps.
    pub fn start(
        request: &RunningRequest,
        model: &Arc<LoadedImages>,
        samples: Vec<PictureSample>,
        settings: SampleSettings,
        n_partial: usize,
    ) -> Self {
        let (sender, events) = mpsc::channel(BUFFERED_EVENTS);
        let (mut drawing, n_running) = (JoinSet::new(), samples.len());
        for (number, sample) in samples.into_iter().enumerate() {
            let (request, model) = (request.clone(), Arc::clone(model));
            let artist = Artist { request, model, settings, n_partial, number, events: sender.clone() };
            drawing.spawn(artist.run(sample).in_current_span());
        }
        Self { events, n_running, deadline: request.deadline(), late: request.late(), _drawing: drawing }
    }

    /// When the request must be over.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The error of a request that is not over then.
    pub fn late(&self) -> ApiError {
        self.late.clone()
    }

    /// The next event; none after the last picture.
    ///
    /// # Errors
    /// When a picture fails, takes too long, or is ended with the server.
    pub async fn next(&mut self) -> Result<Option<PictureEvent>, ApiError> {
        if self.n_running == 0 {
            return Ok(None);
        }
        // A task that panics sends nothing.
        let event = self.events.recv().await.ok_or_else(ApiError::panicked)??;
        self.n_running -= usize::from(matches!(event, PictureEvent::Done(_)));
        Ok(Some(event))
    }

    /// Waits for all pictures, in the order of their numbers.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn collect(mut self) -> Result<Vec<DrawnPicture>, ApiError> {
        let mut pictures = Vec::new();
        while let Some(event) = self.next().await? {
            if let PictureEvent::Done(picture) = event {
                pictures.push(picture);
            }
        }
        pictures.sort_by_key(|picture| picture.number);
        Ok(pictures)
    }
}

// Draws one picture of a request.
struct Artist {
    request: RunningRequest,
    model: Arc<LoadedImages>,
    settings: SampleSettings,
    n_partial: usize,
    number: usize,
    events: mpsc::Sender<Result<PictureEvent, ApiError>>,
}

impl Artist {
    async fn run(self, sample: PictureSample) {
        let event = self.draw(sample).await.map(PictureEvent::Done);
        let _ = self.events.send(event).await;
    }

    async fn draw(&self, sample: PictureSample) -> Result<DrawnPicture, ApiError> {
        let PictureSample { class, seed, mut drawing } = sample;
        let (n_rows, mut n_sent) = (drawing.n_rows(), 0);
        let (mut steps, mut n_given, mut n_drawn) = (0, 0, 0);
        for row_number in 0.. {
            let row;
            (drawing, row) = self.coded(drawing, |drawing, model| drawing.next_row(model)).await?;
            let Some(row) = row else { break };
            let model = self.model.engine.model();
            let mut filling = Filling::new(model, &row);
            let grid = model.grid();
            n_given += row.given.iter().filter(|(position, _)| grid.index(*position).is_some()).count();
            let mut run = Run::start_row(&self.request, &self.model.engine, row, self.settings, self.n_partial > 0)?;
            while let Some(event) = run.next().await? {
                match event {
                    SampleEvent::Step { steps: (step, n_steps), change, .. } => {
                        filling.apply(model, &change);
                        let done = (row_number * n_steps + step, n_rows * n_steps);
                        // The last row may be done in fewer steps than it has.
                        let is_finished = row_number + 1 == n_rows && filling.is_complete();
                        let is_due = n_sent < self.n_partial.min(due(done, self.n_partial));
                        if is_due && !is_finished && has_changed(&change) {
                            let shown = filling.clone();
                            let png;
                            (drawing, png) = self
                                .coded(drawing, move |drawing, model| base64_png(&drawing.preview(model, &shown)?))
                                .await?;
                            let partial = PartialPicture { number: self.number, index: n_sent, steps: done, png };
                            n_sent += 1;
                            // Nobody waits for it any more; the request ends with this.
                            let _ = self.events.send(Ok(PictureEvent::Partial(partial))).await;
                        }
                    }
                    SampleEvent::Done { output, .. } => {
                        (steps, n_drawn) = (steps + output.steps, n_drawn + output.sampled.order.len());
                        let finish =
                            move |drawing: &mut Drawing, model: &ImageModel| drawing.finish_row(model, &output.sampled);
                        (drawing, ()) = self.coded(drawing, finish).await?;
                    }
                }
            }
        }
        let (_, png) = self
            .coded(drawing, |drawing, _| {
                let picture = drawing.picture().ok_or_else(|| InferError::Request("no picture was drawn".into()))?;
                base64_png(picture)
            })
            .await?;
        Ok(DrawnPicture { number: self.number, class, seed, steps, n_given, n_drawn, png })
    }

    // Runs work of the codec on a thread that may block.
    async fn coded<T: Send + 'static>(
        &self,
        mut drawing: Drawing,
        work: impl FnOnce(&mut Drawing, &ImageModel) -> Result<T, InferError> + Send + 'static,
    ) -> Result<(Drawing, T), ApiError> {
        let replica = self.model.engine.lease();
        let turn = self.request.wait(Arc::clone(&self.model.beside[replica.number()]).lock_owned()).await?;
        in_background(move || {
            let _turn = turn;
            // A backend panics if its device is lost.
            let done = catch(|| work(&mut drawing, replica.model()));
            let done = done.map_err(InferError::Device)??;
            Ok((drawing, done))
        })
        .await
    }
}

// Large pictures take a while, so this is work for a thread that may block.
fn base64_png(picture: &Picture) -> Result<String, InferError> {
    Ok(STANDARD.encode(picture.png()?))
}

// How many unfinished pictures are due when so many of all steps are done: spread evenly over the steps, the last of which
// finishes the picture.
fn due((step, n_steps): (usize, usize), n_partial: usize) -> usize {
    if step >= n_steps { 0 } else { step * (n_partial + 1) / n_steps.max(1) }
}

fn has_changed(change: &RowChange) -> bool {
    !change.decoded.is_empty() || !change.forgotten.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_pictures_are_spread_over_the_steps() {
        let sent = |n_steps: usize, n_partial: usize| {
            let (mut at, mut sent) = (Vec::new(), 0);
            for step in 1..=n_steps {
                if sent < n_partial.min(due((step, n_steps), n_partial)) {
                    at.push(step);
                    sent += 1;
                }
            }
            at
        };
        assert_eq!(sent(32, 3), [8, 16, 24]);
        assert_eq!(sent(8, 1), [4]);
        assert_eq!(sent(8, 0), [] as [usize; 0]);
        assert_eq!(sent(4, 3), [1, 2, 3]);
        assert_eq!(sent(4, 100), [1, 2, 3], "one a step but the last");
        assert_eq!(sent(1, 3), [] as [usize; 0]);
    }
}
