//! Keys, key files, and what is written as text: ids, pins, addresses, names, PEM.

use macula_proto::{
    endpoint::RelayAddress,
    identity::{Domain, Identity, NodeId, PublicKey, key_file, puzzle},
    quic::tls::{Credentials, Pin, certificates_from_pem, server_name},
    wire::{control::TunnelId, etf::Atom},
};

/// The first byte says what the rest is. A key that is taken refuses what it did not sign; a key file, and whatever is read from
/// text, is written again in one form, which is read as the same.
pub fn identity(data: &[u8]) {
    let Some((&kind, rest)) = data.split_first() else {
        return;
    };
    match kind % 4 {
        0 => key(rest),
        1 => file(rest),
        2 => pem(rest),
        _ => text(rest),
    }
}

/// 32 bytes of a key, 64 of a signature, and a message.
fn key(bytes: &[u8]) {
    let Some((id, rest)) = bytes.split_first_chunk::<32>() else {
        return;
    };
    let id = NodeId::from_bytes(*id);
    let difficulty = puzzle::difficulty(&id);
    assert!(puzzle::solves(&id, difficulty) && (difficulty == 256 || !puzzle::solves(&id, difficulty + 1)));
    let (signature, message) = rest.split_at(rest.len().min(64));
    if let Some(key) = PublicKey::new(&id) {
        assert_eq!(key.node_id(), id);
        for domain in [Domain::Frame, Domain::SwimUpdate, Domain::Record, Domain::Binding] {
            assert!(key.verify(domain, message, signature).is_err(), "a signature of nobody");
        }
        let _ = key.verify_raw(message, signature);
    }
    let signer = Identity::from_seed(id.as_bytes());
    let key = PublicKey::new(&signer.node_id()).expect("its own key");
    let signed = signer.sign(Domain::Record, message);
    assert_eq!(key.verify(Domain::Record, message, &signed), Ok(()));
    assert!(
        key.verify(Domain::Frame, message, &signed).is_err(),
        "good for another purpose"
    );
    if let Some((at, bit)) = signature.first().zip(signature.get(1)) {
        let mut damaged = signed;
        damaged[usize::from(at % 64)] ^= 1 << (bit % 8);
        assert!(
            key.verify(Domain::Record, message, &damaged).is_err(),
            "a changed signature verifies"
        );
    }
}

fn file(bytes: &[u8]) {
    if let Ok(identity) = key_file::decode(bytes) {
        assert_eq!(&key_file::encode(&identity)[..], bytes, "not the same again");
    }
}

fn pem(bytes: &[u8]) {
    if let Ok(certificates) = certificates_from_pem(bytes) {
        assert!(!certificates.is_empty());
    }
    if let Ok(credentials) = Credentials::from_pem(bytes) {
        let again = Credentials::from_pem(credentials.to_pem().as_bytes()).expect("what was written can be read");
        assert_eq!((again.pin(), again.chain()), (credentials.pin(), credentials.chain()));
    }
}

fn text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(address) = text.parse::<RelayAddress>() {
        assert_eq!(address.to_string().parse(), Ok(address), "{text}");
    }
    if let Ok(id) = text.parse::<NodeId>() {
        assert_eq!(id.to_string().parse(), Ok(id), "{text}");
    }
    if let Ok(pin) = text.parse::<Pin>() {
        assert_eq!(pin.to_string().parse(), Ok(pin), "{text}");
    }
    // An id that is not printable is escaped when it is printed.
    if let Ok(id) = text.parse::<TunnelId>()
        && id.to_string().len() == TunnelId::LENGTH
    {
        assert_eq!(id.to_string().parse(), Ok(id), "{text}");
    }
    if let Ok(name) = server_name(text) {
        assert!(name.len() <= 255.max(text.len()));
        assert_eq!(server_name(&name).as_ref().ok(), Some(&name), "{text}");
    }
    if let Ok(atom) = text.parse::<Atom>() {
        assert_eq!(atom.as_str(), text);
        assert!(text.chars().count() <= 255);
    }
}
