//! Nodes of Erlang distribution over QUIC, on real sockets.

mod connections;
mod messages;
mod nodes;
mod reconnect;
mod streams;

use std::{future::Future, net::SocketAddr, time::Duration};

use macula_tokio::{
    dist::{Mailbox, Node, NodeConfig, QuicConfig, Signal, Term, atom},
    entropy,
    tls::{Credentials, SelfSigned, Trust},
};

/// Far more than anything here takes; only a hang reaches it.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(30), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} takes too long"),
    }
}

pub(crate) fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub(crate) fn name(short: &str) -> String {
    format!("{short}@127.0.0.1")
}

pub(crate) fn config(short: &str) -> NodeConfig {
    NodeConfig::new(name(short), "cookie")
}

pub(crate) fn credentials() -> Credentials {
    Credentials::self_signed(&entropy().unwrap(), &SelfSigned::default()).unwrap()
}

/// A node that lets others in, and where it is.
pub(crate) fn start(config: NodeConfig) -> (Node, SocketAddr) {
    let node = Node::start(config).unwrap();
    let quic = QuicConfig::new(Trust::Insecure).credentials(credentials());
    let address = node.bind_quic(any(), quic).unwrap();
    (node, address)
}

/// Two nodes that are connected; a has dialled.
pub(crate) async fn pair() -> (Node, Node) {
    let ((a, _), (b, address)) = (start(config("a")), start(config("b")));
    soon("a dial", a.connect_quic(&name("b"), address)).await.unwrap();
    assert!(a.ping(&name("b")).await && b.ping(&name("a")).await);
    (a, b)
}

pub(crate) fn word(text: &str) -> Term {
    Term::Atom(atom(text).unwrap())
}

pub(crate) async fn recv(mailbox: &mut Mailbox) -> Signal {
    soon("a signal", mailbox.recv()).await.expect("an open mailbox")
}
