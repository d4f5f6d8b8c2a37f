//! Scoring given texts: work beside the engine's threads, one request of a replica at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::error::ApiError;
use super::run::in_background;
use super::state::{Admission, LoadedModel, Server, ServerPhase};
use crate::TextModel;
use crate::unwind::catch;

/// Says between two evaluations of the network whether the work is to go on.
pub struct ScoreWatch {
    has_left: Arc<AtomicBool>,
    phase: watch::Receiver<ServerPhase>,
    deadline: Option<Instant>,
    timeout: Duration,
}

impl ScoreWatch {
    /// Checks the deadline, the server, and the client.
    ///
    /// # Errors
    /// Why the work must end.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(ApiError::timeout(self.timeout.as_secs()));
        }
        if *self.phase.borrow() == ServerPhase::Cut || self.has_left.load(Ordering::Relaxed) {
            return Err(ApiError::stopping());
        }
        Ok(())
    }
}

// Set when the request's future is dropped: the client has left.
struct LeaveGuard(Arc<AtomicBool>);

impl Drop for LeaveGuard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work`, which holds the request's places until it ends, and gives them back for what follows.
///
/// # Errors
/// Those of the work, and when the request must end before it.
pub async fn scoring<T: Send + 'static>(
    server: &Server,
    model: &Arc<LoadedModel>,
    admission: Admission,
    work: impl FnOnce(&TextModel, &ScoreWatch) -> Result<T, ApiError> + Send + 'static,
) -> Result<(Admission, T), ApiError> {
    let has_left = Arc::new(AtomicBool::new(false));
    let _guard = LeaveGuard(Arc::clone(&has_left));
    let (deadline, timeout) = (admission.deadline, server.limits().timeout);
    let watch = ScoreWatch { has_left, phase: server.phase(), deadline, timeout };
    let mut phase = server.phase();
    let until = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    };
    let replica = model.engine.lease();
    let turn = tokio::select! {
        turn = Arc::clone(&model.beside[replica.number()]).lock_owned() => turn,
        () = until => return Err(ApiError::timeout(timeout.as_secs())),
        Ok(_) = phase.wait_for(|phase| *phase == ServerPhase::Cut) => return Err(ApiError::stopping()),
    };
    in_background(move || {
        let _turn = turn;
        // A backend panics if its device is lost.
        let scored = catch(|| work(replica.model(), &watch));
        let scored = scored.map_err(|message| ApiError::from(crate::InferError::Device(message)))??;
        Ok((admission, scored))
    })
    .await
}
