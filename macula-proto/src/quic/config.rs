//! Settings of endpoints, listeners, dials and transports.

use std::{fmt, net::IpAddr, time::Duration};

use quinn_proto::{IdleTimeout, MtuDiscoveryConfig, VarInt};

use super::tls::{ClientCrypto, ServerCrypto};
use super::{ResetKey, Shard};

/// Settings of one endpoint, that is of one UDP socket.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EndpointConfig {
    /// Largest UDP payload this endpoint takes, in bytes, 1,200 to 65,527; told to peers, who discover the path up to it.
    /// The receive buffers of the driver must be as large. Default 65,527.
    pub max_udp_payload: u16,
    /// Whether packets leave unfragmented (the socket sets "don't fragment"), without which the datagram size must not
    /// be discovered. Default true.
    pub unfragmented: bool,
    /// Least time between two stateless resets. Default 20 ms.
    pub stateless_reset_interval: Duration,
    /// The secret of stateless resets. With the same one after a restart, peers learn that their connections are gone as
    /// soon as they send something; without, only when their idle time-out has passed. Default `None`: a random one.
    pub reset_key: Option<ResetKey>,
    /// Which of the endpoints it is that share its port. They need the same [`reset_key`](Self::reset_key). Default: the only
    /// one.
    pub shard: Shard,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            max_udp_payload: 65_527,
            unfragmented: true,
            stateless_reset_interval: Duration::from_millis(20),
            reset_key: None,
            shard: Shard::ONLY,
        }
    }
}

/// How the datagram size of a path is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatagramSize {
    /// Discover what the path gives: up to 65,000 bytes to a loopback address, up to 9,000 (jumbo frames) elsewhere.
    Discover,
    /// Discover up to this many bytes, 1,200 to 65,527.
    UpTo(u16),
    /// Never more than 1,200 bytes.
    Minimum,
}

/// Settings of the QUIC transport of one connection. Sizes are in bytes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TransportConfig {
    /// A connection on which nothing is heard for this long is lost; the smaller of both ends' values counts. `None`:
    /// never. Default 60 s.
    pub idle_timeout: Option<Duration>,
    /// A packet is sent after this much silence to keep the connection and NAT bindings alive. Default 20 s.
    pub keep_alive: Option<Duration>,
    /// Bidirectional streams that the peer may have open at once. Default 100.
    pub max_bidi_streams: u64,
    /// Unidirectional streams that the peer may have open at once. Default 3.
    pub max_uni_streams: u64,
    /// Streams granted to the peer at first, of each direction. The grant grows fourfold, up to the maximum, whenever half of
    /// it is in use, so that idle connections stay small: each stream that is granted takes some 80 bytes, used or not. A
    /// stream is in use when something was sent on it: a peer that opens more than are granted, and sends on none of them, waits
    /// for good. Default 64.
    pub initial_streams: u64,
    /// Bytes of one stream that the peer may send before they are read. Default 1,250,000.
    pub stream_window: u64,
    /// Bytes of all streams together that the peer may send before they are read. Default unlimited: a fixed total would
    /// let a few streams that nobody reads stall all others.
    pub connection_window: Option<u64>,
    /// Bytes sent but not acknowledged that are kept for the whole connection. Default 10,000,000.
    pub send_window: u64,
    /// How the datagram size is found. Default [`DatagramSize::Discover`].
    pub datagram_size: DatagramSize,
    /// Round-trip time assumed before the first measurement. Default 333 ms (RFC 9002 §6.2.2).
    pub initial_rtt: Duration,
    /// Which congestion controller paces the sender. Default [`Congestion::Cubic`].
    pub congestion: Congestion,
    /// Where to write a qlog trace, if anywhere.
    #[cfg(feature = "qlog")]
    pub qlog: Option<super::Qlog>,
}

/// Congestion controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Congestion {
    /// CUBIC (RFC 9438).
    Cubic,
    /// NewReno (RFC 9002 §7).
    NewReno,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            idle_timeout: Some(Duration::from_secs(60)),
            keep_alive: Some(Duration::from_secs(20)),
            max_bidi_streams: 100,
            max_uni_streams: 3,
            initial_streams: 64,
            stream_window: 1_250_000,
            connection_window: None,
            send_window: 10_000_000,
            datagram_size: DatagramSize::Discover,
            initial_rtt: Duration::from_millis(333),
            congestion: Congestion::Cubic,
            #[cfg(feature = "qlog")]
            qlog: None,
        }
    }
}

impl TransportConfig {
    /// For both ends of a relay connection: idle time-out 120 s, keep-alive 20 s, 4,096 bidirectional streams.
    pub fn relay() -> Self {
        Self {
            idle_timeout: Some(Duration::from_secs(120)),
            max_bidi_streams: 4096,
            ..Self::default()
        }
    }

    /// As [`relay`](Self::relay), for the relay's end: 4 streams at first. A node opens one, and the relay all others.
    pub fn relay_listener() -> Self {
        Self {
            initial_streams: 4,
            ..Self::relay()
        }
    }

    /// For peering: idle time-out 300 s, keep-alive 15 s on both sides.
    pub fn peering() -> Self {
        Self {
            idle_timeout: Some(Duration::from_secs(300)),
            keep_alive: Some(Duration::from_secs(15)),
            ..Self::default()
        }
    }

    /// For the accepting side of RPC: idle time-out 120 s, keep-alive 30 s. The dialling side is the default.
    pub fn rpc_listener() -> Self {
        Self {
            idle_timeout: Some(Duration::from_secs(120)),
            keep_alive: Some(Duration::from_secs(30)),
            ..Self::default()
        }
    }

    /// For both ends of an Erlang distribution connection: idle time-out 300 s, keep-alive 150 s, as on deployed nodes, and 4 MiB for
    /// each stream.
    pub fn dist() -> Self {
        Self {
            idle_timeout: Some(Duration::from_secs(300)),
            keep_alive: Some(Duration::from_secs(150)),
            stream_window: 4 << 20,
            ..Self::default()
        }
    }

    pub(super) fn to_quinn(&self, remote: IpAddr) -> Result<quinn_proto::TransportConfig, ConfigError> {
        let mut out = quinn_proto::TransportConfig::default();
        let idle = self
            .idle_timeout
            .map(IdleTimeout::try_from)
            .transpose()
            .map_err(|_| ConfigError("idle_timeout"))?;
        out.max_idle_timeout(idle)
            .keep_alive_interval(self.keep_alive)
            .max_concurrent_bidi_streams(var(
                "max_bidi_streams",
                self.max_bidi_streams.min(self.initial_streams),
            )?)
            .max_concurrent_uni_streams(var("max_uni_streams", self.max_uni_streams.min(self.initial_streams))?)
            .stream_receive_window(var("stream_window", self.stream_window)?)
            .receive_window(match self.connection_window {
                Some(window) => var("connection_window", window)?,
                None => VarInt::MAX,
            })
            .send_window(self.send_window)
            .initial_rtt(self.initial_rtt)
            .datagram_receive_buffer_size(None)
            .mtu_discovery_config(self.mtu_discovery(remote)?);
        out.congestion_controller_factory(super::congestion::factory(self.congestion));
        #[cfg(feature = "qlog")]
        out.qlog_stream(self.qlog.as_ref().map(super::Qlog::stream));
        Ok(out)
    }

    fn mtu_discovery(&self, remote: IpAddr) -> Result<Option<MtuDiscoveryConfig>, ConfigError> {
        let bound = match self.datagram_size {
            DatagramSize::Minimum => return Ok(None),
            DatagramSize::UpTo(bound) if (1200..=65_527).contains(&bound) => bound,
            DatagramSize::UpTo(_) => return Err(ConfigError("datagram_size")),
            DatagramSize::Discover if remote.to_canonical().is_loopback() => 65_000,
            DatagramSize::Discover => 9_000,
        };
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(bound);
        Ok(Some(discovery))
    }
}

fn var(what: &'static str, value: u64) -> Result<VarInt, ConfigError> {
    VarInt::from_u64(value).map_err(|_| ConfigError(what))
}

/// A setting that QUIC cannot express; names the setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigError(pub &'static str);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the value of {} is out of range", self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Who decides whether something incoming is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accept {
    /// The endpoint accepts all, within its limits.
    #[default]
    All,
    /// The owner accepts one after the other.
    OnDemand,
}

/// When a client has to prove its address with a Retry (RFC 9000 §8.1.2) before the server spends anything on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressValidation {
    /// Never.
    Never,
    /// When more than this many handshakes are going on.
    Above(usize),
    /// Always.
    Always,
}

/// Settings of a listener.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ListenConfig {
    /// Certificates and what clients must show; built with the endpoint's own [`clock`](super::Endpoint::clock).
    pub tls: ServerCrypto,
    /// Transport of accepted connections.
    pub transport: TransportConfig,
    /// Who accepts connections. Default [`Accept::All`].
    pub accept: Accept,
    /// When addresses are validated. Default above 256 handshakes at once.
    pub address_validation: AddressValidation,
    /// Whether clients may move to another address (NAT rebinding, migration). Default true.
    pub migration: bool,
    /// Time a handshake may take. Default 10 s.
    pub handshake_timeout: Duration,
    /// Time an incoming connection waits for a decision with [`Accept::OnDemand`], then it is refused. Default 10 s.
    pub incoming_timeout: Duration,
}

impl ListenConfig {
    /// A listener with the defaults and these certificates.
    pub fn new(tls: ServerCrypto) -> Self {
        Self {
            tls,
            transport: TransportConfig::default(),
            accept: Accept::All,
            address_validation: AddressValidation::Above(256),
            migration: true,
            handshake_timeout: Duration::from_secs(10),
            incoming_timeout: Duration::from_secs(10),
        }
    }
}

/// Settings of a dial.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DialConfig {
    /// Whom to trust, and what to show; built with the endpoint's own [`clock`](super::Endpoint::clock). Dials that share
    /// it can resume each other's sessions.
    pub tls: ClientCrypto,
    /// Transport of the connection.
    pub transport: TransportConfig,
    /// Time the handshake may take. Default 10 s.
    pub handshake_timeout: Duration,
}

impl DialConfig {
    /// A dial with the defaults and this trust.
    pub fn new(tls: ClientCrypto) -> Self {
        Self {
            tls,
            transport: TransportConfig::default(),
            handshake_timeout: Duration::from_secs(10),
        }
    }
}
