//! Who is alive, and who is not.

use std::time::Duration;

use macula_proto::{
    Event,
    quic::{
        self, CloseReason, ConnectionHandle, DialConfig, Dir, ListenConfig, ReadError, TransportConfig,
        tls::{ClientTls, ServerTls, Trust},
    },
    sim::{Fault, Happening, HostConfig, HostId, World},
};

const ALPN: &[u8] = b"lessons";

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.idle_timeout = Some(secs(10));
    transport.keep_alive = Some(secs(2));
    transport
}

fn host(world: &mut World) -> HostId {
    world.add(HostConfig::default()).expect("a host")
}

fn server(world: &mut World) -> HostId {
    let server = host(world);
    let credentials = world.credentials("server");
    let listening = world.with(server, |endpoint, _| {
        let tls = ServerTls::new(credentials).alpn([ALPN]);
        let mut config = ListenConfig::new(tls.build(endpoint.quic().clock()).expect("good settings"));
        config.transport = transport();
        endpoint.quic().listen(config)
    });
    listening.expect("it is there").expect("listens");
    server
}

fn dial(world: &mut World, from: HostId, to: HostId) -> ConnectionHandle {
    let (pin, remote) = (world.credentials("server").pin(), world.address(to));
    let dialled = world.with(from, |endpoint, now| {
        let tls = ClientTls::new(Trust::Pins(vec![pin])).alpn([ALPN]);
        let mut config = DialConfig::new(tls.build(endpoint.quic().clock()).expect("good settings"));
        config.transport = transport();
        endpoint.quic().connect(now, &config, remote, "server")
    });
    dialled.expect("it is there").expect("dials")
}

/// The ends of connections, with the hosts that were told, when, and of what kind.
fn ends(world: &mut World, until: Duration) -> Vec<(HostId, Duration, bool)> {
    let mut ends = Vec::new();
    while let Some(happening) = world.next(until) {
        if let Happening::Event {
            host,
            event: Event::Quic(quic::Event::Closed { reason, .. }),
        } = happening
        {
            ends.push((host, world.elapsed(), matches!(reason, CloseReason::TimedOut)));
        }
    }
    ends
}

/// Lesson 16: both sides send keep-alives every two seconds, nothing arrives any more, and both give up when ten are over, not
/// later because of what they went on sending.
#[test]
fn keep_alives_into_a_black_hole_do_not_keep_it_open() {
    let mut world = World::new(16);
    let (server, client) = (server(&mut world), host(&mut world));
    dial(&mut world, client, server);
    assert_eq!(ends(&mut world, secs(60)), [], "keep-alives keep it");
    let before = world.stats().sent;
    world.apply(Fault::Isolate(client));
    let ends = ends(&mut world, secs(120));
    assert!(world.stats().sent > before, "they were sent into the hole");
    let mut told: Vec<_> = ends.iter().map(|(host, ..)| *host).collect();
    told.sort();
    assert_eq!(told, [server, client], "each once: {ends:?}");
    for (host, at, timed_out) in ends {
        assert!(
            timed_out && at > secs(68) && at < secs(74),
            "{host} gave up after {at:?}"
        );
    }
}

/// Lesson 12: of three connections of one endpoint one goes silent. It ends, and the others carry bytes as if nothing were.
#[test]
fn a_sick_connection_takes_no_other_along() {
    let mut world = World::new(12);
    let server = server(&mut world);
    let clients = [(); 3].map(|()| host(&mut world));
    let conns = clients.map(|client| dial(&mut world, client, server));
    assert_eq!(ends(&mut world, secs(2)), []);
    world.apply(Fault::Isolate(clients[1]));
    let ends = ends(&mut world, secs(30));
    let mut told: Vec<_> = ends.iter().map(|(host, ..)| *host).collect();
    told.sort();
    assert_eq!(
        told,
        [server, clients[1]],
        "the sick one ends at both ends, and no other: {ends:?}"
    );

    for (client, conn) in [(clients[0], conns[0]), (clients[2], conns[2])] {
        let sent = world.with(client, |endpoint, _| {
            let mut conn = endpoint.quic().connection(conn).expect("it is still there");
            let stream = conn.open(Dir::Uni).expect("opens");
            conn.stream(stream)
                .expect("is open")
                .enqueue(vec![7; 50_000].into())
                .expect("fits");
            conn.stream(stream).expect("is open").finish().expect("is open");
        });
        sent.expect("it is there");
        assert_eq!(received(&mut world, server), 50_000);
    }
}

/// Bytes of the next stream that comes to its end.
fn received(world: &mut World, server: HostId) -> usize {
    let (until, mut received) = (world.elapsed() + secs(10), 0);
    while let Some(happening) = world.next(until) {
        let Happening::Event {
            host,
            event: Event::Quic(event),
        } = happening
        else {
            continue;
        };
        let (quic::Event::StreamOpened { conn, stream } | quic::Event::Readable { conn, stream }) = event else {
            continue;
        };
        assert_eq!(host, server);
        let over = world.with(host, |endpoint, _| {
            let mut conn = endpoint.quic().connection(conn).expect("it is there");
            let mut stream = conn.stream(stream).expect("it is there");
            loop {
                match stream.read_chunk(usize::MAX) {
                    Ok(Some(bytes)) => received += bytes.len(),
                    Ok(None) => return true,
                    Err(ReadError::Blocked) => return false,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        if over.expect("it is there") {
            return received;
        }
    }
    panic!("the stream does not end");
}
