//! Instructions that codecs and signatures take, counted by callgrind, with limits.
//!
//! `cargo bench -p macula-proto --bench instructions` needs valgrind and `gungraun-runner` in the version of the crate
//! `gungraun`. It fails where a count is more than 5 % above the one committed here, which was counted with the toolchain and on
//! the processor class named in `docs/PERFORMANCE.md`. Whoever makes something faster, or has a reason to make it slower,
//! commits the new count.

#![expect(missing_docs, reason = "the macros make public items without any")]

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, OutputFormat, library_benchmark, library_benchmark_group, main,
};
use macula_proto::{
    identity::{Identity, PublicKey},
    wire::{
        DecodeLimits, Encoding, Value,
        control::{Message, TunnelId},
        frame::{
            Body, Call, Connect, DecodedFrame, Frame, FrameEncodeError, FrameId, Header, Id16, Id32, Publish, RawFrame,
            StreamData, StreamEncoding, VerifyError,
        },
    },
};

/// Fails at 5 % above `instructions`.
fn limit(instructions: u64) -> LibraryBenchmarkConfig {
    let mut callgrind = Callgrind::default();
    callgrind.hard_limits([(EventKind::Ir, instructions + instructions / 20)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

fn identity() -> Identity {
    Identity::from_seed(&[7; 32])
}

fn frame(body: impl Into<Body>) -> Frame {
    let header = Header {
        version: 2,
        frame_id: FrameId([1; 16]),
        sent_at_ms: 1_777_000_000_000,
        capabilities: 0,
    };
    Frame::new(header, body)
}

fn connect() -> Frame {
    let node_id = identity().node_id();
    frame(Connect {
        node_id,
        station_id: node_id,
        realms: vec![Id32([3; 32])],
        addresses: Vec::new(),
        site: None,
        puzzle_evidence: [4; 32],
        endorsements: Vec::new(),
    })
}

fn publish() -> Frame {
    frame(Publish {
        topic: Bytes::from_static(b"io.macula/acme/app/orders/placed_v1"),
        realm: Id32([3; 32]),
        publisher: identity().node_id(),
        seq: 42,
        payload: Value::bytes([5; 100]),
        published_at_ms: 1_777_000_000_000,
        ttl_ms: None,
    })
}

fn call() -> Frame {
    frame(Call {
        call_id: Id16([2; 16]),
        procedure: Bytes::from_static(b"io.macula/acme/app/orders/get_v1"),
        realm: Id32([3; 32]),
        payload: Value::Map(vec![(Value::text("id"), Value::Uint(42))]),
        deadline_ms: 1_777_000_030_000,
        caller: identity().node_id(),
        source_route: Bytes::new(),
        retry_budget: 3,
    })
}

fn stream_data() -> Frame {
    frame(StreamData {
        stream_id: Id16([2; 16]),
        seq: 42,
        encoding: StreamEncoding::Raw,
        body: Value::bytes([6; 1000]),
    })
}

fn signed(frame: Frame) -> Bytes {
    let raw = frame.sign(&identity()).expect("signs");
    raw.payload().clone()
}

fn raw(frame: Frame) -> (RawFrame, PublicKey) {
    let raw = frame.sign(&identity()).expect("signs");
    (raw, PublicKey::new(&identity().node_id()).expect("a key"))
}

fn signer(frame: Frame) -> (Frame, Identity) {
    (frame, identity())
}

#[library_benchmark]
#[bench::connect(config = limit(1_875), args = (connect()))]
#[bench::publish(config = limit(1_919), args = (publish()))]
#[bench::call(config = limit(2_223), args = (call()))]
#[bench::stream_data(config = limit(1_801), args = (stream_data()))]
fn encode(frame: Frame) -> (Frame, Result<RawFrame, FrameEncodeError>) {
    let encoded = black_box(&frame).encode_unsigned();
    (frame, encoded)
}

#[library_benchmark]
#[bench::connect(config = limit(7_846), args = (signed(connect())))]
#[bench::publish(config = limit(6_763), args = (signed(publish())))]
#[bench::call(config = limit(7_701), args = (signed(call())))]
#[bench::stream_data(config = limit(5_476), args = (signed(stream_data())))]
fn decode(payload: Bytes) -> DecodedFrame {
    DecodedFrame::decode(black_box(payload), &DecodeLimits::DEFAULT).expect("decodes")
}

#[library_benchmark]
#[bench::connect(config = limit(256_535), args = (signer(connect())))]
#[bench::publish(config = limit(256_556), args = (signer(publish())))]
fn sign((frame, identity): (Frame, Identity)) -> (Frame, Result<RawFrame, FrameEncodeError>) {
    let signed = black_box(&frame).sign(&identity);
    (frame, signed)
}

#[library_benchmark]
#[bench::connect(config = limit(411_111), args = (raw(connect())))]
#[bench::publish(config = limit(410_135), args = (raw(publish())))]
fn verify((raw, key): (RawFrame, PublicKey)) -> (RawFrame, Result<(), VerifyError>) {
    let verified = black_box(&raw).verify(&key);
    (raw, verified)
}

fn notify() -> Message {
    Message::TunnelNotify {
        tunnel: TunnelId::from_bytes([b'A'; 32]),
        source: "alice@host1".into(),
    }
}

fn room() -> (Message, BytesMut) {
    (notify(), BytesMut::with_capacity(512))
}

fn written(encoding: Encoding) -> Bytes {
    let mut out = BytesMut::new();
    notify().encode(encoding, &mut out);
    out.freeze().slice(4..)
}

#[library_benchmark]
#[bench::msgpack(config = limit(528), args = (room(), Encoding::MessagePack))]
#[bench::cbor(config = limit(528), args = (room(), Encoding::Cbor))]
fn control_encode((message, mut out): (Message, BytesMut), encoding: Encoding) -> (Message, BytesMut) {
    black_box(&message).encode(encoding, &mut out);
    (message, out)
}

#[library_benchmark]
#[bench::msgpack(config = limit(959), args = (written(Encoding::MessagePack)))]
#[bench::cbor(config = limit(998), args = (written(Encoding::Cbor)))]
fn control_decode(payload: Bytes) -> (Bytes, Message) {
    let (_, message) = Message::decode(black_box(&payload)).expect("decodes");
    (payload, message)
}

library_benchmark_group!(name = frames, benchmarks = [encode, decode, sign, verify]);
library_benchmark_group!(name = control, benchmarks = [control_encode, control_decode]);

main!(
    config = LibraryBenchmarkConfig::default().output_format(OutputFormat::default().truncate_description(None)),
    library_benchmark_groups = [frames, control]
);
