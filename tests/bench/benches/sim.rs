//! Simulated seconds per second of the wall clock, for 2, 100 and 1,000 endpoints behind one relay that lose one datagram in a
//! hundred, each sending 1 KiB a second to its partner.
//!
//! `cargo bench -p macula-bench --bench sim [-- --json]`; the same without building everything else:
//! `cargo run --release -p macula-tests --features swarm --bin swarm -- --bench`

#[path = "../../swarm/crowd.rs"]
mod crowd;

use std::time::Duration;

use macula_bench::Arguments;

fn main() {
    let arguments = Arguments::read(1);
    if arguments.quick {
        let measured = crowd::measure(0, 2, Duration::from_secs(2));
        assert!(measured.datagrams > 0, "nobody says anything");
    } else {
        crowd::table(arguments.json);
    }
}
