//! The header of RPC messages: `version | type | flags | reserved | length: 32 bits, big endian`.

/// Bytes of the header.
pub(super) const HEADER: usize = 8;
/// The only version there is.
pub(super) const VERSION: u8 = 1;

/// Every type that some deployed generation knows.
const TYPES: [(u8, &str); 19] = [
    (0x01, "connect"),
    (0x02, "disconnect"),
    (0x03, "ping"),
    (0x04, "pong"),
    (0x10, "publish"),
    (0x11, "subscribe"),
    (0x12, "unsubscribe"),
    (0x13, "pubsub_route"),
    (0x20, "call"),
    (0x21, "reply"),
    (0x22, "cast"),
    (0x26, "register_procedure"),
    (0x27, "stream_open"),
    (0x28, "stream_data"),
    (0x29, "stream_end"),
    (0x2A, "stream_error"),
    (0x2B, "stream_reply"),
    (0x32, "swim_ping_req"),
    (0x60, "bridge_rpc"),
];

/// What a type is called.
pub(super) fn name(number: u8) -> Option<&'static str> {
    TYPES.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

/// The type of that name.
pub(super) fn number(name: &str) -> Option<u8> {
    TYPES
        .iter()
        .find(|(_, known)| *known == name)
        .map(|(number, _)| *number)
}
