//! Nodes of Erlang distribution.

mod connections;
mod epmd;
mod messages;
mod nodes;
mod reconnect;
mod streams;
mod tcp;

use std::{future::Future, net::SocketAddr, time::Duration};

use crate::{
    adapter::timeout,
    macula::{
        dist::{Mailbox, Node, NodeConfig, QuicConfig, Signal, Term, atom},
        tls::Trust,
    },
};

use super::common::credentials;

/// Far more than anything here takes; only a hang reaches it.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(Duration::from_secs(60), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} takes too long"),
    }
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn name(short: &str) -> String {
    format!("{short}@127.0.0.1")
}

fn config(short: &str) -> NodeConfig {
    NodeConfig::new(name(short), "cookie")
}

/// A node that lets others in, and where it is.
fn start(config: NodeConfig) -> (Node, SocketAddr) {
    let node = Node::start(config).unwrap();
    let quic = QuicConfig::new(Trust::Insecure).credentials(credentials());
    let address = node.bind_quic(any(), quic).unwrap();
    (node, address)
}

/// Two nodes that are connected; a has dialled.
async fn pair() -> (Node, Node) {
    let ((a, _), (b, address)) = (start(config("a")), start(config("b")));
    soon("a dial", a.connect_quic(&name("b"), address)).await.unwrap();
    assert!(a.ping(&name("b")).await && b.ping(&name("a")).await);
    (a, b)
}

fn word(text: &str) -> Term {
    Term::Atom(atom(text).unwrap())
}

async fn recv(mailbox: &mut Mailbox) -> Signal {
    soon("a signal", mailbox.recv()).await.expect("an open mailbox")
}
