//! What a process of a case does: the relay, the receiver or the sender.

use std::{net::SocketAddr, sync::Arc};

use macula_bench::{
    Result,
    party::{self, Commands, answer},
};
use macula_tokio::tls::Credentials;
use serde_json::{Value, json};
use tokio::runtime::Builder;

use crate::{
    bare,
    cases::{self, Case, Ends, Flavour, Path},
    link::{Acceptor, Opener},
    ours, quinn_ends, relays,
    work::{self, Counters},
};

/// Plays the part that the words name, until whoever started this process has enough.
pub(crate) fn play(words: &[String]) -> Result<()> {
    let [role, name] = words else {
        return Err("a role and a case".into());
    };
    let case = cases::named(name)?;
    if case.ends == Ends::Bare {
        return play_bare(case, role);
    }
    let role = role.clone();
    let runtime = match case.flavour {
        Flavour::Multi => Builder::new_multi_thread().enable_all().build()?,
        Flavour::Current => Builder::new_current_thread().enable_all().build()?,
    };
    let part = async move {
        let mut commands = party::commands();
        let played = match commands.recv().await {
            Some(first) => part(&role, case, &first, &mut commands).await,
            None => Ok(()),
        };
        if let Err(error) = played {
            answer(&Err(error));
        }
        // The end comes from outside.
        std::future::pending::<()>().await;
    };
    match case.flavour {
        // On a worker, as everything else of a multi-threaded program.
        Flavour::Multi => runtime.block_on(async { tokio::spawn(part).await })?,
        Flavour::Current => runtime.block_on(part),
    }
    Ok(())
}

/// Without a runtime.
fn play_bare(case: &Case, role: &str) -> Result<()> {
    let mut commands = party::commands();
    let first = commands.blocking_recv().ok_or("no command")?;
    let (credentials, to) = start(&first)?;
    let played = bare::play(case, role, &credentials, to, &mut commands);
    if let Err(error) = played {
        answer(&Err(error));
    }
    loop {
        // The end comes from outside.
        std::thread::park();
    }
}

/// What the first command says: the certificate, and where to connect to.
fn start(first: &Value) -> Result<(Credentials, Option<SocketAddr>)> {
    let credentials = Credentials::from_pem(first["credentials"].as_str().unwrap_or_default().as_bytes())?;
    let to = first["to"].as_str().map(str::parse).transpose()?;
    Ok((credentials, to))
}

async fn part(role: &str, case: &'static Case, first: &Value, commands: &mut Commands) -> Result<()> {
    let (credentials, to) = start(first)?;
    match (role, to) {
        ("relay", to) => relay(case, credentials, to, commands).await,
        ("receive", to) => receive(case, &credentials, to, commands).await,
        ("send", Some(to)) => send(case, credentials, to, commands).await,
        _ => Err("an unknown part".into()),
    }
}

/// Tells whoever started this process that it can be told what to do.
pub(crate) fn ready(address: Option<SocketAddr>) {
    answer(&Ok(json!({ "address": address.map(|address| address.to_string()) })));
}

async fn relay(case: &Case, credentials: Credentials, to: Option<SocketAddr>, commands: &mut Commands) -> Result<()> {
    match (case.path, to) {
        (Path::Macula, _) => {
            let relay = ours::relay(&credentials, case.tuning)?;
            ready(Some(relay.endpoint().local_addr()));
            while relay.next_report().await.is_some() {}
        }
        (Path::Quinn, _) => {
            let endpoint = quinn_ends::listen(&credentials)?;
            ready(Some(endpoint.local_addr()?));
            relays::quinn(endpoint).await?;
        }
        (Path::Tcp, Some(to)) => {
            let listener = relays::listen_tcp().await?;
            ready(Some(listener.local_addr()?));
            relays::tcp(listener, to).await?;
        }
        _ => return Err("no relay".into()),
    }
    commands.recv().await;
    Ok(())
}

async fn receive(
    case: &Case,
    credentials: &Credentials,
    relay: Option<SocketAddr>,
    commands: &mut Commands,
) -> Result<()> {
    let acceptor = Acceptor::start(case, credentials, relay).await?;
    ready(acceptor.address()?);
    let counters = Arc::new(Counters::default());
    tokio::spawn(work::serve(acceptor, counters.clone()));
    while commands.recv().await.is_some() {
        answer(&Ok(counters.read()));
    }
    Ok(())
}

async fn send(case: &'static Case, credentials: Credentials, to: SocketAddr, commands: &mut Commands) -> Result<()> {
    // Who has no connection of its own for each stream is connected now.
    let mut openers = Vec::new();
    for node in 0..case.nodes {
        openers.push(Opener::connect(case, &credentials, to, node).await?);
    }
    ready(None);
    while let Some(command) = commands.recv().await {
        answer(&obey(&mut openers, &command).await);
    }
    Ok(())
}

async fn obey(openers: &mut [Opener], command: &Value) -> Result<Value> {
    if let Some(bytes) = command["bulk"].as_u64() {
        let time = work::bulk(openers[0].open().await?, bytes).await?;
        Ok(json!({ "nanoseconds": time.as_nanos() as u64 }))
    } else if let Some(count) = command["trips"].as_u64() {
        let times = work::trips(openers[0].open().await?, count as usize).await?;
        Ok(times.iter().map(|time| time.as_nanos() as u64).collect())
    } else if let Some(streams) = command["flood"].as_u64() {
        // All are there before the first one takes what there is.
        let nodes = openers.len();
        let mut open = Vec::new();
        for stream in 0..streams as usize {
            open.push(openers[stream % nodes].open().await?);
        }
        for stream in open {
            tokio::spawn(work::flood(stream));
        }
        Ok(json!({ "streams": streams }))
    } else {
        Err("an unknown command".into())
    }
}
