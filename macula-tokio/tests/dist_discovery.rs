//! Nodes found by DNS, with a name server of the test.

#![cfg(feature = "dns")]

mod name_server;

use std::time::{Duration, Instant};

use domain::base::{Rtype, iana::Rcode};
use macula_tokio::{
    dist::discovery::{
        Discovery, DiscoveryError, Place,
        srv::{Names, SrvConfig, SrvRecords},
    },
    proto::Rng,
};
use name_server::{Reply, Server};

fn found_by(server: &Server) -> SrvRecords {
    with(server, |_| {})
}

fn with(server: &Server, set: impl FnOnce(&mut SrvConfig)) -> SrvRecords {
    let mut config = SrvConfig::new("example");
    config.server = Some(server.address);
    set(&mut config);
    SrvRecords::with_rng(config, Rng::from_seed(1)).unwrap()
}

fn addresses(places: &[Place]) -> Vec<String> {
    places.iter().map(|place| place.address.to_string()).collect()
}

const NONE: Reply = Reply::Code(Rcode::NXDOMAIN);
const SHORT: Duration = Duration::from_millis(400);

// ----- what is there -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn nodes_of_a_domain_by_priority() {
    let server = Server::start(|name, kind| match (name, kind) {
        ("_erlang-dist._quic.example", Rtype::SRV) => Reply::Srv(
            60,
            vec![
                (20, 5, 3, "C.example."),
                (10, 0, 1, "a.example."),
                (15, 0, 2, "b.example."),
                (30, 0, 4, "a.example."),
                (40, 0, 5, "nowhere."),
            ],
        ),
        ("a.example", Rtype::A) => Reply::Address([127, 0, 0, 11].into()),
        _ => NONE,
    });
    let records = found_by(&server);
    assert_eq!(records.nodes().await.unwrap(), ["a@example", "b@example", "c@example"]);
    assert!(records.fresh_for() > Duration::from_secs(50));
    let places = records.lookup("a@example").await.unwrap();
    assert_eq!(
        addresses(&places),
        ["127.0.0.11:1", "127.0.0.11:4"],
        "both records, in their order"
    );
    assert_eq!(places[0].host, "a.example");

    let prefixed = with(&server, |config| config.names = Names::Prefix("w".to_owned()));
    let nodes = ["w@a.example", "w@b.example", "w@c.example", "w@nowhere"];
    assert_eq!(prefixed.nodes().await.unwrap(), nodes);
    assert_eq!(prefixed.lookup("w@a.example").await.unwrap(), places);
}

#[tokio::test]
async fn weights_choose_at_random_and_the_same_randomness_the_same() {
    let server = Server::start(|_, _| {
        Reply::Srv(
            60,
            vec![
                (0, 1, 1, "a.example."),
                (0, 1, 1, "b.example."),
                (0, 1, 1, "c.example."),
            ],
        )
    });
    let orders = async |seed| {
        let mut config = SrvConfig::new("example");
        config.server = Some(server.address);
        let records = SrvRecords::with_rng(config, Rng::from_seed(seed)).unwrap();
        let mut orders = Vec::new();
        for _ in 0..20 {
            orders.push(records.nodes().await.unwrap());
        }
        orders
    };
    let (one, again) = (orders(1).await, orders(1).await);
    assert_eq!(one, again);
    for first in ["a@example", "b@example", "c@example"] {
        assert!(one.iter().any(|order| order[0] == first), "{first} is first at times");
    }
}

#[tokio::test]
async fn answers_are_remembered_as_long_as_they_say() {
    let server = Server::start(|_, _| Reply::Srv(60, vec![(0, 0, 1, "a.example.")]));
    let records = found_by(&server);
    for _ in 0..3 {
        records.nodes().await.unwrap();
    }
    assert_eq!(server.asked(), 1);

    let impatient = with(&server, |config| config.max_ttl = Duration::from_millis(20));
    impatient.nodes().await.unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    impatient.nodes().await.unwrap();
    assert_eq!(server.asked(), 3);

    let server = Server::start(|_, _| Reply::Srv(0, vec![(0, 0, 1, "a.example.")]));
    let records = found_by(&server);
    for _ in 0..2 {
        records.nodes().await.unwrap();
    }
    assert_eq!((server.asked(), records.fresh_for()), (2, Duration::ZERO));
}

#[tokio::test]
async fn a_node_that_the_domain_does_not_list() {
    let server = Server::start(|name, kind| match (name, kind) {
        ("_erlang-dist._quic.left.example", Rtype::SRV) => Reply::Srv(60, vec![(0, 0, 7, "other.example.")]),
        ("other.example", Rtype::A) => Reply::Address([127, 0, 0, 12].into()),
        _ => NONE,
    });
    let records = found_by(&server);
    let places = records.lookup("a@left").await.unwrap();
    assert_eq!(addresses(&places), ["127.0.0.12:7"], "records of its host");
    let places = records.lookup("a@127.0.0.1").await.unwrap();
    assert_eq!(addresses(&places), ["127.0.0.1:4433"], "the host itself");
}

// ----- what is not there -------------------------------------------------------------------------------------------

/// How the look-up of the domain's nodes ends, and that it ends in time.
async fn failure(zone: fn(&str, Rtype) -> Reply) -> DiscoveryError {
    let server = Server::start(zone);
    let records = with(&server, |config| config.timeout = SHORT);
    let started = Instant::now();
    let error = records.nodes().await.expect_err("a failure");
    assert!(
        started.elapsed() < SHORT + Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    error
}

#[tokio::test]
async fn a_missing_record() {
    for zone in [
        (|_, _| NONE) as fn(&str, Rtype) -> Reply,
        |_, _| Reply::Code(Rcode::NOERROR),
        // The root says that the service is decidedly not there.
        |_, _| Reply::Srv(60, vec![(0, 0, 0, ".")]),
    ] {
        let error = failure(zone).await;
        assert!(
            matches!(&error, DiscoveryError::NotFound(name) if name == "_erlang-dist._quic.example"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer() {
    let error = failure(|_, _| Reply::Silence).await;
    assert_eq!(
        error.to_string(),
        "no answer for _erlang-dist._quic.example within 0.4 s"
    );
}

#[tokio::test]
async fn a_server_that_refuses() {
    let error = failure(|_, _| Reply::Code(Rcode::REFUSED)).await;
    assert!(
        matches!(&error, DiscoveryError::Refused(_, code) if code == "REFUSED"),
        "{error}"
    );
    let error = failure(|_, _| Reply::Code(Rcode::SERVFAIL)).await;
    assert!(
        matches!(&error, DiscoveryError::Refused(_, code) if code == "SERVFAIL"),
        "{error}"
    );
}

#[tokio::test]
async fn noise_is_no_answer_and_does_not_hide_one() {
    let error = failure(|_, _| Reply::Noise(None)).await;
    assert!(matches!(error, DiscoveryError::TimedOut(..)), "{error}");
    let server = Server::start(|_, _| {
        let good = Reply::Srv(60, vec![(0, 0, 1, "a.example.")]);
        Reply::Noise(Some(Box::new(good)))
    });
    assert_eq!(found_by(&server).nodes().await.unwrap(), ["a@example"]);
    let error = failure(|_, _| Reply::Short).await;
    assert!(matches!(error, DiscoveryError::Answer(_)), "{error}");
}

#[tokio::test]
async fn an_answer_too_long_for_a_datagram_comes_over_tcp() {
    let server = Server::start(|_, _| {
        let good = Reply::Srv(60, vec![(0, 0, 1, "a.example."); 200]);
        Reply::Long(Some(Box::new(good)))
    });
    assert_eq!(found_by(&server).nodes().await.unwrap(), ["a@example"]);
    let error = failure(|_, _| Reply::Long(None)).await;
    assert!(
        matches!(error, DiscoveryError::TimedOut(..) | DiscoveryError::Io(..)),
        "{error}"
    );
}
