//! From lines to bytes.

use std::{
    fmt,
    io::{BufRead, Read as _, Write},
};

use bytes::{BufMut as _, BytesMut};
use macula_proto::wire::{
    EncodeError, Encoding, Value, cbor,
    frame::MAX_PAYLOAD,
    framing::{FrameTooLarge, put_frame},
    msgpack,
};
use serde::{
    Deserialize, Serialize,
    de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor},
};

use super::{Format, LARGEST, LARGEST_CONTROL, Stop, Tally, hex::Hex, put_line, rpc, tagged::Untag};
use crate::cli::args::InspectArgs;

/// Longest line, in bytes: the longest that any frame makes is shorter.
const LONGEST_LINE: u64 = 128 << 20;

/// What counts of a line; the rest of it is what a reader can see from the bytes.
#[derive(Debug, Default)]
struct Described {
    value: Option<Value>,
    kind: Option<u8>,
    encoding: Option<Encoding>,
    version: Option<u8>,
    flags: Option<u8>,
    reserved: Option<u8>,
}

pub(super) fn run(args: &InspectArgs, json: bool, input: impl BufRead, out: &mut impl Write) -> Result<Tally, Stop> {
    let mut input = input;
    let mut tally = Tally::default();
    let mut line = Vec::new();
    let mut number: u64 = 0;
    loop {
        line.clear();
        let read = input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line);
        if read.map_err(Stop::Input)? == 0 {
            return Ok(tally);
        }
        number += 1;
        let complete = line.last() == Some(&b'\n') || (line.len() as u64) < LONGEST_LINE;
        if complete && line.trim_ascii().is_empty() {
            continue;
        }
        tally.all += 1;
        let bytes = match complete {
            true => encode(&line, args.format),
            false => Err(format!("longer than {LONGEST_LINE} bytes; reading ends here")),
        };
        match bytes {
            Ok(bytes) => put(args, json, &bytes, out)?,
            Err(fault) => {
                tally.bad += 1;
                complain(json, number, &fault, out)?;
            }
        }
        if !complete {
            return Ok(tally);
        }
    }
}

#[derive(Serialize)]
struct HexLine<'a> {
    event: &'static str,
    length: usize,
    hex: Hex<'a>,
}

fn put(args: &InspectArgs, json: bool, bytes: &[u8], out: &mut impl Write) -> Result<(), Stop> {
    if json {
        let event = "frame";
        let (length, hex) = (bytes.len(), Hex(bytes));
        return put_line(out, &HexLine { event, length, hex });
    }
    let written = match args.hex_out {
        true => writeln!(out, "{}", Hex(bytes)),
        false => out.write_all(bytes),
    };
    written.and_then(|()| out.flush()).map_err(Stop::Output)
}

#[derive(Serialize)]
struct Complaint<'a> {
    event: &'static str,
    kind: &'static str,
    message: &'a str,
    line: u64,
}

/// Bytes go to standard output, so what is wrong goes elsewhere, unless there is JSON.
fn complain(json: bool, line: u64, fault: &str, out: &mut impl Write) -> Result<(), Stop> {
    if !json {
        eprintln!("macula: line {line}: {fault}");
        return Ok(());
    }
    let complaint = Complaint {
        event: "error",
        kind: "bad_line",
        message: fault,
        line,
    };
    put_line(out, &complaint)
}

fn encode(line: &[u8], format: Format) -> Result<BytesMut, String> {
    let mut json = serde_json::Deserializer::from_slice(line);
    // What nests is bounded by the visitor of values; what is skipped is skipped without recursion.
    json.disable_recursion_limit();
    let described = Described::deserialize(&mut json).and_then(|described| json.end().map(|()| described));
    let described = described.map_err(|error| error.to_string())?;
    let Some(value) = &described.value else {
        return Err("there is no `value`".to_owned());
    };
    let mut out = BytesMut::new();
    let map = matches!(value, Value::Map(_));
    let encoding = described.encoding.unwrap_or(Encoding::MessagePack);
    let written = match format {
        Format::Cbor => cbor::encode(value, &mut out).map_err(Fault::Value),
        Format::DetCbor => cbor::det::encode(value, &mut out).map_err(Fault::Value),
        Format::Msgpack => msgpack::encode(value, &mut out).map_err(Fault::Value),
        Format::Peering | Format::Rpc | Format::Control if !map => return Err("`value` is not a map".to_owned()),
        Format::Peering => framed(&mut out, MAX_PAYLOAD, |out| cbor::det::encode(value, out)),
        Format::Control => framed(&mut out, LARGEST_CONTROL, |out| encoding.encode(value, out)),
        Format::Rpc => {
            let Some(kind) = described.kind else {
                return Err("there is no `type`, or one that is unknown".to_owned());
            };
            out.put_u8(described.version.unwrap_or(rpc::VERSION));
            out.put_slice(&[kind, described.flags.unwrap_or(0), described.reserved.unwrap_or(0)]);
            framed(&mut out, LARGEST, |out| encoding.encode(value, out))
        }
    };
    written.map(|()| out).map_err(|fault| fault.to_string())
}

/// Why a value makes no frame.
enum Fault {
    Value(EncodeError),
    Length(FrameTooLarge),
}

impl From<FrameTooLarge> for Fault {
    fn from(error: FrameTooLarge) -> Self {
        Self::Length(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(error) => error.fmt(f),
            Self::Length(error) => error.fmt(f),
        }
    }
}

fn framed(
    out: &mut BytesMut,
    limit: u32,
    write: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
) -> Result<(), Fault> {
    put_frame(out, limit, |out| write(out).map_err(Fault::Value))
}

impl<'de> Deserialize<'de> for Described {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DescribedVisitor)
    }
}

struct DescribedVisitor;

impl<'de> Visitor<'de> for DescribedVisitor {
    type Value = Described;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the member `value`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Described, A::Error> {
        let mut described = Described::default();
        while let Some(member) = map.next_key::<String>()? {
            match member.as_str() {
                "value" => described.value = Some(map.next_value_seed(Untag::default())?),
                "type" => described.kind = map.next_value::<Kind>()?.0,
                "encoding" => {
                    described.encoding = match map.next_value::<Option<String>>()?.as_deref() {
                        None => None,
                        Some("msgpack") => Some(Encoding::MessagePack),
                        Some("cbor") => Some(Encoding::Cbor),
                        Some(other) => return Err(Error::custom(format_args!("unknown encoding {other:?}"))),
                    }
                }
                "version" => described.version = map.next_value()?,
                "flags" => described.flags = map.next_value()?,
                "reserved" => described.reserved = map.next_value()?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(described)
    }
}

/// The number of a type that is given by number or by name; `None` for what is neither of RPC. Other formats do not need it.
struct Kind(Option<u8>);

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl Visitor<'_> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name or the number of a type")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Kind, E> {
        Ok(Kind(u8::try_from(number).ok()))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Kind, E> {
        Ok(Kind(rpc::number(name)))
    }

    fn visit_unit<E: Error>(self) -> Result<Kind, E> {
        Ok(Kind(None))
    }
}
