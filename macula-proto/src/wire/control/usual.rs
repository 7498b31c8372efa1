//! Messages in the form in which deployed peers and this library write them: the same bytes but for names, ids and reasons.
//!
//! They are written, and recognised, in a few pieces. What is written otherwise may be as good; the general reader takes it,
//! and finds the faults.

use super::{Message, NodeName, Reason, TunnelId};
use crate::wire::{cbor, msgpack};
use bytes::{BufMut, BytesMut};

/// The pieces in one encoding.
pub(super) trait Usual {
    /// In front of the name, and behind it.
    const IDENTIFY: [&'static [u8]; 2];
    /// All of it.
    const IDENTIFIED: &'static [u8];
    /// In front of the name.
    const REQUEST: &'static [u8];
    /// In front of the id.
    const OK: &'static [u8];
    /// In front of the reason, and behind it.
    const ERROR: [&'static [u8]; 2];
    /// In front of the name, and between it and the id.
    const NOTIFY: [&'static [u8]; 2];
    /// In front of the id.
    const CLOSE: &'static [u8];

    /// Bytes that a string takes in front of those that it has.
    fn head(length: usize) -> usize;

    /// Appends a string.
    fn put_string(string: &[u8], out: &mut BytesMut);

    /// The byte string of up to 255 bytes that `bytes` begin with, and what follows it.
    fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])>;
}

pub(super) struct Cbor;

impl Usual for Cbor {
    const IDENTIFY: [&'static [u8]; 2] = [b"\xA2\x41n", b"\x41t\x42id"];
    const IDENTIFIED: &'static [u8] = b"\xA1\x41t\x45id_ok";
    const REQUEST: &'static [u8] = b"\xA2\x41t\x47tun_req\x46target";
    const OK: &'static [u8] = b"\xA2\x41t\x46tun_ok\x43tid\x58\x20";
    const ERROR: [&'static [u8]; 2] = [b"\xA2\x41r", b"\x41t\x47tun_err"];
    const NOTIFY: [&'static [u8]; 2] = [b"\xA3\x43src", b"\x41t\x4Atun_notify\x43tid\x58\x20"];
    const CLOSE: &'static [u8] = b"\xA2\x41t\x49tun_close\x43tid\x58\x20";

    fn head(length: usize) -> usize {
        cbor::det::head_length(length)
    }

    #[inline]
    fn put_string(string: &[u8], out: &mut BytesMut) {
        if string.len() < 24 {
            out.put_u8(0x40 | string.len() as u8);
            out.put_slice(string);
        } else {
            cbor::put_bytes(out, string);
        }
    }

    #[inline]
    fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        match *bytes {
            [head @ 0x40..=0x57, ref rest @ ..] => rest.split_at_checked(usize::from(head - 0x40)),
            [0x58, length, ref rest @ ..] => rest.split_at_checked(usize::from(length)),
            _ => None,
        }
    }
}

pub(super) struct MessagePack;

impl Usual for MessagePack {
    const IDENTIFY: [&'static [u8]; 2] = [b"\x82\xC4\x01n", b"\xC4\x01t\xC4\x02id"];
    const IDENTIFIED: &'static [u8] = b"\x81\xC4\x01t\xC4\x05id_ok";
    const REQUEST: &'static [u8] = b"\x82\xC4\x01t\xC4\x07tun_req\xC4\x06target";
    const OK: &'static [u8] = b"\x82\xC4\x01t\xC4\x06tun_ok\xC4\x03tid\xC4\x20";
    const ERROR: [&'static [u8]; 2] = [b"\x82\xC4\x01r", b"\xC4\x01t\xC4\x07tun_err"];
    const NOTIFY: [&'static [u8]; 2] = [b"\x83\xC4\x03src", b"\xC4\x01t\xC4\x0Atun_notify\xC4\x03tid\xC4\x20"];
    const CLOSE: &'static [u8] = b"\x82\xC4\x01t\xC4\x09tun_close\xC4\x03tid\xC4\x20";

    fn head(length: usize) -> usize {
        match length {
            0..=0xFF => 2,
            0x100..=0xFFFF => 3,
            _ => 5,
        }
    }

    #[inline]
    fn put_string(string: &[u8], out: &mut BytesMut) {
        msgpack::put_bytes(out, string);
    }

    #[inline]
    fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        match *bytes {
            [0xC4, length, ref rest @ ..] => rest.split_at_checked(usize::from(length)),
            _ => None,
        }
    }
}

/// Appends a message with its length prefix.
#[inline]
pub(super) fn put<U: Usual>(message: &Message, out: &mut BytesMut) {
    match message {
        Message::Identify { name } => put_pieces::<U>(out, U::IDENTIFY[0], Some(name), U::IDENTIFY[1], None),
        Message::Identified => put_pieces::<U>(out, U::IDENTIFIED, None, &[], None),
        Message::TunnelRequest { target } => put_pieces::<U>(out, U::REQUEST, Some(target), &[], None),
        Message::TunnelOk { tunnel } => put_pieces::<U>(out, U::OK, None, &[], Some(tunnel)),
        Message::TunnelError { reason } => {
            put_pieces::<U>(out, U::ERROR[0], Some(reason.as_bytes()), U::ERROR[1], None);
        }
        Message::TunnelNotify { tunnel, source } => {
            put_pieces::<U>(out, U::NOTIFY[0], Some(source), U::NOTIFY[1], Some(tunnel));
        }
        Message::TunnelClose { tunnel } => put_pieces::<U>(out, U::CLOSE, None, &[], Some(tunnel)),
    }
}

/// Appends a length prefix and what it is the length of. Inlined, so that the pieces have lengths known to the compiler.
#[inline(always)]
fn put_pieces<U: Usual>(
    out: &mut BytesMut,
    first: &'static [u8],
    string: Option<&[u8]>,
    second: &'static [u8],
    tunnel: Option<&TunnelId>,
) {
    let string_length = string.map_or(0, |string| U::head(string.len()) + string.len());
    let tunnel_length = tunnel.map_or(0, |_| TunnelId::LENGTH);
    let length = first.len() + string_length + second.len() + tunnel_length;
    out.put_u32(length as u32);
    out.put_slice(first);
    if let Some(string) = string {
        U::put_string(string, out);
    }
    out.put_slice(second);
    if let Some(tunnel) = tunnel {
        out.put_slice(tunnel.as_bytes());
    }
}

/// The message that `payload` is, if it is written as [`put`] does. Names of more than `max_name` bytes are none of them.
pub(super) fn message<U: Usual>(payload: &[u8], max_name: usize) -> Option<Message> {
    let name = |name: &[u8]| (name.len() <= max_name).then(|| NodeName::new(name));
    if let Some(tunnel) = payload.strip_prefix(U::OK) {
        let tunnel = tunnel_id(tunnel)?;
        return Some(Message::TunnelOk { tunnel });
    }
    if let Some(rest) = payload.strip_prefix(U::NOTIFY[0]) {
        let (source, rest) = U::string(rest)?;
        let tunnel = tunnel_id(rest.strip_prefix(U::NOTIFY[1])?)?;
        let source = name(source)?;
        return Some(Message::TunnelNotify { tunnel, source });
    }
    if let Some(target) = payload.strip_prefix(U::REQUEST) {
        let target = name(last_string::<U>(target, &[])?)?;
        return Some(Message::TunnelRequest { target });
    }
    if let Some(tunnel) = payload.strip_prefix(U::CLOSE) {
        let tunnel = tunnel_id(tunnel)?;
        return Some(Message::TunnelClose { tunnel });
    }
    if let Some(rest) = payload.strip_prefix(U::IDENTIFY[0]) {
        let name = name(last_string::<U>(rest, U::IDENTIFY[1])?)?;
        return Some(Message::Identify { name });
    }
    if let Some(rest) = payload.strip_prefix(U::ERROR[0]) {
        let reason = Reason::copied(last_string::<U>(rest, U::ERROR[1])?);
        return Some(Message::TunnelError { reason });
    }
    (payload == U::IDENTIFIED).then_some(Message::Identified)
}

/// The string that `bytes` begin with, if only `end` follows it.
#[inline(always)]
fn last_string<'a, U: Usual>(bytes: &'a [u8], end: &'static [u8]) -> Option<&'a [u8]> {
    let (string, rest) = U::string(bytes)?;
    (rest == end).then_some(string)
}

#[inline]
fn tunnel_id(bytes: &[u8]) -> Option<TunnelId> {
    bytes.try_into().ok().map(TunnelId::from_bytes)
}
