//! Which name servers there are.

use std::{
    fs::File,
    io::Read as _,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
    time::Duration,
};

/// Where systems say which name servers there are.
const FILE: &str = "/etc/resolv.conf";

/// Bytes of it that are read.
const LONGEST: u64 = 64 << 10;

/// Servers, of which the C library takes as many, and the most that its settings may say.
const MAX_SERVERS: usize = 3;
const MAX_TIMEOUT: u64 = 30;
const MAX_ATTEMPTS: u32 = 5;

const PORT: u16 = 53;

/// Whom to ask, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// The one to be asked first comes first. At least one.
    pub(super) servers: Vec<SocketAddr>,
    /// How long to wait for a server, at most.
    pub(super) timeout: Duration,
    /// How often to ask a server that says nothing. At least 1.
    pub(super) attempts: u32,
    /// Without trying UDP.
    pub(super) over_tcp: bool,
}

impl Config {
    /// These servers.
    pub(crate) fn of(servers: &[SocketAddr]) -> Self {
        Self {
            servers: servers.to_vec(),
            ..Self::parse("")
        }
    }

    /// Those of the system. Without its file: the one on this machine.
    pub(crate) fn of_system() -> Self {
        let mut text = Vec::new();
        if let Ok(file) = File::open(FILE) {
            // What can be read of it counts.
            let _ = file.take(LONGEST).read_to_end(&mut text);
        }
        Self::parse(&String::from_utf8_lossy(&text))
    }

    /// Reads the text of `resolv.conf`: its name servers, and the options `timeout`, `attempts` and `use-vc`. Whatever else stands there
    /// is for others, and what makes no sense is passed over.
    fn parse(text: &str) -> Self {
        let mut config = Self {
            servers: Vec::new(),
            timeout: Duration::from_secs(5),
            attempts: 2,
            over_tcp: false,
        };
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") if config.servers.len() < MAX_SERVERS => {
                    config.servers.extend(words.next().and_then(server));
                }
                Some("options") => words.for_each(|word| config.option(word)),
                _ => {}
            }
        }
        if config.servers.is_empty() {
            config.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        config
    }

    fn option(&mut self, word: &str) {
        match word.split_once(':') {
            Some(("timeout", seconds)) => {
                if let Ok(seconds @ 1..) = seconds.parse::<u64>() {
                    self.timeout = Duration::from_secs(seconds.min(MAX_TIMEOUT));
                }
            }
            Some(("attempts", attempts)) => {
                if let Ok(attempts @ 1..) = attempts.parse::<u32>() {
                    self.attempts = attempts.min(MAX_ATTEMPTS);
                }
            }
            None if word == "use-vc" => self.over_tcp = true,
            _ => {}
        }
    }
}

/// An address, with the number of an interface behind it for one that is local to a link.
fn server(text: &str) -> Option<SocketAddr> {
    let scoped = || format!("[{text}]:{PORT}").parse::<SocketAddrV6>().ok();
    match text.parse::<IpAddr>() {
        Ok(address) => Some((address, PORT).into()),
        Err(_) => scoped().map(SocketAddr::V6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(text: &str) -> Vec<String> {
        Config::parse(text).servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn servers_in_their_order_and_no_more_than_three() {
        assert_eq!(
            servers(
                "# nameserver 192.0.2.9\n;nameserver 192.0.2.9\nnameserver 192.0.2.1\n\tnameserver\t2001:db8::1 # x\n"
            ),
            ["192.0.2.1:53", "[2001:db8::1]:53"]
        );
        assert_eq!(
            servers("nameserver fe80::1%2\r\nsearch example\r\n"),
            ["[fe80::1%2]:53"]
        );
        let many: String = (1..9).map(|last| format!("nameserver 192.0.2.{last}\n")).collect();
        assert_eq!(servers(&many), ["192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53"]);
    }

    #[test]
    fn without_a_server_it_is_the_one_on_this_machine() {
        for text in [
            "",
            "nameserver\n",
            "nameserver x\nnameserver 1.2.3\n",
            "nameservers 192.0.2.1",
            "\0\u{fffd}",
        ] {
            assert_eq!(servers(text), ["127.0.0.1:53"], "{text:?}");
        }
        assert_eq!(
            servers("nameserver fe80::1%eth0\nnameserver 192.0.2.1"),
            ["192.0.2.1:53"]
        );
    }

    #[test]
    fn options() {
        let of = |text: &str| {
            let config = Config::parse(text);
            (config.timeout.as_secs(), config.attempts, config.over_tcp)
        };
        assert_eq!(of(""), (5, 2, false));
        assert_eq!(of("options timeout:1 attempts:3 use-vc rotate edns0"), (1, 3, true));
        assert_eq!(
            of("options timeout:99\noptions attempts:99"),
            (30, 5, false),
            "as the C library bounds them"
        );
        for odd in [
            "timeout:0 attempts:0",
            "timeout: attempts:-1",
            "timeout attempts:x",
            "timeout:99999999999999999999",
        ] {
            assert_eq!(of(&format!("options {odd}")), (5, 2, false), "{odd}");
        }
    }

    #[test]
    fn servers_of_ones_own() {
        let one: SocketAddr = "192.0.2.1:5353".parse().unwrap();
        let config = Config::of(&[one]);
        assert_eq!((config.servers, config.attempts), (vec![one], 2));
    }
}
