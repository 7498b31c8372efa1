//! Incoming connections: limits, address validation, and who decides.

use std::{collections::BTreeMap, net::IpAddr, net::Ipv4Addr, net::Ipv6Addr, sync::Arc, time::Instant};

use bytes::Bytes;

use super::{
    Accept, AddressValidation, CloseReason, ConnectionHandle, Endpoint, Event, IncomingHandle, ListenConfig, Side,
    config::ConfigError, conn::Conn,
};
use crate::{Code, Now};

/// What an endpoint that listens keeps for it.
pub(super) struct Listener {
    config: ListenConfig,
    loopback: Arc<quinn_proto::ServerConfig>,
    elsewhere: Arc<quinn_proto::ServerConfig>,
    /// Connections that wait for a decision, oldest first.
    undecided: BTreeMap<u64, (quinn_proto::Incoming, Instant)>,
    next: u64,
}

/// What becomes of the accepted connections when their listener closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseListener {
    /// They are closed with [`Code::SHUTDOWN`].
    CloseConnections,
    /// They live on.
    KeepConnections,
}

/// There is no such incoming connection: it was decided already, or waited too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such incoming connection")]
pub struct UnknownIncoming;

impl Listener {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.undecided.first_key_value().map(|(_, (_, deadline))| *deadline)
    }
}

impl Endpoint {
    /// Starts to listen, or changes the settings for connections accepted from now on.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting that is out of range.
    pub fn listen(&mut self, config: ListenConfig) -> Result<(), ConfigError> {
        // A changed listener, and its two transports, understand the address tokens given out before.
        let base = match &self.listener {
            Some(old) => (*old.elsewhere).clone(),
            None => self.fresh_server(config.tls.quinn()),
        };
        let elsewhere = self.server_config(base.clone(), &config, IpAddr::V4(Ipv4Addr::UNSPECIFIED))?;
        let loopback = self.server_config(base, &config, IpAddr::V6(Ipv6Addr::LOCALHOST))?;
        self.inner.set_server_config(Some(elsewhere.clone()));
        let old = self.listener.take();
        let (undecided, next) = old.map_or_else(Default::default, |old| (old.undecided, old.next));
        self.listener = Some(Listener {
            config,
            loopback,
            elsewhere,
            undecided,
            next,
        });
        Ok(())
    }

    /// Whether the endpoint listens.
    pub fn is_listening(&self) -> bool {
        self.listener.is_some()
    }

    /// Stops listening: whoever waits for a decision is refused, and accepted connections are closed or kept.
    pub fn close_listener(&mut self, now: Now, connections: CloseListener) {
        let Some(mut listener) = self.listener.take() else {
            return;
        };
        self.inner.set_server_config(None);
        while let Some((_, (incoming, _))) = listener.undecided.pop_first() {
            self.refuse_incoming(incoming);
        }
        if connections == CloseListener::KeepConnections {
            return;
        }
        let handles: Vec<_> = self.conns.handles().collect();
        for handle in handles {
            if let Ok(mut conn) = self.connection(handle)
                && conn.side() == Side::Server
            {
                conn.close(now, Code::SHUTDOWN, Bytes::from_static(b"shutdown"));
            }
        }
    }

    /// Accepts an incoming connection. [`Event::Connected`] or [`Event::Closed`] follows.
    ///
    /// # Errors
    /// [`UnknownIncoming`] if it was decided already, waited too long, or turned out to be broken ([`Event::IncomingFailed`] says how).
    pub fn accept(&mut self, now: Now, incoming: IncomingHandle) -> Result<ConnectionHandle, UnknownIncoming> {
        let incoming = self.take_undecided(incoming)?;
        self.accept_incoming(now, incoming).ok_or(UnknownIncoming)
    }

    /// Refuses an incoming connection: the peer is told at once (CONNECTION_REFUSED).
    ///
    /// # Errors
    /// [`UnknownIncoming`] if it was decided already or waited too long.
    pub fn refuse(&mut self, incoming: IncomingHandle) -> Result<(), UnknownIncoming> {
        let incoming = self.take_undecided(incoming)?;
        self.stats.refused_by_owner += 1;
        self.refuse_incoming(incoming);
        Ok(())
    }

    /// Makes an incoming connection prove its address; it then comes again as a new [`Event::Incoming`].
    ///
    /// # Errors
    /// [`UnknownIncoming`] as for [`refuse`](Self::refuse), or if it has proved its address already (it is refused then).
    pub fn retry(&mut self, incoming: IncomingHandle) -> Result<(), UnknownIncoming> {
        let incoming = self.take_undecided(incoming)?;
        if !incoming.may_retry() {
            self.stats.refused_by_owner += 1;
            self.refuse_incoming(incoming);
            return Err(UnknownIncoming);
        }
        self.retry_incoming(incoming);
        Ok(())
    }

    pub(super) fn on_incoming(&mut self, now: Now, incoming: quinn_proto::Incoming) {
        let handshaking = self.handshaking();
        let Some(listener) = &mut self.listener else {
            self.inner.ignore(incoming);
            return;
        };
        let validate = match listener.config.address_validation {
            AddressValidation::Never => false,
            AddressValidation::Above(count) => handshaking + listener.undecided.len() >= count,
            AddressValidation::Always => true,
        };
        if validate && !incoming.remote_address_validated() && incoming.may_retry() {
            self.retry_incoming(incoming);
        } else if handshaking >= self.limits.handshaking {
            self.stats.refused_handshaking += 1;
            self.refuse_incoming(incoming);
        } else if self.conns.len() >= self.limits.connections {
            self.stats.refused_connections += 1;
            self.refuse_incoming(incoming);
        } else if listener.config.accept == Accept::All {
            self.accept_incoming(now, incoming);
        } else if listener.undecided.len() >= self.limits.pending_incoming {
            self.stats.refused_undecided += 1;
            self.refuse_incoming(incoming);
        } else {
            let handle = IncomingHandle(listener.next);
            listener.next += 1;
            self.queues.events.push_back(Event::Incoming {
                incoming: handle,
                remote: incoming.remote_address(),
                validated: incoming.remote_address_validated(),
            });
            let deadline = now.mono + listener.config.incoming_timeout;
            listener.undecided.insert(handle.0, (incoming, deadline));
        }
    }

    pub(super) fn expire_incoming(&mut self, now: Now) {
        while let Some(listener) = &mut self.listener
            && listener.next_deadline().is_some_and(|at| at <= now.mono)
            && let Some((_, (incoming, _))) = listener.undecided.pop_first()
        {
            self.stats.refused_undecided += 1;
            self.refuse_incoming(incoming);
        }
    }

    fn server_config(
        &self,
        mut server: quinn_proto::ServerConfig,
        config: &ListenConfig,
        remote: IpAddr,
    ) -> Result<Arc<quinn_proto::ServerConfig>, ConfigError> {
        server.crypto = config.tls.quinn();
        server
            .transport_config(Arc::new(config.transport.to_quinn(remote)?))
            .migration(config.migration)
            // One more than are kept, so that it is refused and counted here rather than dropped in silence.
            .max_incoming(self.limits.pending_incoming.saturating_add(1))
            .time_source(Arc::new(self.clock().clone()));
        Ok(Arc::new(server))
    }

    fn take_undecided(&mut self, incoming: IncomingHandle) -> Result<quinn_proto::Incoming, UnknownIncoming> {
        let listener = self.listener.as_mut().ok_or(UnknownIncoming)?;
        let (incoming, _) = listener.undecided.remove(&incoming.0).ok_or(UnknownIncoming)?;
        Ok(incoming)
    }

    fn accept_incoming(&mut self, now: Now, incoming: quinn_proto::Incoming) -> Option<ConnectionHandle> {
        let listener = self.listener.as_ref()?;
        let loopback = incoming.remote_address().ip().to_canonical().is_loopback();
        let server = if loopback {
            &listener.loopback
        } else {
            &listener.elsewhere
        }
        .clone();
        let remote = incoming.remote_address();
        let deadline = now.mono + listener.config.handshake_timeout;
        let mut reply = Vec::new();
        #[cfg(feature = "sim")]
        let _lent = self.lend();
        match self.inner.accept(incoming, now.mono, &mut reply, Some(server)) {
            Ok((quinn, inner)) => {
                let conn = Conn::new(inner, quinn, deadline, &listener.config.transport);
                Some(self.insert(quinn, conn))
            }
            Err(error) => {
                tracing::debug!(error = %error.cause, "incoming connection failed at once");
                self.stats.handshakes_failed += 1;
                let reason = CloseReason::from_quinn(error.cause);
                self.queues.events.push_back(Event::IncomingFailed { remote, reason });
                if let Some(transmit) = error.response {
                    self.push_reply(&transmit, &reply);
                }
                None
            }
        }
    }

    fn refuse_incoming(&mut self, incoming: quinn_proto::Incoming) {
        let mut reply = Vec::new();
        let transmit = self.inner.refuse(incoming, &mut reply);
        self.push_reply(&transmit, &reply);
    }

    fn retry_incoming(&mut self, incoming: quinn_proto::Incoming) {
        let mut reply = Vec::new();
        match self.inner.retry(incoming, &mut reply) {
            Ok(transmit) => {
                self.stats.retries += 1;
                self.push_reply(&transmit, &reply);
            }
            Err(error) => self.inner.ignore(error.into_incoming()),
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.take() {
            for (incoming, _) in listener.undecided.into_values() {
                self.inner.ignore(incoming);
            }
        }
    }
}
