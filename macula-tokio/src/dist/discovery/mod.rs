//! Where other nodes are.
//!
//! A name such as `a@host` does not say on which port its node listens, and its host need not be the one that it is reached at.
//! A [`Discovery`] knows: a [table](Table) that was written by hand, or, with the feature `dns`, [SRV records](srv::SrvRecords) of
//! the domain name system.
//!
//! ```
//! use macula_tokio::dist::discovery::{Discovery, Table};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let table: Table = ["a@left.example=127.0.0.1:4433".parse()?].into_iter().collect();
//! let places = table.lookup("a@left.example").await?;
//! assert_eq!((places[0].host.as_str(), places[0].address.port()), ("127.0.0.1", 4433));
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "dns")]
pub mod srv;

use std::{
    collections::BTreeMap, fmt, future::Future, io, net::Ipv6Addr, net::SocketAddr, str::FromStr, time::Duration,
};

use tokio::net::lookup_host;

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

// ----- a table -----------------------------------------------------------------------------------------------------

/// A node and where it is: an entry of a [`Table`], written `NAME=HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The node's name, `name@host`.
    pub node: String,
    /// A name, or an address without brackets.
    pub host: String,
    /// The port that it listens on.
    pub port: u16,
}

/// Why a text is no [`Entry`]; its `Display` says what one looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseEntryError(String);

impl fmt::Display for ParseEntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseEntryError {}

impl FromStr for Entry {
    type Err = ParseEntryError;

    fn from_str(text: &str) -> Result<Self, ParseEntryError> {
        let wrong = |message: String| Err(ParseEntryError(message));
        let Some((node, place)) = text.split_once('=') else {
            return wrong(format!("no `=` in {text:?}; write NAME@HOST=HOST:PORT"));
        };
        if !is_node_name(node) {
            return wrong(format!("{node:?} is not the name of a node; write NAME@HOST=HOST:PORT"));
        }
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) => (host, port),
            None => return wrong(format!("no port in {place:?}; write {node}=HOST:PORT")),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bare {
            Some(v6) if v6.parse::<Ipv6Addr>().is_ok() => v6,
            Some(v6) => return wrong(format!("{v6:?} is not an IPv6 address")),
            None if host.contains(':') => return wrong(format!("write {node}=[ADDRESS]:PORT for an IPv6 address")),
            None => host,
        };
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | '[' | ']' | '=');
        if host.is_empty() || host.contains(odd) {
            return wrong(format!("{host:?} is not a host name or an address"));
        }
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse() {
            Ok(port @ 1..) if digits => Ok(Self {
                node: node.to_owned(),
                host: host.to_owned(),
                port,
            }),
            _ => wrong(format!("{port:?} is not a port (1 to 65535)")),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, host, port } = self;
        match host.contains(':') {
            true => write!(f, "{node}=[{host}]:{port}"),
            false => write!(f, "{node}={host}:{port}"),
        }
    }
}

/// Nodes and where they are, written by hand. A node may have several places, which are tried in the order of their entries.
#[derive(Debug, Clone, Default)]
pub struct Table {
    nodes: BTreeMap<String, Vec<(String, u16)>>,
    /// The names in the order of their first entries.
    order: Vec<String>,
}

impl Table {
    /// Adds an entry.
    pub fn add(&mut self, entry: Entry) {
        let places = self.nodes.entry(entry.node).or_insert_with_key(|node| {
            self.order.push(node.clone());
            Vec::new()
        });
        let place = (entry.host, entry.port);
        if places.len() < MAX_PLACES && !places.contains(&place) {
            places.push(place);
        }
    }

    /// The names of its nodes, in the order of their first entries.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(String::as_str)
    }

    /// Forgets a node. Whether it was there.
    pub fn remove(&mut self, node: &str) -> bool {
        self.order.retain(|other| other != node);
        self.nodes.remove(node).is_some()
    }
}

impl FromIterator<Entry> for Table {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        let mut table = Self::default();
        entries.into_iter().for_each(|entry| table.add(entry));
        table
    }
}

impl Discovery for Table {
    async fn nodes(&self) -> Result<Vec<String>, DiscoveryError> {
        Ok(self.order.clone())
    }

    /// Host names are looked up as the operating system does it. One that is not found does not keep the others from being tried.
    async fn lookup(&self, node: &str) -> Result<Vec<Place>, DiscoveryError> {
        let unknown = || DiscoveryError::NotFound(node.to_owned());
        let entries = self.nodes.get(node).ok_or_else(unknown)?;
        let mut places = Vec::new();
        let mut failed = None;
        for (host, port) in entries {
            match resolve(host, *port).await {
                Ok(found) => places.extend(found),
                Err(error) => failed = Some(DiscoveryError::Io(host.clone(), error)),
            }
        }
        match failed {
            Some(failed) if places.is_empty() => Err(failed),
            _ => finish(places, node),
        }
    }
}

// ----- what all of them need ---------------------------------------------------------------------------------------

/// Whether a text is `name@host`, without characters that no such name has.
pub(crate) fn is_node_name(text: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '=' | '/');
    let (name, host) = text.split_once('@').unwrap_or_default();
    let good = |part: &str| !part.is_empty() && !part.contains(odd);
    good(name) && good(host) && text.chars().count() <= LONGEST
}

/// All addresses of a host, as the operating system finds them.
async fn resolve(host: &str, port: u16) -> io::Result<Vec<Place>> {
    let place = |address| Place {
        host: host.to_owned(),
        address,
    };
    let found: Vec<_> = lookup_host((host, port)).await?.map(place).collect();
    match found.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::NotFound, "it has no address")),
        false => Ok(found),
    }
}

/// Each place once, not too many of them, and at least one.
fn finish(mut places: Vec<Place>, node: &str) -> Result<Vec<Place>, DiscoveryError> {
    let mut seen = std::collections::BTreeSet::new();
    places.retain(|place| seen.insert((place.host.clone(), place.address)));
    places.truncate(MAX_PLACES);
    match places.is_empty() {
        true => Err(DiscoveryError::NotFound(node.to_owned())),
        false => Ok(places),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        for (text, node, host, port) in [
            ("a@h=127.0.0.1:4433", "a@h", "127.0.0.1", 4433),
            ("a@h=[::1]:1", "a@h", "::1", 1),
            (
                "node-1@left.example=l.example:65535",
                "node-1@left.example",
                "l.example",
                65535,
            ),
        ] {
            let entry: Entry = text.parse().unwrap();
            assert_eq!((&*entry.node, &*entry.host, entry.port), (node, host, port));
            assert_eq!(entry.to_string(), text);
        }
        for (text, why) in [
            ("", "no `=`"),
            ("a@h", "no `=`"),
            ("a=h:1", "\"a\" is not the name of a node"),
            ("@h=h:1", "is not the name of a node"),
            ("a@=h:1", "is not the name of a node"),
            ("a@b@c=h:1", "is not the name of a node"),
            ("a b@c=h:1", "is not the name of a node"),
            ("a@h=h", "no port in \"h\""),
            ("a@h=h:", "\"\" is not a port"),
            ("a@h=h:0", "\"0\" is not a port"),
            ("a@h=h:+1", "\"+1\" is not a port"),
            ("a@h=h:65536", "\"65536\" is not a port"),
            ("a@h=::1:1", "[ADDRESS]:PORT"),
            ("a@h=[h]:1", "\"h\" is not an IPv6 address"),
            ("a@h=:1", "\"\" is not a host name"),
            ("a@h=x y:1", "\"x y\" is not a host name"),
        ] {
            let error = text.parse::<Entry>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(!is_node_name(&format!("a@{}", "x".repeat(254))));
        assert!(is_node_name(&format!("a@{}", "x".repeat(253))));
    }

    #[tokio::test]
    async fn a_table_knows_what_is_in_it() {
        let entries = ["b@h=127.0.0.1:2", "a@h=127.0.0.1:1", "b@h=[::1]:3", "b@h=127.0.0.1:2"];
        let mut table: Table = entries.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(table.nodes().await.unwrap(), ["b@h", "a@h"]);
        let places = table.lookup("b@h").await.unwrap();
        let addresses: Vec<_> = places.iter().map(|place| place.address.to_string()).collect();
        assert_eq!(addresses, ["127.0.0.1:2", "[::1]:3"]);
        assert_eq!(places[1].host, "::1");
        let error = table.lookup("c@h").await.unwrap_err();
        assert!(
            matches!(&error, DiscoveryError::NotFound(node) if node == "c@h"),
            "{error}"
        );
        assert!(table.remove("b@h") && !table.remove("b@h"));
        assert_eq!(table.nodes().await.unwrap(), ["a@h"]);
    }

    #[tokio::test]
    async fn a_host_without_address_does_not_hide_the_others() {
        // A name with an empty label is refused before anybody is asked.
        let entries = ["a@h=x..invalid:1", "a@h=127.0.0.1:2"];
        let table: Table = entries.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(table.lookup("a@h").await.unwrap().len(), 1);
        let table: Table = [entries[0].parse().unwrap()].into_iter().collect();
        let error = table.lookup("a@h").await.unwrap_err();
        assert!(
            matches!(&error, DiscoveryError::Io(host, _) if host == "x..invalid"),
            "{error}"
        );
    }
}
