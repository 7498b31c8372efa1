//! Who tells what happens, in order.

use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use super::events::DistEvent;
use crate::{
    cli::{
        events::{self, Event, Events},
        outcome::Failure,
    },
    dist::{Events as NodeEvents, Node, NodeEvent},
};

/// Tells what happens. Many tasks do; that a node is connected is told before anything that comes from it, whichever task is first.
#[derive(Debug, Clone)]
pub(super) struct Teller {
    pub(super) events: Events,
    /// Whether messages and bytes are told of.
    pub(super) quiet: bool,
    /// Whether standard output is for bytes alone, so that what goes wrong goes to the log.
    pub(super) silent: bool,
    node: Node,
    /// What came and went, and is not told yet. Held while it is told, so that nobody overtakes it.
    nodes: Arc<Mutex<NodeEvents>>,
}

impl Teller {
    pub(super) fn new(node: &Node, events: Events, quiet: bool, silent: bool) -> Self {
        Self {
            events,
            quiet,
            silent,
            node: node.clone(),
            nodes: Arc::new(Mutex::new(node.events())),
        }
    }

    pub(super) fn tell(&self, event: &DistEvent) {
        self.catch_up();
        self.show(event);
    }

    /// Tells of what peers can make a lot of, when there is room for it.
    pub(super) async fn tell_when_room(&self, event: &DistEvent) {
        if !self.quiet {
            self.catch_up();
            let line = events::line(event, self.events.is_json());
            self.events.print_when_room(line).await;
        }
    }

    /// Something went wrong, but the command goes on.
    pub(super) fn failure(&self, failure: &Failure) {
        self.catch_up();
        match self.silent {
            true => tracing::warn!("{failure}"),
            false => self.events.error(failure.kind().to_owned(), failure),
        }
    }

    /// Tells which nodes have come and gone until now.
    pub(super) fn catch_up(&self) {
        let mut nodes = self.nodes();
        while let Some(event) = nodes.try_next() {
            self.came_or_went(event);
        }
    }

    /// Tells which nodes come and go, until there will be none any more.
    pub(super) async fn keep_up(&self) {
        poll_fn(|cx| {
            let mut nodes = self.nodes();
            loop {
                match pin!(nodes.next()).poll(cx) {
                    Poll::Ready(Some(event)) => self.came_or_went(event),
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    }

    fn nodes(&self) -> MutexGuard<'_, NodeEvents> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn came_or_went(&self, event: NodeEvent) {
        match event {
            NodeEvent::Up(peer) => {
                let link = self.node.quic_link(&peer);
                self.show(&DistEvent::Connected {
                    remote: link.as_ref().map(|link| link.remote.to_string()),
                    resumed: link.map(|link| link.resumed),
                    peer: peer.as_str().to_owned(),
                });
            }
            NodeEvent::Down(peer, reason) => self.show(&DistEvent::Disconnected {
                peer: peer.as_str().to_owned(),
                reason: reason.to_string(),
            }),
            NodeEvent::Missed(count) => self.events.tell(&Event::EventsLost { count }),
            _ => {}
        }
    }

    fn show(&self, event: &DistEvent) {
        if self.silent {
            tracing::info!("{event}");
        }
        self.events.print(events::line(event, self.events.is_json()));
    }
}
