//! Certificates, keys and trust from files.

use std::{fs, path::Path};

use macula_proto::quic::tls::{Credentials, SelfSigned, TlsError, Trust};

use super::{args::TrustArgs, outcome::Failure, settings::Identity};

/// What a listener shows.
pub(crate) fn identity(identity: &Identity) -> Result<Credentials, Failure> {
    match identity {
        Identity::Files { cert, key } => credentials(cert, key),
        Identity::SelfSigned => self_signed(),
    }
}

/// A certificate that nobody has seen before.
pub(crate) fn self_signed() -> Result<Credentials, Failure> {
    let seed = macula_driver::entropy().map_err(|error| Failure::failed("random", error))?;
    Credentials::self_signed(&seed, &SelfSigned::default()).map_err(|error| Failure::failed("certificate", error))
}

/// A certificate and its key.
pub(crate) fn credentials(cert: &Path, key: &Path) -> Result<Credentials, Failure> {
    let pair = Credentials::from_pem_pair(&read(cert)?, &read(key)?);
    pair.map_err(|error| {
        let path = match error {
            TlsError::NoPrivateKey | TlsError::EncryptedKey | TlsError::SeveralKeys | TlsError::BadKey(_) => key,
            _ => cert,
        };
        bad_file(path, &error)
    })
}

/// Whom to believe, and what to show.
pub(crate) fn trust(args: &TrustArgs) -> Result<(Trust, Option<Credentials>), Failure> {
    let own = match (&args.client_cert, &args.client_key) {
        (Some(cert), Some(key)) => Some(credentials(cert, key)?),
        _ => None,
    };
    let trust = match &args.ca {
        Some(path) => Trust::roots_from_pem(&read(path)?).map_err(|error| bad_file(path, &error))?,
        None if args.insecure => Trust::Insecure,
        None if args.pin.is_empty() => Trust::Platform,
        None => Trust::Pins(args.pin.clone()),
    };
    Ok((trust, own))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::failed("certificate", format_args!("{}: {error}", path.display())))
}

fn bad_file(path: &Path, error: &TlsError) -> Failure {
    Failure::failed("certificate", format_args!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_and_blamed() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let made = self_signed().unwrap();
        let (cert, key) = (file("c.pem", &made.chain_to_pem()), file("k.pem", &made.key_to_pem()));
        assert_eq!(credentials(&cert, &key).unwrap().pin(), made.pin());
        let other = file("o.pem", &self_signed().unwrap().key_to_pem());
        let junk = file("junk.pem", "junk");
        for (cert, key, part) in [
            (&cert, &other, "c.pem: the private key does not match"),
            (&junk, &key, "junk.pem: no certificate found"),
            (&cert, &junk, "junk.pem: no private key found"),
            (&cert, &directory.path().join("none.pem"), "none.pem: "),
        ] {
            let failure = credentials(cert, key).unwrap_err();
            assert_eq!(failure.kind(), "certificate");
            assert!(failure.to_string().contains(part), "{failure}");
        }
    }

    #[test]
    fn trust_is_what_was_asked_for() {
        let made = self_signed().unwrap();
        let of = |args: TrustArgs| trust(&args).map(|(trust, own)| (trust, own.is_some()));
        assert_eq!(of(TrustArgs::default()), Ok((Trust::Platform, false)));
        let pinned = TrustArgs {
            pin: vec![made.pin()],
            ..TrustArgs::default()
        };
        assert_eq!(of(pinned), Ok((Trust::Pins(vec![made.pin()]), false)));
        let insecure = TrustArgs {
            insecure: true,
            ..TrustArgs::default()
        };
        assert_eq!(of(insecure), Ok((Trust::Insecure, false)));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("all.pem");
        fs::write(&path, made.to_pem()).unwrap();
        let rooted = TrustArgs {
            ca: Some(path.clone()),
            client_cert: Some(path.clone()),
            client_key: Some(path),
            ..TrustArgs::default()
        };
        assert_eq!(of(rooted), Ok((Trust::Roots(made.chain().to_vec()), true)));
    }
}
