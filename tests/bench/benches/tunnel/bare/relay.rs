//! A relay: whoever connects first is who all streams of the others go to, each copied on in blocks.

use bytes::{Bytes, BytesMut};
use macula_bench::Result;
use quinn_proto::{ConnectionHandle, Dir, StreamId, WriteError};

use super::{
    GLANCE,
    driver::{self, Bare},
};
use crate::work::BLOCK;

type End = (ConnectionHandle, StreamId);

/// One direction between two streams.
struct Copy {
    from: End,
    to: End,
    /// Read, and not written yet.
    held: Bytes,
    /// All was read.
    finished: bool,
    over: bool,
}

pub(super) fn run(mut bare: Bare) -> Result<()> {
    let mut copies: Vec<Copy> = Vec::new();
    loop {
        bare.turn(GLANCE)?;
        if let Some(&target) = bare.established.first() {
            accept(&mut bare, target, &mut copies)?;
        }
        for copy in &mut copies {
            while copy.step(&mut bare)? {}
        }
        copies.retain(|copy| !copy.over);
    }
}

fn accept(bare: &mut Bare, target: ConnectionHandle, copies: &mut Vec<Copy>) -> Result<()> {
    let handles: Vec<_> = bare
        .connections
        .keys()
        .copied()
        .filter(|handle| *handle != target)
        .collect();
    for handle in handles {
        while let Some(stream) = bare.connection(handle)?.streams().accept(Dir::Bi) {
            let onwards = bare.connection(target)?.streams().open(Dir::Bi).ok_or("no stream")?;
            let ends = [(handle, stream), (target, onwards)];
            copies.push(Copy::new(ends[0], ends[1]));
            copies.push(Copy::new(ends[1], ends[0]));
        }
    }
    Ok(())
}

impl Copy {
    fn new(from: End, to: End) -> Self {
        Self {
            from,
            to,
            held: Bytes::new(),
            finished: false,
            over: false,
        }
    }

    /// Moves a block. False if it can go no further now.
    fn step(&mut self, bare: &mut Bare) -> Result<bool> {
        if self.held.is_empty() && !self.finished {
            (self.held, self.finished) = read(bare, self.from)?;
        }
        let read = !self.held.is_empty();
        let connection = bare.connection(self.to.0)?;
        let mut stream = connection.send_stream(self.to.1);
        if read {
            match stream.write_chunks(std::slice::from_mut(&mut self.held)) {
                Ok(_) | Err(WriteError::Blocked) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.finished && self.held.is_empty() {
            stream.finish()?;
            self.over = true;
        }
        Ok(read && self.held.is_empty() && !self.over)
    }
}

fn read(bare: &mut Bare, (handle, stream): End) -> Result<(Bytes, bool)> {
    let mut block = BytesMut::new();
    let connection = bare.connection(handle)?;
    let (_, finished) = driver::read(connection, stream, BLOCK, |bytes| block.extend_from_slice(bytes))?;
    Ok((block.freeze(), finished))
}
