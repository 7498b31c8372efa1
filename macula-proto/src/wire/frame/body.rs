//! Every type of frame, its name on the wire and its fields.

use bytes::Bytes;

use super::{
    Header,
    field::{FieldError, Fields, Map, Put, Taker, Text},
    laid::Laid,
    plan::{self, Plan},
    types::{
        DeliveredVia, ErrorCode, HaveBlock, Id16, Id32, Manifest, Mcid, NeighborPriority, StationRef, StreamEncoding,
        StreamMode, StreamRole, SwimUpdate, WantBlock,
    },
};
use crate::{
    identity::NodeId,
    wire::{DecodeLimits, Value},
};

macro_rules! frames {
    ($(
        $(#[$doc:meta])*
        $name:ident = $wire:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }
    )+) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Eq)]
            pub struct $name {
                $($(#[$field_doc])* pub $field: $type,)*
            }

            impl From<$name> for Body {
                fn from(body: $name) -> Self {
                    Self::$name(body)
                }
            }
        )+

        /// The fields of a frame, by its type.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Body {
            $($(#[$doc])* $name($name),)+
            /// A frame of a type that is not known here, or one that does not fit its type.
            Unknown(Unknown),
        }

        impl Body {
            /// The types that are known, as they are called on the wire.
            pub const TYPES: &[&str] = &[$($wire,)+];

            /// The name of the type as it goes over the wire; empty for an unknown frame that has none or one that is not
            /// UTF-8.
            pub fn frame_type(&self) -> &str {
                match self {
                    $(Self::$name(_) => $wire,)+
                    Self::Unknown(unknown) => unknown.frame_type.as_ref().and_then(Text::to_str).unwrap_or_default(),
                }
            }

            /// The position of the type in [`Body::TYPES`]; the number of types for an unknown one.
            pub fn type_index(&self) -> usize {
                let name = self.frame_type();
                match self {
                    Self::Unknown(_) => Self::TYPES.len(),
                    _ => Self::TYPES.iter().position(|known| *known == name).unwrap_or(Self::TYPES.len()),
                }
            }

            /// `None`: the type is not known.
            pub(super) fn read(frame_type: &[u8], fields: &mut Taker<'_>) -> Option<Result<Self, FieldError>> {
                $(if frame_type == $wire.as_bytes() {
                    return Some($name::read(fields).map(Self::$name));
                })+
                None
            }

            /// A frame that is laid out as its type, which is known, says.
            pub(super) fn read_laid(
                frame_type: &[u8],
                laid: &mut Laid<'_>,
                limits: &DecodeLimits,
            ) -> Option<(Header, Self)> {
                match frame_type {
                    $($name::TYPE => {
                        let header = laid.fill($name::PLAN, frame_type, limits)?;
                        let body = $name::read(laid).ok()?;
                        Some((header, Self::$name(body)))
                    })+
                    _ => None,
                }
            }

            /// The fields of a known type: how they are laid out, their names, and their values in the same order.
            pub(super) fn with_fields<'s, R>(
                &'s self,
                with: impl FnOnce(&'static Plan, &'static [&'static str], &[&'s dyn Put]) -> R,
            ) -> Option<R> {
                match self {
                    $(Self::$name(body) => Some(with($name::PLAN, $name::FIELDS, &body.fields())),)+
                    Self::Unknown(_) => None,
                }
            }
        }

        $(
            impl $name {
                const TYPE: &[u8] = $wire.as_bytes();
                const FIELDS: &[&str] = &[$(stringify!($field),)*];
                const PLAN: &Plan = &Plan::new(Self::FIELDS);

                fn read(fields: &mut impl Fields) -> Result<Self, FieldError> {
                    Ok(Self {
                        $($field: fields.take(
                            stringify!($field),
                            const { plan::position(Self::FIELDS, stringify!($field)) },
                        )?,)*
                    })
                }

                fn fields(&self) -> [&dyn Put; Self::FIELDS.len()] {
                    [$(&self.$field,)*]
                }
            }
        )+
    };
}

/// A frame of a type that is not known here, or one that does not fit its type, with all it had.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unknown {
    /// Its type, if it has one that is text.
    pub frame_type: Option<Text>,
    /// Its fields in the order of the wire, without its signature, its type, and what could be read into the
    /// [`Header`](super::Header). Written in place of a field of the header that has the same name.
    pub fields: Vec<(Value, Value)>,
    /// Why it does not fit its type; `None` when the type is not known. Means nothing when it is written.
    pub fault: Option<FieldError>,
}

impl From<Unknown> for Body {
    fn from(body: Unknown) -> Self {
        Self::Unknown(body)
    }
}

frames! {
    /// The first frame of a dialler: who it is.
    Connect = "connect" {
        /// Its node id, under which the frame is signed.
        node_id: NodeId,
        /// The station it is at; its own id where there is none.
        station_id: NodeId,
        /// The realms it belongs to.
        realms: Vec<Id32>,
        /// How to reach it.
        addresses: Vec<Map>,
        /// Where it is.
        site: Option<Map>,
        /// The SHA-256 of its node id.
        puzzle_evidence: [u8; 32],
        /// What others say about it.
        endorsements: Vec<Map>,
    }
    /// The answer to CONNECT: who the acceptor is, and whether it accepts.
    Hello = "hello" {
        /// Its node id, under which the frame is signed.
        node_id: NodeId,
        /// The station it is at; its own id where there is none.
        station_id: NodeId,
        /// The realms it belongs to.
        realms: Vec<Id32>,
        /// How to reach it.
        addresses: Vec<Map>,
        /// Where it is.
        site: Option<Map>,
        /// Whether the dialler may stay.
        accepted: bool,
        /// Why not.
        refusal_code: Option<u64>,
        /// What both can do. Deployed acceptors write what they can do themselves.
        negotiated_capabilities: u64,
    }
    /// The announcement of the end.
    Goodbye = "goodbye" {
        /// Why, in one word.
        reason: Text,
        /// More about it.
        detail: Option<Bytes>,
    }
    /// SWIM: are you alive?
    SwimPing = "swim_ping" {
        /// The round.
        round: u64,
        /// The sender's incarnation.
        incarnation: u64,
        /// News about others.
        piggyback: Vec<SwimUpdate>,
    }
    /// SWIM: I am.
    SwimAck = "swim_ack" {
        /// The round of the ping.
        round: u64,
        /// Who answers.
        responder: NodeId,
        /// Its incarnation.
        incarnation: u64,
        /// News about others.
        piggyback: Vec<SwimUpdate>,
    }
    /// SWIM: a node does not answer.
    SwimSuspect = "swim_suspect" {
        /// The node.
        target: NodeId,
        /// Its incarnation.
        target_incarnation: u64,
        /// Who suspects it.
        suspected_by: NodeId,
        /// How many more hops the news goes.
        ttl: u64,
    }
    /// SWIM: a node is gone.
    SwimConfirm = "swim_confirm" {
        /// The node.
        target: NodeId,
        /// Its incarnation.
        target_incarnation: u64,
        /// Who suspected it.
        suspected_by: NodeId,
        /// How many more hops the news goes.
        ttl: u64,
    }
    /// DHT: are you there?
    Ping = "ping" {
        /// To come back in the answer.
        nonce: Id16,
    }
    /// DHT: I am.
    Pong = "pong" {
        /// From the ping.
        nonce: Id16,
    }
    /// DHT: who is close to a key?
    FindNode = "find_node" {
        /// The key.
        key: Id32,
        /// Who asks.
        origin: NodeId,
        /// How many hops the question made.
        depth: u64,
    }
    /// DHT: these are close to the key.
    Nodes = "nodes" {
        /// The key.
        key: Id32,
        /// Who is close to it.
        nodes: Vec<StationRef>,
    }
    /// DHT: what is under a key?
    FindValue = "find_value" {
        /// The key.
        key: Id32,
        /// Who asks.
        origin: NodeId,
    }
    /// DHT: this is under the key.
    FoundValue = "value" {
        /// The key.
        key: Id32,
        /// Encoded records.
        records: Vec<Bytes>,
    }
    /// DHT: keep this.
    Store = "store" {
        /// An encoded record.
        record: Bytes,
    }
    /// DHT: whether it was kept.
    StoreAck = "store_ack" {
        /// The key of the record.
        key: Id32,
        /// Whether it was.
        stored: bool,
        /// Why not.
        reason: Option<Text>,
    }
    /// DHT: keep a copy of this.
    Replicate = "replicate" {
        /// An encoded record.
        record: Bytes,
        /// Whether the receiver takes it over.
        new_custodian: bool,
    }
    /// DHT: whether the copy was kept.
    ReplicateAck = "replicate_ack" {
        /// The key of the record.
        key: Id32,
        /// Whether it was.
        accepted: bool,
    }
    /// RPC: a call.
    Call = "call" {
        /// Names the call.
        call_id: Id16,
        /// What is called.
        procedure: Bytes,
        /// The realm it is in.
        realm: Id32,
        /// The arguments.
        payload: Value,
        /// When an answer is of no use any more, in Unix milliseconds.
        deadline_ms: u64,
        /// Who calls.
        caller: NodeId,
        /// The way the call shall take.
        source_route: Bytes,
        /// How often relays may try again.
        retry_budget: u64,
    }
    /// RPC: the result of a call.
    CallResult = "result" {
        /// Names the call.
        call_id: Id16,
        /// The result.
        payload: Value,
        /// Who answers.
        responded_by: NodeId,
        /// The way back.
        source_route_reverse: Bytes,
    }
    /// RPC: the failure of a call.
    CallError = "error" {
        /// Names the call.
        call_id: Id16,
        /// What failed.
        code: ErrorCode,
        /// The name of the code.
        name: Text,
        /// Who says so.
        reported_by: NodeId,
        /// More about it.
        detail: Option<Bytes>,
        /// Where it failed.
        offending_hop: Option<NodeId>,
        /// The way up to there.
        source_route_partial: Bytes,
    }
    /// HyParView: let me in.
    HyparviewJoin = "hyparview_join" {
        /// The realm.
        realm: Id32,
        /// Who wants in.
        new_member: NodeId,
    }
    /// HyParView: somebody wants in.
    HyparviewForwardJoin = "hyparview_forward_join" {
        /// The realm.
        realm: Id32,
        /// Who wants in.
        new_member: NodeId,
        /// How many more hops this goes.
        ttl: u64,
        /// Length of the random walk for active views.
        arwl: u64,
        /// Length of the random walk for passive views.
        prwl: u64,
    }
    /// HyParView: be my neighbour.
    HyparviewNeighbor = "hyparview_neighbor" {
        /// The realm.
        realm: Id32,
        /// How urgently.
        priority: NeighborPriority,
    }
    /// HyParView: no longer neighbours.
    HyparviewDisconnect = "hyparview_disconnect" {
        /// The realm.
        realm: Id32,
    }
    /// HyParView: some nodes I know.
    HyparviewShuffle = "hyparview_shuffle" {
        /// The realm.
        realm: Id32,
        /// Who started it.
        origin: NodeId,
        /// How many more hops this goes.
        ttl: u64,
        /// The nodes.
        peer_sample: Vec<NodeId>,
    }
    /// HyParView: some nodes in return.
    HyparviewShuffleReply = "hyparview_shuffle_reply" {
        /// The realm.
        realm: Id32,
        /// The nodes.
        peer_sample: Vec<NodeId>,
    }
    /// Plumtree: a message.
    PlumtreeGossip = "plumtree_gossip" {
        /// The realm.
        realm: Id32,
        /// Names the message.
        msg_id: Id16,
        /// How many hops it made.
        round: u64,
        /// The message.
        payload: Value,
    }
    /// Plumtree: I have this message.
    PlumtreeIhave = "plumtree_ihave" {
        /// The realm.
        realm: Id32,
        /// Names the message.
        msg_id: Id16,
        /// How many hops it made.
        round: u64,
    }
    /// Plumtree: send me this message, and further ones.
    PlumtreeGraft = "plumtree_graft" {
        /// The realm.
        realm: Id32,
        /// Names the message.
        msg_id: Id16,
        /// How many hops it made.
        round: u64,
    }
    /// Plumtree: send me no further messages.
    PlumtreePrune = "plumtree_prune" {
        /// The realm.
        realm: Id32,
    }
    /// Publish and subscribe: something happened.
    Publish = "publish" {
        /// The topic.
        topic: Bytes,
        /// The realm.
        realm: Id32,
        /// Who says so.
        publisher: NodeId,
        /// The publisher's count.
        seq: u64,
        /// What happened.
        payload: Value,
        /// When, in Unix milliseconds.
        published_at_ms: u64,
        /// For how long it is of interest, in milliseconds.
        ttl_ms: Option<u64>,
    }
    /// Publish and subscribe: tell me.
    Subscribe = "subscribe" {
        /// The topic.
        topic: Bytes,
        /// The realm.
        realm: Id32,
        /// Who wants to know.
        subscriber: NodeId,
        /// What exactly; null for everything.
        filter: Value,
        /// Options.
        options: Map,
    }
    /// Publish and subscribe: no longer tell me.
    Unsubscribe = "unsubscribe" {
        /// The topic.
        topic: Bytes,
        /// The realm.
        realm: Id32,
        /// Who wanted to know.
        subscriber: NodeId,
    }
    /// Publish and subscribe: something that happened, for a subscriber.
    TopicEvent = "event" {
        /// The topic.
        topic: Bytes,
        /// The realm.
        realm: Id32,
        /// Who says so.
        publisher: NodeId,
        /// The publisher's count.
        seq: u64,
        /// What happened.
        payload: Value,
        /// How it came here.
        delivered_via: DeliveredVia,
    }
    /// A procedure that can be called.
    Advertise = "advertise" {
        /// The realm.
        realm: Id32,
        /// The procedure.
        procedure: Bytes,
        /// Where.
        advertiser: NodeId,
        /// Options.
        options: Map,
    }
    /// A procedure that can no longer be called.
    Unadvertise = "unadvertise" {
        /// The realm.
        realm: Id32,
        /// The procedure.
        procedure: Bytes,
        /// Where.
        advertiser: NodeId,
    }
    /// Streams: open one.
    StreamOpen = "stream_open" {
        /// Names the stream.
        stream_id: Id16,
        /// What is called.
        procedure: Bytes,
        /// The realm it is in.
        realm: Id32,
        /// Who sends.
        mode: StreamMode,
        /// The arguments.
        args: Value,
        /// When it is of no use any more, in Unix milliseconds.
        deadline_ms: u64,
        /// Who calls.
        caller: NodeId,
        /// The way it shall take.
        source_route: Bytes,
        /// How often relays may try again.
        retry_budget: u64,
    }
    /// Streams: data.
    StreamData = "stream_data" {
        /// Names the stream.
        stream_id: Id16,
        /// The sender's count.
        seq: u64,
        /// What the body is.
        encoding: StreamEncoding,
        /// The data.
        body: Value,
    }
    /// Streams: the end.
    StreamEnd = "stream_end" {
        /// Names the stream.
        stream_id: Id16,
        /// Of which directions.
        role: StreamRole,
    }
    /// Streams: a failure.
    StreamError = "stream_error" {
        /// Names the stream.
        stream_id: Id16,
        /// What failed, in one word.
        code: Bytes,
        /// More about it.
        message: Bytes,
    }
    /// Streams: the result.
    StreamReply = "stream_reply" {
        /// Names the stream.
        stream_id: Id16,
        /// The result.
        payload: Value,
        /// Who answers.
        responded_by: NodeId,
    }
    /// Content: blocks that are asked for.
    Want = "want" {
        /// The blocks.
        blocks: Vec<WantBlock>,
    }
    /// Content: blocks that can be had.
    Have = "have" {
        /// The blocks.
        blocks: Vec<HaveBlock>,
    }
    /// Content: a block.
    Block = "block" {
        /// The block.
        mcid: Mcid,
        /// Its bytes.
        payload: Bytes,
    }
    /// Content: what is this made of?
    ManifestReq = "manifest_req" {
        /// The content.
        mcid: Mcid,
    }
    /// Content: it is made of this.
    ManifestRes = "manifest_res" {
        /// The content.
        mcid: Mcid,
        /// Its manifest.
        manifest: Manifest,
    }
    /// Content: blocks that are no longer asked for.
    Cancel = "cancel" {
        /// The blocks.
        blocks: Vec<Mcid>,
    }
}
