//! Nodes found by DNS, with a name server of the test.

#![cfg(feature = "dns")]

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use domain::{
    base::{
        Message, MessageBuilder, Name, Rtype, Ttl,
        iana::{Class, Rcode},
        rdata::UnknownRecordData,
    },
    rdata::{A, Srv},
};
use macula_tokio::{
    dist::discovery::{
        Discovery, DiscoveryError, Place,
        srv::{Names, SrvConfig, SrvRecords},
    },
    proto::Rng,
};

/// What the name server answers.
#[derive(Clone)]
enum Reply {
    /// Priority, weight, port and target of each record, with one time to live for all.
    Srv(u32, Vec<(u16, u16, u16, &'static str)>),
    Address(Ipv4Addr),
    /// Nothing of the sort is there.
    Code(Rcode),
    Silence,
    /// Noise and answers to other questions; behind them, if there is one, a good answer.
    Noise(Option<Box<Reply>>),
    /// A record whose data ends early.
    Short,
    /// Too long for a datagram. Over TCP: this, or a message that breaks off.
    Long(Option<Box<Reply>>),
}

/// A name server on loopback, for the time of the test.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

type Zone = fn(&str, Rtype) -> Reply;

impl Server {
    fn start(zone: Zone) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        thread::spawn({
            let asked = Arc::clone(&asked);
            move || {
                let mut buffer = [0; 4096];
                while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                    asked.fetch_add(1, Ordering::Relaxed);
                    for answer in answers(&buffer[..length], zone, false) {
                        udp.send_to(&answer, from).unwrap();
                    }
                }
            }
        });
        thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut query).unwrap();
                for answer in answers(&query, zone, true) {
                    let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                    let _ = stream.write_all(&[&length[..], &answer].concat());
                }
            }
        });
        Self { address, asked }
    }

    fn records(&self) -> SrvRecords {
        self.with(|_| {})
    }

    fn with(&self, set: impl FnOnce(&mut SrvConfig)) -> SrvRecords {
        let mut config = SrvConfig::new("example");
        config.server = Some(self.address);
        set(&mut config);
        SrvRecords::with_rng(config, Rng::from_seed(1)).unwrap()
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn name(text: &str) -> Name<Vec<u8>> {
    text.parse().unwrap()
}

fn answers(query: &[u8], zone: Zone, over_tcp: bool) -> Vec<Vec<u8>> {
    let query = Message::from_octets(query).unwrap();
    let question = query.sole_question().unwrap();
    let reply = zone(&question.qname().to_string().to_ascii_lowercase(), question.qtype());
    of(&query, &reply, over_tcp)
}

fn of(query: &Message<&[u8]>, reply: &Reply, over_tcp: bool) -> Vec<Vec<u8>> {
    let owner = query.sole_question().unwrap().qname().to_string();
    let owner = name(&owner);
    let start = |code| MessageBuilder::new_vec().start_answer(query, code).unwrap();
    let answer = match reply {
        Reply::Srv(ttl, records) => {
            let mut answer = start(Rcode::NOERROR);
            for (priority, weight, port, target) in records {
                let srv = Srv::new(*priority, *weight, *port, name(target));
                answer.push((&owner, Class::IN, Ttl::from_secs(*ttl), srv)).unwrap();
            }
            answer.finish()
        }
        Reply::Address(address) => {
            let mut answer = start(Rcode::NOERROR);
            let record = A::new(*address);
            answer.push((&owner, Class::IN, Ttl::from_secs(60), record)).unwrap();
            answer.finish()
        }
        Reply::Code(code) => start(*code).finish(),
        Reply::Silence => return Vec::new(),
        Reply::Short => {
            let mut answer = start(Rcode::NOERROR);
            let data = UnknownRecordData::from_octets(Rtype::SRV, [0, 1, 0]).unwrap();
            answer.push((&owner, Class::IN, Ttl::from_secs(60), data)).unwrap();
            answer.finish()
        }
        Reply::Noise(behind) => {
            let mut other = start(Rcode::NOERROR).finish();
            other[0] ^= 0xff;
            let mut elsewhere = MessageBuilder::new_vec();
            elsewhere.header_mut().set_id(query.header().id());
            elsewhere.header_mut().set_qr(true);
            let mut elsewhere = elsewhere.question();
            elsewhere.push((name("elsewhere.example"), Rtype::SRV)).unwrap();
            let mut answers = vec![
                b"noise".to_vec(),
                vec![0xff; 600],
                Vec::new(),
                other,
                elsewhere.finish(),
            ];
            if let Some(behind) = behind {
                answers.extend(of(query, behind, over_tcp));
            }
            return answers;
        }
        Reply::Long(full) if over_tcp => match full {
            Some(full) => return of(query, full, true),
            None => b"\0\x01".to_vec(),
        },
        Reply::Long(_) => {
            let mut answer = start(Rcode::NOERROR);
            answer.header_mut().set_tc(true);
            answer.finish()
        }
    };
    vec![answer]
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
    let records = server.records();
    assert_eq!(records.nodes().await.unwrap(), ["a@example", "b@example", "c@example"]);
    assert!(records.fresh_for() > Duration::from_secs(50));
    let places = records.lookup("a@example").await.unwrap();
    assert_eq!(
        addresses(&places),
        ["127.0.0.11:1", "127.0.0.11:4"],
        "both records, in their order"
    );
    assert_eq!(places[0].host, "a.example");

    let prefixed = server.with(|config| config.names = Names::Prefix("w".to_owned()));
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
    let zone: Zone = |_, _| Reply::Srv(60, vec![(0, 0, 1, "a.example.")]);
    let server = Server::start(zone);
    let records = server.records();
    for _ in 0..3 {
        records.nodes().await.unwrap();
    }
    assert_eq!(server.asked(), 1);

    let impatient = server.with(|config| config.max_ttl = Duration::from_millis(20));
    impatient.nodes().await.unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    impatient.nodes().await.unwrap();
    assert_eq!(server.asked(), 3);

    let server = Server::start(|_, _| Reply::Srv(0, vec![(0, 0, 1, "a.example.")]));
    let records = server.records();
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
    let records = server.records();
    let places = records.lookup("a@left").await.unwrap();
    assert_eq!(addresses(&places), ["127.0.0.12:7"], "records of its host");
    let places = records.lookup("a@127.0.0.1").await.unwrap();
    assert_eq!(addresses(&places), ["127.0.0.1:4433"], "the host itself");
}

// ----- what is not there -------------------------------------------------------------------------------------------

/// How the look-up of the domain's nodes ends, and that it ends in time.
async fn failure(zone: Zone) -> DiscoveryError {
    let server = Server::start(zone);
    let records = server.with(|config| config.timeout = SHORT);
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
        (|_, _| NONE) as Zone,
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
    assert_eq!(server.records().nodes().await.unwrap(), ["a@example"]);
    let error = failure(|_, _| Reply::Short).await;
    assert!(matches!(error, DiscoveryError::Answer(_)), "{error}");
}

#[tokio::test]
async fn an_answer_too_long_for_a_datagram_comes_over_tcp() {
    let server = Server::start(|_, _| {
        let good = Reply::Srv(60, vec![(0, 0, 1, "a.example."); 200]);
        Reply::Long(Some(Box::new(good)))
    });
    assert_eq!(server.records().nodes().await.unwrap(), ["a@example"]);
    let error = failure(|_, _| Reply::Long(None)).await;
    assert!(
        matches!(error, DiscoveryError::TimedOut(..) | DiscoveryError::Io(..)),
        "{error}"
    );
}
