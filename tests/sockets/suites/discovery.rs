//! Nodes found in tables, and by DNS with a name server of the test.

#[path = "../../common/name_server.rs"]
mod name_server;

use std::{
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, Instant},
};

use domain::base::{Rtype, iana::Rcode};
use name_server::{Reply, Server};

use crate::{
    adapter::{run, sleep},
    macula::{
        dist::discovery::{
            Discovery, DiscoveryError, Place, Table,
            srv::{Names, SrvConfig, SrvRecords},
        },
        proto::Rng,
    },
};

fn found_by(server: &Server) -> SrvRecords {
    with(server, |_| {})
}

fn with(server: &Server, set: impl FnOnce(&mut SrvConfig)) -> SrvRecords {
    let mut config = SrvConfig::new("example");
    config.servers = vec![server.address];
    set(&mut config);
    SrvRecords::with_rng(config, Rng::from_seed(1)).unwrap()
}

fn addresses(places: &[Place]) -> Vec<String> {
    places.iter().map(|place| place.address.to_string()).collect()
}

/// A table of these entries.
fn table(entries: &[&str]) -> Table {
    entries.iter().map(|text| text.parse().unwrap()).collect()
}

/// One SRV record, of `a.example`.
fn good() -> Reply {
    Reply::Srv(60, vec![(0, 0, 1, "a.example.")])
}

const NONE: Reply = Reply::Code(Rcode::NXDOMAIN);
/// Enough for a busy machine to answer in, four times over.
const SHORT: Duration = Duration::from_secs(2);

// ----- what is there -----------------------------------------------------------------------------------------------

#[test]
fn nodes_of_a_domain_by_priority() {
    run(async {
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
    });
}

#[test]
fn weights_choose_at_random_and_the_same_randomness_the_same() {
    run(async {
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
            config.servers = vec![server.address];
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
    });
}

#[test]
fn answers_are_remembered_as_long_as_they_say() {
    run(async {
        let server = Server::start(|_, _| Reply::Srv(60, vec![(0, 0, 1, "a.example.")]));
        let records = found_by(&server);
        for _ in 0..3 {
            records.nodes().await.unwrap();
        }
        assert_eq!(server.asked(), 1);

        let impatient = with(&server, |config| config.max_ttl = Duration::from_millis(20));
        impatient.nodes().await.unwrap();
        sleep(Duration::from_millis(30)).await;
        impatient.nodes().await.unwrap();
        assert_eq!(server.asked(), 3);

        let server = Server::start(|_, _| Reply::Srv(0, vec![(0, 0, 1, "a.example.")]));
        let records = found_by(&server);
        for _ in 0..2 {
            records.nodes().await.unwrap();
        }
        assert_eq!((server.asked(), records.fresh_for()), (2, Duration::ZERO));

        let server = Server::start(|_, _| Reply::Code(Rcode::NOERROR));
        let records = found_by(&server);
        for _ in 0..2 {
            records.nodes().await.unwrap_err();
        }
        assert_eq!((server.asked(), records.fresh_for()), (2, Duration::ZERO));
    });
}

#[test]
fn a_node_that_the_domain_does_not_list() {
    run(async {
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
    });
}

// ----- what is not there -------------------------------------------------------------------------------------------

/// How the look-up of the domain's nodes ends, and that it ends in time.
async fn failure(zone: impl Fn(&str, Rtype) -> Reply + Send + Sync + 'static) -> DiscoveryError {
    let server = Server::start(zone);
    failing(&[server.address]).await
}

async fn failing(servers: &[SocketAddr]) -> DiscoveryError {
    let mut config = SrvConfig::new("example");
    config.servers = servers.to_vec();
    config.timeout = SHORT;
    let records = SrvRecords::new(config).unwrap();
    let started = Instant::now();
    let error = records.nodes().await.expect_err("a failure");
    assert!(
        started.elapsed() < SHORT + Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    error
}

/// An answer of so many records, which these bytes pretend to be.
async fn raw(count: u16, bytes: &[u8]) -> DiscoveryError {
    let bytes = bytes.to_vec();
    failure(move |_, _| Reply::Raw(count, bytes.clone())).await
}

#[test]
fn a_missing_record() {
    run(async {
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
    });
}

#[test]
fn a_server_that_does_not_answer() {
    run(async {
        let error = failure(|_, _| Reply::Silence).await;
        assert_eq!(error.to_string(), "no answer for _erlang-dist._quic.example within 2 s");
    });
}

#[test]
fn a_server_that_refuses() {
    run(async {
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
    });
}

#[test]
fn noise_is_no_answer_and_does_not_hide_one() {
    run(async {
        let error = failure(|_, _| Reply::Noise(None)).await;
        assert!(matches!(error, DiscoveryError::TimedOut(..)), "{error}");
        let server = Server::start(|_, _| {
            let good = Reply::Srv(60, vec![(0, 0, 1, "a.example.")]);
            Reply::Noise(Some(Box::new(good)))
        });
        assert_eq!(found_by(&server).nodes().await.unwrap(), ["a@example"]);
        let error = failure(|_, _| Reply::Short).await;
        assert!(matches!(error, DiscoveryError::Answer(_)), "{error}");
    });
}

#[test]
fn an_answer_too_long_for_a_datagram_comes_over_tcp() {
    run(async {
        let server = Server::start(|_, _| {
            let good = Reply::Srv(60, vec![(0, 0, 1, "a.example."); 200]);
            Reply::Long(Some(Box::new(good)))
        });
        assert_eq!(found_by(&server).nodes().await.unwrap(), ["a@example"]);
        let many: Vec<_> = (0..1050)
            .map(|number| (0, 0, 1, &*format!("n{number}.example.").leak()))
            .collect();
        let server = Server::start(move |_, _| Reply::Long(Some(Box::new(Reply::Srv(60, many.clone())))));
        assert_eq!(
            found_by(&server).nodes().await.unwrap().len(),
            1024,
            "more are not kept"
        );

        let error = failure(|_, _| Reply::Long(None)).await;
        assert!(
            matches!(&error, DiscoveryError::Io(_, error) if error.kind() == ErrorKind::UnexpectedEof),
            "{error}"
        );
        let over_tcp = |reply: Reply| failure(move |_, _| Reply::Long(Some(Box::new(reply.clone()))));
        assert!(matches!(over_tcp(Reply::Silence).await, DiscoveryError::TimedOut(..)));
        // There is one answer on a stream, and it is that.
        assert!(matches!(over_tcp(Reply::Noise(None)).await, DiscoveryError::Answer(_)));
    });
}

// ----- what is made to do harm -------------------------------------------------------------------------------------

#[test]
fn nobody_else_may_answer() {
    run(async {
        let error = failure(|_, _| Reply::Elsewhere(Box::new(good()))).await;
        assert!(matches!(error, DiscoveryError::TimedOut(..)), "{error}");
    });
}

#[test]
fn whoever_guesses_is_not_listened_to_for_long() {
    run(async {
        let guesses = |_: &str, _| (0..25).fold(good(), |behind, _| Reply::Noise(Some(Box::new(behind))));
        let error = failure(guesses).await;
        assert!(matches!(error, DiscoveryError::Answer(_)), "{error}");
    });
}

#[test]
fn names_that_lead_in_circles_are_no_answer() {
    // Behind the header (12 bytes) and the question (`_erlang-dist`, `_quic`, `example`, the root, type and class).
    const AT: u8 = 12 + 13 + 6 + 8 + 1 + 4;
    let srv = [0, 33, 0, 1, 0, 0, 0, 60, 0, 8, 0, 0, 0, 0, 0, 1];
    run(async {
        let names: [&[u8]; 4] = [
            &[0xc0, AT],
            &[0xc0, AT + 2, 0xc0, AT],
            &[1, b'a', 0xc0, AT],
            // Out of the message.
            &[0xff, 0xff],
        ];
        for name in names {
            let owner = [name, &srv, &[0xc0, 12]].concat();
            let error = raw(1, &owner).await;
            assert!(matches!(error, DiscoveryError::Answer(_)), "owner {name:?}: {error}");
            let at = AT + 2 + 16;
            let shifted: Vec<_> = name
                .iter()
                .map(|byte| {
                    if *byte >= AT && *byte < 0xc0 {
                        byte - AT + at
                    } else {
                        *byte
                    }
                })
                .collect();
            let mut target = [&[0xc0, 12][..], &srv, &shifted].concat();
            target[11] = u8::try_from(6 + shifted.len()).unwrap();
            let error = raw(1, &target).await;
            assert!(matches!(error, DiscoveryError::Answer(_)), "target {name:?}: {error}");
        }
        // Its own canonical name, for ever.
        let alias = [0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 2, 0xc0, 12];
        let error = raw(1, &alias).await;
        assert!(matches!(error, DiscoveryError::Answer(_)), "{error}");
    });
}

#[test]
fn answers_that_promise_more_than_they_have_are_none() {
    run(async {
        let record = [0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, 8, 0, 0, 0, 0, 0, 1, 0xc0, 12];
        for (count, bytes) in [(u16::MAX, &record[..]), (2, &record), (1, &record[..19]), (1, &[])] {
            let error = raw(count, bytes).await;
            assert!(matches!(error, DiscoveryError::Answer(_)), "{count} {bytes:?}: {error}");
        }
        // More than fits into what is read of a datagram.
        let error = failure(|_, _| Reply::Srv(60, vec![(0, 0, 1, "a.example."); 200])).await;
        assert!(matches!(error, DiscoveryError::Answer(_)), "{error}");
    });
}

// ----- several servers ---------------------------------------------------------------------------------------------

#[test]
fn a_server_without_an_answer_does_not_hide_the_next_one() {
    run(async {
        let last = Server::start(|_, _| good());
        let nobody = Server::start(|_, _| Reply::Silence);
        let (refusing, failing_one) = (
            Server::start(|_, _| Reply::Code(Rcode::REFUSED)),
            Server::start(|_, _| Reply::Code(Rcode::SERVFAIL)),
        );
        let unreadable = Server::start(|_, _| Reply::Short);
        let closed = SocketAddr::from(([127, 0, 0, 1], 1));
        for first in [
            nobody.address,
            refusing.address,
            failing_one.address,
            unreadable.address,
            closed,
        ] {
            let mut config = SrvConfig::new("example");
            config.servers = vec![first, last.address];
            config.timeout = SHORT;
            let records = SrvRecords::new(config).unwrap();
            assert_eq!(records.nodes().await.unwrap(), ["a@example"], "behind {first}");
        }
        assert_eq!((nobody.asked(), refusing.asked(), last.asked()), (1, 1, 5));

        // Who says nothing is asked again, who refuses is not; and a refusal says more than silence.
        let error = failing(&[nobody.address, refusing.address]).await;
        assert!(matches!(error, DiscoveryError::Refused(..)), "{error}");
        assert_eq!((nobody.asked(), refusing.asked()), (3, 2));
        let error = failing(&[closed]).await;
        assert!(
            matches!(&error, DiscoveryError::Io(_, error) if error.kind() == ErrorKind::ConnectionRefused),
            "{error}"
        );
        // That there is no such name is an answer.
        let none = Server::start(|_, _| NONE);
        let error = failing(&[none.address, last.address]).await;
        assert!(matches!(error, DiscoveryError::NotFound(_)), "{error}");
    });
}

#[test]
fn a_server_that_knows_no_extensions_is_asked_without() {
    run(async {
        let server = Server::start(|_, _| Reply::Old(Box::new(good())));
        assert_eq!(found_by(&server).nodes().await.unwrap(), ["a@example"]);
        assert_eq!(server.asked(), 2);
    });
}

// ----- tables ------------------------------------------------------------------------------------------------------

#[test]
fn a_table_knows_what_is_in_it() {
    run(async {
        let mut table = table(&["b@h=127.0.0.1:2", "a@h=127.0.0.1:1", "b@h=[::1]:3", "b@h=127.0.0.1:2"]);
        assert_eq!(table.nodes().await.unwrap(), ["b@h", "a@h"]);
        let places = table.lookup("b@h").await.unwrap();
        assert_eq!(addresses(&places), ["127.0.0.1:2", "[::1]:3"]);
        assert_eq!(places[1].host, "::1");
        let error = table.lookup("c@h").await.unwrap_err();
        assert!(
            matches!(&error, DiscoveryError::NotFound(node) if node == "c@h"),
            "{error}"
        );
        assert!(table.remove("b@h") && !table.remove("b@h"));
        assert_eq!(table.nodes().await.unwrap(), ["a@h"]);
    });
}

#[test]
fn a_host_without_address_does_not_hide_the_others() {
    run(async {
        // A name with an empty label is refused before anybody is asked.
        let found = table(&["a@h=x..invalid:1", "a@h=127.0.0.1:2"]).lookup("a@h").await;
        assert_eq!(found.unwrap().len(), 1);
        let error = table(&["a@h=x..invalid:1"]).lookup("a@h").await.unwrap_err();
        assert!(
            matches!(&error, DiscoveryError::Io(host, _) if host == "x..invalid"),
            "{error}"
        );
    });
}
