//! Control messages cut out of a stream of bytes.

use bytes::{Bytes, BytesMut};
use macula_proto::wire::{
    Encoding,
    control::{Decoder, Message},
};

/// As in [`macula_proto::Limits`].
const MAX_PAYLOAD: usize = 4096;

/// The first byte says in which pieces the rest arrives. However it is cut, the same messages come out, every one of them
/// survives being written again, and nothing piles up.
pub fn control(data: &[u8]) {
    let Some((&piece, stream)) = data.split_first() else {
        return;
    };
    let whole = decode(stream, stream.len().max(1));
    let pieces = decode(stream, usize::from(piece).max(1));
    assert_eq!(whole, pieces, "the cuts show");
    for (encoding, message) in whole.into_iter().flatten() {
        let mut again = BytesMut::new();
        message.encode(encoding, &mut again);
        let payload = again.freeze().slice(4..);
        assert_eq!(Message::decode(&payload), Ok((encoding, message)), "not the same again");
        assert_generic(encoding, &payload);
    }
}

/// Messages, and `None` for each payload that is none.
fn decode(stream: &[u8], piece: usize) -> Vec<Option<(Encoding, Message)>> {
    let mut decoder = Decoder::new(MAX_PAYLOAD);
    let mut messages = Vec::new();
    let mut fatal = false;
    for piece in stream.chunks(piece) {
        decoder.push(piece);
        while let Some(result) = decoder.next() {
            assert!(!fatal, "something comes after the end");
            fatal = result.as_ref().is_err_and(|error| error.is_fatal());
            messages.push(result.ok());
        }
        assert!(decoder.buffered() < MAX_PAYLOAD + 4, "a complete message is held back");
    }
    messages
}

/// What is written is a map of byte strings to the general decoder too.
fn assert_generic(encoding: Encoding, payload: &Bytes) {
    let value = encoding.decode(payload, &Default::default()).expect("well-formed");
    let map = value.as_map().expect("a map");
    assert!(
        map.iter()
            .all(|(key, value)| key.as_bytes().is_some() && value.as_bytes().is_some())
    );
    assert!(value.get("t").is_some());
}
