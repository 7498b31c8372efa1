//! Simulated seconds per second of the wall clock, for 2, 100 and 1,000 endpoints behind one relay that lose one datagram in a
//! hundred, each sending 1 KiB a second to its partner.
//!
//! `cargo bench -p macula-tests --bench sim [-- --json]`; the same without building everything else:
//! `cargo run --release -p macula-tests --features swarm --bin swarm -- --bench`

#[path = "../swarm/crowd.rs"]
mod crowd;

fn main() {
    crowd::table(std::env::args().any(|arg| arg == "--json"));
}
