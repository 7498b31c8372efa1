//! A server of quinn-proto and a socket, with nothing else around it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Instant,
};

use bytes::BytesMut;
use macula_bench::{Result, quinn_setup::Setup};
use macula_tokio::tls::Credentials;
use quinn_proto::{
    ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig,
    TransportConfig, VarInt,
};
use tokio::{net::UdpSocket, time::sleep_until};

use crate::{
    children::Party,
    ours::{self, PROTOCOL},
};

/// Where it listens; it goes on by itself.
pub(crate) struct BareServer(u16);

impl BareServer {
    pub(crate) fn start(credentials: &Credentials) -> Result<Self> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        let port = socket.local_addr()?.port();
        let config = Arc::new(server_config(credentials)?);
        let server = Server {
            endpoint: Endpoint::new(Arc::new(EndpointConfig::default()), Some(config), true, None),
            connections: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            out: Vec::new(),
        };
        let socket = UdpSocket::from_std(socket)?;
        tokio::spawn(async move {
            if let Err(error) = server.run(&socket).await {
                eprintln!("the bare server failed: {error}");
            }
        });
        Ok(Self(port))
    }
}

impl Party for BareServer {
    fn port(&self) -> u16 {
        self.0
    }
}

/// With what ours says about the transport, as far as quinn-proto knows it.
fn server_config(credentials: &Credentials) -> Result<ServerConfig> {
    let ours = ours::accepting();
    // What ours grants at first on connections that it accepts.
    let first = |most: u64| VarInt::from_u64(most.min(ours.initial_streams));
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(1452);
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(ours.idle_timeout.map(IdleTimeout::try_from).transpose()?)
        .keep_alive_interval(ours.keep_alive)
        .max_concurrent_bidi_streams(first(ours.max_bidi_streams)?)
        .max_concurrent_uni_streams(first(ours.max_uni_streams)?)
        .stream_receive_window(VarInt::from_u64(ours.stream_window)?)
        .receive_window(VarInt::MAX)
        .send_window(ours.send_window)
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(discovery));
    let mut config = ServerConfig::with_crypto(Setup::new(PROTOCOL).server_tls(credentials)?);
    config.transport_config(Arc::new(transport));
    Ok(config)
}

struct Connection {
    inner: quinn_proto::Connection,
    deadline: Option<Instant>,
}

struct Server {
    endpoint: Endpoint,
    connections: BTreeMap<ConnectionHandle, Box<Connection>>,
    deadlines: BTreeSet<(Instant, ConnectionHandle)>,
    /// For what is sent next.
    out: Vec<u8>,
}

impl Server {
    async fn run(mut self, socket: &UdpSocket) -> Result<()> {
        let mut datagram = vec![0; 65_536];
        loop {
            let due = self.deadlines.first().map(|(at, _)| *at);
            let timer = async {
                match due {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                received = socket.recv_from(&mut datagram) => {
                    let (length, from) = received?;
                    let data = BytesMut::from(&datagram[..length]);
                    self.out.clear();
                    let event = self.endpoint.handle(Instant::now(), from, None, None, data, &mut self.out);
                    self.on_datagram(event, socket).await?;
                }
                () = timer => {
                    let now = Instant::now();
                    while let Some((at, handle)) = self.deadlines.first().copied() && at <= now {
                        if let Some(connection) = self.connections.get_mut(&handle) {
                            connection.inner.handle_timeout(now);
                        }
                        self.settle(handle, socket).await?;
                    }
                }
            }
        }
    }

    async fn on_datagram(&mut self, event: Option<DatagramEvent>, socket: &UdpSocket) -> Result<()> {
        match event {
            None => {}
            Some(DatagramEvent::Response(transmit)) => {
                socket.send_to(&self.out[..transmit.size], transmit.destination).await?;
            }
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(connection) = self.connections.get_mut(&handle) {
                    connection.inner.handle_event(event);
                }
                self.settle(handle, socket).await?;
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.out.clear();
                let accepted = self.endpoint.accept(incoming, Instant::now(), &mut self.out, None);
                let (handle, inner) = accepted.map_err(|error| error.cause)?;
                let connection = Connection { inner, deadline: None };
                self.connections.insert(handle, Box::new(connection));
                self.settle(handle, socket).await?;
            }
        }
        Ok(())
    }

    /// Does all that a connection has to do now, and notes when it wants to be woken.
    async fn settle(&mut self, handle: ConnectionHandle, socket: &UdpSocket) -> Result<()> {
        let Some(connection) = self.connections.get_mut(&handle) else {
            return Ok(());
        };
        if let Some(at) = connection.deadline.take() {
            self.deadlines.remove(&(at, handle));
        }
        let mut drained = false;
        loop {
            while connection.inner.poll().is_some() {}
            let mut more = false;
            while let Some(event) = connection.inner.poll_endpoint_events() {
                drained |= event.is_drained();
                if let Some(event) = self.endpoint.handle_event(handle, event) {
                    connection.inner.handle_event(event);
                    more = true;
                }
            }
            self.out.clear();
            while let Some(transmit) = connection.inner.poll_transmit(Instant::now(), 1, &mut self.out) {
                socket.send_to(&self.out[..transmit.size], transmit.destination).await?;
                self.out.clear();
                more = true;
            }
            if !more {
                break;
            }
        }
        connection.deadline = connection.inner.poll_timeout();
        match connection.deadline {
            _ if drained => drop(self.connections.remove(&handle)),
            Some(at) => drop(self.deadlines.insert((at, handle))),
            None => {}
        }
        Ok(())
    }
}
