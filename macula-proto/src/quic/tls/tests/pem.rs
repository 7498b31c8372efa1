//! Credentials from PEM and DER, and back.

use rcgen::KeyPair;
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};

use super::{client, clock, dial, named, node, server};
use crate::quic::tls::{CertificateDer, Credentials, SelfSigned, TlsError, Trust, certificates_from_pem};

const RSA_CERT: &str = include_str!("data/rsa_cert.pem");
const RSA_PKCS8: &str = include_str!("data/rsa_pkcs8.pem");
const RSA_PKCS1: &str = include_str!("data/rsa_pkcs1.pem");
const EC_CERT: &str = include_str!("data/ec_cert.pem");
const EC_SEC1: &str = include_str!("data/ec_sec1.pem");
const EC_ENCRYPTED: &str = include_str!("data/ec_encrypted.pem");
const V1_CERT: &str = include_str!("data/v1_cert.pem");

/// Printed by `openssl x509 -fingerprint -sha256` for the RSA certificate.
const RSA_PIN: &str = "15:E5:1C:07:DE:B4:E3:3E:3E:14:28:25:AA:F3:40:40:15:90:9B:16:CE:DA:5E:A1:EC:C3:98:ED:5A:64:32:FB";
/// The same for the certificate on P-256.
const EC_PIN: &str = "A7:D3:2B:EB:E5:27:B1:81:C4:B6:E3:24:1C:D6:5F:DD:4C:11:37:58:C2:B5:CA:3C:EA:36:5F:F7:95:D4:37:43";

fn pair(chain: &str, key: &str) -> Result<Credentials, TlsError> {
    Credentials::from_pem_pair(chain.as_bytes(), key.as_bytes())
}

fn one(pem: &str) -> Result<Credentials, TlsError> {
    Credentials::from_pem(pem.as_bytes())
}

#[test]
fn every_kind_of_key_makes_a_handshake() {
    for (cert, key, pin) in [
        (RSA_CERT, RSA_PKCS8, RSA_PIN),
        (RSA_CERT, RSA_PKCS1, RSA_PIN),
        (EC_CERT, EC_SEC1, EC_PIN),
    ] {
        let own = pair(cert, key).unwrap();
        assert_eq!(own.pin(), pin.parse().unwrap());
        let listening = server(own.clone()).build(&clock()).unwrap();
        // These certificates have no alternative name, and one of them calls itself an authority.
        let dialling = client(Trust::Pins(vec![own.pin()])).build(&clock()).unwrap();
        dial(&dialling, &listening, "192.0.2.1").unwrap();
    }
}

#[test]
fn chain_and_key_may_share_a_text_in_any_order() {
    let expected = EC_PIN.parse().unwrap();
    let both = format!("{EC_CERT}{EC_SEC1}");
    let swapped = format!("Some words of introduction\n{EC_SEC1}\n{EC_CERT}");
    for own in [
        one(&both),
        one(&swapped),
        pair(&both, &both),
        pair(&both, EC_SEC1),
        pair(EC_CERT, &swapped),
    ] {
        assert_eq!(own.unwrap().pin(), expected);
    }
    // The key file decides which key is meant.
    let other = format!("{EC_CERT}{RSA_PKCS8}");
    assert_eq!(pair(&other, EC_SEC1).unwrap().pin(), expected);
    let chain = format!("{EC_CERT}{RSA_CERT}");
    let own = pair(&chain, EC_SEC1).unwrap();
    assert_eq!((own.pin(), own.chain().len()), (expected, 2));
}

#[test]
fn what_is_wrong_with_a_text_is_said() {
    let broken = EC_CERT.replace("-----END CERTIFICATE-----", "");
    let scrambled = EC_CERT.replacen("MII", "M!I", 1);
    let legacy = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
    let empty_key = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
    let no_x509 = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    let error = |result: Result<Credentials, TlsError>| result.unwrap_err();

    assert_eq!(error(pair("", EC_SEC1)), TlsError::NoCertificate);
    assert_eq!(error(pair(EC_CERT, "")), TlsError::NoPrivateKey);
    assert_eq!(error(one(EC_CERT)), TlsError::NoPrivateKey);
    assert_eq!(error(one("")), TlsError::NoPrivateKey);
    assert_eq!(error(pair(EC_CERT, EC_ENCRYPTED)), TlsError::EncryptedKey);
    assert_eq!(error(pair(EC_CERT, legacy)), TlsError::EncryptedKey);
    assert_eq!(
        error(pair(EC_CERT, &format!("{EC_SEC1}{RSA_PKCS8}"))),
        TlsError::SeveralKeys
    );
    assert_eq!(error(pair(EC_CERT, RSA_PKCS8)), TlsError::KeyMismatch);
    assert_eq!(error(pair(RSA_CERT, EC_SEC1)), TlsError::KeyMismatch);
    assert!(matches!(error(pair(&broken, EC_SEC1)), TlsError::BadPem(_)));
    assert!(matches!(error(pair(&scrambled, EC_SEC1)), TlsError::BadPem(_)));
    assert!(matches!(error(pair(EC_CERT, empty_key)), TlsError::BadKey(_)));
    assert!(matches!(error(pair(no_x509, EC_SEC1)), TlsError::BadCertificate(_)));
    assert!(matches!(error(pair(V1_CERT, EC_SEC1)), TlsError::BadCertificate(_)));
}

#[test]
fn certificates_alone_can_be_read() {
    let found = certificates_from_pem(format!("{EC_CERT}{EC_SEC1}{RSA_CERT}").as_bytes()).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(certificates_from_pem(EC_SEC1.as_bytes()), Err(TlsError::NoCertificate));
    assert!(matches!(Trust::roots_from_pem(EC_CERT.as_bytes()), Ok(Trust::Roots(roots)) if roots.len() == 1));
}

#[test]
fn der_is_told_apart_by_content() {
    for (cert, key) in [(RSA_CERT, RSA_PKCS8), (RSA_CERT, RSA_PKCS1), (EC_CERT, EC_SEC1)] {
        let parsed = pair(cert, key).unwrap();
        let chain = parsed.chain().to_vec();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let der = key.secret_der();
        assert_eq!(Credentials::from_der(chain, der).unwrap().pin(), parsed.pin());
        assert_eq!(
            Credentials::from_der(Vec::new(), der).unwrap_err(),
            TlsError::NoCertificate
        );
    }
    let chain = node(1).chain().to_vec();
    assert!(matches!(
        Credentials::from_der(chain.clone(), &[1, 2, 3]),
        Err(TlsError::BadKey(_))
    ));
    assert!(matches!(Credentials::from_der(chain, &[]), Err(TlsError::BadKey(_))));
    let garbage = vec![CertificateDer::from(vec![0x30, 0])];
    let key = PrivateKeyDer::from_pem_slice(EC_SEC1.as_bytes()).unwrap();
    let error = Credentials::from_der(garbage, key.secret_der()).unwrap_err();
    assert!(matches!(error, TlsError::BadCertificate(_)));
}

#[test]
fn written_pem_reads_back() {
    let ours = [
        node(1),
        named(2, &["relay.example", "192.0.2.1"]),
        pair(EC_CERT, EC_SEC1).unwrap(),
    ];
    for own in ours
        .into_iter()
        .chain([RSA_PKCS8, RSA_PKCS1].map(|key| pair(RSA_CERT, key).unwrap()))
    {
        let back = one(&own.to_pem()).unwrap();
        assert_eq!(back.pin(), own.pin());
        assert_eq!(back.to_pem(), own.to_pem());
        assert!(own.to_pem().lines().all(|line| line.len() <= 64));
    }
    // The same bytes as OpenSSL wrote.
    assert_eq!(
        pair(RSA_CERT, RSA_PKCS8).unwrap().to_pem(),
        format!("{RSA_CERT}{RSA_PKCS8}")
    );
    // A third reader understands them as well.
    KeyPair::from_pem(&node(1).key_to_pem()).unwrap();
}

#[test]
fn a_seed_always_gives_the_same_pin() {
    assert_eq!(node(1).pin(), node(1).pin());
    assert_ne!(node(1).pin(), node(2).pin());
    assert_ne!(node(1).pin(), named(1, &["relay.example"]).pin());
    let content = SelfSigned {
        names: vec!["no such name".to_owned()],
        ..SelfSigned::default()
    };
    let error = Credentials::self_signed(&[1; 32], &content).unwrap_err();
    assert_eq!(error, TlsError::BadName("no such name".to_owned()));
}

#[test]
fn nothing_secret_is_printed() {
    let own = node(0xa5);
    let text = format!(
        "{own:?} {:?} {:?}",
        server(own.clone()),
        client(Trust::Insecure).credentials(own.clone())
    );
    assert!(text.contains(&own.pin().to_string()));
    assert!(!text.contains("165, 165") && !text.to_lowercase().contains("a5a5a5"));
}
