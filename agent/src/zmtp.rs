//! ZeroMQ's wire, as far as a DEALER that connects to a ROUTER needs it: ZMTP 3.1 (RFC 37/ZMTP) with
//! the NULL mechanism, which is also spoken with peers of 3.0 (RFC 23/ZMTP).
//!
//! Invariants: what a peer announces costs no memory before it has come; any bytes from it end, at
//! worst, its own connection.

mod address;
mod commands;
mod dealer;
mod frames;
mod greeting;
mod identity;

pub use address::{Address, AddressError};
pub(crate) use dealer::{Dealer, DealerError, Heard};
pub(crate) use identity::Identity;
