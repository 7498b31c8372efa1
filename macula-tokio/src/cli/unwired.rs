//! Stands in for the library until it has relays and nodes.

use std::{convert::Infallible, io, net::SocketAddr};

use macula_proto::{
    Code,
    quic::tls::Credentials,
    tunnel::{
        Name,
        client::session::RequestError,
        relay::{AccessRules, Report},
    },
    wire::control::TunnelId,
};
use tokio::io::{Empty, Sink};

use super::backend::{
    Backend, NodeEvent, NodeHandle, NodeOptions, RelayHandle, RelayOptions, RelaySnapshot, TunnelHandle,
};
use crate::tcp::{RecvHalf, SendHalf};

/// Makes nothing.
#[derive(Debug)]
pub(crate) struct Unwired;

impl Backend for Unwired {
    type Relay = Never;
    type Node = Never;

    async fn relay(&self, _: RelayOptions) -> io::Result<Never> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn node(&self, _: NodeOptions) -> io::Result<Never> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// What does not exist.
#[derive(Debug)]
pub(crate) struct Never(Infallible);

impl RelayHandle for Never {
    fn local_addrs(&self) -> Vec<SocketAddr> {
        match self.0 {}
    }

    async fn next_report(&self) -> Option<Report> {
        match self.0 {}
    }

    async fn snapshot(&self) -> RelaySnapshot {
        match self.0 {}
    }

    fn set_access(&self, _: AccessRules) {
        match self.0 {}
    }

    fn set_credentials(&self, _: Credentials) {
        match self.0 {}
    }

    fn drain(&self) {
        match self.0 {}
    }

    async fn close(&self) {
        match self.0 {}
    }
}

impl NodeHandle for Never {
    type Tunnel = Self;

    async fn next_event(&self) -> Option<NodeEvent> {
        match self.0 {}
    }

    async fn open(&self, _: &Name) -> Result<Self, RequestError> {
        match self.0 {}
    }

    async fn incoming(&self) -> Option<Self> {
        match self.0 {}
    }

    async fn close(&self) {
        match self.0 {}
    }
}

impl TunnelHandle for Never {
    type Recv = Empty;
    type Send = Sink;

    fn id(&self) -> TunnelId {
        match self.0 {}
    }

    fn peer(&self) -> Name {
        match self.0 {}
    }

    fn relay(&self) -> String {
        match self.0 {}
    }

    fn split(self) -> (Empty, Sink) {
        match self.0 {}
    }
}

impl RecvHalf for Empty {
    fn stop(&mut self, _: Code) {}
}

impl SendHalf for Sink {
    fn reset(&mut self, _: Code) {}
}
