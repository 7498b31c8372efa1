use std::time::Duration;

use super::*;
use crate::cli::memory::Memory;

fn args() -> DemoArgs {
    DemoArgs {
        size: 8 << 20,
        tunnels: 4,
        seconds: Duration::from_secs(10),
    }
}

#[tokio::test]
async fn it_works_over_any_backend() {
    let (_stop, mut signals) = Signals::by_hand();
    run(&Memory::default(), args(), &Events::silent(), &mut signals)
        .await
        .expect("a demo");
}

#[tokio::test]
async fn it_can_be_interrupted() {
    let (stop, mut signals) = Signals::by_hand();
    stop.try_send(crate::cli::signals::Signal::Stop).unwrap();
    let outcome = run(&Memory::default(), args(), &Events::silent(), &mut signals).await;
    assert_eq!(outcome.unwrap_err().kind(), "interrupted");
}

#[tokio::test]
async fn it_is_bounded() {
    let (_stop, mut signals) = Signals::by_hand();
    let many = DemoArgs {
        tunnels: MOST_TUNNELS + 1,
        ..args()
    };
    let outcome = run(&Memory::default(), many, &Events::silent(), &mut signals).await;
    assert_eq!(outcome.unwrap_err().kind(), "usage");
}

#[test]
fn the_report() {
    let rounds: Vec<_> = (1..=200).rev().map(Duration::from_micros).collect();
    let bulk = load::Bulk {
        bytes: 64 << 20,
        time: Duration::from_millis(500),
    };
    let report = Report::new(Duration::from_micros(12_340), &rounds, &bulk, 8);
    assert_eq!(
        report.text(true),
        "{\"event\":\"demo\",\"ready_ms\":12.3,\"round_trips\":200,\"rtt_p50_us\":101.0,\"rtt_p99_us\":199.0,\
         \"rtt_max_us\":200.0,\"tunnels\":8,\"bytes\":67108864,\"seconds\":0.5,\"mib_per_second\":128.0}\n"
    );
    let text = report.text(false);
    assert!(
        text.contains("median 101 µs, 99 % within 199 µs, slowest 200 µs"),
        "{text}"
    );
    assert!(
        text.contains("64.0 MiB each way at once, 8 tunnels, 0.5 s: 128 MiB/s each way"),
        "{text}"
    );
    assert!(text.ends_with("\nok\n"), "{text}");
    assert!(
        Report::new(Duration::ZERO, &[], &bulk, 1).text(false).ends_with("ok\n"),
        "no round trips are no crash"
    );
}
