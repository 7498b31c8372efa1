//! What there is without a runtime, tasks or handles: quinn-proto and a socket, driven by one thread. No program would be written
//! so; it is what the work of QUIC itself takes, and the rest of a case is what a runtime and an interface add to that.

mod driver;
mod ends;
mod relay;

use std::{net::SocketAddr, time::Duration};

use macula_bench::{Result, party::Commands, quinn_setup::Setup};
use macula_tokio::{DatagramSize, tls::Credentials};

use self::driver::Bare;
use crate::{cases::Case, ours::DIRECT, parts::ready, quinn_ends, work::Counters};

/// How long a thread sleeps at the most before it looks whether there is something new to do.
const GLANCE: Duration = Duration::from_millis(5);

/// Buffers that one receive call fills.
const BATCH: usize = 32;
const BATCH_OF_RELAY: usize = 4;

fn setup(case: &Case) -> Setup {
    let setup = quinn_ends::setup(DIRECT.as_bytes());
    match case.tuning.size {
        DatagramSize::UpTo(bytes) => setup.largest(bytes),
        _ => setup,
    }
}

pub(crate) fn play(
    case: &Case,
    role: &str,
    credentials: &Credentials,
    to: Option<SocketAddr>,
    commands: &mut Commands,
) -> Result<()> {
    match (role, to) {
        ("relay", _) => {
            let bare = Bare::new(Some(setup(case).server(credentials)?), BATCH_OF_RELAY)?;
            ready(Some(bare.local_addr()?));
            relay::run(bare)
        }
        ("receive", None) => {
            let bare = Bare::new(Some(setup(case).server(credentials)?), BATCH)?;
            ready(Some(bare.local_addr()?));
            ends::receive(bare, &Counters::default(), commands)
        }
        ("receive", Some(relay)) => {
            let mut bare = Bare::new(None, BATCH)?;
            bare.connect(setup(case).client(credentials)?, relay)?;
            ready(None);
            ends::receive(bare, &Counters::default(), commands)
        }
        ("send", Some(to)) => {
            let mut bare = Bare::new(None, BATCH)?;
            let connection = bare.connect(setup(case).client(credentials)?, to)?;
            ready(None);
            ends::send(bare, connection, commands)
        }
        _ => Err("an unknown part".into()),
    }
}
