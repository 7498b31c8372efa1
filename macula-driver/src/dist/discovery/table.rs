//! Nodes and where they are, written by hand.

use std::{collections::BTreeMap, fmt, net::Ipv6Addr, str::FromStr};

use super::{DiscoveryError, MAX_PLACES, Place, finish, is_node_name, resolve};
use crate::Runtime;

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

impl Table {
    /// Where to reach a node, at least one place and at most [`MAX_PLACES`]. Host names are looked up as the operating system does it, on
    /// a runtime. One that is not found does not keep the others from being tried.
    ///
    /// # Errors
    /// [`DiscoveryError::NotFound`] for a node that it does not know; [`DiscoveryError::Io`] if none of its hosts has an address.
    pub async fn lookup_on<R: Runtime>(&self, node: &str) -> Result<Vec<Place>, DiscoveryError> {
        let unknown = || DiscoveryError::NotFound(node.to_owned());
        let entries = self.nodes.get(node).ok_or_else(unknown)?;
        let mut places = Vec::new();
        let mut failed = None;
        for (host, port) in entries {
            match resolve::<R>(host, *port).await {
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
}
