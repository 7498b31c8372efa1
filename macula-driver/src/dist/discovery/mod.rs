//! Where other nodes are.
//!
//! A name such as `a@host` does not say on which port its node listens, and its host need not be the one that it is reached at.
//! A [`Discovery`] knows. An adapter makes one of a [table](Table) that was written by hand, and one, with the feature `dns`, of the
//! [SRV records](srv::SrvRecords) of the domain name system.

#[cfg(feature = "dns")]
pub mod srv;

mod table;

use std::{collections::BTreeSet, fmt, future::Future, io, net::SocketAddr, time::Duration};

pub use table::{Entry, ParseEntryError, Table};

use crate::Runtime;

/// Addresses of one node that are tried; of a table or an answer with more, the first ones.
pub const MAX_PLACES: usize = 64;

/// Longest name of a node, in characters: that of an atom.
const LONGEST: usize = 255;

/// Something that knows where nodes are.
pub trait Discovery {
    /// The names of all nodes it knows, in the order in which they are best tried.
    ///
    /// # Errors
    /// [`DiscoveryError`].
    fn nodes(&self) -> impl Future<Output = Result<Vec<String>, DiscoveryError>> + Send;

    /// Where to reach a node, the best place first; at least one, and at most [`MAX_PLACES`].
    ///
    /// # Errors
    /// [`DiscoveryError::NotFound`] for a node that it does not know.
    fn lookup(&self, node: &str) -> impl Future<Output = Result<Vec<Place>, DiscoveryError>> + Send;
}

/// Where a node may be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The host, by name or address: what its certificate is issued for.
    pub host: String,
    /// Its address.
    pub address: SocketAddr,
}

/// Why it is not known where a node is.
#[derive(Debug)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// This cannot be the name of a node, or a domain.
    Name(String),
    /// There is nothing under this name.
    NotFound(String),
    /// The look-up of this name took longer than that.
    TimedOut(String, Duration),
    /// The name server refused to look up this name, or could not: its response code.
    Refused(String, String),
    /// What the name server answered for this name cannot be read.
    Answer(String),
    /// The look-up of this name failed.
    Io(String, io::Error),
}

impl fmt::Display for DiscoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name:?} is not a name to look up"),
            Self::NotFound(name) => write!(f, "{name} is not known"),
            Self::TimedOut(name, after) => write!(f, "no answer for {name} within {} s", after.as_secs_f64()),
            Self::Refused(name, code) => write!(f, "the name server does not look up {name}: {code}"),
            Self::Answer(name) => write!(f, "the answer of the name server for {name} cannot be read"),
            Self::Io(name, error) => write!(f, "looking up {name} failed: {error}"),
        }
    }
}

impl std::error::Error for DiscoveryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            _ => None,
        }
    }
}

/// Whether a text can be the name of a node: `name@host`, of at most 255 characters, none of which is odd.
pub fn is_node_name(text: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '=' | '/');
    let (name, host) = text.split_once('@').unwrap_or_default();
    let good = |part: &str| !part.is_empty() && !part.contains(odd);
    good(name) && good(host) && text.chars().count() <= LONGEST
}

/// All addresses of a host, as the operating system finds them.
pub(crate) async fn resolve<R: Runtime>(host: &str, port: u16) -> io::Result<Vec<Place>> {
    let place = |address| Place {
        host: host.to_owned(),
        address,
    };
    let found = R::current()?.look_up(host, port).await?;
    let found: Vec<_> = found.into_iter().map(place).collect();
    match found.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::NotFound, "it has no address")),
        false => Ok(found),
    }
}

/// Each place once, not too many of them, and at least one.
pub(crate) fn finish(mut places: Vec<Place>, node: &str) -> Result<Vec<Place>, DiscoveryError> {
    let mut seen = BTreeSet::new();
    places.retain(|place| seen.insert((place.host.clone(), place.address)));
    places.truncate(MAX_PLACES);
    match places.is_empty() {
        true => Err(DiscoveryError::NotFound(node.to_owned())),
        false => Ok(places),
    }
}
