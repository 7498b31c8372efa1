//! `macula expose`: tunnels become TCP connections.

use std::{io, sync::Arc, time::Duration};

use macula_proto::Code;
use tokio::net::TcpStream;

use super::{
    args::ExposeArgs,
    backend::{Backend, NodeHandle, TunnelHandle},
    events::Events,
    node::{self, Carrier, Pool},
    outcome::{Failure, Outcome},
    signals::Signals,
    values::HostPort,
};
use crate::tcp::SpliceOptions;

pub(crate) async fn run<B: Backend>(backend: &B, args: ExposeArgs, events: &Events, signals: &mut Signals) -> Outcome {
    let node = backend.node(node::options(&args.node, &args.allow_from)?).await;
    let node = node.map_err(|error| Failure::failed("node", error))?;
    let splice = SpliceOptions {
        idle: args.node.idle,
        ..SpliceOptions::default()
    };
    let mut pool = Pool::new(events.clone(), splice, args.node.max_tunnels);
    let service = Service {
        to: args.to,
        connect_timeout: args.connect_timeout,
    };
    let end = async {
        tokio::select! {
            () = signals.stop() => {}
            () = events.closed() => {}
        }
    };
    let outcome = tokio::select! {
        failure = serve(&node, service, &mut pool, events) => Err(failure),
        () = end => Ok(()),
    };
    tokio::select! {
        () = pool.drain(args.node.drain_timeout, signals.stop()) => {}
        () = refuse_all(&node, events) => {}
    }
    node.close().await;
    outcome
}

/// Where tunnels lead to.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) to: HostPort,
    pub(crate) connect_timeout: Duration,
}

/// Takes tunnels for as long as there is a node; what it returns says that there is none any more.
pub(crate) async fn serve<N: NodeHandle>(node: &N, service: Service, pool: &mut Pool, events: &Events) -> Failure {
    let service = Arc::new(service);
    loop {
        tokio::select! {
            event = node.next_event() => match event {
                Some(event) => events.tell(&event.into()),
                None => return Failure::failed("node", "the node has stopped"),
            },
            tunnel = node.incoming() => match tunnel {
                Some(tunnel) if pool.is_full() => {
                    events.error("limit", format_args!("too many tunnels: one from {} refused", tunnel.peer()));
                    refuse(tunnel, Code::LIMIT);
                }
                Some(tunnel) => {
                    let service = service.clone();
                    pool.spawn(|carrier| async move { connect_and_carry(tunnel, &service, &carrier).await });
                }
                None => return Failure::failed("node", "the node has stopped"),
            },
            () = pool.reap() => {}
        }
    }
}

pub(crate) async fn connect_and_carry<T: TunnelHandle>(tunnel: T, service: &Service, carrier: &Carrier) {
    let open = carrier.opened(tunnel);
    let connected = tokio::select! {
        connected = connect(service) => connected,
        () = carrier.cut() => return open.refuse(Code::SHUTDOWN, &carrier.events),
    };
    match connected {
        Ok(tcp) => carrier.carry(open, tcp).await,
        Err(error) => {
            let message = format_args!("cannot connect to {}: {error}", service.to);
            carrier.events.error("connect", message);
            open.refuse(Code::REFUSED, &carrier.events);
        }
    }
}

async fn connect(service: &Service) -> io::Result<TcpStream> {
    let HostPort { host, port } = &service.to;
    let connecting = TcpStream::connect((host.as_str(), *port));
    match tokio::time::timeout(service.connect_timeout, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} s", service.connect_timeout.as_secs_f64()),
        )),
    }
}

/// While the last tunnels end.
pub(crate) async fn refuse_all<N: NodeHandle>(node: &N, events: &Events) {
    loop {
        tokio::select! {
            Some(event) = node.next_event() => events.tell(&event.into()),
            Some(tunnel) = node.incoming() => refuse(tunnel, Code::DRAINING),
            else => std::future::pending().await,
        }
    }
}

pub(crate) fn refuse<T: TunnelHandle>(tunnel: T, code: Code) {
    use crate::tcp::{RecvHalf as _, SendHalf as _};
    let (mut recv, mut send) = tunnel.split();
    send.reset(code);
    recv.stop(code);
}

#[cfg(test)]
pub(super) mod tests;
