//! How much memory reading a frame takes, whatever the frame is made of: the decoder's docs state a multiple.
//!
//! One test function only: the allocator counts for the whole process.

use bytes::Bytes;
use macula_proto::wire::{DecodeLimits, frame::DecodedFrame};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Bytes of memory per byte of payload, and per item that the limits allow.
const MULTIPLE: usize = 256;

/// A map with one entry that holds an array of `count` times `element`, cut off in the middle or not.
fn array_of(element: &[u8], count: u32) -> Vec<u8> {
    let mut out = vec![0xA1, 0x61, b'k', 0x9A];
    out.extend_from_slice(&count.to_be_bytes());
    (0..count).for_each(|_| out.extend_from_slice(element));
    out
}

/// A map with `count` entries of the shortest keys that are all different.
fn wide_map(count: u32, value: &[u8]) -> Vec<u8> {
    let mut out = vec![0xBA];
    out.extend_from_slice(&count.to_be_bytes());
    for key in 0..count {
        out.push(0x63);
        out.extend_from_slice(&key.to_be_bytes()[1..]);
        out.extend_from_slice(value);
    }
    out
}

fn nested(open: &[u8], depth: usize) -> Vec<u8> {
    let mut out = open.repeat(depth);
    out.push(0);
    out
}

#[test]
fn memory_is_bounded_by_the_size_of_the_payload_and_by_the_limits() {
    let limits = DecodeLimits::DEFAULT;
    let elements: &[&[u8]] = &[
        &[0x00],
        &[0x80],
        &[0xA0],
        &[0x40],
        &[0x41, 7],
        &[0x61, 7],
        &[0x81, 0x00],
        &[0xA1, 0x00, 0x00],
        &[0x82, 0x80, 0x80],
        &nested(&[0x81], 100),
        &nested(&[0xA1, 0x00], 100),
        &[
            0x58, 0x20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
            27, 28, 29, 30, 31, 32,
        ],
    ];
    let mut payloads = Vec::new();
    for element in elements {
        for count in [1000, 50_000, 400_000] {
            payloads.push(array_of(element, count));
        }
        payloads.push(array_of(element, 100_000));
        payloads.last_mut().expect("pushed").pop();
        payloads.push(wide_map(60_000, element));
    }
    // Lengths that nothing stands behind.
    for head in [0x5B, 0x7B, 0x9B, 0xBB] {
        let mut out = vec![0xA1, 0x61, b'k', head];
        out.extend_from_slice(&[0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
        payloads.push(out);
    }
    let mut worst = (0, 0);
    for payload in payloads {
        let length = payload.len();
        let payload = Bytes::from(payload);
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let decoded = DecodedFrame::decode(payload, &limits);
        let used = MEMORY.peak_usage().saturating_sub(before);
        let bound = (MULTIPLE * length).min(MULTIPLE * limits.items + length) + 4096;
        assert!(
            used <= bound,
            "{used} bytes for a payload of {length}: {:?}",
            decoded.map(|_| ())
        );
        worst = worst.max((used * 100 / length, length));
    }
    println!("worst: {} hundredths of the payload, of {} bytes", worst.0, worst.1);
}
