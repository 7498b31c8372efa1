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
        DecodeLimits, Encoding, Value, cbor,
        control::{Message, TunnelId},
        frame::{
            Body, Call, Connect, DecodedFrame, Frame, FrameEncodeError, FrameId, Header, Id16, Id32, Publish, RawFrame,
            StreamData, StreamEncoding, VerifyError,
        },
        rpc::{self, StreamId},
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
#[bench::connect(config = limit(1_542), args = (connect()))]
#[bench::publish(config = limit(1_562), args = (publish()))]
#[bench::call(config = limit(1_764), args = (call()))]
#[bench::stream_data(config = limit(1_719), args = (stream_data()))]
fn encode(frame: Frame) -> (Frame, Result<RawFrame, FrameEncodeError>) {
    let encoded = black_box(&frame).encode_unsigned();
    (frame, encoded)
}

#[library_benchmark]
#[bench::connect(config = limit(5_059), args = (signed(connect())))]
#[bench::publish(config = limit(3_603), args = (signed(publish())))]
#[bench::call(config = limit(4_942), args = (signed(call())))]
#[bench::stream_data(config = limit(2_915), args = (signed(stream_data())))]
fn decode(payload: Bytes) -> DecodedFrame {
    DecodedFrame::decode(black_box(payload), &DecodeLimits::DEFAULT).expect("decodes")
}

#[library_benchmark]
#[bench::connect(config = limit(256_176), args = (signer(connect())))]
#[bench::publish(config = limit(256_055), args = (signer(publish())))]
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

fn tree(payload: &Bytes) -> Value {
    cbor::det::decode(payload, &DecodeLimits::DEFAULT).expect("decodes")
}

fn tree_and_room(frame: Frame) -> (Value, BytesMut) {
    let payload = signed(frame);
    (tree(&payload), BytesMut::with_capacity(payload.len()))
}

#[library_benchmark]
#[bench::publish(config = limit(6_778), args = (signed(publish())))]
#[bench::stream_data(config = limit(7_055), args = (signed(stream_data())))]
fn tree_decode(payload: Bytes) -> (Bytes, Value) {
    let value = tree(black_box(&payload));
    (payload, value)
}

#[library_benchmark]
#[bench::publish(config = limit(2_286), args = (tree_and_room(publish())))]
#[bench::stream_data(config = limit(2_413), args = (tree_and_room(stream_data())))]
fn tree_encode((value, mut out): (Value, BytesMut)) -> (Value, BytesMut) {
    cbor::det::encode(black_box(&value), &mut out).expect("encodes");
    (value, out)
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
#[bench::msgpack(config = limit(192), args = (room(), Encoding::MessagePack))]
#[bench::cbor(config = limit(168), args = (room(), Encoding::Cbor))]
fn control_encode((message, mut out): (Message, BytesMut), encoding: Encoding) -> (Message, BytesMut) {
    black_box(&message).encode(encoding, &mut out);
    (message, out)
}

#[library_benchmark]
#[bench::msgpack(config = limit(220), args = (written(Encoding::MessagePack)))]
#[bench::cbor(config = limit(235), args = (written(Encoding::Cbor)))]
fn control_decode(payload: Bytes) -> (Bytes, Message) {
    let (_, message) = Message::decode(black_box(&payload)).expect("decodes");
    (payload, message)
}

const STREAM: StreamId = StreamId([0x5A; 16]);

/// A raw chunk of 64 bytes.
fn chunk(encoding: Encoding) -> Bytes {
    let mut out = BytesMut::new();
    rpc::encode_data_head(STREAM, 300, 64, encoding, &mut out).expect("short enough");
    out.extend_from_slice(&[7; 64]);
    out.freeze()
}

#[library_benchmark]
#[bench::msgpack(config = limit(186), args = (BytesMut::with_capacity(512), Encoding::MessagePack))]
#[bench::cbor(config = limit(188), args = (BytesMut::with_capacity(512), Encoding::Cbor))]
fn chunk_head_encode(mut out: BytesMut, encoding: Encoding) -> BytesMut {
    rpc::encode_data_head(black_box(STREAM), 300, 64, encoding, &mut out).expect("short enough");
    out
}

#[library_benchmark]
#[bench::msgpack(config = limit(895), args = (chunk(Encoding::MessagePack)))]
#[bench::cbor(config = limit(917), args = (chunk(Encoding::Cbor)))]
fn chunk_decode(message: Bytes) -> Option<Result<(rpc::Message, Encoding), rpc::Bad>> {
    let mut decoder = rpc::Decoder::default();
    decoder.push(black_box(message));
    decoder.next()
}

library_benchmark_group!(
    name = frames,
    benchmarks = [encode, decode, tree_encode, tree_decode, sign, verify]
);
library_benchmark_group!(name = control, benchmarks = [control_encode, control_decode]);
library_benchmark_group!(name = chunks, benchmarks = [chunk_head_encode, chunk_decode]);

main!(
    config = LibraryBenchmarkConfig::default().output_format(OutputFormat::default().truncate_description(None)),
    library_benchmark_groups = [frames, control, chunks]
);
