//! From bytes to lines.

use std::io::{Read, Write};

use bytes::Bytes;
use macula_proto::{
    identity::{NodeId, PublicKey},
    wire::{
        DecodeError, DecodeErrorKind, DecodeLimits, Encoding, Value, cbor,
        control::Message,
        frame::{Body, DecodedFrame, MAX_PAYLOAD, VerifyError},
        framing::{FrameTooLarge, PREFIX},
        msgpack,
    },
};

use super::{
    CHUNK, Format, LARGEST, LARGEST_CONTROL, Stop, Tally,
    line::{Fault, Finding, Line, Oddities, Type},
    put_line, rpc,
    source::Source,
};
use crate::cli::args::InspectArgs;

const LIMITS: DecodeLimits = DecodeLimits::DEFAULT;

/// What is wrong with a value, and its length if that can be told all the same.
type BadValue = (Fault, Option<usize>);

/// Reads one format and writes a line for everything in it.
#[derive(Debug)]
pub(super) struct Inspector {
    format: Format,
    key: Option<NodeId>,
    json: bool,
    tally: Tally,
}

impl Inspector {
    pub(super) fn new(args: &InspectArgs, json: bool) -> Self {
        Self {
            format: args.format,
            key: args.key,
            json,
            tally: Tally::default(),
        }
    }

    pub(super) fn run(mut self, input: Box<dyn Read>, out: &mut impl Write) -> Result<Tally, Stop> {
        let mut source = Source::new(input);
        match self.format {
            Format::Peering => self.frames(&mut source, out, PREFIX, MAX_PAYLOAD)?,
            Format::Control => self.frames(&mut source, out, PREFIX, LARGEST_CONTROL)?,
            Format::Rpc => self.frames(&mut source, out, rpc::HEADER, LARGEST)?,
            Format::Cbor | Format::DetCbor | Format::Msgpack => self.values(&mut source, out)?,
        }
        Ok(self.tally)
    }

    fn tell(
        &mut self,
        out: &mut impl Write,
        offset: u64,
        length: impl Into<Option<u64>>,
        finding: &Finding,
    ) -> Result<(), Stop> {
        self.tally.all += 1;
        self.tally.bad += u64::from(finding.fault.is_some());
        let line = Line {
            event: self.json,
            offset,
            length: length.into(),
            finding,
        };
        put_line(out, &line)
    }

    /// Payloads behind headers whose last four bytes are their length.
    fn frames(&mut self, source: &mut Source, out: &mut impl Write, header: usize, limit: u32) -> Result<(), Stop> {
        loop {
            let offset = source.offset();
            source.fill(header).map_err(Stop::Input)?;
            let there = source.held().len();
            if there == 0 {
                return Ok(());
            }
            let prefix = source.held().get(..header).and_then(|header| header.last_chunk());
            let Some(prefix) = prefix.map(|prefix| u32::from_be_bytes(*prefix)) else {
                let message = format!("the input ends after {there} of the {header} bytes of a header");
                return self.tell(out, offset, there as u64, &Fault::new("truncated", message).into());
            };
            if prefix > limit {
                let error = FrameTooLarge { length: prefix, limit };
                let message = format!("{error}; where the next one begins is unknown");
                let length = u64::from(prefix) + header as u64;
                return self.tell(out, offset, length, &Fault::new("frame_too_large", message).into());
            }
            let length = header + prefix as usize;
            source.fill(length).map_err(Stop::Input)?;
            let there = source.held().len();
            if there < length {
                let message = format!("the input ends after {there} of the {length} bytes of a frame");
                return self.tell(out, offset, there as u64, &Fault::new("truncated", message).into());
            }
            let mut payload = source.take(length);
            let header = payload.split_to(header);
            let finding = match self.format {
                Format::Peering => self.peering(payload),
                Format::Rpc => rpc_message(&header, &payload),
                _ => control_message(&payload),
            };
            self.tell(out, offset, length as u64, &finding)?;
        }
    }

    fn peering(&self, payload: Bytes) -> Finding {
        let read = cbor::det::decode(&payload, &LIMITS).and_then(|value| {
            let decoded = DecodedFrame::decode(payload, &LIMITS)?;
            Ok((value, decoded))
        });
        let (value, DecodedFrame { raw, frame }) = match read {
            Ok(read) => read,
            Err(error) => return bad_payload(error).into(),
        };
        let named = || Some(NodeId::from_bytes(*value.get("node_id")?.as_bytes()?.first_chunk()?));
        let signer = match frame.frame_type() {
            "connect" | "hello" => named(),
            _ => self.key,
        };
        let verify = match signer {
            None => "unknown",
            Some(signer) => match PublicKey::new(&signer).map(|key| raw.verify(&key)) {
                Some(Ok(())) => "ok",
                Some(Err(VerifyError::Unsigned)) => "unsigned",
                // Also a signer that is no key.
                Some(Err(_)) | None => "bad",
            },
        };
        let misfit = match &frame.body {
            Body::Unknown(unknown) => unknown.fault.as_ref().map(ToString::to_string),
            _ => None,
        };
        let kind = Some(frame.frame_type()).filter(|kind| !kind.is_empty());
        Finding {
            kind: kind.map(|kind| Type::Name(kind.to_owned())),
            verify: Some(verify),
            misfit,
            value: Some(value),
            ..Finding::default()
        }
    }

    /// Values one behind the other.
    fn values(&mut self, source: &mut Source, out: &mut impl Write) -> Result<(), Stop> {
        loop {
            let offset = source.offset();
            source.fill(1).map_err(Stop::Input)?;
            if source.held().is_empty() {
                return Ok(());
            }
            match self.value(source)? {
                Ok((value, length)) => {
                    source.skip(length);
                    let finding = Finding {
                        value: Some(value),
                        ..Finding::default()
                    };
                    self.tell(out, offset, length as u64, &finding)?;
                }
                Err((mut fault, length)) => {
                    if length.is_none() {
                        fault.message.push_str("; where the next one begins is unknown");
                    }
                    self.tell(out, offset, length.map(|length| length as u64), &fault.into())?;
                    match length {
                        Some(length) => source.skip(length),
                        None => return Ok(()),
                    }
                }
            }
        }
    }

    /// The next value and its length.
    fn value(&self, source: &mut Source) -> Result<Result<(Value, usize), BadValue>, Stop> {
        loop {
            let held = source.held();
            let error = match self.decode(held) {
                Ok(decoded) => return Ok(Ok(decoded)),
                Err(error) => error,
            };
            if error.kind != DecodeErrorKind::Truncated {
                let message = format!("{} at byte {} of the value", error.kind, error.at);
                return Ok(Err((Fault::new("bad_value", message), self.length_of(held))));
            }
            let there = held.len();
            if source.ended() {
                let message = format!("the input ends inside a value, behind {there} bytes of it");
                return Ok(Err((Fault::new("truncated", message), Some(there))));
            }
            if there >= LARGEST as usize {
                let message = format!("a value of more than {there} bytes");
                return Ok(Err((Fault::new("value_too_large", message), None)));
            }
            // A short value is shown as soon as it is there. One that is long already is not read from its start again until
            // there is twice as much of it, so that the work stays in proportion to its length.
            let wanted = if there < CHUNK { there + 1 } else { there * 2 };
            source.fill(wanted.min(LARGEST as usize)).map_err(Stop::Input)?;
        }
    }

    fn decode(&self, bytes: &Bytes) -> Result<(Value, usize), DecodeError> {
        match self.format {
            Format::Msgpack => msgpack::decode_prefix(bytes, &LIMITS),
            Format::DetCbor => match cbor::det::decode(bytes, &LIMITS) {
                Err(DecodeError {
                    kind: DecodeErrorKind::Trailing,
                    at,
                }) => Ok((cbor::det::decode(&bytes.slice(..at.min(bytes.len())), &LIMITS)?, at)),
                decoded => decoded.map(|value| (value, bytes.len())),
            },
            _ => cbor::decode_prefix(bytes, &LIMITS),
        }
    }

    /// The length of a bad value, if it can be told: what is not deterministic may still be ordinary CBOR.
    fn length_of(&self, bytes: &Bytes) -> Option<usize> {
        match self.format {
            Format::DetCbor => cbor::decode_prefix(bytes, &LIMITS).ok().map(|(_, length)| length),
            _ => None,
        }
    }
}

fn bad_payload(error: DecodeError) -> Fault {
    Fault::new(
        "bad_frame",
        format!("{} at byte {} of the payload", error.kind, error.at),
    )
}

/// A payload in the encoding that its first byte tells: a map in one of the two.
fn map(payload: &Bytes) -> Result<(Encoding, Value), Fault> {
    let Some(first) = payload.first() else {
        return Err(Fault::new("bad_frame", "the payload is empty"));
    };
    let not_a_map = || Fault::new("bad_frame", "the payload is not a map");
    let encoding = Encoding::detect(*first).ok_or_else(not_a_map)?;
    match encoding.decode(payload, &LIMITS) {
        Ok(value @ Value::Map(_)) => Ok((encoding, value)),
        Ok(_) => Err(not_a_map()),
        Err(error) => Err(bad_payload(error)),
    }
}

fn control_message(payload: &Bytes) -> Finding {
    let (encoding, value) = match map(payload) {
        Ok(map) => map,
        Err(fault) => return fault.into(),
    };
    let message = Message::decode(payload);
    Finding {
        kind: message
            .as_ref()
            .ok()
            .map(|(_, message)| Type::Name(message.kind().to_owned())),
        fault: message.err().map(|error| Fault::new("bad_frame", error)),
        encoding: Some(encoding),
        value: Some(value),
        ..Finding::default()
    }
}

fn rpc_message(header: &[u8], payload: &Bytes) -> Finding {
    let Some(&[version, number, flags, reserved]) = header.first_chunk() else {
        return Fault::new("truncated", "a header that is too short").into();
    };
    let name = rpc::name(number);
    let (map, mut fault) = match map(payload) {
        Ok((encoding, value)) => (Some((encoding, value)), None),
        Err(fault) => (None, Some(fault)),
    };
    if version != rpc::VERSION {
        fault = Some(Fault::new(
            "bad_frame",
            format!("version {version} instead of {}", rpc::VERSION),
        ));
    } else if name.is_none() {
        fault = Some(Fault::new("bad_frame", format!("unknown type {number:#04x}")));
    }
    let (encoding, value) = map.unzip();
    Finding {
        kind: Some(name.map_or(Type::Number(number), |name| Type::Name(name.to_owned()))),
        oddities: Oddities {
            version: (version != rpc::VERSION).then_some(version),
            flags: (flags != 0).then_some(flags),
            reserved: (reserved != 0).then_some(reserved),
        },
        encoding,
        value,
        fault,
        ..Finding::default()
    }
}
