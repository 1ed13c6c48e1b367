//! The door to INGInious's backend: its messages, and how an agent behaves towards it.
//!
//! Invariants: a job that was taken from a backend is answered once to whichever backend is there
//! when it is done; nothing that a backend sends ends more than what it is about.

mod from_backend;
#[cfg(test)]
mod tests;
mod to_backend;

pub(crate) use from_backend::{FromBackend, Misread};
pub(crate) use to_backend::ToBackend;
