//! Sender and receiver: what `work` does, by hand.

use std::time::{Duration, Instant};

use bytes::BufMut;
use macula_bench::{
    Result,
    party::{Commands, answer},
};
use quinn_proto::{Connection, ConnectionHandle, Dir, StreamId, WriteError};
use serde_json::{Value, json};

use super::{
    GLANCE,
    driver::{self, Bare},
};
use crate::work::{BLOCK, Counter, Counters, ECHO, MESSAGE, SINK};

/// Reads what there is, into `buffer`: how much, and whether that is all there will be.
fn read(connection: &mut Connection, stream: StreamId, buffer: &mut [u8]) -> Result<(usize, bool)> {
    let mut room = &mut *buffer;
    driver::read(connection, stream, room.len(), |bytes| room.put_slice(bytes))
}

fn write(connection: &mut Connection, stream: StreamId, bytes: &[u8]) -> Result<usize> {
    match connection.send_stream(stream).write(bytes) {
        Ok(written) => Ok(written),
        Err(WriteError::Blocked) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

// ----- the sender ----------------------------------------------------------------------------------------------------

struct Sender {
    bare: Bare,
    handle: ConnectionHandle,
}

pub(super) fn send(bare: Bare, handle: ConnectionHandle, commands: &mut Commands) -> Result<()> {
    let mut sender = Sender { bare, handle };
    loop {
        while let Ok(command) = commands.try_recv() {
            answer(&sender.obey(&command));
        }
        sender.bare.turn(GLANCE)?;
    }
}

impl Sender {
    fn obey(&mut self, command: &Value) -> Result<Value> {
        if let Some(bytes) = command["bulk"].as_u64() {
            let time = self.bulk(bytes)?;
            Ok(json!({ "nanoseconds": time.as_nanos() as u64 }))
        } else if let Some(count) = command["trips"].as_u64() {
            let times = self.trips(count)?;
            Ok(times.iter().map(|time| time.as_nanos() as u64).collect())
        } else {
            Err("an unknown command".into())
        }
    }

    fn connection(&mut self) -> Result<&mut Connection> {
        self.bare.connection(self.handle)
    }

    fn open(&mut self, request: u8) -> Result<StreamId> {
        let stream = self.connection()?.streams().open(Dir::Bi).ok_or("no stream")?;
        self.write_all(stream, &[request])?;
        Ok(stream)
    }

    fn write_all(&mut self, stream: StreamId, mut bytes: &[u8]) -> Result<()> {
        loop {
            let written = write(self.connection()?, stream, bytes)?;
            bytes = &bytes[written..];
            if bytes.is_empty() {
                return Ok(());
            }
            self.bare.turn(GLANCE)?;
        }
    }

    fn read_exact(&mut self, stream: StreamId, mut buffer: &mut [u8]) -> Result<()> {
        loop {
            let (read, over) = read(self.connection()?, stream, buffer)?;
            buffer = &mut buffer[read..];
            if buffer.is_empty() {
                return Ok(());
            }
            if over {
                return Err("the stream ended early".into());
            }
            self.bare.turn(GLANCE)?;
        }
    }

    fn finish(&mut self, stream: StreamId) -> Result<()> {
        self.connection()?.send_stream(stream).finish()?;
        while !read(self.connection()?, stream, &mut [0])?.1 {
            self.bare.turn(GLANCE)?;
        }
        Ok(())
    }

    fn bulk(&mut self, bytes: u64) -> Result<Duration> {
        let stream = self.open(SINK)?;
        let block = vec![0x5a; BLOCK];
        let started = Instant::now();
        for _ in 0..bytes / BLOCK as u64 {
            self.write_all(stream, &block)?;
        }
        self.connection()?.send_stream(stream).finish()?;
        let mut received = [0; 8];
        self.read_exact(stream, &mut received)?;
        let time = started.elapsed();
        match u64::from_be_bytes(received) {
            received if received == bytes => Ok(time),
            received => Err(format!("sent {bytes} bytes, {received} arrived").into()),
        }
    }

    fn trips(&mut self, count: u64) -> Result<Vec<Duration>> {
        let stream = self.open(ECHO)?;
        let mut message = [7; MESSAGE];
        let mut times = Vec::new();
        for _ in 0..count {
            let started = Instant::now();
            self.write_all(stream, &message)?;
            self.read_exact(stream, &mut message)?;
            times.push(started.elapsed());
        }
        self.finish(stream)?;
        Ok(times)
    }
}

// ----- the receiver --------------------------------------------------------------------------------------------------

struct Incoming {
    handle: ConnectionHandle,
    stream: StreamId,
    kind: Kind,
}

enum Kind {
    Unknown,
    Sink(Counter),
    Echo,
}

pub(super) fn receive(mut bare: Bare, counters: &Counters, commands: &mut Commands) -> Result<()> {
    let mut streams: Vec<Incoming> = Vec::new();
    let mut buffer = vec![0; BLOCK];
    loop {
        while commands.try_recv().is_ok() {
            answer(&Ok(counters.read()));
        }
        bare.turn(GLANCE)?;
        for (handle, connection) in &mut bare.connections {
            while let Some(stream) = connection.streams().accept(Dir::Bi) {
                let kind = Kind::Unknown;
                let handle = *handle;
                streams.push(Incoming { handle, stream, kind });
            }
        }
        let mut at = 0;
        while let Some(incoming) = streams.get_mut(at) {
            let connection = bare.connection(incoming.handle)?;
            match incoming.serve(connection, &mut buffer, counters)? {
                true => drop(streams.swap_remove(at)),
                false => at += 1,
            }
        }
    }
}

impl Incoming {
    /// True when it is over.
    fn serve(&mut self, connection: &mut Connection, buffer: &mut [u8], counters: &Counters) -> Result<bool> {
        loop {
            let room = match self.kind {
                Kind::Unknown => &mut buffer[..1],
                Kind::Sink(_) => &mut *buffer,
                Kind::Echo => &mut buffer[..MESSAGE],
            };
            let (bytes, over) = read(connection, self.stream, room)?;
            match &self.kind {
                _ if bytes == 0 => {}
                Kind::Unknown => self.kind = Kind::of(buffer[0], counters)?,
                Kind::Sink(counter) => counter.add(bytes),
                Kind::Echo => {
                    // A few bytes always fit.
                    write(connection, self.stream, &buffer[..bytes])?;
                }
            }
            if over {
                if let Kind::Sink(counter) = &self.kind {
                    write(connection, self.stream, &counter.read().to_be_bytes())?;
                }
                connection.send_stream(self.stream).finish()?;
                return Ok(true);
            }
            if bytes == 0 {
                return Ok(false);
            }
        }
    }
}

impl Kind {
    fn of(request: u8, counters: &Counters) -> Result<Self> {
        match request {
            SINK => Ok(Self::Sink(counters.add())),
            ECHO => Ok(Self::Echo),
            other => Err(format!("an unknown request: {other}").into()),
        }
    }
}
