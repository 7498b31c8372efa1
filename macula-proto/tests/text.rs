//! What is written as text or kept in files comes back as it was, and what is damaged is refused or means what it says.

#![cfg(feature = "self-signed")]

use macula_proto::{
    Rng,
    endpoint::RelayAddress,
    identity::{Identity, NodeId, PublicKey, key_file, puzzle},
    quic::tls::{Credentials, Pin, SelfSigned, certificates_from_pem},
    wire::{control::TunnelId, etf::Atom},
};
use proptest::{collection::vec, prelude::*};

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9-]{0,20}[a-z0-9](\\.[a-z][a-z0-9]{0,10}){0,3}",
        any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()),
        any::<std::net::Ipv6Addr>().prop_map(|address| address.to_string()),
    ]
}

proptest! {
    #[test]
    fn ids_and_pins_are_read_as_they_are_printed(bytes: [u8; 32]) {
        let id = NodeId::from_bytes(bytes);
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        let pin: Pin = id.to_string().parse().expect("64 digits");
        prop_assert_eq!(pin.as_bytes(), &bytes);
        prop_assert_eq!(pin.to_string().parse(), Ok(pin));
        let colons: Vec<_> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        prop_assert_eq!(colons.join(":").parse(), Ok(pin));
        let tunnel = TunnelId::from_bytes(bytes);
        if let Ok(again) = tunnel.to_string().parse::<TunnelId>() {
            prop_assert_eq!(again, tunnel);
        }
    }

    #[test]
    fn addresses_are_read_as_they_are_printed(host in host(), port in 1_u16.., scheme: bool) {
        let address = RelayAddress { host, port };
        let text = address.to_string();
        prop_assert_eq!(text.parse(), Ok(address.clone()), "{}", text);
        let text = if scheme { format!("quic://{text}") } else { text };
        prop_assert_eq!(text.parse(), Ok(address.clone()), "{}", text);
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in prop_oneof!["\\PC{0,80}", "[0-9a-fA-F:]{0,100}", "[\\[\\]:./a-z0-9]{0,60}"]) {
        if let Ok(address) = text.parse::<RelayAddress>() {
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
        if let Ok(id) = text.parse::<NodeId>() {
            prop_assert_eq!(id.to_string().to_lowercase(), text.to_lowercase());
        }
        let _ = (text.parse::<Pin>(), text.parse::<TunnelId>(), text.parse::<Atom>());
        let _ = (certificates_from_pem(text.as_bytes()), Credentials::from_pem(text.as_bytes()));
    }

    #[test]
    fn a_key_file_is_whole_or_refused(seed: [u8; 32], at: prop::sample::Index, flip in 1_u8.., cut: prop::sample::Index) {
        let identity = Identity::from_seed(&seed);
        let file = key_file::encode(&identity);
        prop_assert_eq!(key_file::decode(&file), Ok(identity));
        let mut damaged = file.to_vec();
        damaged[at.index(file.len())] ^= flip;
        prop_assert!(key_file::decode(&damaged).is_err(), "any bit of it counts");
        prop_assert!(key_file::decode(&file[..cut.index(file.len())]).is_err());
    }

    #[test]
    fn a_puzzle_is_solved_up_to_its_difficulty(bytes: [u8; 32]) {
        let id = NodeId::from_bytes(bytes);
        let difficulty = puzzle::difficulty(&id);
        prop_assert!((0..=difficulty).all(|bits| puzzle::solves(&id, bits)));
        prop_assert!(!puzzle::solves(&id, difficulty + 1));
    }

    #[test]
    fn keys_of_any_bytes_verify_nothing_by_chance(key: [u8; 32], message in vec(any::<u8>(), 0..60), signature in vec(any::<u8>(), 0..80)) {
        if let Some(key) = PublicKey::new(&NodeId::from_bytes(key)) {
            prop_assert!(key.verify_raw(&message, &signature).is_err());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn credentials_are_read_as_they_are_written(seed in any::<u64>().no_shrink(), damage: prop::sample::Index, byte: u8) {
        let credentials = Credentials::self_signed(&Rng::from_seed(seed).bytes(), &SelfSigned::default()).expect("good");
        let pem = credentials.to_pem();
        let again = Credentials::from_pem(pem.as_bytes()).expect("what was written");
        prop_assert_eq!((again.pin(), again.chain()), (credentials.pin(), credentials.chain()));
        let mut damaged = pem.into_bytes();
        let at = damage.index(damaged.len());
        damaged[at] = byte;
        if let Ok(taken) = Credentials::from_pem(&damaged) {
            let again = Credentials::from_pem(taken.to_pem().as_bytes()).expect("what was written");
            prop_assert_eq!(again.pin(), taken.pin());
        }
    }
}
