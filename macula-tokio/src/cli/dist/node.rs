//! `macula dist node`.

use std::{
    future::pending,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use macula_proto::{Rng, wire::etf::Atom};
use tokio::task::JoinSet;

use super::{
    args::{CarrierArg, DistNodeArgs, SrvArg, StreamTo},
    cookie,
    dial::Dialler,
    events::DistEvent,
    figures::OfNode,
    processes::Process,
    streams,
    teller::Teller,
};
use crate::{
    Options,
    cli::{
        events::{Event, Events},
        metrics, network,
        outcome::{Failure, Outcome},
        relay,
        signals::Signals,
        tls,
        values::HostPort,
    },
    dist::{
        Node, NodeConfig, QuicConfig,
        discovery::{
            Table,
            srv::{Names, SrvConfig, SrvRecords},
        },
        epmd,
    },
};

pub(super) async fn run(args: DistNodeArgs, events: &Events, signals: &mut Signals) -> Outcome {
    args.check()?;
    // Standard output is for the bytes of the stream.
    let silent = args.stream.is_some() && !events.is_json();
    let mut config = NodeConfig::new(args.name.0.clone(), cookie::of(&args)?);
    config.net_ticktime = args.net_ticktime;
    config.setup_time = args.timeout;
    let domains = domains(&args).await?;
    let node = Node::start(config).map_err(|error| Failure::failed("node", error))?;
    let shown = if silent { Events::silent() } else { events.clone() };
    let teller = Teller::new(&node, shown, args.quiet, silent);
    let mut tasks = JoinSet::new();
    processes(&node, &args, &teller, &mut tasks)?;
    let opened = async {
        match args.carrier {
            CarrierArg::Quic => quic(&node, &args, &teller, &mut tasks).await.map(|()| None),
            CarrierArg::Tcp => tcp(&node, &args, &teller).await,
        }
    };
    // An entry in the port mapper stands as long as this.
    let _entered = tokio::select! {
        opened = opened => opened?,
        () = signals.stop() => return Ok(()),
    };
    if let Some(at) = &args.metrics {
        let serving = metrics::open(at, OfNode(node.clone()), &teller.events).await?;
        tasks.spawn(async move {
            // It goes on for ever.
            let _ = serving.await;
            Ok(())
        });
    }
    diallers(&node, &args, domains, &teller, &mut tasks)?;
    let outcome = work(&node, &args, tasks, &teller, events, signals).await;
    tokio::select! {
        () = node.shutdown() => {}
        () = signals.stop() => return Err(Failure::failed("interrupted", "interrupted while closing connections")),
    }
    // What the end of the connections made known.
    teller.catch_up();
    outcome
}

/// Until it is told to stop, the stream is over, or nothing is left to be tried.
async fn work(
    node: &Node,
    args: &DistNodeArgs,
    tasks: JoinSet<Outcome>,
    teller: &Teller,
    events: &Events,
    signals: &mut Signals,
) -> Outcome {
    let stream = async {
        match args.stream.clone() {
            Some(to) => streams::pipe(node.clone(), to, args.stream_priority(), teller.clone()).await,
            None => pending().await,
        }
    };
    tokio::select! {
        () = signals.stop() => Ok(()),
        () = events.closed() => Ok(()),
        outcome = stream => outcome,
        () = teller.keep_up() => Err(Failure::failed("node", "the node has stopped")),
        failure = first_failure(tasks) => Err(failure),
    }
}

async fn first_failure(mut tasks: JoinSet<Outcome>) -> Failure {
    while let Some(ended) = tasks.join_next().await {
        if let Ok(Err(failure)) = ended {
            return failure;
        }
    }
    pending().await
}

// ----- what the node consists of -----------------------------------------------------------------------------------

fn processes(node: &Node, args: &DistNodeArgs, teller: &Teller, tasks: &mut JoinSet<Outcome>) -> Result<(), Failure> {
    let names = args.processes();
    teller.tell(&DistEvent::Node {
        name: args.name.0.clone(),
        carrier: args.carrier.to_string(),
        processes: names.clone(),
    });
    let mut greetings = (!args.send.is_empty()).then(|| (node.events(), args.send.clone()));
    for name in names {
        let process = Process::start(node, &name, args.echo, teller)?;
        let greetings = greetings.take();
        tasks.spawn(async move {
            process.run(greetings).await;
            Ok(())
        });
    }
    Ok(())
}

async fn quic(node: &Node, args: &DistNodeArgs, teller: &Teller, tasks: &mut JoinSet<Outcome>) -> Result<(), Failure> {
    let (trust, _) = tls::trust(&args.trust_args())?;
    let mut config = QuicConfig::new(trust);
    let mut options = Options::default();
    // A second listener on the same port shall fail, not take half of the first one's datagrams.
    options.socket.reuse_port = false;
    let endpoint = match &args.listen {
        Some(at) => {
            let credentials = tls::identity(&args.identity())?;
            teller.events.tell(&Event::Certificate {
                pin: credentials.pin().to_string(),
            });
            // Who was connected before this listener was started again learns of it at once.
            options.endpoint.reset_key = Some(network::reset_key(&credentials));
            config.credentials = Some(credentials.into());
            if !args.allow.is_empty() {
                let allowed = args.allow.iter().map(|node| Atom::new(&node.0));
                let allowed = allowed.collect::<Result<_, _>>();
                config.allowed = Some(allowed.map_err(|error| Failure::Usage(error.to_string()))?);
            }
            let endpoint = network::bind(relay::resolve(at).await?, options);
            endpoint.map_err(|error| network::cannot_listen(at, error))?
        }
        None => {
            let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
            network::bind(any, options).map_err(|error| Failure::failed("node", error))?
        }
    };
    let addr = endpoint.local_addr().to_string();
    let failed = |error: io::Error| Failure::failed("node", error);
    node.serve_quic((*endpoint).clone(), config).map_err(failed)?;
    let acceptor = node.accept_streams().map_err(failed)?;
    let taking = streams::take(acceptor, args.echo, teller.clone());
    tasks.spawn(async move {
        taking.await;
        Ok(())
    });
    if args.listen.is_some() {
        teller.events.tell(&Event::Listening { addr });
    }
    Ok(())
}

async fn tcp(node: &Node, args: &DistNodeArgs, teller: &Teller) -> Result<Option<epmd::Registration>, Failure> {
    let Some(at) = &args.listen else { return Ok(None) };
    let address = relay::resolve(at).await?;
    let listening = match node.listen(address).await {
        Ok(listening) => listening,
        // On a system without IPv6 "every address" means every IPv4 address.
        Err(error)
            if error.kind() != io::ErrorKind::AddrInUse
                && address == SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port())) =>
        {
            let v4 = node.listen((Ipv4Addr::UNSPECIFIED, address.port()).into()).await;
            v4.map_err(|error| network::cannot_listen(at, error))?
        }
        Err(error) => return Err(network::cannot_listen(at, error)),
    };
    let entered = match &args.epmd {
        Some(epmd) => Some(enter(epmd, &args.name.0, listening.port()).await?),
        None => None,
    };
    teller.events.tell(&Event::Listening {
        addr: listening.to_string(),
    });
    Ok(entered)
}

async fn enter(at: &HostPort, name: &str, port: u16) -> Result<epmd::Registration, Failure> {
    let failed = |error: io::Error| Failure::failed("epmd", format_args!("EPMD at {at}: {error}"));
    let short = name.split_once('@').map_or(name, |(short, _)| short);
    let mut last = io::ErrorKind::NotFound.into();
    for address in at.resolve().await.map_err(failed)? {
        match epmd::register(address, short, port).await {
            Ok(entered) => return Ok(entered),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

// ----- whom it dials -----------------------------------------------------------------------------------------------

async fn domains(args: &DistNodeArgs) -> Result<Vec<(String, Arc<SrvRecords>)>, Failure> {
    let servers = match &args.dns {
        Some(at) => {
            let found = at.resolve().await;
            found.map_err(|error| Failure::failed("discovery", format_args!("{at}: {error}")))?
        }
        None => Vec::new(),
    };
    let records = |srv: &SrvArg| {
        let mut config = SrvConfig::new(&srv.domain);
        config.servers.clone_from(&servers);
        if let Some(prefix) = &srv.prefix {
            config.names = Names::Prefix(prefix.clone());
        }
        let records = SrvRecords::new(config).map_err(|error| Failure::Usage(error.to_string()))?;
        Ok((srv.domain.clone(), Arc::new(records)))
    };
    args.connect_srv.iter().map(records).collect()
}

fn diallers(
    node: &Node,
    args: &DistNodeArgs,
    domains: Vec<(String, Arc<SrvRecords>)>,
    teller: &Teller,
    tasks: &mut JoinSet<Outcome>,
) -> Result<(), Failure> {
    let entropy = crate::entropy().map_err(|error| Failure::failed("entropy", error))?;
    let rng = Arc::new(Mutex::new(Rng::from_entropy(entropy)));
    let dialler = |once: bool| Dialler {
        node: node.clone(),
        carrier: args.carrier,
        teller: teller.clone(),
        timeout: args.timeout,
        once,
        rng: Arc::clone(&rng),
    };
    let table: Arc<Table> = Arc::new(args.connect.iter().cloned().collect());
    for peer in table.names() {
        let once = match &args.stream {
            Some(StreamTo::Any) => true,
            Some(StreamTo::Node(wanted)) => wanted == peer,
            None => false,
        };
        let kept = dialler(once).keep(Arc::clone(&table), peer.to_owned());
        tasks.spawn(async { Err(kept.await) });
    }
    for (domain, records) in domains {
        let kept = dialler(args.stream == Some(StreamTo::Any)).keep_all(records, domain);
        tasks.spawn(async { Err(kept.await) });
    }
    Ok(())
}
