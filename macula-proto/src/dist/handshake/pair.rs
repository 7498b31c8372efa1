//! Both sides against each other.

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    tests::{OWN, PEER, atom, config, now},
    *,
};
use crate::{
    Rng,
    wire::dist::{Flags, handshake::Carrier},
};

/// Runs both sides against each other, their bytes cut as `cut` says, and returns how it ended for each.
fn pair(carrier: Carrier, cookies: [&str; 2], mut cut: impl FnMut(usize) -> usize) -> [Action; 2] {
    let mut rng = Rng::from_seed(9);
    let config = |name, cookie: &str| HandshakeConfig {
        cookie: cookie.into(),
        ..config(name, carrier)
    };
    let role = Role::Dialler { peer: atom("b@h") };
    let mut machines = [
        Handshake::new(role, config("a@h", cookies[0]), &mut rng),
        Handshake::new(Role::Acceptor, config("b@h", cookies[1]), &mut rng),
    ];
    let now = now();
    let mut wires = [Vec::new(), Vec::new()];
    let mut ends = [None, None];
    let mut inbox = vec![(0, Event::Start), (1, Event::Start)];
    loop {
        for (at, event) in std::mem::take(&mut inbox) {
            let mut actions = Vec::new();
            machines[at].handle(now, event, &mut actions);
            for action in actions {
                match action {
                    Action::Send(bytes) => wires[at].extend_from_slice(&bytes),
                    Action::AskStanding { .. } => inbox.push((at, Event::Standing(Standing::New))),
                    action => {
                        if matches!(action, Action::Failed(_)) {
                            inbox.push((1 - at, Event::Lost));
                        }
                        ends[at] = Some(action);
                    }
                }
            }
        }
        for at in [0, 1] {
            let length = cut(wires[at].len()).min(wires[at].len());
            if length > 0 {
                let piece: Vec<u8> = wires[at].drain(..length).collect();
                inbox.push((1 - at, Event::Received(piece.into())));
            }
        }
        if inbox.is_empty() {
            return ends.map(|end| end.expect("an end"));
        }
    }
}

#[test]
fn two_nodes_with_one_cookie_come_together_and_with_two_do_not() {
    for carrier in [Carrier::Quic, Carrier::Tcp] {
        let [Action::Up(a), Action::Up(b)] = pair(carrier, ["x", "x"], |length| length) else {
            panic!()
        };
        assert_eq!((a.peer.as_str(), b.peer.as_str()), ("b@h", "a@h"));
        assert_eq!(a.common, Flags::DEFAULT);
        assert!(a.rest.is_empty() && b.rest.is_empty());
        let ends = pair(carrier, ["x", "y"], |length| length);
        assert_eq!(ends, [Action::Failed(Failure::Lost), Action::Failed(Failure::Cookie)]);
    }
}

proptest! {
    #[test]
    fn the_cuts_do_not_matter(cuts in proptest::collection::vec(1..30_usize, 1..40), tcp in any::<bool>()) {
        let carrier = if tcp { Carrier::Tcp } else { Carrier::Quic };
        let mut cuts = cuts.into_iter().cycle();
        let ends = pair(carrier, ["x", "x"], |_| cuts.next().unwrap());
        prop_assert!(matches!(ends, [Action::Up(_), Action::Up(_)]));
    }

    #[test]
    fn no_bytes_make_it_panic_or_come_up(bytes in proptest::collection::vec(any::<u8>(), 0..300), quic in any::<bool>()) {
        let carrier = if quic { Carrier::Quic } else { Carrier::Tcp };
        for role in [Role::Acceptor, Role::Dialler { peer: atom(PEER) }] {
            let mut machine = Handshake::new(role, config(OWN, carrier), &mut Rng::from_seed(1));
            let mut actions = Vec::new();
            machine.handle(now(), Event::Start, &mut actions);
            for piece in bytes.chunks(7) {
                machine.handle(now(), Event::Received(Bytes::copy_from_slice(piece)), &mut actions);
                machine.handle(now(), Event::Standing(Standing::New), &mut actions);
            }
            prop_assert!(!machine.is_up());
            prop_assert!(actions.iter().filter(|action| matches!(action, Action::Failed(_))).count() <= 1);
        }
    }
}
