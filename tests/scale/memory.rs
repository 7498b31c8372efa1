//! The memory of another process.

/// Resident memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) current: u64,
    pub(crate) peak: u64,
}

impl Memory {
    /// Asks the kernel. Zeros where it does not say (not Linux): differences are zero then, and within any bound.
    pub(crate) fn of(process: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            kib.unwrap_or_default() * 1024
        };
        Self {
            current: field("VmRSS:"),
            peak: field("VmHWM:"),
        }
    }
}
