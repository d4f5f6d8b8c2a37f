//! Events of a task as an iterator and as a stream.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, channel};

use super::task::{EventListener, TaskEvent, TaskHandle};

/// Events of a task as they come. Dropping it cancels the task.
#[derive(Debug)]
pub struct Events {
    events: Receiver<TaskEvent>,
    handle: TaskHandle,
}

impl Events {
    /// The events of the task that `submit` hands over.
    pub(super) fn new<E>(submit: impl FnOnce(EventListener) -> Result<TaskHandle, E>) -> Result<Self, E> {
        let (sender, events) = channel();
        let handle = submit(Box::new(move |event| go_on(sender.send(event).is_ok())))?;
        Ok(Self { events, handle })
    }

    /// The submitted task.
    pub fn handle(&self) -> &TaskHandle {
        &self.handle
    }
}

impl Iterator for Events {
    type Item = TaskEvent;

    fn next(&mut self) -> Option<TaskEvent> {
        self.events.recv().ok()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.handle.cancel();
    }
}

/// Events of a task as they come. Dropping it cancels the task.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub struct EventStream {
    events: tokio::sync::mpsc::UnboundedReceiver<TaskEvent>,
    handle: TaskHandle,
}

#[cfg(feature = "tokio")]
impl EventStream {
    /// The events of the task that `submit` hands over.
    pub(super) fn new<E>(submit: impl FnOnce(EventListener) -> Result<TaskHandle, E>) -> Result<Self, E> {
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        let handle = submit(Box::new(move |event| go_on(sender.send(event).is_ok())))?;
        Ok(Self { events, handle })
    }

    /// The submitted task.
    pub fn handle(&self) -> &TaskHandle {
        &self.handle
    }
}

#[cfg(feature = "tokio")]
impl futures_core::Stream for EventStream {
    type Item = TaskEvent;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<TaskEvent>> {
        self.events.poll_recv(context)
    }
}

#[cfg(feature = "tokio")]
impl Drop for EventStream {
    fn drop(&mut self) {
        self.handle.cancel();
    }
}

fn go_on(received: bool) -> ControlFlow<()> {
    if received { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}
