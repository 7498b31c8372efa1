//! Application protocol names (ALPN) of the mesh.
//!
//! The name agreed in the TLS handshake says which machine runs a connection. A listener that knows none of the names a
//! client offers refuses the connection with TLS alert 120, which QUIC carries as close code `0x178`.

/// Peering frames and RPC messages. The first byte of the first client stream tells them apart: 0 is the high byte of a
/// peering frame's length, 1 is the version of an RPC message.
pub const MACULA: &[u8] = b"macula";

/// Relay control messages on the client's first stream, tunnels on the streams that the relay opens.
pub const MACULA_DIST: &[u8] = b"macula-dist";

/// Erlang distribution over QUIC, without a relay.
pub const ERLANG_DIST: &[u8] = b"erlang-dist";
