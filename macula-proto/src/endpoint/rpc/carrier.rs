//! What carries a link: reading it, writing it, opening streams, and closing it.

use std::net::SocketAddr;

use bytes::Bytes;

use super::{
    Cx,
    frames::{self, Speaker},
};
use crate::{
    Code, Now,
    endpoint::PeerId,
    peering::SendError,
    quic::{ConnectionHandle, Dir, OpenError, ReadError, StreamId},
    rpc::session::{Action, Event, Lane, LaneEnd, Session},
};

/// What is read at once, in bytes.
const PIECE: usize = 16 << 10;

/// Where the messages of a link go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    /// A connection of its own. The lane of a stream has its number.
    Connection { conn: ConnectionHandle, remote: SocketAddr },
    /// A stream of a relay.
    Tunnel { conn: ConnectionHandle, stream: StreamId },
    /// A peering connection.
    Peer { peer: PeerId, speaker: Speaker },
}

impl Carrier {
    pub(super) fn connection(&self) -> Option<ConnectionHandle> {
        match *self {
            Self::Connection { conn, .. } | Self::Tunnel { conn, .. } => Some(conn),
            Self::Peer { .. } => None,
        }
    }

    /// Where a lane goes.
    pub(super) fn stream(&self, lane: Lane) -> Option<(ConnectionHandle, StreamId)> {
        match *self {
            Self::Connection { conn, .. } => Some((conn, StreamId::new(lane.0)?)),
            Self::Tunnel { conn, stream } if lane == Lane::SHARED => Some((conn, stream)),
            _ => None,
        }
    }

    /// The next that can be read on a lane; `None` when there is nothing now. Bytes are in the session already when they are told.
    pub(super) fn read(&self, cx: &mut Cx<'_>, now: Now, session: &mut Session, lane: Lane) -> Option<Event> {
        if let Self::Peer { peer, .. } = *self {
            return read_frame(cx, now, peer);
        }
        let (conn, stream) = self.stream(lane)?;
        let mut connection = cx.quic.connection(conn).ok()?;
        let mut stream = connection.stream(stream).ok()?;
        match stream.read_with(PIECE, |piece| session.preload(lane, piece)) {
            Ok(1..) => Some(Event::Received(lane, Bytes::new())),
            Ok(0) => Some(Event::LaneEnded(lane, LaneEnd::Finished)),
            Err(ReadError::Reset(code)) => Some(Event::LaneEnded(lane, LaneEnd::Reset(code))),
            Err(_) => None,
        }
    }

    /// Writes what waits on a lane, as far as it goes.
    pub(super) fn write(
        &self,
        cx: &mut Cx<'_>,
        now: Now,
        session: &mut Session,
        lane: Lane,
        actions: &mut Vec<Action>,
    ) {
        if let Self::Peer { peer, speaker } = *self {
            return write_frames(cx, now, session, peer, speaker, actions);
        }
        let Some((conn, stream)) = self.stream(lane) else {
            return;
        };
        let Ok(mut connection) = cx.quic.connection(conn) else {
            return;
        };
        let Ok(mut stream) = connection.stream(stream) else {
            return;
        };
        loop {
            let blocks = session.output(lane);
            let blocked = if blocks.is_empty() {
                None
            } else {
                stream.write_chunks(blocks).err()
            };
            let waits = blocks.iter().any(|block| !block.is_empty());
            let finish = session.wrote(now, lane, actions);
            match blocked {
                None if waits => {}
                None => {
                    if finish {
                        let _ = stream.finish();
                    }
                    return;
                }
                // The stream says when it goes on; its end and the connection's are told by themselves.
                Some(_) => return,
            }
        }
    }

    /// Opens a stream for a call. `None`: not now, it is to be tried again when the connection says so.
    pub(super) fn open(&self, cx: &mut Cx<'_>) -> Result<Option<Lane>, ()> {
        let Self::Connection { conn, .. } = *self else {
            return Err(());
        };
        let Ok(mut connection) = cx.quic.connection(conn) else {
            return Err(());
        };
        match connection.open(Dir::Bi) {
            Ok(id) => {
                if let Ok(mut stream) = connection.stream(id) {
                    stream.hold();
                }
                Ok(Some(Lane(id.get())))
            }
            Err(OpenError::Blocked) => Ok(None),
            Err(_) => Err(()),
        }
    }

    /// Takes a stream of the peer.
    pub(super) fn hold(&self, cx: &mut Cx<'_>, lane: Lane) {
        self.on_stream(cx, lane, |stream| stream.hold());
    }

    /// Wants no more of a lane in either direction.
    pub(super) fn abandon(&self, cx: &mut Cx<'_>, lane: Lane, code: Code) {
        self.on_stream(cx, lane, |stream| {
            stream.abort(code);
            stream.release();
        });
    }

    /// Reads no more of a lane.
    pub(super) fn stop(&self, cx: &mut Cx<'_>, lane: Lane, code: Code) {
        self.on_stream(cx, lane, |stream| _ = stream.stop(code));
    }

    /// Has nothing more to say on a lane, and nothing more to hear.
    pub(super) fn release(&self, cx: &mut Cx<'_>, lane: Lane) {
        self.on_stream(cx, lane, |stream| stream.release());
    }

    /// Ends the carrier at once, as far as it is the link's alone.
    pub(super) fn close(&self, cx: &mut Cx<'_>, now: Now, code: Code, reason: &'static str) {
        match *self {
            Self::Connection { conn, .. } => {
                if let Ok(mut connection) = cx.quic.connection(conn) {
                    connection.close(now, code, Bytes::from_static(reason.as_bytes()));
                }
            }
            Self::Tunnel { .. } => self.abandon(cx, Lane::SHARED, code),
            Self::Peer { peer, .. } => cx.peers.detach_rpc(peer),
        }
    }

    /// Finishes the shared lane, so that its delivery is told.
    pub(super) fn finish(&self, cx: &mut Cx<'_>) {
        self.on_stream(cx, Lane::SHARED, |stream| _ = stream.finish());
    }

    fn on_stream(&self, cx: &mut Cx<'_>, lane: Lane, run: impl FnOnce(&mut crate::quic::Stream<'_>)) {
        if let Some((conn, stream)) = self.stream(lane)
            && let Ok(mut connection) = cx.quic.connection(conn)
            && let Ok(mut stream) = connection.stream(stream)
        {
            run(&mut stream);
        }
    }
}

// ----- signed frames -----------------------------------------------------------------------------------------------

fn read_frame(cx: &mut Cx<'_>, now: Now, peer: PeerId) -> Option<Event> {
    while let Some(frame) = cx.peers.take_rpc(cx.quic, now, peer, &mut cx.out) {
        if let Some(message) = frames::message(frame.decoded.frame.body, now) {
            return Some(Event::Message(Box::new(message)));
        }
    }
    None
}

fn write_frames(
    cx: &mut Cx<'_>,
    now: Now,
    session: &mut Session,
    peer: PeerId,
    speaker: Speaker,
    actions: &mut Vec<Action>,
) {
    while let Some(message) = session.next_frame(now, actions) {
        let Some(body) = frames::body(message.clone(), now, speaker) else {
            continue;
        };
        match cx.peers.send(cx.quic, now, peer, body.into(), &mut cx.out) {
            Err(SendError::Full { .. }) => return session.unsent_frame(message),
            // The numbers of its chunks have a hole now, or nobody answers: it is the call's end.
            Err(SendError::Encode(_)) => session.unsendable(now, &message, actions),
            Err(_) | Ok(_) => {}
        }
    }
}
