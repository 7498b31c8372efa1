//! placeholder

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod tcp;
