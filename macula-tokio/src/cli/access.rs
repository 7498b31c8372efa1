//! The access file of a relay.

use std::{collections::BTreeMap, fs, path::Path};

use macula_proto::{
    quic::tls::Pin,
    tunnel::{
        Name,
        relay::{AccessRules, DefaultAccess, NameRule, NodeLimits},
    },
};
use serde::Deserialize;

use super::{
    scalar::{parsed, parsed_list},
    toml_error::FileError,
    values,
};

/// Reads the access rules in a file.
pub(crate) fn load(path: &Path, general: NodeLimits) -> Result<AccessRules, FileError> {
    let text = fs::read_to_string(path).map_err(|error| FileError::unreadable(path, &error))?;
    parse(path, &text, general)
}

/// Reads access rules. `general` are the limits of nodes that the rules say nothing about; a rule that names one limit
/// leaves the other as it is in general.
pub(crate) fn parse(path: &Path, text: &str, general: NodeLimits) -> Result<AccessRules, FileError> {
    let file: File = toml::from_str(text).map_err(|error| FileError::toml(path, text, &error))?;
    let names = file
        .names
        .into_iter()
        .map(|(NameKey(name), rule)| (name, rule.into_rule(general)));
    Ok(AccessRules {
        names: names.collect(),
        default: match file.default {
            DefaultKey::Open => DefaultAccess::Open,
            DefaultKey::Closed => DefaultAccess::Closed,
        },
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    default: DefaultKey,
    #[serde(default)]
    names: BTreeMap<NameKey, Rule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DefaultKey {
    #[default]
    Open,
    Closed,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct NameKey(Name);

impl<'de> Deserialize<'de> for NameKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        values::name(&text)
            .map(Self)
            .map_err(|error| serde::de::Error::custom(format_args!("names: {error}")))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Rule {
    #[serde(default, deserialize_with = "pins")]
    pins: Option<Vec<Pin>>,
    #[serde(default, deserialize_with = "allow_from")]
    allow_from: Option<Vec<Name>>,
    #[serde(default, deserialize_with = "max_tunnels")]
    max_tunnels: Option<usize>,
    #[serde(default, deserialize_with = "max_rate")]
    max_rate: Option<u64>,
}

parsed_list!(pins, "pins", Pin, pin);
parsed_list!(allow_from, "allow-from", Name, values::name);
parsed!(max_tunnels, "max-tunnels", usize, values::count);
parsed!(max_rate, "max-rate", u64, values::rate);

fn pin(text: &str) -> Result<Pin, String> {
    text.parse().map_err(|error| format!("{error}"))
}

impl Rule {
    fn into_rule(self, general: NodeLimits) -> NameRule {
        let own = self.max_tunnels.is_some() || self.max_rate.is_some();
        NameRule {
            pins: self.pins.unwrap_or_default().into_iter().map(|pin| pin.0).collect(),
            allow_from: self.allow_from.map(|names| names.into_iter().collect()),
            limits: own.then(|| NodeLimits {
                tunnels: self.max_tunnels.or(general.tunnels),
                bytes_per_second: self.max_rate.or(general.bytes_per_second),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENERAL: NodeLimits = NodeLimits {
        tunnels: Some(100),
        bytes_per_second: Some(5),
    };

    fn read(text: &str) -> Result<AccessRules, String> {
        parse(Path::new("access.toml"), text, GENERAL).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_the_open_default() {
        assert_eq!(read(""), Ok(AccessRules::default()));
        assert_eq!(read("default = \"closed\"").unwrap().default, DefaultAccess::Closed);
    }

    #[test]
    fn rules_of_names() {
        let pin = "ab".repeat(32);
        let colons = vec!["CD"; 32].join(":");
        let rules = read(&format!(
            "[names.\"alice@host\"]\npins = [\"{pin}\", \"{colons}\"]\nallow-from = [\"bob\", \"carol\"]\nmax-tunnels = 7\n\
             [names.bob]\nallow-from = []\nmax-rate = \"10MB/s\"\n[names.carol]\npins = \"{pin}\""
        ))
        .unwrap();
        let alice = &rules.names[&Name::from("alice@host")];
        assert_eq!(alice.pins, [[0xab; 32], [0xcd; 32]].into());
        assert_eq!(alice.allow_from, Some([Name::from("bob"), Name::from("carol")].into()));
        let limits = |tunnels, rate| {
            Some(NodeLimits {
                tunnels: Some(tunnels),
                bytes_per_second: Some(rate),
            })
        };
        assert_eq!(alice.limits, limits(7, 5));
        let bob = &rules.names[&Name::from("bob")];
        assert_eq!(bob.allow_from, Some([].into()), "an empty list lets nobody in");
        assert_eq!(bob.limits, limits(100, 10_000_000));
        let carol = &rules.names[&Name::from("carol")];
        assert_eq!((carol.pins.len(), &carol.allow_from, carol.limits), (1, &None, None));
    }

    #[test]
    fn errors_name_line_and_key() {
        for (text, parts) in [
            ("default = \"ajar\"", &["line 1", "ajar", "default ="][..]),
            ("x = 1", &["line 1", "unknown field `x`"]),
            (
                "\n[names.a]\npins = [\"abc\"]",
                &["line 3", "pins: a pin has 64 hex digits, not 3"],
            ),
            ("[names.a]\npins = [\n  \"zz\",\n]", &["pins: ", "'z' at character 1"]),
            (
                "[names.a]\nmax-tunnels = 0",
                &["line 2", "max-tunnels: must be at least 1"],
            ),
            ("[names.a]\nmax-tunnels = -1", &["line 2", "max-tunnels: "]),
            (
                "[names.a]\nmax-rate = \"fast\"",
                &["line 2", "max-rate: \"fast\" is not a size"],
            ),
            (
                "[names.a]\nallow-from = 3",
                &["line 2", "integer `3`", "allow-from = 3"],
            ),
            (
                "[names.a]\nallow-from = [\"\"]",
                &["line 2", "allow-from: a name has at least one"],
            ),
            (
                "[names.a]\nallow_from = []",
                &["line 2", "unknown field `allow_from`", "allow-from"],
            ),
            ("[names.\"\"]\n", &["line 1", "names: a name has at least one"]),
            ("[names.a]\n[names.a]", &["line 2", "duplicate"]),
            ("[names.a", &["line 1"]),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with("access.toml: ") && !error.contains('\n'), "{error}");
            for part in parts {
                assert!(error.contains(part), "{part:?} in {error:?}");
            }
        }
    }

    #[test]
    fn the_sample_file_is_right() {
        let rules = read(include_str!("../../../packaging/access.toml")).expect("a good sample");
        assert_eq!(rules.names.len(), 2);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load(Path::new("/nonexistent/access.toml"), GENERAL)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("/nonexistent/access.toml: "), "{error}");
    }
}
