//! A relay and two nodes in memory: no socket, no waiting, and no clock but the one that is moved by hand.
#![expect(clippy::disallowed_methods, reason = "an instant to start from")]

use std::{collections::VecDeque, error::Error, net::SocketAddr, num::NonZeroUsize, time::Instant};

use bytes::{Bytes, BytesMut};
use macula_proto::{
    Endpoint, Event, Limits, Now,
    endpoint::{ClientEvent, RelayClientConfig},
    quic::{
        ConnectionHandle, DatagramMeta, EndpointConfig, ListenConfig, StreamId, alpn,
        tls::{ClientTls, Credentials, SelfSigned, ServerTls, Trust},
    },
    tunnel::{Name, client::supervisor::Report, relay::RelayConfig},
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
        let seed = [host as u8; 32]; // In real use these bytes come from the operating system.
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
        let tls = tls.build(endpoint.quic().clock())?;
        let config = RelayClientConfig::new(name, vec![address(RELAY).to_string().parse()?], tls);
        nodes.push(endpoint.relay_client(network.now, config)?);
        let is_up = |event: &ClientEvent| matches!(event, ClientEvent::Relay(Report::Up { .. })).then_some(());
        network.wait(host, is_up)?;
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

/// The stream of a tunnel that was opened from here, or to here.
fn tunnel(event: &ClientEvent) -> Option<Tunnel> {
    match *event {
        ClientEvent::Opened { conn, stream, .. } | ClientEvent::Incoming { conn, stream, .. } => Some((conn, stream)),
        _ => None,
    }
}

fn address(host: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host as u8], 4434))
}

/// Endpoints, the datagrams on their way between them, and what the nodes told so far.
struct Network {
    now: Now,
    hosts: Vec<Endpoint>,
    on_the_way: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    events: Vec<(usize, ClientEvent)>,
}

impl Network {
    /// Runs until a node has told something that `pick` wants.
    fn wait<T>(&mut self, host: usize, pick: impl Fn(&ClientEvent) -> Option<T>) -> Result<T> {
        for _ in 0..10_000 {
            let mut told = self.events.iter().enumerate().filter(|(_, (at, _))| *at == host);
            if let Some((at, found)) = told.find_map(|(at, (_, event))| Some((at, pick(event)?))) {
                self.events.remove(at);
                return Ok(found);
            }
            self.step()?;
        }
        Err("it never came".into())
    }

    /// The contract: events until there are none, datagrams until there are none, then the next input or time-out.
    fn step(&mut self) -> Result<()> {
        for (host, endpoint) in self.hosts.iter_mut().enumerate() {
            while let Some(event) = endpoint.poll_event(self.now) {
                if let Event::Client { event, .. } = event {
                    self.events.push((host, event));
                }
            }
            let mut data = Vec::new();
            while let Some(transmit) = endpoint.poll_transmit(self.now, NonZeroUsize::MIN, &mut data) {
                let datagram = (address(host), transmit.destination, data.clone());
                self.on_the_way.push_back(datagram);
            }
        }
        if let Some((from, to, data)) = self.on_the_way.pop_front() {
            let host = (0..self.hosts.len()).find(|host| address(*host) == to);
            let host = &mut self.hosts[host.ok_or("nobody is there")?];
            host.handle_datagram(self.now, DatagramMeta::from(from), BytesMut::from(&data[..]));
            return Ok(());
        }
        let due = self.hosts.iter().filter_map(Endpoint::poll_timeout).min();
        let due = due.ok_or("nothing will ever happen")?;
        self.now = self.now.after(due.saturating_duration_since(self.now.mono));
        for endpoint in &mut self.hosts {
            endpoint.handle_timeout(self.now);
        }
        Ok(())
    }

    fn say(&mut self, host: usize, (conn, stream): Tunnel, text: &'static str) -> Result<()> {
        let mut tunnel = self.hosts[host].quic().stream(conn, stream)?;
        tunnel.enqueue(Bytes::from_static(text.as_bytes()))?;
        Ok(tunnel.finish()?)
    }

    /// Everything up to the end of the stream. Who does not look again after each step waits for `Readable`.
    fn hear(&mut self, host: usize, (conn, stream): Tunnel) -> Result<Vec<u8>> {
        let mut heard = Vec::new();
        for _ in 0..10_000 {
            let mut tunnel = self.hosts[host].quic().stream(conn, stream)?;
            if tunnel.read_available(|bytes| heard.extend_from_slice(&bytes))? {
                return Ok(heard);
            }
            self.step()?;
        }
        Err("the end never came".into())
    }
}
