//! Every suite on tokio with several threads.

use macula_tokio as macula;
use tokio::runtime::Runtime;

#[path = "adapter/tokio.rs"]
mod adapter;
mod suites;

/// Messages that are sent from one node to another, here more than elsewhere.
const MESSAGES: i64 = 1_000_000;

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime")
}
