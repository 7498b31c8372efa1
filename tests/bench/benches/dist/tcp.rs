//! The same messages and ticks over one TCP connection, framed as Erlang nodes do it, and nothing else: no encryption.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use macula_bench::Result;
use macula_tokio::proto::wire::dist::{DEFAULT_MAX_MESSAGE, Frame, MessageFraming, TICK};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    runtime::Runtime,
    sync::mpsc,
};

use crate::{Link, end};

/// Bytes gathered before they are written.
const JOIN: usize = 64 << 10;

pub(crate) struct Tcp {
    near: Runtime,
    _far: Runtime,
    send: mpsc::Sender<Bytes>,
    tick: Arc<AtomicBool>,
    /// When each message came: its length; a tick is 0.
    came: mpsc::UnboundedReceiver<(usize, Instant)>,
}

impl Tcp {
    pub(crate) fn start() -> Result<Self> {
        let (near, far) = (end("near")?, end("far")?);
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = far.block_on(TcpListener::bind(any))?;
        let dialled = near.block_on(TcpStream::connect(listener.local_addr()?))?;
        let (accepted, _) = far.block_on(listener.accept())?;
        dialled.set_nodelay(true)?;
        let (_, write) = dialled.into_split();
        let (read, _) = accepted.into_split();
        let (send, messages) = mpsc::channel(64);
        let (tell, came) = mpsc::unbounded_channel();
        let tick = Arc::new(AtomicBool::new(false));
        near.spawn(write_all(write, messages, tick.clone()));
        far.spawn(read_all(read, tell));
        Ok(Self {
            near,
            _far: far,
            send,
            tick,
            came,
        })
    }

    fn came(&mut self) -> Result<(usize, Instant)> {
        Ok(self.came.blocking_recv().ok_or("the connection is lost")?)
    }
}

/// Messages one behind the other, many short ones at once; a tick goes between two messages.
async fn write_all(mut stream: OwnedWriteHalf, mut messages: mpsc::Receiver<Bytes>, tick: Arc<AtomicBool>) {
    let mut buffer = BytesMut::with_capacity(2 * JOIN);
    while let Some(message) = messages.recv().await {
        let mut next = Some(message);
        while let Some(message) = next {
            if tick.swap(false, Relaxed) {
                buffer.put_slice(&TICK);
            }
            buffer.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
            if message.len() < JOIN {
                buffer.put_slice(&message);
            } else {
                let written = stream.write_all(&buffer).await;
                buffer.clear();
                if written.is_err() || stream.write_all(&message).await.is_err() {
                    return;
                }
            }
            next = (buffer.len() < JOIN).then(|| messages.try_recv().ok()).flatten();
        }
        if stream.write_all(&buffer).await.is_err() {
            return;
        }
        buffer.clear();
    }
}

async fn read_all(mut stream: OwnedReadHalf, tell: mpsc::UnboundedSender<(usize, Instant)>) {
    let mut framing = MessageFraming::new(DEFAULT_MAX_MESSAGE);
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(JOIN);
        match stream.read_buf(&mut buffer).await {
            Ok(1..) => {}
            _ => return,
        }
        let mut input = buffer.split().freeze();
        let now = Instant::now();
        while let Some(Ok(frame)) = framing.next(&mut input) {
            let length = match frame {
                Frame::Tick => 0,
                Frame::Message(message) => message.len(),
            };
            if tell.send((length, now)).is_err() {
                return;
            }
        }
    }
}

impl Link for Tcp {
    fn transfer(&mut self, length: usize, count: usize) -> Result<Duration> {
        let send = self.send.clone();
        let message = Bytes::from(vec![7; length]);
        let started = Instant::now();
        self.near.spawn(async move {
            for _ in 0..count {
                if send.send(message.clone()).await.is_err() {
                    return;
                }
            }
        });
        let mut ended = started;
        for _ in 0..count {
            ended = self.came()?.1;
        }
        Ok(ended.saturating_duration_since(started))
    }

    fn ticks(&mut self, length: usize, count: usize) -> Result<Vec<Duration>> {
        let stop = Arc::new(AtomicBool::new(false));
        let (send, done) = (self.send.clone(), stop.clone());
        let message = Bytes::from(vec![7; length]);
        self.near.spawn(async move {
            while !done.load(Relaxed) && send.send(message.clone()).await.is_ok() {}
            let _ = send.send(Bytes::from_static(b"x")).await;
        });
        let mut took = Vec::with_capacity(count);
        for _ in 0..count {
            std::thread::sleep(crate::BETWEEN);
            let sent = Instant::now();
            self.tick.store(true, Relaxed);
            loop {
                let (length, at) = self.came()?;
                if length == 0 {
                    took.push(at.saturating_duration_since(sent));
                    break;
                }
            }
        }
        stop.store(true, Relaxed);
        while self.came()?.0 != 1 {}
        Ok(took)
    }
}
