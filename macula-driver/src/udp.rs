//! Datagrams in batches: several per system call, in both directions.

use std::{
    collections::VecDeque,
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    num::NonZeroUsize,
};

use bytes::BytesMut;
use macula_proto::quic::{DatagramMeta, Transmit};
use quinn_udp::{BATCH_SIZE, EcnCodepoint, RecvMeta, UdpSockRef, UdpSocketState};

use crate::socket::{Family, canonical};

/// Room for the largest batch that the kernel joins into one buffer.
const SLAB: usize = 64 << 10;

/// Datagrams below this size are copied out of their slab. Handing out a part of the slab saves the copy, but then the part
/// keeps all of it in memory for as long as it is unread, and the slab must be filled anew.
const COPY_BELOW: usize = 4 << 10;

/// Slabs that are lent out and may come back.
const MAX_LENT: usize = 64;

/// Bytes in a slab from which on it is worth to be lent with the small datagrams in it, where those are passed on soon.
const WORTH_LENDING: usize = 16 << 10;

/// Room for one ordinary datagram. Allocators are slow with pieces of this size, so these are used again.
const SMALL: usize = 1536;

/// Datagrams below this size are left to the allocator, which is quick with them.
const TINY: usize = 1024;

/// Buffers of ordinary datagrams that are lent out and may come back.
const MAX_LENT_SMALL: usize = 1024;

/// Send buffers kept for the next time.
const MAX_SPARE: usize = 8;

/// Receives and sends datagrams of one socket in batches, and keeps the buffers for that.
#[derive(Debug)]
pub(crate) struct Udp {
    state: UdpSocketState,
    family: Family,
    /// Small datagrams, too, may keep their slab: they will not keep it for long.
    passes_on: bool,
    slabs: Vec<BytesMut>,
    metas: Vec<RecvMeta>,
    lent: VecDeque<BytesMut>,
    lent_small: VecDeque<BytesMut>,
    /// Received and not yet taken.
    pub(crate) inbox: VecDeque<(DatagramMeta, BytesMut)>,
    /// To be sent.
    pub(crate) outbox: VecDeque<(Transmit, Vec<u8>)>,
    /// Buffers of what was sent.
    pub(crate) spare: Vec<Vec<u8>>,
    /// Transmits that the system refused to send.
    pub(crate) send_errors: u64,
}

impl Udp {
    /// Prepares a socket. `batch` buffers are filled by one receive call, 1 to 32; `passes_on` is
    /// [`Options::passes_on`](crate::Options::passes_on).
    ///
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn new(socket: &UdpSocket, batch: usize, passes_on: bool) -> io::Result<Self> {
        let batch = batch.clamp(1, BATCH_SIZE);
        Ok(Self {
            state: UdpSocketState::new(socket.into())?,
            family: Family::of(socket)?,
            passes_on,
            slabs: (0..batch).map(|_| BytesMut::zeroed(SLAB)).collect(),
            metas: vec![RecvMeta::default(); batch],
            lent: VecDeque::new(),
            lent_small: VecDeque::new(),
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            spare: Vec::new(),
            send_errors: 0,
        })
    }

    /// Whether what is received is passed on soon.
    pub(crate) fn passes_on(&self) -> bool {
        self.passes_on
    }

    pub(crate) fn family(&self) -> Family {
        self.family
    }

    /// Whether packets may be cut on their way, so that the datagram size must not be discovered.
    pub(crate) fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    /// How many datagrams one send may carry now.
    pub(crate) fn max_segments(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.state.max_gso_segments()).unwrap_or(NonZeroUsize::MIN)
    }

    /// One receive call; fills the inbox. Answers how many buffers it took.
    pub(crate) fn receive(&mut self, socket: UdpSockRef<'_>) -> io::Result<usize> {
        let batch = self.slabs.len();
        let mut slabs = self.slabs.iter_mut();
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(slabs.next().map_or(&mut [], |slab| &mut slab[..])));
        let count = self.state.recv(socket, &mut slices[..batch], &mut self.metas)?;
        for index in 0..count {
            self.take(index);
        }
        Ok(count)
    }

    /// Cuts the buffer `index` into its datagrams.
    fn take(&mut self, index: usize) {
        let meta = self.metas[index];
        let slab = &mut self.slabs[index];
        let len = meta.len.min(slab.len());
        let stride = meta.stride.clamp(1, SLAB);
        let from = DatagramMeta {
            remote: canonical(meta.addr),
            local_ip: meta.dst_ip.map(|ip| ip.to_canonical()),
            ecn: meta.ecn.map(|ecn| ecn as u8),
        };
        let next = match stride >= COPY_BELOW {
            true => Some(Self::back(&mut self.lent).unwrap_or_else(|| BytesMut::zeroed(SLAB))),
            false if self.passes_on && len >= WORTH_LENDING => Self::one_of_few(&mut self.lent),
            false => None,
        };
        let Some(next) = next else {
            for datagram in slab[..len].chunks(stride) {
                self.inbox.push_back((from, copy(&mut self.lent_small, datagram)));
            }
            return;
        };
        let mut data = slab.split_to(len);
        while !data.is_empty() {
            let datagram = data.split_to(stride.min(data.len()));
            let datagram = if datagram.len() < COPY_BELOW && stride >= COPY_BELOW {
                BytesMut::from(&datagram[..])
            } else {
                datagram
            };
            self.inbox.push_back((from, datagram));
        }
        let used = std::mem::replace(slab, next);
        if self.lent.len() < MAX_LENT {
            self.lent.push_back(used);
        }
    }

    /// A slab that came back, or a new one unless many are out: whoever leaves small datagrams unread must not keep much.
    fn one_of_few(lent: &mut VecDeque<BytesMut>) -> Option<BytesMut> {
        Self::back(lent).or_else(|| (lent.len() < MAX_LENT).then(|| BytesMut::zeroed(SLAB)))
    }

    /// A slab that came back.
    fn back(lent: &mut VecDeque<BytesMut>) -> Option<BytesMut> {
        // Whatever was lent first is usually back first; look at a few, so that one kept for long costs nothing.
        for _ in 0..lent.len().min(4) {
            let Some(mut slab) = lent.pop_front() else { break };
            slab.clear();
            if slab.try_reclaim(SLAB) {
                slab.resize(SLAB, 0);
                return Some(slab);
            }
            lent.push_back(slab);
        }
        None
    }

    /// Sends the oldest transmit of the outbox.
    ///
    /// Whatever keeps the system from sending, apart from a full buffer, is taken as the loss of the datagram.
    pub(crate) fn send(&mut self, socket: UdpSockRef<'_>) -> io::Result<()> {
        let Some((transmit, bytes)) = self.outbox.front() else {
            return Ok(());
        };
        let destination = transmit.destination;
        let outgoing = quinn_udp::Transmit {
            destination: match destination {
                SocketAddr::V4(to) => SocketAddr::new(self.family.outbound((*to.ip()).into()), to.port()),
                to => to,
            },
            ecn: transmit.ecn.and_then(EcnCodepoint::from_bits),
            contents: bytes,
            segment_size: transmit.segment_size,
            src_ip: transmit.source_ip.map(|ip| self.family.outbound(ip)),
        };
        match self.state.try_send(socket, &outgoing) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => {
                // Too large a datagram is an ordinary answer to a probe of the path.
                self.send_errors += 1;
                tracing::trace!(%error, %destination, "datagram not sent");
            }
            Ok(()) => {}
        }
        let sent = self.outbox.pop_front().map(|(_, bytes)| bytes);
        if self.spare.len() < MAX_SPARE {
            self.spare.extend(sent);
        }
        Ok(())
    }
}

/// A copy of a datagram, in a buffer that came back if there is one.
fn copy(lent: &mut VecDeque<BytesMut>, datagram: &[u8]) -> BytesMut {
    if !(TINY..=SMALL).contains(&datagram.len()) {
        return BytesMut::from(datagram);
    }
    let mut buffer = lent.pop_front().unwrap_or_default();
    if !buffer.try_reclaim(SMALL) {
        // Its datagram may be kept for long: behind those that come back sooner.
        let used = std::mem::replace(&mut buffer, BytesMut::with_capacity(SMALL));
        if used.capacity() > 0 {
            lent.push_back(used);
        }
    }
    buffer.extend_from_slice(datagram);
    let datagram = buffer.split();
    if lent.len() < MAX_LENT_SMALL {
        lent.push_back(buffer);
    }
    datagram
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_of_a_datagram_is_used_again_once_that_is_gone() {
        let mut lent = VecDeque::new();
        let first = copy(&mut lent, &[1; 1452]);
        let place = first.as_ptr();
        let second = copy(&mut lent, &[2; 1200]);
        assert_ne!(second.as_ptr(), place);
        assert_eq!(first, [1; 1452][..]);
        drop(first.freeze());
        let again = [copy(&mut lent, &[3; 1452]), copy(&mut lent, &[4; 1452])];
        assert!(again.iter().any(|datagram| datagram.as_ptr() == place));
        assert_eq!(second, [2; 1200][..]);
        assert_eq!(again[0], [3; 1452][..]);
        assert_eq!(again[1], [4; 1452][..]);
    }

    /// A receive call that brought `len` bytes in datagrams of `stride`.
    fn received(udp: &mut Udp, len: usize, stride: usize) -> Vec<BytesMut> {
        for (at, byte) in udp.slabs[0].iter_mut().enumerate() {
            *byte = (at % 251) as u8;
        }
        udp.metas[0].len = len;
        udp.metas[0].stride = stride;
        udp.take(0);
        let datagrams: Vec<_> = udp.inbox.drain(..).map(|(_, datagram)| datagram).collect();
        let expected: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        assert!(
            datagrams
                .iter()
                .map(|datagram| &datagram[..])
                .eq(expected.chunks(stride))
        );
        datagrams
    }

    #[test]
    fn what_is_passed_on_is_not_copied_while_few_slabs_are_out() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut udp = Udp::new(&socket, 1, true).unwrap();
        let lies_in_slab = |datagrams: &[BytesMut]| datagrams[0].as_ptr().wrapping_add(1400) == datagrams[1].as_ptr();
        let first = received(&mut udp, 20_000, 1400);
        assert!(lies_in_slab(&first));
        // Little in a slab is not worth it.
        assert!(!lies_in_slab(&received(&mut udp, 3000, 1400)));
        drop(first);
        let mut kept: Vec<_> = (0..MAX_LENT).map(|_| received(&mut udp, 60_000, 1400)).collect();
        assert!(kept.iter().all(|datagrams| lies_in_slab(datagrams)));
        let copied = received(&mut udp, 60_000, 1400);
        assert!(!lies_in_slab(&copied), "too many are out");
        assert_eq!(udp.lent.len(), MAX_LENT);
        // Large datagrams have no other way.
        received(&mut udp, 60_000, 9000);
        assert_eq!(udp.lent.len(), MAX_LENT);
        kept.clear();
        assert!(lies_in_slab(&received(&mut udp, 60_000, 1400)), "they came back");
        // Whoever reads at leisure gets copies.
        let mut udp = Udp::new(&socket, 1, false).unwrap();
        assert!(!lies_in_slab(&received(&mut udp, 60_000, 1400)));
    }

    #[test]
    fn what_is_kept_for_datagrams_is_bounded() {
        let mut lent = VecDeque::new();
        let held: Vec<_> = (0..3000).map(|_| copy(&mut lent, &[0; 1400])).collect();
        assert_eq!(lent.len(), MAX_LENT_SMALL);
        drop(held);
        assert_eq!(copy(&mut lent, &[5; 40]), [5; 40][..]);
        assert_eq!(lent.len(), MAX_LENT_SMALL, "tiny ones are the allocator's");
    }
}
