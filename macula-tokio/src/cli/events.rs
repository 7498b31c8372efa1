//! What the command tells on standard output.

use std::{
    borrow::Cow,
    fmt,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use serde::Serialize;
use tokio::sync::{Semaphore, watch};

/// Events that may wait for a reader of standard output that is slow; more are lost, and counted.
const QUEUE: usize = 4096;
/// Of these, those that were told by somebody who waits for the reader.
const PACED: usize = 1024;
/// How long the last events may take to be written when the command ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Something to tell. With `--json` it is an object whose `event` is the name of the variant in snake case.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// A certificate is shown to clients, who can pin it.
    Certificate { pin: String },
    /// A socket takes connections.
    Listening { addr: String },
    /// Figures can be fetched.
    Metrics { url: String },
    /// The admin socket is there.
    Admin { socket: String },
    /// A node holds a name: this node at a relay, or a client at this relay.
    Identified {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        relay: Option<String>,
    },
    /// A newer connection took over a name.
    Displaced { name: String },
    /// A client was not given a name.
    IdentifyRefused { name: String, reason: String },
    /// A tunnel request was refused by this relay.
    RequestRefused {
        source: Option<String>,
        target: String,
        reason: String,
    },
    /// A tunnel of this node is open.
    TunnelOpen { id: String, peer: String, relay: String },
    /// A tunnel of this node is over. `bytes_in` came out of the tunnel, `bytes_out` went into it.
    TunnelClosed {
        id: String,
        peer: String,
        reason: String,
        bytes_in: u64,
        bytes_out: u64,
    },
    /// A tunnel of this relay is open.
    #[serde(rename = "tunnel_open")]
    RelayTunnelOpen { id: String, source: String, target: String },
    /// A tunnel of this relay is over. `bytes_in` came from the source, `bytes_out` from the target.
    #[serde(rename = "tunnel_closed")]
    RelayTunnelClosed {
        id: String,
        source: String,
        target: String,
        reason: String,
        bytes_in: Option<u64>,
        bytes_out: Option<u64>,
    },
    /// A connection is gone: this node's to a relay, or a client's to this relay.
    Disconnected {
        reason: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        relay: Option<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        names: Vec<String>,
    },
    /// A relay is being dialled.
    Dialling { relay: String },
    /// No relay is dialled for a while.
    Waiting { relay: String, seconds: f64, starved: bool },
    /// Access rules or certificate were read again.
    Reloaded { what: &'static str },
    /// Nothing new is taken from now on.
    Draining { tunnels: usize },
    /// Everything has ended.
    Drained,
    /// Something failed.
    Error { kind: Cow<'static, str>, message: String },
    /// Events were not written because nobody read the earlier ones.
    EventsLost { count: u64 },
}

/// The line for people.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate { pin } => write!(f, "certificate pin {pin}"),
            Self::Listening { addr } => write!(f, "listening on {addr}"),
            Self::Metrics { url } => write!(f, "figures at {url}"),
            Self::Admin { socket } => write!(f, "admin socket {socket}"),
            Self::Identified { name, relay: None } => write!(f, "{name} identified"),
            Self::Identified {
                name,
                relay: Some(relay),
            } => write!(f, "identified as {name} at {relay}"),
            Self::Displaced { name } => write!(f, "{name} taken over by a newer connection"),
            Self::IdentifyRefused { name, reason } => write!(f, "{name} refused: {reason}"),
            Self::RequestRefused { source, target, reason } => {
                let source = source.as_deref().unwrap_or("(unidentified)");
                write!(f, "tunnel {source} -> {target} refused: {reason}")
            }
            Self::TunnelOpen { id, peer, relay } => write!(f, "tunnel {id} open: {peer} by way of {relay}"),
            Self::TunnelClosed {
                id,
                peer,
                reason,
                bytes_in,
                bytes_out,
            } => write!(
                f,
                "tunnel {id} closed: {peer}, {reason}, {bytes_in} bytes in, {bytes_out} bytes out"
            ),
            Self::RelayTunnelOpen { id, source, target } => write!(f, "tunnel {id} open: {source} -> {target}"),
            Self::RelayTunnelClosed {
                id,
                source,
                target,
                reason,
                bytes_in,
                bytes_out,
            } => {
                write!(f, "tunnel {id} closed: {source} -> {target}, {reason}")?;
                match (bytes_in, bytes_out) {
                    (Some(there), Some(back)) => write!(f, ", {there} bytes there, {back} bytes back"),
                    _ => Ok(()),
                }
            }
            Self::Disconnected { reason, relay, names } => {
                let who = relay
                    .iter()
                    .chain(names)
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .join(", ");
                let who = if who.is_empty() { "a client" } else { &who };
                write!(f, "disconnected: {who}: {reason}")
            }
            Self::Dialling { relay } => write!(f, "dialling {relay}"),
            Self::Waiting {
                relay,
                seconds,
                starved,
            } => {
                let why = if *starved { " (this machine was too busy)" } else { "" };
                write!(f, "waiting {seconds:.1} s before dialling {relay}{why}")
            }
            Self::Reloaded { what } => write!(f, "{what} read again"),
            Self::Draining { tunnels } => write!(f, "draining, {tunnels} tunnels open"),
            Self::Drained => f.write_str("drained"),
            Self::Error { kind, message } => write!(f, "error: {kind}: {message}"),
            Self::EventsLost { count } => write!(f, "{count} events lost: nobody reads them"),
        }
    }
}

impl Event {
    /// One line, with its end.
    pub(crate) fn line(&self, json: bool) -> String {
        line(self, json)
    }
}

/// An event as one line, with its end: an object, or the words for people.
pub(crate) fn line(event: &(impl Serialize + fmt::Display), json: bool) -> String {
    let line = match json {
        true => serde_json::to_string(event).unwrap_or_default(),
        false => event.to_string(),
    };
    line + "\n"
}

/// Where events go. Cheap to clone; telling does not wait for a reader, unless it says so.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    queue: Option<SyncSender<Message>>,
    json: bool,
    lost: Arc<AtomicU64>,
    closed: watch::Receiver<bool>,
    /// Room for what may wait.
    room: Arc<Semaphore>,
}

#[derive(Debug)]
enum Message {
    Line(String),
    /// Makes room when it is written.
    Paced(String),
    /// Everything before this is written when the sender is dropped.
    Flush(Sender<()>),
}

impl Events {
    /// To standard output.
    pub(crate) fn stdout(json: bool) -> Self {
        Self::to(io::stdout(), json)
    }

    /// To nowhere.
    pub(crate) fn silent() -> Self {
        Self {
            queue: None,
            json: false,
            lost: Arc::default(),
            closed: watch::channel(false).1,
            room: Arc::new(Semaphore::new(0)),
        }
    }

    fn to(out: impl Write + Send + 'static, json: bool) -> Self {
        let (queue, lines) = sync_channel(QUEUE);
        let (closing, closed) = watch::channel(false);
        let lost = Arc::new(AtomicU64::new(0));
        let room = Arc::new(Semaphore::new(PACED));
        thread::spawn({
            let (lost, room) = (lost.clone(), room.clone());
            move || write_all(out, json, &lines, &lost, &closing, &room)
        });
        Self {
            queue: Some(queue),
            json,
            lost,
            closed,
            room,
        }
    }

    /// Whether events are written as JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    pub(crate) fn tell(&self, event: &Event) {
        self.print(event.line(self.json));
    }

    /// Writes text that is not an event, line end included.
    pub(crate) fn print(&self, text: String) {
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(_)) = queue.try_send(Message::Line(text)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// As [`print`](Self::print), when there is room for it: nothing is lost, and who tells is as slow as who reads.
    pub(crate) async fn print_when_room(&self, text: String) {
        let Some(queue) = &self.queue else { return };
        // Nobody closes it.
        let Ok(room) = self.room.acquire().await else { return };
        match queue.try_send(Message::Paced(text)) {
            Ok(()) => room.forget(),
            Err(TrySendError::Full(_)) => drop(self.lost.fetch_add(1, Ordering::Relaxed)),
            Err(TrySendError::Disconnected(_)) => {}
        }
    }

    pub(crate) fn error(&self, kind: impl Into<Cow<'static, str>>, error: impl fmt::Display) {
        self.tell(&Event::Error {
            kind: kind.into(),
            message: error.to_string(),
        });
    }

    /// Ready when standard output is closed at its other end, so that nobody will ever read more.
    pub(crate) async fn closed(&self) {
        if self.closed.clone().wait_for(|closed| *closed).await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits, not for long, until everything told is written.
    pub(crate) fn flush(&self) {
        let Some(queue) = &self.queue else { return };
        let (done, written) = channel();
        if queue.try_send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(LAST_WORDS);
        }
    }
}

fn write_all(
    mut out: impl Write,
    json: bool,
    lines: &Receiver<Message>,
    lost: &AtomicU64,
    closing: &watch::Sender<bool>,
    room: &Semaphore,
) {
    for message in lines {
        let mut text = match message {
            Message::Line(text) => text,
            Message::Paced(text) => {
                room.add_permits(1);
                text
            }
            Message::Flush(done) => {
                drop(done);
                continue;
            }
        };
        let count = lost.swap(0, Ordering::Relaxed);
        if count > 0 {
            text.push_str(&Event::EventsLost { count }.line(json));
        }
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                closing.send_replace(true);
                return;
            }
            Err(error) => tracing::warn!(%error, "cannot write to standard output"),
            Ok(()) => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;

    use super::*;

    fn golden() -> Vec<(Event, &'static str, &'static str)> {
        let text = str::to_owned;
        let id = "0123456789ABCDEF0123456789ABCDEF";
        vec![
            (
                Event::Certificate { pin: "ab".repeat(32) },
                r#"{"event":"certificate","pin":"abababababababababababababababababababababababababababababababab"}"#,
                "certificate pin abababababababababababababababababababababababababababababababab",
            ),
            (
                Event::Listening {
                    addr: text("[::1]:4434"),
                },
                r#"{"event":"listening","addr":"[::1]:4434"}"#,
                "listening on [::1]:4434",
            ),
            (
                Event::Identified {
                    name: text("alice"),
                    relay: Some(text("r:4434")),
                },
                r#"{"event":"identified","name":"alice","relay":"r:4434"}"#,
                "identified as alice at r:4434",
            ),
            (
                Event::Identified {
                    name: text("alice"),
                    relay: None,
                },
                r#"{"event":"identified","name":"alice"}"#,
                "alice identified",
            ),
            (
                Event::TunnelOpen {
                    id: text(id),
                    peer: text("bob"),
                    relay: text("r:4434"),
                },
                r#"{"event":"tunnel_open","id":"0123456789ABCDEF0123456789ABCDEF","peer":"bob","relay":"r:4434"}"#,
                "tunnel 0123456789ABCDEF0123456789ABCDEF open: bob by way of r:4434",
            ),
            (
                Event::TunnelClosed {
                    id: text(id),
                    peer: text("bob"),
                    reason: text("finished"),
                    bytes_in: 1,
                    bytes_out: 2,
                },
                r#"{"event":"tunnel_closed","id":"0123456789ABCDEF0123456789ABCDEF","peer":"bob","reason":"finished","bytes_in":1,"bytes_out":2}"#,
                "tunnel 0123456789ABCDEF0123456789ABCDEF closed: bob, finished, 1 bytes in, 2 bytes out",
            ),
            (
                Event::RelayTunnelClosed {
                    id: text(id),
                    source: text("a"),
                    target: text("b"),
                    reason: text("peer gone"),
                    bytes_in: None,
                    bytes_out: None,
                },
                r#"{"event":"tunnel_closed","id":"0123456789ABCDEF0123456789ABCDEF","source":"a","target":"b","reason":"peer gone","bytes_in":null,"bytes_out":null}"#,
                "tunnel 0123456789ABCDEF0123456789ABCDEF closed: a -> b, peer gone",
            ),
            (
                Event::Disconnected {
                    reason: text("timed out"),
                    relay: Some(text("r:4434")),
                    names: vec![],
                },
                r#"{"event":"disconnected","reason":"timed out","relay":"r:4434"}"#,
                "disconnected: r:4434: timed out",
            ),
            (
                Event::Disconnected {
                    reason: text("closed"),
                    relay: None,
                    names: vec![text("a"), text("b")],
                },
                r#"{"event":"disconnected","reason":"closed","names":["a","b"]}"#,
                "disconnected: a, b: closed",
            ),
            (
                Event::Dialling { relay: text("r:1") },
                r#"{"event":"dialling","relay":"r:1"}"#,
                "dialling r:1",
            ),
            (
                Event::Waiting {
                    relay: text("r:1"),
                    seconds: 1.25,
                    starved: true,
                },
                r#"{"event":"waiting","relay":"r:1","seconds":1.25,"starved":true}"#,
                "waiting 1.2 s before dialling r:1 (this machine was too busy)",
            ),
            (
                Event::RequestRefused {
                    source: None,
                    target: text("b"),
                    reason: text("not_identified"),
                },
                r#"{"event":"request_refused","source":null,"target":"b","reason":"not_identified"}"#,
                "tunnel (unidentified) -> b refused: not_identified",
            ),
            (
                Event::Draining { tunnels: 3 },
                r#"{"event":"draining","tunnels":3}"#,
                "draining, 3 tunnels open",
            ),
            (Event::Drained, r#"{"event":"drained"}"#, "drained"),
            (
                Event::Error {
                    kind: "connect".into(),
                    message: text("two\nlines \"quoted\""),
                },
                r#"{"event":"error","kind":"connect","message":"two\nlines \"quoted\""}"#,
                "error: connect: two\nlines \"quoted\"",
            ),
        ]
    }

    #[test]
    fn lines_are_as_promised() {
        for (event, json, human) in golden() {
            assert_eq!(event.line(true), format!("{json}\n"));
            assert_eq!(event.line(false), format!("{human}\n"));
        }
    }

    /// What was told with `--json`, for tests of commands.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Recorder(Sink);

    impl Recorder {
        pub(crate) fn events(&self) -> Events {
            Events::to(self.0.clone(), true)
        }

        /// The first event of that name.
        pub(crate) async fn wait(&self, name: &str) -> serde_json::Value {
            for _ in 0..2000 {
                let text = String::from_utf8(self.0.0.lock().unwrap().clone()).unwrap();
                let lines = text
                    .lines()
                    .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
                if let Some(event) = lines.into_iter().find(|event| event["event"] == name) {
                    return event;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            panic!(
                "no event {name} in {:?}",
                String::from_utf8_lossy(&self.0.0.lock().unwrap())
            );
        }

        pub(crate) fn clear(&self) {
            self.0.0.lock().unwrap().clear();
        }
    }

    #[derive(Debug, Clone, Default)]
    pub(crate) struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn everything_told_is_written_in_order() {
        let sink = Sink::default();
        let events = Events::to(sink.clone(), true);
        let all: String = golden()
            .iter()
            .map(|(event, ..)| {
                events.tell(event);
                event.line(true)
            })
            .collect();
        events.flush();
        assert_eq!(String::from_utf8(sink.0.lock().unwrap().clone()).unwrap(), all);
    }

    /// Writes block until the gate is opened.
    struct Stalled(Receiver<()>, Sink);

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_reader_costs_events_and_never_time() {
        let (open, gate) = channel();
        let sink = Sink::default();
        let events = Events::to(Stalled(gate, sink.clone()), true);
        for _ in 0..QUEUE * 2 {
            events.tell(&Event::Drained);
        }
        assert!(events.lost.load(Ordering::Relaxed) >= u64::try_from(QUEUE - 1).unwrap());
        drop(open);
        // The queue may be full for a moment still; the flush must be among what fits.
        while !String::from_utf8_lossy(&sink.0.lock().unwrap()).contains("events_lost") {
            thread::yield_now();
        }
    }

    #[tokio::test]
    async fn who_waits_for_the_reader_loses_nothing() {
        let (open, gate) = channel();
        let sink = Sink::default();
        let events = Events::to(Stalled(gate, sink.clone()), true);
        let mut told = 0;
        let telling = async {
            for _ in 0..QUEUE * 2 {
                events.print_when_room("line\n".to_owned()).await;
                told += 1;
            }
        };
        let stalled = tokio::time::timeout(Duration::from_millis(50), telling).await;
        assert!(stalled.is_err() && told >= PACED);
        drop(open);
        for _ in told..QUEUE * 2 {
            events.print_when_room("line\n".to_owned()).await;
        }
        events.flush();
        let written = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(
            (written.lines().count(), events.lost.load(Ordering::Relaxed)),
            (QUEUE * 2, 0)
        );
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_closed_reader_is_noticed() {
        let events = Events::to(Closed, false);
        events.tell(&Event::Drained);
        tokio::time::timeout(Duration::from_secs(10), events.closed())
            .await
            .expect("noticed");
        events.tell(&Event::Drained);
        events.flush();
    }
}
