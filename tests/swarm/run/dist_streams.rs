//! Streams of programs beside the messages of Erlang distribution: what goes in comes out, in order, all of it or a beginning.

use std::collections::BTreeMap;

use bytes::Bytes;
use macula_proto::{
    Code,
    dist::user::{Owner, Priority, UserError, UserEvent},
    endpoint::{DistId, DistStreamError},
    quic::StreamId,
};

use super::{
    Run, Start,
    plan::DistStream,
    streams::{GIVEN_UP, HEADER, content},
};

/// Who opens streams, and who is handed some.
const PROGRAM: Owner = Owner(1);
const OTHER: Owner = Owner(2);

type Place = (Start, DistId, StreamId);

#[derive(Debug, Default)]
pub(super) struct DistStreams {
    transfers: Vec<State>,
    places: BTreeMap<Place, Known>,
    bytes: u64,
}

#[derive(Debug, Clone)]
struct Known {
    owner: Owner,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    /// Whose header is not there yet.
    New(Vec<u8>),
    Side(usize, usize),
}

#[derive(Debug)]
struct State {
    stream: DistStream,
    sides: [Half; 2],
}

/// One side of a stream.
#[derive(Debug, Default)]
struct Half {
    place: Option<Place>,
    sent: u64,
    sent_end: Option<&'static str>,
    received: u64,
    received_end: Option<&'static str>,
}

/// Ends that nothing but the end of the connection explains.
const LOST: &str = "lost";
const FINISHED: &str = "finished";
/// Nobody took it yet.
const REFUSED: &str = "refused";

impl Half {
    fn end(&mut self, why: &'static str) {
        self.sent_end.get_or_insert(why);
        self.received_end.get_or_insert(why);
    }

    fn is_over(&self) -> bool {
        self.place.is_none() || self.sent_end.is_some() && self.received_end.is_some()
    }
}

impl State {
    fn total(&self, side: usize) -> u64 {
        HEADER + self.stream.lengths[side]
    }

    fn is_complete(&self) -> bool {
        let whole = |side: usize| {
            let half = &self.sides[side];
            half.received_end == Some(FINISHED) && half.received == self.total(1 - side)
        };
        whole(0) && whole(1)
    }
}

impl DistStreams {
    pub(super) fn count(&self) -> u64 {
        self.transfers.iter().filter(|state| state.is_complete()).count() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_content(&self) -> bool {
        let mut known = self.places.values();
        !known.any(|known| matches!(known.what, What::New(_)))
            && self.transfers.iter().all(|state| state.sides.iter().all(Half::is_over))
    }

    pub(super) fn open(&self) -> Vec<String> {
        let open = self.transfers.iter();
        let open = open.filter(|state| !state.sides.iter().all(Half::is_over));
        let new = self
            .places
            .iter()
            .filter(|(_, known)| matches!(known.what, What::New(_)));
        let new = new.map(|(place, _)| format!("a stream of a node without a header: {place:?}"));
        open.map(|state| format!("{state:?}")).chain(new).collect()
    }

    /// Those that did not succeed though nothing was in their way: their connection did not end before.
    pub(super) fn incomplete(&self) -> Option<String> {
        let wanting = self.transfers.iter().find(|state| {
            let lost = |half: &Half| half.sent_end == Some(LOST) || matches!(half.received_end, Some(LOST | REFUSED));
            let excused = state.stream.abort.is_some() || state.sides.iter().any(lost);
            !excused && !state.is_complete()
        });
        wanting.map(|state| format!("incomplete: {state:?}"))
    }

    pub(super) fn gone(&mut self, start: Start) {
        self.lose(|place| place.0 == start);
    }

    pub(super) fn connection_over(&mut self, start: Start, dist: DistId) {
        self.lose(|place| (place.0, place.1) == (start, dist));
    }

    fn lose(&mut self, which: impl Fn(&Place) -> bool) {
        self.places.retain(|place, known| {
            if !which(place) {
                return true;
            }
            if let What::Side(index, side) = known.what {
                self.transfers[index].sides[side].end(LOST);
            }
            false
        });
    }

    /// Forgets where a stream is that is over on this side.
    fn tidy(&mut self, place: Place) {
        if let Some(Known {
            what: What::Side(index, side),
            ..
        }) = self.places.get(&place)
            && self.transfers[*index].sides[*side].is_over()
        {
            self.places.remove(&place);
        }
    }
}

impl Run {
    /// The program of a host takes streams on a connection.
    pub(super) fn accept_dist_streams(&mut self, start: Start, dist: DistId) {
        let accepting = self
            .world
            .with(start.0, |endpoint, _| endpoint.dist_accept_streams(dist, PROGRAM));
        // It may be over again by now.
        if !matches!(accepting, Ok(Ok(()) | Err(DistStreamError::UnknownConnection))) {
            self.fail(format!("{}: no streams on {dist:?}: {accepting:?}", start.0));
        }
    }

    pub(super) fn open_dist_stream(&mut self, stream: DistStream) {
        let start = self.start_of(stream.from);
        let Some(dist) = self.messages.usable(start) else {
            return;
        };
        let priority = Priority::clamped(stream.priority);
        let opened = self.world.with(start.0, |endpoint, now| {
            endpoint.dist_open_stream(now, dist, PROGRAM, priority)
        });
        match opened {
            Ok(Ok(id)) => {
                let index = self.dist_streams.transfers.len();
                let sides = Default::default();
                self.dist_streams.transfers.push(State { stream, sides });
                self.attach_dist_stream(index, 0, (start, dist, id), PROGRAM);
            }
            // As many as the other side allows, or it is just ending.
            Ok(Err(DistStreamError::Blocked | DistStreamError::ConnectionLost | DistStreamError::User(_))) | Err(_) => {
            }
            Ok(Err(error)) => self.fail(format!("{}: no stream on {dist:?}: {error}", start.0)),
        }
    }

    fn attach_dist_stream(&mut self, index: usize, side: usize, place: Place, owner: Owner) {
        let what = What::Side(index, side);
        self.dist_streams.places.insert(place, Known { owner, what });
        let half = &mut self.dist_streams.transfers[index].sides[side];
        if half.place.replace(place).is_some() {
            return self.fail(format!("stream {index} of a node: side {side} came twice"));
        }
        self.write_dist_stream(place);
        self.read_dist_stream(place);
    }

    pub(super) fn on_dist_stream(&mut self, place: Place, owner: Owner, event: UserEvent) {
        match event {
            UserEvent::Accepted => {
                let what = What::New(Vec::new());
                if self.dist_streams.places.insert(place, Known { owner, what }).is_some() {
                    return self.fail(format!("{place:?} came twice"));
                }
                // Some are handed to somebody else before anything was read.
                if place.2.get().is_multiple_of(3) {
                    return self.hand_over_dist_stream(place);
                }
                self.read_dist_stream(place);
            }
            UserEvent::HandedOver | UserEvent::Readable => self.read_dist_stream(place),
            UserEvent::Writable => self.write_dist_stream(place),
            UserEvent::Reset(code) => self.dist_stream_reset(place, code),
            UserEvent::Stopped(_) => {
                if let Some(Known {
                    what: What::Side(index, side),
                    ..
                }) = self.dist_streams.places.get(&place)
                {
                    let half = &mut self.dist_streams.transfers[*index].sides[*side];
                    half.sent_end.get_or_insert("stopped");
                }
                self.dist_streams.tidy(place);
            }
            _ => {}
        }
    }

    fn hand_over_dist_stream(&mut self, place: Place) {
        let (start, dist, stream) = place;
        let handed = self.world.with(start.0, |endpoint, now| {
            endpoint.dist_hand_over(now, dist, stream, PROGRAM, OTHER)
        });
        match handed {
            Ok(Ok(())) => {
                if let Some(known) = self.dist_streams.places.get_mut(&place) {
                    known.owner = OTHER;
                }
            }
            // Its end is told of next.
            Ok(Err(DistStreamError::UnknownConnection | DistStreamError::User(UserError::Unknown))) => {}
            other => self.fail(format!("{place:?} cannot be handed over: {other:?}")),
        }
    }

    // ----- sending -------------------------------------------------------------------------------------------------

    fn write_dist_stream(&mut self, place: Place) {
        let (start, dist, stream) = place;
        let Some(Known {
            owner,
            what: What::Side(index, side),
        }) = self.dist_streams.places.get(&place).cloned()
        else {
            return;
        };
        let state = &mut self.dist_streams.transfers[index];
        let total = state.total(side);
        let abort = state.stream.abort.filter(|(who, _)| *who == side);
        let abort = abort.map(|(_, after)| after);
        let half = &mut state.sides[side];
        if half.sent_end.is_some() {
            return;
        }
        let ended = self.world.with(start.0, |endpoint, now| {
            loop {
                if abort.is_some_and(|after| half.sent >= after) {
                    // It may be over already.
                    let _ = endpoint.dist_stream_reset(now, dist, stream, owner, GIVEN_UP);
                    return Some("gave up");
                }
                if half.sent >= total {
                    let finished = endpoint.dist_stream_finish(now, dist, stream, owner);
                    return Some(finished.map_or("finish", |()| FINISHED));
                }
                let mut next = content(index, side, total, half.sent);
                if let Some(after) = abort {
                    next.truncate((after - half.sent).max(1) as usize);
                }
                match endpoint.dist_stream_write(dist, stream, owner, &mut next) {
                    Ok(0) | Err(DistStreamError::Blocked) => return None,
                    Ok(sent) => half.sent += sent as u64,
                    Err(DistStreamError::Stopped(_)) => return Some("stopped"),
                    Err(_) => return Some("write"),
                }
            }
        });
        match ended {
            Ok(Some("gave up")) => half.end("gave up"),
            Ok(Some(why)) => _ = half.sent_end.get_or_insert(why),
            Ok(None) | Err(_) => {}
        }
        self.dist_streams.tidy(place);
    }

    // ----- receiving -----------------------------------------------------------------------------------------------

    fn read_dist_stream(&mut self, place: Place) {
        let (start, dist, stream) = place;
        loop {
            let Some(known) = self.dist_streams.places.get(&place) else {
                return;
            };
            if let What::Side(index, side) = known.what
                && self.dist_streams.transfers[index].sides[side].received_end.is_some()
            {
                return;
            }
            let owner = known.owner;
            let read = self.world.with(start.0, |endpoint, now| {
                endpoint.dist_stream_read(now, dist, stream, owner, usize::MAX)
            });
            match read {
                Err(_) | Ok(Err(DistStreamError::Blocked)) => return,
                Ok(Ok(Some(bytes))) => self.dist_stream_received(place, &bytes),
                Ok(Ok(None)) => return self.dist_stream_received_end(place, FINISHED),
                Ok(Err(DistStreamError::Reset(code))) => return self.dist_stream_reset(place, code),
                Ok(Err(DistStreamError::ConnectionLost | DistStreamError::UnknownConnection)) => {
                    return self.dist_stream_received_end(place, LOST);
                }
                // It was reset and stopped, which is told of next.
                Ok(Err(DistStreamError::User(UserError::Unknown))) => return,
                Ok(Err(error)) => return self.fail(format!("{place:?} cannot be read: {error}")),
            }
            if self.failure.is_some() {
                return;
            }
        }
    }

    fn dist_stream_received(&mut self, place: Place, bytes: &Bytes) {
        let Some(known) = self.dist_streams.places.get_mut(&place) else {
            return;
        };
        let owner = known.owner;
        let (index, side) = match &mut known.what {
            What::Side(index, side) => (*index, *side),
            What::New(header) => {
                header.extend_from_slice(bytes);
                let Some(key) = header.first_chunk::<8>() else {
                    return;
                };
                let key = u64::from_be_bytes(*key);
                let all = Bytes::copy_from_slice(header);
                let index = usize::try_from(key / 2).unwrap_or(usize::MAX);
                if !key.is_multiple_of(2) || index >= self.dist_streams.transfers.len() {
                    return self.fail(format!("{place:?}: bytes of nobody: {key}"));
                }
                self.check_dist_stream(index, 1, &all);
                return self.attach_dist_stream(index, 1, place, owner);
            }
        };
        self.check_dist_stream(index, side, bytes);
    }

    fn check_dist_stream(&mut self, index: usize, side: usize, mut bytes: &[u8]) {
        self.dist_streams.bytes += bytes.len() as u64;
        let state = &mut self.dist_streams.transfers[index];
        let total = state.total(1 - side);
        let half = &mut state.sides[side];
        while !bytes.is_empty() {
            let expected = match half.received < total {
                true => content(index, 1 - side, total, half.received),
                false => Bytes::new(),
            };
            let length = expected.len().min(bytes.len());
            if length == 0 || bytes[..length] != expected[..length] {
                let what = format!("other bytes than were sent: {state:?}");
                return self.fail(what);
            }
            bytes = &bytes[length..];
            half.received += length as u64;
        }
    }

    fn dist_stream_reset(&mut self, place: Place, code: Code) {
        if let Some(Known {
            what: What::Side(index, side),
            ..
        }) = self.dist_streams.places.get(&place)
        {
            let state = &self.dist_streams.transfers[*index];
            let half = &state.sides[*side];
            // A stream that comes in one datagram with the end of the handshake is there before anybody can say that it is taken.
            if code == Code::REFUSED && half.received == 0 && state.sides[1 - *side].place.is_none() {
                return self.dist_stream_received_end(place, REFUSED);
            }
            let over = half.received_end.is_some();
            let wanted = state.stream.abort.is_some_and(|(who, _)| who != *side);
            if !(over || wanted && code == GIVEN_UP) {
                return self.fail(format!("reset with {code} out of nowhere: {state:?}"));
            }
        }
        self.dist_stream_received_end(place, "reset");
    }

    fn dist_stream_received_end(&mut self, place: Place, why: &'static str) {
        let Some(known) = self.dist_streams.places.get(&place).cloned() else {
            return;
        };
        let What::Side(index, side) = known.what else {
            // It ended before anybody could know what it was.
            self.dist_streams.places.remove(&place);
            let (start, dist, stream) = place;
            let _ = self.world.with(start.0, |endpoint, now| {
                endpoint.dist_stream_reset(now, dist, stream, known.owner, GIVEN_UP)
            });
            return;
        };
        let state = &mut self.dist_streams.transfers[index];
        let total = state.total(1 - side);
        let half = &mut state.sides[side];
        if half.received_end.is_none() {
            half.received_end = Some(why);
            if why == FINISHED && half.received != total {
                let what = format!("a good end too early: {state:?}");
                return self.fail(what);
            }
        }
        self.dist_streams.tidy(place);
    }
}
