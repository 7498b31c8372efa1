//! Relay control: the client machine and the relay machine.
