//! Where other nodes are.
//!
//! A name such as `a@host` does not say on which port its node listens, and its host need not be the one that it is reached at.
//! A [`Discovery`] knows: a [table](Table) that was written by hand, or, with the feature `dns`, SRV records (`srv::SrvRecords`) of
//! the domain name system.
//!
//! ```
//! use macula_smol::dist::discovery::{Discovery, Table};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # smol::block_on(async {
//! let table: Table = ["a@left.example=127.0.0.1:4433".parse()?].into_iter().collect();
//! let places = table.lookup("a@left.example").await?;
//! assert_eq!((places[0].host.as_str(), places[0].address.port()), ("127.0.0.1", 4433));
//! # Ok(())
//! # })
//! # }
//! ```

#[cfg(feature = "dns")]
pub mod srv;

use std::ops::{Deref, DerefMut};

use macula_driver::dist::discovery;

use crate::runtime::Smol;

pub use macula_driver::dist::discovery::{
    Discovery, DiscoveryError, Entry, MAX_PLACES, ParseEntryError, Place, is_node_name,
};

/// Nodes and where they are, written by hand. A node may have several places, which are tried in the order of their entries. It does
/// what [`macula_driver::dist::discovery::Table`] does, which it dereferences to.
#[derive(Debug, Clone, Default)]
pub struct Table(discovery::Table);

impl FromIterator<Entry> for Table {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl Discovery for Table {
    async fn nodes(&self) -> Result<Vec<String>, DiscoveryError> {
        Ok(self.names().map(str::to_owned).collect())
    }

    /// Host names are looked up as the operating system does it. One that is not found does not keep the others from being tried.
    async fn lookup(&self, node: &str) -> Result<Vec<Place>, DiscoveryError> {
        self.lookup_on::<Smol>(node).await
    }
}

impl Deref for Table {
    type Target = discovery::Table;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Table {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}
