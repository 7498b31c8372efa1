use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::handshake::{Message as Handshake, Sender};
use super::header::{AtomCache, Header, HeaderError};
use super::*;
use crate::wire::{
    DecodeErrorKind, DecodeLimits,
    dist::control::{ControlError, Process, Spawn},
    etf::{
        self, Atom, Pid, Reference, Term, TermReader,
        tests::{any_atom, any_pid, any_reference, any_term},
    },
};

const LIMITS: DecodeLimits = DecodeLimits::DEFAULT;

fn atom(text: &str) -> Atom {
    Atom::new(text).unwrap()
}

fn frames(framing: &mut MessageFraming, piece: &[u8]) -> Vec<Result<Frame, MessageTooLarge>> {
    let mut input = Bytes::copy_from_slice(piece);
    std::iter::from_fn(|| framing.next(&mut input)).collect()
}

#[test]
fn messages_and_ticks_come_out_of_any_pieces() {
    let mut stream = BytesMut::new();
    put_message(&mut stream, 9, b"one").unwrap();
    stream.extend_from_slice(&TICK);
    put_message(&mut stream, 9, b"four!").unwrap();
    let expected = [
        Frame::Message("one".into()),
        Frame::Tick,
        Frame::Message("four!".into()),
    ]
    .map(Ok);
    for cut in 0..=stream.len() {
        let mut framing = MessageFraming::new(9);
        let mut got = frames(&mut framing, &stream[..cut]);
        got.extend(frames(&mut framing, &stream[cut..]));
        assert_eq!(got, expected, "cut at {cut}");
        assert_eq!(framing.buffered(), 0);
    }
}

#[test]
fn a_message_above_the_limit_is_refused_by_name() {
    let error = MessageTooLarge { length: 10, limit: 9 };
    assert_eq!(put_message(&mut BytesMut::new(), 9, &[0; 10]), Err(error));
    let mut framing = MessageFraming::new(9);
    assert_eq!(frames(&mut framing, b"\0\0\0\x0a0123456789"), [Err(error)]);
    assert_eq!(frames(&mut framing, b"\0\0\0\x010"), []);
    assert_eq!(
        error.to_string(),
        "a distribution message of 10 bytes exceeds the limit of 9"
    );
}

#[test]
fn a_message_in_one_piece_is_not_copied() {
    let mut input = Bytes::from_static(b"\0\0\0\x05abcde");
    let start = input.as_ptr();
    let message = MessageFraming::new(9).next(&mut input).unwrap().unwrap();
    let Frame::Message(message) = message else { panic!() };
    assert_eq!(message.as_ptr(), start.wrapping_add(4));
}

#[test]
fn flags_have_names() {
    assert_eq!(Flags::MANDATORY_25.bits(), 0x0107_0F94);
    assert_eq!(Flags::NONE.to_string(), "NONE");
    let flags = Flags::PUBLISHED | Flags::ALIAS | Flags::from_bits(1 << 63);
    assert_eq!(flags.to_string(), "PUBLISHED|ALIAS|0x8000000000000000");
    assert_eq!(flags.names().collect::<Vec<_>>(), ["PUBLISHED", "ALIAS"]);
    assert_eq!(
        Flags::MANDATORY_25_DIGEST.expanded(),
        Flags::MANDATORY_25 | Flags::MANDATORY_25_DIGEST
    );
    assert_eq!(Flags::PUBLISHED.expanded(), Flags::PUBLISHED);
    assert!(Flags::DEFAULT.contains(Flags::MANDATORY_25 | Flags::MANDATORY_26));
    assert!(!Flags::DEFAULT.contains(Flags::PUBLISHED));
    // What OTP 27 nodes were seen to send.
    let seen = Flags::from_bits(0x0D_07DF_7FBD);
    assert!(seen.contains(Flags::MANDATORY_25 | Flags::MANDATORY_26));
    assert_eq!(seen.names().fold(0, |count, _| count + 1), seen.bits().count_ones());
}

#[test]
fn a_header_fills_the_cache_and_reads_it() {
    let mut cache = AtomCache::new();
    let read = |cache: &mut AtomCache, bytes: &[u8]| cache.read_header(&Bytes::copy_from_slice(bytes));
    // Two atoms: a new one at place 0x305 and a new one at 0x006.
    let header = read(&mut cache, b"\x83\x44\x02\x8b\x00\x05\x03abc\x06\x01x..");
    assert_eq!(
        header,
        Ok(Header::Normal {
            atoms: vec![atom("abc"), atom("x")],
            body: 13
        })
    );
    // Both again, in the other order, none new.
    let header = read(&mut cache, b"\x83\x44\x02\x30\x00\x06\x05");
    assert_eq!(
        header,
        Ok(Header::Normal {
            atoms: vec![atom("x"), atom("abc")],
            body: 7
        })
    );
    // One, with a length of two bytes, in place of another.
    let header = read(&mut cache, b"\x83\x44\x01\x18\x06\0\x02yy");
    assert_eq!(
        header,
        Ok(Header::Normal {
            atoms: vec![atom("yy")],
            body: 9
        })
    );
    let header = read(
        &mut cache,
        b"\x83\x45\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\x01\x00\x06rest",
    );
    let atoms = vec![atom("yy")];
    assert_eq!(
        header,
        Ok(Header::FirstFragment {
            sequence: 1,
            fragment: 2,
            atoms,
            body: 21
        })
    );
    let header = read(&mut cache, b"\x83\x46\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01rest");
    assert_eq!(
        header,
        Ok(Header::Fragment {
            sequence: 1,
            fragment: 1,
            body: 18
        })
    );
    assert_eq!(
        read(&mut cache, b"\x83\x44\0"),
        Ok(Header::Normal { atoms: vec![], body: 3 })
    );
    assert_eq!(read(&mut cache, b"\x70\x83"), Ok(Header::PassThrough { body: 1 }));
    assert_eq!(
        read(&mut cache, b"\x83\x44\x01\x07\xff"),
        Err(HeaderError::Empty(0x7FF))
    );
    for bytes in [
        &b""[..],
        b"\x83",
        b"\x01",
        b"\x83\x47",
        b"\x83\x44",
        b"\x83\x44\x02\x88\x00\x05\x03ab",
    ] {
        assert!(
            matches!(read(&mut cache, bytes), Err(HeaderError::Bytes(_))),
            "{bytes:?}"
        );
    }
}

fn decoder(max_message: u32) -> MessageDecoder {
    MessageDecoder::new(LIMITS, FragmentLimits::default(), max_message)
}

/// Cuts a message with a header into fragments.
fn fragments(message: &[u8], sequence: u64, size: usize) -> Vec<Bytes> {
    let body = &message[3..];
    let count = body.len().div_ceil(size) as u64;
    let pieces = body.chunks(size).zip((1..=count).rev());
    let fragment = |(piece, number): (&[u8], u64)| {
        let (tag, atoms) = if number == count { (69, &[0][..]) } else { (70, &[][..]) };
        [
            &[131, tag][..],
            &sequence.to_be_bytes(),
            &number.to_be_bytes(),
            atoms,
            piece,
        ]
        .concat()
        .into()
    };
    pieces.map(fragment).collect()
}

fn sample(text: &str) -> Message {
    let to = Pid {
        node: atom("a@h"),
        id: 1,
        serial: 0,
        creation: 5,
    };
    Message::with_payload(Control::Send { to, token: None }, Term::binary(text))
}

fn encoded(message: &Message, form: Form) -> Bytes {
    let mut out = BytesMut::new();
    encode_message(message, form, &mut out).unwrap();
    out.freeze()
}

#[test]
fn fragments_of_several_messages_are_put_together() {
    let messages = [sample("first"), sample("second")];
    let [first, second] = [0, 1].map(|at| fragments(&encoded(&messages[at], Form::Header), at as u64, 10));
    let mut decoder = decoder(1000);
    let mut got = Vec::new();
    for (a, b) in first.iter().zip(&second) {
        got.extend(decoder.decode(a).unwrap());
        got.extend(decoder.decode(b).unwrap());
    }
    for rest in second.iter().skip(first.len()) {
        got.extend(decoder.decode(rest).unwrap());
    }
    assert_eq!(got, messages);
    assert_eq!(decoder.buffered(), 0);
    let whole = fragments(&encoded(&messages[0], Form::Header), 9, 1000);
    assert_eq!(whole.len(), 1);
    assert_eq!(decoder.decode(&whole[0]), Ok(Some(messages[0].clone())));
}

#[test]
fn long_messages_are_cut_so_that_they_are_put_together_again() {
    let long = |length: usize| sample(&"x".repeat(length));
    let overhead = encoded(&long(0), Form::Header).len() - 3;
    for (length, pieces) in [
        (0, 1),
        (FRAGMENT - overhead, 1),
        (FRAGMENT - overhead + 1, 2),
        (2 * FRAGMENT - overhead, 2),
        (2 * FRAGMENT - overhead + 1, 3),
        (1 << 20, 17),
    ] {
        let message = long(length);
        let cut = FragmentedMessage::encode(&message, 77).unwrap();
        assert_eq!(cut.is_cut(), pieces > 1);
        let mut left = cut.clone();
        let mut decoder = decoder(2 << 20);
        for number in 1..=pieces {
            let piece = left.next().unwrap();
            assert!(piece.len() <= FRAGMENT + 19);
            assert_eq!(left.is_empty(), number == pieces);
            let decoded = decoder.decode(&piece);
            assert_eq!(decoded, Ok((number == pieces).then(|| message.clone())), "{length}");
        }
        assert_eq!((left.next(), left.len(), decoder.buffered()), (None, 0, 0));
        // One that is not cut is what it would be without.
        if pieces == 1 {
            assert_eq!(cut.collect::<Vec<_>>(), [encoded(&message, Form::Header)]);
        }
    }
    let whole = FragmentedMessage::whole(&long(1 << 20), Form::PassThrough).unwrap();
    assert_eq!(whole.collect::<Vec<_>>(), [encoded(&long(1 << 20), Form::PassThrough)]);
}

#[test]
fn the_control_term_is_in_the_first_fragment_however_long_it_is() {
    let Control::Send { to, .. } = sample("").control else {
        panic!()
    };
    let token = Some(Term::binary("t".repeat(3 * FRAGMENT)));
    let message = Message::with_payload(Control::Send { to, token }, Term::binary("payload"));
    let pieces: Vec<Bytes> = FragmentedMessage::encode(&message, 1).unwrap().collect();
    assert_eq!(pieces.len(), 2);
    let terms = pieces[0].slice(19..);
    let mut reader = TermReader::new(&terms, &LIMITS, &[]);
    assert!(reader.term().is_ok() && reader.finish().is_ok());
    let mut decoder = decoder(1 << 20);
    assert_eq!(decoder.decode(&pieces[0]), Ok(None));
    assert_eq!(decoder.decode(&pieces[1]), Ok(Some(message)));
    // There is nothing to be cut behind a control without a payload.
    let spawned = Control::SpawnReply {
        request: Reference::new(atom("a@h"), 1, &[1]).unwrap(),
        to: Pid {
            node: atom("a@h"),
            id: 1,
            serial: 0,
            creation: 5,
        },
        flags: 0,
        result: Term::binary("r".repeat(2 * FRAGMENT)),
        token: None,
    };
    assert!(
        !FragmentedMessage::encode(&Message::control(spawned), 2)
            .unwrap()
            .is_cut()
    );
}

#[test]
fn fragments_that_do_not_fit_are_fatal() {
    let pieces = fragments(&encoded(&sample("text"), Form::Header), 7, 10);
    let out_of_order = |number| MessageError::Fragment(FragmentError::OutOfOrder { sequence: 7, number });
    let count = pieces.len() as u64;
    let mut fresh = decoder(1000);
    assert_eq!(fresh.decode(&pieces[1]), Err(out_of_order(count - 1)));
    assert_eq!(fresh.decode(&pieces[0]), Ok(None));
    assert_eq!(fresh.decode(&pieces[0]), Err(out_of_order(count)));
    assert_eq!(fresh.decode(&pieces[2]), Err(out_of_order(count - 2)));
    assert!(out_of_order(1).is_fatal());
    let mut small = decoder(15);
    assert_eq!(small.decode(&pieces[0]), Ok(None));
    let too_large = FragmentError::TooLarge { limit: 15 };
    assert_eq!(small.decode(&pieces[1]), Err(too_large.into()));
    let limits = FragmentLimits { messages: 1, bytes: 15 };
    let mut few = MessageDecoder::new(LIMITS, limits, 1000);
    let other = fragments(&encoded(&sample("text"), Form::Header), 8, 10);
    assert_eq!(few.decode(&pieces[0]), Ok(None));
    assert_eq!(few.decode(&other[0]), Err(FragmentError::TooMany { limit: 1 }.into()));
    assert_eq!(few.decode(&pieces[1]), Err(FragmentError::TooMuch { limit: 15 }.into()));
}

#[test]
fn a_bad_term_costs_one_message() {
    let mut decoder = decoder(1000);
    let error = decoder.decode(&Bytes::from_static(b"\x83\x44\0\x61\x05")).unwrap_err();
    assert_eq!(error, MessageError::Control(ControlError::NotOperation));
    assert!(!error.is_fatal());
    for (bytes, expected) in [
        (&b"p\x83\x68\x01\x61\x63"[..], ControlError::Unknown(99)),
        (b"p\x83\x68\x01\x61\x01", ControlError::Shape(1)),
        (b"p\x83\x68\x02\x61\x05\x61\x05", ControlError::Shape(5)),
    ] {
        assert_eq!(decoder.decode(&Bytes::from_static(bytes)), Err(expected.into()));
    }
    let node_link = encoded(&Message::control(Control::NodeLink), Form::PassThrough);
    let longer = Bytes::from([&node_link[..], b"\x83j"].concat());
    let Err(MessageError::Term(error)) = decoder.decode(&longer) else {
        panic!()
    };
    assert_eq!(error.kind, DecodeErrorKind::Trailing);
    assert_eq!(
        decoder.decode(&node_link),
        Ok(Some(Message::control(Control::NodeLink)))
    );
}

#[test]
fn a_large_message_is_within_the_limits() {
    let numbers = Term::List((0..1_000_000).map(Term::Int).collect());
    let deep = (0..etf::MAX_DEPTH - 2).fold(Term::NIL, |inner, _| Term::List(vec![inner]));
    for payload in [numbers, deep] {
        let message = Message {
            payload: Some(payload),
            ..sample("")
        };
        let mut decoder = MessageDecoder::new(MESSAGE_LIMITS, FragmentLimits::default(), DEFAULT_MAX_MESSAGE);
        let decoded = decoder.decode(&encoded(&message, Form::PassThrough)).unwrap();
        assert!(decoded == Some(message));
    }
}

#[test]
fn a_payload_has_to_go_with_the_operation() {
    let mut out = BytesMut::new();
    let mut message = sample("x");
    message.payload = None;
    assert_eq!(
        encode_message(&message, Form::Header, &mut out),
        Err(EncodeMessageError::Payload)
    );
    message.payload = Some(Term::Float(f64::NAN));
    assert!(encode_message(&message, Form::Header, &mut out).is_err());
    assert!(out.is_empty());
    assert_eq!(Form::negotiated(Flags::DEFAULT), Form::PassThrough);
    assert_eq!(Form::negotiated(Flags::DIST_HDR_ATOM_CACHE), Form::Header);
}

fn any_control() -> impl Strategy<Value = Control> {
    let process = || prop_oneof![any_pid().prop_map(Process::Pid), any_atom().prop_map(Process::Name)];
    let term = || proptest::option::of(any_atom().prop_map(Term::Atom));
    let pids = || (any_pid(), any_pid());
    prop_oneof![
        pids().prop_map(|(from, to)| Control::Link { from, to }),
        (any_pid(), term()).prop_map(|(to, token)| Control::Send { to, token }),
        (pids(), term()).prop_map(|((from, to), token)| Control::SendSender { from, to, token }),
        (any_pid(), any_atom(), term()).prop_map(|(from, to, token)| Control::RegSend { from, to, token }),
        (any_pid(), any_reference(), term()).prop_map(|(from, alias, token)| Control::AliasSend { from, alias, token }),
        (pids(), term(), term()).prop_map(|((from, to), reason, token)| Control::Exit {
            from,
            to,
            reason,
            token
        }),
        (pids(), term(), term()).prop_map(|((from, to), reason, token)| Control::Exit2 {
            from,
            to,
            reason,
            token
        }),
        pids().prop_map(|(from, to)| Control::Unlink { from, to }),
        (any::<u64>(), pids()).prop_map(|(id, (from, to))| Control::UnlinkId { id, from, to }),
        (any::<u64>(), pids()).prop_map(|(id, (from, to))| Control::UnlinkIdAck { id, from, to }),
        Just(Control::NodeLink),
        pids().prop_map(|(from, to)| Control::GroupLeader { from, to }),
        (any_pid(), process(), any_reference()).prop_map(|(from, to, reference)| Control::Monitor {
            from,
            to,
            reference
        }),
        (any_pid(), process(), any_reference()).prop_map(|(from, to, reference)| Control::Demonitor {
            from,
            to,
            reference
        }),
        (process(), any_pid(), any_reference(), term()).prop_map(|(from, to, reference, reason)| {
            Control::MonitorExit {
                from,
                to,
                reference,
                reason,
            }
        }),
        (any_reference(), pids(), any_pid(), any_atom(), any::<u8>(), term()).prop_map(
            |(request, (from, group_leader), _, module, arity, token)| {
                let (function, options) = (module.clone(), Term::List(vec![module.clone().into()]));
                Control::SpawnRequest(Box::new(Spawn {
                    request,
                    from,
                    group_leader,
                    module,
                    function,
                    arity,
                    options,
                    token,
                }))
            }
        ),
        (any_reference(), pids(), any::<u32>(), term()).prop_map(|(request, (to, pid), flags, token)| {
            Control::SpawnReply {
                request,
                to,
                flags,
                result: pid.into(),
                token,
            }
        }),
    ]
}

proptest! {
    #[test]
    fn every_control_goes_there_and_back(control in any_control(), payload in any_term(), header in any::<bool>()) {
        let form = if header { Form::Header } else { Form::PassThrough };
        prop_assert_eq!(Control::from_term(control.to_term()), Ok(control.clone()));
        let payload = control.has_payload().then_some(payload);
        let message = Message { control, payload };
        let bytes = encoded(&message, form);
        prop_assert_eq!(decoder(1 << 20).decode(&bytes), Ok(Some(message.clone())));
        if header {
            let mut decoder = decoder(1 << 20);
            let mut got = None;
            for fragment in fragments(&bytes, 3, 11) {
                prop_assert_eq!(got, None);
                got = decoder.decode(&fragment).unwrap();
            }
            prop_assert_eq!(got, Some(message));
        }
        for end in 0..bytes.len() {
            prop_assert!(decoder(1 << 20).decode(&bytes.slice(..end)).is_err());
        }
    }

    #[test]
    fn no_bytes_make_the_readers_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), form in 0..4_usize) {
        let start = [&[131, 68][..], &[131, 69], &[131, 70], &[112, 131]][form];
        bytes.splice(..0, start.iter().copied());
        let bytes = Bytes::from(bytes);
        let _ = decoder(1000).decode(&bytes);
        let _ = decoder(1000).decode(&bytes.slice(2..));
        for from in [Sender::Dialler, Sender::Acceptor] {
            let _ = Handshake::decode(from, &bytes[2..]);
        }
    }
}
