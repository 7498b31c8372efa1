//! The types of fields that frames share.

use std::fmt;

use bytes::Bytes;

use super::{
    encode::{Canonical, FrameEncodeError, Slot, rank, text},
    field::{Field, FieldFault, Fields, Map, Put, Taker, deeper, put_word},
    plan::SIGNATURE,
    raw::VerifyError,
};
use crate::{
    identity::{Domain, Identity, NodeId, PublicKey},
    wire::{
        DecodeLimits, EncodeError, Value,
        cbor::{
            Pen,
            det::{self, Item, Source},
        },
    },
};

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $length]);

        /// Hexadecimal digits, lower case.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl From<[u8; $length]> for $name {
            fn from(id: [u8; $length]) -> Self {
                Self(id)
            }
        }

        impl Put for $name {
            fn put(&self, out: &mut Pen<'_>, depth: usize) -> Result<(), FrameEncodeError> {
                self.0.put(out, depth)
            }
        }

        impl Field for $name {
            fn read(item: Item<'_>, source: Source<'_>) -> Result<Self, FieldFault> {
                Field::read(item, source).map(Self)
            }

            #[inline]
            fn scan(rest: &[u8], source: Source<'_>) -> Option<Self> {
                Field::scan(rest, source).map(Self)
            }
        }
    };
}

byte_id!(
    /// Names a frame: 16 bytes, a UUID of version 7 in frames of honest peers.
    FrameId,
    16
);
byte_id!(
    /// Names a call, a stream, a message or a ping: 16 bytes.
    Id16,
    16
);
byte_id!(
    /// A realm, or a key of the distributed hash table: 32 bytes.
    Id32,
    32
);
byte_id!(
    /// An Ed25519 signature: 64 bytes.
    Signature,
    64
);
byte_id!(
    /// Names a block or manifest of content: 34 bytes.
    Mcid,
    34
);

impl FrameId {
    /// The UUID of version 7 for this time in Unix milliseconds; `random` fills what the format leaves free.
    pub fn new(unix_ms: u64, random: [u8; 10]) -> Self {
        const FREE: u128 = (0xFFF << 64) | ((1 << 62) - 1);
        let time = u128::from(unix_ms & 0xFFFF_FFFF_FFFF) << 80;
        let random = random.iter().fold(0, |sum, &byte| sum << 8 | u128::from(byte));
        Self((time | 7 << 76 | 2 << 62 | random & FREE).to_be_bytes())
    }
}

macro_rules! texts {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// As it goes over the wire.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Put for $name {
            fn put(&self, out: &mut Pen<'_>, _: usize) -> Result<(), FrameEncodeError> {
                put_word(out, self.as_str());
                Ok(())
            }
        }

        impl Field for $name {
            fn read(item: Item<'_>, _: Source<'_>) -> Result<Self, FieldFault> {
                let Item::Text(text) = item else {
                    return Err(FieldFault::Type);
                };
                let found = Self::ALL.iter().find(|known| known.as_str().as_bytes() == text);
                found.copied().ok_or(FieldFault::Range)
            }
        }
    };
}

texts!(
    /// What a SWIM update says about a node.
    SwimState {
        /// It answers.
        Alive = "alive",
        /// It did not answer.
        Suspect = "suspect",
        /// It is held to be gone.
        ConfirmedFailed = "confirmed_failed",
    }
);
texts!(
    /// How urgently a node wants to be a HyParView neighbour.
    NeighborPriority {
        /// It has no other neighbour.
        High = "high",
        /// It has others.
        Low = "low",
    }
);
texts!(
    /// How an event reached its subscriber.
    DeliveredVia {
        /// Through the broadcast tree.
        Plumtree = "plumtree",
        /// Through the distributed hash table.
        Dht = "dht",
        /// From its publisher.
        Direct = "direct",
    }
);
texts!(
    /// Who sends data on a stream.
    StreamMode {
        /// The callee.
        ServerStream = "server_stream",
        /// The caller.
        ClientStream = "client_stream",
        /// Both.
        Bidi = "bidi",
    }
);
texts!(
    /// What the body of a stream's data is.
    StreamEncoding {
        /// A byte string.
        Raw = "raw",
        /// A value. (The name is historical: within a frame it is CBOR like everything else.)
        Msgpack = "msgpack",
    }
);
texts!(
    /// Which directions of a stream have ended.
    StreamRole {
        /// The sender's.
        Send = "send",
        /// Both.
        Both = "both",
    }
);

/// A map with fixed fields; what it has besides them is kept.
macro_rules! structure {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)+
            /// Fields that are not defined here, in the order of the wire.
            pub extra: Vec<(Value, Value)>,
        }

        impl $name {
            /// All entries, the fields first.
            fn entries(&self) -> Result<Vec<(&[u8], &dyn Put)>, FrameEncodeError> {
                let mut entries: Vec<(&[u8], &dyn Put)> =
                    vec![$((stringify!($field).as_bytes(), &self.$field as &dyn Put),)+];
                for (name, value) in &self.extra {
                    entries.push((text(name)?, value));
                }
                Ok(entries)
            }
        }

        impl Put for $name {
            fn put(&self, out: &mut Pen<'_>, depth: usize) -> Result<(), FrameEncodeError> {
                put_structure(self.entries()?, out, depth)
            }
        }

        impl Field for $name {
            fn read(item: Item<'_>, source: Source<'_>) -> Result<Self, FieldFault> {
                let Item::Map(entries) = item else {
                    return Err(FieldFault::Type);
                };
                let mut taker = Taker::new(source, 0);
                entries.entries().for_each(|(key, value)| taker.add(key, value));
                $(let $field = taker.take(stringify!($field), 0).map_err(|error| error.fault)?;)+
                Ok(Self { $($field,)+ extra: taker.rest() })
            }
        }
    };
}

fn put_structure(mut entries: Vec<(&[u8], &dyn Put)>, out: &mut Pen<'_>, depth: usize) -> Result<(), FrameEncodeError> {
    let depth = deeper(depth)?;
    entries.sort_by(|(a, _), (b, _)| rank(a).cmp(&rank(b)));
    if entries
        .windows(2)
        .any(|pair| matches!(pair, [(a, _), (b, _)] if a == b))
    {
        return Err(EncodeError::DuplicateKey.into());
    }
    out.map(entries.len());
    for (name, value) in entries {
        out.text(name);
        value.put(out, depth)?;
    }
    Ok(())
}

structure!(
    /// What one node says about another's state, signed by the node that says it.
    SwimUpdate {
        /// The node it is about.
        target: NodeId,
        /// Its state.
        state: SwimState,
        /// The count of its lives that this is about.
        incarnation: u64,
        /// When the state was observed, in Unix milliseconds.
        observed_at: u64,
        /// Who says so, and signs.
        by: NodeId,
        /// The signature of `by`, over this map without it. `None` until it is signed.
        signature: Option<Signature>,
    }
);
structure!(
    /// Where a node is.
    StationRef {
        /// The node.
        node_id: NodeId,
        /// The station it is at.
        station_id: NodeId,
        /// How to reach it.
        addresses: Vec<Map>,
        /// Its tier, 0 to 4.
        tier: u8,
        /// The number of its autonomous system.
        asn: Option<u64>,
        /// Its country, two letters.
        country: [u8; 2],
        /// When it was seen last, in Unix milliseconds.
        last_seen_at: u64,
    }
);
structure!(
    /// One block that is asked for.
    WantBlock {
        /// The block.
        mcid: Mcid,
        /// How urgent it is, 0 to 255. Default 128.
        priority: Priority,
    }
);
structure!(
    /// One block that can be had.
    HaveBlock {
        /// The block.
        mcid: Mcid,
        /// Its size in bytes.
        size: u64,
    }
);

impl SwimUpdate {
    /// Signs the update as `identity`, which has to be the node in `by`.
    ///
    /// # Errors
    /// [`FrameEncodeError`] if `extra` holds what cannot be written.
    pub fn sign(&mut self, identity: &Identity) -> Result<(), FrameEncodeError> {
        let (_, _, signature) = self.canonical(Slot::None)?.sign(Domain::SwimUpdate, identity);
        self.signature = Some(Signature(signature));
        Ok(())
    }

    /// Checks the signature under the node in `by`.
    ///
    /// # Errors
    /// [`VerifyError`]; an update that could not be written again is one with a bad signature.
    pub fn verify(&self) -> Result<(), VerifyError> {
        let signature = self.signature.ok_or(VerifyError::Unsigned)?;
        let key = PublicKey::new(&self.by).ok_or(VerifyError::Bad)?;
        let canonical = self.canonical(Slot::None).map_err(|_| VerifyError::Bad)?;
        let input = canonical.signing_input(Domain::SwimUpdate);
        key.verify_raw(&input, &signature.0).map_err(|_| VerifyError::Bad)
    }

    /// Reads a lone update: one canonical map, as it sits in a piggyback list.
    ///
    /// # Errors
    /// The fault of the first field that does not fit; [`FieldFault::Type`] for bytes that are no canonical map.
    pub fn decode(bytes: &Bytes, limits: &DecodeLimits) -> Result<Self, FieldFault> {
        Field::read(
            det::check(bytes, limits).map_err(|_| FieldFault::Type)?,
            Source::foreign(bytes),
        )
    }

    /// The update as one canonical map, as records and lone updates are stored.
    ///
    /// # Errors
    /// [`FrameEncodeError`] if `extra` holds what cannot be written.
    pub fn encode(&self) -> Result<Bytes, FrameEncodeError> {
        Ok(match self.signature {
            Some(signature) => self.canonical(Slot::Filled)?.with_signature(&signature.0),
            None => self.canonical(Slot::None)?.into_payload(),
        })
    }

    fn canonical(&self, slot: Slot) -> Result<Canonical, FrameEncodeError> {
        let mut entries = self.entries()?;
        entries.retain(|(name, _)| *name != SIGNATURE.as_bytes());
        Canonical::new(entries, slot)
    }
}

/// How urgent a block is: 0 to 255, and 128 where nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(pub u8);

impl Default for Priority {
    fn default() -> Self {
        Self(128)
    }
}

impl Put for Priority {
    fn put(&self, out: &mut Pen<'_>, depth: usize) -> Result<(), FrameEncodeError> {
        self.0.put(out, depth)
    }
}

impl Field for Priority {
    fn read(item: Item<'_>, source: Source<'_>) -> Result<Self, FieldFault> {
        Field::read(item, source).map(Self)
    }

    fn absent() -> Result<Self, FieldFault> {
        Ok(Self::default())
    }
}

/// The answer to a question for a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manifest {
    /// The manifest.
    Found(Map),
    /// The node does not have it; on the wire the text `not_found`.
    NotFound,
}

impl Put for Manifest {
    fn put(&self, out: &mut Pen<'_>, depth: usize) -> Result<(), FrameEncodeError> {
        match self {
            Self::Found(map) => map.put(out, depth),
            Self::NotFound => {
                put_word(out, "not_found");
                Ok(())
            }
        }
    }
}

impl Field for Manifest {
    fn read(item: Item<'_>, source: Source<'_>) -> Result<Self, FieldFault> {
        match item {
            Item::Map(_) => Field::read(item, source).map(Self::Found),
            Item::Text(b"not_found") => Ok(Self::NotFound),
            Item::Text(_) => Err(FieldFault::Range),
            _ => Err(FieldFault::Type),
        }
    }
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)+) => {
        impl ErrorCode {
            $($(#[$doc])* pub const $name: Self = Self($code);)+

            /// The name that deployed peers send along with the code; `None` from 16 on.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($text),)+
                    _ => None,
                }
            }
        }
    };
}

/// Why a call failed: 0 to 255. Only codes up to 15 have names, and no deployed peer sends others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode(pub u8);

error_codes! {
    /// No failure.
    OK = 0, "ok";
    /// The next hop is not known.
    UNKNOWN_NEXT_PEER = 1, "unknown_next_peer";
    /// A relay failed for the time being.
    TEMPORARY_RELAY_FAILURE = 2, "temporary_relay_failure";
    /// A relay does not relay.
    RELAY_DISABLED = 3, "relay_disabled";
    /// The relay of the target does not know it.
    NODE_NOT_FOUND_AT_TARGET_RELAY = 4, "node_not_found_at_target_relay";
    /// The target's realm refused.
    TARGET_REALM_REFUSED = 5, "target_realm_refused";
    /// The route is a circle.
    LOOP_DETECTED = 6, "loop_detected";
    /// The deadline is too close.
    EXPIRY_TOO_SOON = 7, "expiry_too_soon";
    /// Too much is under way.
    UPSTREAM_CONGESTION = 8, "upstream_congestion";
    /// The route cannot be read.
    INVALID_PATH_HEADER = 9, "invalid_path_header";
    /// The puzzle evidence is not good enough.
    CRYPTO_PUZZLE_INVALID = 10, "crypto_puzzle_invalid";
    /// This node does not speak for the realm.
    REALM_NOT_AUTHORITATIVE_HERE = 11, "realm_not_authoritative_here";
    /// The target was removed.
    TOMBSTONED = 12, "tombstoned";
    /// The payload is too large.
    PAYLOAD_TOO_LARGE = 13, "payload_too_large";
    /// A signature does not fit.
    SIGNATURE_INVALID = 14, "signature_invalid";
    /// Something else.
    UNKNOWN_ERROR = 15, "unknown_error";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Put for ErrorCode {
    fn put(&self, out: &mut Pen<'_>, depth: usize) -> Result<(), FrameEncodeError> {
        self.0.put(out, depth)
    }
}

impl Field for ErrorCode {
    fn read(item: Item<'_>, source: Source<'_>) -> Result<Self, FieldFault> {
        Field::read(item, source).map(Self)
    }
}
