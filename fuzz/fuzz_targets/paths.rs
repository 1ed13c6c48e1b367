//! Any two paths, to every tool of files: an answer, and nothing outside the workspace is read,
//! changed or made.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| slotmux_sandbox_server::fuzzing::paths(data));
