//! Items put together on the stack.

use bytes::{BufMut, BytesMut};

use super::reader::{ARRAY, BYTES, MAP, SIMPLE, TEXT, UINT};

/// Room for what is not in the buffer yet: most frames are smaller.
const ROOM: usize = 512;

/// Appends items to a buffer, in few large pieces: a frame is dozens of items of a few bytes, and appending each of them to a
/// buffer that may have to grow costs more than the item.
///
/// What was written is in the buffer only after [`flush`](Self::flush).
pub(crate) struct Pen<'o> {
    room: [u8; ROOM],
    /// Bytes of `room` that are written.
    at: usize,
    out: &'o mut BytesMut,
}

impl<'o> Pen<'o> {
    #[inline]
    pub(crate) fn new(out: &'o mut BytesMut) -> Self {
        Self {
            room: [0; ROOM],
            at: 0,
            out,
        }
    }

    /// Appends what was written since the last time.
    pub(crate) fn flush(&mut self) {
        let written = self.room.get(..self.at).unwrap_or_default();
        if self.out.capacity() == 0 {
            // Exactly as large as it has to be, so that it can be frozen as it is.
            *self.out = BytesMut::from(written);
        } else {
            self.out.extend_from_slice(written);
        }
        self.at = 0;
    }

    /// Bytes in the buffer and written.
    pub(crate) fn position(&self) -> usize {
        self.out.len() + self.at
    }

    /// The first `used` of these bytes: a copy of a fixed length takes a few instructions, one of any length a call.
    #[inline]
    pub(crate) fn put<const N: usize>(&mut self, bytes: &[u8; N], used: usize) {
        let slot = self.room.get_mut(self.at..).and_then(|room| room.first_chunk_mut());
        match slot {
            Some(slot) => {
                *slot = *bytes;
                self.at += used;
            }
            None => self.put_flushed(bytes.get(..used).unwrap_or_default()),
        }
    }

    /// These bytes.
    #[inline]
    pub(crate) fn put_slice(&mut self, bytes: &[u8]) {
        let end = self.at + bytes.len();
        match self.room.get_mut(self.at..end) {
            Some(slot) => {
                slot.copy_from_slice(bytes);
                self.at = end;
            }
            None => self.put_flushed(bytes),
        }
    }

    #[cold]
    fn put_flushed(&mut self, bytes: &[u8]) {
        // Room that was given may be all that it takes; where there is none, some is made for what follows.
        let behind = if self.out.capacity() == 0 { ROOM / 2 } else { 0 };
        self.out.reserve(self.at + bytes.len() + behind);
        self.flush();
        self.out.put_slice(bytes);
    }

    /// The shortest head for `argument`.
    #[inline]
    fn head(&mut self, major: u8, argument: u64) {
        let major = major << 5;
        match argument {
            0..=23 => self.put(&[major | argument as u8], 1),
            24..=0xFF => self.put(&[major | 24, argument as u8], 2),
            0x1_0000_0000.. => {
                let [a, b, c, d, e, f, g, h] = argument.to_be_bytes();
                self.put(&[major | 27, a, b, c, d, e, f, g, h], 9);
            }
            _ => self.long_head(major, argument),
        }
    }

    fn long_head(&mut self, major: u8, argument: u64) {
        let [.., a, b, c, d] = argument.to_be_bytes();
        if argument <= 0xFFFF {
            self.put(&[major | 25, c, d], 3);
        } else {
            self.put(&[major | 26, a, b, c, d], 5);
        }
    }

    #[inline]
    pub(crate) fn uint(&mut self, value: u64) {
        self.head(UINT, value);
    }

    #[inline]
    fn string(&mut self, major: u8, string: &[u8]) {
        if string.len() < 24
            && let Some([head, slot @ ..]) = self.room.get_mut(self.at..self.at + 1 + string.len())
        {
            *head = major << 5 | string.len() as u8;
            slot.copy_from_slice(string);
            self.at += 1 + string.len();
            return;
        }
        self.head(major, string.len() as u64);
        self.put_slice(string);
    }

    pub(crate) fn bytes(&mut self, string: &[u8]) {
        self.string(BYTES, string);
    }

    pub(crate) fn text(&mut self, string: &[u8]) {
        self.string(TEXT, string);
    }

    pub(crate) fn array(&mut self, elements: usize) {
        self.head(ARRAY, elements as u64);
    }

    pub(crate) fn map(&mut self, entries: usize) {
        self.head(MAP, entries as u64);
    }

    #[inline]
    pub(crate) fn null(&mut self) {
        self.put(&[SIMPLE << 5 | 22], 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::cbor::writer;

    #[test]
    fn items_are_the_same_however_much_stands_in_front_of_them() {
        let numbers = [
            0,
            1,
            23,
            24,
            0xFF,
            0x100,
            0xFFFF,
            0x1_0000,
            0xFFFF_FFFF,
            0x1_0000_0000,
            u64::MAX,
        ];
        let strings = [0, 1, 22, 23, 24, 255, 256, 511, 512, 513, 2_000].map(|length| vec![7; length]);
        for before in (0..30).chain(ROOM - 30..ROOM + 5) {
            let (mut expected, mut out) = (BytesMut::from(&b"there"[..]), BytesMut::from(&b"there"[..]));
            let mut pen = Pen::new(&mut out);
            let mut both = |put: &dyn Fn(&mut BytesMut), items: &dyn Fn(&mut Pen<'_>)| {
                put(&mut expected);
                items(&mut pen);
                assert_eq!(pen.position(), expected.len());
            };
            let front = vec![1; before];
            both(&|out| out.put_slice(&front), &|pen| pen.put_slice(&front));
            for number in numbers {
                both(&|out| writer::put_uint(out, number), &|pen| pen.uint(number));
                let length = number as usize;
                both(&|out| writer::put_array(out, length), &|pen| pen.array(length));
                both(&|out| writer::put_map(out, length), &|pen| pen.map(length));
            }
            for string in &strings {
                both(&|out| writer::put_bytes(out, string), &|pen| pen.bytes(string));
                both(&|out| writer::put_text(out, string), &|pen| pen.text(string));
            }
            both(&writer::put_null, &|pen| pen.null());
            both(&|out| out.put_slice(b"ab"), &|pen| pen.put(b"abcd", 2));
            pen.flush();
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn what_fits_on_the_stack_gets_a_buffer_of_its_size() {
        let mut out = BytesMut::new();
        let mut pen = Pen::new(&mut out);
        pen.bytes(&[1; 100]);
        pen.flush();
        assert_eq!((out.len(), out.capacity()), (102, 102));
    }
}
