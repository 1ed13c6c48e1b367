//! What the fuzzers feed, for them alone.

/// See `fuzz/fuzz_targets/terminal.rs`.
pub fn terminal_output(data: &[u8]) {
    crate::terminal::fuzz_output(data);
}

/// See `fuzz/fuzz_targets/paths.rs`.
pub fn paths(data: &[u8]) {
    crate::files::fuzz::paths(data);
}

/// See `fuzz/fuzz_targets/tar.rs`.
pub fn tar(data: &[u8]) {
    crate::files::fuzz::tar(data);
}
