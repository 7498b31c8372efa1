//! Peering frames.

use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use macula_proto::{
    identity::PublicKey,
    wire::{
        DecodeLimits, Value, cbor,
        frame::{Body, DecodedFrame},
    },
};
use minicbor::{Decoder, Encoder};

use crate::{
    Result,
    harness::{Contender, Line},
    mirror::{Call, Mirror, Publish, StreamData, StreamEnd, TopicEvent},
    vectors::{self, Golden},
};

const LIMITS: DecodeLimits = DecodeLimits::DEFAULT;

/// Vectors besides the first of every type: payloads that are byte strings, short and long.
const BESIDES: [&str; 2] = ["call_payload_bytes", "call_payload_bytes_5000"];

/// Room for what others write, so that they need not grow their buffer.
fn room(payload: &Bytes) -> Vec<u8> {
    Vec::with_capacity(payload.len())
}

pub(crate) fn lines() -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for golden in vectors::frames(&BESIDES)? {
        let payload = golden.decoded.frame.encode_unsigned()?.payload().clone();
        lines.push(encode(&golden, &payload)?);
        lines.push(decode(&golden, &payload)?);
        lines.push(sign(&golden));
        lines.push(verify(&golden)?);
        lines.extend(trees(&golden, &payload)?);
    }
    // All of one operation together.
    lines.sort_by_key(|line| line.operation);
    Ok(lines)
}

/// A typed frame to bytes, without signing them.
fn encode(golden: &Golden, payload: &Bytes) -> Result<Line> {
    let frame = golden.decoded.frame.clone();
    let ours = Contender::new("ours", move || frame.encode_unsigned());
    let mut contenders = vec![ours];
    contenders.extend(
        structs(golden, payload)?
            .map(|(encode, _)| encode)
            .into_iter()
            .flatten(),
    );
    Ok(Line {
        operation: "encode",
        what: golden.name.clone(),
        contenders,
    })
}

/// Bytes to a typed frame, without checking a signature.
fn decode(golden: &Golden, payload: &Bytes) -> Result<Line> {
    let bytes = payload.clone();
    let ours = Contender::new("ours", move || DecodedFrame::decode(bytes.clone(), &LIMITS));
    let mut contenders = vec![ours];
    contenders.extend(
        structs(golden, payload)?
            .map(|(_, decode)| decode)
            .into_iter()
            .flatten(),
    );
    Ok(Line {
        operation: "decode",
        what: golden.name.clone(),
        contenders,
    })
}

/// A typed frame to signed bytes, beside the bare signature over them.
fn sign(golden: &Golden) -> Line {
    let (frame, signer) = (golden.decoded.frame.clone(), golden.signer.clone());
    let ours = Contender::new("ours", move || frame.sign(&signer));
    let (input, signer) = (golden.decoded.raw.signing_input(), golden.signer.clone());
    let bare = Contender::new("bare Ed25519", move || signer.sign_raw(&input));
    Line {
        operation: "sign",
        what: golden.name.clone(),
        contenders: vec![ours, bare],
    }
}

/// Whether the signature of a frame holds, beside the bare check over the same bytes.
fn verify(golden: &Golden) -> Result<Line> {
    let key = PublicKey::new(&golden.signer.node_id()).ok_or("no key")?;
    let raw = golden.decoded.raw.clone();
    raw.verify(&key)?;
    let (input, signature) = (raw.signing_input(), *raw.signature().ok_or("no signature")?);
    let ours_key = key.clone();
    let ours = Contender::new("ours", move || raw.verify(&ours_key));
    let bare = Contender::new("bare Ed25519", move || key.verify_raw(&input, &signature));
    Ok(Line {
        operation: "verify",
        what: golden.name.clone(),
        contenders: vec![ours, bare],
    })
}

/// The same frame as a tree of values, for types that nobody wrote down.
fn trees(golden: &Golden, payload: &Bytes) -> Result<[Line; 2]> {
    let value = cbor::det::decode(payload, &LIMITS)?;
    let theirs: ciborium::Value = ciborium::from_reader(&payload[..])?;
    let mut written = Vec::new();
    ciborium::into_writer(&theirs, &mut written)?;
    same(&golden.name, &written, payload)?;
    let packed_value = rmpv(&value)?;
    let mut packed = Vec::new();
    rmpv::encode::write_value(&mut packed, &packed_value)?;

    let (length, size) = (payload.len(), packed.len());
    let encode = vec![
        Contender::new("ours", move || {
            let mut out = BytesMut::with_capacity(length);
            cbor::det::encode(&value, &mut out).map(|()| out)
        }),
        Contender::new("ciborium", move || {
            let mut out = Vec::with_capacity(length);
            ciborium::into_writer(&theirs, &mut out).map(|()| out)
        }),
        Contender::new("rmpv", move || {
            let mut out = Vec::with_capacity(size);
            rmpv::encode::write_value(&mut out, &packed_value).map(|()| out)
        }),
    ];
    let (ours, bytes) = (payload.clone(), payload.clone());
    let decode = vec![
        Contender::new("ours", move || cbor::det::decode(&ours, &LIMITS)),
        Contender::new("ciborium", move || {
            ciborium::from_reader::<ciborium::Value, _>(&bytes[..])
        }),
        Contender::new("rmpv", move || rmpv::decode::read_value(&mut &packed[..])),
    ];
    let line = |operation, contenders| Line {
        operation,
        what: golden.name.clone(),
        contenders,
    };
    Ok([line("tree encode", encode), line("tree decode", decode)])
}

fn rmpv(value: &Value) -> Result<rmpv::Value> {
    Ok(match value {
        Value::Null => rmpv::Value::Nil,
        Value::Uint(value) => (*value).into(),
        Value::Bytes(bytes) => rmpv::Value::Binary(bytes.to_vec()),
        Value::Text(text) => std::str::from_utf8(text)?.into(),
        Value::Array(elements) => rmpv::Value::Array(elements.iter().map(rmpv).collect::<Result<_>>()?),
        Value::Map(entries) => {
            let entry = |(key, value): &(Value, Value)| Ok((rmpv(key)?, rmpv(value)?));
            rmpv::Value::Map(entries.iter().map(entry).collect::<Result<_>>()?)
        }
        other => return Err(format!("not in deterministic CBOR: {other:?}").into()),
    })
}

/// Encoders and decoders of others.
type Others = Option<(Vec<Contender>, Vec<Contender>)>;

/// The contenders that need a struct, where there is one.
fn structs(golden: &Golden, payload: &Bytes) -> Result<Others> {
    let short = |value: &Value| matches!(value, Value::Bytes(_));
    Ok(match &golden.decoded.frame.body {
        Body::Publish(body) if short(&body.payload) => Some(others::<Publish>(&golden.name, payload)?),
        Body::TopicEvent(body) if short(&body.payload) => Some(others::<TopicEvent>(&golden.name, payload)?),
        Body::Call(body) if short(&body.payload) => Some(others::<Call>(&golden.name, payload)?),
        Body::StreamData(body) if short(&body.body) => Some(others::<StreamData>(&golden.name, payload)?),
        Body::StreamEnd(_) => Some(others::<StreamEnd>(&golden.name, payload)?),
        _ => None,
    })
}

fn others<M: Mirror>(name: &str, payload: &Bytes) -> Result<(Vec<Contender>, Vec<Contender>)> {
    let read = || -> Result<M> { Ok(ciborium::from_reader(&payload[..])?) };
    let mut written = Vec::new();
    ciborium::into_writer(&read()?, &mut written)?;
    same(name, &written, payload)?;
    written.clear();
    read()?.put(&mut Encoder::new(&mut written))?;
    same(name, &written, payload)?;
    let packed = rmp_serde::to_vec_named(&read()?)?;
    let agree = M::take(&mut Decoder::new(payload))? == read()? && rmp_serde::from_slice::<M>(&packed)? == read()?;
    if !agree {
        return Err(format!("{name}: the others do not agree").into());
    }

    let (serde, rmp, mini) = (read()?, read()?, read()?);
    let (a, b, c) = (payload.clone(), payload.clone(), payload.clone());
    let encode = vec![
        Contender::new("serde+ciborium", move || {
            let mut out = room(&a);
            ciborium::into_writer(&serde, &mut out).map(|()| out)
        }),
        Contender::new("rmp-serde", move || {
            let mut out = room(&b);
            rmp_serde::encode::write_named(&mut out, &rmp).map(|()| out)
        }),
        Contender::new("minicbor", move || {
            let mut out = room(&c);
            mini.put(&mut Encoder::new(&mut out)).map(|()| out)
        }),
    ];
    let (a, b) = (payload.clone(), payload.clone());
    let decode = vec![
        Contender::new("serde+ciborium", move || ciborium::from_reader::<M, _>(&a[..])),
        Contender::new("rmp-serde", move || rmp_serde::from_slice::<M>(&packed)),
        Contender::new("minicbor", move || M::take(&mut Decoder::new(&b))),
    ];
    Ok((encode, decode))
}

/// All CBOR writers have to agree, or else they are not compared.
fn same(name: &str, theirs: &(impl AsRef<[u8]> + Debug), ours: &Bytes) -> Result<()> {
    match theirs.as_ref() == ours {
        true => Ok(()),
        false => Err(format!("{name}: {theirs:?} is not {ours:?}").into()),
    }
}
