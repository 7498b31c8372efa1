//! Nodes in the domain name system.
//!
//! A domain lists its nodes in the SRV records of `_erlang-dist._quic.DOMAIN`: host, port, priority and weight. The name of a node
//! follows from its host, as deployed nodes derive it: the first label is what stands before the `@`, so that `a.left.example` is
//! `a@left.example`. Where every host runs one node of the same name, as in `worker@h1.example` and `worker@h2.example`, say so with
//! [`Names::Prefix`].

use std::{io, ops::Deref};

use macula_driver::dist::discovery::srv;
use macula_proto::Rng;

use super::{Discovery, DiscoveryError, Place};
use crate::runtime::Smol;

pub use macula_driver::dist::discovery::srv::{DEFAULT_PORT, Names, SrvConfig};

/// The nodes of a domain. It does what [`macula_driver::dist::discovery::srv::SrvRecords`] does, which it dereferences to.
#[derive(Debug)]
pub struct SrvRecords(srv::SrvRecords);

impl SrvRecords {
    /// Nothing is asked before the first look-up.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for what cannot be a domain or the first part of a node's name; those of the operating
    /// system's randomness.
    pub fn new(config: SrvConfig) -> io::Result<Self> {
        srv::SrvRecords::new(config).map(Self)
    }

    /// As [`new`](Self::new), with the randomness that chooses among nodes of the same priority.
    ///
    /// # Errors
    /// Those of `new`.
    pub fn with_rng(config: SrvConfig, rng: Rng) -> io::Result<Self> {
        srv::SrvRecords::with_rng(config, rng).map(Self)
    }
}

impl Discovery for SrvRecords {
    /// The nodes that the domain lists, by priority, and at random by weight among those of the same priority.
    async fn nodes(&self) -> Result<Vec<String>, DiscoveryError> {
        self.nodes_on::<Smol>().await
    }

    /// What the domain lists for this node; else, as deployed nodes do it, the SRV records of `_erlang-dist._quic.HOST.DOMAIN`; else the
    /// host in the node's name, at port 4433.
    async fn lookup(&self, node: &str) -> Result<Vec<Place>, DiscoveryError> {
        self.lookup_on::<Smol>(node).await
    }
}

impl Deref for SrvRecords {
    type Target = srv::SrvRecords;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
