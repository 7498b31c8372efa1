//! Where a relay is.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// The port that relays listen on unless they say otherwise.
pub const DEFAULT_RELAY_PORT: u16 = 4434;

/// A host and a port, not resolved: `quic://host:port`, `host:port`, or `host` (port 4434). IPv6 addresses stand in
/// brackets when a port follows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayAddress {
    /// A DNS name or an IP address, without brackets. A certificate must be valid for it, unless it is pinned.
    pub host: String,
    /// The UDP port.
    pub port: u16,
}

impl RelayAddress {
    /// Where that is, if the host is an IP address and no name, so that nothing has to be looked up.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        let host: IpAddr = self.host.parse().ok()?;
        Some(SocketAddr::new(host, self.port))
    }
}

/// The text is not the address of a relay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not HOST:PORT, [IPV6]:PORT or quic://HOST:PORT")]
pub struct ParseAddressError(String);

impl FromStr for RelayAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseAddressError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<RelayAddress> {
    let text = text.strip_prefix("quic://").unwrap_or(text);
    let text = text.strip_suffix('/').unwrap_or(text);
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        match rest {
            "" => (host, DEFAULT_RELAY_PORT),
            rest => (host, rest.strip_prefix(':')?.parse().ok()?),
        }
    } else if text.parse::<Ipv6Addr>().is_ok() {
        (text, DEFAULT_RELAY_PORT)
    } else {
        match text.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (text, DEFAULT_RELAY_PORT),
        }
    };
    let sound = !host.is_empty() && port != 0 && !host.contains(['/', '@', ' ']);
    let bare_v6 = host.contains(':') && host.parse::<Ipv6Addr>().is_err();
    (sound && !bare_v6).then(|| RelayAddress {
        host: host.to_owned(),
        port,
    })
}

impl fmt::Display for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RelayAddress;

    #[test]
    fn reads_the_documented_forms() {
        for (text, host, port) in [
            ("relay.example:5000", "relay.example", 5000),
            ("quic://relay.example:5000", "relay.example", 5000),
            ("quic://relay.example/", "relay.example", 4434),
            ("relay.example", "relay.example", 4434),
            ("127.0.0.1:1", "127.0.0.1", 1),
            ("[::1]:5000", "::1", 5000),
            ("[::1]", "::1", 4434),
            ("::1", "::1", 4434),
            ("quic://[2001:db8::1]:9", "2001:db8::1", 9),
        ] {
            let address: RelayAddress = text.parse().unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port), "{text}");
            assert_eq!(address.to_string().parse::<RelayAddress>().unwrap(), address, "{text}");
        }
    }

    #[test]
    fn addresses_need_no_look_up() {
        for (text, address) in [
            ("127.0.0.1:1", Some("127.0.0.1:1")),
            ("[::1]:5000", Some("[::1]:5000")),
            ("::1", Some("[::1]:4434")),
            ("relay.example:5000", None),
            ("localhost", None),
        ] {
            let relay: RelayAddress = text.parse().unwrap();
            assert_eq!(relay.socket_addr(), address.map(|text| text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            ":1",
            "host:",
            "host:0",
            "host:65536",
            "host:x",
            "http://host:1",
            "[::1",
            "[::1]x",
            "[host]:1",
            "a:b:1",
            "quic://",
            "user@host:1",
            "host/path:1",
            "a b:1",
        ] {
            assert!(text.parse::<RelayAddress>().is_err(), "{text}");
        }
    }
}
