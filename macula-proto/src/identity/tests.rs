use super::*;

fn identity(byte: u8) -> Identity {
    Identity::from_seed(&[byte; 32])
}

#[test]
fn secrets_are_not_printed() {
    let identity = identity(0xA7);
    let grinder = Grinder::new(3, Rng::from_seed(1));
    let printed = format!("{identity:?} {identity:#?} {grinder:?}");
    assert!(printed.contains(&identity.node_id().to_string()));
    assert!(!printed.to_lowercase().contains("a7a7a7"), "{printed}");
    assert!(!printed.contains("167, 167"), "{printed}");
}

#[test]
fn node_ids_are_hex() {
    let id = identity(1).node_id();
    let text = id.to_string();
    assert_eq!(text.len(), 64);
    assert_eq!(text.parse(), Ok(id));
    assert_eq!(text.to_uppercase().parse(), Ok(id));
    for wrong in [
        "",
        &text[1..],
        &format!("{text}00"),
        &text.replacen(&text[..1], "g", 1),
        &"é".repeat(32),
    ] {
        assert_eq!(wrong.parse::<NodeId>(), Err(ParseNodeIdError), "{wrong}");
    }
}

#[test]
fn a_signature_is_for_one_purpose_one_key_and_one_message() {
    let (signer, other) = (identity(1), identity(2));
    let key = PublicKey::new(&signer.node_id()).expect("a key");
    let signature = signer.sign(Domain::Frame, b"message");
    assert_eq!(key.verify(Domain::Frame, b"message", &signature), Ok(()));
    assert_eq!(key.verify(Domain::Frame, b"massage", &signature), Err(BadSignature));
    assert_eq!(
        key.verify(Domain::Frame, b"message", &signature[1..]),
        Err(BadSignature)
    );
    assert_eq!(key.verify(Domain::Frame, b"message", &[]), Err(BadSignature));
    for domain in [Domain::SwimUpdate, Domain::Record, Domain::Binding] {
        assert_eq!(
            key.verify(domain, b"message", &signature),
            Err(BadSignature),
            "{domain:?}"
        );
    }
    let key = PublicKey::new(&other.node_id()).expect("a key");
    assert_eq!(key.verify(Domain::Frame, b"message", &signature), Err(BadSignature));
}

#[test]
fn weak_keys_are_no_keys() {
    // The neutral element, the point of order two, an encoding that is not reduced, and no point at all.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut order_two = [0xFF; 32];
    order_two[0] = 0xEC;
    order_two[31] = 0x7F;
    let mut unreduced = order_two;
    unreduced[0] = 0xEE;
    let mut no_point = [0; 32];
    no_point[0] = 2;
    for id in [neutral, order_two, unreduced, no_point, [0; 32]] {
        assert_eq!(PublicKey::new(&NodeId::from_bytes(id)), None, "{id:?}");
    }
}

#[test]
fn grinding_goes_on_where_it_stopped() {
    let mut whole = Grinder::new(6, Rng::from_seed(7));
    let found = whole.step(u32::MAX).expect("found");
    assert!(puzzle::solves(&found.node_id(), 6));
    assert_eq!(whole.expected_attempts(), 64);

    let mut stepped = Grinder::new(6, Rng::from_seed(7));
    assert_eq!(stepped.step(0), None);
    let again = loop {
        if let Some(identity) = stepped.step(1) {
            break identity;
        }
    };
    assert_eq!(again, found);
    assert_eq!(stepped.attempts(), whole.attempts());
    assert_eq!(Grinder::new(256, Rng::from_seed(1)).expected_attempts(), u64::MAX);
}

#[test]
fn key_files_hold_both_halves() {
    let identity = identity(9);
    let bytes = key_file::encode(&identity);
    assert_eq!(bytes.len(), key_file::LENGTH);
    let read = key_file::decode(&bytes).expect("reads");
    assert_eq!(read.seed(), identity.seed());
    let mut mismatched = bytes.clone();
    mismatched[20] ^= 1;
    assert_eq!(key_file::decode(&mismatched), Err(key_file::KeyFileError::Mismatch));
    let mut older = bytes.clone();
    older[8] = b'1';
    assert_eq!(key_file::decode(&older), Err(key_file::KeyFileError::Magic));
    for length in 0..bytes.len() {
        assert_eq!(
            key_file::decode(&bytes[..length]),
            Err(key_file::KeyFileError::Length { length })
        );
    }
}

#[test]
fn the_same_entropy_makes_the_same_identity() {
    let one = Identity::generate(&mut Rng::from_seed(3));
    let two = Identity::generate(&mut Rng::from_seed(3));
    let three = Identity::generate(&mut Rng::from_seed(4));
    assert_eq!(one, two);
    assert_ne!(one, three);
}
