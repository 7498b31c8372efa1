//! Memory of what is open and idle: connections, streams, tunnels and calls, beside quinn.
//!
//! `cargo bench -p macula-bench --bench memory [-- --json] [--rounds N] [--only WORDS]`
//!
//! Every party is a process of its own on one thread with a current-thread runtime: this program again, with `--role`. It opens 2,000,
//! is weighed when its memory has come to rest, opens 2,000 more, and is weighed again; the difference by 2,000 is what one costs,
//! whatever the process needs besides. Printed are medians over the rounds: resident memory (`Rss` of `/proc/self/smaps_rollup`), and
//! the heap as the program asked for it, counted at every allocation. The difference between the two is what the allocator keeps:
//! rounding, and holes that the handshake leaves.
//!
//! - *connection*: held by both ends, nothing on it, no stream was ever opened. quinn has its defaults but for idle time-out
//!   and keep-alive, which all have alike. *quinn-proto* is a server without anything around it, with the transport settings of ours:
//!   what ours takes above that is our own.
//! - *stream*: bidirectional, a byte has gone each way, all on one connection, which allows for 16,384.
//! - *tunnel*: between two nodes at a relay, all on one connection of each node.
//! - *call*: of RPC, open in both directions, a stream each, all on one connection.

mod bare;
mod children;
mod ours;
mod quinn_ends;

use std::alloc::System;

use bare::BareServer;
use children::{Child, Party, Weight};
use macula_bench::{Arguments, Column, Result, Table, our_setup};
use macula_tokio::tls::Credentials;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// Counts what is allocated.
#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Of which the cost of one is found.
const COUNT: usize = 2000;

/// What a process can be.
async fn party(role: &str, peer: u16, credentials: Credentials) -> Result<Box<dyn Party>> {
    Ok(match role {
        "quinn connection server" => Box::new(quinn_ends::Connections::serve(&credentials)?),
        "quinn connection client" => Box::new(quinn_ends::Connections::dial(peer, &credentials)?),
        "quinn stream server" => Box::new(quinn_ends::Streams::serve(&credentials)?),
        "quinn stream client" => Box::new(quinn_ends::Streams::dial(peer, &credentials).await?),
        "bare connection server" => Box::new(BareServer::start(&credentials)?),
        "connection server" => Box::new(ours::Connections::serve(credentials)?),
        "connection client" => Box::new(ours::Connections::dial(peer, &credentials)?),
        "stream server" => Box::new(ours::Streams::serve(credentials)?),
        "stream client" => Box::new(ours::Streams::dial(peer, &credentials).await?),
        "relay" => Box::new(ours::Relay::serve(credentials)?),
        "taker" => Box::new(ours::Node::take(peer, &credentials).await?),
        "opener" => Box::new(ours::Node::open(peer, &credentials).await?),
        "call server" => Box::new(ours::Calls::serve(credentials)?),
        "call client" => Box::new(ours::Calls::dial(peer, &credentials).await?),
        other => return Err(format!("no role {other:?}").into()),
    })
}

/// Who takes part, in the order in which they start. The first listens; the last opens.
struct Case {
    name: &'static str,
    roles: &'static [&'static str],
    /// The table's columns that each of them is in.
    columns: &'static [usize],
}

const CONNECTIONS: [Case; 3] = [
    Case {
        name: "quinn",
        roles: &["quinn connection server", "quinn connection client"],
        columns: &[0, 1],
    },
    Case {
        name: "quinn-proto",
        roles: &["bare connection server", "connection client"],
        columns: &[0],
    },
    Case {
        name: "ours",
        roles: &["connection server", "connection client"],
        columns: &[0, 1],
    },
];

const OTHERS: [Case; 4] = [
    Case {
        name: "quinn stream",
        roles: &["quinn stream server", "quinn stream client"],
        columns: &[0, 1],
    },
    Case {
        name: "stream",
        roles: &["stream server", "stream client"],
        columns: &[0, 1],
    },
    Case {
        name: "tunnel",
        roles: &["relay", "taker", "opener"],
        columns: &[2, 0, 1],
    },
    Case {
        name: "call",
        roles: &["call server", "call client"],
        columns: &[0, 1],
    },
];

fn main() -> Result<()> {
    if let Some(role) = children::role() {
        return children::play(&role);
    }
    let arguments = Arguments::read(3);
    let credentials = our_setup::credentials()?;
    let kibibytes = |head, field| Column::new(head, field).decimals(2);
    let mut connections = Table::new(
        &[
            kibibytes("server RSS", "server_rss_kib"),
            kibibytes("server heap", "server_heap_kib"),
            kibibytes("client RSS", "client_rss_kib"),
            kibibytes("client heap", "client_heap_kib"),
        ],
        &["quinn"],
    );
    let mut others = Table::new(
        &[
            kibibytes("accepting RSS", "accepting_rss_kib"),
            kibibytes("its heap", "accepting_heap_kib"),
            kibibytes("opening RSS", "opening_rss_kib"),
            kibibytes("its heap", "opening_heap_kib"),
            kibibytes("relay RSS", "relay_rss_kib"),
            kibibytes("its heap", "relay_heap_kib"),
        ],
        &["quinn stream"],
    );
    let count = if arguments.quick { 20 } else { COUNT };
    measure(&CONNECTIONS, &mut connections, &arguments, &credentials, count)?;
    measure(&OTHERS, &mut others, &arguments, &credentials, count)?;
    let notes = format!(
        "KiB for each of {count} idle connections, medians of {} rounds, a process for each end",
        arguments.rounds
    );
    connections.print(&arguments, &[&notes]);
    let notes = format!("\nKiB for each of {count} idle streams, tunnels and calls on one connection, the same way");
    others.print(&arguments, &[&notes]);
    Ok(())
}

fn measure(
    cases: &[Case],
    table: &mut Table,
    arguments: &Arguments,
    credentials: &Credentials,
    count: usize,
) -> Result<()> {
    let cases = cases.iter().filter(|case| arguments.wants(case.name));
    let rows: Vec<_> = cases.map(|case| (case, table.row(case.name))).collect();
    for _ in 0..arguments.rounds {
        for &(case, row) in &rows {
            let weights = weigh(case, credentials, count).map_err(|error| format!("{}: {error}", case.name))?;
            for (weight, column) in weights.iter().zip(case.columns) {
                table.add(row, column * 2, weight.resident / 1024.0);
                table.add(row, column * 2 + 1, weight.heap / 1024.0);
            }
        }
    }
    Ok(())
}

/// What one costs in each of the processes.
fn weigh(case: &Case, credentials: &Credentials, count: usize) -> Result<Vec<Weight>> {
    let mut children: Vec<Child> = Vec::new();
    for role in case.roles {
        let peer = children.first().map_or(0, |first| first.port);
        children.push(Child::start(role, peer, credentials)?);
    }
    let mut weights = Vec::new();
    for _ in 0..2 {
        children.last_mut().ok_or("nobody opens")?.open(count)?;
        weights.push(children.iter_mut().map(Child::weigh).collect::<Result<Vec<_>>>()?);
    }
    let [first, second] = &weights[..] else {
        return Err("two weights are needed".into());
    };
    let one = |(before, after): (&Weight, &Weight)| Weight {
        resident: (after.resident - before.resident) / count as f64,
        heap: (after.heap - before.heap) / count as f64,
    };
    Ok(first.iter().zip(second).map(one).collect())
}
