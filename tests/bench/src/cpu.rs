//! Processor time, party by party.

use std::{fs, time::Duration};

/// Processor time so far of the threads of this process whose names begin with `prefix`. Zero where the system does not tell.
pub fn of_threads(prefix: &str) -> Duration {
    of(std::process::id(), prefix)
}

/// Processor time so far of the threads that a process has. Zero where the system does not tell.
pub fn of_process(id: u32) -> Duration {
    of(id, "")
}

fn of(process: u32, prefix: &str) -> Duration {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else {
        return Duration::ZERO;
    };
    let nanoseconds: u64 = tasks
        .flatten()
        .filter_map(|task| {
            let name = fs::read_to_string(task.path().join("comm")).ok()?;
            if !name.starts_with(prefix) {
                return None;
            }
            let times = fs::read_to_string(task.path().join("schedstat")).ok()?;
            times.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum();
    Duration::from_nanos(nanoseconds)
}
