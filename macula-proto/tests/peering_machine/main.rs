//! The peering machines without any socket.

mod end;
mod gate;
mod gate_model;
mod handshake;
mod link;
mod props;
mod show;
mod table;
mod table_cells;
mod traffic;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use macula_proto::{
    Now, Rng,
    identity::Identity,
    peering::{Action, Event, Peering, PeeringConfig, Role},
    wire::{
        DecodeLimits,
        frame::{Body, Connect, DecodedFrame, Frame, Goodbye, Header, Hello, Id16, Ping, RawFrame, Text},
    },
};

/// What both ends of a test's connection get from their TLS session.
const EXPORTER: [u8; 32] = [0xE0; 32];

/// Some moment to start from.
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant can come from nowhere else; only differences count"
)]
fn start() -> Now {
    Now::new(Instant::now(), 1_777_000_000_000)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Node number `byte`.
fn node(byte: u8) -> Arc<Identity> {
    Arc::new(Identity::from_seed(&[byte; 32]))
}

/// The dialler of every test is node 1, the acceptor node 2.
fn config(role: Role) -> PeeringConfig {
    PeeringConfig::new(node(match role {
        Role::Dialler => 1,
        Role::Acceptor => 2,
    }))
}

fn machine(role: Role, config: PeeringConfig) -> Peering {
    Peering::new(role, config, Rng::from_seed(role as u64))
}

fn header(now: Now) -> Header {
    Header::new(now, &mut Rng::from_seed(9))
}

fn feed(peering: &mut Peering, now: Now, event: Event) -> Vec<Action> {
    let mut actions = Vec::new();
    peering.handle(now, event, &mut actions);
    actions
}

/// Pulls all there is, in pieces of at most 100 bytes.
fn pull(peering: &mut Peering, actions: &mut Vec<Action>) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(piece) = peering.poll_output(100, actions) {
        assert!(!piece.is_empty() && piece.len() <= 100);
        out.extend_from_slice(&piece);
    }
    out
}

/// The frames in these bytes, which hold nothing but whole frames.
fn frames(mut bytes: &[u8]) -> Vec<DecodedFrame> {
    let mut frames = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let length = u32::from_be_bytes(*length) as usize;
        let (payload, rest) = rest.split_at(length);
        let decoded = DecodedFrame::decode(Bytes::copy_from_slice(payload), &DecodeLimits::DEFAULT);
        frames.push(decoded.expect("a frame"));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "{} bytes left", bytes.len());
    frames
}

fn goodbye(reason: &str) -> Body {
    Body::Goodbye(Goodbye {
        reason: Text::from(reason),
        detail: None,
    })
}

fn ping(byte: u8) -> Body {
    Body::Ping(Ping {
        nonce: Id16([byte; 16]),
    })
}

fn close() -> Event {
    Event::Close {
        reason: Text::from("operator_stop"),
        detail: None,
    }
}

/// This body as a frame signed by this node.
fn signed(body: Body, signer: u8, now: Now) -> RawFrame {
    Frame::new(header(now), body).sign(&node(signer)).expect("encodes")
}

fn received(raw: &RawFrame) -> Event {
    Event::Received(raw.to_wire())
}

/// The CONNECT body of a node.
fn connect_of(byte: u8) -> Connect {
    let identity = node(byte);
    Connect {
        node_id: identity.node_id(),
        station_id: identity.node_id(),
        realms: Vec::new(),
        addresses: Vec::new(),
        site: None,
        puzzle_evidence: identity.puzzle_evidence(),
        endorsements: Vec::new(),
    }
}

/// The accepting HELLO body of a node.
fn hello_of(byte: u8) -> Hello {
    let identity = node(byte);
    Hello {
        node_id: identity.node_id(),
        station_id: identity.node_id(),
        realms: Vec::new(),
        addresses: Vec::new(),
        site: None,
        accepted: true,
        refusal_code: None,
        negotiated_capabilities: 0,
    }
}

/// A machine whose handshake is complete, all it had to say pulled, its peer a deployed one that sends no binding.
fn connected(role: Role, config: PeeringConfig, now: Now) -> Peering {
    let mut peering = machine(role, config);
    let mut actions = feed(
        &mut peering,
        now,
        Event::Start {
            exporter: Some(EXPORTER),
        },
    );
    match role {
        Role::Dialler => {
            actions.extend(feed(&mut peering, now, Event::StreamOpened));
            pull(&mut peering, &mut actions);
            let hello = signed(hello_of(2).into(), 2, now);
            actions.extend(feed(&mut peering, now, received(&hello)));
        }
        Role::Acceptor => {
            let connect = signed(connect_of(1).into(), 1, now);
            actions.extend(feed(&mut peering, now, received(&connect)));
            actions.extend(feed(&mut peering, now, Event::Admit));
            pull(&mut peering, &mut actions);
            actions.extend(feed(&mut peering, now, Event::Flushed));
        }
    }
    assert!(peering.is_connected(), "{actions:?}");
    peering
}

/// Why a machine ended, if it did; never twice.
fn ended(actions: &[Action]) -> Option<String> {
    let mut ends = actions.iter().filter_map(|action| match action {
        Action::Ended { reason, .. } => Some(reason.to_string()),
        _ => None,
    });
    let end = ends.next();
    assert_eq!(ends.next(), None, "ended twice");
    end
}
