//! The tunnel machines without any socket.

mod relay_cells;
mod relay_table;
mod session_cells;
mod session_table;
mod show;
mod supervisor_cells;
mod supervisor_table;

use std::time::{Duration, Instant};

use bytes::BytesMut;
use macula_proto::{
    Now,
    wire::{
        Encoding,
        control::{Message, TunnelId},
    },
};

/// Some moment to start from.
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant can come from nowhere else; only differences count"
)]
fn start() -> Now {
    Now::new(Instant::now(), 1_700_000_000_000)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn encode(message: &Message, encoding: Encoding) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    message.encode(encoding, &mut bytes);
    bytes.to_vec()
}

fn mp(message: &Message) -> Vec<u8> {
    encode(message, Encoding::MessagePack)
}

/// The one whole message in these bytes.
fn decode(bytes: &[u8]) -> (Encoding, Message) {
    let (prefix, payload) = bytes.split_first_chunk().expect("a length");
    assert_eq!(u32::from_be_bytes(*prefix) as usize, payload.len(), "one whole message");
    Message::decode(payload).expect("a message")
}

fn identify(name: &str) -> Message {
    Message::Identify {
        name: name.as_bytes().to_vec().into(),
    }
}

fn request(target: &str) -> Message {
    Message::TunnelRequest {
        target: target.as_bytes().to_vec().into(),
    }
}

fn tunnel_id(byte: u8) -> TunnelId {
    TunnelId::from_bytes([byte; 32])
}

/// A payload that no decoder can read, in a sound frame.
fn garbage() -> Vec<u8> {
    vec![0, 0, 0, 3, 0xc1, 0xff, 0x00]
}

/// A length prefix far above any limit.
fn absurd_length() -> Vec<u8> {
    vec![0xff, 0xff, 0xff, 0xff]
}
