//! The ways between the two nodes. Whatever the way, a node is dialled at the address in its name, where never the node
//! itself but an end of the path listens, and the path carries the bytes to where the node really listens.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::journal::Journal;
use crate::relay::{self, RelayPath};

/// Which way the nodes are joined.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// TCP forwarders inside the harness: the control experiment. What fails here is the fault of the test.
    PlainTcp,
    /// `macula relay` with `macula expose` and `macula forward` on each side.
    Relay,
}

/// How one node is reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    /// The short name of the node that is reached.
    pub(crate) node: &'static str,
    /// The short name of the node that dials.
    pub(crate) dialler: &'static str,
    /// The address in the node's name.
    pub(crate) listen: SocketAddr,
    /// Where the node's distribution listener really is.
    pub(crate) to: SocketAddr,
}

/// A way between the nodes, closed until [`open`](Path::open).
#[derive(Debug)]
pub(crate) enum Path {
    PlainTcp(Box<PlainTcp>),
    Relay(Box<RelayPath>),
}

impl Path {
    /// A closed path. `dir` is for its files.
    pub(crate) fn new(kind: Kind, routes: [Route; 2], dir: &FilePath, journal: &Journal) -> Self {
        match kind {
            Kind::PlainTcp => Self::PlainTcp(Box::new(PlainTcp::new(routes))),
            Kind::Relay => {
                let binary = journal.expect(relay::binary(), "the macula command");
                Self::Relay(Box::new(
                    journal.expect(RelayPath::new(binary, routes.into(), dir, journal), "a relay path"),
                ))
            }
        }
    }

    /// Makes the way passable for the first time.
    pub(crate) fn open(&mut self) -> Result<(), String> {
        match self {
            Self::PlainTcp(path) => path.start(),
            Self::Relay(path) => path.open(),
        }
    }

    /// Ends, without a farewell, what stands between the two sides.
    pub(crate) fn kill(&mut self) -> Result<(), String> {
        match self {
            Self::PlainTcp(path) => {
                path.stop();
                Ok(())
            }
            Self::Relay(path) => path.kill_relay(),
        }
    }

    /// Brings back what [`kill`](Self::kill) ended, at the same address, and touches nothing else.
    pub(crate) fn restart(&mut self) -> Result<(), String> {
        match self {
            Self::PlainTcp(path) => path.start(),
            Self::Relay(path) => path.start_relay(),
        }
    }

    /// Stops moving bytes without closing anything.
    pub(crate) fn freeze(&mut self) -> Result<(), String> {
        match self {
            Self::PlainTcp(path) => {
                path.frozen.store(true, Ordering::SeqCst);
                Ok(())
            }
            Self::Relay(path) => path.signal_relay("STOP"),
        }
    }

    /// Undoes [`freeze`](Self::freeze).
    pub(crate) fn thaw(&mut self) -> Result<(), String> {
        match self {
            Self::PlainTcp(path) => {
                path.frozen.store(false, Ordering::SeqCst);
                Ok(())
            }
            Self::Relay(path) => path.signal_relay("CONT"),
        }
    }

    /// How many dials the path has carried so far, over both routes.
    pub(crate) fn dials(&self) -> usize {
        match self {
            Self::PlainTcp(path) => path.dials.load(Ordering::SeqCst),
            Self::Relay(path) => path.dials(),
        }
    }
}

/// One TCP forwarder a route.
#[derive(Debug)]
pub(crate) struct PlainTcp {
    routes: [Route; 2],
    frozen: Arc<AtomicBool>,
    dials: Arc<AtomicUsize>,
    running: Vec<Forwarder>,
}

impl PlainTcp {
    fn new(routes: [Route; 2]) -> Self {
        Self {
            routes,
            frozen: Arc::default(),
            dials: Arc::default(),
            running: Vec::new(),
        }
    }

    fn start(&mut self) -> Result<(), String> {
        for route in self.routes {
            let forwarder = Forwarder::start(route, Arc::clone(&self.frozen), Arc::clone(&self.dials));
            self.running
                .push(forwarder.map_err(|error| format!("cannot forward from {}: {error}", route.listen))?);
        }
        Ok(())
    }

    fn stop(&mut self) {
        self.running.clear();
    }
}

/// A listener and the connections it took. Dropping it closes them all.
#[derive(Debug)]
struct Forwarder {
    listen: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    stopped: AtomicBool,
    frozen: Arc<AtomicBool>,
    dials: Arc<AtomicUsize>,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Forwarder {
    fn start(route: Route, frozen: Arc<AtomicBool>, dials: Arc<AtomicUsize>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(route.listen)?;
        let stopped = AtomicBool::new(false);
        let shared = Arc::new(Shared {
            to: route.to,
            stopped,
            frozen,
            dials,
            sockets: Mutex::default(),
        });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.accept(&listener)
        });
        Ok(Self {
            listen: route.listen,
            shared,
            acceptor: Some(acceptor),
        })
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // A connection of our own gets the acceptor out of its accept call.
        let _ = TcpStream::connect(self.listen);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for socket in self
            .shared
            .sockets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for near in listener.incoming() {
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            self.dials.fetch_add(1, Ordering::SeqCst);
            if let Err(error) = near.and_then(|near| self.join(&near)) {
                // The node sees its dial closed, as it would through any path with nothing behind it.
                eprintln!("forwarder to {}: {error}", self.to);
            }
        }
    }

    fn join(self: &Arc<Self>, near: &TcpStream) -> std::io::Result<()> {
        let far = TcpStream::connect(self.to)?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        for (from, to) in [
            (near.try_clone()?, far.try_clone()?),
            (far.try_clone()?, near.try_clone()?),
        ] {
            let shared = Arc::clone(self);
            thread::spawn(move || shared.copy(from, to));
        }
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.extend([near.try_clone()?, far]);
        Ok(())
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            while self.frozen.load(Ordering::SeqCst) && !self.stopped.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(5));
            }
            if to.write_all(&buffer[..read]).is_err() {
                let _ = from.shutdown(Shutdown::Read);
                return;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }
}
