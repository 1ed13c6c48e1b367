//! Leases, slots, routing and the HTTP API of Slotmux.

pub mod api;
pub mod link;
pub mod routes;

mod actor;
pub mod config;
pub mod core;
mod handle;
pub mod journal;

pub use config::{PoolConfig, ProfileConfig};
pub use handle::{Pool, PoolHandle, Shutdown, StartError};

// Tests share files with those in `pool/tests/it`, which name the crate.
#[cfg(test)]
extern crate self as slotmux_pool;
