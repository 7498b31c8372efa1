//! What the benchmarks share: their arguments, what they print, processor time, and quinn's endpoints and ours, set up alike.
//!
//! `cargo bench -p macula-bench --bench NAME [-- --json] [--rounds N] [--only WORDS] [--with WORDS]`, where `NAME` is a file or
//! directory of `benches/`. Each says at its top what it compares.

#[path = "../../../macula-proto/benches/codecs/arguments.rs"]
mod arguments;
pub mod cpu;
pub mod our_setup;
pub mod party;
pub mod quinn_setup;
mod report;

use std::error::Error;

pub use arguments::Arguments;
pub use report::{Column, Table, median};

/// An error of a benchmark ends it.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;
