//! What carries messages between ranks.

/// What one rank sends to another and receives from it. Both know the lengths.
#[derive(Debug)]
pub struct Message<'a> {
    /// Bytes to send; none where it is empty.
    pub send: &'a [u8],
    /// Where to put the bytes that come; none come where it is empty.
    pub receive: &'a mut [u8],
}

/// Messages between ranks.
pub trait Transport {
    /// This process, from 0.
    fn rank(&self) -> usize;

    /// The number of processes.
    fn size(&self) -> usize;

    /// This process among those of its machine, and their number.
    fn local(&self) -> (usize, usize);

    /// Sends and receives a message for each named rank, and waits for all of them. A rank that does not come ends all
    /// processes, with a sentence that says it did not come to `what`.
    fn exchange(&self, what: &str, messages: Vec<(usize, Message)>);

    /// Whether exchanges have a limit of time; they have one at first.
    fn set_limited(&self, is_limited: bool);

    /// Ends all processes with a failure.
    fn abort(&self) -> !;
}
