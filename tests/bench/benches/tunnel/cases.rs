//! The cases, and how each is set up.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use macula_bench::{Result, cpu};
use macula_tokio::{
    DatagramSize, entropy,
    tls::{Credentials, SelfSigned},
};
use tokio::sync::mpsc as tokio_mpsc;

use crate::{
    ours, quinn_ends,
    scripted::Node,
    work::{self, Acceptor, Opener},
};

/// Which tokio runtime every party of a case runs on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    Multi,
    Current,
}

#[derive(Clone, Copy)]
enum Ends {
    Quinn,
    Ours,
}

pub(crate) struct Case {
    pub(crate) name: &'static str,
    flavour: Flavour,
    ends: Ends,
    relay: bool,
    size: DatagramSize,
}

const fn case(name: &'static str, flavour: Flavour, ends: Ends, relay: bool) -> Case {
    Case {
        name,
        flavour,
        ends,
        relay,
        size: DatagramSize::UpTo(1452),
    }
}

/// What the others are compared with.
pub(crate) const QUINN_MT: &str = "quinn direct, MT";
pub(crate) const QUINN_CT: &str = "quinn direct, CT";

pub(crate) const CASES: [Case; 9] = [
    case(QUINN_MT, Flavour::Multi, Ends::Quinn, false),
    case("ours direct, MT", Flavour::Multi, Ends::Ours, false),
    case(QUINN_CT, Flavour::Current, Ends::Quinn, false),
    case("ours direct, CT", Flavour::Current, Ends::Ours, false),
    case("ours through relay, MT", Flavour::Multi, Ends::Ours, true),
    case("ours through relay, CT", Flavour::Current, Ends::Ours, true),
    case("quinn through relay, MT", Flavour::Multi, Ends::Quinn, true),
    case("quinn through relay, CT", Flavour::Current, Ends::Quinn, true),
    Case {
        name: "ours direct, CT, 65000",
        flavour: Flavour::Current,
        ends: Ends::Ours,
        relay: false,
        size: DatagramSize::Discover,
    },
];

/// One round of bulk.
pub(crate) struct Bulk {
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
    /// Of all parties.
    pub(crate) cpu: Duration,
    pub(crate) relay_cpu: Duration,
}

enum Command {
    Bulk(u64),
    Trips(usize),
}

type Answer = Result<Vec<Duration>>;

/// A case that is set up: its parties wait for what to do. They live as long as the process.
pub(crate) struct Scene {
    commands: tokio_mpsc::UnboundedSender<Command>,
    answers: mpsc::Receiver<Answer>,
    threads: String,
}

impl Scene {
    pub(crate) fn build(case: &'static Case) -> Result<Self> {
        static SCENES: AtomicUsize = AtomicUsize::new(0);
        // Thread names end at 15 characters.
        let threads = format!("s{}-", SCENES.fetch_add(1, Ordering::Relaxed));
        let content = SelfSigned {
            names: vec!["localhost".to_owned()],
            ..SelfSigned::default()
        };
        let credentials = Credentials::self_signed(&entropy()?, &content)?;
        let party = |role: &str| Party {
            name: format!("{threads}{role}"),
            flavour: case.flavour,
        };
        let relay = case
            .relay
            .then(|| start_relay(&party("relay"), case, credentials.clone()))
            .transpose()?;
        let server = start_receiver(&party("receive"), case, credentials.clone(), relay)?;
        let (commands, receiver) = tokio_mpsc::unbounded_channel();
        let (sender, answers) = mpsc::channel();
        start_sender(&party("send"), case, credentials, server, receiver, sender);
        Ok(Self {
            commands,
            answers,
            threads,
        })
    }

    pub(crate) fn bulk(&self, bytes: u64) -> Result<Bulk> {
        let relay = format!("{}relay", self.threads);
        let before = (cpu::of_threads(&self.threads), cpu::of_threads(&relay));
        let times = self.run(Command::Bulk(bytes))?;
        Ok(Bulk {
            bytes,
            time: times.iter().sum(),
            cpu: cpu::of_threads(&self.threads).saturating_sub(before.0),
            relay_cpu: cpu::of_threads(&relay).saturating_sub(before.1),
        })
    }

    pub(crate) fn trips(&self, count: usize) -> Result<Vec<Duration>> {
        self.run(Command::Trips(count))
    }

    fn run(&self, command: Command) -> Answer {
        self.commands.send(command)?;
        self.answers.recv_timeout(Duration::from_secs(60))?
    }
}

/// Threads and a runtime.
struct Party {
    name: String,
    flavour: Flavour,
}

impl Party {
    /// Runs the future that `make` makes on a runtime of its own.
    fn start<F>(&self, make: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut builder = match self.flavour {
            Flavour::Multi => tokio::runtime::Builder::new_multi_thread(),
            Flavour::Current => tokio::runtime::Builder::new_current_thread(),
        };
        builder.enable_all().thread_name(self.name.as_str());
        let flavour = self.flavour;
        let body = move || {
            let runtime = builder.build().expect("a runtime");
            match flavour {
                // On a worker, as everything else of a multi-threaded program.
                Flavour::Multi => runtime
                    .block_on(async { tokio::spawn(async { make().await }).await })
                    .expect("a party"),
                Flavour::Current => runtime.block_on(async { make().await }),
            }
        };
        thread::Builder::new()
            .name(self.name.clone())
            .spawn(body)
            .expect("a thread");
    }
}

fn start_relay(party: &Party, case: &'static Case, credentials: Credentials) -> Result<SocketAddr> {
    let (sender, receiver) = mpsc::channel();
    party.start(move || async move {
        match ours::relay(credentials, case.size) {
            Ok(relay) => {
                let _ = sender.send(Ok(relay.endpoint().local_addr()));
                while relay.next_report().await.is_some() {}
            }
            Err(error) => drop(sender.send(Err(error))),
        }
    });
    receiver.recv()?
}

/// The receiving party; answers the address that the sender has to connect to.
fn start_receiver(
    party: &Party,
    case: &'static Case,
    credentials: Credentials,
    relay: Option<SocketAddr>,
) -> Result<SocketAddr> {
    let (sender, receiver) = mpsc::channel();
    party.start(move || async move {
        let ready = sender.clone();
        if let Err(error) = receive(case, credentials, relay, ready).await {
            let _ = sender.send(Err(error));
        }
    });
    receiver.recv()?
}

async fn receive(
    case: &Case,
    credentials: Credentials,
    relay: Option<SocketAddr>,
    ready: mpsc::Sender<Result<SocketAddr>>,
) -> Result<()> {
    match (case.ends, relay) {
        (Ends::Quinn, None) => {
            let endpoint = quinn_ends::listen(&credentials)?;
            ready.send(Ok(endpoint.local_addr()?))?;
            work::serve(quinn_ends::accept(endpoint).await?).await;
        }
        (Ends::Ours, None) => {
            let endpoint = ours::listen(credentials, case.size)?;
            ready.send(Ok(endpoint.local_addr()))?;
            work::serve(ours::accept(endpoint).await?).await;
        }
        (Ends::Quinn, Some(relay)) => {
            serve_at(relay, Node::connect(relay, "receiver", &credentials).await?, &ready).await?;
        }
        (Ends::Ours, Some(relay)) => {
            let node = ours::node(relay, "receiver", &credentials, case.size).await?;
            serve_at(relay, node, &ready).await?;
        }
    }
    Ok(())
}

async fn serve_at(relay: SocketAddr, node: impl Acceptor, ready: &mpsc::Sender<Result<SocketAddr>>) -> Result<()> {
    ready.send(Ok(relay))?;
    work::serve(node).await;
    Ok(())
}

fn start_sender(
    party: &Party,
    case: &'static Case,
    credentials: Credentials,
    server: SocketAddr,
    commands: tokio_mpsc::UnboundedReceiver<Command>,
    answers: mpsc::Sender<Answer>,
) {
    party.start(move || async move {
        if let Err(error) = send(case, &credentials, server, commands, &answers).await {
            let _ = answers.send(Err(error));
        }
    });
}

async fn send(
    case: &Case,
    credentials: &Credentials,
    server: SocketAddr,
    commands: tokio_mpsc::UnboundedReceiver<Command>,
    answers: &mpsc::Sender<Answer>,
) -> Result<()> {
    match (case.ends, case.relay) {
        (Ends::Quinn, false) => {
            let protocol = ours::DIRECT.as_bytes();
            obey(
                quinn_ends::connect(server, credentials, protocol).await?,
                commands,
                answers,
            )
            .await
        }
        (Ends::Ours, false) => obey(ours::connect(server, credentials, case.size).await?, commands, answers).await,
        (Ends::Quinn, true) => obey(Node::connect(server, "sender", credentials).await?, commands, answers).await,
        (Ends::Ours, true) => {
            let node = ours::node(server, "sender", credentials, case.size).await?;
            obey(node, commands, answers).await
        }
    }
}

async fn obey(
    mut opener: impl Opener,
    mut commands: tokio_mpsc::UnboundedReceiver<Command>,
    answers: &mpsc::Sender<Answer>,
) -> Result<()> {
    while let Some(command) = commands.recv().await {
        let answer = match command {
            Command::Bulk(bytes) => work::bulk(&mut opener, bytes).await.map(|time| vec![time]),
            Command::Trips(count) => work::trips(&mut opener, count).await,
        };
        answers.send(answer)?;
    }
    Ok(())
}
