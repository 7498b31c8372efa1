//! Bytes through tunnels and plain connections: what goes in comes out, in order, all of it or a beginning.

use std::{collections::BTreeMap, sync::OnceLock, time::Duration};

use bytes::Bytes;
use macula_proto::{
    Code,
    quic::{ConnectionHandle, Dir, ReadError, Side, StreamId, WriteError},
    tunnel::client::session::RequestId,
};

use super::{Run, Start, boot, plan::Transfer};

/// Bytes that say which transfer this is, and how much comes behind them.
pub(super) const HEADER: u64 = 16;
/// What a side gives up with.
pub(super) const GIVEN_UP: Code = match Code::new(0x77) {
    Some(code) => code,
    None => Code::CANCELLED,
};
/// Why there is no stream, if none could be expected.
pub(super) const EXCUSED: &str = "no wonder";
/// A prime, so that every offset has content of its own.
const NOISE: usize = 65_521;

type Place = (Start, ConnectionHandle, StreamId);

#[derive(Debug, Default)]
pub(super) struct Streams {
    transfers: Vec<State>,
    by_number: BTreeMap<usize, usize>,
    requests: BTreeMap<(Start, RequestId), usize>,
    /// Dials of plain connections.
    dials: BTreeMap<(Start, ConnectionHandle), usize>,
    places: BTreeMap<Place, Known>,
    bytes: u64,
    early: [u64; 2],
}

#[derive(Debug)]
enum Known {
    /// Whose header is not there yet.
    New(Vec<u8>),
    Side(usize, usize),
}

#[derive(Debug)]
struct State {
    transfer: Transfer,
    plain: bool,
    /// The request, or dial, has no outcome yet.
    pending: Option<Start>,
    failed: Option<String>,
    /// When it was asked for.
    begun: Duration,
    sides: [Half; 2],
    paused: bool,
}

/// One side of a transfer.
#[derive(Debug, Default)]
struct Half {
    place: Option<Place>,
    sent: u64,
    sent_end: Option<String>,
    received: u64,
    received_end: Option<String>,
    finished: bool,
}

impl Half {
    fn give_up(&mut self, why: &str) {
        self.sent_end.get_or_insert_with(|| why.to_owned());
        self.received_end.get_or_insert_with(|| why.to_owned());
    }

    fn is_over(&self) -> bool {
        self.place.is_none() || self.sent_end.is_some() && self.received_end.is_some()
    }
}

impl State {
    fn total(&self, side: usize) -> u64 {
        HEADER + self.transfer.lengths[side]
    }

    fn is_over(&self) -> bool {
        self.pending.is_none() && self.sides.iter().all(Half::is_over)
    }

    /// Both sides have sent everything, and the one that is not paused has everything.
    fn has_arrived(&self) -> bool {
        let sent = |side: usize| self.sides[side].sent_end.as_deref() == Some("finished");
        sent(0) && sent(1) && self.sides[0].finished && self.sides[0].received == self.total(1)
    }

    fn is_complete(&self) -> bool {
        let whole = |side: usize| self.sides[side].finished && self.sides[side].received == self.total(1 - side);
        whole(0) && whole(1)
    }
}

fn noise() -> &'static [u8] {
    static NOISE_BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE_BYTES.get_or_init(|| {
        let mut bytes = vec![0; NOISE];
        macula_proto::Rng::from_seed(1).fill(&mut bytes);
        bytes.extend_from_within(..);
        bytes
    })
}

/// What a side of a transfer sends from an offset on.
pub(super) fn content(number: usize, side: usize, total: u64, offset: u64) -> Bytes {
    if offset < HEADER {
        let mut header = (number as u64 * 2 + side as u64).to_be_bytes().to_vec();
        header.extend((total - HEADER).to_be_bytes());
        return Bytes::from(header).slice(offset as usize..);
    }
    let from = (number * 7919 + side * 31 + offset as usize) % NOISE;
    let length = (total - offset).min(NOISE as u64).min(16 << 10) as usize;
    Bytes::from_static(&noise()[from..from + length])
}

impl Streams {
    pub(super) fn count(&self) -> u64 {
        self.transfers.iter().filter(|state| state.is_complete()).count() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn early(&self) -> [u64; 2] {
        self.early
    }

    pub(super) fn is_content(&self) -> bool {
        let unknown = self.places.values().any(|known| matches!(known, Known::New(_)));
        !unknown && self.transfers.iter().all(State::is_over)
    }

    pub(super) fn open(&self) -> Vec<String> {
        let open = self.transfers.iter().filter(|state| !state.is_over());
        let mut open: Vec<_> = open.map(|state| format!("{state:?}")).collect();
        let new = self.places.iter().filter(|(_, known)| matches!(known, Known::New(_)));
        open.extend(new.map(|(place, _)| format!("a stream without a header: {place:?}")));
        open
    }

    /// Those that did not succeed though nothing was in their way. `drained`: relays have left, and with them the connections of nodes
    /// whose tunnels were over, even if the program had not yet read all that had arrived.
    pub(super) fn incomplete(&self, drained: bool) -> Option<String> {
        let wanting = self.transfers.iter().find(|state| {
            let unread = drained && !state.plain && state.transfer.paused && state.has_arrived();
            let excused = state.transfer.abort.is_some() || state.failed.as_deref() == Some(EXCUSED) || unread;
            !excused && !state.is_complete()
        });
        wanting.map(|state| format!("incomplete: {state:?}"))
    }

    pub(super) fn gone(&mut self, start: Start) {
        self.lose(|place| place.0 == start);
        for state in &mut self.transfers {
            if state.pending == Some(start) {
                state.pending = None;
            }
        }
        self.requests.retain(|(at, _), _| *at != start);
        self.dials.retain(|(at, _), _| *at != start);
    }

    pub(super) fn connection_lost(&mut self, start: Start, conn: ConnectionHandle, why: &str) {
        if let Some(index) = self.dials.remove(&(start, conn)) {
            self.transfers[index].pending = None;
            self.transfers[index].failed = Some(why.to_owned());
        }
        self.lose(|place| (place.0, place.1) == (start, conn));
    }

    fn lose(&mut self, which: impl Fn(&Place) -> bool) {
        self.places.retain(|place, known| {
            if !which(place) {
                return true;
            }
            if let Known::Side(index, side) = *known {
                self.transfers[index].sides[side].give_up("lost");
            }
            false
        });
    }
}

impl Run {
    pub(super) fn open_tunnel(&mut self, transfer: Transfer) {
        if self.plan.call_tunnels {
            return self.open_call_tunnel(transfer.from, transfer.to);
        }
        let start = self.start_of(transfer.from);
        let index = self.begin(transfer, false);
        let state = &mut self.streams.transfers[index];
        let Some(client) = self.hosts[start.0.get() as usize].client else {
            return;
        };
        let name = boot::name(state.transfer.to);
        let asked = self
            .world
            .with(start.0, |endpoint, now| endpoint.open_tunnel(now, client, name));
        if let Ok(Ok(request)) = asked {
            state.pending = Some(start);
            self.streams.requests.insert((start, request), index);
        }
    }

    pub(super) fn open_plain(&mut self, transfer: Transfer) {
        let start = self.start_of(transfer.from);
        let to = self.world.address(transfer.to);
        let index = self.begin(transfer, true);
        let dial = self.plain_dial_config(start.0);
        let dialled = self.world.with(start.0, |endpoint, now| {
            endpoint.quic().connect(now, &dial?, to, "host").ok()
        });
        if let Ok(Some(conn)) = dialled {
            self.streams.transfers[index].pending = Some(start);
            self.streams.dials.insert((start, conn), index);
            let early = self.world.with(start.0, |endpoint, _| {
                let mut conn = endpoint.quic().connection(conn).ok()?;
                conn.has_early_data().then(|| conn.open(Dir::Bi).ok()).flatten()
            });
            if let Ok(Some(stream)) = early {
                self.attach(index, 0, (start, conn, stream));
            }
        }
    }

    /// What was sent early is lost; the streams are gone, and their ids are used again.
    pub(super) fn early_data_rejected(&mut self, start: Start, conn: ConnectionHandle) {
        let Some(index) = self.streams.dials.get(&(start, conn)).copied() else {
            return self.fail(format!("{}: nothing was sent early on {conn:?}", start.0));
        };
        self.streams.early[1] += 1;
        self.streams
            .places
            .retain(|place, _| (place.0, place.1) != (start, conn));
        let half = &mut self.streams.transfers[index].sides[0];
        if half.received > 0 {
            return self.fail(format!("{}: an answer to what was rejected", start.0));
        }
        *half = Half::default();
    }

    fn begin(&mut self, transfer: Transfer, plain: bool) -> usize {
        let streams = &mut self.streams;
        let index = streams.transfers.len();
        streams.by_number.insert(transfer.number, index);
        streams.transfers.push(State {
            paused: transfer.paused,
            transfer,
            plain,
            pending: None,
            failed: None,
            begun: self.world.elapsed(),
            sides: Default::default(),
        });
        index
    }

    pub(super) fn tunnel_opened(&mut self, start: Start, request: RequestId, conn: ConnectionHandle, stream: StreamId) {
        if self.call_tunnel_opened(start, request, conn, stream) {
            return;
        }
        let Some(index) = self.streams.requests.remove(&(start, request)) else {
            return self.fail(format!("{}: a tunnel that nobody waits for", start.0));
        };
        let state = &mut self.streams.transfers[index];
        state.pending = None;
        let took = self.world.elapsed() - state.begun;
        let bound = self.plan.latency_bound(&[state.transfer.from, state.transfer.to]);
        if self.plan.gentle && !self.drains.any() && took > bound {
            return self.fail(format!("{}: a tunnel took {took:?} to open", start.0));
        }
        self.attach(index, 0, (start, conn, stream));
    }

    pub(super) fn tunnel_failed(&mut self, start: Start, request: RequestId, why: &str) {
        if self.call_tunnel_failed(start, request) {
            return;
        }
        let Some(index) = self.streams.requests.remove(&(start, request)) else {
            return self.fail(format!("{}: a failure that nobody waits for: {why}", start.0));
        };
        let early = self.world.elapsed().as_secs() < 15;
        let excused = early || self.drains.any() || (self.plan.scattered && why.contains("target_not_connected"));
        let state = &mut self.streams.transfers[index];
        state.pending = None;
        state.failed = Some(if excused { EXCUSED } else { why }.to_owned());
    }

    pub(super) fn tunnel_arrived(&mut self, start: Start, conn: ConnectionHandle, stream: StreamId) {
        if self.plan.call_tunnels {
            return self.call_tunnel_arrived(start, conn, stream);
        }
        self.streams
            .places
            .insert((start, conn, stream), Known::New(Vec::new()));
        self.read(start, conn, stream);
    }

    pub(super) fn plain_connected(&mut self, start: Start, conn: ConnectionHandle, side: Side) {
        if side == Side::Server {
            return;
        }
        let Some(index) = self.streams.dials.remove(&(start, conn)) else {
            return;
        };
        self.streams.transfers[index].pending = None;
        if self.streams.transfers[index].sides[0].place.is_some() {
            self.streams.early[0] += 1;
            let taken = self.world.with(start.0, |endpoint, _| {
                // It may have ended since.
                let conn = endpoint.quic().connection(conn).ok()?;
                Some(conn.accepted_early_data())
            });
            // Nothing is left to be told of a stream that was given up.
            let over = self.streams.transfers[index].sides[0].is_over();
            if taken == Ok(Some(false)) && !over {
                self.fail(format!("{}: early data neither taken nor rejected", start.0));
            }
            return;
        }
        let opened = self.world.with(start.0, |endpoint, _| {
            endpoint.quic().connection(conn).ok()?.open(Dir::Bi).ok()
        });
        match opened {
            Ok(Some(stream)) => self.attach(index, 0, (start, conn, stream)),
            other => self.fail(format!("{}: no stream on a new connection: {other:?}", start.0)),
        }
    }

    pub(super) fn plain_arrived(&mut self, start: Start, conn: ConnectionHandle, stream: StreamId) {
        self.streams
            .places
            .insert((start, conn, stream), Known::New(Vec::new()));
        self.read(start, conn, stream);
    }

    fn attach(&mut self, index: usize, side: usize, place: Place) {
        self.streams.places.insert(place, Known::Side(index, side));
        let half = &mut self.streams.transfers[index].sides[side];
        if half.place.replace(place).is_some() {
            return self.fail(format!("transfer {index}: side {side} came twice"));
        }
        self.write(place.0, place.1, place.2);
        self.read(place.0, place.1, place.2);
    }

    pub(super) fn resume(&mut self, number: usize) {
        let Some(index) = self.streams.by_number.get(&number).copied() else {
            return;
        };
        let state = &mut self.streams.transfers[index];
        state.paused = false;
        if let Some((start, conn, stream)) = state.sides[1].place {
            self.read(start, conn, stream);
        }
    }

    // ----- sending -------------------------------------------------------------------------------------------------

    pub(super) fn write(&mut self, start: Start, conn: ConnectionHandle, stream: StreamId) {
        let Some(Known::Side(index, side)) = self.streams.places.get(&(start, conn, stream)) else {
            return;
        };
        let (index, side) = (*index, *side);
        let state = &mut self.streams.transfers[index];
        let total = state.total(side);
        let number = state.transfer.number;
        let abort = state
            .transfer
            .abort
            .filter(|(who, _)| *who == side)
            .map(|(_, after)| after);
        let client = self.hosts[start.0.get() as usize]
            .client
            .filter(|_| !state.plain && number.is_multiple_of(2));
        let half = &mut state.sides[side];
        if half.sent_end.is_some() {
            return;
        }
        let ended = self.world.with(start.0, |endpoint, now| {
            if abort.is_some_and(|after| half.sent >= after) {
                let closed = client.map(|client| endpoint.close_tunnel(now, client, stream, GIVEN_UP));
                if !matches!(closed, Some(Ok(true)))
                    && let Ok(mut conn) = endpoint.quic().connection(conn)
                    && let Ok(mut stream) = conn.stream(stream)
                {
                    stream.abort(GIVEN_UP);
                }
                return Some("gave up");
            }
            let Ok(mut conn) = endpoint.quic().connection(conn) else {
                return Some("lost");
            };
            let Ok(mut stream) = conn.stream(stream) else {
                return Some("over");
            };
            while half.sent < total {
                let mut most = content(number, side, total, half.sent);
                if let Some(after) = abort {
                    most.truncate((after - half.sent.min(after)).max(1) as usize);
                }
                match stream.write(&most) {
                    Ok(sent) => half.sent += sent as u64,
                    Err(WriteError::Blocked) => return None,
                    Err(_) => return Some("write"),
                }
                if abort.is_some_and(|after| half.sent >= after) {
                    stream.abort(GIVEN_UP);
                    return Some("gave up");
                }
            }
            Some(stream.finish().map_or("finish", |()| "finished"))
        });
        match ended {
            Ok(Some("gave up")) => half.give_up("gave up"),
            Ok(Some(why)) => half.sent_end = Some(why.to_owned()),
            Ok(None) | Err(_) => {}
        }
    }

    pub(super) fn was_stopped(&mut self, start: Start, conn: ConnectionHandle, stream: StreamId) {
        if let Some(Known::Side(index, side)) = self.streams.places.get(&(start, conn, stream)) {
            let half = &mut self.streams.transfers[*index].sides[*side];
            half.sent_end.get_or_insert_with(|| "stopped".to_owned());
        }
    }

    // ----- receiving -----------------------------------------------------------------------------------------------

    pub(super) fn read(&mut self, start: Start, conn: ConnectionHandle, stream: StreamId) {
        let place = (start, conn, stream);
        loop {
            match self.streams.places.get(&place) {
                None => return,
                Some(Known::Side(index, side)) => {
                    let state = &self.streams.transfers[*index];
                    if state.sides[*side].received_end.is_some() || (*side == 1 && state.paused) {
                        return;
                    }
                }
                Some(Known::New(_)) => {}
            }
            let read = self.world.with(start.0, |endpoint, _| {
                let mut conn = endpoint
                    .quic()
                    .connection(conn)
                    .map_err(|_| ReadError::ConnectionLost)?;
                let mut stream = conn.stream(stream).map_err(|_| ReadError::Closed)?;
                stream.read_chunk(usize::MAX)
            });
            match read {
                Ok(Ok(Some(bytes))) => self.received(place, &bytes),
                Ok(Err(ReadError::Blocked)) | Err(_) => return,
                Ok(Ok(None)) => return self.receive_end(place, "finished"),
                Ok(Err(error)) => return self.receive_end(place, &error.to_string()),
            }
        }
    }

    pub(super) fn was_reset(&mut self, start: Start, conn: ConnectionHandle, stream: StreamId, code: Code) {
        let place = (start, conn, stream);
        if let Some(Known::Side(index, side)) = self.streams.places.get(&place) {
            let state = &self.streams.transfers[*index];
            let wanted = state.transfer.abort.is_some_and(|(who, _)| who != *side);
            if (state.plain || self.plan.gentle) && !(wanted && code == GIVEN_UP) {
                return self.fail(format!("reset with {code} out of nowhere: {state:?}"));
            }
        }
        self.receive_end(place, "reset");
    }

    fn received(&mut self, place: Place, bytes: &Bytes) {
        let (index, side, bytes) = match self.streams.places.get_mut(&place) {
            Some(Known::Side(index, side)) => (*index, *side, bytes.clone()),
            Some(Known::New(header)) => {
                header.extend_from_slice(bytes);
                let Some(key) = header.first_chunk::<8>() else {
                    return;
                };
                let key = u64::from_be_bytes(*key) as usize;
                let all = Bytes::copy_from_slice(header);
                let Some(index) = self
                    .streams
                    .by_number
                    .get(&(key / 2))
                    .copied()
                    .filter(|_| key.is_multiple_of(2))
                else {
                    return self.fail(format!("{}: bytes of nobody: {key}", place.0.0));
                };
                self.check_receives(index, 1, &all);
                // It is paused from here on, if it is to be.
                self.attach(index, 1, place);
                return;
            }
            None => return,
        };
        self.check_receives(index, side, &bytes);
    }

    fn check_receives(&mut self, index: usize, side: usize, bytes: &[u8]) {
        self.streams.bytes += bytes.len() as u64;
        let state = &mut self.streams.transfers[index];
        let total = state.total(1 - side);
        let number = state.transfer.number;
        let half = &mut state.sides[side];
        let mut bytes = bytes;
        while !bytes.is_empty() {
            if half.received >= total {
                let what = format!("more bytes than were sent: {state:?}");
                return self.fail(what);
            }
            let expected = content(number, 1 - side, total, half.received);
            let length = expected.len().min(bytes.len());
            if bytes[..length] != expected[..length] {
                let what = format!("other bytes than were sent: {state:?}");
                return self.fail(what);
            }
            bytes = &bytes[length..];
            half.received += length as u64;
        }
    }

    fn receive_end(&mut self, place: Place, why: &str) {
        let Some(known) = self.streams.places.get(&place) else {
            return;
        };
        let Known::Side(index, side) = *known else {
            // It ended before anybody could know what it was.
            self.streams.places.remove(&place);
            self.abandon(place);
            return;
        };
        let state = &mut self.streams.transfers[index];
        let total = state.total(1 - side);
        let half = &mut state.sides[side];
        if half.received_end.is_some() {
            return;
        }
        half.received_end = Some(why.to_owned());
        if why == "finished" {
            half.finished = true;
            if half.received != total {
                let what = format!("a good end too early: {state:?}");
                self.fail(what);
            }
        }
    }

    /// Ends what is left of a stream that is of no use.
    fn abandon(&mut self, (start, conn, stream): Place) {
        // It may be gone already.
        let _ = self.world.with(start.0, |endpoint, _| {
            let mut conn = endpoint.quic().connection(conn).ok()?;
            conn.stream(stream).ok()?.abort(GIVEN_UP);
            Some(())
        });
    }

    pub(super) fn stream_over(&mut self, start: Start, conn: ConnectionHandle, stream: StreamId) {
        let place = (start, conn, stream);
        match self.streams.places.remove(&place) {
            Some(Known::Side(index, side)) => {
                let state = &self.streams.transfers[index];
                if !state.sides[side].is_over() {
                    self.fail(format!("forgotten before its end: side {side} of {state:?}"));
                }
            }
            Some(Known::New(_)) | None => {}
        }
    }
}
