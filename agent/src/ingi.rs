//! The door to INGInious's backend: its messages, and how an agent behaves towards it.
//!
//! Invariants: a job that was taken from a backend is answered once to whichever backend is there
//! when it is done; nothing that a backend sends ends more than what it is about.

mod door;
#[cfg(test)]
mod door_tests;
mod followed;
mod from_backend;
mod outbox;
mod pause;
mod session;
#[cfg(test)]
mod tests;
mod to_backend;

pub use door::{BackendSettings, serve_backend};
use from_backend::{FromBackend, Misread};
use to_backend::ToBackend;
