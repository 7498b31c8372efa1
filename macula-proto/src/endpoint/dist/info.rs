//! Streams of users, and what there is to look at.

use bytes::Bytes;

use super::{Cx, DistId, DistInfo, DistStat, DistStreamError, role::DistRole};
use crate::{
    Now,
    dist::{
        controller::Event,
        user::{self, Owner, Priority, UserError, UserStream, Users},
    },
    quic::{Dir, OpenError, ReadError, StreamId, WriteError},
    wire::{dist::TICK, etf::Atom},
};

impl DistRole {
    // ----- streams of users ----------------------------------------------------------------------------------------

    pub(super) fn open_stream(
        &mut self,
        cx: &mut Cx<'_>,
        now: Now,
        id: DistId,
        owner: Owner,
        priority: Priority,
    ) -> Result<StreamId, DistStreamError> {
        let link = self.links.get_mut(&id).ok_or(DistStreamError::UnknownConnection)?;
        link.controller.users().may_open()?;
        // The streams of data come first: their ids are known to the peer.
        let opened = match cx.quic.connection(link.conn) {
            Ok(_) if !link.opening.is_empty() => Err(OpenError::Blocked),
            Ok(mut connection) => connection.open(Dir::Bi),
            Err(_) => Err(OpenError::ConnectionLost),
        };
        let stream = match opened {
            Ok(stream) => stream,
            Err(OpenError::Blocked) => {
                link.wants_stream = true;
                return Err(DistStreamError::Blocked);
            }
            Err(_) => return Err(DistStreamError::ConnectionLost),
        };
        let mut actions = Vec::new();
        link.controller
            .user_opened(stream.get(), owner, priority, &mut actions)?;
        self.execute(cx, now, id, actions);
        Ok(stream)
    }

    pub(super) fn accept_streams(&mut self, id: DistId, owner: Owner) -> Result<(), DistStreamError> {
        let link = self.links.get_mut(&id).ok_or(DistStreamError::UnknownConnection)?;
        Ok(link
            .controller
            .with_users(&mut Vec::new(), |users, _| users.accept(owner))?)
    }

    pub(super) fn stop_accepting(&mut self, id: DistId, owner: Owner) {
        if let Some(link) = self.links.get_mut(&id) {
            link.controller
                .with_users(&mut Vec::new(), |users, _| users.stop_accepting(owner));
        }
    }

    pub(super) fn stream_write(
        &mut self,
        cx: &mut Cx<'_>,
        id: DistId,
        stream: StreamId,
        owner: Owner,
        data: &mut Bytes,
    ) -> Result<usize, DistStreamError> {
        let link = self.links.get_mut(&id).ok_or(DistStreamError::UnknownConnection)?;
        link.controller.users().may_send(stream.get(), owner)?;
        let Ok(mut connection) = cx.quic.connection(link.conn) else {
            return Err(DistStreamError::ConnectionLost);
        };
        link.let_users_write(&mut connection);
        let mut handle = connection.stream(stream).map_err(|_| UserError::Unknown)?;
        match handle.write_chunks(std::slice::from_mut(data)) {
            Ok(written) => Ok(written.bytes),
            Err(WriteError::Blocked) => Err(DistStreamError::Blocked),
            Err(WriteError::Stopped(code)) => Err(DistStreamError::Stopped(code)),
            Err(WriteError::Closed) => Err(UserError::SendClosed.into()),
            Err(WriteError::ConnectionLost) => Err(DistStreamError::ConnectionLost),
        }
    }

    pub(super) fn stream_read(
        &mut self,
        cx: &mut Cx<'_>,
        now: Now,
        id: DistId,
        stream: StreamId,
        owner: Owner,
        max: usize,
    ) -> Result<Option<Bytes>, DistStreamError> {
        let link = self.links.get_mut(&id).ok_or(DistStreamError::UnknownConnection)?;
        link.controller.users().may_read(stream.get(), owner)?;
        let Ok(mut connection) = cx.quic.connection(link.conn) else {
            return Err(DistStreamError::ConnectionLost);
        };
        let mut handle = connection.stream(stream).map_err(|_| UserError::Unknown)?;
        match handle.read_chunk(max) {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => {
                self.feed(cx, now, id, Event::Finished(stream.get()));
                Ok(None)
            }
            Err(ReadError::Blocked) => Err(DistStreamError::Blocked),
            Err(ReadError::Reset(code)) => Err(DistStreamError::Reset(code)),
            Err(ReadError::Closed) => Err(UserError::Unknown.into()),
            Err(ReadError::ConnectionLost) => Err(DistStreamError::ConnectionLost),
        }
    }

    /// Runs an operation of an owner.
    pub(super) fn on_stream(
        &mut self,
        cx: &mut Cx<'_>,
        now: Now,
        id: DistId,
        run: impl FnOnce(&mut Users, &mut Vec<user::Action>) -> Result<(), UserError>,
    ) -> Result<(), DistStreamError> {
        let link = self.links.get_mut(&id).ok_or(DistStreamError::UnknownConnection)?;
        let mut actions = Vec::new();
        let done = link.controller.with_users(&mut actions, run);
        self.execute(cx, now, id, actions);
        Ok(done?)
    }

    pub(super) fn owner_gone(&mut self, cx: &mut Cx<'_>, now: Now, owner: Owner) {
        let ids: Vec<DistId> = self.links.keys().copied().collect();
        for id in ids {
            // On a connection that is over there is nothing to do.
            let _ = self.on_stream(cx, now, id, |users, out| {
                users.owner_gone(owner, crate::Code::CANCELLED, out);
                Ok(())
            });
        }
    }

    pub(super) fn streams(&self, id: DistId) -> Vec<UserStream> {
        let link = self.links.get(&id);
        link.map_or_else(Vec::new, |link| link.controller.user_streams().collect())
    }

    // ----- what is there -------------------------------------------------------------------------------------------

    pub(super) fn connection_of(&self, node: &str) -> Option<DistId> {
        self.node.as_ref()?.table.connected(node)
    }

    pub(super) fn nodes(&self) -> Vec<(Atom, DistId)> {
        let node = self.node.as_ref();
        node.map_or_else(Vec::new, |node| {
            node.table.iter().map(|(name, id)| (name.clone(), id)).collect()
        })
    }

    pub(super) fn set_node(&mut self, id: DistId, node: Atom) -> bool {
        let link = self.links.get_mut(&id);
        link.map(|link| link.controller.set_node(node)).is_some()
    }

    pub(super) fn set_supervisor(&mut self, id: DistId, supervisor: Option<Owner>) -> bool {
        let link = self.links.get_mut(&id);
        link.map(|link| link.supervisor = supervisor).is_some()
    }

    pub(super) fn stat(&self, cx: &mut Cx<'_>, id: DistId) -> Option<DistStat> {
        let link = self.links.get(&id)?;
        let stats = cx.quic.connection(link.conn).ok().map(|connection| connection.stats());
        let stats = stats.unwrap_or_default();
        let tick = if link.controller.has_pending_tick() {
            TICK.len()
        } else {
            0
        };
        Some(DistStat {
            received: stats.datagrams_received,
            sent: stats.packets_sent,
            pending: link.controller.pending() + link.pending() + tick,
            controller: link.controller.stats(),
        })
    }

    pub(super) fn info(&self, id: DistId) -> Option<DistInfo> {
        let link = self.links.get(&id)?;
        Some(DistInfo {
            node: link.controller.node().cloned(),
            side: link.controller.side(),
            state: link.controller.state(),
            remote: link.remote,
            connection: link.conn,
            congested: link.controller.is_congested(),
            has_messages: link.controller.has_messages(),
            streams: link.controller.user_streams().count(),
            supervisor: link.supervisor,
        })
    }
}
