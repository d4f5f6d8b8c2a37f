//! The order of a row, which may be the caller's own code: a panic in it becomes an error of its row.

use crate::InferError;
use crate::sample::order::{Order, OrderStart};
use crate::unwind::{catch, drop_caught};

type StartOrder = Box<dyn FnOnce(OrderStart<'_>) -> Box<dyn Order> + Send>;

/// An order, before and after it starts.
pub(super) struct GuardedOrder {
    // Taken when it starts.
    start: Option<StartOrder>,
    // None before it starts.
    order: Option<Box<dyn Order>>,
    needs_stats: bool,
    chooses_count: bool,
}

impl GuardedOrder {
    /// An order that `start` makes.
    pub(super) fn new(start: impl FnOnce(OrderStart<'_>) -> Box<dyn Order> + Send + 'static) -> Self {
        Self { start: Some(Box::new(start)), order: None, needs_stats: false, chooses_count: false }
    }

    /// Whether it has started.
    pub(super) fn has_started(&self) -> bool {
        self.order.is_some()
    }

    /// Starts it.
    ///
    /// # Errors
    /// [`InferError::Request`] when it panics.
    pub(super) fn start(&mut self, new: OrderStart<'_>) -> Result<(), InferError> {
        let Some(start) = self.start.take() else { unreachable!("an order starts once") };
        let start = || {
            let order = start(new);
            let (needs_stats, chooses_count) = (order.needs_stats(), order.chooses_count());
            (order, needs_stats, chooses_count)
        };
        let (order, needs_stats, chooses_count) = catch(start).map_err(panicked)?;
        (self.order, self.needs_stats, self.chooses_count) = (Some(order), needs_stats, chooses_count);
        Ok(())
    }

    /// [`Order::needs_stats`]; false before it starts.
    pub(super) fn needs_stats(&self) -> bool {
        self.needs_stats
    }

    /// [`Order::chooses_count`]; false before it starts.
    pub(super) fn chooses_count(&self) -> bool {
        self.chooses_count
    }

    /// Calls a method of the order, which has started.
    ///
    /// # Errors
    /// [`InferError::Request`] when it panics.
    pub(super) fn call<T>(&mut self, method: impl FnOnce(&mut dyn Order) -> T) -> Result<T, InferError> {
        let Some(order) = &mut self.order else { unreachable!("an order starts before its first step") };
        catch(|| method(order.as_mut())).map_err(panicked)
    }
}

impl Drop for GuardedOrder {
    fn drop(&mut self) {
        drop_caught(self.start.take());
        drop_caught(self.order.take());
    }
}

fn panicked(message: String) -> InferError {
    InferError::Request(format!("the order of decoding panicked: {message}"))
}
