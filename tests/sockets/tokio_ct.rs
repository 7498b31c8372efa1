//! Every suite on tokio with one thread.

use macula_tokio as macula;
use tokio::runtime::Runtime;

#[path = "adapter/tokio.rs"]
mod adapter;
mod suites;

/// Messages that are sent from one node to another.
const MESSAGES: i64 = 100_000;

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}
