use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::wire::{DecodeError, DecodeErrorKind, DecodeLimits, EncodeError};

const LIMITS: DecodeLimits = DecodeLimits::DEFAULT;

fn unhex(digits: &str) -> Bytes {
    let digit = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(digit).collect()
}

fn kind(hex: &str) -> Result<Term, DecodeErrorKind> {
    decode(&unhex(hex), &LIMITS).map_err(|error| error.kind)
}

fn encoded(term: &Term) -> Result<Bytes, EncodeError> {
    let mut out = BytesMut::new();
    encode(term, &mut out).map(|()| out.freeze())
}

fn atom(text: &str) -> Atom {
    Atom::new(text).unwrap()
}

/// What `term_to_binary` of OTP 25 makes of terms, and how the shell prints them.
const FROM_ERLANG: [(&str, &str); 44] = [
    ("836100", "0"),
    ("8361FF", "255"),
    ("836200000100", "256"),
    ("8362FFFFFFFF", "-1"),
    ("83627FFFFFFF", "2147483647"),
    ("836280000000", "-2147483648"),
    ("836E040000000080", "2147483648"),
    ("836E040101000080", "-2147483649"),
    ("836E0800FFFFFFFFFFFFFF7F", "9223372036854775807"),
    ("836E08010000000000000080", "-9223372036854775808"),
    ("836E08000000000000000080", "9223372036854775808"),
    ("836E08010100000000000080", "-9223372036854775809"),
    ("836E0800FFFFFFFFFFFFFFFF", "18446744073709551615"),
    (
        "836E11000000000000000000000000000000000001",
        "340282366920938463463374607431768211456",
    ),
    (
        "836E1A010000000000000000000000000000000000000000000000000001",
        "-1606938044258990275541962092341162602522202993782792835301376",
    ),
    ("83463FF0000000000000", "1.0"),
    ("8346BFE0000000000000", "-0.5"),
    ("83464480F0CF064DD592", "1.0e22"),
    ("83463E9421F5F40D8376", "3.0e-7"),
    ("836400026F6B", "ok"),
    ("8364000B48656C6C6F20576F726C64", "'Hello World'"),
    ("8364000B61403132372E302E302E31", "'a@127.0.0.1'"),
    ("8364000469742773", "'it\\'s'"),
    ("836A", "[]"),
    ("836B0003616263", "\"abc\""),
    ("836B0006746162097122", "\"tab\\tq\\\"\""),
    ("836C0000000361016102620000012C6A", "[1,2,300]"),
    ("836B00020001", "[0,1]"),
    ("836C000000016400016164000162", "[a|b]"),
    ("836800", "{}"),
    ("83680264000161680164000162", "{a,{b}}"),
    ("836D00000000", "<<>>"),
    ("836D00000003686579", "<<\"hey\">>"),
    ("836D0000000368C3A9", "<<\"h\u{e9}\"/utf8>>"),
    ("836D000000030102FF", "<<1,2,255>>"),
    ("834D00000002030140", "<<1,2:3>>"),
    ("837400000000", "#{}"),
    (
        "8374000000026400016161016B00016B6C00000001640001786A",
        "#{a => 1,\"k\" => [x]}",
    ),
    ("83716400056C697374736400036D61706102", "fun lists:map/2"),
    (
        "836C000000016C0000000261016C00000001610261036A6400047461696C",
        "[[1,[2|3]]|tail]",
    ),
    ("8364000474727565", "true"),
    ("8364000366756E", "'fun'"),
    ("83640001E9", "\u{e9}"),
    ("837702CEBB", "'\u{3bb}'"),
];

#[test]
fn what_erlang_writes_is_read_and_printed_as_erlang_does() {
    for (hex, text) in FROM_ERLANG {
        let term = kind(hex).unwrap();
        assert_eq!(term.to_string(), text);
        let again = encoded(&term).unwrap();
        assert_eq!(decode(&again, &LIMITS), Ok(term), "{text}");
        // Erlang 25 still writes Latin-1 atoms with their old tags.
        if !text.contains(|char: char| char.is_lowercase()) || text.starts_with(['"', '<']) {
            assert_eq!(again, unhex(hex), "{text}");
        }
    }
}

#[test]
fn a_long_integer_is_printed_in_decimal_and_a_monstrous_one_in_hexadecimal() {
    let mut magnitude = vec![0; 262];
    magnitude.push(16);
    let term = Term::Big(BigInt::new(false, magnitude.into()).unwrap());
    let text = term.to_string();
    assert!(text.starts_with("1455428565004863093618902384493306497288094420592") && text.len() == 633);
    assert!(text.ends_with("223554270198636103730385125376"), "{text}");
    assert_eq!(decode(&encoded(&term).unwrap(), &LIMITS), Ok(term));
    let term = Term::Big(BigInt::new(true, vec![1; 1025].into()).unwrap());
    assert_eq!(term.to_string(), format!("-16#{}", "01".repeat(1025)));
}

#[test]
fn identifiers_name_their_node() {
    let hex = "836803586400057A7A40766D00000009000000006B0187775A00036400057A7A40766D6B018777000294BF0C6C00028EBCA5B75964\
               00057A7A40766D000000006B018777";
    let term = kind(hex).unwrap();
    let text = "{<zz@vm.9.0>,#Ref<zz@vm.2394727863.208404482.169151>,#Port<zz@vm.0>}";
    assert_eq!(term.to_string(), text);
    let creation = 0x6B01_8777;
    let [Term::Pid(pid), Term::Reference(reference), Term::Port(port)] = term.as_tuple().unwrap() else {
        panic!("{term:?}");
    };
    assert_eq!(
        (pid.creation, reference.creation, port.creation),
        (creation, creation, creation)
    );
    assert_eq!(reference.words(), [0x294BF, 0x0C6C_0002, 0x8EBC_A5B7]);
    assert_eq!(decode(&encoded(&term).unwrap(), &LIMITS), Ok(term));
}

#[test]
fn functions_survive() {
    let hex = "8370000000450137CE9523DD68BAA5A98EA8C4AF29FFDA00000000000000006400016761006201BE74A95864000D6E6F6E6F6465406E6F\
               686F7374000000090000000000000000";
    let term = kind(hex).unwrap();
    assert_eq!(term.to_string(), "#Fun<g.0.29258921>");
    let Term::Fun(fun) = &term else { panic!("{term:?}") };
    assert_eq!((fun.arity, fun.index, fun.free.len()), (1, 0, 0));
    assert_eq!(decode(&encoded(&term).unwrap(), &LIMITS), Ok(term));
    // Its size must be what follows.
    assert_eq!(
        kind(&hex.replace("00000045", "00000046")),
        Err(DecodeErrorKind::Invalid)
    );
}

#[test]
fn the_old_forms_are_read() {
    let node = "640003614062";
    let old = |body: &str| kind(&format!("83{}", body.replace('N', node))).unwrap();
    assert_eq!(
        old("63312E3530303030303030303030303030303030303030652B30300000000000"),
        Term::Float(1.5)
    );
    assert_eq!(old("7301E9"), Term::Atom(atom("\u{e9}")));
    let pid = Pid {
        node: atom("a@b"),
        id: 1,
        serial: 2,
        creation: 3,
    };
    assert_eq!(old("67N000000010000000203"), Term::Pid(pid.clone()));
    assert_eq!(old("67N0000000100000002FF"), Term::Pid(pid));
    assert_eq!(
        old("66N0000000103"),
        Port {
            node: atom("a@b"),
            id: 1,
            creation: 3
        }
        .into()
    );
    let large = Port {
        node: atom("a@b"),
        id: 1 << 40,
        creation: 9,
    };
    assert_eq!(old("78N000001000000000000000009"), large.clone().into());
    assert_eq!(
        decode(&encoded(&large.clone().into()).unwrap(), &LIMITS),
        Ok(large.into())
    );
    assert_eq!(
        old("65N0000000703"),
        Reference::new(atom("a@b"), 3, &[7]).unwrap().into()
    );
    assert_eq!(
        old("720002N030000000700000008"),
        Reference::new(atom("a@b"), 3, &[7, 8]).unwrap().into()
    );
}

#[test]
fn integers_are_as_short_as_can_be_when_decoded() {
    assert_eq!(kind("836E020001FF"), Ok(Term::Int(0xFF01)));
    assert_eq!(kind("836E0A0001000000000000000000"), Ok(Term::Int(1)));
    assert_eq!(kind("836F0000000000"), Ok(Term::Int(0)));
    assert_eq!(Term::from(u64::MAX).as_u64(), Some(u64::MAX));
    assert_eq!(Term::from(i128::from(i64::MIN)), Term::Int(i64::MIN));
    assert!(Term::from(i128::from(i64::MIN) - 1) < Term::from(u64::MAX));
}

#[test]
fn faults_are_told_apart() {
    use DecodeErrorKind as Kind;
    for (hex, expected) in [
        ("", Kind::Truncated),
        ("61", Kind::Invalid),
        ("83", Kind::Truncated),
        ("836101FF", Kind::Trailing),
        ("83FF", Kind::Invalid),
        ("836C00000000", Kind::Truncated),
        ("836C000000006101", Kind::Invalid),
        ("836CFFFFFFFF6A", Kind::Truncated),
        ("8369FFFFFFFF", Kind::Truncated),
        ("8374FFFFFFFF6A6A", Kind::Truncated),
        ("836DFFFFFFFF00", Kind::Truncated),
        ("836FFFFFFFFF0000", Kind::Truncated),
        ("836E010201", Kind::Invalid),
        ("83467FF0000000000000", Kind::NotFinite),
        ("836301", Kind::Truncated),
        ("837701FF", Kind::NotUtf8),
        ("8352", Kind::Truncated),
        ("835200", Kind::Invalid),
        ("835000000000", Kind::Unsupported),
        ("837500000000", Kind::Unsupported),
        ("837900", Kind::Unsupported),
        ("834D000000010001", Kind::Invalid),
        ("834D000000010901", Kind::Invalid),
        ("834D0000000003", Kind::Invalid),
        ("8374000000026101610261016102", Kind::DuplicateKey),
        ("835A00007700000000007700", Kind::Invalid),
        ("835A0006770000000000", Kind::Invalid),
        ("835861016102", Kind::Invalid),
        ("8371770161770162620000FFFF", Kind::Invalid),
    ] {
        assert_eq!(kind(hex), Err(expected), "{hex}");
    }
    let error = decode(&unhex("83680261"), &LIMITS);
    assert_eq!(
        error,
        Err(DecodeError {
            kind: Kind::Truncated,
            at: 3
        })
    );
}

#[test]
fn an_atom_has_at_most_255_characters() {
    let long = "\u{3bb}".repeat(255);
    let term = Term::Atom(atom(&long));
    assert_eq!(decode(&encoded(&term).unwrap(), &LIMITS), Ok(term));
    assert_eq!(Atom::new(format!("{long}x")), Err(AtomTooLong));
    let hex = format!("83760100{}", "61".repeat(256));
    assert_eq!(kind(&hex), Err(DecodeErrorKind::Invalid));
    assert_eq!(kind(&hex.replacen("76", "64", 1)), Err(DecodeErrorKind::Invalid));
}

#[test]
fn limits_hold() {
    let deep = |depth: usize| Bytes::from([vec![131], [104, 1].repeat(depth), vec![106]].concat());
    let limits = LIMITS.with_depth(5);
    assert!(decode(&deep(5), &limits).is_ok());
    let error = decode(&deep(6), &limits).unwrap_err();
    assert_eq!(
        error,
        DecodeError {
            kind: DecodeErrorKind::TooDeep { limit: 5 },
            at: 13
        }
    );
    assert!(decode(&deep(100_000), &LIMITS).is_err());
    let limits = LIMITS.with_items(4);
    assert!(kind("8368036101610161026A").is_err());
    assert!(decode(&unhex("836803610161016102"), &limits).is_ok());
    let error = decode(&unhex("8368046101610161026A"), &limits).unwrap_err();
    assert_eq!(error.kind, DecodeErrorKind::TooManyItems { limit: 4 });
    let nested = |depth| (0..depth).fold(Term::Int(1), |inner, _| Term::Tuple(vec![inner]));
    assert!(encoded(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(
        encoded(&nested(MAX_DEPTH + 1)),
        Err(EncodeError::TooDeep { limit: MAX_DEPTH })
    );
    assert_eq!(encoded(&Term::Float(f64::NAN)), Err(EncodeError::NotFinite));
    let twice = Term::Map(vec![(Term::Int(1), Term::NIL), (Term::Int(1), Term::NIL)]);
    assert_eq!(encoded(&twice), Err(EncodeError::DuplicateKey));
    let mut out = BytesMut::from(&b"x"[..]);
    assert!(encode(&Term::Tuple(vec![Term::Int(1), Term::Float(f64::INFINITY)]), &mut out).is_err());
    assert_eq!(out, b"x"[..]);
}

#[test]
fn long_binaries_share_the_input_and_short_ones_do_not() {
    let body = vec![7; 600];
    let input = encoded(&Term::Tuple(vec![Term::binary(&body), Term::binary("short")])).unwrap();
    let term = decode(&input, &LIMITS).unwrap();
    let [Term::Binary(long), Term::Binary(short)] = term.as_tuple().unwrap() else {
        panic!("{term:?}");
    };
    assert!(input.as_ptr_range().contains(&long.as_ptr()));
    assert!(!input.as_ptr_range().contains(&short.as_ptr()));
}

#[test]
fn a_string_is_the_list_of_its_bytes() {
    let list = Term::List(vec![Term::Int(97), Term::Int(98)]);
    assert_eq!(Term::String(Bytes::from_static(b"ab")), list);
    assert_eq!(list, Term::String(Bytes::from_static(b"ab")));
    assert_eq!(list.to_string(), "\"ab\"");
    assert_ne!(list, Term::String(Bytes::from_static(b"abc")));
    assert_ne!(list, Term::String(Bytes::from_static(b"ac")));
    let long = Term::String(vec![7; 70_000].into());
    assert_eq!(decode(&encoded(&long).unwrap(), &LIMITS), Ok(long));
    assert_eq!(encoded(&Term::String(Bytes::new())), encoded(&Term::NIL));
    // A tail that is a list continues the list.
    assert_eq!(
        kind("836C0000000161016B0001FF"),
        Ok(Term::List(vec![Term::Int(1), Term::Int(255)]))
    );
    assert_eq!(kind("836C0000000161016C0000000161026A").unwrap().to_string(), "[1,2]");
    assert_eq!(
        kind("836C0000000161016C0000000161026103").unwrap().to_string(),
        "[1,2|3]"
    );
}

#[test]
fn odd_values_are_written_as_what_they_mean() {
    let again = |term: Term| decode(&encoded(&term).unwrap(), &LIMITS).unwrap().to_string();
    assert_eq!(again(Term::Bits(Bytes::from_static(b"\x01\xFF"), 3)), "<<1,7:3>>");
    assert_eq!(again(Term::Bits(Bytes::from_static(b"\x01\xFF"), 8)), "<<1,255>>");
    assert_eq!(again(Term::Bits(Bytes::new(), 3)), "<<>>");
    assert_eq!(again(Term::ImproperList(vec![], Box::new(Term::Int(1)))), "1");
    assert_eq!(
        again(Term::ImproperList(vec![Term::Int(300)], Box::new(Term::NIL))),
        "[300]"
    );
}

#[test]
fn references_to_the_atom_cache_are_looked_up() {
    let input = unhex("680252015200");
    let atoms = [atom("zero"), atom("one")];
    let mut reader = TermReader::new(&input, &LIMITS, &atoms);
    assert_eq!(reader.term().unwrap().to_string(), "{one,zero}");
    assert!(reader.finish().is_ok());
    let mut reader = TermReader::new(&input, &LIMITS, &atoms[..1]);
    assert!(reader.term().is_err());
}

#[test]
fn what_breaks_a_line_or_a_quote_is_escaped() {
    assert_eq!(Term::Atom(atom("a\nb\u{7}")).to_string(), "'a\\nb\\x{7}'");
    assert_eq!(Term::Atom(atom("")).to_string(), "''");
    let pid = |node| Pid {
        node: atom(node),
        id: 1,
        serial: 0,
        creation: 0,
    };
    assert_eq!(pid("a@[::1]").to_string(), "<'a@[::1]'.1.0>");
    assert_eq!(Term::binary(b"q\"\x1b").to_string(), "<<\"q\\\"\\e\">>");
}

pub(crate) fn any_atom() -> impl Strategy<Value = Atom> {
    "[a-z@_A-Z \u{3bb}\u{e9}]{0,12}".prop_map(|text| Atom::new(text).unwrap())
}

pub(crate) fn any_pid() -> impl Strategy<Value = Pid> {
    (any_atom(), any::<[u32; 3]>()).prop_map(|(node, [id, serial, creation])| Pid {
        node,
        id,
        serial,
        creation,
    })
}

pub(crate) fn any_reference() -> impl Strategy<Value = Reference> {
    (any_atom(), any::<u32>(), proptest::collection::vec(any::<u32>(), 1..=5))
        .prop_map(|(node, creation, words)| Reference::new(node, creation, &words).unwrap())
}

fn bytes(most: usize) -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..most).prop_map(Bytes::from)
}

pub(crate) fn any_term() -> impl Strategy<Value = Term> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Term::Int),
        any::<i16>().prop_map(|value| Term::Int(value.into())),
        any::<i128>().prop_map(Term::from),
        any::<f64>()
            .prop_filter("finite", |value| value.is_finite())
            .prop_map(Term::Float),
        any_atom().prop_map(Term::Atom),
        bytes(40).prop_map(Term::String),
        bytes(700).prop_map(Term::Binary),
        (bytes(9), any::<u8>(), 1..8_u8).prop_map(|(bytes, last, bits)| {
            let last = last & !(0xFF >> bits);
            Term::Bits([&bytes[..], &[last]].concat().into(), bits)
        }),
        any_pid().prop_map(Term::Pid),
        any_reference().prop_map(Term::from),
        (any_atom(), any::<u64>(), any::<u32>()).prop_map(|(node, id, creation)| Port { node, id, creation }.into()),
        (any_atom(), any_atom(), any::<u8>()).prop_map(|(module, function, arity)| Term::Export(Box::new(Export {
            module,
            function,
            arity
        }))),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        let many = || proptest::collection::vec(inner.clone(), 0..6);
        prop_oneof![
            many().prop_map(Term::Tuple),
            many().prop_map(Term::List),
            (many(), any_atom()).prop_map(|(mut elements, tail)| {
                elements.push(Term::Int(0));
                Term::ImproperList(elements, Box::new(tail.into()))
            }),
            proptest::collection::vec((inner.clone(), inner.clone()), 0..5).prop_map(|mut entries| {
                entries.sort();
                entries.dedup_by(|a, b| a.0 == b.0);
                Term::Map(entries)
            }),
            (any_atom(), any_pid(), any::<[u8; 16]>(), any::<[i32; 2]>(), many()).prop_map(
                |(module, pid, uniq, [old_index, old_uniq], free)| {
                    let (old_index, old_uniq) = (old_index.into(), old_uniq.into());
                    Term::Fun(Box::new(Fun {
                        module,
                        arity: 2,
                        uniq,
                        index: 7,
                        old_index,
                        old_uniq,
                        pid,
                        free,
                    }))
                }
            ),
        ]
    })
}

proptest! {
    #[test]
    fn every_term_goes_there_and_back(term in any_term()) {
        let bytes = encoded(&term).unwrap();
        let decoded = decode(&bytes, &LIMITS);
        prop_assert_eq!(decoded.as_ref(), Ok(&term));
        let longer = Bytes::from([&bytes[..], b"xyz"].concat());
        let (prefix, length) = decode_prefix(&longer, &LIMITS).unwrap();
        prop_assert_eq!((&prefix, length), (&term, bytes.len()));
        prop_assert_eq!(prefix.to_string(), term.to_string());
        for end in 0..bytes.len() {
            let error = decode(&bytes.slice(..end), &LIMITS).unwrap_err();
            prop_assert_eq!(error.kind, DecodeErrorKind::Truncated, "at {}", end);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(start in any_term(), damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..6)) {
        let mut bytes = encoded(&start).unwrap().to_vec();
        for (at, byte) in damage {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(term) = decode(&bytes.into(), &LIMITS) {
            let again = encoded(&term).unwrap();
            prop_assert_eq!(decode(&again, &LIMITS), Ok(term));
        }
    }

    #[test]
    fn random_bytes_neither(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from([vec![131], bytes].concat());
        let _ = decode(&bytes, &LIMITS).map(|term| term.to_string());
    }
}
