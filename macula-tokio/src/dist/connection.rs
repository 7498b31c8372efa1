//! The task of one connection.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use bytes::Bytes;
use macula_proto::{
    dist::{
        handshake::{Action, Established, Event, Failure, Handshake, Role},
        node,
    },
    wire::{dist::Frame, etf::Atom},
};
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout, timeout_at};

use super::{
    DownReason,
    carrier::{Carrier, MessageReceiver, MessageSender},
    shared::{Link, Shared, now},
};

/// Messages, and bytes, taken at once to be sent.
const BATCH: (usize, usize) = (64, 256 << 10);

/// How long what is still to be sent may take once a connection is closed.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection from its handshake on. `on_up` is told how the handshake ended.
pub(super) async fn run<C: Carrier>(
    shared: Arc<Shared>,
    (id, link): (u64, Arc<Link>),
    role: Role,
    mut carrier: C,
    on_up: impl FnOnce(Result<(), Failure>) + Send,
) {
    let mut peer = match &role {
        Role::Dialler { peer } => Some(peer.clone()),
        Role::Acceptor => None,
    };
    let mut result = shake(&shared, id, &link, role, &mut carrier, &mut peer).await;
    if let Ok(established) = &result
        && shared.up(id, established).is_err()
    {
        result = Err(Failure::Aborted);
    }
    match result {
        Ok(established) => {
            on_up(Ok(()));
            let reason = exchange(&shared, id, &link, carrier, established.rest).await;
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

async fn shake<C: Carrier>(
    shared: &Shared,
    id: u64,
    link: &Link,
    role: Role,
    carrier: &mut C,
    peer: &mut Option<Atom>,
) -> Result<Established, Failure> {
    let config = shared.handshake(C::HANDSHAKE);
    let mut machine = Handshake::new(role, config, &mut shared.lock().rng);
    let mut events = VecDeque::from([Event::Start]);
    loop {
        while let Some(event) = events.pop_front() {
            let mut actions = Vec::new();
            machine.handle(now(), event, &mut actions);
            for action in actions {
                match action {
                    Action::Send(bytes) => {
                        let until = machine.poll_timeout().unwrap_or_else(|| now().mono + FAREWELL);
                        if !matches!(timeout_at(until.into(), carrier.write(bytes)).await, Ok(Ok(()))) {
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
        events.push_back(tokio::select! {
            read = carrier.read() => match read {
                Ok(bytes) if !bytes.is_empty() => Event::Received(bytes),
                _ => Event::Lost,
            },
            () = link.close.notified() => Event::Abort,
            () = sleep_until(deadline.into()) => Event::Timeout,
        });
    }
}

async fn exchange<C: Carrier>(shared: &Shared, id: u64, link: &Link, carrier: C, rest: Bytes) -> DownReason {
    let (mut sender, mut receiver) = carrier.into_messages(rest, shared.config.limits.max_message);
    tokio::select! {
        error = send(shared, id, link, &mut sender) => return DownReason::Lost(error.kind()),
        reason = receive(shared, id, link, &mut receiver) => return reason,
        () = link.close.notified() => {}
    }
    let farewell = async {
        let mut batch = take(shared, id);
        while !batch.is_empty() && sender.send(&mut batch).await.is_ok() {
            batch = take(shared, id);
        }
    };
    let _ = timeout(FAREWELL, farewell).await;
    DownReason::Closed
}

async fn send(shared: &Shared, id: u64, link: &Link, sender: &mut impl MessageSender) -> io::Error {
    let mut ticks = interval((shared.config.net_ticktime / 4).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent = false;
    loop {
        let mut batch = take(shared, id);
        let sent = if batch.is_empty() {
            tokio::select! {
                () = link.writable.notified() => continue,
                _ = ticks.tick() => {}
            }
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

fn take(shared: &Shared, id: u64) -> Vec<Bytes> {
    let (messages, bytes) = BATCH;
    shared.with(|state, actions| {
        let mut batch = Vec::new();
        let mut length = 0;
        while batch.len() < messages && length < bytes {
            let Some(message) = state.node.poll_message(id, actions) else {
                break;
            };
            length += message.len();
            batch.push(message);
        }
        batch
    })
}

async fn receive(shared: &Shared, id: u64, link: &Link, receiver: &mut impl MessageReceiver) -> DownReason {
    loop {
        match take_in(shared, id, receiver) {
            Ok(true) => {}
            // A peer that is not read cannot be heard either.
            Ok(false) => {
                link.readable.notified().await;
                continue;
            }
            Err(error) => return DownReason::Lost(error.kind()),
        }
        match timeout(shared.config.net_ticktime, receiver.fill()).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return DownReason::Closed,
            Ok(Err(error)) => return DownReason::Lost(error.kind()),
            Err(_) => return DownReason::NetTickTimeout,
        }
    }
}

/// Hands in what has arrived. `false`: the node takes no more for now.
fn take_in(shared: &Shared, id: u64, receiver: &mut impl MessageReceiver) -> io::Result<bool> {
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
