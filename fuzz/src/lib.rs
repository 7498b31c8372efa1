//! What is fuzzed: functions that take any bytes and panic when something is not as it should be.
//!
//! The fuzzer calls them through `fuzz_targets/`; the tests of the workspace call them on every file of `corpus/` and on
//! damaged copies of it, so that no finding comes back.

mod control;
mod dist;
mod identity;
mod oracles;
mod peering;
mod relay_session;
mod rpc;
mod script;
mod tunnel;
mod values;
mod world;

pub use control::control;
pub use dist::{dist, dist_connect, dist_link, dist_node, etf};
pub use identity::identity;
pub use peering::{frame, gate, peering};
pub use relay_session::relay_session;
pub use rpc::{rpc, rpc_router, rpc_session, rpc_stream};
pub use tunnel::{session, supervisor, tunnels};
pub use values::{cbor, msgpack};
pub use world::world;

/// A target.
pub type Target = fn(&[u8]);

/// All targets, by the name of their corpus.
pub const TARGETS: [(&str, Target); 21] = [
    ("control", control),
    ("cbor", cbor),
    ("msgpack", msgpack),
    ("relay_session", relay_session),
    ("rpc", rpc),
    ("etf", etf),
    ("dist", dist),
    ("frame", frame),
    ("identity", identity),
    ("peering", peering),
    ("gate", gate),
    ("session", session),
    ("supervisor", supervisor),
    ("tunnels", tunnels),
    ("rpc_stream", rpc_stream),
    ("rpc_session", rpc_session),
    ("rpc_router", rpc_router),
    ("dist_connect", dist_connect),
    ("dist_link", dist_link),
    ("dist_node", dist_node),
    ("world", world),
];

/// Runs a target on the files named on the command line.
///
/// # Errors
/// Of a file that cannot be read.
pub fn replay_arguments(target: Target) -> std::io::Result<()> {
    for path in std::env::args_os().skip(1) {
        println!("{}", path.display());
        target(&std::fs::read(path)?);
    }
    Ok(())
}
