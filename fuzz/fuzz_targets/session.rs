//! See `macula_fuzz::session`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| macula_fuzz::session(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    macula_fuzz::replay_arguments(macula_fuzz::session)
}
