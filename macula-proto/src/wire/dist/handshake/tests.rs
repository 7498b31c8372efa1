use bytes::Bytes;
use proptest::prelude::*;

use super::{
    Ack, Carrier, Challenge, Complement, Cookie, Digest, HandshakeDecodeError, MAX_MESSAGE, Message as Handshake, Name,
    OldChallenge, OldName, Parser, Reply, Sender, Status,
};
use crate::wire::{dist::Flags, etf::Atom};

fn atom(text: &str) -> Atom {
    Atom::new(text).unwrap()
}

/// A handshake of each side with every message it knows.
fn handshakes() -> [(Sender, Vec<Handshake>); 2] {
    let (name, flags, digest) = (atom("a@h"), Flags::DEFAULT, Digest::of(&"ck".into(), 7));
    let named = Status::Named {
        name: name.clone(),
        creation: 9,
    };
    let status = [
        Status::Ok,
        Status::OkSimultaneous,
        Status::Nok,
        Status::NotAllowed,
        Status::Alive,
        named,
        Status::Ok,
    ];
    let mut acceptor: Vec<_> = status.into_iter().map(Handshake::Status).collect();
    let challenge = Challenge {
        flags,
        challenge: 1,
        creation: 2,
        name: name.clone(),
    };
    acceptor.extend([Handshake::Challenge(challenge), Handshake::Ack(Ack { digest })]);
    let mut dialler = vec![Handshake::Name(Name {
        flags,
        creation: 3,
        name,
    })];
    dialler.extend([Status::True, Status::False].map(Handshake::Status));
    dialler.push(Handshake::Complement(Complement {
        flags: Flags::ALIAS,
        creation: 4,
    }));
    dialler.push(Handshake::Reply(Reply { challenge: 5, digest }));
    [(Sender::Acceptor, acceptor), (Sender::Dialler, dialler)]
}

fn parse<'a>(parser: &mut Parser, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Handshake> {
    let mut messages = Vec::new();
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(message) = parser.next(&mut input) {
            messages.push(message.unwrap());
        }
        assert!(input.is_empty());
    }
    messages
}

#[test]
fn handshake_messages_come_out_joined_or_split_with_ticks_between() {
    for (from, expected) in handshakes() {
        for carrier in [Carrier::Quic, Carrier::Tcp] {
            let tick: &[u8] = if carrier == Carrier::Quic { &[0; 4] } else { &[0; 2] };
            for tick in [&[][..], tick] {
                let pieces: Vec<Bytes> = expected.iter().map(|message| carrier.frame(message)).collect();
                let stream = [tick, &pieces.join(tick)].concat();
                for cut in 0..=stream.len() {
                    let mut parser = Parser::new(from, carrier);
                    let messages = parse(&mut parser, [&stream[..cut], &stream[cut..]]);
                    assert_eq!(messages, expected, "{from:?} {carrier:?} cut at {cut}");
                    assert_eq!(parser.buffered(), 0);
                }
                let mut parser = Parser::new(from, carrier);
                assert_eq!(parse(&mut parser, stream.chunks(1)), expected);
                assert_eq!(parser.ticks(), if tick.is_empty() { 0 } else { expected.len() as u64 });
            }
        }
    }
}

#[test]
fn an_ok_waits_for_the_byte_behind_it_on_quic_only() {
    let mut parser = Parser::new(Sender::Acceptor, Carrier::Quic);
    assert_eq!(parse(&mut parser, [&b"so"[..], b"k"]), []);
    assert_eq!(parse(&mut parser, [&b"N"[..]]), [Handshake::Status(Status::Ok)]);
    let mut parser = Parser::new(Sender::Acceptor, Carrier::Tcp);
    assert_eq!(parse(&mut parser, [&b"\0\x03sok"[..]]), [Handshake::Status(Status::Ok)]);
}

#[test]
fn an_old_name_without_a_length_ends_with_what_is_there_or_with_a_tick() {
    let name = Handshake::OldName(OldName {
        flags: Flags::from_bits(7),
        name: atom("old@h"),
    });
    let bytes = Carrier::Quic.frame(&name);
    assert_eq!(&bytes[..], b"n\0\x05\0\0\0\x07old@h");
    for behind in [&b""[..], &[0; 4], &[0; 8]] {
        let mut parser = Parser::new(Sender::Dialler, Carrier::Quic);
        let whole = [&bytes, behind].concat();
        assert_eq!(parse(&mut parser, [&whole[..]]), std::slice::from_ref(&name));
        assert_eq!(parser.ticks(), behind.len() as u64 / 4);
        let rest = parse(&mut parser, [&b"c\0\0\0\x08\0\0\0\x04"[..]]);
        assert!(matches!(rest[..], [Handshake::Complement(_)]));
    }
    // Up to its host it is whole in any case.
    let at = bytes.iter().position(|byte| *byte == b'@').unwrap();
    for cut in 0..=at + 1 {
        let mut parser = Parser::new(Sender::Dialler, Carrier::Quic);
        let pieces = [&bytes[..cut], &bytes[cut..]];
        assert_eq!(parse(&mut parser, pieces), std::slice::from_ref(&name), "cut at {cut}");
    }
    let mut parser = Parser::new(Sender::Dialler, Carrier::Quic);
    let mut endless = Bytes::from(["n\0\x05\0\0\0\x07".to_owned(), "x".repeat(MAX_MESSAGE + 2)].concat());
    assert!(matches!(
        parser.next(&mut endless),
        Some(Err(HandshakeDecodeError::TooLong(_)))
    ));
}

#[test]
fn old_forms_are_read_with_a_length() {
    let name = Handshake::OldName(OldName {
        flags: Flags::from_bits(7),
        name: atom("old@h"),
    });
    let challenge = OldChallenge {
        flags: Flags::from_bits(7),
        challenge: 6,
        name: atom("old@h"),
    };
    for (from, message) in [
        (Sender::Dialler, name),
        (Sender::Acceptor, Handshake::OldChallenge(challenge)),
    ] {
        let mut parser = Parser::new(from, Carrier::Tcp);
        let parsed = parse(&mut parser, [&Carrier::Tcp.frame(&message)[..]]);
        assert_eq!(parsed, std::slice::from_ref(&message));
    }
    let mut input = Bytes::from_static(b"n\0\x05\0\0\0\x07\0\0\0\x06old@h");
    let mut parser = Parser::new(Sender::Acceptor, Carrier::Quic);
    assert_eq!(parser.next(&mut input), Some(Err(HandshakeDecodeError::OldForm)));
}

#[test]
fn what_is_behind_the_handshake_is_given_back() {
    let ack = Handshake::Ack(Ack {
        digest: Digest::from_bytes([7; 16]),
    });
    let mut input = Bytes::from([&Carrier::Quic.frame(&ack)[..], b"rest"].concat());
    let mut parser = Parser::new(Sender::Acceptor, Carrier::Quic);
    assert_eq!(parser.next(&mut input), Some(Ok(ack)));
    assert_eq!(parser.take_rest(Bytes::from_static(b" and more")), "rest and more");
    assert_eq!(parser.take_rest(input), "");
}

#[test]
fn bad_handshake_bytes_end_the_parsing() {
    use HandshakeDecodeError as Error;
    let long = [&b"N\0\0\0\0\0\0\0\0\0\0\0\0"[..], &[0x03, 0xFD]].concat();
    for (from, carrier, bytes, error) in [
        (Sender::Dialler, Carrier::Quic, &b"x"[..], Error::Tag(b'x')),
        (Sender::Dialler, Carrier::Quic, b"a", Error::Tag(b'a')),
        (Sender::Acceptor, Carrier::Quic, b"r", Error::Tag(b'r')),
        (Sender::Acceptor, Carrier::Quic, b"sok_N", Error::Tag(b'_')),
        (Sender::Acceptor, Carrier::Quic, b"strue", Error::Status),
        (Sender::Dialler, Carrier::Quic, b"sok", Error::Status),
        (Sender::Acceptor, Carrier::Quic, b"snobody", Error::Status),
        (Sender::Acceptor, Carrier::Quic, b"\0\0\0N", Error::Tick),
        (Sender::Acceptor, Carrier::Quic, b"snamed:\xff\xff", Error::Name),
        (Sender::Dialler, Carrier::Quic, &long, Error::Name),
        (
            Sender::Dialler,
            Carrier::Quic,
            b"N\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            Error::Name,
        ),
        (
            Sender::Dialler,
            Carrier::Quic,
            b"N\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\xff",
            Error::Name,
        ),
        (
            Sender::Dialler,
            Carrier::Tcp,
            b"\x08\x01",
            Error::TooLong(MAX_MESSAGE + 1),
        ),
        (Sender::Dialler, Carrier::Tcp, b"\0\x02r1", Error::Length),
        (Sender::Acceptor, Carrier::Tcp, b"\0\x05sokay", Error::Status),
    ] {
        let mut parser = Parser::new(from, carrier);
        let mut input = Bytes::copy_from_slice(bytes);
        let mut results = std::iter::from_fn(|| parser.next(&mut input));
        let last = results.find(Result::is_err);
        assert_eq!(last, Some(Err(error)), "{}", bytes.escape_ascii());
        assert_eq!(parser.next(&mut Bytes::from_static(b"N")), None);
    }
}

#[test]
fn a_later_version_may_add_to_names() {
    let (name, flags) = (atom("a@h"), Flags::DEFAULT);
    let message = Handshake::Name(Name {
        flags,
        creation: 3,
        name,
    });
    let longer = [&Carrier::Quic.frame(&message)[..], b"more"].concat();
    assert_eq!(Handshake::decode(Sender::Dialler, &longer), Ok(message));
}

#[test]
fn secrets_are_not_printed_and_proofs_are_compared_whole() {
    let cookie = Cookie::from("monster");
    assert_eq!(format!("{cookie:?}"), "Cookie(..)");
    let digest = Digest::of(&cookie, 12_345);
    let mut other = *digest.as_bytes();
    for at in 0..16 {
        other[at] ^= 1;
        assert_ne!(Digest::from_bytes(other), digest);
        other[at] ^= 1;
    }
    assert_eq!(Digest::from_bytes(other), digest);
}

proptest! {
    #[test]
    fn handshake_bytes_mean_the_same_however_they_are_cut(
        bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(b's'), Just(b'N')], 0..80),
        cut in 0..80_usize,
        dialler in any::<bool>(),
        tcp in any::<bool>(),
    ) {
        let from = if dialler { Sender::Dialler } else { Sender::Acceptor };
        let carrier = if tcp { Carrier::Tcp } else { Carrier::Quic };
        let cut = cut.min(bytes.len());
        // But for the one message that does not say where it ends.
        prop_assume!(tcp || !dialler || !bytes.contains(&b'n'));
        let run = |pieces: &[&[u8]]| {
            let mut parser = Parser::new(from, carrier);
            let mut results = Vec::new();
            for piece in pieces {
                let mut input = Bytes::copy_from_slice(piece);
                results.extend(std::iter::from_fn(|| parser.next(&mut input)));
            }
            (results, parser.buffered(), parser.ticks())
        };
        prop_assert_eq!(run(&[&bytes]), run(&[&bytes[..cut], &bytes[cut..]]));
    }
}
