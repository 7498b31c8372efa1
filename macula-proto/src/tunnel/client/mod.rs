//! A node's side: one session per connection, and the supervisor that decides which relay to dial.

pub mod session;
pub mod supervisor;

pub use session::Session;
pub use supervisor::Supervisor;
