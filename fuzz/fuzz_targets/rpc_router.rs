//! See `macula_fuzz::rpc_router`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| macula_fuzz::rpc_router(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    macula_fuzz::replay_arguments(macula_fuzz::rpc_router)
}
