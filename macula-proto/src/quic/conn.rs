//! One connection: quinn-proto's state and what the endpoint keeps beside it.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Instant,
};

use bytes::Bytes;

use super::{
    Accept, CloseReason, ConnectionHandle, ConnectionStats, Dir, Event, Owner, Side, StreamId, TransportConfig,
    blocks::Blocks,
    event::{code_from, code_to},
    stream_state::{RecvHalf, SendHalf, StreamState},
    tls::HandshakeInfo,
    turns::Turns,
};
use crate::{Code, deadlines::earliest};

/// Work that connections leave for the endpoint, and what they share.
#[derive(Debug, Default)]
pub(super) struct Queues {
    pub(super) blocks: Blocks,
    pub(super) events: VecDeque<Event>,
    /// Connections that may have packets to send.
    pub(super) transmit: VecDeque<ConnectionHandle>,
    /// Connections that may have events.
    pub(super) poll: VecDeque<ConnectionHandle>,
    /// Streams in active mode that may have bytes.
    pub(super) push: VecDeque<(ConnectionHandle, StreamId)>,
    /// Streams to forget once their last events were polled, and the owners of these asked for.
    pub(super) over: Vec<(ConnectionHandle, StreamId)>,
    /// End events: given when nothing else is left, so that each is the last of its connection.
    pub(super) ended: VecDeque<Event>,
}

impl Queues {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.transmit.is_empty()
            && self.poll.is_empty()
            && self.push.is_empty()
            && self.ended.is_empty()
            && self.over.is_empty()
    }
}

pub(super) struct Conn {
    pub(super) inner: quinn_proto::Connection,
    pub(super) quinn: quinn_proto::ConnectionHandle,
    pub(super) handle: ConnectionHandle,
    pub(super) side: Side,
    pub(super) owner: Owner,
    /// The owner holds a handle: the connection stays readable until it is released.
    pub(super) held: bool,
    pub(super) established: bool,
    /// The connection is over, the end event queued.
    pub(super) closed: bool,
    /// The end event was polled: no other may follow.
    pub(super) silent: bool,
    pub(super) drained: bool,
    pub(super) handshake_deadline: Option<Instant>,
    /// As it stands in the endpoint's index.
    pub(super) deadline: Option<Instant>,
    pub(super) in_transmit: bool,
    pub(super) in_poll: bool,
    pub(super) remote: SocketAddr,
    pub(super) accept: [Accept; 2],
    /// The owner was told of streams to accept, and has not found the queue empty since.
    pub(super) waiting: [bool; 2],
    /// The owner could not open a stream and waits for `StreamsAvailable`.
    pub(super) open_blocked: [bool; 2],
    pub(super) max_streams: [u64; 2],
    /// Granted at least, if that many are allowed.
    initial_streams: u64,
    pub(super) streams: BTreeMap<StreamId, StreamState>,
    pub(super) opened: u64,
    pub(super) accepted: u64,
    pub(super) turns: Turns,
}

impl Conn {
    pub(super) fn new(
        inner: quinn_proto::Connection,
        quinn: quinn_proto::ConnectionHandle,
        handshake_deadline: Instant,
        transport: &TransportConfig,
    ) -> Self {
        Self {
            side: inner.side().into(),
            remote: inner.remote_address(),
            inner,
            quinn,
            handle: ConnectionHandle::from_bits(0),
            owner: Owner::default(),
            held: false,
            established: false,
            closed: false,
            silent: false,
            drained: false,
            handshake_deadline: Some(handshake_deadline),
            deadline: None,
            in_transmit: false,
            in_poll: false,
            accept: [Accept::All; 2],
            waiting: [false; 2],
            open_blocked: [false; 2],
            max_streams: [transport.max_bidi_streams, transport.max_uni_streams],
            initial_streams: transport.initial_streams,
            streams: BTreeMap::new(),
            opened: 0,
            accepted: 0,
            turns: Turns::new(transport.send_window),
        }
    }

    /// Puts the connection on the list of those that may have packets to send.
    pub(super) fn wants_transmit(&mut self, queues: &mut Queues) {
        if !self.in_transmit && !self.drained {
            self.in_transmit = true;
            queues.transmit.push_back(self.handle);
        }
    }

    /// Puts the connection on the lists of those that may have events and packets to send.
    pub(super) fn touched(&mut self, queues: &mut Queues) {
        if !self.in_poll {
            self.in_poll = true;
            queues.poll.push_back(self.handle);
        }
        self.wants_transmit(queues);
    }

    /// The next moment at which the connection has to be woken.
    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        let inner = earliest(self.inner.poll_timeout(), self.handshake_deadline);
        earliest(inner, self.turns.next_deadline())
    }

    /// Turns quinn-proto's events into ours.
    pub(super) fn pump(&mut self, queues: &mut Queues) {
        while let Some(event) = self.inner.poll() {
            if !self.closed {
                self.on_event(event, queues);
            }
        }
        let remote = self.inner.remote_address();
        if remote != self.remote && !self.closed {
            self.remote = remote;
            queues.events.push_back(Event::PathChanged {
                conn: self.handle,
                remote,
            });
        }
    }

    /// Closes the connection: the peer is told, whatever else is on its way to it.
    pub(super) fn close(&mut self, now: Instant, code: Code, words: Bytes, reason: CloseReason, queues: &mut Queues) {
        if self.closed {
            return;
        }
        super::congestion::open(&self.inner);
        self.inner.close(now, code_to(code), words);
        self.end(reason, queues);
        self.touched(queues);
    }

    /// Queues the end event, once.
    pub(super) fn end(&mut self, reason: CloseReason, queues: &mut Queues) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.handshake_deadline = None;
        tracing::debug!(conn = %self.handle, %reason, "connection closed");
        for (id, state) in &mut self.streams {
            fail_queue(self.handle, *id, state, queues);
        }
        queues.ended.push_back(Event::Closed {
            conn: self.handle,
            reason,
            established: self.established,
        });
    }

    pub(super) fn stats(&self) -> ConnectionStats {
        let stats = self.inner.stats();
        ConnectionStats {
            datagrams_received: stats.udp_rx.datagrams,
            bytes_received: stats.udp_rx.bytes,
            datagrams_sent: stats.udp_tx.datagrams,
            bytes_sent: stats.udp_tx.bytes,
            rtt: stats.path.rtt,
            min_rtt: stats.path.min_rtt,
            congestion_window: stats.path.cwnd,
            congestion_events: stats.path.congestion_events,
            packets_sent: stats.path.sent_packets,
            packets_lost: stats.path.lost_packets,
            bytes_lost: stats.path.lost_bytes,
            black_holes: stats.path.black_holes_detected,
            datagram_size: stats.path.current_mtu,
            stream_frames_sent: stats.frame_tx.stream,
            stream_frames_received: stats.frame_rx.stream,
            streams_opened: self.opened,
            streams_accepted: self.accepted,
            streams_open: self.streams.len() as u64,
        }
    }

    pub(super) fn alpn(&self) -> Option<Bytes> {
        HandshakeInfo::of(self.inner.crypto_session()).alpn.map(Bytes::from)
    }

    /// Takes one stream that the peer opened.
    pub(super) fn accept_stream(&mut self, dir: Dir) -> Option<StreamId> {
        let Some(id) = self.inner.streams().accept(dir.into()) else {
            self.waiting[dir as usize] = false;
            return None;
        };
        let id = StreamId::from_quinn(id);
        let mut state = StreamState::new(id, self.side);
        state.readable = true;
        self.streams.insert(id, state);
        self.accepted += 1;
        Some(id)
    }

    /// Tells of a stop that came while the stream waited to be accepted.
    pub(super) fn tell_stopped(&mut self, id: StreamId, queues: &mut Queues) {
        if id.dir() == Dir::Bi
            && let Ok(Some(code)) = self.inner.send_stream(id.to_quinn()).stopped()
        {
            self.on_stopped(id, code, queues);
        }
    }

    /// Has a stream forgotten if it is over.
    pub(super) fn reap(&mut self, id: StreamId, queues: &mut Queues) {
        if self.streams.get(&id).is_some_and(StreamState::is_over) {
            queues.over.push((self.handle, id));
        }
    }

    /// Says that a stream is over, and forgets it the time after: until then its owner can be asked for.
    pub(super) fn forget_stream(&mut self, id: StreamId, queues: &mut Queues) {
        let Some(state) = self.streams.get_mut(&id).filter(|state| state.is_over()) else {
            return;
        };
        if self.silent || state.told_over {
            self.turns.leave(&mut state.turn);
            self.streams.remove(&id);
            return;
        }
        state.told_over = true;
        queues.events.push_back(Event::Over {
            conn: self.handle,
            stream: id,
        });
        queues.over.push((self.handle, id));
    }

    fn on_event(&mut self, event: quinn_proto::Event, queues: &mut Queues) {
        use quinn_proto::{Event as E, StreamEvent as S};
        match event {
            E::HandshakeDataReady | E::DatagramReceived | E::DatagramsUnblocked => {}
            E::Connected => self.on_connected(queues),
            E::ConnectionLost { reason } => self.end(CloseReason::from_quinn(reason), queues),
            E::Stream(S::Opened { dir }) => self.on_opened(dir.into(), queues),
            E::Stream(S::Available { dir }) => self.on_available(dir.into(), queues),
            E::Stream(S::Readable { id }) => self.on_readable(StreamId::from_quinn(id), queues),
            E::Stream(S::Writable { id }) => {
                let id = StreamId::from_quinn(id);
                if let Some(state) = self.streams.get_mut(&id) {
                    self.turns.there_is_room(id, state);
                }
            }
            E::Stream(S::Finished { id }) => self.on_delivered(StreamId::from_quinn(id), queues),
            E::Stream(S::Stopped { id, error_code }) => {
                self.on_stopped(StreamId::from_quinn(id), error_code, queues);
            }
        }
    }

    fn on_connected(&mut self, queues: &mut Queues) {
        self.established = true;
        self.handshake_deadline = None;
        if self.side.is_client() && !self.streams.is_empty() && !self.inner.accepted_0rtt() {
            self.streams.clear();
            self.turns.clear();
            queues.events.push_back(Event::EarlyDataRejected { conn: self.handle });
        }
        tracing::debug!(conn = %self.handle, remote = %self.remote, "connected");
        queues.events.push_back(Event::Connected {
            conn: self.handle,
            side: self.side,
            alpn: self.alpn(),
            remote: self.remote,
        });
        // The first allowance came with the handshake.
        self.on_available(Dir::Bi, queues);
        self.on_available(Dir::Uni, queues);
    }

    fn on_available(&mut self, dir: Dir, queues: &mut Queues) {
        if std::mem::take(&mut self.open_blocked[dir as usize]) {
            queues
                .events
                .push_back(Event::StreamsAvailable { conn: self.handle, dir });
        }
    }

    /// Accepts what the peer opened, or says that something waits.
    pub(super) fn on_opened(&mut self, dir: Dir, queues: &mut Queues) {
        match self.accept[dir as usize] {
            Accept::All => {
                while let Some(stream) = self.accept_stream(dir) {
                    queues.events.push_back(Event::StreamOpened {
                        conn: self.handle,
                        stream,
                    });
                    self.tell_stopped(stream, queues);
                }
            }
            Accept::OnDemand => {
                if !std::mem::replace(&mut self.waiting[dir as usize], true) {
                    queues
                        .events
                        .push_back(Event::StreamsWaiting { conn: self.handle, dir });
                }
            }
        }
        self.grant_more_streams(dir, queues);
    }

    pub(super) fn set_max_streams(&mut self, dir: Dir, most: u64, queues: &mut Queues) {
        self.max_streams[dir as usize] = most;
        let granted = self.inner.max_concurrent_streams(dir.into());
        let grant = most.min(granted.max(self.initial_streams));
        let grant = quinn_proto::VarInt::from_u64(grant).unwrap_or(quinn_proto::VarInt::MAX);
        self.inner.set_max_concurrent_streams(dir.into(), grant);
        self.grant_more_streams(dir, queues);
        self.wants_transmit(queues);
    }

    /// Makes the grant four times as large when half of it is in use, up to the configured maximum.
    fn grant_more_streams(&mut self, dir: Dir, queues: &mut Queues) {
        let granted = self.inner.max_concurrent_streams(dir.into());
        let most = self.max_streams[dir as usize];
        let open = self.inner.streams().remote_open_streams(dir.into());
        if granted < most && open.saturating_mul(2) >= granted {
            let more = granted.saturating_mul(4).clamp(1, most);
            let more = quinn_proto::VarInt::from_u64(more).unwrap_or(quinn_proto::VarInt::MAX);
            self.inner.set_max_concurrent_streams(dir.into(), more);
            self.wants_transmit(queues);
        }
    }

    fn on_readable(&mut self, id: StreamId, queues: &mut Queues) {
        let Some(state) = self.streams.get_mut(&id) else { return };
        if state.recv != RecvHalf::Open {
            return;
        }
        if let Ok(Some(code)) = self.inner.recv_stream(id.to_quinn()).received_reset() {
            let code = code_from(code);
            state.recv = RecvHalf::Reset(code);
            state.unread.clear();
            queues.events.push_back(Event::Reset {
                conn: self.handle,
                stream: id,
                code,
            });
            self.reap(id, queues);
            self.wants_transmit(queues);
            return;
        }
        self.announce(id, queues);
    }

    /// Has bytes that are there pushed, or tells the owner of them.
    pub(super) fn announce(&mut self, id: StreamId, queues: &mut Queues) {
        let Some(state) = self.streams.get_mut(&id) else { return };
        if !state.active.is_passive() {
            if !std::mem::replace(&mut state.pushing, true) {
                queues.push.push_back((self.handle, id));
            }
        } else if !self.silent && !std::mem::replace(&mut state.readable, true) {
            queues.events.push_back(Event::Readable {
                conn: self.handle,
                stream: id,
            });
        }
    }

    /// Tells those streams of room to send whose turn it is.
    pub(super) fn hand_out_room(&mut self, now: Option<Instant>, queues: &mut Queues) {
        if self.closed {
            return;
        }
        while let Some(id) = self.turns.next(now, &mut self.streams) {
            self.flush(id, queues);
            let Some(state) = self.streams.get_mut(&id) else {
                continue;
            };
            if state.queue.is_empty() && std::mem::replace(&mut state.write_blocked, false) {
                self.turns.told(id, &mut state.turn);
                queues.events.push_back(Event::Writable {
                    conn: self.handle,
                    stream: id,
                });
            }
        }
    }

    fn on_delivered(&mut self, id: StreamId, queues: &mut Queues) {
        let Some(state) = self.streams.get_mut(&id) else { return };
        if state.send == SendHalf::Finishing {
            state.send = SendHalf::Closed;
            queues.events.push_back(Event::Delivered {
                conn: self.handle,
                stream: id,
            });
        }
        self.reap(id, queues);
    }

    /// The peer stopped the stream: it is reset with the peer's own code, as RFC 9000 §3.5 asks for.
    fn on_stopped(&mut self, id: StreamId, code: quinn_proto::VarInt, queues: &mut Queues) {
        let Some(state) = self.streams.get_mut(&id) else { return };
        if matches!(state.send, SendHalf::Closed | SendHalf::Stopped(_)) {
            return;
        }
        let _ = self.inner.send_stream(id.to_quinn()).reset(code);
        state.send = SendHalf::Stopped(code_from(code));
        state.write_blocked = false;
        self.turns.leave(&mut state.turn);
        fail_queue(self.handle, id, state, queues);
        queues.events.push_back(Event::Stopped {
            conn: self.handle,
            stream: id,
            code: code_from(code),
        });
        self.reap(id, queues);
        self.wants_transmit(queues);
    }

    /// Moves queued bytes into the transport, as many as it takes.
    pub(super) fn flush(&mut self, id: StreamId, queues: &mut Queues) {
        let Some(state) = self.streams.get_mut(&id) else { return };
        if state.queue.is_empty() && state.send != SendHalf::FinishQueued {
            return;
        }
        let mut stream = self.inner.send_stream(id.to_quinn());
        while let Some(front) = state.queue.front_mut() {
            if !self.turns.may_write(id, &mut state.turn) {
                break;
            }
            let Ok(written) = stream.write_chunks(std::slice::from_mut(front)) else {
                self.turns.found_none(&mut state.turn);
                break;
            };
            self.turns.wrote(&mut state.turn, written.bytes as u64);
            state.stats.bytes_written += written.bytes as u64;
            state.stats.bytes_queued -= written.bytes as u64;
            if written.chunks == 1 {
                state.queue.pop_front();
            }
        }
        if state.queue.is_empty() && state.send == SendHalf::FinishQueued && stream.finish().is_ok() {
            state.send = SendHalf::Finishing;
        }
        self.wants_transmit(queues);
    }
}

/// Drops what is queued on a stream that takes nothing any more, and says so.
pub(super) fn fail_queue(conn: ConnectionHandle, id: StreamId, state: &mut StreamState, queues: &mut Queues) {
    let lost: usize = state.queue.drain(..).map(|bytes| bytes.len()).sum();
    state.stats.bytes_queued = 0;
    if lost > 0 {
        queues.events.push_back(Event::SendFailed { conn, stream: id, lost });
    }
}
