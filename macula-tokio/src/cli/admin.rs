//! The admin socket of a relay: requests and answers are JSON, one object a line.
//!
//! `{"do":"status"}` is answered with one line, `{"status":{…}}`. `{"do":"drain"}` starts a drain and is answered with
//! `{"draining":{"connections":N,"tunnels":N}}` whenever these numbers change, and at last with `{"drained":true}`. Anything
//! else is answered with `{"error":"…"}`. Only the user that runs the relay can open the socket.

mod client;
mod server;
#[cfg(test)]
mod tests;

use std::{
    env,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::report::StatusReport;

pub(crate) use client::{AdminClient, AdminError};
pub(crate) use server::{AdminServer, Phase};

/// Longest request, in bytes.
const LONGEST_REQUEST: u64 = 4096;
/// Longest answer, in bytes. A relay with the most connections it may have stays below.
const LONGEST_ANSWER: u64 = 256 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Request {
    Status,
    Drain,
}

/// What an admin socket says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Status(Box<StatusReport>),
    Draining(Remaining),
    Drained(bool),
    Error(String),
}

/// What a drain waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remaining {
    pub(crate) connections: usize,
    pub(crate) tunnels: usize,
}

/// Where a relay puts its socket when nobody says where.
pub(crate) fn default_path() -> PathBuf {
    path_under(env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from))
}

/// Where to look for a relay when nobody says where: where this user's would be, else where the system's would be.
pub(crate) fn find() -> PathBuf {
    let own = default_path();
    let system = path_under(None);
    if own.exists() || !system.exists() { own } else { system }
}

fn path_under(runtime: Option<PathBuf>) -> PathBuf {
    let runtime = runtime.filter(|path| path.is_absolute());
    runtime
        .as_deref()
        .unwrap_or(Path::new("/run"))
        .join("macula")
        .join("relay.sock")
}
