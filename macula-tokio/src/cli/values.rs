//! What an argument or a key of a configuration file can say.

use std::{fmt, net::Ipv6Addr, time::Duration};

use macula_proto::{quic::Shard, tunnel::Name};

/// UDP port of a relay when none is given.
pub(crate) const RELAY_PORT: u16 = 4434;
/// UDP port of a peer when none is given.
pub(crate) const PEER_PORT: u16 = 4433;
/// Port of a name server when none is given.
const DNS_PORT: u16 = 53;
/// Longest name of a node, in bytes.
const LONGEST_NAME: usize = 255;

/// A host, by name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl HostPort {
    pub(crate) fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }

    /// Every address that the name stands for, at least one.
    pub(crate) async fn resolve(&self) -> std::io::Result<Vec<std::net::SocketAddr>> {
        let found: Vec<_> = tokio::net::lookup_host((self.host.as_str(), self.port))
            .await?
            .collect();
        match found.is_empty() {
            true => Err(std::io::Error::new(
                std::io::ErrorKind::NotFound,
                format!("{} has no address", self.host),
            )),
            false => Ok(found),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// `quic://HOST:PORT`, `HOST:PORT`, `[V6]:PORT`, or a host alone for port 4434.
pub(crate) fn relay_address(text: &str) -> Result<HostPort, String> {
    udp_address(text, "a relay", RELAY_PORT)
}

/// As [`relay_address`], for port 4433.
pub(crate) fn peer_address(text: &str) -> Result<HostPort, String> {
    udp_address(text, "a peer", PEER_PORT)
}

/// `HOST:PORT`, `[V6]:PORT`, or a host alone for port 53.
pub(crate) fn dns_address(text: &str) -> Result<HostPort, String> {
    host_port(text, Some(DNS_PORT))
}

fn udp_address(text: &str, what: &str, port: u16) -> Result<HostPort, String> {
    let inside = match text.split_once("://") {
        None => text,
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("quic") => rest.strip_suffix('/').unwrap_or(rest),
        Some((scheme, _)) => return Err(format!("unknown scheme {scheme:?}; {what} is quic://HOST:PORT")),
    };
    host_port(inside, Some(port))
}

/// `HOST:PORT` or `[V6]:PORT`.
pub(crate) fn tcp_address(text: &str) -> Result<HostPort, String> {
    if text.contains("://") {
        return Err("an address is HOST:PORT, without a scheme".to_owned());
    }
    host_port(text, None)
}

fn host_port(text: &str, default: Option<u16>) -> Result<HostPort, String> {
    let missing = || default.ok_or_else(|| format!("no port in {text:?}; write HOST:PORT"));
    if let Some(rest) = text.strip_prefix('[') {
        let Some((host, rest)) = rest.split_once(']') else {
            return Err(format!("no closing bracket in {text:?}"));
        };
        let bare = host.split_once('%').map_or(host, |(address, _zone)| address);
        if bare.parse::<Ipv6Addr>().is_err() {
            return Err(format!("{host:?} is not an IPv6 address"));
        }
        let port = match rest.strip_prefix(':') {
            Some(port) => parse_port(port)?,
            None if rest.is_empty() => missing()?,
            None => return Err(format!("{rest:?} after the bracket; write [ADDRESS]:PORT")),
        };
        return Ok(HostPort::new(host, port));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        // 1::2:3 could be an address and a port as well: without brackets only a default port is safe.
        let Some(port) = default else {
            return Err(format!("write [{text}]:PORT for an IPv6 address"));
        };
        return Ok(HostPort::new(text, port));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, parse_port(port)?),
        None => (text, missing()?),
    };
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '/' | '@' | '[' | ']' | '?' | '#');
    if host.is_empty() || host.contains(odd) {
        return Err(format!("{host:?} is not a host name or an address"));
    }
    Ok(HostPort::new(host, port))
}

fn parse_port(text: &str) -> Result<u16, String> {
    match text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse()) {
        Some(Ok(port)) => Ok(port),
        _ => Err(format!("{text:?} is not a port (0 to 65535)")),
    }
}

/// A number of bytes: digits with an optional fraction and an optional `k`, `M`, `G` (powers of 1000) or `Ki`, `Mi`, `Gi`
/// (powers of 1024), and `B` behind it if one likes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a size; examples: 65536, 64KiB, 10M, 1.5GB");
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let unit = unit.strip_suffix(['B', 'b']).unwrap_or(unit);
    let factor: u64 = match unit {
        "" => 1,
        "k" | "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" | "ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return Err(bad()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole: u64 = whole.parse().map_err(|_| bad())?;
    if fraction.is_empty() || fraction.len() > 9 {
        return Err(bad());
    }
    let part: u64 = fraction.parse().map_err(|_| bad())?;
    let scale = 10_u64.pow(u32::try_from(fraction.len()).map_err(|_| bad())?);
    let part = u128::from(part) * u128::from(factor) / u128::from(scale);
    let total = u128::from(whole) * u128::from(factor) + part;
    u64::try_from(total).map_err(|_| bad())
}

/// A [`size`] per second, `/s` behind it if one likes. Not 0, which would stop everything.
pub(crate) fn rate(text: &str) -> Result<u64, String> {
    match size(text.strip_suffix("/s").unwrap_or(text))? {
        0 => Err("a rate of 0 would stop everything; leave it out for no limit".to_owned()),
        rate => Ok(rate),
    }
}

/// Seconds, with an optional fraction; `ms`, `s`, `m` and `h` may follow the number.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a time; examples: 10, 0.5, 250ms, 2m");
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(bad()),
    };
    let number: f64 = number.parse().map_err(|_| bad())?;
    // A year is more than anybody means, and far from any overflow of a clock.
    match Duration::try_from_secs_f64(number * factor) {
        Ok(duration) if duration <= Duration::from_secs(366 * 24 * 3600) => Ok(duration),
        _ => Err(bad()),
    }
}

/// A [`duration`] longer than nothing.
pub(crate) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be more than 0".to_owned()),
        duration => Ok(duration),
    }
}

/// The name of a node.
pub(crate) fn name(text: &str) -> Result<Name, String> {
    match text.len() {
        0 => Err("a name has at least one character".to_owned()),
        1..=LONGEST_NAME => Ok(Name::from(text)),
        length => Err(format!(
            "a name has at most {LONGEST_NAME} bytes, this one has {length}"
        )),
    }
}

/// A number of things, at least one.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(count) => Ok(count),
        Err(_) => Err(format!("{text:?} is not a number")),
    }
}

/// Sockets on one port.
pub(crate) fn sockets(text: &str) -> Result<u8, String> {
    const MOST: u8 = Shard::MAX;
    match text.parse() {
        Ok(sockets @ 1..=MOST) => Ok(sockets),
        _ => Err(format!("{text:?} is not a number of sockets from 1 to {MOST}")),
    }
}

/// Microseconds that a thread stays awake.
pub(crate) fn spin(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(micros @ 0..=1000) => Ok(Duration::from_micros(micros)),
        _ => Err(format!("{text:?} is not a number of microseconds from 0 to 1000")),
    }
}

/// Difficulty of a puzzle in bits. 64 would already keep every machine there is busy for centuries.
pub(crate) fn puzzle_bits(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(bits @ 0..=64) => Ok(bits),
        _ => Err(format!("{text:?} is not a number of bits from 0 to 64")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relay_addresses() {
        for (text, host, port) in [
            ("relay.example", "relay.example", 4434),
            ("relay.example:1", "relay.example", 1),
            ("quic://relay.example:4434", "relay.example", 4434),
            ("quic://relay.example", "relay.example", 4434),
            ("QUIC://relay.example:9/", "relay.example", 9),
            ("192.0.2.1", "192.0.2.1", 4434),
            ("[2001:db8::1]:5", "2001:db8::1", 5),
            ("[2001:db8::1]", "2001:db8::1", 4434),
            ("2001:db8::1", "2001:db8::1", 4434),
            ("[fe80::1%eth0]:5", "fe80::1%eth0", 5),
            ("quic://[::1]:5", "::1", 5),
            ("127.0.0.1:0", "127.0.0.1", 0),
        ] {
            assert_eq!(relay_address(text), Ok(HostPort::new(host, port)), "{text}");
        }
        for text in [
            "",
            ":1",
            "host:",
            "host:65536",
            "host:-1",
            "host:+1",
            "host:x",
            "http://host:1",
            "[::1",
            "[::1]x",
            "[host]:1",
            "a b:1",
            "user@host:1",
            "quic://",
            "host:1/path",
            "a:b:1",
            "::1:x",
        ] {
            assert!(relay_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn peer_addresses() {
        assert_eq!(peer_address("host"), Ok(HostPort::new("host", 4433)));
        assert_eq!(peer_address("quic://[::1]:7"), Ok(HostPort::new("::1", 7)));
        assert!(peer_address("http://host").is_err_and(|error| error.contains("a peer is quic://")));
    }

    #[test]
    fn tcp_addresses_name_their_port() {
        assert_eq!(tcp_address("localhost:80"), Ok(HostPort::new("localhost", 80)));
        assert_eq!(tcp_address("[::1]:80"), Ok(HostPort::new("::1", 80)));
        for text in ["localhost", "::1", "[::1]", "tcp://localhost:80", "80"] {
            assert!(tcp_address(text).is_err(), "{text}");
        }
        assert_eq!(
            tcp_address("[::1]:80").map(|address| address.to_string()),
            Ok("[::1]:80".to_owned())
        );
    }

    #[test]
    fn sizes_and_rates() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("64KiB", 65_536),
            ("64Ki", 65_536),
            ("10k", 10_000),
            ("10 kB", 10_000),
            ("1.5M", 1_500_000),
            ("0.5GiB", 1 << 29),
            ("2G", 2_000_000_000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "k",
            "1T",
            "-1",
            "1.",
            ".5",
            "1.2.3",
            "18446744073709551616",
            "99999999999999G",
            "1 2",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(rate("10MB/s"), Ok(10_000_000));
        assert!(rate("0").is_err());
    }

    #[test]
    fn durations() {
        for (text, millis) in [
            ("10", 10_000),
            ("0.5", 500),
            ("250ms", 250),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "1d", "-1", "1e9", "inf", "99999999999999999999"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(positive_duration("0").is_err());
    }

    #[test]
    fn names_and_counts() {
        assert!(name("alice@host").is_ok());
        assert!(name("").is_err());
        assert!(name(&"x".repeat(255)).is_ok());
        assert!(name(&"x".repeat(256)).is_err());
        assert_eq!(count("7"), Ok(7));
        assert!(count("0").is_err() && count("x").is_err() && count("-1").is_err());
    }
}
