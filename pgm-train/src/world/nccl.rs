//! Sums in the memory of CUDA devices, by NCCL.
//!
//! MPI starts the ranks and distributes the identifier; NCCL is loaded when it is first used, so a program built with it
//! also runs where it is not installed. NCCL's calls can block for ever when a rank is lost. They are made on a thread of
//! their own, whose answer is waited for with a limit.

use std::ffi::c_char;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use burn::tensor::Tensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::cuda::CudaRuntime;
use cubecl_runtime::runtime::Runtime;
use cudarc::driver::{CudaContext, CudaStream};
use cudarc::nccl::{result, sys};

/// Bytes of the identifier by which ranks find each other.
const ID_BYTES: usize = 128;

/// The longest wait for the end of NCCL's thread.
const LONGEST_END: Duration = Duration::from_secs(10);

/// A communicator of all ranks, each with a device of its own.
pub(super) struct Nccl {
    // Absent while it is dropped.
    jobs: Option<Sender<Job>>,
    answers: Receiver<Result<(), String>>,
    thread: JoinHandle<()>,
    timeout: Duration,
}

/// float32 values in the memory of a device.
struct Job {
    pointer: u64,
    n_values: usize,
}

/// Whether NCCL's library is installed.
pub(super) fn is_present() -> bool {
    // SAFETY: opens and closes the library, whose initialisation has no conditions.
    #[allow(unsafe_code)]
    unsafe {
        sys::is_culib_present()
    }
}

/// A new identifier, for rank 0 to send to all.
///
/// # Errors
/// NCCL's.
pub(super) fn new_id() -> Result<Vec<u8>, String> {
    let id = result::get_uniqueid().map_err(|error| format!("NCCL: {error:?}"))?;
    Ok(id.internal.iter().map(|&byte| byte as u8).collect())
}

impl Nccl {
    /// Joins the ranks; all call it with the identifier of rank 0.
    ///
    /// # Errors
    /// NCCL's or CUDA's, or that the ranks did not come together in time.
    pub(super) fn join(device: usize, [rank, size]: [usize; 2], id: &[u8], timeout: Duration) -> Result<Self, String> {
        let mut internal: [c_char; ID_BYTES] = [0; ID_BYTES];
        internal.iter_mut().zip(id).for_each(|(to, &byte)| *to = byte as c_char);
        let id = sys::ncclUniqueId { internal };
        let ((jobs, todo), (say, answers)) = (channel(), channel());
        let thread = std::thread::spawn(move || match Communicator::new(device, [rank, size], id) {
            Ok(communicator) => {
                let mut answer = Ok(());
                loop {
                    if say.send(answer).is_err() {
                        break;
                    }
                    let Ok(job) = todo.recv() else { break };
                    answer = communicator.all_reduce(&job);
                }
            }
            Err(problem) => drop(say.send(Err(problem))),
        });
        let nccl = Self { jobs: Some(jobs), answers, thread, timeout };
        nccl.answer()?;
        Ok(nccl)
    }

    /// The sums over all ranks, of equally many values in each.
    ///
    /// # Errors
    /// NCCL's, or that they did not come in time.
    pub(super) fn all_reduce(&self, values: Tensor<1>) -> Result<Tensor<1>, String> {
        // NCCL works on a stream of its own.
        values.device().sync().map_err(|error| error.to_string())?;
        let values: CubeTensor = values.try_into_primitive::<CubeBackend>().map_err(|error| format!("{error:?}"))?;
        let n_values = values.meta.shape().num_elements();
        let resource = values
            .client
            .get_resource::<<CudaRuntime as Runtime>::Server>(values.handle.clone())
            .map_err(|error| error.to_string())?;
        let job = Job { pointer: resource.resource().ptr, n_values };
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            return Err("NCCL's thread has ended".to_string());
        }
        self.answer()?;
        Ok(Tensor::from_primitive::<CubeBackend>(values))
    }

    fn answer(&self) -> Result<(), String> {
        self.answers
            .recv_timeout(self.timeout)
            .unwrap_or_else(|_| Err(format!("NCCL did not answer within {} seconds", self.timeout.as_secs())))
    }
}

impl Drop for Nccl {
    // The communicator is gone before the process ends, unless NCCL hangs.
    fn drop(&mut self) {
        self.jobs = None;
        let start = Instant::now();
        while !self.thread.is_finished() && start.elapsed() < LONGEST_END {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

struct Communicator {
    handle: sys::ncclComm_t,
    stream: std::sync::Arc<CudaStream>,
}

impl Communicator {
    #[allow(unsafe_code)]
    fn new(device: usize, [rank, size]: [usize; 2], id: sys::ncclUniqueId) -> Result<Self, String> {
        // CubeCL uses the device's primary context, too.
        let context = CudaContext::new(device).map_err(|error| format!("CUDA device {device}: {error:?}"))?;
        let stream = context.new_stream().map_err(|error| format!("CUDA device {device}: {error:?}"))?;
        let mut handle: sys::ncclComm_t = std::ptr::null_mut();
        // SAFETY: `handle` is a place for the communicator, and the device's context is current on this thread.
        unsafe { result::comm_init_rank(&mut handle, size as i32, id, rank as i32) }
            .map_err(|error| format!("NCCL: {error:?}"))?;
        Ok(Self { handle, stream })
    }

    #[allow(unsafe_code)]
    fn all_reduce(&self, job: &Job) -> Result<(), String> {
        let values = job.pointer as *mut std::ffi::c_void;
        // SAFETY: `values` are that many float32 of this device. Their owner waits for the answer and uses them on no other
        // stream meanwhile.
        unsafe {
            result::all_reduce(
                values,
                values,
                job.n_values,
                sys::ncclDataType_t::ncclFloat32,
                sys::ncclRedOp_t::ncclSum,
                self.handle,
                self.stream.cu_stream().cast(),
            )
        }
        .map_err(|error| format!("NCCL: {error:?}"))?;
        self.stream.synchronize().map_err(|error| format!("CUDA: {error:?}"))?;
        let mut problem = sys::ncclResult_t::ncclSuccess;
        // SAFETY: the communicator exists.
        let asked = unsafe { sys::ncclCommGetAsyncError(self.handle, &mut problem) };
        match (asked, problem) {
            (sys::ncclResult_t::ncclSuccess, sys::ncclResult_t::ncclSuccess) => Ok(()),
            (_, problem) => Err(format!("NCCL: {problem:?}")),
        }
    }
}

impl Drop for Communicator {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: the communicator is not used again. Its error could not be told to anybody.
        let _ = unsafe { result::comm_abort(self.handle) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, DeviceType};

    #[test]
    fn the_sum_of_one_rank_is_what_it_has() {
        let Some(device) = Device::enumerate(DeviceType::Cuda).into_vec().into_iter().next().filter(|_| is_present())
        else {
            println!("left out: no CUDA device or no NCCL");
            return;
        };
        let nccl = Nccl::join(0, [0, 1], &new_id().unwrap(), Duration::from_secs(60)).unwrap();
        let values: Vec<f32> = (0..100_003).map(|index| index as f32 * 0.5).collect();
        for _ in 0..3 {
            let sum = nccl.all_reduce(Tensor::from_data(values.as_slice(), &device)).unwrap();
            assert_eq!(sum.try_into_vec_as::<f32>().unwrap(), values);
        }
    }
}
