//! The controller of a distribution connection without any socket: every state with every event and every operation.

mod cells;
mod cells_operations;
mod cells_streams;
mod rig;
mod show;
mod states;
mod table;
