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
/// [relay](crate::RelayServer::serve_shards) on all of them does. The kernel spreads clients over them by their addresses.
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

    /// Hands over what one of them has for another, in order, and wakes that.
    pub(crate) fn give(&self, from: u8, to: u8, messages: &mut Vec<ShardMessage>) {
        let Some(mut inbox) = self.open(to) else { return };
        inbox.messages.extend(messages.drain(..).map(|message| (from, message)));
        let driver = inbox.driver.take();
        drop(inbox);
        driver.into_iter().for_each(Waker::wake);
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
