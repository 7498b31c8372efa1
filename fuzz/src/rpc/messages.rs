//! RPC messages cut out of a stream of bytes.

use bytes::{Bytes, BytesMut};
use macula_proto::wire::{
    DecodeLimits, Encoding, Value,
    rpc::{Chunk, Decoder, HEADER, Message, RpcError, StreamData, encode_data_head, unpack_args},
};

/// Small, so that the limit is met.
const MAX_PAYLOAD: u32 = 4096;

/// The first byte says in which pieces the rest arrives. However it is cut, the same messages come out, every one of them
/// survives being written again in either encoding, a router that does not decode them reads the same ids, and nothing piles
/// up.
pub fn rpc(data: &[u8]) {
    let Some((&piece, stream)) = data.split_first() else {
        return;
    };
    let stream = Bytes::copy_from_slice(stream);
    let whole = decode(&stream, stream.len().max(1));
    let pieces = decode(&stream, usize::from(piece).max(1));
    assert_eq!(whole, pieces, "the cuts show");
    assert_ids(&stream);
    for (message, encoding) in whole.into_iter().flatten() {
        for again in [Encoding::MessagePack, Encoding::Cbor] {
            assert_again(&message, again, again == encoding);
        }
        if let Message::Call(call) = &message {
            let _ = unpack_args(&call.args, encoding, &DecodeLimits::DEFAULT);
        }
    }
}

fn decode(stream: &Bytes, piece: usize) -> Vec<Result<(Message, Encoding), RpcError>> {
    let mut decoder = Decoder::new(MAX_PAYLOAD, DecodeLimits::DEFAULT);
    let mut messages = Vec::new();
    let mut fatal = false;
    for start in (0..stream.len()).step_by(piece) {
        decoder.push(stream.slice(start..stream.len().min(start + piece)));
        while let Some(result) = decoder.next() {
            assert!(!fatal, "something comes after the end");
            fatal = result.as_ref().is_err_and(|bad| bad.is_fatal());
            messages.push(result.map_err(|bad| bad.error));
        }
        assert!(
            decoder.buffered() < MAX_PAYLOAD as usize + HEADER,
            "a complete message is held back"
        );
    }
    messages
}

/// The ids that a router reads are those of the message.
fn assert_ids(stream: &Bytes) {
    let mut decoder = Decoder::new(MAX_PAYLOAD, DecodeLimits::DEFAULT);
    decoder.push(stream.clone());
    while let Some(Ok(raw)) = decoder.next_raw() {
        let decoded = raw.decode(&DecodeLimits::DEFAULT);
        let peeked = raw.peek(&DecodeLimits::DEFAULT);
        let Ok((message, encoding)) = decoded else {
            continue;
        };
        // Ids of the wrong kind in messages that have no such field are the only reason to refuse what can be decoded.
        let Ok(peek) = peeked else {
            assert!(
                peeked.is_err_and(|error| is_about_ids(error, &message)),
                "refused by the router alone"
            );
            continue;
        };
        assert_eq!((peek.kind, peek.encoding), (message.kind(), encoding));
        if message.stream().is_some() {
            assert_eq!(peek.stream, message.stream(), "another stream to the router");
        }
        match &message {
            Message::Call(call) => {
                assert_eq!(peek.call.as_ref(), Some(&call.call_id));
                assert_eq!(peek.procedure.as_ref(), Some(&call.procedure));
            }
            Message::Reply(reply) => assert_eq!(peek.call.as_ref(), Some(&reply.call_id)),
            Message::StreamOpen(open) => assert_eq!(peek.procedure.as_ref(), Some(&open.procedure)),
            _ => {}
        }
    }
}

fn is_about_ids(error: RpcError, message: &Message) -> bool {
    match error {
        RpcError::StreamId(_) => message.stream().is_none(),
        RpcError::WrongType { .. } | RpcError::Duplicate(_) => true,
        _ => false,
    }
}

/// Written again, a message is the same message, and a map to the general decoder.
fn assert_again(message: &Message, encoding: Encoding, same: bool) {
    let mut again = BytesMut::new();
    match message.encode(encoding, &mut again) {
        Ok(()) => {}
        // What one encoding holds, the other need not: text that is not UTF-8, keys that are there twice.
        Err(error) => return assert!(!same, "what was read cannot be written: {error}"),
    }
    let mut decoder = Decoder::default();
    let again = again.freeze();
    decoder.push(again.clone());
    let decoded = decoder.next().expect("a message");
    assert_eq!(decoded, Ok((message.clone(), encoding)), "not the same again");
    assert_eq!(decoder.buffered(), 0);
    let limits = DecodeLimits::DEFAULT.with_depth(DecodeLimits::DEFAULT.depth + 1);
    let value = encoding.decode(&again.slice(HEADER..), &limits).expect("well-formed");
    assert!(matches!(value, Value::Map(_)));
    if let Message::StreamData(StreamData {
        stream,
        seq,
        chunk: Chunk::Raw(body),
    }) = message
    {
        let mut head = BytesMut::new();
        encode_data_head(*stream, *seq, body.len(), encoding, &mut head).expect("fits");
        head.extend_from_slice(body);
        assert_eq!(head, again, "a head and a body are not the message");
    }
}
