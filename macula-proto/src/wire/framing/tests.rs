use super::*;

fn drain(framing: &mut LengthPrefixed, input: &[u8]) -> Vec<Result<Bytes, FrameTooLarge>> {
    let mut input = Bytes::copy_from_slice(input);
    let frames = std::iter::from_fn(|| framing.next(&mut input)).collect();
    assert!(input.is_empty());
    frames
}

#[test]
fn frames_within_one_piece_share_its_buffer() {
    let mut framing = LengthPrefixed::new(100);
    let input = Bytes::from_static(b"\0\0\0\x03abc\0\0\0\0\0\0\0\x01d");
    let mut rest = input.clone();
    let first = framing.next(&mut rest).expect("a frame").expect("small enough");
    assert_eq!(first, "abc");
    assert_eq!(first.as_ptr(), input[4..].as_ptr());
    assert_eq!(framing.next(&mut rest), Some(Ok(Bytes::new())));
    assert_eq!(framing.next(&mut rest), Some(Ok(Bytes::from_static(b"d"))));
    assert_eq!(framing.next(&mut rest), None);
    assert_eq!(framing.buffered(), 0);
}

#[test]
fn a_frame_in_pieces_is_put_together() {
    let mut framing = LengthPrefixed::new(100);
    for piece in [&b"\0"[..], b"\0\0", b"\x05a", b"bc"] {
        assert_eq!(drain(&mut framing, piece), []);
    }
    assert_eq!(framing.buffered(), 7);
    let frames = drain(&mut framing, b"de\0\0\0\x01f\0\0");
    assert_eq!(frames, [Ok(Bytes::from_static(b"abcde")), Ok(Bytes::from_static(b"f"))]);
    assert_eq!(framing.buffered(), 2);
}

#[test]
fn an_excessive_length_ends_the_stream_with_its_fourth_byte() {
    let mut framing = LengthPrefixed::new(0xFF_FFFF);
    assert_eq!(drain(&mut framing, b"\x01\0\0"), []);
    let error = FrameTooLarge {
        length: 0x0100_0000,
        limit: 0xFF_FFFF,
    };
    assert_eq!(drain(&mut framing, b"\0rest"), [Err(error)]);
    assert_eq!(drain(&mut framing, b"\0\0\0\0"), []);
    assert_eq!(framing.buffered(), 0);
    assert_eq!(
        error.to_string(),
        "a frame of 16777216 bytes exceeds the limit of 16777215"
    );
}

#[test]
fn an_announced_length_alone_costs_no_memory() {
    let mut framing = LengthPrefixed::new(0xFF_FFFF);
    assert_eq!(drain(&mut framing, b"\0\xFF\xFF\xFF"), []);
    assert_eq!(framing.partial.as_ref().map(|(payload, _)| payload.capacity()), Some(0));
    assert_eq!(drain(&mut framing, b"x"), []);
    assert_eq!(
        framing.partial.as_ref().map(|(payload, _)| payload.capacity()),
        Some(FIRST_ALLOCATION)
    );
}

#[test]
fn a_large_frame_in_many_pieces_arrives_whole() {
    let payload: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
    let stream = [&1_000_000_u32.to_be_bytes()[..], &payload, &[0, 0, 0, 0]].concat();
    let mut framing = LengthPrefixed::new(1_000_000);
    let frames: Vec<_> = stream
        .chunks(1201)
        .flat_map(|piece| drain(&mut framing, piece))
        .collect();
    assert_eq!(frames, [Ok(payload.into()), Ok(Bytes::new())]);
}

#[test]
fn a_written_frame_has_its_length_in_front_or_is_taken_back() {
    let mut out = BytesMut::from(&b"x"[..]);
    let write = |payload: &'static [u8]| {
        move |out: &mut BytesMut| -> Result<(), FrameTooLarge> {
            out.put_slice(payload);
            Ok(())
        }
    };
    assert_eq!(put_frame(&mut out, 3, write(b"abc")), Ok(()));
    assert_eq!(out, b"x\0\0\0\x03abc"[..]);
    assert_eq!(
        put_frame(&mut out, 3, write(b"abcd")),
        Err(FrameTooLarge { length: 4, limit: 3 })
    );
    assert_eq!(out, b"x\0\0\0\x03abc"[..]);
}
