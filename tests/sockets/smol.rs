//! Every suite on smol.

use macula_smol as macula;

#[path = "adapter/smol.rs"]
mod adapter;
mod suites;

/// Messages that are sent from one node to another.
const MESSAGES: i64 = 100_000;
