//! Control messages between a node and its relay, into and out of buffers that are used again.

use bytes::{Bytes, BytesMut};
use macula_proto::wire::{Encoding, control::Message};
use minicbor::{Decoder, Encoder};

use crate::{
    Result,
    harness::{Contender, Line},
    mirror::{Control, Mirror},
    vectors,
};

pub(crate) fn lines() -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (name, bytes) in vectors::control()? {
        // One of each message in each encoding; the others are about odd input.
        const KINDS: [&str; 7] = [
            "identify",
            "identified",
            "tunnel_request",
            "tunnel_ok",
            "tunnel_error_not_connected",
            "tunnel_notify",
            "tunnel_close",
        ];
        let kind = name.split_once('_').map_or("", |(_, kind)| kind);
        if KINDS.contains(&kind) {
            lines.extend(message(&name, &bytes.slice(4..))?);
        }
    }
    lines.sort_by_key(|line| line.operation);
    Ok(lines)
}

fn message(name: &str, payload: &Bytes) -> Result<[Line; 2]> {
    let (encoding, message) = Message::decode(payload)?;
    let mut out = BytesMut::with_capacity(512);
    let mut encode = vec![Contender::new("ours", move || {
        out.clear();
        message.encode(encoding, &mut out);
    })];
    let bytes = payload.clone();
    let mut decode = vec![Contender::new("ours", move || Message::decode(&bytes))];
    match encoding {
        Encoding::Cbor => cbor(payload, &mut encode, &mut decode)?,
        Encoding::MessagePack => msgpack(payload, &mut encode, &mut decode)?,
    }
    let line = |operation, contenders| Line {
        operation,
        what: name.to_owned(),
        contenders,
    };
    Ok([line("control encode", encode), line("control decode", decode)])
}

fn cbor(payload: &Bytes, encode: &mut Vec<Contender>, decode: &mut Vec<Contender>) -> Result<()> {
    let read = || Control::take(&mut Decoder::new(payload));
    let (serde, mini) = (read()?, read()?);
    let mut written = Vec::with_capacity(512);
    mini.put(&mut Encoder::new(&mut written))?;
    if written != *payload {
        return Err(format!("minicbor writes {written:?} for {payload:?}").into());
    }
    let mut out = Vec::with_capacity(512);
    encode.push(Contender::new("serde+ciborium", move || {
        out.clear();
        ciborium::into_writer(&serde, &mut out)
    }));
    encode.push(Contender::new("minicbor", move || {
        written.clear();
        mini.put(&mut Encoder::new(&mut written))
    }));
    let mut theirs = Vec::new();
    ciborium::into_writer(&read()?, &mut theirs)?;
    let bytes = payload.clone();
    decode.push(Contender::new("serde+ciborium", move || {
        ciborium::from_reader::<Control, _>(&theirs[..])
    }));
    decode.push(Contender::new("minicbor", move || {
        Control::take(&mut Decoder::new(&bytes))
    }));
    Ok(())
}

fn msgpack(payload: &Bytes, encode: &mut Vec<Contender>, decode: &mut Vec<Contender>) -> Result<()> {
    let control: Control = rmp_serde::from_slice(payload)?;
    let tree = rmpv::decode::read_value(&mut &payload[..])?;
    let mut out = Vec::with_capacity(512);
    encode.push(Contender::new("rmp-serde", move || {
        out.clear();
        rmp_serde::encode::write_named(&mut out, &control)
    }));
    let mut out = Vec::with_capacity(512);
    encode.push(Contender::new("rmpv", move || {
        out.clear();
        rmpv::encode::write_value(&mut out, &tree)
    }));
    let (a, b) = (payload.clone(), payload.clone());
    decode.push(Contender::new("rmp-serde", move || {
        rmp_serde::from_slice::<Control>(&a)
    }));
    decode.push(Contender::new("rmpv", move || rmpv::decode::read_value(&mut &b[..])));
    Ok(())
}
