//! Nodes of Erlang distribution on smol, with each other.

use std::{net::SocketAddr, time::Duration};

use macula_smol::{
    dist::{DownReason, Mailbox, Node, NodeConfig, NodeEvent, Priority, QuicConfig, Signal, Term, atom, epmd},
    entropy,
    tls::{Credentials, SelfSigned, Trust},
};
use smol::{
    Timer,
    future::FutureExt,
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

async fn soon<T>(what: impl Future<Output = T>) -> T {
    let never = async {
        Timer::after(Duration::from_secs(60)).await;
        panic!("nothing here takes a minute")
    };
    what.or(never).await
}

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn start(name: &str) -> (Node, SocketAddr) {
    let node = Node::start(NodeConfig::new(name, "cookie")).unwrap();
    let credentials = Credentials::self_signed(&entropy().unwrap(), &SelfSigned::default()).unwrap();
    let quic = QuicConfig::new(Trust::Insecure).credentials(credentials);
    let address = node.bind_quic(any(), quic).unwrap();
    (node, address)
}

async fn recv(mailbox: &mut Mailbox) -> Signal {
    soon(mailbox.recv()).await.unwrap()
}

/// What nodes do with each other, over whatever they are connected.
async fn converse(a: &Node, b: &Node) {
    let mut events = a.events();
    assert!(a.ping("b@h").await && b.ping("a@h").await);
    let (mut here, mut there) = (a.mailbox().unwrap(), b.mailbox().unwrap());
    there.register("there").unwrap();
    for number in 0..1000_i64 {
        here.send((atom("there").unwrap(), atom("b@h").unwrap()), number)
            .await
            .unwrap();
    }
    for number in 0..1000_i64 {
        let Signal::Message { term, .. } = recv(&mut there).await else {
            panic!()
        };
        assert_eq!(term, Term::Int(number));
    }
    here.link(there.pid()).await.unwrap();
    assert!(a.ping("b@h").await);
    there.close(Term::Int(7));
    let Signal::Exit { reason, linked, .. } = recv(&mut here).await else {
        panic!()
    };
    assert!(linked && reason == Term::Int(7));
    assert!(a.disconnect("b@h"));
    let down = soon(events.next()).await;
    assert_eq!(down, Some(NodeEvent::Down(atom("b@h").unwrap(), DownReason::Closed)));
}

#[test]
fn nodes_meet_over_tcp_and_over_quic() {
    smol::block_on(async {
        let ((a, _), (b, over_quic)) = (start("a@h"), start("b@h"));
        let over_tcp = b.listen(any()).await.unwrap();
        for _ in 0..2 {
            soon(a.connect_quic("b@h", over_quic)).await.unwrap();
            assert!(a.quic_link("b@h").is_some());
            converse(&a, &b).await;
            // The other side may still have the connection that was closed.
            while !b.nodes().is_empty() {
                Timer::after(Duration::from_millis(2)).await;
            }
            soon(a.connect("b@h", over_tcp)).await.unwrap();
            assert!(a.quic_link("b@h").is_none());
            converse(&a, &b).await;
            while !b.nodes().is_empty() {
                Timer::after(Duration::from_millis(2)).await;
            }
        }
        soon(b.shutdown()).await;
        assert!(soon(a.connect("b@h", over_tcp)).await.is_err());
    });
}

#[test]
fn streams_carry_bytes_beside_the_messages() {
    smol::block_on(async {
        let ((a, _), (b, address)) = (start("a@h"), start("b@h"));
        soon(a.connect_quic("b@h", address)).await.unwrap();
        assert!(a.ping("b@h").await);
        let acceptor = b.accept_streams().unwrap();
        let echo = smol::spawn(async move {
            let (mut send, recv) = acceptor.accept().await?.split();
            smol::io::copy(recv, &mut send).await.ok()?;
            send.close().await.ok()
        });
        let data: Vec<u8> = (0..300_000_u32).map(|index| (index / 7) as u8).collect();
        let stream = a.open_stream("b@h", Priority::clamped(20)).await.unwrap();
        let (mut send, mut recv) = stream.split();
        let sent = data.clone();
        let sending = smol::spawn(async move {
            send.write_all(&sent).await?;
            send.close().await
        });
        let mut back = Vec::new();
        soon(AsyncReadExt::read_to_end(&mut recv, &mut back)).await.unwrap();
        assert!(back == data);
        soon(sending).await.unwrap();
        soon(echo).await.unwrap();
    });
}

#[test]
fn a_port_mapper_is_asked() {
    smol::block_on(async {
        let mapper = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = mapper.local_addr().unwrap();
        let answering = smol::spawn(async move {
            let mut requests = Vec::new();
            for answer in [&[119, 0, 0x12, 0x34][..], &[119, 1], &[118, 0, 0, 0, 0, 1], &[121, 1]] {
                let (mut stream, _) = mapper.accept().await.unwrap();
                let mut length = [0; 2];
                stream.read_exact(&mut length).await.unwrap();
                let mut request = vec![0; u16::from_be_bytes(length).into()];
                stream.read_exact(&mut request).await.unwrap();
                requests.push(request);
                stream.write_all(answer).await.unwrap();
            }
            requests
        });
        assert_eq!(soon(epmd::lookup(address, "a")).await.unwrap(), Some(0x1234));
        assert_eq!(soon(epmd::lookup(address, "a")).await.unwrap(), None);
        soon(epmd::register(address, "a", 7)).await.unwrap();
        let taken = soon(epmd::register(address, "a", 7)).await;
        assert_eq!(taken.unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
        let requests = soon(answering).await;
        assert_eq!(requests[0], [122, b'a']);
        assert_eq!(requests[2], [120, 0, 7, 72, 0, 0, 6, 0, 5, 0, 1, b'a', 0, 0]);
    });
}
