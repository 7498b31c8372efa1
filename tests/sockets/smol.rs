//! Every suite on smol.

use macula_smol as macula;

#[path = "adapter/smol.rs"]
mod adapter;
mod suites;
