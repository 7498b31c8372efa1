//! Codecs side by side: peering frames, control messages and chunks of calls, beside the crates one would use instead.
//!
//! `cargo bench -p macula-proto --bench codecs [-- --json] [--rounds N] [--only WORDS]`
//!
//! The values are those of the golden vectors. For every line all contenders take turns, so that whatever else the machine
//! does hits all of them alike; printed are medians over the rounds, and allocations per call as the allocator counts them.
//! Without `--bench` (as `cargo test --benches` runs it) or with `--test` everything runs once, and nothing is measured.

mod arguments;
mod chunks;
mod control;
mod frames;
mod harness;
mod mirror;
mod report;
mod vectors;

use std::error::Error;

use arguments::Arguments;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments = Arguments::read(41);
    let mut lines = frames::lines()?;
    lines.extend(control::lines()?);
    lines.extend(chunks::lines()?);
    lines.retain(|line| arguments.wants(&line.name()));
    let measured = harness::measure(lines, &arguments);
    if arguments.json {
        report::print_json(&measured, arguments.rounds);
    } else {
        report::print_tables(&measured, arguments.rounds);
    }
    Ok(())
}
