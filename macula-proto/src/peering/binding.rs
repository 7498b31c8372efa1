//! The binding of CONNECT and HELLO to the connection they travel on.
//!
//! Both frames are signed, but what they say holds anywhere: whoever receives somebody's CONNECT could send it on to a third node
//! and be taken for its author there. Both may therefore carry a field `binding`, a string of 64 bytes: the node's Ed25519
//! signature over
//!
//! ```text
//! "macula-v2-binding\0" | role (1 byte: 0 dialler, 1 acceptor) | E (32 bytes)
//! ```
//!
//! where E is what the exporter of the connection's TLS session gives for the label `EXPORTER-macula-binding`, an empty context
//! and 32 bytes. Nobody can make two sessions give the same E, so a binding is worth nothing on any other connection; the role
//! keeps an acceptor from sending a dialler's binding back. The field is set before the frame is signed. Peers that do not know
//! it pass over it.

use super::{BindingMode, Role, reason::BindingFault};
use crate::{
    identity::{Domain, Identity, PublicKey, SIGNATURE_LENGTH},
    wire::Value,
};

/// The label to ask the TLS exporter with; the context is empty.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-macula-binding";

/// How many bytes to ask the TLS exporter for.
pub const EXPORTER_LENGTH: usize = 32;

/// The name of the field in CONNECT and HELLO.
pub const FIELD: &str = "binding";

/// The binding of a node that is the `role` end of the connection with these exporter bytes.
pub fn sign(identity: &Identity, role: Role, exporter: &[u8; EXPORTER_LENGTH]) -> [u8; SIGNATURE_LENGTH] {
    identity.sign(Domain::Binding, &message(role, exporter))
}

/// Whether `binding` is one of the node with this key, being the `role` end of this very connection.
pub fn verify(key: &PublicKey, role: Role, exporter: &[u8; EXPORTER_LENGTH], binding: &[u8]) -> bool {
    key.verify(Domain::Binding, &message(role, exporter), binding).is_ok()
}

fn message(role: Role, exporter: &[u8; EXPORTER_LENGTH]) -> Vec<u8> {
    let role = match role {
        Role::Dialler => 0,
        Role::Acceptor => 1,
    };
    [&[role][..], exporter].concat()
}

/// What came of looking at a peer's binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checked {
    /// It is good.
    Bound,
    /// There is none, or none was asked for.
    Unbound,
    /// There is one, and nothing to check it with.
    Unchecked,
}

/// Judges the binding of a peer at the `role` end.
pub(super) fn check(
    mode: BindingMode,
    key: &PublicKey,
    role: Role,
    exporter: Option<&[u8; EXPORTER_LENGTH]>,
    binding: Option<&Value>,
) -> Result<Checked, BindingFault> {
    if mode == BindingMode::Off {
        return Ok(Checked::Unbound);
    }
    let checked = match (binding, exporter) {
        (Some(binding), Some(exporter)) => {
            let good = binding
                .as_bytes()
                .is_some_and(|binding| verify(key, role, exporter, binding));
            return if good {
                Ok(Checked::Bound)
            } else {
                Err(BindingFault::Bad)
            };
        }
        (Some(_), None) => Checked::Unchecked,
        (None, _) => Checked::Unbound,
    };
    match mode {
        BindingMode::Require => Err(BindingFault::Missing),
        BindingMode::Off | BindingMode::Send => Ok(checked),
    }
}
