//! Ranks that MPI connects.
//!
//! Messages go from process to process (`MPI_Isend`, `MPI_Irecv`) and are waited for by polling, because a collective that
//! hangs does not say which rank is missing.

use std::cell::Cell;
use std::time::{Duration, Instant};

use mpi::environment::Universe;
use mpi::request::{self, Request, Scope};
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::{Destination, Source};

use super::{Message, Transport};

/// Waiting for so long is busy, which is faster; then the processor is given to others.
const BUSY: Duration = Duration::from_millis(2);
/// The first rank complains first, so that one sentence is printed and not one from each rank: ending all takes seconds.
const STAGGER: Duration = Duration::from_secs(5);

/// A poll that takes longer was interrupted.
const LONGEST_POLL: Duration = Duration::from_millis(200);

/// Tag of messages.
const DATA: i32 = 0;
/// Tag of "this rank is waiting, too", with the number of its exchange.
const WAITING: i32 = 1;

pub(super) struct Mpi {
    world: SimpleCommunicator,
    // Exchanges begun.
    n_exchanges: Cell<u64>,
    local: (usize, usize),
    timeout: Duration,
    is_limited: Cell<bool>,
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
        Ok(Self {
            world,
            n_exchanges: Cell::new(0),
            local,
            timeout,
            is_limited: Cell::new(true),
            report,
            _universe: universe,
        })
    }

    // Tells the other ranks that this one is not the one that is missing.
    fn say_waiting(&self) {
        for rank in (0..self.size()).filter(|&rank| rank != self.rank()) {
            self.world.process_at_rank(rank as i32).send_with_tag(&self.n_exchanges.get(), WAITING);
        }
    }

    // Whether a rank has said that it waits in about this exchange.
    fn is_waiting(&self, rank: usize) -> bool {
        let other = self.world.process_at_rank(rank as i32);
        let mut newest = 0;
        while other.immediate_probe_with_tag(WAITING).is_some() {
            newest = other.receive_with_tag::<u64>(WAITING).0;
        }
        newest > 0 && newest + 1 >= self.n_exchanges.get()
    }

    fn give_up(&self, what: &str, open: &[usize]) -> ! {
        let away: Vec<usize> = open.iter().copied().filter(|&rank| !self.is_waiting(rank)).collect();
        let missing = if away.is_empty() { open } else { &away };
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
        self.n_exchanges.set(self.n_exchanges.get() + 1);
        request::scope(|scope| {
            let mut open = Vec::with_capacity(2 * messages.len());
            for (rank, Message { send, receive }) in messages {
                let other = self.world.process_at_rank(rank as i32);
                if !receive.is_empty() {
                    open.push((rank, other.immediate_receive_into_with_tag(scope, receive, DATA)));
                }
                if !send.is_empty() {
                    open.push((rank, other.immediate_send_with_tag(scope, send, DATA)));
                }
            }
            self.wait(what, open);
        });
    }

    fn set_limited(&self, is_limited: bool) {
        self.is_limited.set(is_limited);
    }

    fn abort(&self) -> ! {
        self.world.abort(1)
    }
}

impl Mpi {
    fn wait<'a, S: Scope<'a>>(&self, what: &str, mut open: Vec<(usize, Request<'a, [u8], S>)>) {
        let (mut waited, mut polled) = (Duration::ZERO, Instant::now());
        let last = self.timeout + STAGGER * self.rank().min(20) as u32;
        let mut said = false;
        while !open.is_empty() {
            open = open
                .into_iter()
                .filter_map(|(rank, request)| request.test().err().map(|request| (rank, request)))
                .collect();
            // Time in which this process was stopped is not time that it waited.
            waited += polled.elapsed().min(LONGEST_POLL);
            polled = Instant::now();
            if !said && waited > self.timeout / 2 {
                said = true;
                self.say_waiting();
            }
            if !open.is_empty() && waited > last && self.is_limited.get() {
                let mut ranks: Vec<usize> = open.iter().map(|(rank, _)| *rank).collect();
                ranks.sort_unstable();
                ranks.dedup();
                self.give_up(what, &ranks);
            }
            if waited > BUSY {
                std::thread::sleep(Duration::from_micros(50));
            } else {
                std::thread::yield_now();
            }
        }
    }
}
