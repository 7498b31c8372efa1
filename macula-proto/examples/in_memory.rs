//! A relay and two nodes in memory: no socket, no waiting, and no clock but the one that is moved by hand.
#![expect(clippy::disallowed_methods, reason = "an instant to start from")]

use std::{collections::VecDeque, error::Error, net::SocketAddr, num::NonZeroUsize, time::Instant};

use bytes::{Bytes, BytesMut};
use macula_proto::{
    Endpoint, Event, Limits, Now,
    endpoint::{ClientEvent, RelayClientConfig},
    quic::{
        self, ConnectionHandle, DatagramMeta, DialConfig, EndpointConfig, ListenConfig, ReadError, StreamId, alpn,
        tls::{ClientTls, Credentials, SelfSigned, ServerTls, Trust},
    },
    tunnel::{
        Name,
        client::{session::SessionConfig, supervisor::Report, supervisor::SupervisorConfig},
        relay::RelayConfig,
    },
};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Tunnel = (ConnectionHandle, StreamId);

const RELAY: usize = 0;
const ALICE: usize = 1;
const BOB: usize = 2;

pub(crate) fn main() -> Result<()> {
    let mut network = Network {
        now: Now::new(Instant::now(), 1_750_000_000_000),
        hosts: Vec::new(),
        on_the_way: VecDeque::new(),
        events: Vec::new(),
    };
    for host in [RELAY, ALICE, BOB] {
        // In real use these bytes come from the operating system.
        let seed = [host as u8; 32];
        let endpoint = Endpoint::new(&EndpointConfig::default(), Limits::default(), seed)?;
        network.hosts.push(endpoint);
    }
    let credentials = Credentials::self_signed(&[7; 32], &SelfSigned::default())?;
    let pin = credentials.pin();
    let relay = &mut network.hosts[RELAY];
    let tls = ServerTls::new(credentials).alpn([alpn::MACULA_DIST]);
    let tls = tls.build(relay.quic().clock())?;
    relay.quic().listen(ListenConfig::new(tls))?;
    relay.serve_relay(RelayConfig::default());

    let mut nodes = Vec::new();
    for (host, name) in [(ALICE, "alice"), (BOB, "bob")] {
        let endpoint = &mut network.hosts[host];
        let tls = ClientTls::new(Trust::Pins(vec![pin])).alpn([alpn::MACULA_DIST]);
        let config = RelayClientConfig {
            relays: vec![address(RELAY).to_string().parse()?],
            dial: DialConfig::new(tls.build(endpoint.quic().clock())?),
            session: SessionConfig::new(Name::from(name)),
            supervisor: SupervisorConfig::default(),
        };
        nodes.push(endpoint.relay_client(network.now, config)?);
        network.wait(host, |event| is_up(event).then_some(()))?;
    }

    // Alice asks bob, and bob answers.
    network.hosts[ALICE].open_tunnel(network.now, nodes[0], Name::from("bob"))?;
    let near = network.wait(ALICE, tunnel)?;
    let far = network.wait(BOB, tunnel)?;
    network.say(ALICE, near, "how are you?")?;
    assert_eq!(network.hear(BOB, far)?, b"how are you?");
    network.say(BOB, far, "well, behind this NAT")?;
    assert_eq!(network.hear(ALICE, near)?, b"well, behind this NAT");
    println!("asked and answered through the relay");
    Ok(())
}

fn is_up(event: &Event) -> bool {
    matches!(event, Event::Client { event, .. } if matches!(event, ClientEvent::Relay(Report::Up { .. })))
}

/// The stream of a tunnel that was opened from here, or to here.
fn tunnel(event: &Event) -> Option<Tunnel> {
    let Event::Client { event, .. } = event else {
        return None;
    };
    match *event {
        ClientEvent::Opened { conn, stream, .. } | ClientEvent::Incoming { conn, stream, .. } => Some((conn, stream)),
        _ => None,
    }
}

fn address(host: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host as u8], 4434))
}

/// Endpoints, the datagrams on their way between them, and what the endpoints told so far.
struct Network {
    now: Now,
    hosts: Vec<Endpoint>,
    on_the_way: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    events: Vec<(usize, Event)>,
}

impl Network {
    /// Runs until a host has told something that `pick` wants.
    fn wait<T>(&mut self, host: usize, pick: impl Fn(&Event) -> Option<T>) -> Result<T> {
        for _ in 0..10_000 {
            let mut told = self.events.iter();
            let found = told.position(|(at, event)| *at == host && pick(event).is_some());
            if let Some(found) = found {
                return Ok(pick(&self.events.remove(found).1).expect("picked before"));
            }
            self.step()?;
        }
        Err("it never came".into())
    }

    /// The contract: events until there are none, datagrams until there are none, then the next input or time-out.
    fn step(&mut self) -> Result<()> {
        for (host, endpoint) in self.hosts.iter_mut().enumerate() {
            while let Some(event) = endpoint.poll_event(self.now) {
                if let Event::Client { client, event } = &event
                    && let ClientEvent::Resolve { attempt, address } = event
                {
                    let found = [address.to_string().parse()?];
                    endpoint.resolved(self.now, *client, *attempt, &found)?;
                }
                self.events.push((host, event));
            }
            let mut data = Vec::new();
            while let Some(transmit) = endpoint.poll_transmit(self.now, NonZeroUsize::MIN, &mut data) {
                let datagram = (address(host), transmit.destination, std::mem::take(&mut data));
                self.on_the_way.push_back(datagram);
            }
        }
        if let Some((from, to, data)) = self.on_the_way.pop_front() {
            let host = (0..self.hosts.len()).find(|host| address(*host) == to);
            let host = host.ok_or("nobody is there")?;
            self.hosts[host].handle_datagram(self.now, DatagramMeta::from(from), BytesMut::from(&data[..]));
            return Ok(());
        }
        let due = self
            .hosts
            .iter()
            .filter_map(Endpoint::poll_timeout)
            .min()
            .ok_or("nothing will ever happen")?;
        self.now = self.now.after(due.saturating_duration_since(self.now.mono));
        for endpoint in &mut self.hosts {
            if endpoint.poll_timeout().is_some_and(|at| at <= self.now.mono) {
                endpoint.handle_timeout(self.now);
            }
        }
        Ok(())
    }

    fn say(&mut self, host: usize, (conn, stream): Tunnel, text: &'static str) -> Result<()> {
        let mut connection = self.hosts[host].quic().connection(conn)?;
        let mut tunnel = connection.stream(stream)?;
        tunnel.enqueue(Bytes::from_static(text.as_bytes()))?;
        Ok(tunnel.finish()?)
    }

    /// Everything up to the end of the stream.
    fn hear(&mut self, host: usize, (conn, stream): Tunnel) -> Result<Vec<u8>> {
        let mut heard = Vec::new();
        loop {
            let mut connection = self.hosts[host].quic().connection(conn)?;
            match connection.stream(stream)?.read_chunk(usize::MAX) {
                Ok(Some(bytes)) => heard.extend_from_slice(&bytes),
                Ok(None) => return Ok(heard),
                Err(ReadError::Blocked) => {
                    let readable = Event::Quic(quic::Event::Readable { conn, stream });
                    self.wait(host, |event| (*event == readable).then_some(()))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
