//! The door beside a model of it that is too simple to be wrong. Connections and peers are chosen by their places among all that
//! there are, so that a failing history shrinks to a short one.

use std::collections::BTreeSet;

use macula_proto::{
    Code, Limits,
    identity::NodeId,
    peering::{Duplicates, Gate, GateAction, GateConfig, GateEvent, PeerConn, Refusal},
};
use proptest::{option, prelude::*, sample::select};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

const CONNS: u64 = 12;
const PEERS: u8 = 4;

fn peer(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

/// Connections in their handshake, in order of arrival, with whether they were refused; and those inside.
#[derive(Debug, Clone)]
struct Model {
    config: GateConfig,
    shut: bool,
    waiting: Vec<(PeerConn, bool)>,
    inside: Vec<(PeerConn, NodeId)>,
    /// What the last event asks for.
    actions: Vec<GateAction>,
}

impl Model {
    fn knows(&self, conn: PeerConn) -> bool {
        self.inside.iter().any(|(known, _)| *known == conn) || self.waiting.iter().any(|(known, _)| *known == conn)
    }

    fn arrived(&mut self, conn: PeerConn) {
        if self.knows(conn) {
            return;
        }
        while self.waiting.len() >= self.config.handshaking.max(1) {
            let (oldest, _) = self.waiting.remove(0);
            self.actions.push(GateAction::Close(oldest, Code::LIMIT));
        }
        self.waiting.push((conn, false));
    }

    fn identified(&mut self, conn: PeerConn, who: NodeId) {
        let Some(at) = self.waiting.iter().position(|known| *known == (conn, false)) else {
            return;
        };
        let mut twins: Vec<_> = self
            .inside
            .iter()
            .filter(|(_, id)| *id == who)
            .map(|(twin, _)| *twin)
            .collect();
        twins.sort();
        let replaces = !twins.is_empty() && self.config.duplicates == Duplicates::ReplaceOlder;
        let listed = self.config.allow_only.as_ref().is_none_or(|list| list.contains(&who));
        let why = match () {
            () if self.shut => Refusal::Shutdown,
            () if !listed => Refusal::NotAllowed,
            () if !twins.is_empty() && self.config.duplicates == Duplicates::KeepOlder => Refusal::Duplicate,
            () if !replaces && self.inside.len() >= self.config.connected => Refusal::Limit,
            () => {
                self.waiting.remove(at);
                if replaces {
                    self.inside.retain(|(_, id)| *id != who);
                    self.actions
                        .extend(twins.iter().map(|twin| GateAction::Close(*twin, Code::DISPLACED)));
                }
                self.inside.push((conn, who));
                return self.actions.push(GateAction::Admit(conn));
            }
        };
        self.waiting[at].1 = true;
        self.actions.push(GateAction::Refuse(conn, why));
    }
}

struct Door;

impl ReferenceStateMachine for Door {
    type State = Model;
    type Transition = GateEvent;

    fn init_state() -> BoxedStrategy<Model> {
        let mut config = GateConfig::new(&Limits::default());
        (config.handshaking, config.connected) = (3, 3);
        Just(Model {
            config,
            shut: false,
            waiting: Vec::new(),
            inside: Vec::new(),
            actions: Vec::new(),
        })
        .boxed()
    }

    fn transitions(_: &Model) -> BoxedStrategy<GateEvent> {
        let conn = || (0..CONNS).prop_map(PeerConn);
        let who = || (0..PEERS).prop_map(peer);
        let policy = || {
            select(vec![
                Duplicates::ReplaceOlder,
                Duplicates::KeepOlder,
                Duplicates::KeepBoth,
            ])
        };
        let list = || option::of(proptest::collection::btree_set(who(), 0..4));
        prop_oneof![
            10 => conn().prop_map(GateEvent::Arrived),
            12 => (conn(), who()).prop_map(|(conn, who)| GateEvent::Identified(conn, who)),
            6 => conn().prop_map(GateEvent::Gone),
            1 => list().prop_map(GateEvent::AllowOnly),
            2 => policy().prop_map(GateEvent::Duplicates),
            1 => Just(GateEvent::ShutDown),
            2 => (policy(), list(), 0..5_usize, 0..5_usize).prop_map(|(duplicates, allow_only, handshaking, connected)| {
                GateEvent::Open(GateConfig { duplicates, allow_only, handshaking, connected })
            }),
        ]
        .boxed()
    }

    fn apply(mut state: Model, event: &GateEvent) -> Model {
        state.actions.clear();
        match event {
            GateEvent::Arrived(conn) => state.arrived(*conn),
            GateEvent::Identified(conn, who) => state.identified(*conn, *who),
            GateEvent::Gone(conn) => {
                state.waiting.retain(|(known, _)| known != conn);
                state.inside.retain(|(known, _)| known != conn);
            }
            GateEvent::AllowOnly(list) => state.config.allow_only.clone_from(list),
            GateEvent::Duplicates(policy) => state.config.duplicates = *policy,
            GateEvent::ShutDown => state.shut = true,
            GateEvent::Open(config) => {
                state.config = config.clone();
                state.shut = false;
            }
        }
        state
    }
}

struct Beside;

impl StateMachineTest for Beside {
    type SystemUnderTest = Gate;
    type Reference = Door;

    fn init_test(model: &Model) -> Gate {
        Gate::new(model.config.clone())
    }

    fn apply(mut gate: Gate, model: &Model, event: GateEvent) -> Gate {
        let mut actions = Vec::new();
        gate.handle(event, &mut actions);
        assert_eq!(actions, model.actions);
        gate
    }

    fn check_invariants(gate: &Gate, model: &Model) {
        assert_eq!(
            (gate.handshaking(), gate.connected()),
            (model.waiting.len(), model.inside.len())
        );
        for number in 0..PEERS {
            let who = peer(number);
            let of_peer = |(conn, id): &(PeerConn, NodeId)| (*id == who).then_some(*conn);
            let known: BTreeSet<_> = model.inside.iter().filter_map(of_peer).collect();
            assert!(gate.connections_of(&who).eq(known));
        }
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_door_does_what_the_model_does(sequential 1..80 => Beside);
}
