//! Every suite on tokio with one thread.

use macula_tokio as macula;
use tokio::runtime::Runtime;

#[path = "adapter/tokio.rs"]
mod adapter;
mod suites;

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}
