//! Composition: what each connection runs, and where its events go.

use std::{num::NonZeroUsize, time::Instant};

use bytes::BytesMut;

use crate::{
    Limits, Now, Rng,
    quic::{self, ConfigError, DatagramMeta, EndpointConfig, Transmit},
};

/// Everything that shares one UDP socket: connections in the hands of the embedding program, and those that a machine
/// runs.
///
/// Hand in datagrams and the time; poll events and datagrams until there are none; sleep until
/// [`poll_timeout`](Self::poll_timeout) or the next input.
#[derive(Debug)]
pub struct Endpoint {
    quic: quic::Endpoint,
    rng: Rng,
}

/// An occurrence at an [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// On a connection that no machine runs.
    Quic(quic::Event),
}

impl Endpoint {
    /// An endpoint that can dial and does not listen yet. `entropy` must come from the operating system: tunnel ids and
    /// jitter follow from it.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting that is out of range.
    pub fn new(config: &EndpointConfig, limits: Limits, entropy: [u8; 32]) -> Result<Self, ConfigError> {
        Ok(Self {
            quic: quic::Endpoint::new(config, limits)?,
            rng: Rng::from_entropy(entropy),
        })
    }

    /// Takes one UDP datagram; see [`quic::Endpoint::handle_datagram`].
    pub fn handle_datagram(&mut self, now: Now, meta: DatagramMeta, data: BytesMut) {
        self.quic.handle_datagram(now, meta, data);
    }

    /// Fires everything that is due at `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        self.quic.handle_timeout(now);
    }

    /// Writes the next datagrams; see [`quic::Endpoint::poll_transmit`].
    pub fn poll_transmit(&mut self, now: Now, max_datagrams: NonZeroUsize, buf: &mut Vec<u8>) -> Option<Transmit> {
        self.quic.poll_transmit(now, max_datagrams, buf)
    }

    /// The next event. Poll until it answers `None`, after any input.
    pub fn poll_event(&mut self, _now: Now) -> Option<Event> {
        self.quic.poll_event().map(Event::Quic)
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called next; `None` when only input can bring news.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.quic.poll_timeout()
    }

    /// The connections and the listener.
    pub fn quic(&mut self) -> &mut quic::Endpoint {
        &mut self.quic
    }
}
