//! Erlang terms, and what Erlang nodes say to each other.

use bytes::{Bytes, BytesMut};
use macula_proto::wire::{
    DecodeLimits,
    dist::{
        Form, FragmentLimits, Frame, MessageDecoder, MessageError, MessageFraming, MessageTooLarge, encode_message,
        handshake::{Carrier, HandshakeDecodeError, MAX_MESSAGE, Message as Handshake, Parser, Sender},
    },
    etf::{self, Term},
};

const LIMITS: DecodeLimits = DecodeLimits::DEFAULT;
const MAX: u32 = 1 << 16;

/// A term survives being written again and can be printed; what is behind it changes nothing.
pub fn etf(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let prefix = etf::decode_prefix(&bytes, &LIMITS);
    let whole = etf::decode(&bytes, &LIMITS);
    if let Ok(term) = &whole {
        assert_eq!(prefix, Ok((term.clone(), data.len())));
    }
    let Ok((term, length)) = prefix else {
        assert!(whole.is_err());
        return;
    };
    assert_eq!(whole.is_ok(), length == data.len(), "bytes behind the term");
    let mut again = BytesMut::new();
    etf::encode(&term, &mut again).expect("what was read can be written");
    let second = etf::decode(&again.clone().freeze(), &LIMITS).expect("what was written can be read");
    assert_eq!(second, term, "not the same again");
    assert_eq!(second.to_string(), term.to_string());
    let mut third = BytesMut::new();
    etf::encode(&second, &mut third).expect("encodes");
    assert_eq!(third, again, "not one form");
    if has_negative_string(&term) {
        return;
    }
    // `eetf` reads what we write, and what it writes of that is the same term to us.
    let Ok(theirs) = eetf::Term::decode(&again[..]) else {
        return;
    };
    let mut back = Vec::new();
    if theirs.encode(&mut back).is_ok() {
        let back = etf::decode(&back.into(), &LIMITS).map(sorted);
        assert_eq!(back, Ok(sorted(term)), "not what it means to eetf");
    }
}

/// Whether there is a list in it of integers that are no more than 255, and of which one is negative: `eetf` writes such a list as a
/// string of their lowest bytes.
fn has_negative_string(term: &Term) -> bool {
    let int = |term: &Term| match term {
        Term::Int(value) => Some(*value),
        _ => None,
    };
    match term {
        Term::List(terms) => {
            let small = terms.iter().all(|term| int(term).is_some_and(|value| value <= 255));
            small && terms.iter().any(|term| int(term).is_some_and(|value| value < 0))
                || terms.iter().any(has_negative_string)
        }
        Term::Tuple(terms) => terms.iter().any(has_negative_string),
        Term::ImproperList(terms, tail) => terms.iter().any(has_negative_string) || has_negative_string(tail),
        Term::Map(entries) => {
            let mut entries = entries.iter();
            entries.any(|(key, value)| has_negative_string(key) || has_negative_string(value))
        }
        Term::Fun(fun) => fun.free.iter().any(has_negative_string),
        _ => false,
    }
}

/// The same term with the entries of its maps in one order, of which `eetf` keeps none, and no short form of lists.
fn sorted(term: Term) -> Term {
    let all = |terms: Vec<Term>| terms.into_iter().map(sorted).collect();
    match term {
        Term::Tuple(terms) => Term::Tuple(all(terms)),
        Term::List(terms) => Term::List(all(terms)),
        // A string is the list of its bytes.
        Term::String(bytes) => Term::List(bytes.iter().map(|byte| Term::Int((*byte).into())).collect()),
        Term::ImproperList(terms, tail) => Term::ImproperList(all(terms), Box::new(sorted(*tail))),
        Term::Map(entries) => {
            let mut entries: Vec<_> = entries
                .into_iter()
                .map(|(key, value)| (sorted(key), sorted(value)))
                .collect();
            entries.sort_by_cached_key(|(key, _)| format!("{key:?}"));
            Term::Map(entries)
        }
        Term::Fun(mut fun) => {
            fun.free = all(fun.free);
            Term::Fun(fun)
        }
        term => term,
    }
}

/// The first byte says what the rest is, and in which pieces it arrives. However it is cut, the same comes out; nothing piles up;
/// and messages survive being written again.
pub fn dist(data: &[u8]) {
    let Some((&first, stream)) = data.split_first() else {
        return;
    };
    let piece = usize::from(first & 0x0F) + 1;
    match first >> 4 {
        0..4 => handshake(Sender::Dialler, Carrier::Quic, stream, piece),
        4..8 => handshake(Sender::Acceptor, Carrier::Quic, stream, piece),
        8 => handshake(Sender::Dialler, Carrier::Tcp, stream, piece),
        9 => handshake(Sender::Acceptor, Carrier::Tcp, stream, piece),
        _ => messages(stream, piece),
    }
}

fn handshake(from: Sender, carrier: Carrier, stream: &[u8], piece: usize) {
    let whole = parse(from, carrier, stream, stream.len().max(1));
    let cut = parse(from, carrier, stream, piece);
    // A name of the old form ends on QUIC with the bytes at hand: the one message whose cuts may show.
    let loose = from == Sender::Dialler && carrier == Carrier::Quic && stream.contains(&b'n');
    assert!(loose || whole == cut, "the cuts show: {whole:?}, {cut:?}");
    for message in whole.0.into_iter().flatten() {
        let mut again = BytesMut::new();
        message.encode(&mut again);
        assert_eq!(Handshake::decode(from, &again), Ok(message), "not the same again");
    }
}

type Parsed = (Vec<Result<Handshake, HandshakeDecodeError>>, usize, u64);

fn parse(from: Sender, carrier: Carrier, stream: &[u8], piece: usize) -> Parsed {
    let mut parser = Parser::new(from, carrier);
    let mut results = Vec::new();
    for piece in stream.chunks(piece) {
        let mut input = Bytes::copy_from_slice(piece);
        results.extend(std::iter::from_fn(|| parser.next(&mut input)));
        assert!(input.is_empty() && parser.buffered() < MAX_MESSAGE + 2, "piles up");
    }
    (results, parser.buffered(), parser.ticks())
}

fn messages(stream: &[u8], piece: usize) {
    let whole = frames(stream, stream.len().max(1));
    assert_eq!(whole, frames(stream, piece), "the cuts show");
    let mut decoder = MessageDecoder::new(LIMITS, FragmentLimits::default(), MAX);
    for frame in whole.into_iter().flatten() {
        let Frame::Message(bytes) = frame else { continue };
        let message = match decoder.decode(&bytes) {
            Ok(Some(message)) => message,
            Ok(None) => continue,
            Err(error) if error.is_fatal() => break,
            Err(MessageError::Term(_) | MessageError::Control(_)) => continue,
            Err(error) => panic!("{error} is not fatal"),
        };
        for form in [Form::PassThrough, Form::Header] {
            let mut again = BytesMut::new();
            encode_message(&message, form, &mut again).expect("what was read can be written");
            let mut fresh = MessageDecoder::new(LIMITS, FragmentLimits::default(), MAX);
            assert_eq!(
                fresh.decode(&again.freeze()),
                Ok(Some(message.clone())),
                "not the same again"
            );
        }
    }
    assert!(decoder.buffered() <= stream.len());
}

fn frames(stream: &[u8], piece: usize) -> Vec<Result<Frame, MessageTooLarge>> {
    let mut framing = MessageFraming::new(MAX);
    let mut frames = Vec::new();
    for piece in stream.chunks(piece) {
        let mut input = Bytes::copy_from_slice(piece);
        frames.extend(std::iter::from_fn(|| framing.next(&mut input)));
    }
    assert!(framing.buffered() <= stream.len());
    frames
}
