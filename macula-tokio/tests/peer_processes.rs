//! Peers in processes of their own: many frames, sudden deaths, crowds.

#![cfg(unix)]

mod command;

use std::{
    fs,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use command::{Macula, text};
use macula_proto::{
    identity::Identity,
    peering::{EndReason, PeeringConfig},
    wire::frame::{Body, Id16, Ping},
};
use macula_tokio::{
    DialConfig, Endpoint, Options, Peer, PeerConnectError, alpn,
    key_file::{self, Existing},
    tls::{ClientTls, Pin, Trust},
};
use tokio::{io::AsyncWriteExt as _, task::JoinSet};

/// For a whole test; only a hang reaches it.
const LONG: Duration = Duration::from_secs(150);

/// A listening process, how to reach it, and its node id.
struct Listener {
    process: Macula,
    at: String,
    pin: String,
    node_id: String,
}

impl Listener {
    fn start(options: &str) -> Self {
        let process = Macula::start(&format!("peer listen --self-signed --listen 127.0.0.1:0 {options}"));
        Self {
            node_id: text(&process.wait("identity"), "node_id").to_owned(),
            pin: text(&process.wait("certificate"), "pin").to_owned(),
            at: text(&process.wait("listening"), "addr").to_owned(),
            process,
        }
    }

    fn dialled(&self, options: &str) -> Macula {
        let (at, pin) = (&self.at, &self.pin);
        Macula::start(&format!("peer connect {at} --pin {pin} {options}"))
    }

    fn address(&self) -> SocketAddr {
        self.at.parse().expect("an address")
    }

    fn stop(self) {
        self.process.signal("TERM");
        assert_eq!(self.process.end(), Some(0));
    }
}

/// An endpoint of this process that dials.
fn dialler(listener: &Listener) -> (Endpoint, DialConfig) {
    let endpoint = Endpoint::bind("127.0.0.1:0".parse().unwrap(), Options::default()).unwrap();
    let pin: Pin = listener.pin.parse().unwrap();
    let tls = ClientTls::new(Trust::Pins(vec![pin])).alpn([alpn::MACULA]);
    let dial = DialConfig::new(tls.build(endpoint.clock()).unwrap());
    (endpoint, dial)
}

/// `count` frames in order, all signed by the peer.
fn count_frames(process: &Macula, count: u64) {
    for seq in 0..count {
        let frame = process.next();
        let fields = (&frame["event"], &frame["type"], &frame["seq"], &frame["verify"]);
        assert_eq!(
            fields,
            (&"frame".into(), &"publish".into(), &seq.into(), &"verified".into())
        );
    }
}

#[test]
fn a_hundred_thousand_frames_go_each_way_in_order_and_goodbye_ends_it() {
    const COUNT: u64 = 100_000;
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, seed: u8| {
        let path = directory.path().join(name);
        key_file::store(&path, &Identity::from_seed(&[seed; 32]), Existing::Keep).unwrap();
        path.display().to_string()
    };
    let id = |seed: u8| Identity::from_seed(&[seed; 32]).node_id().to_string();
    let started = Instant::now();
    let listener = Listener::start(&format!("--echo --identity {}", file("alice.key", 1)));
    assert_eq!(listener.node_id, id(1));
    let options = format!(
        "--identity {} --expect {} --count {COUNT} --binding require",
        file("bob.key", 2),
        id(1)
    );
    let dialled = listener.dialled(&options);
    let (near, far) = (dialled.wait("connected"), listener.process.wait("connected"));
    assert_eq!((text(&near, "peer"), text(&far, "peer")), (&*id(1), &*id(2)));
    assert_eq!((&near["bound"], &far["bound"]), (&true.into(), &true.into()));
    count_frames(&dialled, COUNT);
    let over = dialled.next();
    assert_eq!(over["event"], "disconnected", "{over}");
    let good = ["drained", "peer_closed_during_drain"];
    assert!(good.contains(&text(&over, "reason")), "{over}");
    count_frames(&listener.process, COUNT);
    let (goodbye, over) = (listener.process.next(), listener.process.next());
    let fields = (&goodbye["event"], &goodbye["reason"]);
    assert_eq!(fields, (&"goodbye".into(), &"operator_stop".into()));
    let fields = (&over["event"], &over["reason"], &over["received"], &over["sent"]);
    let expected = (&"disconnected".into(), &"goodbye".into(), &COUNT.into(), &COUNT.into());
    assert_eq!(fields, expected);
    assert_eq!(dialled.end(), Some(0));
    listener.stop();
    assert!(started.elapsed() < LONG);
}

#[test]
fn a_killed_process_is_noticed_by_the_other_within_the_idle_time() {
    let bound = Duration::from_secs(10);
    let listener = Listener::start("--idle 2");
    let dialled = listener.dialled("--idle 300 --wait 10m");
    dialled.wait("connected");
    listener.process.wait("frame");
    let killed = Instant::now();
    listener.process.signal("KILL");
    let over = dialled.wait("disconnected");
    assert_eq!(text(&over, "reason"), "peer_closed");
    assert!(killed.elapsed() < bound, "{:?}", killed.elapsed());
    let error = dialled.wait("error");
    assert_eq!(text(&error, "kind"), "disconnected");
    assert_eq!(dialled.end(), Some(1));

    let listener = Listener::start("");
    let dialled = listener.dialled("--idle 2 --wait 10m");
    let peer = listener.process.wait("connected");
    listener.process.wait("frame");
    let killed = Instant::now();
    dialled.signal("KILL");
    let over = listener.process.wait("disconnected");
    assert_eq!((&over["reason"], &over["peer"]), (&"peer_closed".into(), &peer["peer"]));
    assert!(killed.elapsed() < bound, "{:?}", killed.elapsed());
    listener.stop();
}

fn ping(number: u8) -> Body {
    Body::Ping(Ping {
        nonce: Id16([number; 16]),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_dials_of_one_identity_leave_one() {
    const DIALS: usize = 500;
    const AT_ONCE: usize = 32;
    let listener = Listener::start("--echo");
    let (endpoint, dial) = dialler(&listener);
    let config = PeeringConfig::new(Arc::new(Identity::from_seed(&[7; 32])));
    let remote = listener.address();
    let crowd = async {
        let mut dials = JoinSet::new();
        let mut dialled = Vec::new();
        for _ in 0..DIALS {
            if dials.len() == AT_ONCE {
                dialled.extend(dials.join_next().await);
            }
            let (endpoint, dial, config) = (endpoint.clone(), dial.clone(), config.clone());
            dials.spawn(async move { endpoint.connect_peer(&dial, remote, "localhost", config).await });
        }
        while let Some(next) = dials.join_next().await {
            dialled.push(next);
        }
        let mut peers: Vec<Peer> = Vec::new();
        for dialled in dialled {
            match dialled.unwrap() {
                Ok(peer) => peers.push(peer),
                // The next one of the crowd came before its HELLO had left.
                Err(PeerConnectError::Ended(end)) => assert_eq!(end.reason, EndReason::ClosedDuringHandshake),
                Err(error) => panic!("{error}"),
            }
        }
        let mut ends = JoinSet::new();
        for (number, peer) in peers.iter().cloned().enumerate() {
            ends.spawn(async move { (number, peer.recv().await.map(drop)) });
        }
        let mut left: Vec<bool> = vec![true; peers.len()];
        for _ in 1..peers.len() {
            let (number, end) = ends.join_next().await.unwrap().unwrap();
            assert_eq!(end.unwrap_err().reason, EndReason::PeerClosed);
            left[number] = false;
        }
        let last = &peers[left.iter().position(|left| *left).unwrap()];
        ends.abort_all();
        last.send(ping(1)).await.unwrap();
        assert_eq!(last.recv().await.unwrap().decoded.frame.body, ping(1));
        last.close("operator_stop").await
    };
    let end = tokio::time::timeout(LONG, crowd).await.expect("in time");
    assert!(end.reason.is_good(), "{end}");
    let mut displaced = 0;
    for _ in 0..DIALS {
        let over = listener.process.wait("disconnected");
        displaced += usize::from(over["message"] == "aborted(displaced)");
    }
    assert_eq!(displaced, DIALS - 1);
    listener.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_half_open_handshakes_keep_no_good_one_out() {
    let listener = Listener::start("--max-handshakes 100 --quiet");
    let (endpoint, dial) = dialler(&listener);
    let remote = listener.address();
    let mut half_open = Vec::new();
    let crowd = async {
        for group in 0..20 {
            let dials: JoinSet<_> = (0..50)
                .map(|_| {
                    let (endpoint, dial) = (endpoint.clone(), dial.clone());
                    async move { endpoint.connect(&dial, remote, "localhost").await.unwrap() }
                })
                .collect();
            for connection in dials.join_all().await {
                // One half says nothing at all, the other the beginning of a frame.
                let stream = match group % 2 {
                    0 => None,
                    _ => {
                        // It may have been displaced already.
                        let stream = connection.open_bi().await.ok();
                        match stream {
                            Some(mut stream) => stream.write_all(&[0, 0, 1]).await.is_ok().then_some(stream),
                            None => None,
                        }
                    }
                };
                half_open.push((connection, stream));
            }
        }
    };
    tokio::time::timeout(LONG, crowd).await.expect("in time");
    assert_eq!(half_open.len(), 1000);
    let open = half_open
        .iter()
        .filter(|(connection, _)| connection.close_reason().is_none());
    assert!(open.count() >= 100, "the listener is crowded");
    let dialled = listener.dialled("--count 5 --wait 0 --timeout 10");
    assert_eq!(text(&dialled.wait("connected"), "peer"), listener.node_id);
    assert_eq!(dialled.end(), Some(0));
    assert_eq!(listener.process.wait("disconnected")["received"], 5);
    listener.stop();
}

#[test]
fn lines_are_sent_and_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lines");
    fs::write(&path, "one\ntwo\nthree\n").unwrap();
    let listener = Listener::start("--echo");
    let dialled = listener.dialled(&format!("--send {}", path.display()));
    count_frames_behind_connected(&dialled, 3);
    assert_eq!(dialled.end(), Some(0));
    let mut dialled = listener.dialled("--send - --count 2");
    dialled.type_in("one\ntwo\nthree\n");
    count_frames_behind_connected(&dialled, 2);
    assert_eq!(dialled.end(), Some(0));
    listener.stop();
}

fn count_frames_behind_connected(process: &Macula, count: u64) {
    process.wait("connected");
    count_frames(process, count);
    assert_eq!(process.next()["received"], count);
}

#[test]
fn refusals_are_told_and_exit_with_1() {
    let stranger = "--identity /nonexistent/node.key --count 0";
    let listener = Listener::start("--echo");
    for (options, kind, reason) in [
        (
            format!("--expect {}", "00".repeat(32)),
            "connect",
            Some("hello_verify_failed"),
        ),
        ("--puzzle 60".to_owned(), "connect", Some("hello_verify_failed")),
        (stranger.to_owned(), "key", None),
        ("--send /nonexistent/lines".to_owned(), "input", None),
    ] {
        let dialled = listener.dialled(&options);
        if let Some(reason) = reason {
            assert_eq!(text(&dialled.wait("disconnected"), "reason"), reason, "{options}");
        }
        assert_eq!(text(&dialled.wait("error"), "kind"), kind, "{options}");
        assert_eq!(dialled.end(), Some(1), "{options}");
    }
    let wrong = Macula::start(&format!("peer connect {} --pin {}", listener.at, "00".repeat(32)));
    let over = wrong.wait("disconnected");
    assert_eq!(
        (&over["reason"], &over["message"]),
        (&"connect_failed".into(), &"connect_failed(tls)".into())
    );
    assert_eq!(wrong.end(), Some(1));
    listener.stop();

    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("bob.key");
    let identity = Identity::from_seed(&[2; 32]);
    key_file::store(&key, &identity, Existing::Keep).unwrap();
    let as_bob = format!("--identity {} --count 0", key.display());
    let id = identity.node_id();
    let listener = Listener::start(&format!("--allow {id} --duplicates keep --binding require"));
    let first = listener.dialled(&format!("{as_bob} --wait 10m"));
    first.wait("connected");
    for (options, message) in [
        ("--count 0", "refused("),
        (&*as_bob, "refused("),
        (&*format!("{as_bob} --binding off"), "refused("),
    ] {
        let refused = listener.dialled(options);
        let over = refused.wait("disconnected");
        assert!(text(&over, "message").starts_with(message), "{options}: {over}");
        assert_eq!(refused.end(), Some(1), "{options}");
    }
    // The one that is in has noticed nothing, and leaves in good order when it is told to.
    first.signal("TERM");
    assert_eq!(text(&first.wait("disconnected"), "reason"), "peer_closed_during_drain");
    assert_eq!(first.end(), Some(0));
    assert_eq!(text(&listener.process.wait("goodbye"), "reason"), "operator_stop");
    // Nobody else was ever in.
    listener.stop();
}

#[test]
fn a_listener_that_stops_says_goodbye() {
    let listener = Listener::start("");
    let dialled = listener.dialled("--wait 10m");
    listener.process.wait("frame");
    listener.stop();
    assert_eq!(text(&dialled.wait("goodbye"), "reason"), "operator_stop");
    assert_eq!(text(&dialled.wait("disconnected"), "reason"), "goodbye");
    // All was sent.
    assert_eq!(dialled.end(), Some(0));
}

#[test]
fn nobody_there_is_a_time_out() {
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = nobody.local_addr().unwrap();
    let dialled = Macula::start(&format!("peer connect {at} --insecure --timeout 300ms"));
    assert_eq!(
        text(&dialled.wait("disconnected"), "message"),
        "connect_failed(timeout)"
    );
    assert_eq!(text(&dialled.wait("error"), "kind"), "timeout");
    assert_eq!(dialled.end(), Some(3));
}
