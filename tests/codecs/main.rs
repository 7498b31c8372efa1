//! Properties of the wire codecs: round trips, arbitrary and damaged bytes, bounds.

mod control;
mod erlang;
mod framing;
mod rpc;
mod values;
