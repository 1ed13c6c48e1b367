//! The whole router against a pool that does what a test tells it to, with real links.

mod atropos;
mod batch;
mod edge;
mod fake;
mod leases;
mod sockets;
