//! QUIC over quinn-proto: the only room that names it.

pub mod alpn;
pub mod tls;
