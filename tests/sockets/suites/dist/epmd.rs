//! The port mapper of Erlang nodes.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

use super::{any, soon};
use crate::{adapter::run, macula::dist::epmd};

#[test]
fn a_port_mapper_is_asked() {
    run(async {
        let mapper = TcpListener::bind(any()).unwrap();
        let address = mapper.local_addr().unwrap();
        let answering = thread::spawn(move || {
            let mut requests = Vec::new();
            for answer in [&[119, 0, 0x12, 0x34][..], &[119, 1], &[118, 0, 0, 0, 0, 1], &[121, 1]] {
                let (mut stream, _) = mapper.accept().unwrap();
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut request = vec![0; u16::from_be_bytes(length).into()];
                stream.read_exact(&mut request).unwrap();
                requests.push(request);
                stream.write_all(answer).unwrap();
            }
            requests
        });
        assert_eq!(
            soon("the port mapper", epmd::lookup(address, "a")).await.unwrap(),
            Some(0x1234)
        );
        assert_eq!(soon("the port mapper", epmd::lookup(address, "a")).await.unwrap(), None);
        soon("the port mapper", epmd::register(address, "a", 7)).await.unwrap();
        let taken = soon("the port mapper", epmd::register(address, "a", 7)).await;
        assert_eq!(taken.unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
        let requests = answering.join().unwrap();
        assert_eq!(requests[0], [122, b'a']);
        assert_eq!(requests[2], [120, 0, 7, 72, 0, 0, 6, 0, 5, 0, 1, b'a', 0, 0]);
    });
}
