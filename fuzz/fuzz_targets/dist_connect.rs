//! See `macula_fuzz::dist_connect`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| macula_fuzz::dist_connect(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    macula_fuzz::replay_arguments(macula_fuzz::dist_connect)
}
