//! Commands that may run as several processes: their start, their devices, and how one error ends all.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use burn::tensor::Device;
use clap::Args;
use pgm_infer::device::DeviceName;
use pgm_train::World;

/// An error that all ranks have is printed by the first one, which ends the others before they print it too.
const FIRST_SPEAKS_FIRST: Duration = Duration::from_secs(5);

/// Flags of commands that may run as several processes.
#[derive(Args)]
pub struct RankArgs {
    /// Under mpirun or srun: seconds after which a rank that does not come to an exchange is named and all end
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    exchange_timeout: u64,
}

impl RankArgs {
    /// Runs `work` in the processes that a launcher has started, or alone. An error or a panic in one ends all.
    pub fn run(&self, work: impl FnOnce(&World) -> anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
        let world = World::from_launcher(Duration::from_secs(self.exchange_timeout), print)
            .map_err(|message| anyhow!(message))?;
        if world.is_alone() {
            return work(&world);
        }
        let rank = world.rank();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&world)));
        let error = match result {
            Ok(Ok(code)) => return Ok(code),
            Ok(Err(error)) => format!("{error:#}"),
            // The panic's own message stands above.
            Err(_) => "a bug: please report the message above".to_string(),
        };
        if !world.is_first() {
            std::thread::sleep(FIRST_SPEAKS_FIRST);
        }
        print(&format!("rank {rank}: {error}"));
        world.abort()
    }

    /// The device of a rank: `auto`, `cuda` and others without a number mean a device of its own for each rank of a machine.
    pub fn open_device(&self, name: &DeviceName, world: &World) -> anyhow::Result<Device> {
        let (local_rank, n_local) = world.local();
        share_processors(n_local);
        let (device, name) = name.open_for(local_rank, n_local).map_err(|message| anyhow!(message))?;
        self.use_nccl(&name, world)?;
        Ok(device)
    }

    #[cfg(feature = "nccl")]
    fn use_nccl(&self, device: &str, world: &World) -> anyhow::Result<()> {
        // CUDA's devices are called cuda, the first one, or cuda:N.
        let number = device.strip_prefix("cuda").map(|number| number.trim_start_matches(':').parse().unwrap_or(0));
        if let Err(problem) = world.use_nccl(number, Duration::from_secs(self.exchange_timeout))?
            && world.is_first()
        {
            print(&format!("note: {problem}"));
        }
        Ok(())
    }

    #[cfg(not(feature = "nccl"))]
    fn use_nccl(&self, _: &str, _: &World) -> anyhow::Result<()> {
        Ok(())
    }
}

// The ranks of a machine share its processors, unless the launcher has given each its own or RAYON_NUM_THREADS says how many
// threads each has.
fn share_processors(n_local: usize) {
    if n_local == 1 || has_own_processors() || std::env::var_os("RAYON_NUM_THREADS").is_some() {
        return;
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    // It fails where the pool is already there; then the ranks only get in each other's way.
    let _ = rayon::ThreadPoolBuilder::new().num_threads((processors / n_local).max(1)).build_global();
}

// Whether this process may run on some of the machine's processors only; known on Linux.
fn has_own_processors() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let own = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let all = std::fs::read_to_string("/sys/devices/system/cpu/online").ok();
    matches!((own, all), (Some(own), Some(all)) if own.trim() != all.trim())
}

fn print(message: &str) {
    let _ = writeln!(std::io::stderr(), "pgm-train: {message}");
}
