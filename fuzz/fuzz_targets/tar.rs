//! Any bytes as a tar stream, compressed or not: an answer within the limits, nothing outside of
//! where it is extracted to, and what was extracted can be packed.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| slotmux_sandbox_server::fuzzing::tar(data));
