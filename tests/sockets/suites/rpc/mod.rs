//! Calls over sockets: one suite, on everything that carries them, in both directions.

mod carriers;
mod heavy;
mod many;
mod serving;
mod suite;

use std::{future::Future, time::Duration};

use crate::adapter::timeout;

/// Far more than anything here takes; only a hang reaches it.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(Duration::from_secs(60), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} does not take a minute"),
    }
}

macro_rules! carriers {
    ($($name:ident: $carrier:expr;)*) => {
        $(
            mod $name {
                use super::{carriers::Rig, suite};
                use crate::adapter::run;

                #[test]
                fn from_the_dialler() {
                    run(async { suite::run(Rig::new($carrier).await).await });
                }

                #[test]
                fn from_the_acceptor() {
                    run(async { suite::run(Rig::new($carrier).await.reversed()).await });
                }
            }
        )*
    };
}

use carriers::Carrier;

carriers! {
    stream_per_call: super::Carrier::Connection { per_call: true };
    shared_stream: super::Carrier::Connection { per_call: false };
    tunnel: super::Carrier::Tunnel;
    peering: super::Carrier::Peering;
    local: super::Carrier::Local;
}
