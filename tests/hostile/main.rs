//! Peers that do what they should not: each hears a named error or close code and is counted, nothing of it is left
//! afterwards, and a tunnel that runs meanwhile loses nothing.

mod attacker;
mod attacks_on_node;
mod attacks_on_relay;
mod evil;
#[allow(
    unfulfilled_lint_expectations,
    reason = "it is shared with a crate that has stricter lints"
)]
#[path = "../../macula-proto/tests/world/mod.rs"]
mod world;
