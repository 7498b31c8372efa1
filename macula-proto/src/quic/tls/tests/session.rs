//! Resumption, early data and the key log.

use std::sync::{Arc, Mutex};

use super::{Pair, client, clock, dial, node, server};
use crate::quic::tls::{ClientAuth, ClientCrypto, KeyLog, ServerCrypto, Trust};

const NAME: &str = "relay.example";

/// A second handshake, and whether the first packet could carry data and was taken.
fn again(dialling: &ClientCrypto, listening: &ServerCrypto) -> (Pair, bool, Option<bool>) {
    let mut pair = Pair::start(dialling, listening, NAME);
    // The keys of early data exist once the first message is written.
    super::carry(&mut pair.client, &mut pair.server, super::Side::Server).unwrap();
    let offered = pair.client.early_crypto().is_some();
    pair.run().unwrap();
    pair.assert_established();
    let accepted = pair.client_info().early_data_accepted;
    (pair, offered, accepted)
}

#[test]
fn early_data_needs_the_consent_of_both_ends() {
    for (ours, theirs) in [(true, true), (true, false), (false, true), (false, false)] {
        let listening = server(node(1)).early_data(theirs).build(&clock()).unwrap();
        let dialling = client(Trust::Pins(vec![node(1).pin()]))
            .early_data(ours)
            .build(&clock())
            .unwrap();
        dial(&dialling, &listening, NAME).unwrap();
        let (_, offered, accepted) = again(&dialling, &listening);
        assert_eq!(offered, ours && theirs, "client {ours}, server {theirs}");
        assert_eq!(accepted, Some(ours && theirs), "client {ours}, server {theirs}");
    }
}

#[test]
fn a_resumed_session_knows_both_peers() {
    let listening = server(node(1)).client_auth(ClientAuth::Request).early_data(true);
    let listening = listening.build(&clock()).unwrap();
    let trust = Trust::Pins(vec![node(1).pin()]);
    let dialling = client(trust).credentials(node(2)).early_data(true);
    let dialling = dialling.build(&clock()).unwrap();
    for round in 0..3 {
        let (pair, _, early) = again(&dialling, &listening);
        // Early data exists in resumed sessions only.
        assert_eq!(early, Some(round > 0));
        assert_eq!(pair.client_info().peer_pin, Some(node(1).pin()));
        assert_eq!(pair.server_info().peer_pin, Some(node(2).pin()));
    }
}

#[test]
fn without_remembered_sessions_early_data_is_impossible() {
    let full = client(Trust::Insecure);
    let listening = server(node(1)).early_data(true).build(&clock()).unwrap();
    let forgetful = server(node(1)).resumable_sessions(0).build(&clock()).unwrap();
    let eager = full.clone().early_data(true).build(&clock()).unwrap();
    dial(&eager, &forgetful, NAME).unwrap();
    assert!(!again(&eager, &forgetful).1);
    let patient = full.resumable_servers(0).build(&clock()).unwrap();
    dial(&patient, &listening, NAME).unwrap();
    assert!(!again(&patient, &listening).1);
}

#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<String>>);

impl KeyLog for Recorder {
    fn line(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
}

#[test]
fn both_ends_log_the_same_secrets_on_request() {
    let (ours, theirs) = (Arc::new(Recorder::default()), Arc::new(Recorder::default()));
    let listening = server(node(1)).key_log(theirs.clone()).build(&clock()).unwrap();
    let dialling = client(Trust::Insecure).key_log(ours.clone()).build(&clock()).unwrap();
    dial(&dialling, &listening, NAME).unwrap();
    let sorted = |recorder: &Recorder| {
        let mut lines = recorder.0.lock().unwrap().clone();
        lines.sort();
        lines
    };
    let lines = sorted(&ours);
    assert_eq!(lines, sorted(&theirs));
    for label in [
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        "CLIENT_TRAFFIC_SECRET_0",
        "SERVER_TRAFFIC_SECRET_0",
    ] {
        let line = lines
            .iter()
            .find(|line| line.starts_with(&format!("{label} ")))
            .unwrap();
        let parts: Vec<_> = line.split(' ').collect();
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[1].len(), 64);
        assert!(matches!(parts[2].len(), 64 | 96));
        assert!(
            parts[1..]
                .iter()
                .all(|part| part.bytes().all(|b| b.is_ascii_hexdigit()))
        );
    }
}
