//! Every golden vector of the wire layer and of identities, in both directions, and each difference from the deployed peers listed.

#[path = "../common/mod.rs"]
mod common;

mod cbor;
mod control;
mod dist;
mod identity;
mod payloads;
mod peering;
mod rpc;
