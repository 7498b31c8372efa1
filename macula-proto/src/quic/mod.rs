//! QUIC over quinn-proto: the only room that names it.
