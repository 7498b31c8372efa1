//! CONNECT and HELLO: made, read, and judged.

use super::{
    BindingMode, HandshakeError, PeeringConfig, RealmRule, Refusal, Role,
    binding::{self, Checked},
    reason::BindingFault,
};
use crate::{
    Now,
    identity::{NodeId, PublicKey, puzzle},
    wire::{
        DecodeLimits, Value,
        frame::{
            Body, Connect, DecodedFrame, FieldError, FieldFault, Frame, FrameEncodeError, Header, Hello, Id32,
            RawFrame, VERSION, VerifyError,
        },
    },
};

/// Items of a CONNECT or HELLO. Honest ones have a few dozen.
pub(super) const LIMITS: DecodeLimits = DecodeLimits::DEFAULT.with_items(1 << 14);

/// The CONNECT of this node.
pub(super) fn connect(
    config: &PeeringConfig,
    header: Header,
    exporter: Option<&[u8; 32]>,
) -> Result<RawFrame, FrameEncodeError> {
    let body = Connect {
        node_id: config.identity.node_id(),
        station_id: config.station_id,
        realms: config.realms.clone(),
        addresses: config.addresses.clone(),
        site: config.site.clone(),
        puzzle_evidence: config.identity.puzzle_evidence(),
        endorsements: config.endorsements.clone(),
    };
    signed(config, header, body.into(), Role::Dialler, exporter)
}

/// The HELLO of this node, an accepting one without `refusal`.
pub(super) fn hello(
    config: &PeeringConfig,
    header: Header,
    negotiated: u64,
    refusal: Option<Refusal>,
    exporter: Option<&[u8; 32]>,
) -> Result<RawFrame, FrameEncodeError> {
    let body = Hello {
        node_id: config.identity.node_id(),
        station_id: config.station_id,
        realms: config.realms.clone(),
        addresses: config.addresses.clone(),
        site: config.site.clone(),
        accepted: refusal.is_none(),
        refusal_code: refusal.map(Refusal::hello_code),
        negotiated_capabilities: negotiated,
    };
    signed(config, header, body.into(), Role::Acceptor, exporter)
}

fn signed(
    config: &PeeringConfig,
    header: Header,
    body: Body,
    role: Role,
    exporter: Option<&[u8; 32]>,
) -> Result<RawFrame, FrameEncodeError> {
    let mut frame = Frame::new(header.with_capabilities(config.capabilities), body);
    if let (BindingMode::Send | BindingMode::Require, Some(exporter)) = (config.binding, exporter) {
        let binding = binding::sign(&config.identity, role, exporter);
        frame.extra.push((Value::text(binding::FIELD), Value::bytes(binding)));
    }
    frame.sign(&config.identity)
}

/// What a peer says about itself in a CONNECT or HELLO with a good signature.
///
/// Deployed peers check little in them, so only what is needed has to fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Introduction {
    pub(super) key: PublicKey,
    pub(super) node_id: NodeId,
    pub(super) station_id: NodeId,
    pub(super) capabilities: u64,
    realms: Vec<Id32>,
    sent_at_ms: Option<u64>,
    puzzle_evidence: Option<Value>,
    binding: Option<Value>,
    /// HELLO only.
    pub(super) answer: Answer,
}

/// What a HELLO answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) accepted: bool,
    pub(super) refusal_code: Option<u64>,
    pub(super) negotiated: Option<u64>,
}

impl Introduction {
    /// Reads a CONNECT or HELLO and checks its version and its signature under the id inside it.
    pub(super) fn read(decoded: &DecodedFrame) -> Result<Self, HandshakeError> {
        let fields = Fields(decoded.raw.fields(&LIMITS));
        let version = fields.uint("version");
        if version != Some(VERSION) {
            return Err(HandshakeError::Version(version));
        }
        let node_id = fields.id("node_id")?;
        let station_id = fields.id("station_id")?;
        let answer = Answer {
            accepted: match decoded.frame.frame_type() {
                "hello" => fields.truth("accepted")?,
                _ => false,
            },
            refusal_code: fields.uint("refusal_code"),
            negotiated: fields.uint("negotiated_capabilities"),
        };
        let key = PublicKey::new(&node_id).ok_or(HandshakeError::Key)?;
        decoded.raw.verify(&key).map_err(HandshakeError::Signature)?;
        let realms = fields.get("realms").and_then(Value::as_array).unwrap_or_default();
        let realm = |realm: &Value| realm.as_bytes()?.as_ref().try_into().ok().map(Id32);
        Ok(Self {
            key,
            node_id,
            station_id,
            capabilities: fields.uint("capabilities").unwrap_or_default(),
            realms: realms.iter().filter_map(realm).collect(),
            sent_at_ms: fields.uint("sent_at_ms"),
            puzzle_evidence: fields.get("puzzle_evidence").cloned(),
            binding: fields.get(binding::FIELD).filter(|value| !value.is_null()).cloned(),
            answer,
        })
    }

    /// Whether the peer sent a binding, as only peers do that lose nothing behind CONNECT or HELLO.
    pub(super) fn has_binding(&self) -> bool {
        self.binding.is_some()
    }

    /// Whether the puzzle evidence it shows, if any, is not that of its id.
    pub(super) fn shows_wrong_evidence(&self) -> bool {
        let shown = self.puzzle_evidence.as_ref();
        shown.is_some_and(|shown| {
            shown
                .as_bytes()
                .is_none_or(|shown| *shown != puzzle::evidence(&self.node_id)[..])
        })
    }

    /// Checks what the options ask for. `role` is the peer's.
    pub(super) fn check(
        &self,
        config: &PeeringConfig,
        now: Now,
        role: Role,
        exporter: Option<&[u8; 32]>,
    ) -> Result<Checked, HandshakeError> {
        if config.expected_peer.is_some_and(|expected| expected != self.node_id) && role == Role::Acceptor {
            return Err(HandshakeError::UnexpectedPeer(self.node_id));
        }
        let checked = binding::check(config.binding, &self.key, role, exporter, self.binding.as_ref())?;
        if config
            .puzzle_difficulty
            .is_some_and(|bits| !puzzle::solves(&self.node_id, bits))
        {
            return Err(HandshakeError::Puzzle);
        }
        if let Some(allowed) = config.clock_skew {
            let off = self.sent_at_ms.map(|sent| u128::from(sent.abs_diff(now.unix_ms)));
            if off.is_none_or(|off| off > allowed.as_millis()) {
                return Err(HandshakeError::ClockSkew);
            }
        }
        let shared = || self.realms.iter().any(|realm| config.realms.contains(realm));
        if config.realm_rule == RealmRule::Shared && !shared() {
            return Err(HandshakeError::Realm);
        }
        Ok(checked)
    }
}

/// The refusal that tells a dialler what an acceptor's options found; `None` where the peer is not told but closed on.
pub(super) fn refusal(error: HandshakeError) -> Option<Refusal> {
    match error {
        HandshakeError::Puzzle => Some(Refusal::Puzzle),
        HandshakeError::ClockSkew => Some(Refusal::ClockSkew),
        HandshakeError::Realm => Some(Refusal::Realm),
        HandshakeError::Binding(BindingFault::Missing) => Some(Refusal::Binding),
        _ => None,
    }
}

struct Fields(Vec<(Value, Value)>);

impl Fields {
    fn get(&self, name: &str) -> Option<&Value> {
        let named = |entry: &&(Value, Value)| entry.0.as_text() == Some(name);
        self.0.iter().find(named).map(|(_, value)| value)
    }

    fn uint(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            Value::Uint(value) => Some(*value),
            _ => None,
        }
    }

    fn id(&self, field: &'static str) -> Result<NodeId, HandshakeError> {
        let fault = |fault| HandshakeError::Field(FieldError { field, fault });
        let value = self.get(field).ok_or(fault(FieldFault::Missing))?;
        let bytes = value.as_bytes().ok_or(fault(FieldFault::Type))?;
        let id: [u8; NodeId::LENGTH] = bytes.as_ref().try_into().map_err(|_| fault(FieldFault::Length))?;
        Ok(NodeId::from_bytes(id))
    }

    fn truth(&self, field: &'static str) -> Result<bool, HandshakeError> {
        let fault = match self.get(field) {
            None => FieldFault::Missing,
            Some(value) => match value.as_text() {
                Some("true") => return Ok(true),
                Some("false") => return Ok(false),
                Some(_) => FieldFault::Range,
                None => FieldFault::Type,
            },
        };
        Err(HandshakeError::Field(FieldError { field, fault }))
    }
}

/// Whether the signature of a frame after the handshake is the peer's.
pub(super) fn verdict(raw: &RawFrame, key: &PublicKey) -> super::Verdict {
    match raw.verify(key) {
        Ok(()) => super::Verdict::Verified,
        Err(VerifyError::Bad) => super::Verdict::OtherSigner,
        Err(_) => super::Verdict::Unsigned,
    }
}
