//! Many tunnels at once over one relay, with nodes on smol.

use macula_smol as macula;

#[allow(
    dead_code,
    unused_imports,
    reason = "it is for the suites of sockets, and this needs a part of it"
)]
#[path = "../sockets/adapter/smol.rs"]
mod adapter;
mod memory;
mod relay;
mod suite;
