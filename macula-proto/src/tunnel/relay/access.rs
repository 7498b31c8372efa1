//! Who may take which name, and who may open tunnels to it.

use std::collections::{BTreeMap, BTreeSet};

use crate::tunnel::Name;

/// The access rules of a relay.
///
/// The default lets anybody take any name and open tunnels to anybody, as deployed relays do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccessRules {
    /// The rules of single names.
    pub names: BTreeMap<Name, NameRule>,
    /// What holds for names without a rule.
    pub default: DefaultAccess,
}

/// What holds for names without a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DefaultAccess {
    /// Anybody may take them and open tunnels to them.
    #[default]
    Open,
    /// Nobody may.
    Closed,
}

/// The rule of one name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NameRule {
    /// SHA-256 of the DER of the client certificates that may take the name. Empty: any client may, with or without a
    /// certificate.
    pub pins: BTreeSet<[u8; 32]>,
    /// The names that may open tunnels to it. `None`: every name may.
    pub allow_from: Option<BTreeSet<Name>>,
    /// Limits for this node instead of the relay's general ones.
    pub limits: Option<NodeLimits>,
}

/// What one node may use of a relay. `None`: no limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeLimits {
    /// Tunnels from and to the name at once. More are answered `busy`.
    pub tunnels: Option<usize>,
    /// Bytes per second over all of its tunnels and both directions.
    pub bytes_per_second: Option<u64>,
}

impl AccessRules {
    /// Whether a client with this certificate pin may take the name.
    pub fn may_identify(&self, name: &Name, pin: Option<&[u8; 32]>) -> bool {
        match self.names.get(name) {
            Some(rule) => rule.pins.is_empty() || pin.is_some_and(|pin| rule.pins.contains(pin)),
            None => self.default == DefaultAccess::Open,
        }
    }

    /// Whether `source` may open tunnels to `target`.
    pub fn may_open(&self, source: &Name, target: &Name) -> bool {
        match self.names.get(target) {
            Some(rule) => rule.allow_from.as_ref().is_none_or(|from| from.contains(source)),
            None => self.default == DefaultAccess::Open,
        }
    }

    /// The limits of a name: those of its rule, or else `general`.
    pub(super) fn limits(&self, name: &Name, general: NodeLimits) -> NodeLimits {
        self.names.get(name).and_then(|rule| rule.limits).unwrap_or(general)
    }
}
