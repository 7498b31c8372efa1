//! A great many bytes through one call, in constant memory. On Linux, and only when asked for:
//!
//! `MACULA_GIB=10 cargo test --release -p macula-tests --test tokio_mt heavy -- --ignored --test-threads 1 --nocapture`

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use macula_proto::wire::Value;

use super::carriers::{Carrier, Rig};
use crate::{
    adapter::{run, sleep},
    macula::rpc::{Chunk, Mode, ServerCall},
};

const CHUNK: usize = 64 << 10;
/// How much more memory may be in use at any time than after the first few megabytes.
const GROWTH: usize = 32 << 20;

/// Bytes of memory that are in use by this process.
pub(crate) fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Chunk `number` of the stream: every eight bytes say where they belong.
fn chunk(number: u64) -> Bytes {
    let mut bytes = BytesMut::with_capacity(CHUNK);
    for word in 0..CHUNK as u64 / 8 {
        bytes.extend_from_slice(&(number << 32 | word).to_be_bytes());
    }
    bytes.freeze()
}

async fn through(carrier: Carrier) {
    let gib: u64 = std::env::var("MACULA_GIB").map_or(10, |gib| gib.parse().expect("a number of GiB"));
    let chunks = (gib << 30) / CHUNK as u64;
    let rig = Rig::new(carrier).await;
    rig.provider
        .server
        .advertise("flood", Mode::ServerStream, async |call: ServerCall| {
            let (sender, _receiver) = call.into_call().split();
            for number in 0..u64::MAX {
                if sender.send(Chunk::Raw(chunk(number))).await.is_err() {
                    break;
                }
            }
            Ok(Value::Null)
        });
    let mut call = rig.caller.client.open("flood", Mode::ServerStream, ()).await.unwrap();
    let (started, mut settled, mut most) = (Instant::now(), 0, 0);
    for number in 0..chunks {
        let Some(Chunk::Raw(got)) = call.recv().await.unwrap() else {
            panic!("more chunks");
        };
        assert!(got == chunk(number), "chunk {number} is the one that was sent");
        if number == 2048 {
            settled = resident();
        }
        if number % 512 == 0 && settled > 0 {
            most = most.max(resident());
            assert!(most <= settled + GROWTH, "{most} bytes in use, and {settled} at first");
        }
    }
    let took = started.elapsed();
    println!(
        "{carrier:?}: {gib} GiB in {:.0} s, {:.0} MB/s, {} MiB in use after 128 MiB, {} MiB at most",
        took.as_secs_f64(),
        (gib << 30) as f64 / took.as_secs_f64() / 1e6,
        settled >> 20,
        most >> 20
    );
    drop(call);
    sleep(Duration::from_millis(100)).await;
}

macro_rules! heavy {
    ($($name:ident: $carrier:expr;)*) => {
        $(
            #[test]
            #[ignore = "takes minutes"]
            fn $name() {
                run(async {
                through($carrier).await;
                });
            }
        )*
    };
}

heavy! {
    stream_per_call: Carrier::Connection { per_call: true };
    shared_stream: Carrier::Connection { per_call: false };
    tunnel: Carrier::Tunnel;
    peering: Carrier::Peering;
}
