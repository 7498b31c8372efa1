//! Session secrets for decrypting captured packets.

use std::{
    fmt::{self, Write},
    sync::Arc,
};

/// Receives the secrets of every session, line by line.
///
/// Each line is in the NSS key log format without its line end: a label such as `CLIENT_TRAFFIC_SECRET_0`, the client
/// random and the secret, both in hex. Written to a file, Wireshark decrypts a packet capture with it.
///
/// Whoever reads these lines reads the traffic. Nothing logs secrets unless a caller installs a `KeyLog`.
pub trait KeyLog: fmt::Debug + Send + Sync {
    /// Takes one line. Called in the middle of a handshake; it should return soon.
    fn line(&self, line: &str);
}

/// A [`KeyLog`] as rustls calls it.
#[derive(Debug)]
pub(super) struct Lines(pub(super) Arc<dyn KeyLog>);

impl rustls::KeyLog for Lines {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut line = String::with_capacity(label.len() + 2 * (client_random.len() + secret.len()) + 2);
        line.push_str(label);
        for part in [client_random, secret] {
            line.push(' ');
            for byte in part {
                // Writing to a string cannot fail.
                let _ = write!(line, "{byte:02x}");
            }
        }
        self.0.line(&line);
    }
}
