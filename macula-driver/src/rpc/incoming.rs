//! A call to be served.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use bytes::Bytes;
use macula_proto::{
    endpoint::IncomingCall,
    rpc::{Fault, Kind, Outcome, session::Incoming},
    wire::{Value, from_value},
};
use serde::de::DeserializeOwned;

use super::{Call, CallError, IntoValue, RpcClient};
use crate::Endpoint;

/// A call that a peer made of an advertised procedure, to be served: a [`Call`], which it dereferences to, with what was asked.
///
/// Dropping it before it is over tells the caller `owner_down`. A call that went well gets a reply, or none, and is then
/// [closed](Call::close); a unary one is over with its reply.
#[derive(Debug)]
pub struct ServerCall {
    call: Call,
    incoming: Incoming,
}

impl ServerCall {
    pub(super) fn new(endpoint: &Endpoint, found: IncomingCall) -> Self {
        let hello = endpoint.with_links(found.link, |links, _| links.hello(found.link));
        let client = RpcClient::new(endpoint, found.link, None);
        let client = client.with_hello(*hello.flatten().unwrap_or_default());
        Self {
            call: Call::new(client, found.incoming.call),
            incoming: found.incoming,
        }
    }

    /// The procedure.
    pub fn procedure(&self) -> &Bytes {
        &self.incoming.procedure
    }

    /// What the procedure was advertised as.
    pub fn kind(&self) -> Kind {
        self.incoming.kind
    }

    /// The arguments as they came.
    pub fn args(&self) -> &Value {
        &self.incoming.args
    }

    /// The term that the arguments are the encoding of, if they are a byte string that is one: deployed callers send most arguments
    /// that way. A guess.
    pub fn term(&self) -> Option<&Value> {
        self.incoming.term.as_ref()
    }

    /// The arguments as a type of serde: those that came, or else the [term](Self::term) that they are the encoding of.
    ///
    /// # Errors
    /// [`CallError::Value`] when they are neither.
    pub fn args_as<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        let direct = from_value(self.incoming.args.clone());
        match (direct, &self.incoming.term) {
            (Ok(args), _) => Ok(args),
            (Err(_), Some(term)) => Ok(from_value(term.clone())?),
            (Err(error), None) => Err(error.into()),
        }
    }

    /// How long the caller of a unary call waits, if it said so.
    pub fn timeout(&self) -> Option<Duration> {
        self.incoming.timeout
    }

    /// Settles the reply. The first word counts: `false` if there was one, or the call is over. Of a streaming call chunks can be sent
    /// after it.
    ///
    /// # Errors
    /// [`CallError::Value`] for what has no form on the wire.
    pub fn set_reply(&self, value: impl IntoValue) -> Result<bool, CallError> {
        Ok(self.control().set_reply(Outcome::Ok(value.into_value()?)))
    }

    /// Settles the reply with an error, which leaves a streaming call open; but on a peering connection, whose frames have no such
    /// reply, it ends the call for the caller. The first word counts, as with [`set_reply`](Self::set_reply).
    pub fn set_error(&self, fault: Fault) -> bool {
        self.control().set_reply(Outcome::Err(fault))
    }

    /// The call without what was asked.
    pub fn into_call(self) -> Call {
        self.call
    }
}

impl Deref for ServerCall {
    type Target = Call;

    fn deref(&self) -> &Call {
        &self.call
    }
}

impl DerefMut for ServerCall {
    fn deref_mut(&mut self) -> &mut Call {
        &mut self.call
    }
}
