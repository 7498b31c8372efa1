//! Many tunnels at once over one relay, with nodes on tokio.

use macula_tokio as macula;
use tokio::runtime::Runtime;

#[allow(
    dead_code,
    unused_imports,
    reason = "it is for the suites of sockets, and this needs a part of it"
)]
#[path = "../sockets/adapter/tokio.rs"]
mod adapter;
mod memory;
mod relay;
mod suite;

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime")
}
