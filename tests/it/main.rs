//! End to end: the release binary, real processes, real slots.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod compose;
mod crash;
mod docker;
mod input;
mod replay;
mod scale;
mod server;
mod tools;
