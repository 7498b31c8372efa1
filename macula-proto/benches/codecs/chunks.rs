//! Raw chunks of a streaming call, into and out of buffers that are used again. Head and body are written one after the other.

use bytes::{BufMut, Bytes, BytesMut};
use macula_proto::wire::{
    Encoding,
    rpc::{Decoder, StreamId, encode_data_head},
};
use minicbor::Encoder;
use serde_bytes::{ByteArray, ByteBuf};

use crate::{
    Result,
    harness::{Contender, Line},
    mirror::{Mirror, RawChunk},
};

const STREAM: [u8; 16] = [0x5A; 16];
/// A place with a number of three bytes.
const SEQ: u64 = 300;
/// Version, kind, flags and length in front of the payload.
const HEADER: usize = 8;

pub(crate) fn lines() -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (name, encoding, length) in [
        ("cbor_64", Encoding::Cbor, 64),
        ("cbor_1000", Encoding::Cbor, 1000),
        ("msgpack_64", Encoding::MessagePack, 64),
        ("msgpack_1000", Encoding::MessagePack, 1000),
    ] {
        lines.extend(chunk(name, encoding, &vec![7; length])?);
    }
    lines.sort_by_key(|line| line.operation);
    Ok(lines)
}

fn mirror(body: &[u8]) -> RawChunk {
    RawChunk {
        encoding: "raw".to_owned(),
        seq: SEQ,
        stream_id: ByteArray::new(STREAM),
        body: ByteBuf::from(body),
    }
}

fn written(encoding: Encoding, body: &[u8]) -> Result<Bytes> {
    let mut out = BytesMut::new();
    encode_data_head(StreamId(STREAM), SEQ, body.len(), encoding, &mut out)?;
    out.put_slice(body);
    Ok(out.freeze())
}

fn chunk(name: &str, encoding: Encoding, body: &[u8]) -> Result<[Line; 2]> {
    let message = written(encoding, body)?;
    let payload = message.slice(HEADER..);
    let mut out = BytesMut::with_capacity(2048);
    let own = body.to_vec();
    let mut encode = vec![Contender::new("ours", move || {
        out.clear();
        let head = encode_data_head(StreamId(STREAM), SEQ, own.len(), encoding, &mut out);
        out.put_slice(&own);
        head
    })];
    let mut decoder = Decoder::default();
    let mut decode = vec![Contender::new("ours", move || {
        decoder.push(message.clone());
        decoder.next()
    })];
    match encoding {
        Encoding::Cbor => cbor(&payload, body, &mut encode, &mut decode)?,
        Encoding::MessagePack => msgpack(&payload, body, &mut encode, &mut decode)?,
    }
    let line = |operation, contenders| Line {
        operation,
        what: name.to_owned(),
        contenders,
    };
    Ok([line("chunk encode", encode), line("chunk decode", decode)])
}

fn cbor(payload: &Bytes, body: &[u8], encode: &mut Vec<Contender>, decode: &mut Vec<Contender>) -> Result<()> {
    let (serde, mini) = (mirror(body), mirror(body));
    let mut out = Vec::with_capacity(2048);
    mini.put(&mut Encoder::new(&mut out))?;
    if out != *payload {
        return Err(format!("minicbor writes {out:?} for {payload:?}").into());
    }
    let mut other = Vec::with_capacity(2048);
    encode.push(Contender::new("serde+ciborium", move || {
        other.clear();
        ciborium::into_writer(&serde, &mut other)
    }));
    encode.push(Contender::new("minicbor", move || {
        out.clear();
        mini.put(&mut Encoder::new(&mut out))
    }));
    let (a, b) = (payload.clone(), payload.clone());
    decode.push(Contender::new("serde+ciborium", move || {
        ciborium::from_reader::<RawChunk, _>(&a[..])
    }));
    decode.push(Contender::new("minicbor", move || {
        RawChunk::take(&mut minicbor::Decoder::new(&b))
    }));
    Ok(())
}

fn msgpack(payload: &Bytes, body: &[u8], encode: &mut Vec<Contender>, decode: &mut Vec<Contender>) -> Result<()> {
    let chunk = mirror(body);
    let tree = rmpv::decode::read_value(&mut &payload[..])?;
    // Serde writes its keys as text, which is as long as byte strings.
    let theirs = rmp_serde::to_vec_named(&chunk)?;
    if theirs.len() > payload.len() {
        return Err("rmp-serde writes something else".into());
    }
    let mut out = Vec::with_capacity(2048);
    encode.push(Contender::new("rmp-serde", move || {
        out.clear();
        rmp_serde::encode::write_named(&mut out, &chunk)
    }));
    let mut out = Vec::with_capacity(2048);
    encode.push(Contender::new("rmpv", move || {
        out.clear();
        rmpv::encode::write_value(&mut out, &tree)
    }));
    let own = payload.clone();
    decode.push(Contender::new("rmp-serde", move || {
        rmp_serde::from_slice::<RawChunk>(&theirs)
    }));
    decode.push(Contender::new("rmpv", move || rmpv::decode::read_value(&mut &own[..])));
    Ok(())
}
