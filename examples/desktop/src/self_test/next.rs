//! What follows a stage.

/// What follows a look at a stage.
#[derive(Debug)]
pub enum Next<S> {
    /// It is not finished.
    Wait,
    /// The next stage.
    Go(S),
    /// A test passed; the next stage.
    Passed(&'static str, S),
    /// The last stage is over.
    Done,
}
