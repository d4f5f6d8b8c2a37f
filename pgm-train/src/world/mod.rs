//! The processes (ranks) of a data-parallel training, and what they say to each other.
//!
//! A training alone is a world of one. More are started by an MPI launcher; the feature `mpi` connects them. All ranks
//! call the same functions in the same order.

mod launcher;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;
mod share;
#[cfg(test)]
pub(crate) mod threads;
mod transport;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use burn::tensor::{Tensor, TensorData};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::TrainError;

pub use launcher::{launcher_size, processes_started};
pub use share::Share;
pub use transport::{Message, Transport};

/// Bytes that rank 0 sends at a time when it sends to all.
const PIECE: usize = 64 << 20;
/// Gradients that are summed at a time: 32 MiB.
const BUCKET: usize = 8 << 20;

/// The processes of a training.
#[derive(Clone, Default)]
pub struct World {
    link: Option<Rc<Link>>,
}

struct Link {
    transport: Box<dyn Transport>,
    #[cfg(feature = "nccl")]
    nccl: std::cell::OnceCell<nccl::Nccl>,
    waited: Cell<Duration>,
    sent: Cell<u64>,
}

impl World {
    /// A training in one process.
    pub fn alone() -> Self {
        Self::default()
    }

    /// The processes that `transport` connects.
    pub fn new(transport: Box<dyn Transport>) -> Self {
        let link = Link {
            transport,
            #[cfg(feature = "nccl")]
            nccl: Default::default(),
            waited: Cell::default(),
            sent: Cell::default(),
        };
        Self { link: Some(Rc::new(link)) }.only_if_many()
    }

    /// The processes that an MPI launcher has started; one that started no other is alone. After a wait of `timeout` for
    /// another rank `report` is called with a sentence that names it, and all processes end.
    ///
    /// # Errors
    /// A sentence, when the launcher started several processes and they cannot find each other.
    pub fn from_launcher(timeout: Duration, report: impl Fn(&str) + 'static) -> Result<Self, String> {
        match launcher_size() {
            // Without others MPI need not be there.
            None | Some((0 | 1, _)) => Ok(Self::alone()),
            Some((size, launcher)) => connect(size, launcher, timeout, Box::new(report)),
        }
    }

    fn only_if_many(self) -> Self {
        if self.size() > 1 { self } else { Self::alone() }
    }

    /// Whether there is one process only.
    pub fn is_alone(&self) -> bool {
        self.link.is_none()
    }

    /// This process, from 0.
    pub fn rank(&self) -> usize {
        self.link.as_ref().map_or(0, |link| link.transport.rank())
    }

    /// The number of processes.
    pub fn size(&self) -> usize {
        self.link.as_ref().map_or(1, |link| link.transport.size())
    }

    /// This process among those of its machine, and their number.
    pub fn local(&self) -> (usize, usize) {
        self.link.as_ref().map_or((0, 1), |link| link.transport.local())
    }

    /// Whether this is rank 0, the only one that writes.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// The part of the work that is this process's.
    pub fn share(&self) -> Share {
        Share { rank: self.rank(), size: self.size() }
    }

    /// Time spent in exchanges since the last call, and bytes sent meanwhile.
    pub(crate) fn take_cost(&self) -> (Duration, u64) {
        self.link.as_ref().map(|link| (link.waited.take(), link.sent.take())).unwrap_or_default()
    }

    /// Ends all processes with a failure.
    pub fn abort(&self) -> ! {
        match &self.link {
            Some(link) => link.transport.abort(),
            None => std::process::exit(1),
        }
    }

    /// Waits until all ranks are there. `what` is the end of the sentence "rank 1 did not come to".
    pub(crate) fn barrier(&self, what: &str) {
        self.all_gather_bytes(what, &[0]);
    }

    /// As [`barrier`](Self::barrier), however long it takes: for work whose time depends on the data.
    pub(crate) fn barrier_without_limit(&self, what: &str) {
        if let Some(link) = &self.link {
            link.transport.set_limited(false);
            self.barrier(what);
            link.transport.set_limited(true);
        }
    }

    /// The bytes of every rank, which all have as many.
    pub(crate) fn all_gather_bytes(&self, what: &str, own: &[u8]) -> Vec<Vec<u8>> {
        let mut all = vec![vec![0; own.len()]; self.size()];
        if let Some(link) = &self.link {
            link.exchange(what, all.iter_mut().map(|receive| Message { send: own, receive }));
        }
        all[self.rank()] = own.to_vec();
        all
    }

    /// The value of every rank.
    pub(crate) fn all_gather<T: Serialize + DeserializeOwned>(&self, what: &str, own: &T) -> Result<Vec<T>, String> {
        let own = serde_json::to_vec(own).map_err(|error| error.to_string())?;
        let lengths = self.all_gather_bytes(what, &(own.len() as u64).to_le_bytes());
        let mut all: Vec<Vec<u8>> = lengths.iter().map(|length| vec![0; number(length)]).collect();
        if let Some(link) = &self.link {
            link.exchange(what, all.iter_mut().map(|receive| Message { send: &own, receive }));
        }
        all[self.rank()] = own;
        all.iter().map(|bytes| serde_json::from_slice(bytes).map_err(|error| error.to_string())).collect()
    }

    /// The value of rank 0.
    pub(crate) fn broadcast<T: Serialize + DeserializeOwned>(&self, what: &str, value: T) -> Result<T, String> {
        if self.is_alone() {
            return Ok(value);
        }
        let own =
            if self.is_first() { serde_json::to_vec(&value).map_err(|error| error.to_string())? } else { Vec::new() };
        serde_json::from_slice(&self.broadcast_bytes(what, own)).map_err(|error| error.to_string())
    }

    /// The bytes of rank 0. It sends each rank a part, and the ranks exchange their parts: nobody sends all bytes to all.
    pub(crate) fn broadcast_bytes(&self, what: &str, own: Vec<u8>) -> Vec<u8> {
        let Some(link) = &self.link else { return own };
        let length = number(&self.all_gather_bytes(what, &(own.len() as u64).to_le_bytes())[0]);
        let mut bytes = if self.is_first() { own } else { vec![0; length] };
        for piece in bytes.chunks_mut(PIECE) {
            link.scatter(what, piece);
            link.all_gather_parts(what, piece);
        }
        bytes
    }

    /// From now on gradients are summed by NCCL, on this rank's CUDA device of that number; every rank calls it, also one without
    /// such a device.
    ///
    /// # Errors
    /// A sentence where a rank has no such device or no NCCL, or two share a device; then gradients go through the host as before.
    /// [`TrainError::Ranks`] where NCCL is there and fails.
    #[cfg(feature = "nccl")]
    pub fn use_nccl(&self, device: Option<usize>, timeout: Duration) -> Result<Result<(), String>, TrainError> {
        let Some(link) = &self.link else { return Ok(Ok(())) };
        let what = "the start of NCCL";
        // The kernel's name for this start of this machine.
        let machine = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let all = self.all_gather(what, &(machine, device, nccl::is_present())).map_err(TrainError::Ranks)?;
        let problem = |rank: usize, problem: &str| {
            Ok(Err(format!("rank {rank} {problem}; gradients are summed through the host's memory")))
        };
        if all.iter().all(|(_, device, _)| device.is_none()) {
            return Ok(Ok(()));
        }
        for (rank, (machine, device, is_present)) in all.iter().enumerate() {
            let is_same = |(others, other, _): &(String, Option<usize>, bool)| others == machine && other == device;
            match device {
                None => return problem(rank, "has no CUDA device"),
                Some(_) if !is_present => return problem(rank, "has no NCCL (libnccl.so.2)"),
                Some(_) if all[..rank].iter().any(is_same) => return problem(rank, "shares its device with another"),
                Some(_) => {}
            }
        }
        let id = if self.is_first() { nccl::new_id().map_err(TrainError::Ranks)? } else { Vec::new() };
        let id = self.broadcast_bytes(what, id);
        let joined = nccl::Nccl::join(device.unwrap_or(0), [self.rank(), self.size()], &id, timeout);
        let _ = link.nccl.set(joined.map_err(TrainError::Ranks)?);
        Ok(Ok(()))
    }

    /// The sums of all ranks' values, `[n]`, through the host's memory or, where NCCL is in use, without it.
    ///
    /// # Errors
    /// [`TrainError::Device`] when the device fails, [`TrainError::Ranks`] when NCCL does.
    pub(crate) fn all_reduce_tensor(&self, what: &str, values: Tensor<1>) -> Result<Tensor<1>, TrainError> {
        #[cfg(feature = "nccl")]
        if let Some((link, nccl)) = self.link.as_ref().and_then(|link| Some((link, link.nccl.get()?))) {
            let (start, size) = (Instant::now(), self.size() as u64);
            // A ring's: a reduce-scatter and an all-gather.
            let n_bytes = 8 * values.shape().num_elements() as u64 * (size - 1) / size;
            let sum = nccl.all_reduce(values).map_err(|problem| TrainError::Ranks(format!("{problem} ({what})")))?;
            link.waited.set(link.waited.get() + start.elapsed());
            link.sent.set(link.sent.get() + n_bytes);
            return Ok(sum);
        }
        let device = values.device();
        let data = values.try_into_data().map_err(|error| TrainError::Device(error.to_string()))?;
        let mut values = data.try_into_vec::<f32>().map_err(|error| TrainError::Device(format!("{error:?}")))?;
        self.all_reduce(what, &mut values);
        let n_values = values.len();
        Ok(Tensor::from_data(TensorData::new(values, [n_values]), &device))
    }

    /// Adds the values of all ranks, in the order of the ranks: the sum of n ranks is that of one process which adds n
    /// micro-batches, to the last bit.
    pub(crate) fn all_reduce(&self, what: &str, values: &mut [f32]) {
        let Some(link) = &self.link else { return };
        for bucket in values.chunks_mut(BUCKET) {
            link.reduce_scatter(what, bucket);
            link.all_gather_parts(what, bytemuck::cast_slice_mut(bucket));
        }
    }
}

#[cfg(feature = "mpi")]
fn connect(size: usize, launcher: &str, timeout: Duration, report: Box<dyn Fn(&str)>) -> Result<World, String> {
    let transport = mpi::Mpi::new(timeout, report)?;
    if transport.size() != size {
        return Err(format!(
            "{launcher} started {size} processes, but MPI sees {}; start them with mpirun, or with srun --mpi=pmix where Slurm \
             has PMIx",
            transport.size()
        ));
    }
    Ok(World::new(Box::new(transport)))
}

#[cfg(not(feature = "mpi"))]
fn connect(size: usize, launcher: &str, _: Duration, _: Box<dyn Fn(&str)>) -> Result<World, String> {
    Err(format!("{launcher} started {size} processes, but this program trains in one; build it with --features mpi"))
}

impl Link {
    // Sends and receives one message from and to each other rank, given in the order of the ranks; that to itself is left out.
    fn exchange<'a>(&self, what: &str, messages: impl Iterator<Item = Message<'a>>) {
        let (start, rank) = (Instant::now(), self.transport.rank());
        let messages: Vec<(usize, Message)> = messages.enumerate().filter(|(to, _)| *to != rank).collect();
        let sent: usize = messages.iter().map(|(_, message)| message.send.len()).sum();
        self.transport.exchange(what, messages);
        self.waited.set(self.waited.get() + start.elapsed());
        self.sent.set(self.sent.get() + sent as u64);
    }

    // Bytes of each rank's part; the last parts may be shorter or empty. They are whole float32, as gradients are.
    fn part_length(&self, n_bytes: usize) -> usize {
        n_bytes.div_ceil(4).div_ceil(self.transport.size()).max(1) * 4
    }

    // Sends each rank its part of rank 0's bytes.
    fn scatter(&self, what: &str, bytes: &mut [u8]) {
        let (part, size) = (self.part_length(bytes.len()), self.transport.size());
        if self.transport.rank() == 0 {
            let parts = bytes.chunks(part).chain(std::iter::repeat(&[][..])).take(size);
            self.exchange(what, parts.map(|send| Message { send, receive: &mut [] }));
        } else {
            let own = bytes.chunks_mut(part).nth(self.transport.rank()).unwrap_or_default();
            let mut own = Some(own);
            let receive = (0..size).map(|from| if from == 0 { own.take().unwrap_or_default() } else { &mut [] });
            self.exchange(what, receive.map(|receive| Message { send: &[], receive }));
        }
    }

    // Sends this rank's part to all and receives theirs.
    fn all_gather_parts(&self, what: &str, bytes: &mut [u8]) {
        let (part, size) = (self.part_length(bytes.len()), self.transport.size());
        let own = bytes.chunks(part).nth(self.transport.rank()).unwrap_or_default().to_vec();
        let parts = bytes.chunks_mut(part).chain(std::iter::repeat_with(Default::default)).take(size);
        self.exchange(what, parts.map(|receive| Message { send: &own, receive }));
    }

    // Adds all ranks' values of this rank's part, in the order of the ranks.
    fn reduce_scatter(&self, what: &str, values: &mut [f32]) {
        let (part, size, rank) =
            (self.part_length(size_of_val(values)) / 4, self.transport.size(), self.transport.rank());
        let n_own = values.chunks(part).nth(rank).map_or(0, <[f32]>::len);
        let mut received = vec![vec![0.0_f32; n_own]; size];
        let parts = values.chunks(part).chain(std::iter::repeat(&[][..])).take(size);
        let messages = parts.zip(&mut received).map(|(send, receive)| Message {
            send: bytemuck::cast_slice(send),
            receive: bytemuck::cast_slice_mut(receive),
        });
        self.exchange(what, messages);
        let Some(own) = values.chunks_mut(part).nth(rank) else { return };
        received[rank].copy_from_slice(own);
        own.copy_from_slice(&received[0]);
        for other in &received[1..] {
            own.iter_mut().zip(other).for_each(|(sum, value)| *sum += value);
        }
    }
}

fn number(bytes: &[u8]) -> usize {
    bytes.try_into().map_or(0, u64::from_le_bytes) as usize
}
