//! Ranks that MPI connects.
//!
//! Messages go from process to process (`MPI_Isend`, `MPI_Irecv`) and are waited for by polling, because a collective that
//! hangs does not say which rank is missing.

use std::time::{Duration, Instant};

use mpi::environment::Universe;
use mpi::request::{self, Request, Scope};
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::{Destination, Source};

use super::{Message, Transport};

/// Waiting for so long is busy, which is faster; then the processor is given to others.
const BUSY: Duration = Duration::from_millis(2);
/// The first rank complains first, so that one sentence is printed and not one from each rank.
const STAGGER: Duration = Duration::from_secs(1);

pub(super) struct Mpi {
    world: SimpleCommunicator,
    local: (usize, usize),
    timeout: Duration,
    report: Box<dyn Fn(&str)>,
    // Dropped last: it ends MPI.
    _universe: Universe,
}

impl Mpi {
    /// Starts MPI.
    pub(super) fn new(timeout: Duration, report: Box<dyn Fn(&str)>) -> Result<Self, String> {
        let universe = mpi::initialize().ok_or("MPI cannot be started twice in a process")?;
        let world = universe.world();
        let local = world.split_shared(world.rank());
        let local = (local.rank() as usize, local.size() as usize);
        Ok(Self { world, local, timeout, report, _universe: universe })
    }

    fn give_up(&self, what: &str, missing: &[usize]) -> ! {
        let names: Vec<String> = missing.iter().map(usize::to_string).collect();
        let (rank, ranks) = (self.rank(), if names.len() == 1 { "rank" } else { "ranks" });
        (self.report)(&format!(
            "rank {rank}: {ranks} {} did not come to {what} within {} seconds (--exchange-timeout); all ranks end here, and the \
             newest checkpoint is kept: continue with --resume",
            names.join(", "),
            self.timeout.as_secs(),
        ));
        self.abort()
    }
}

impl Transport for Mpi {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn size(&self) -> usize {
        self.world.size() as usize
    }

    fn local(&self) -> (usize, usize) {
        self.local
    }

    fn exchange(&self, what: &str, messages: Vec<(usize, Message)>) {
        request::scope(|scope| {
            let mut open = Vec::with_capacity(2 * messages.len());
            for (rank, Message { send, receive }) in messages {
                let other = self.world.process_at_rank(rank as i32);
                if !receive.is_empty() {
                    open.push((rank, other.immediate_receive_into(scope, receive)));
                }
                if !send.is_empty() {
                    open.push((rank, other.immediate_send(scope, send)));
                }
            }
            self.wait(what, open);
        });
    }

    fn abort(&self) -> ! {
        self.world.abort(1)
    }
}

impl Mpi {
    fn wait<'a, S: Scope<'a>>(&self, what: &str, mut open: Vec<(usize, Request<'a, [u8], S>)>) {
        let start = Instant::now();
        let last = self.timeout + STAGGER * self.rank().min(20) as u32;
        while !open.is_empty() {
            open = open
                .into_iter()
                .filter_map(|(rank, request)| request.test().err().map(|request| (rank, request)))
                .collect();
            let waited = start.elapsed();
            if !open.is_empty() && waited > last {
                let mut missing: Vec<usize> = open.iter().map(|(rank, _)| *rank).collect();
                missing.sort_unstable();
                missing.dedup();
                self.give_up(what, &missing);
            }
            if waited > BUSY {
                std::thread::sleep(Duration::from_micros(50));
            } else {
                std::thread::yield_now();
            }
        }
    }
}
