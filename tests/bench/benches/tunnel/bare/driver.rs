//! quinn-proto and a socket, driven by the one thread there is.

use std::{
    collections::BTreeMap,
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use macula_bench::{Result, quinn_setup};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, Event, ReadError,
    ServerConfig, StreamId,
};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The most that the kernel joins into one buffer, or cuts into datagrams.
const SLAB: usize = 64 << 10;
/// The most that one datagram over IPv4 carries.
const MAX_PAYLOAD: usize = 65_507;
/// Datagrams that the kernel cuts one send into at the most.
const MAX_SEGMENTS: usize = 64;

/// An endpoint. What a program does with its connections happens between two [turns](Bare::turn).
pub(crate) struct Bare {
    socket: UdpSocket,
    udp: UdpSocketState,
    endpoint: Endpoint,
    pub(crate) connections: BTreeMap<ConnectionHandle, Connection>,
    /// Connections in the order in which they were established.
    pub(crate) established: Vec<ConnectionHandle>,
    slabs: Vec<Vec<u8>>,
    out: Vec<u8>,
}

impl Bare {
    /// With receive calls of `batch` buffers.
    pub(crate) fn new(server: Option<ServerConfig>, batch: usize) -> Result<Self> {
        let socket = quinn_setup::socket()?;
        let udp = UdpSocketState::new((&socket).into())?;
        let mut config = EndpointConfig::default();
        config.max_udp_payload_size(MAX_PAYLOAD as u16)?;
        Ok(Self {
            endpoint: Endpoint::new(Arc::new(config), server.map(Arc::new), !udp.may_fragment(), None),
            socket,
            udp,
            connections: BTreeMap::new(),
            established: Vec::new(),
            slabs: vec![vec![0; SLAB]; batch.min(BATCH_SIZE)],
            out: Vec::new(),
        })
    }

    pub(crate) fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    pub(crate) fn connection(&mut self, handle: ConnectionHandle) -> Result<&mut Connection> {
        Ok(self.connections.get_mut(&handle).ok_or("no connection")?)
    }

    /// A connection, once it is established.
    pub(crate) fn connect(&mut self, config: ClientConfig, to: SocketAddr) -> Result<ConnectionHandle> {
        let (handle, connection) = self.endpoint.connect(Instant::now(), config, to, "localhost")?;
        self.connections.insert(handle, connection);
        while !self.established.contains(&handle) {
            self.turn(Duration::from_secs(1))?;
        }
        Ok(handle)
    }

    /// Sends what there is to send, waits at the most so long for something to receive, and takes it.
    pub(crate) fn turn(&mut self, longest: Duration) -> Result<()> {
        self.send()?;
        if !self.receive()? {
            self.sleep(longest)?;
            self.receive()?;
        }
        let now = Instant::now();
        for connection in self.connections.values_mut() {
            if connection.poll_timeout().is_some_and(|at| at <= now) {
                connection.handle_timeout(now);
            }
        }
        self.settle();
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        let now = Instant::now();
        for connection in self.connections.values_mut() {
            let segments = MAX_SEGMENTS.min(MAX_PAYLOAD / usize::from(connection.current_mtu()));
            self.out.clear();
            while let Some(transmit) = connection.poll_transmit(now, segments, &mut self.out) {
                let transmit = quinn_udp::Transmit {
                    destination: transmit.destination,
                    ecn: None,
                    contents: &self.out[..transmit.size],
                    segment_size: transmit.segment_size,
                    src_ip: transmit.src_ip,
                };
                while let Err(error) = self.udp.try_send((&self.socket).into(), &transmit) {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        return Err(error.into());
                    }
                    poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], None)?;
                }
                self.out.clear();
            }
        }
        self.settle();
        Ok(())
    }

    /// One receive call. False if there is nothing.
    fn receive(&mut self) -> Result<bool> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let batch = self.slabs.len();
        let mut slabs = self.slabs.iter_mut();
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(slabs.next().map_or(&mut [], |slab| &mut slab[..])));
        let received = self
            .udp
            .recv(UdpSockRef::from(&self.socket), &mut slices[..batch], &mut metas);
        let count = match received {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let now = Instant::now();
        for (index, meta) in metas.iter().enumerate().take(count) {
            for at in (0..meta.len).step_by(meta.stride.max(1)) {
                let end = meta.len.min(at + meta.stride);
                let datagram = BytesMut::from(&self.slabs[index][at..end]);
                self.take(now, meta, datagram)?;
            }
        }
        Ok(true)
    }

    fn take(&mut self, now: Instant, meta: &RecvMeta, datagram: BytesMut) -> Result<()> {
        self.out.clear();
        match self
            .endpoint
            .handle(now, meta.addr, meta.dst_ip, None, datagram, &mut self.out)
        {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(connection) = self.connections.get_mut(&handle) {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                let accepted = self.endpoint.accept(incoming, now, &mut self.out, None);
                let (handle, connection) = accepted.map_err(|error| error.cause)?;
                self.connections.insert(handle, connection);
            }
            Some(DatagramEvent::Response(_)) | None => {}
        }
        Ok(())
    }

    fn sleep(&mut self, longest: Duration) -> Result<()> {
        let now = Instant::now();
        let deadlines = self.connections.values_mut().filter_map(Connection::poll_timeout);
        let longest = deadlines
            .map(|at| at.saturating_duration_since(now))
            .fold(longest, Duration::min);
        let longest = Timespec::try_from(longest)?;
        poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&longest))?;
        Ok(())
    }

    /// Exchanges what the connections and the endpoint have for each other.
    fn settle(&mut self) {
        for (handle, connection) in &mut self.connections {
            while let Some(event) = connection.poll_endpoint_events() {
                if let Some(event) = self.endpoint.handle_event(*handle, event) {
                    connection.handle_event(event);
                }
            }
            while let Some(event) = connection.poll() {
                if matches!(event, Event::Connected) {
                    self.established.push(*handle);
                }
            }
        }
    }
}

/// Gives `take` what has come on a stream, `most` bytes at the most: how much that was, and whether it was the last.
pub(super) fn read(
    connection: &mut Connection,
    stream: StreamId,
    most: usize,
    mut take: impl FnMut(&[u8]),
) -> Result<(usize, bool)> {
    let mut recv = connection.recv_stream(stream);
    let mut chunks = recv.read(true)?;
    let mut taken = 0;
    let mut over = false;
    while taken < most && !over {
        match chunks.next(most - taken) {
            Ok(Some(chunk)) => {
                take(&chunk.bytes);
                taken += chunk.bytes.len();
            }
            Ok(None) => over = true,
            Err(ReadError::Blocked) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let _ = chunks.finalize();
    Ok((taken, over))
}
