//! Several endpoints on one port, each with a socket and a driver of its own, and the way between them.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
};

use macula_proto::{
    endpoint::ShardMessage,
    quic::{ResetKey, Shard},
};

use crate::{
    Driver, Endpoint, Options, Socket,
    driver::Seat,
    endpoint::start_seated,
    entropy,
    socket::{self, SocketOptions},
};

/// Binds `count` sockets to one port (`SO_REUSEPORT`) and makes an endpoint of each, the first of which decides what a
/// [relay](crate::RelayServer::serve_shards) on all of them does. Linux spreads clients over them by their addresses.
/// `wrap` puts each socket on a runtime, where its driver has to be spawned: each can have a thread of its own.
///
/// `options` is asked for the settings of each endpoint. If they have no [`ResetKey`], all get the same new one. A port that
/// somebody else listens on is refused, whatever [`SocketOptions::reuse_port`] says.
///
/// # Errors
/// Those of the operating system, and [`io::ErrorKind::InvalidInput`] for a setting that is out of range, `count` too: it is 1 to
/// [`Shard::MAX`].
pub fn start_shards<S: Socket>(
    addr: SocketAddr,
    count: u8,
    mut options: impl FnMut() -> Options,
    mut wrap: impl FnMut(UdpSocket) -> io::Result<S>,
) -> io::Result<Vec<(Endpoint, Driver<S>)>> {
    let key = ResetKey::new(entropy()?);
    let all: Vec<_> = (0..count).map_while(|index| Shard::new(index, count)).collect();
    if all.is_empty() || all.len() != usize::from(count) {
        let words = format!("{count} sockets: it has to be 1 to {}", Shard::MAX);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
    }
    let roads = Arc::new(Roads::new(all.len()));
    let sockets = bind(addr, &options().socket, all.len())?;
    let each = sockets.into_iter().zip(all).map(|(socket, shard)| {
        let mut options = options();
        options.endpoint.shard = shard;
        options.endpoint.reset_key.get_or_insert_with(|| key.clone());
        let seat = shard
            .is_one_of_many()
            .then(|| Seat::new(Arc::clone(&roads), shard.index()));
        start_seated(socket, options, &mut wrap, seat)
    });
    each.collect()
}

fn bind(addr: SocketAddr, options: &SocketOptions, count: usize) -> io::Result<Vec<UdpSocket>> {
    let mut options = options.clone();
    options.reuse_port = false;
    let alone = socket::bind(addr, &options)?;
    if count == 1 {
        return Ok(vec![alone]);
    }
    // The port is free; now it is bound once more, so that it can be shared.
    let addr = alone.local_addr()?;
    drop(alone);
    options.reuse_port = true;
    (0..count).map(|_| socket::bind(addr, &options)).collect()
}

/// Messages that may wait for a driver before datagrams are dropped. What else waits is bounded by the endpoints themselves.
const MAX_WAITING: usize = 4096;

/// What the drivers of one port have for each other.
#[derive(Debug)]
pub(crate) struct Roads {
    boxes: Vec<Mutex<Inbox>>,
    /// One of them has failed, and with it all.
    broken: AtomicBool,
}

#[derive(Debug, Default)]
struct Inbox {
    messages: Vec<(u8, ShardMessage)>,
    /// The driver while it sleeps.
    driver: Option<Waker>,
}

impl Roads {
    fn new(count: usize) -> Self {
        Self {
            boxes: (0..count).map(|_| Mutex::default()).collect(),
            broken: AtomicBool::new(false),
        }
    }

    /// Takes what there is for one of them, in exchange for an empty list.
    pub(crate) fn take(&self, shard: u8, messages: &mut Vec<(u8, ShardMessage)>) {
        if let Some(mut inbox) = self.open(shard) {
            std::mem::swap(&mut inbox.messages, messages);
        }
    }

    /// Hands over what one of them has for another, in order, and wakes that. Answers how many datagrams were dropped.
    pub(crate) fn give(&self, from: u8, to: u8, messages: &mut Vec<ShardMessage>) -> u64 {
        let Some(mut inbox) = self.open(to) else { return 0 };
        let mut dropped = 0;
        for message in messages.drain(..) {
            if inbox.messages.len() >= MAX_WAITING && message.may_be_dropped() {
                dropped += 1;
            } else {
                inbox.messages.push((from, message));
            }
        }
        let driver = inbox.driver.take();
        drop(inbox);
        driver.into_iter().for_each(Waker::wake);
        dropped
    }

    /// Lets a driver be woken by what comes. False if something is there already.
    pub(crate) fn sleep(&self, shard: u8, cx: &Context<'_>) -> bool {
        let Some(mut inbox) = self.open(shard) else { return true };
        if inbox.messages.is_empty() && !self.is_broken() {
            let old = inbox.driver.replace(cx.waker().clone());
            drop(inbox);
            drop(old);
            return true;
        }
        false
    }

    /// Whether something is there for one of them.
    pub(crate) fn has_mail(&self, shard: u8) -> bool {
        self.open(shard).is_some_and(|inbox| !inbox.messages.is_empty())
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Ends all: the connections of one of them are gone, and nobody could tell the others which.
    pub(crate) fn break_up(&self) {
        self.broken.store(true, Ordering::Relaxed);
        for inbox in &self.boxes {
            let driver = lock(inbox).driver.take();
            driver.into_iter().for_each(Waker::wake);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.boxes.len()
    }

    fn open(&self, shard: u8) -> Option<MutexGuard<'_, Inbox>> {
        self.boxes.get(usize::from(shard)).map(lock)
    }
}

fn lock(inbox: &Mutex<Inbox>) -> MutexGuard<'_, Inbox> {
    inbox.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use bytes::BytesMut;
    use macula_proto::{
        Limits,
        quic::{
            DatagramMeta, DialConfig, EndpointConfig,
            tls::{ClientTls, Trust},
        },
    };

    use super::*;
    use crate::clock;

    fn core(index: u8) -> macula_proto::Endpoint {
        let mut config = EndpointConfig::default();
        config.reset_key = Some(ResetKey::new([1; 32]));
        config.shard = Shard::new(index, 2).unwrap();
        macula_proto::Endpoint::new(&config, Limits::default(), [index; 32]).unwrap()
    }

    /// A datagram for a connection id that the second shard made: it stands behind the other one in the first datagram of a dial.
    fn for_the_second() -> Vec<u8> {
        let mut second = core(1);
        let tls = ClientTls::new(Trust::Insecure).alpn(["test"]);
        let dial = DialConfig::new(tls.build(second.quic().clock()).unwrap());
        let (now, to) = (clock::now(), SocketAddr::from(([127, 0, 0, 1], 1)));
        second.quic().connect(now, &dial, to, "localhost").unwrap();
        let mut first = Vec::new();
        second.poll_transmit(now, NonZeroUsize::MIN, &mut first).unwrap();
        let behind = &first[6 + usize::from(first[5])..];
        [&[0x40], &behind[1..=usize::from(behind[0])], &[0; 40]].concat()
    }

    #[test]
    fn datagrams_are_dropped_where_too_many_wait() {
        let datagram = for_the_second();
        let from = SocketAddr::from(([127, 0, 0, 1], 2));
        let (mut first, roads) = (core(0), Roads::new(2));
        let mut given = 0;
        let mut dropped = 0;
        while dropped < 3 {
            let data = BytesMut::from(&datagram[..]);
            first.handle_datagram(clock::now(), DatagramMeta::from(from), data);
            let (to, message) = first.poll_shard().expect("it is not ours");
            assert!(to == 1 && message.may_be_dropped());
            given += 1;
            dropped += roads.give(0, to, &mut vec![message]);
        }
        assert_eq!(given, MAX_WAITING + 3);
        let mut waiting = Vec::new();
        assert!(roads.has_mail(1) && !roads.has_mail(0));
        roads.take(1, &mut waiting);
        assert_eq!(waiting.len(), MAX_WAITING);
        assert!(waiting.iter().all(|(from, _)| *from == 0));
        assert!(!roads.has_mail(1));
    }

    #[test]
    fn who_sleeps_is_woken_and_nobody_sleeps_over_a_message() {
        let roads = Roads::new(2);
        let cx = Context::from_waker(Waker::noop());
        assert!(roads.sleep(1, &cx));
        let mut first = core(0);
        let from = SocketAddr::from(([127, 0, 0, 1], 2));
        let data = BytesMut::from(&for_the_second()[..]);
        first.handle_datagram(clock::now(), DatagramMeta::from(from), data);
        let (to, message) = first.poll_shard().expect("it is not ours");
        assert_eq!(roads.give(0, to, &mut vec![message]), 0);
        assert!(!roads.sleep(1, &cx), "there is something");
        roads.take(1, &mut Vec::new());
        assert!(roads.sleep(1, &cx));
        roads.break_up();
        assert!(!roads.sleep(1, &cx), "all is over");
    }
}
