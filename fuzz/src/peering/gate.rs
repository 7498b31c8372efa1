//! An acceptor's door, beside a model of it that is too simple to be wrong.

use std::collections::{BTreeMap, BTreeSet};

use arbitrary::{Arbitrary, Unstructured};
use macula_proto::{
    Code, Limits,
    identity::NodeId,
    peering::{Duplicates, Gate, GateAction, GateConfig, GateEvent, PeerConn, Refusal},
};

use crate::script::operations;

#[derive(Debug, Arbitrary)]
enum Op {
    Arrived(u8),
    Identified(u8, u8),
    Gone(u8),
    AllowOnly(Option<u8>),
    Duplicates(Policy),
    ShutDown,
    Open {
        handshaking: u8,
        connected: u8,
        policy: Policy,
    },
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Policy {
    ReplaceOlder,
    KeepOlder,
    KeepBoth,
}

impl From<Policy> for Duplicates {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::ReplaceOlder => Self::ReplaceOlder,
            Policy::KeepOlder => Self::KeepOlder,
            Policy::KeepBoth => Self::KeepBoth,
        }
    }
}

fn peer(number: u8) -> NodeId {
    NodeId::from_bytes([number % 8; 32])
}

/// What the door should know: connections in their handshake in order of arrival, and those inside.
struct Model {
    config: GateConfig,
    shut: bool,
    waiting: Vec<(PeerConn, bool)>,
    inside: BTreeMap<PeerConn, NodeId>,
}

impl Model {
    fn knows(&self, conn: PeerConn) -> bool {
        self.inside.contains_key(&conn) || self.waiting.iter().any(|(known, _)| *known == conn)
    }

    fn step(&mut self, event: &GateEvent) -> Vec<GateAction> {
        let mut actions = Vec::new();
        match event {
            GateEvent::Arrived(conn) if self.knows(*conn) => {}
            GateEvent::Arrived(conn) => {
                while self.waiting.len() >= self.config.handshaking.max(1) {
                    actions.push(GateAction::Close(self.waiting.remove(0).0, Code::LIMIT));
                }
                self.waiting.push((*conn, false));
            }
            GateEvent::Identified(conn, peer) => {
                let Some(at) = self.waiting.iter().position(|waiting| *waiting == (*conn, false)) else {
                    return actions;
                };
                let twins: Vec<_> = self
                    .inside
                    .iter()
                    .filter(|(_, other)| *other == peer)
                    .map(|(conn, _)| *conn)
                    .collect();
                let replaces = self.config.duplicates == Duplicates::ReplaceOlder && !twins.is_empty();
                let refusal = if self.shut {
                    Some(Refusal::Shutdown)
                } else if self.config.allow_only.as_ref().is_some_and(|list| !list.contains(peer)) {
                    Some(Refusal::NotAllowed)
                } else if !twins.is_empty() && self.config.duplicates == Duplicates::KeepOlder {
                    Some(Refusal::Duplicate)
                } else if !replaces && self.inside.len() >= self.config.connected {
                    Some(Refusal::Limit)
                } else {
                    None
                };
                if let Some(why) = refusal {
                    self.waiting[at].1 = true;
                    actions.push(GateAction::Refuse(*conn, why));
                    return actions;
                }
                self.waiting.remove(at);
                if replaces {
                    for twin in twins {
                        self.inside.remove(&twin);
                        actions.push(GateAction::Close(twin, Code::DISPLACED));
                    }
                }
                self.inside.insert(*conn, *peer);
                actions.push(GateAction::Admit(*conn));
            }
            GateEvent::Gone(conn) => {
                self.waiting.retain(|(known, _)| known != conn);
                self.inside.remove(conn);
            }
            GateEvent::AllowOnly(list) => self.config.allow_only = list.clone(),
            GateEvent::Duplicates(policy) => self.config.duplicates = *policy,
            GateEvent::ShutDown => self.shut = true,
            GateEvent::Open(config) => {
                self.config = config.clone();
                self.shut = false;
            }
        }
        actions
    }
}

/// The door does what the model does, its caps hold unless they were lowered, and when all are gone it is empty.
pub fn gate(data: &[u8]) {
    let mut config = GateConfig::new(&Limits::default());
    (config.handshaking, config.connected) = (3, 4);
    let mut gate = Gate::new(config.clone());
    let mut model = Model {
        config,
        shut: false,
        waiting: Vec::new(),
        inside: BTreeMap::new(),
    };
    for op in operations::<Op>(Unstructured::new(data), 400) {
        let event = match op {
            Op::Arrived(conn) => GateEvent::Arrived(PeerConn(conn.into())),
            Op::Identified(conn, number) => GateEvent::Identified(PeerConn(conn.into()), peer(number)),
            Op::Gone(conn) => GateEvent::Gone(PeerConn(conn.into())),
            Op::AllowOnly(list) => GateEvent::AllowOnly(list.map(|bits| {
                let listed = (0..8).filter(|number| bits & (1 << number) != 0);
                listed.map(peer).collect::<BTreeSet<_>>()
            })),
            Op::Duplicates(policy) => GateEvent::Duplicates(policy.into()),
            Op::ShutDown => GateEvent::ShutDown,
            Op::Open {
                handshaking,
                connected,
                policy,
            } => GateEvent::Open(GateConfig {
                duplicates: policy.into(),
                allow_only: None,
                handshaking: (handshaking % 8).into(),
                connected: (connected % 8).into(),
            }),
        };
        let (mut actions, inside) = (Vec::new(), gate.connected());
        gate.handle(event.clone(), &mut actions);
        assert_eq!(actions, model.step(&event), "{event:?}");
        assert_eq!(
            (gate.handshaking(), gate.connected()),
            (model.waiting.len(), model.inside.len())
        );
        assert!(
            gate.connected() <= model.config.connected.max(inside),
            "more than may be"
        );
        for number in 0..8 {
            let peer = peer(number);
            let known = model
                .inside
                .iter()
                .filter(|(_, other)| **other == peer)
                .map(|(conn, _)| *conn);
            assert!(gate.connections_of(&peer).eq(known));
        }
    }
    let all: Vec<_> = model
        .waiting
        .iter()
        .map(|(conn, _)| *conn)
        .chain(model.inside.into_keys())
        .collect();
    for conn in all {
        gate.handle(GateEvent::Gone(conn), &mut Vec::new());
    }
    assert_eq!((gate.handshaking(), gate.connected()), (0, 0));
    assert!(
        (0..8).all(|number| gate.connections_of(&peer(number)).next().is_none()),
        "something is left"
    );
}
