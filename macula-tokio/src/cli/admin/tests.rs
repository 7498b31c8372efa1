use std::{fs, os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};

use macula_proto::{quic::tls::ClientAuth, tunnel::relay::RelayConfig};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{server::BindError, *};
use crate::cli::{
    backend::{Backend as _, RelayHandle as _, RelayOptions},
    memory::{Memory, MemoryRelay},
    report, tls,
};

struct World {
    directory: tempfile::TempDir,
    relay: Arc<MemoryRelay>,
    drain: mpsc::Receiver<()>,
    phase: watch::Sender<Phase>,
    serving: JoinHandle<()>,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = AdminServer::bind(&directory.path().join("run/relay.sock")).unwrap();
        let options = RelayOptions {
            listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
            credentials: tls::self_signed().unwrap(),
            client_auth: ClientAuth::None,
            relay: RelayConfig::default(),
            router: None,
            sockets: 1,
            spin: Duration::ZERO,
        };
        let relay = Arc::new(Memory::default().relay(options).await.unwrap());
        let (drain_sender, drain) = mpsc::channel(1);
        let (phase, phases) = watch::channel(Phase::Running);
        let describe = |_: &_| report::tests::report();
        let serving = tokio::spawn(server.serve(relay.clone(), describe, drain_sender, phases));
        Self {
            directory,
            relay,
            drain,
            phase,
            serving,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("run/relay.sock")
    }

    async fn end(self, drained: bool) {
        self.phase.send_replace(Phase::Ended { drained });
        let within = tokio::time::timeout(Duration::from_secs(10), self.serving).await;
        within.expect("the server ends").unwrap();
        assert!(
            fs::read_dir(self.directory.path().join("run"))
                .unwrap()
                .next()
                .is_none()
        );
    }
}

#[tokio::test]
async fn a_status_makes_the_round_trip() {
    let world = World::new().await;
    let mut client = AdminClient::connect(&world.path()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(client.status().await.unwrap(), report::tests::report());
    }
    world.end(false).await;
}

#[tokio::test]
async fn a_drain_is_followed_to_its_end() {
    for drained in [true, false] {
        let mut world = World::new().await;
        let mut client = AdminClient::connect(&world.path()).await.unwrap();
        client.drain().await.unwrap();
        let remaining = Remaining {
            connections: 0,
            tunnels: 0,
        };
        assert_eq!(client.answer().await.unwrap(), Answer::Draining(remaining));
        world.drain.recv().await.unwrap();
        world.relay.drain();
        world.phase.send_replace(Phase::Ended { drained });
        assert_eq!(client.answer().await.unwrap(), Answer::Drained(drained));
        world.end(drained).await;
    }
}

#[tokio::test]
async fn bad_requests_are_answered() {
    let world = World::new().await;
    let stream = UnixStream::connect(world.path()).await.unwrap();
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    for request in ["\n", "junk\n", "{\"do\":\"dance\"}\n", "[]\n"] {
        write.write_all(request.as_bytes()).await.unwrap();
        let mut line = String::new();
        read.read_line(&mut line).await.unwrap();
        assert!(line.starts_with("{\"error\":\"not a request: "), "{line}");
    }
    // A request without end is refused, and the connection is closed.
    let _ = write.write_all(&vec![b'x'; 100_000]).await;
    let mut line = String::new();
    read.read_line(&mut line).await.unwrap();
    assert!(line.starts_with("{\"error\""), "{line}");
    line.clear();
    // What was not read makes it a reset instead of an end.
    assert_eq!(read.read_line(&mut line).await.unwrap_or(0), 0);
    world.end(false).await;
}

#[tokio::test]
async fn the_socket_is_private_and_not_taken_from_the_living() {
    let world = World::new().await;
    let mode = fs::metadata(world.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(AdminServer::bind(&world.path()), Err(BindError::InUse(_))));
    // It still works after that.
    AdminClient::connect(&world.path())
        .await
        .unwrap()
        .status()
        .await
        .unwrap();
    world.end(false).await;
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_file_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("relay.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "stale");
    drop(AdminServer::bind(&path).unwrap());
    assert!(!path.exists(), "the server takes its file along");
    fs::write(&path, "precious").unwrap();
    assert!(matches!(AdminServer::bind(&path), Err(BindError::NotASocket(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn nobody_there() {
    let error = AdminClient::connect(Path::new("/nonexistent/relay.sock"))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("no relay answers at /nonexistent/relay.sock: "),
        "{error}"
    );
}

#[test]
fn the_default_path() {
    for (runtime, path) in [
        (Some("/run/user/1000"), "/run/user/1000/macula/relay.sock"),
        (None, "/run/macula/relay.sock"),
        (Some(""), "/run/macula/relay.sock"),
        (Some("relative"), "/run/macula/relay.sock"),
    ] {
        assert_eq!(path_under(runtime.map(PathBuf::from)), Path::new(path));
    }
}
