//! The task of one connection over a stream of bytes.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use macula_proto::{
    dist::{
        handshake::{Action, Established, Event, Failure, Handshake, Role},
        node,
    },
    wire::{
        dist::{Frame, handshake::Carrier},
        etf::Atom,
    },
};

use super::{
    DownReason,
    bytes::{ByteReader, ByteWriter, Receiver, Sender},
    shared::{Link, Shared, now},
};
use crate::runtime::{First, first};

/// How long what is still to be sent may take once a connection is closed.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// A connection from its handshake on. `on_up` is told how the handshake ended.
pub(super) async fn run<R: ByteReader, W: ByteWriter>(
    shared: Arc<Shared>,
    (id, link): (u64, Arc<Link>),
    role: Role,
    (reader, writer): (R, W),
    on_up: impl FnOnce(Result<(), Failure>) + Send,
) {
    let mut peer = match &role {
        Role::Dialler { peer } => Some(peer.clone()),
        Role::Acceptor => None,
    };
    let mut receiver = Receiver::new(reader, shared.config.limits.max_message);
    let mut sender = Sender::new(writer);
    let machine = Handshake::new(role, shared.handshake(Carrier::Tcp), &mut shared.lock().rng);
    let halves = (&mut sender.writer, &mut receiver);
    let mut result = shake(&shared, (id, &link), machine, halves, &mut peer).await;
    if let Ok(established) = &result
        && shared.up(id, established).is_err()
    {
        result = Err(Failure::Aborted);
    }
    match result {
        Ok(established) => {
            on_up(Ok(()));
            receiver.begin(established.rest);
            let reason = exchange(&shared, id, &link, sender, receiver).await;
            tracing::debug!(peer = %established.peer, %reason, "node down");
            shared.gone(id, peer.as_ref(), reason);
        }
        Err(failure) => {
            tracing::debug!(?peer, %failure, "no connection");
            shared.gone(id, peer.as_ref(), DownReason::Closed);
            on_up(Err(failure));
        }
    }
}

async fn shake<R: ByteReader, W: ByteWriter>(
    shared: &Shared,
    (id, link): (u64, &Link),
    mut machine: Handshake,
    (writer, receiver): (&mut W, &mut Receiver<R>),
    peer: &mut Option<Atom>,
) -> Result<Established, Failure> {
    let mut events = VecDeque::from([Event::Start]);
    loop {
        while let Some(event) = events.pop_front() {
            let mut actions = Vec::new();
            machine.handle(now(), event, &mut actions);
            for action in actions {
                match action {
                    Action::Send(mut bytes) => {
                        let until = machine.poll_timeout().unwrap_or_else(|| now().mono + FAREWELL);
                        if !matches!(shared.until(until, writer.write(&mut bytes)).await, Some(Ok(()))) {
                            events.push_back(Event::Lost);
                        }
                    }
                    Action::AskStanding { peer: calling } => {
                        events.push_back(Event::Standing(shared.standing(&calling, id)));
                        *peer = Some(calling);
                    }
                    Action::AskWanted => {
                        let wanted = peer
                            .as_ref()
                            .is_some_and(|peer| shared.lock().table.is_wanted(peer, id));
                        events.push_back(Event::Wanted(wanted));
                    }
                    // Done where the standing was found.
                    Action::AbortDial => {}
                    Action::Up(established) => return Ok(*established),
                    Action::Failed(failure) => return Err(failure),
                }
            }
        }
        let deadline = machine.poll_timeout().unwrap_or_else(|| now().mono);
        let read = shared.until(deadline, receiver.bytes());
        events.push_back(match first(read, link.close.raised()).await {
            First::One(Some(Ok(bytes))) if !bytes.is_empty() => Event::Received(bytes),
            First::One(Some(_)) => Event::Lost,
            First::One(None) => Event::Timeout,
            First::Other(()) => Event::Abort,
        });
    }
}

async fn exchange<R: ByteReader, W: ByteWriter>(
    shared: &Shared,
    id: u64,
    link: &Link,
    mut sender: Sender<W>,
    mut receiver: Receiver<R>,
) -> DownReason {
    let both = first(
        send(shared, id, link, &mut sender),
        receive(shared, id, link, &mut receiver),
    );
    match first(both, link.close.raised()).await {
        First::One(First::One(error)) => return DownReason::Lost(error.kind()),
        First::One(First::Other(reason)) => return reason,
        First::Other(()) => {}
    }
    let farewell = async {
        let mut batch = shared.take(id);
        while !batch.is_empty() && sender.send(&mut batch).await.is_ok() {
            batch = shared.take(id);
        }
    };
    shared.until(Instant::now() + FAREWELL, farewell).await;
    DownReason::Closed
}

async fn send<W: ByteWriter>(shared: &Shared, id: u64, link: &Link, sender: &mut Sender<W>) -> io::Error {
    let quarter = (shared.config.net_ticktime / 4).max(Duration::from_millis(1));
    let mut tick = shared.runtime.timer(Instant::now() + quarter);
    let mut silent = true;
    loop {
        let mut batch = shared.take(id);
        let sent = if batch.is_empty() {
            if let First::One(()) = first(link.writable.raised(), &mut tick).await {
                continue;
            }
            tick = shared.runtime.timer(Instant::now() + quarter);
            if std::mem::replace(&mut silent, true) {
                sender.tick().await
            } else {
                continue;
            }
        } else {
            silent = false;
            sender.send(&mut batch).await
        };
        if let Err(error) = sent {
            return error;
        }
    }
}

async fn receive<R: ByteReader>(shared: &Shared, id: u64, link: &Link, receiver: &mut Receiver<R>) -> DownReason {
    let limit = shared.config.net_ticktime;
    let mut heard = Instant::now();
    let mut deadline = shared.runtime.timer(heard + limit);
    loop {
        match take_in(shared, id, receiver) {
            Ok(true) => {}
            // A peer that is not read cannot be heard either.
            Ok(false) => {
                link.readable.raised().await;
                heard = Instant::now();
                continue;
            }
            Err(error) => return DownReason::Lost(error.kind()),
        }
        match first(receiver.fill(), &mut deadline).await {
            First::One(Ok(true)) => heard = Instant::now(),
            First::One(Ok(false)) => return DownReason::Closed,
            First::One(Err(error)) => return DownReason::Lost(error.kind()),
            First::Other(()) if heard.elapsed() >= limit => return DownReason::NetTickTimeout,
            // One timer for many reads: it is set again only when it has run out.
            First::Other(()) => deadline = shared.runtime.timer(heard + limit),
        }
    }
}

/// Hands in what has arrived. `false`: the node takes no more for now.
fn take_in<R: ByteReader>(shared: &Shared, id: u64, receiver: &mut Receiver<R>) -> io::Result<bool> {
    shared.with(|state, actions| {
        while state.node.can_receive(id) {
            match receiver.next()? {
                Some(Frame::Message(message)) => {
                    let connection = id;
                    state
                        .node
                        .handle(node::Event::Received { connection, message }, actions);
                }
                Some(Frame::Tick) => {}
                None => return Ok(true),
            }
        }
        Ok(false)
    })
}

/// Hands in messages from the front, as far as the node takes them; `false` when it takes no more for now.
pub(super) fn hand_in(shared: &Shared, id: u64, messages: &mut VecDeque<Bytes>) -> bool {
    shared.with(|state, actions| {
        while !messages.is_empty() {
            if !state.node.can_receive(id) {
                return false;
            }
            if let Some(message) = messages.pop_front() {
                let connection = id;
                state
                    .node
                    .handle(node::Event::Received { connection, message }, actions);
            }
        }
        true
    })
}
