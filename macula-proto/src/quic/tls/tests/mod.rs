//! Whole QUIC handshakes between two sessions, without a socket and without packets.

mod client_auth;
mod pem;
mod reload;
mod session;
mod trust;

use std::sync::Arc;

use quinn_proto::{
    Side, TransportError,
    crypto::{
        Session,
        rustls::{QuicClientConfig, QuicServerConfig},
    },
    transport_parameters::TransportParameters,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ED25519, date_time_ymd};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::{
    CertificateDer, ClientCrypto, ClientTls, Credentials, HandshakeInfo, SelfSigned, ServerCrypto, ServerTls, Trust,
    provider,
};
use crate::{WallClock, quic::alpn::MACULA_DIST};

/// Noon of 1 June 2025.
const NOW_MS: u64 = 1_748_779_200_000;
const YEAR_MS: u64 = 365 * 86_400_000;
const QUIC_V1: u32 = 1;

fn clock() -> WallClock {
    WallClock::new(NOW_MS)
}

/// Credentials of a node without any subject alternative name.
fn node(seed: u8) -> Credentials {
    named(seed, &[])
}

fn named(seed: u8, names: &[&str]) -> Credentials {
    let content = SelfSigned {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..SelfSigned::default()
    };
    Credentials::self_signed(&[seed; 32], &content).unwrap()
}

fn server(credentials: Credentials) -> ServerTls {
    ServerTls::new(credentials).alpn([MACULA_DIST])
}

fn client(trust: Trust) -> ClientTls {
    ClientTls::new(trust).alpn([MACULA_DIST])
}

/// A certificate authority whose certificates are valid throughout 2025.
struct Authority {
    key: KeyPair,
    params: CertificateParams,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new(seed: u8) -> Self {
        let key = key_pair(seed);
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, format!("authority {seed}"));
        let certificate = params.self_signed(&key).unwrap().into();
        Self {
            key,
            params,
            certificate,
        }
    }

    fn issue(&self, seed: u8, name: &str) -> Credentials {
        let key = key_pair(seed);
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2025, 1, 1);
        params.not_after = date_time_ymd(2026, 1, 1);
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Credentials::from_der(vec![certificate.into()], key.serialized_der()).unwrap()
    }

    fn roots(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone()]
    }
}

fn key_pair(seed: u8) -> KeyPair {
    let pem = node(seed).key_to_pem();
    KeyPair::from_pkcs8_pem_and_sign_algo(&pem, &PKCS_ED25519).unwrap()
}

/// The certificate of one with the key of another: what a thief of a certificate can show.
fn stolen(certificate: &Credentials, key: &Credentials) -> SingleCertAndKey {
    CertifiedKey::new(certificate.chain().to_vec(), key.certified().key.clone()).into()
}

/// A server that shows `identity` without any of the checks on one's own credentials.
fn raw_server(identity: SingleCertAndKey) -> ServerCrypto {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(identity));
    config.alpn_protocols = vec![MACULA_DIST.to_vec()];
    ServerCrypto::from_config(QuicServerConfig::try_from(config).unwrap())
}

/// A client that trusts every server and shows `identity` without any of the checks on one's own credentials.
fn raw_client(identity: SingleCertAndKey) -> ClientCrypto {
    let verifier = super::verify::LeafVerifier::any(&provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(identity));
    config.alpn_protocols = vec![MACULA_DIST.to_vec()];
    ClientCrypto::new(QuicClientConfig::try_from(config).unwrap())
}

/// Both ends of one connection.
struct Pair {
    client: Box<dyn Session>,
    server: Box<dyn Session>,
}

/// Which end refused, and with what.
#[derive(Debug)]
struct Refusal {
    by: Side,
    error: TransportError,
}

impl Refusal {
    /// The TLS alert that the refused end is told.
    fn alert(&self) -> u64 {
        let code = u64::from(self.error.code);
        assert!((0x100..0x200).contains(&code), "not a TLS alert: {:?}", self.error);
        code - 0x100
    }

    #[track_caller]
    fn assert(&self, by: Side, alert: u64, says: &str) {
        assert_eq!((self.by, self.alert()), (by, alert), "{:?}", self.error);
        assert!(
            self.error.reason.contains(says),
            "{:?} lacks {says:?}",
            self.error.reason
        );
    }
}

impl Pair {
    fn start(client: &ClientCrypto, server: &ServerCrypto, name: &str) -> Self {
        let params = TransportParameters::read(Side::Client, &mut [].as_slice()).unwrap();
        Self {
            client: client.quinn().start_session(QUIC_V1, name, &params).unwrap(),
            server: server.quinn().start_session(QUIC_V1, &params),
        }
    }

    /// Carries handshake messages until neither end has any.
    fn run(&mut self) -> Result<(), Refusal> {
        loop {
            let there = carry(&mut self.client, &mut self.server, Side::Server)?;
            let back = carry(&mut self.server, &mut self.client, Side::Client)?;
            if !there && !back {
                return Ok(());
            }
        }
    }

    fn client_info(&self) -> HandshakeInfo {
        HandshakeInfo::of(&*self.client)
    }

    fn server_info(&self) -> HandshakeInfo {
        HandshakeInfo::of(&*self.server)
    }

    /// Both ends have finished and hold the same secrets.
    #[track_caller]
    fn assert_established(&self) {
        assert!(!self.client.is_handshaking() && !self.server.is_handshaking());
        let (mut ours, mut theirs) = ([0; 32], [0; 32]);
        self.client.export_keying_material(&mut ours, b"test", b"").unwrap();
        self.server.export_keying_material(&mut theirs, b"test", b"").unwrap();
        assert_eq!(ours, theirs);
    }
}

/// Hands over what `from` has to say, one encryption level at a time.
fn carry(from: &mut Box<dyn Session>, to: &mut Box<dyn Session>, by: Side) -> Result<bool, Refusal> {
    let mut moved = false;
    loop {
        let mut flight = Vec::new();
        let keys = from.write_handshake(&mut flight);
        if flight.is_empty() && keys.is_none() {
            return Ok(moved);
        }
        moved = true;
        if !flight.is_empty() {
            to.read_handshake(&flight).map_err(|error| Refusal { by, error })?;
        }
    }
}

/// A whole handshake, dialling `name`.
fn dial(client: &ClientCrypto, server: &ServerCrypto, name: &str) -> Result<Pair, Refusal> {
    let mut pair = Pair::start(client, server, name);
    pair.run()?;
    pair.assert_established();
    Ok(pair)
}

#[track_caller]
fn refused(client: &ClientCrypto, server: &ServerCrypto, name: &str) -> Refusal {
    match dial(client, server, name) {
        Ok(_) => panic!("the handshake succeeded"),
        Err(refusal) => refusal,
    }
}
