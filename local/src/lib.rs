//! Containers as child processes of this machine: the embedded default. Needs no Docker, no root.
//!
//! A container is one sandbox-server process with a directory of its own; what is known of it
//! stands in that directory, so that a later pool finds it.
//!
//! Invariant: a directory outlives its process, never the other way round. Whatever is found
//! without a process is debris, and is removed.

mod backend;
mod command;
mod container;
mod diagnose;
mod exit;
mod keeper;
mod layout;
mod process;
mod ready;
mod record;
mod remove;

pub use backend::LocalBackend;

use std::{ffi::OsString, path::PathBuf};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalSettings {
    /// What is run as a container.
    pub program: PathBuf,
    /// Its first arguments, such as `sandbox-server`.
    pub args_before: Vec<OsString>,
    /// Where containers have their directories. Made when it is missing.
    pub state_dir: PathBuf,
}
