//! Streams through a relay, side by side: ours, a relay written on quinn, and a forwarder of TCP; beside them no relay at all.
//!
//! `cargo bench -p macula-bench --bench tunnel [-- --json] [--rounds N] [--only WORDS] [--with one|many]`
//!
//! *one*: one stream at a time, bulk and round trips. *many*: 1,000 streams at once, and how evenly they share what there is.
//!
//! Every party (sender, receiver, relay) is a process of its own, and its processor time is that of this process. The cases take
//! turns, so that whatever else the machine does hits all of them alike; the medians over all rounds are printed. Without `--bench`
//! (as `cargo test --benches` runs it) or with `--test` there is one tiny round, which only shows that everything works.

mod bare;
mod cases;
mod link;
mod many;
mod one;
mod ours;
mod parts;
mod quinn_ends;
mod relays;
mod scripted;
mod work;

use macula_bench::{Arguments, Result, party};

fn main() -> Result<()> {
    if let Some(words) = party::words() {
        return parts::play(&words);
    }
    let arguments = Arguments::read(7);
    if arguments.takes("one") {
        one::measure(&arguments)?;
    }
    if arguments.takes("many") {
        many::measure(&arguments)?;
    }
    Ok(())
}
