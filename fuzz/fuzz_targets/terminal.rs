//! What a program prints to its terminal, cut anywhere: the screen stays sound, the recording can
//! be played, and nothing grows past its bound.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| slotmux_sandbox_server::fuzzing::terminal_output(data));
