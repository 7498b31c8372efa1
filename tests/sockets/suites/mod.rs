//! What holds on every adapter. `crate::macula` is the one that is tested, `crate::adapter` what tests need of its runtime.

mod common;
mod connections;
mod deployed;
mod discovery;
mod dist;
mod extension;
mod peer;
mod process;
mod relay;
mod rpc;
mod shards;
mod streams;
mod tcp;
