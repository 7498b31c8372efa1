//! Calls over every carrier: whole endpoints on a virtual clock, one suite for all of them.

#![cfg(feature = "self-signed")]

mod bounds;
mod carriers;
mod suite;
#[path = "../world/mod.rs"]
mod world;
