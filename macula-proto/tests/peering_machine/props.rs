//! Properties of frames: what is written is read, what is changed does not verify, and nothing makes the decoder panic.

use bytes::{Bytes, BytesMut};
use macula_proto::{
    identity::{NodeId, PublicKey},
    peering::{Event, Role},
    wire::{
        DecodeLimits, Value,
        frame::{
            Advertise, Block, Body, Call, CallError, CallResult, Cancel, Connect, DecodedFrame, DeliveredVia,
            ErrorCode, FindNode, FindValue, FoundValue, Frame, FrameId, FrameParser, Goodbye, Have, HaveBlock, Header,
            Hello, HyparviewDisconnect, HyparviewForwardJoin, HyparviewJoin, HyparviewNeighbor, HyparviewShuffle,
            HyparviewShuffleReply, Id16, Id32, Manifest, ManifestReq, ManifestRes, Map, Mcid, NeighborPriority, Nodes,
            Ping, PlumtreeGossip, PlumtreeGraft, PlumtreeIhave, PlumtreePrune, Pong, Priority, Publish, Replicate,
            ReplicateAck, Signature, StationRef, Store, StoreAck, StreamData, StreamEncoding, StreamEnd, StreamError,
            StreamMode, StreamOpen, StreamReply, StreamRole, Subscribe, SwimAck, SwimConfirm, SwimPing, SwimState,
            SwimSuspect, SwimUpdate, Text, TopicEvent, Unadvertise, Unknown, Unsubscribe, Want, WantBlock,
        },
    },
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::{config, connected, feed, node, start};

fn id16() -> impl Strategy<Value = Id16> {
    any::<[u8; 16]>().prop_map(Id16)
}

fn id32() -> impl Strategy<Value = Id32> {
    any::<[u8; 32]>().prop_map(Id32)
}

fn node_id() -> impl Strategy<Value = NodeId> {
    any::<[u8; 32]>().prop_map(NodeId::from_bytes)
}

fn mcid() -> impl Strategy<Value = Mcid> {
    (any::<[u8; 32]>(), any::<[u8; 2]>()).prop_map(|(long, short)| {
        let mut id = [0; 34];
        id[..2].copy_from_slice(&short);
        id[2..].copy_from_slice(&long);
        Mcid(id)
    })
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..700).prop_map(Bytes::from)
}

fn short_bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

/// Text that need not be UTF-8, and is not the one that deployed peers take for null.
fn text() -> impl Strategy<Value = Text> {
    let undefined = |text: &Text| *text != "undefined";
    short_bytes()
        .prop_map(Text::from_bytes)
        .prop_filter("undefined", undefined)
}

/// A value that a frame can carry, in the form in which it is read back.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<u64>().prop_map(Value::Uint),
        bytes().prop_map(Value::Bytes),
        text().prop_map(|text| Value::Text(Bytes::copy_from_slice(text.as_bytes()))),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            entries(inner).prop_map(Value::Map),
        ]
    })
}

/// Entries of a map in canonical order.
fn entries(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Vec<(Value, Value)>> {
    let keyed = proptest::collection::btree_map("[a-z]{0,30}".prop_map(|key| (key.len(), key)), value, 0..6);
    keyed.prop_map(|map| {
        map.into_iter()
            .map(|((_, key), value)| (Value::text(key), value))
            .collect()
    })
}

fn map() -> impl Strategy<Value = Map> {
    entries(any_value()).prop_map(Map)
}

fn update() -> impl Strategy<Value = SwimUpdate> {
    let state = select(SwimState::ALL);
    let signature = option::of((any::<[u8; 32]>(), any::<[u8; 32]>()));
    (node_id(), state, any::<u64>(), any::<u64>(), node_id(), signature).prop_map(
        |(target, state, incarnation, observed_at, by, signature)| SwimUpdate {
            target,
            state,
            incarnation,
            observed_at,
            by,
            signature: signature.map(|(a, b)| Signature([a, b].concat().try_into().expect("64 bytes"))),
            extra: Vec::new(),
        },
    )
}

fn station() -> impl Strategy<Value = StationRef> {
    let ids = (node_id(), node_id(), vec(map(), 0..3));
    (ids, any::<u8>(), any::<Option<u64>>(), any::<[u8; 2]>(), any::<u64>()).prop_map(
        |((node_id, station_id, addresses), tier, asn, country, last_seen_at)| StationRef {
            node_id,
            station_id,
            addresses,
            tier,
            asn,
            country,
            last_seen_at,
            extra: vec![(Value::text("later"), Value::Uint(1))],
        },
    )
}

fn want_block() -> impl Strategy<Value = WantBlock> {
    (mcid(), any::<u8>()).prop_map(|(mcid, priority)| WantBlock {
        mcid,
        priority: Priority(priority),
        extra: Vec::new(),
    })
}

fn have_block() -> impl Strategy<Value = HaveBlock> {
    (mcid(), any::<u64>()).prop_map(|(mcid, size)| HaveBlock {
        mcid,
        size,
        extra: Vec::new(),
    })
}

fn manifest() -> impl Strategy<Value = Manifest> {
    prop_oneof![Just(Manifest::NotFound), map().prop_map(Manifest::Found)]
}

/// One strategy per type of frame, out of strategies for its fields, and one for all of them.
macro_rules! bodies {
    ($($function:ident $name:ident {$($field:ident: $strategy:expr),*})+) => {
        mod of_type {
            #[allow(clippy::wildcard_imports, reason = "the strategies of this file")]
            use super::*;

            $(prop_compose! {
                pub(super) fn $function()($($field in $strategy),*) -> Body {
                    Body::$name($name { $($field),* })
                }
            })+
        }

        /// A frame's body of any known type, each of them alike often.
        fn known_body() -> BoxedStrategy<Body> {
            let all = vec![$(of_type::$function().boxed()),+];
            assert_eq!(all.len(), Body::TYPES.len(), "a strategy for every type");
            proptest::strategy::Union::new(all).boxed()
        }
    };
}

bodies! {
    connect Connect {node_id: node_id(), station_id: node_id(), realms: vec(id32(), 0..3), addresses: vec(map(), 0..3), site: option::of(map()), puzzle_evidence: any::<[u8; 32]>(), endorsements: vec(map(), 0..3)}
    hello Hello {node_id: node_id(), station_id: node_id(), realms: vec(id32(), 0..3), addresses: vec(map(), 0..3), site: option::of(map()), accepted: any::<bool>(), refusal_code: any::<Option<u64>>(), negotiated_capabilities: any::<u64>()}
    goodbye Goodbye {reason: text(), detail: option::of(bytes())}
    swim_ping SwimPing {round: any::<u64>(), incarnation: any::<u64>(), piggyback: vec(update(), 0..3)}
    swim_ack SwimAck {round: any::<u64>(), responder: node_id(), incarnation: any::<u64>(), piggyback: vec(update(), 0..3)}
    swim_suspect SwimSuspect {target: node_id(), target_incarnation: any::<u64>(), suspected_by: node_id(), ttl: any::<u64>()}
    swim_confirm SwimConfirm {target: node_id(), target_incarnation: any::<u64>(), suspected_by: node_id(), ttl: any::<u64>()}
    ping Ping {nonce: id16()}
    pong Pong {nonce: id16()}
    find_node FindNode {key: id32(), origin: node_id(), depth: any::<u64>()}
    nodes Nodes {key: id32(), nodes: vec(station(), 0..3)}
    find_value FindValue {key: id32(), origin: node_id()}
    value FoundValue {key: id32(), records: vec(bytes(), 0..3)}
    store Store {record: bytes()}
    store_ack StoreAck {key: id32(), stored: any::<bool>(), reason: option::of(text())}
    replicate Replicate {record: bytes(), new_custodian: any::<bool>()}
    replicate_ack ReplicateAck {key: id32(), accepted: any::<bool>()}
    call Call {call_id: id16(), procedure: bytes(), realm: id32(), payload: any_value(), deadline_ms: any::<u64>(), caller: node_id(), source_route: bytes(), retry_budget: any::<u64>()}
    result CallResult {call_id: id16(), payload: any_value(), responded_by: node_id(), source_route_reverse: bytes()}
    error CallError {call_id: id16(), code: any::<u8>().prop_map(ErrorCode), name: text(), reported_by: node_id(), detail: option::of(bytes()), offending_hop: option::of(node_id()), source_route_partial: bytes()}
    hyparview_join HyparviewJoin {realm: id32(), new_member: node_id()}
    hyparview_forward_join HyparviewForwardJoin {realm: id32(), new_member: node_id(), ttl: any::<u64>(), arwl: any::<u64>(), prwl: any::<u64>()}
    hyparview_neighbor HyparviewNeighbor {realm: id32(), priority: select(NeighborPriority::ALL)}
    hyparview_disconnect HyparviewDisconnect {realm: id32()}
    hyparview_shuffle HyparviewShuffle {realm: id32(), origin: node_id(), ttl: any::<u64>(), peer_sample: vec(node_id(), 0..3)}
    hyparview_shuffle_reply HyparviewShuffleReply {realm: id32(), peer_sample: vec(node_id(), 0..3)}
    plumtree_gossip PlumtreeGossip {realm: id32(), msg_id: id16(), round: any::<u64>(), payload: any_value()}
    plumtree_ihave PlumtreeIhave {realm: id32(), msg_id: id16(), round: any::<u64>()}
    plumtree_graft PlumtreeGraft {realm: id32(), msg_id: id16(), round: any::<u64>()}
    plumtree_prune PlumtreePrune {realm: id32()}
    publish Publish {topic: bytes(), realm: id32(), publisher: node_id(), seq: any::<u64>(), payload: any_value(), published_at_ms: any::<u64>(), ttl_ms: any::<Option<u64>>()}
    subscribe Subscribe {topic: bytes(), realm: id32(), subscriber: node_id(), filter: any_value(), options: map()}
    unsubscribe Unsubscribe {topic: bytes(), realm: id32(), subscriber: node_id()}
    event TopicEvent {topic: bytes(), realm: id32(), publisher: node_id(), seq: any::<u64>(), payload: any_value(), delivered_via: select(DeliveredVia::ALL)}
    advertise Advertise {realm: id32(), procedure: bytes(), advertiser: node_id(), options: map()}
    unadvertise Unadvertise {realm: id32(), procedure: bytes(), advertiser: node_id()}
    stream_open StreamOpen {stream_id: id16(), procedure: bytes(), realm: id32(), mode: select(StreamMode::ALL), args: any_value(), deadline_ms: any::<u64>(), caller: node_id(), source_route: bytes(), retry_budget: any::<u64>()}
    stream_data StreamData {stream_id: id16(), seq: any::<u64>(), encoding: select(StreamEncoding::ALL), body: any_value()}
    stream_end StreamEnd {stream_id: id16(), role: select(StreamRole::ALL)}
    stream_error StreamError {stream_id: id16(), code: bytes(), message: bytes()}
    stream_reply StreamReply {stream_id: id16(), payload: any_value(), responded_by: node_id()}
    want Want {blocks: vec(want_block(), 0..3)}
    have Have {blocks: vec(have_block(), 0..3)}
    block Block {mcid: mcid(), payload: bytes()}
    manifest_req ManifestReq {mcid: mcid()}
    manifest_res ManifestRes {mcid: mcid(), manifest: manifest()}
    cancel Cancel {blocks: vec(mcid(), 0..3)}
}

fn unknown_body() -> impl Strategy<Value = Body> {
    ("[a-z]{1,12}_", entries(any_value())).prop_map(|(frame_type, fields)| {
        Body::Unknown(Unknown {
            frame_type: Some(frame_type.into()),
            fields: prefixed("x_", fields),
            fault: None,
        })
    })
}

/// The entries with longer keys, so that they are those of no header and of no type.
fn prefixed(prefix: &str, entries: Vec<(Value, Value)>) -> Vec<(Value, Value)> {
    let name = |key: Value| Value::text(format!("{prefix}{}", key.as_text().expect("text")));
    entries.into_iter().map(|(key, value)| (name(key), value)).collect()
}

fn header() -> impl Strategy<Value = Header> {
    (any::<u64>(), any::<[u8; 16]>(), any::<u64>(), any::<u64>()).prop_map(|(version, id, sent_at_ms, capabilities)| {
        Header {
            version,
            frame_id: FrameId(id),
            sent_at_ms,
            capabilities,
        }
    })
}

fn frame() -> impl Strategy<Value = Frame> {
    let known = (known_body(), entries(any_value())).prop_map(|(body, extra)| (body, prefixed("later_", extra)));
    let unknown = unknown_body().prop_map(|body| (body, Vec::new()));
    (header(), prop_oneof![9 => known, 1 => unknown]).prop_map(|(header, (body, extra))| Frame { header, body, extra })
}

/// Without the nulls that every frame has for what its type does not use, as a frame that was read keeps them when its type
/// is not known.
fn comparable(mut frame: Frame) -> Frame {
    if let Body::Unknown(unknown) = &mut frame.body {
        unknown.fields.retain(|(_, value)| !value.is_null());
    }
    frame
}

fn key() -> PublicKey {
    PublicKey::new(&node(1).node_id()).expect("a key")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn frames_are_read_as_they_were_written(frame in frame()) {
        let raw = frame.sign(&node(1)).expect("encodes");
        let decoded = DecodedFrame::decode(raw.payload().clone(), &DecodeLimits::DEFAULT).expect("a frame");
        prop_assert_eq!(comparable(decoded.frame.clone()), comparable(frame.clone()));
        prop_assert_eq!(&decoded.raw, &raw);
        prop_assert_eq!(decoded.raw.verify(&key()), Ok(()));
        // Both ways to a signature give the same bytes, and so does what was read.
        prop_assert_eq!(&frame.encode_unsigned().expect("encodes").signed(&node(1)).expect("signs"), &raw);
        prop_assert_eq!(&decoded.frame.sign(&node(1)).expect("encodes"), &raw);
    }

    #[test]
    fn a_frame_that_was_changed_does_not_verify(frame in frame(), at: prop::sample::Index, flip in 1u8..=255) {
        let raw = frame.sign(&node(1)).expect("encodes");
        let mut bytes = raw.payload().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(decoded) = DecodedFrame::decode(bytes.into(), &DecodeLimits::DEFAULT) {
            prop_assert!(decoded.raw.verify(&key()).is_err());
        }
    }

    #[test]
    fn a_frame_that_lost_or_gained_bytes_does_not_verify(frame in frame(), at: prop::sample::Index, insert: Option<u8>) {
        let raw = frame.sign(&node(1)).expect("encodes");
        let mut bytes = raw.payload().to_vec();
        match insert {
            Some(byte) => bytes.insert(at.index(bytes.len() + 1), byte),
            None => drop(bytes.remove(at.index(bytes.len()))),
        }
        if let Ok(decoded) = DecodedFrame::decode(bytes.into(), &DecodeLimits::DEFAULT) {
            prop_assert!(decoded.raw.verify(&key()).is_err());
        }
    }

    #[test]
    fn every_field_is_covered_by_the_signature(frame in frame(), at: prop::sample::Index, other in any_value()) {
        let raw = frame.sign(&node(1)).expect("encodes");
        let mut fields = raw.fields(&DecodeLimits::DEFAULT);
        let at = at.index(fields.len());
        let old = std::mem::replace(&mut fields[at].1, other);
        prop_assume!(old != fields[at].1);
        let signature = raw.signature().expect("signed");
        fields.push((Value::text("signature"), Value::bytes(signature)));
        let mut out = BytesMut::new();
        macula_proto::wire::cbor::det::encode(&Value::Map(fields), &mut out).expect("encodes");
        let decoded = DecodedFrame::decode(out.freeze(), &DecodeLimits::DEFAULT).expect("a frame");
        prop_assert!(decoded.raw.verify(&key()).is_err());
    }

    #[test]
    fn no_bytes_make_the_parser_panic(pieces in vec(vec(any::<u8>(), 0..60), 0..20)) {
        let mut parser = FrameParser::default();
        let mut fed = 0;
        for piece in pieces {
            fed += piece.len();
            let mut piece = Bytes::from(piece);
            while parser.next(&mut piece).is_some() {}
            prop_assert!(parser.buffered() <= fed);
        }
    }

    #[test]
    fn no_payload_makes_the_decoder_panic(mut bytes in vec(any::<u8>(), 0..200), map: bool) {
        if let (true, Some(first)) = (map, bytes.first_mut()) {
            *first = 0xA0 | *first & 0x0F;
        }
        if let Ok(decoded) = DecodedFrame::decode(bytes.clone().into(), &DecodeLimits::DEFAULT) {
            prop_assert_eq!(decoded.raw.payload(), &bytes);
            // Whatever was read can be written again, unless it is what deployed peers would misread.
            let _ = decoded.frame.sign(&node(1));
        }
    }

    #[test]
    fn no_bytes_make_a_machine_panic(pieces in vec(vec(any::<u8>(), 0..60), 0..20), dialler: bool) {
        let now = start();
        let role = if dialler { Role::Dialler } else { Role::Acceptor };
        let mut peering = connected(role, config(role), now);
        for piece in pieces {
            feed(&mut peering, now, Event::Received(piece.into()));
        }
    }
}

/// Small items are what costs most: the caps bound what a frame of the greatest length can make of them.
#[test]
fn a_frame_of_small_items_is_refused_at_the_limit_of_items() {
    let limits = DecodeLimits::DEFAULT;
    let mut out = BytesMut::from(&[0xA1, 0x61, b'k', 0x9A][..]);
    let items: u32 = 0x00FF_0000;
    out.extend_from_slice(&items.to_be_bytes());
    out.resize(out.len() + items as usize, 0);
    let refused = DecodedFrame::decode(out.freeze(), &limits).expect_err("too many");
    assert!(refused.at <= limits.items + 16, "not read any further: {refused}");
}
