//! Whether this process was started as one of several.

/// Environment variables in which launchers say how many processes they started.
const VARIABLES: [(&str, &str); 4] = [
    ("OMPI_COMM_WORLD_SIZE", "mpirun"),
    // Of a job step, as srun starts it; in a batch script it is not set.
    ("SLURM_STEP_NUM_TASKS", "srun"),
    ("PMI_SIZE", "mpiexec"),
    ("PALS_SIZE", "mpiexec"),
];

/// How many processes a launcher says that it started, this one included, and its name; nothing for a process without one.
pub fn launcher_size() -> Option<(usize, &'static str)> {
    VARIABLES.iter().find_map(|(variable, launcher)| Some((std::env::var(variable).ok()?.parse().ok()?, *launcher)))
}

/// Refuses to run as one of several processes, for work that is done in one.
///
/// # Errors
/// A sentence about `what`.
pub fn processes_started(what: &str) -> Result<(), String> {
    match launcher_size() {
        Some((size, launcher)) if size > 1 => Err(format!(
            "{launcher} started {size} processes, but {what} runs in one; start it without {launcher}, or with one process"
        )),
        _ => Ok(()),
    }
}
