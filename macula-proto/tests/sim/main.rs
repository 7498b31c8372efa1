//! The simulation itself: each fault does what it says, and the same seed gives the same trace.

mod hosts;
mod kit;
mod links;
mod same;
