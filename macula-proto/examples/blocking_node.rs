//! A node on one blocking UDP socket of the standard library: no runtime, no thread.
//!
//! - `blocking_node RELAY PIN NAME` is called NAME and echoes what comes through tunnels from others;
//! - `blocking_node RELAY PIN NAME TARGET TEXT` opens a tunnel to TARGET, sends the text and prints what comes back.
//!
//! RELAY is `HOST:PORT`, PIN the SHA-256 of its certificate in hex.
#![expect(clippy::disallowed_methods, reason = "a program has a clock; the core has none")]

use std::{
    error::Error,
    io::{self, ErrorKind, Read},
    net::{SocketAddr, ToSocketAddrs, UdpSocket},
    num::NonZeroUsize,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::{Bytes, BytesMut};
use macula_proto::{
    Code, Endpoint, Event, Limits, Now,
    endpoint::{ClientEvent, RelayClientConfig},
    quic::{
        self, DatagramMeta, EndpointConfig, alpn,
        tls::{ClientTls, Trust},
    },
    tunnel::{Name, client::supervisor::Report},
};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let answer = match args[..] {
        [relay, pin, name] => node(relay, pin, name, None)?,
        [relay, pin, name, target, text] => node(relay, pin, name, Some((target, text)))?,
        _ => return Err("usage: blocking_node RELAY PIN NAME [TARGET TEXT]".into()),
    };
    println!("{}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// Runs a node: for ever if it echoes, until the answer is there if it has something to say.
pub(crate) fn node(relay: &str, pin: &str, name: &str, talk: Option<(&str, &str)>) -> Result<Vec<u8>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let mut endpoint = new_endpoint()?;
    let tls = ClientTls::new(Trust::Pins(vec![pin.parse()?])).alpn([alpn::MACULA_DIST]);
    let tls = tls.build(endpoint.quic().clock())?;
    let node = endpoint.relay_client(now(), RelayClientConfig::new(name, vec![relay.parse()?], tls))?;
    let (mut mine, mut answer) = (None, Vec::new());
    loop {
        while let Some(event) = endpoint.poll_event(now()) {
            let (conn, stream) = match event {
                Event::Client { event, .. } => match event {
                    ClientEvent::Resolve { attempt, address } => {
                        let found = (address.host.as_str(), address.port).to_socket_addrs();
                        let found: Vec<SocketAddr> = found.into_iter().flatten().filter(SocketAddr::is_ipv4).collect();
                        endpoint.resolved(now(), node, attempt, &found)?;
                        continue;
                    }
                    ClientEvent::Relay(Report::Up { .. }) => {
                        if let Some((target, _)) = talk {
                            endpoint.open_tunnel(now(), node, Name::from(target))?;
                        }
                        continue;
                    }
                    ClientEvent::Failed { error, .. } => return Err(error.into()),
                    ClientEvent::Opened { conn, stream, .. } => {
                        let mut tunnel = endpoint.quic().stream(conn, stream)?;
                        tunnel.enqueue(Bytes::copy_from_slice(talk.unwrap_or_default().1.as_bytes()))?;
                        tunnel.finish()?;
                        *mine.insert((conn, stream))
                    }
                    ClientEvent::Incoming { conn, stream, .. } => (conn, stream),
                    ClientEvent::Disconnected { reason, .. } if mine.is_some() => {
                        return Err(reason.to_string().into());
                    }
                    _ => continue,
                },
                Event::Quic(quic::Event::Readable { conn, stream } | quic::Event::Reset { conn, stream, .. }) => {
                    (conn, stream)
                }
                _ => continue,
            };
            let Ok(mut tunnel) = endpoint.quic().stream(conn, stream) else {
                continue; // It has ended meanwhile.
            };
            if mine != Some((conn, stream)) {
                echo(&mut tunnel);
            } else if tunnel.read_available(|bytes| answer.extend_from_slice(&bytes))? {
                return Ok(answer);
            }
        }
        turn(&socket, &mut endpoint)?;
    }
}

/// Queues what has arrived to be sent back.
fn echo(tunnel: &mut quic::Stream<'_>) {
    let mut echo = BytesMut::new();
    let ended = tunnel.read_available(|bytes| echo.extend_from_slice(&bytes));
    if tunnel.enqueue(echo.freeze()).is_err() {
        tunnel.abort(Code::LIMIT); // Who does not take the echo back has had enough.
    } else if ended == Ok(true) {
        tunnel.finish().unwrap_or_default();
    }
}

pub(crate) fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now::new(Instant::now(), u64::try_from(unix.as_millis()).unwrap_or(u64::MAX))
}

pub(crate) fn new_endpoint() -> Result<Endpoint> {
    let mut entropy = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut entropy)?;
    let mut config = EndpointConfig::default();
    config.unfragmented = false; // A plain socket does not set "don't fragment".
    Ok(Endpoint::new(&config, Limits::default(), entropy)?)
}

/// After all events were polled: sends what there is, sleeps until something arrives or is due, and hands it in.
pub(crate) fn turn(socket: &UdpSocket, endpoint: &mut Endpoint) -> io::Result<()> {
    let mut data = Vec::new();
    while let Some(transmit) = endpoint.poll_transmit(now(), NonZeroUsize::MIN, &mut data) {
        let _ = socket.send_to(&data, transmit.destination); // What cannot be sent is lost, as on any network.
    }
    let due = endpoint.poll_timeout();
    let due = due.map(|at| at.saturating_duration_since(Instant::now()));
    socket.set_read_timeout(due.map(|due| due.max(Duration::from_micros(1))))?;
    let mut data = BytesMut::zeroed(65_535);
    match socket.recv_from(&mut data) {
        Ok((size, from)) => endpoint.handle_datagram(now(), DatagramMeta::from(from), BytesMut::from(&data[..size])),
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
            // An earlier datagram did not arrive (ICMP). The endpoint finds out by itself.
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => {}
            _ => return Err(error),
        },
    }
    if endpoint.poll_timeout().is_some_and(|at| at <= Instant::now()) {
        endpoint.handle_timeout(now());
    }
    Ok(())
}
