use std::{fs, path::Path};

use macula_proto::{
    Code,
    tunnel::{
        ConnKey,
        relay::{DefaultAccess, NodeLimits, Refusal, Takeover, TunnelBytes, TunnelKey},
    },
    wire::control::TunnelId,
};
use tokio::sync::mpsc::Sender;

use super::*;
use crate::cli::{
    admin::{AdminClient, Answer},
    backend::{NodeOptions, RelaySnapshot},
    events::tests::Recorder,
    memory::{Memory, MemoryNode, MemoryRelay},
    settings::Identity,
};

/// Hands out the relay that it makes, for the test to look into.
#[derive(Clone)]
struct Spy(mpsc::UnboundedSender<Arc<MemoryRelay>>);

#[derive(Debug)]
struct Shared(Arc<MemoryRelay>);

impl Backend for Spy {
    type Relay = Shared;
    type Node = MemoryNode;

    async fn relay(&self, options: RelayOptions) -> std::io::Result<Shared> {
        let relay = Arc::new(Memory::default().relay(options).await?);
        self.0.send(relay.clone()).unwrap();
        Ok(Shared(relay))
    }

    async fn node(&self, options: NodeOptions) -> std::io::Result<MemoryNode> {
        Memory::default().node(options).await
    }
}

impl RelayHandle for Shared {
    fn local_addr(&self) -> SocketAddr {
        self.0.local_addr()
    }

    async fn next_report(&self) -> Option<Report> {
        self.0.next_report().await
    }

    async fn snapshot(&self) -> RelaySnapshot {
        self.0.snapshot().await
    }

    fn set_access(&self, access: AccessRules) {
        self.0.set_access(access);
    }

    fn set_credentials(&self, credentials: macula_proto::quic::tls::Credentials) {
        self.0.set_credentials(credentials);
    }

    fn drain(&self) {
        self.0.drain();
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

struct World {
    relay: Arc<MemoryRelay>,
    recorder: Recorder,
    signal: Sender<Signal>,
    running: JoinHandle<Outcome>,
}

fn settings(directory: &Path) -> RelaySettings {
    RelaySettings {
        listen: HostPort::new("127.0.0.1", 4434),
        identity: Identity::SelfSigned,
        access: None,
        takeover: Takeover::Replace,
        admin: Admin::At(directory.join("relay.sock")),
        metrics: Some(HostPort::new("127.0.0.1", 0)),
        router: true,
        sockets: 1,
        spin: Duration::ZERO,
        node_limits: NodeLimits::default(),
        max_handshakes: 10,
        drain_timeout: Duration::from_millis(50),
    }
}

async fn world(settings: RelaySettings) -> World {
    let (found, mut relays) = mpsc::unbounded_channel();
    let (signal, mut signals) = Signals::by_hand();
    let recorder = Recorder::default();
    let events = recorder.events();
    let running = tokio::spawn(async move { run(&Spy(found), settings, &events, &mut signals).await });
    recorder.wait("listening").await;
    World {
        relay: relays.recv().await.unwrap(),
        recorder,
        signal,
        running,
    }
}

impl World {
    async fn end(self) -> Outcome {
        let within = tokio::time::timeout(Duration::from_secs(10), self.running).await;
        within.expect("an end").unwrap()
    }
}

#[tokio::test]
async fn it_tells_where_it_is_and_ends_on_a_signal() {
    let directory = tempfile::tempdir().unwrap();
    let world = world(settings(directory.path())).await;
    assert_eq!(world.recorder.wait("listening").await["addr"], "127.0.0.1:4434");
    assert_eq!(
        world.recorder.wait("certificate").await["pin"].as_str().unwrap().len(),
        64
    );
    let url = world.recorder.wait("metrics").await["url"].as_str().unwrap().to_owned();
    assert!(
        url.starts_with("http://127.0.0.1:") && url.ends_with("/metrics"),
        "{url}"
    );
    let socket = world.recorder.wait("admin").await["socket"]
        .as_str()
        .unwrap()
        .to_owned();
    let report = AdminClient::connect(Path::new(&socket))
        .await
        .unwrap()
        .status()
        .await
        .unwrap();
    assert_eq!(
        (report.listen, report.pin.len()),
        (vec!["127.0.0.1:4434".to_owned()], 64)
    );
    world.signal.send(Signal::Stop).await.unwrap();
    world.recorder.wait("draining").await;
    let relay = world.relay.clone();
    // Nobody ever says that it has drained: the time-out ends it.
    assert_eq!(world.end().await, Ok(()));
    assert!(relay.seen.lock().unwrap().closed);
    assert!(!Path::new(&socket).exists());
}

#[tokio::test]
async fn a_drain_through_the_socket_has_no_time_limit() {
    let directory = tempfile::tempdir().unwrap();
    let world = world(settings(directory.path())).await;
    let socket = world.recorder.wait("admin").await["socket"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut client = AdminClient::connect(Path::new(&socket)).await.unwrap();
    client.drain().await.unwrap();
    world.recorder.wait("draining").await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(!world.running.is_finished());
    world.relay.report.send(Report::Drained).unwrap();
    loop {
        match client.answer().await.unwrap() {
            Answer::Drained(drained) => break assert!(drained),
            answer => assert!(matches!(answer, Answer::Draining(_)), "{answer:?}"),
        }
    }
    assert_eq!(world.end().await, Ok(()));
}

#[tokio::test]
async fn files_are_read_again_and_broken_ones_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let first = tls::self_signed().unwrap();
    fs::write(path("cert"), first.to_pem()).unwrap();
    fs::write(path("access"), "default = 'closed'").unwrap();
    let world = world(RelaySettings {
        identity: Identity::Files {
            cert: path("cert"),
            key: path("cert"),
        },
        access: Some(path("access")),
        ..settings(directory.path())
    })
    .await;
    assert_eq!(world.recorder.wait("certificate").await["pin"], first.pin().to_string());
    world.recorder.clear();
    let second = tls::self_signed().unwrap();
    fs::write(path("cert"), second.to_pem()).unwrap();
    fs::write(path("access"), "default = 'ajar'").unwrap();
    world.signal.send(Signal::Reload).await.unwrap();
    assert_eq!(
        world.recorder.wait("certificate").await["pin"],
        second.pin().to_string()
    );
    assert!(
        world.relay.seen.lock().unwrap().access.is_none(),
        "the broken file changed nothing"
    );
    world.recorder.clear();
    fs::write(path("cert"), "junk").unwrap();
    fs::write(path("access"), "[names.a]\nmax-tunnels = 1").unwrap();
    world.signal.send(Signal::Reload).await.unwrap();
    assert_eq!(world.recorder.wait("reloaded").await["what"], "access");
    {
        let seen = world.relay.seen.lock().unwrap();
        assert_eq!(
            seen.access.as_ref().map(|access| access.default),
            Some(DefaultAccess::Open)
        );
        assert_eq!(seen.credentials.as_ref().map(|shown| shown.pin()), Some(second.pin()));
    }
    world.signal.send(Signal::Stop).await.unwrap();
    world.recorder.wait("draining").await;
    world.signal.send(Signal::Stop).await.unwrap();
    assert_eq!(world.end().await, Ok(()));
}

#[tokio::test]
async fn a_broken_file_at_the_start_is_an_end() {
    let directory = tempfile::tempdir().unwrap();
    let access = directory.path().join("access");
    fs::write(&access, "default = 'ajar'").unwrap();
    let settings = RelaySettings {
        access: Some(access),
        ..settings(directory.path())
    };
    let (found, _relays) = mpsc::unbounded_channel();
    let (_signal, mut signals) = Signals::by_hand();
    let failure = run(&Spy(found), settings, &Events::silent(), &mut signals)
        .await
        .unwrap_err();
    assert_eq!(failure.kind(), "usage");
}

#[test]
fn reports_become_events() {
    let (conn, tunnel) = (ConnKey(1), TunnelKey(1));
    let id = TunnelId::from_random([0xAB; 16]);
    let name = |name: &str| Name::from(name);
    for (report, line) in [
        (
            Report::Identified { conn, name: name("a") },
            r#"{"event":"identified","name":"a"}"#,
        ),
        (
            Report::TunnelOpened {
                tunnel,
                id,
                source: name("a"),
                target: name("b"),
            },
            r#"{"event":"tunnel_open","id":"ABABABABABABABABABABABABABABABAB","source":"a","target":"b"}"#,
        ),
        (
            Report::TunnelClosed {
                tunnel,
                id,
                source: name("a"),
                target: name("b"),
                reason: TunnelCloseReason::Reset(Code::TCP_RESET),
                bytes: Some(TunnelBytes {
                    to_target: 1,
                    to_requester: 2,
                }),
            },
            r#"{"event":"tunnel_closed","id":"ABABABABABABABABABABABABABABABAB","source":"a","target":"b","reason":"reset: tcp_reset","bytes_in":1,"bytes_out":2}"#,
        ),
        (
            Report::RequestRefused {
                conn,
                source: Some(name("a")),
                target: name("b"),
                why: Refusal::NotAllowed,
            },
            r#"{"event":"request_refused","source":"a","target":"b","reason":"not_allowed"}"#,
        ),
        (
            Report::Disconnected {
                conn,
                names: vec![name("a")],
                closed: Some((Code::DISPLACED, "a newer connection took the name")),
            },
            r#"{"event":"disconnected","reason":"displaced: a newer connection took the name","names":["a"]}"#,
        ),
        (
            Report::Disconnected {
                conn,
                names: vec![],
                closed: None,
            },
            r#"{"event":"disconnected","reason":"gone"}"#,
        ),
    ] {
        assert_eq!(event(&report).unwrap().line(true), format!("{line}\n"));
    }
    assert_eq!(event(&Report::Drained), None);
}
