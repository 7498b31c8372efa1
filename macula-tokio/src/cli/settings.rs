//! Settings of a relay: its configuration file under its arguments.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use macula_proto::{
    Limits,
    tunnel::relay::{NodeLimits, Takeover},
};
use serde::Deserialize;

use super::{
    args::{IdentityArgs, RelayArgs, TakeoverArg},
    scalar::parsed,
    toml_error::FileError,
    values::{self, HostPort, RELAY_PORT},
};

/// What a relay is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RelaySettings {
    pub(crate) listen: HostPort,
    pub(crate) identity: Identity,
    pub(crate) access: Option<PathBuf>,
    pub(crate) takeover: Takeover,
    pub(crate) admin: Admin,
    pub(crate) metrics: Option<HostPort>,
    pub(crate) router: bool,
    pub(crate) sockets: u8,
    pub(crate) spin: Duration,
    pub(crate) node_limits: NodeLimits,
    pub(crate) max_handshakes: usize,
    pub(crate) drain_timeout: Duration,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    Files { cert: PathBuf, key: PathBuf },
    SelfSigned,
}

/// Where the admin socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admin {
    /// Where it is looked for; the relay runs without if it cannot be made.
    Default,
    /// Here, or the relay does not run.
    At(PathBuf),
    Off,
}

/// Arguments or a configuration file that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadSettings {
    #[error("{0}")]
    File(#[from] FileError),
    #[error("a relay needs a certificate: --cert and --key, or --self-signed")]
    NoIdentity,
    #[error("{path}: `cert` and `key` need each other, and exclude `self-signed`")]
    Identity { path: String },
    #[error("calls between nodes are routed on one socket only: more than one need --no-router")]
    RouterOnSockets,
}

impl RelaySettings {
    /// Reads the configuration file that `args` name, if any; what `args` say themselves wins.
    pub(crate) fn new(args: RelayArgs) -> Result<Self, BadSettings> {
        let mut file = match &args.config {
            Some(path) => ConfigFile::load(path)?,
            None => ConfigFile::default(),
        };
        let identity = match identity_of(&args.identity) {
            Some(identity) => identity,
            None => file.identity(args.config.as_deref())?,
        };
        if args.no_admin {
            file.admin = None;
        }
        let admin = match args.admin.or(file.admin) {
            Some(path) => Admin::At(path),
            None if args.no_admin || file.no_admin => Admin::Off,
            None => Admin::Default,
        };
        let router = !(args.no_router || file.no_router);
        let sockets = args.sockets.or(file.sockets).unwrap_or(1);
        if router && sockets > 1 {
            return Err(BadSettings::RouterOnSockets);
        }
        Ok(Self {
            listen: (args.listen)
                .or(file.listen)
                .unwrap_or_else(|| HostPort::new("::", RELAY_PORT)),
            identity,
            access: args.access.or(file.access),
            takeover: args.takeover.or(file.takeover).unwrap_or(TakeoverArg::Replace).into(),
            admin,
            metrics: args.metrics.or(file.metrics),
            router,
            sockets,
            spin: args.spin.or(file.spin).unwrap_or_default(),
            node_limits: NodeLimits {
                tunnels: args.max_tunnels_per_node.or(file.max_tunnels_per_node),
                bytes_per_second: args.max_rate_per_node.or(file.max_rate_per_node),
            },
            max_handshakes: (args.max_handshakes)
                .or(file.max_handshakes)
                .unwrap_or_else(|| Limits::default().handshaking),
            drain_timeout: args
                .drain_timeout
                .or(file.drain_timeout)
                .unwrap_or(Duration::from_secs(5)),
        })
    }
}

/// What the arguments say about a certificate, if anything.
pub(crate) fn identity_of(args: &IdentityArgs) -> Option<Identity> {
    match (args.cert.clone(), args.key.clone()) {
        (Some(cert), Some(key)) => Some(Identity::Files { cert, key }),
        _ => args.self_signed.then_some(Identity::SelfSigned),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct ConfigFile {
    #[serde(deserialize_with = "listen")]
    listen: Option<HostPort>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    self_signed: bool,
    access: Option<PathBuf>,
    #[serde(deserialize_with = "takeover")]
    takeover: Option<TakeoverArg>,
    admin: Option<PathBuf>,
    no_admin: bool,
    #[serde(deserialize_with = "metrics")]
    metrics: Option<HostPort>,
    no_router: bool,
    #[serde(deserialize_with = "sockets")]
    sockets: Option<u8>,
    #[serde(deserialize_with = "spin")]
    spin: Option<Duration>,
    #[serde(deserialize_with = "max_tunnels_per_node")]
    max_tunnels_per_node: Option<usize>,
    #[serde(deserialize_with = "max_rate_per_node")]
    max_rate_per_node: Option<u64>,
    #[serde(deserialize_with = "max_handshakes")]
    max_handshakes: Option<usize>,
    #[serde(deserialize_with = "drain_timeout")]
    drain_timeout: Option<Duration>,
}

parsed!(listen, "listen", HostPort, values::relay_address);
parsed!(takeover, "takeover", TakeoverArg, parse_takeover);
parsed!(metrics, "metrics", HostPort, values::tcp_address);
parsed!(sockets, "sockets", u8, values::sockets);
parsed!(spin, "spin", Duration, values::spin);
parsed!(max_tunnels_per_node, "max-tunnels-per-node", usize, values::count);
parsed!(max_rate_per_node, "max-rate-per-node", u64, values::rate);
parsed!(max_handshakes, "max-handshakes", usize, values::count);
parsed!(drain_timeout, "drain-timeout", Duration, values::duration);

fn parse_takeover(text: &str) -> Result<TakeoverArg, String> {
    clap::ValueEnum::from_str(text, false).map_err(|_| format!("{text:?} is neither `replace` nor `refuse`"))
}

impl ConfigFile {
    fn load(path: &Path) -> Result<Self, FileError> {
        let text = fs::read_to_string(path).map_err(|error| FileError::unreadable(path, &error))?;
        let mut file: Self = toml::from_str(&text).map_err(|error| FileError::toml(path, &text, &error))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        for relative in [&mut file.cert, &mut file.key, &mut file.access, &mut file.admin] {
            *relative = relative.take().map(|path| directory.join(path));
        }
        Ok(file)
    }

    fn identity(&mut self, path: Option<&Path>) -> Result<Identity, BadSettings> {
        match (self.cert.take(), self.key.take(), self.self_signed) {
            (Some(cert), Some(key), false) => Ok(Identity::Files { cert, key }),
            (None, None, true) => Ok(Identity::SelfSigned),
            (None, None, false) => Err(BadSettings::NoIdentity),
            _ => Err(BadSettings::Identity {
                path: path.unwrap_or(Path::new("")).display().to_string(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::{super::args::*, *};

    fn settings(file: Option<&str>, args: &[&str]) -> Result<RelaySettings, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("relay.toml");
        let mut line = vec!["macula", "relay"];
        if let Some(text) = file {
            fs::write(&path, text).unwrap();
            line.extend(["--config", path.to_str().unwrap()]);
        }
        line.extend(args);
        let Command::Relay(args) = Cli::try_parse_from(line).unwrap().command else {
            unreachable!("the subcommand is relay");
        };
        let strip = |text: String| text.replace(&format!("{}/", directory.path().display()), "");
        let settings = RelaySettings::new(*args).map_err(|error| strip(error.to_string()))?;
        let in_file = |path: PathBuf| path.strip_prefix(directory.path()).map(Into::into).unwrap_or(path);
        Ok(RelaySettings {
            access: settings.access.map(in_file),
            identity: match settings.identity {
                Identity::Files { cert, key } => Identity::Files {
                    cert: in_file(cert),
                    key: in_file(key),
                },
                other => other,
            },
            ..settings
        })
    }

    fn defaults() -> RelaySettings {
        RelaySettings {
            listen: HostPort::new("::", 4434),
            identity: Identity::SelfSigned,
            access: None,
            takeover: Takeover::Replace,
            admin: Admin::Default,
            metrics: None,
            router: true,
            sockets: 1,
            spin: Duration::ZERO,
            node_limits: NodeLimits::default(),
            max_handshakes: 1024,
            drain_timeout: Duration::from_secs(5),
        }
    }

    #[test]
    fn defaults_hold_without_arguments() {
        assert_eq!(settings(None, &["--self-signed"]), Ok(defaults()));
        assert_eq!(settings(Some("self-signed = true"), &[]), Ok(defaults()));
    }

    #[test]
    fn every_key_is_read_and_every_flag_wins() {
        let file = "
            listen = '127.0.0.1:1'
            cert = 'c.pem'
            key = 'k.pem'
            access = 'a.toml'
            takeover = 'refuse'
            admin = '/run/x.sock'
            metrics = 'localhost:9100'
            no-router = true
            sockets = 2
            spin = 50
            max-tunnels-per-node = 10
            max-rate-per-node = '1MB'
            max-handshakes = 20
            drain-timeout = 2.5
        ";
        let from_file = RelaySettings {
            listen: HostPort::new("127.0.0.1", 1),
            identity: Identity::Files {
                cert: "c.pem".into(),
                key: "k.pem".into(),
            },
            access: Some("a.toml".into()),
            takeover: Takeover::Refuse,
            admin: Admin::At("/run/x.sock".into()),
            metrics: Some(HostPort::new("localhost", 9100)),
            router: false,
            sockets: 2,
            spin: Duration::from_micros(50),
            node_limits: NodeLimits {
                tunnels: Some(10),
                bytes_per_second: Some(1_000_000),
            },
            max_handshakes: 20,
            drain_timeout: Duration::from_millis(2500),
        };
        assert_eq!(settings(Some(file), &[]), Ok(from_file.clone()));
        let line = "--listen host:3 --self-signed --access b --takeover replace --admin y --metrics h:4 --sockets 3 --spin 0 \
            --max-tunnels-per-node 5 --max-rate-per-node 6 --max-handshakes 7 --drain-timeout 0";
        let args: Vec<_> = line.split_whitespace().collect();
        let from_flags = RelaySettings {
            listen: HostPort::new("host", 3),
            identity: Identity::SelfSigned,
            access: Some("b".into()),
            takeover: Takeover::Replace,
            admin: Admin::At("y".into()),
            metrics: Some(HostPort::new("h", 4)),
            router: false,
            sockets: 3,
            spin: Duration::ZERO,
            node_limits: NodeLimits {
                tunnels: Some(5),
                bytes_per_second: Some(6),
            },
            max_handshakes: 7,
            drain_timeout: Duration::ZERO,
        };
        assert_eq!(settings(Some(file), &args), Ok(from_flags));
        let off = settings(Some(file), &["--no-admin"]).unwrap();
        assert_eq!(off.admin, Admin::Off);
        assert_eq!(
            settings(Some("self-signed = true\nlisten = 'h:9'"), &[])
                .unwrap()
                .listen,
            HostPort::new("h", 9)
        );
    }

    #[test]
    fn bad_files_say_where() {
        for (file, parts) in [
            (
                "self-signed = true\nlissten = 'x'",
                &["line 2", "unknown field `lissten`"][..],
            ),
            ("\nlisten = 'h:x'", &["relay.toml: line 2: listen: \"x\" is not a port"]),
            ("takeover = 'maybe'", &["line 1", "takeover: \"maybe\" is neither"]),
            ("max-rate-per-node = 0", &["line 1", "max-rate-per-node: a rate of 0"]),
            ("drain-timeout = -1", &["line 1", "drain-timeout: "]),
            ("metrics = 9100", &["line 1", "metrics: no port"]),
            ("max-handshakes = true", &["line 1", "boolean `true`"]),
            (
                "sockets = 65",
                &["line 1", "sockets: \"65\" is not a number of sockets"],
            ),
            (
                "spin = 1.5",
                &["line 1", "spin: \"1.5\" is not a number of microseconds"],
            ),
            ("self-signed = true\nsockets = 2", &["more than one need --no-router"]),
            ("cert = 'c'", &["relay.toml: `cert` and `key` need each other"]),
            ("cert = 'c'\nkey = 'k'\nself-signed = true", &["exclude `self-signed`"]),
            ("", &["--cert and --key, or --self-signed"]),
            ("listen = ", &["line 1"]),
        ] {
            let error = settings(Some(file), &[]).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{part:?} in {error:?}");
            }
        }
    }

    #[test]
    fn the_sample_file_is_right() {
        let sample = include_str!("../../../packaging/relay.toml");
        let found = settings(Some(sample), &[]).expect("a good sample");
        assert_eq!(found.listen, HostPort::new("::", 4434));
        assert!(matches!(found.identity, Identity::Files { .. }));
        // Every key that is commented out is right as well.
        let all: String = sample
            .lines()
            .map(|line| match line.strip_prefix("#") {
                Some(key) if !key.starts_with(' ') => key,
                _ => line,
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let found = settings(Some(&all), &[]).expect("a good sample with all keys");
        assert!(found.access.is_some() && found.metrics.is_some() && found.node_limits.tunnels.is_some());
    }
}
