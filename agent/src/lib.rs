//! One-shot graded jobs, a container each.
//!
//! A door (INGInious's backend, HTTP) brings [`JobOrder`]s to an [`Agent`] and follows what becomes
//! of them. Each job is a pure state machine, and a thin shell round it speaks with the engine.
//!
//! Invariant: every job that was taken gets exactly one answer, whatever dies and in whatever
//! order news of it come, and nothing of it is left afterwards.

mod agent;
mod api;
mod capture;
mod containers;
mod discovery;
mod environments;
mod folder;
mod hub;
mod images;
mod ingi;
mod job;
mod jobs;
mod meter;
mod msgpack;
mod names;
mod order;
mod parameters;
mod ports;
mod result;
mod settings;
mod shared;
mod store;
mod verdict;
mod warm;
mod wire;
mod zmtp;

pub use agent::{
    Agent, AgentHandle, JobFollower, JobNews, Kill, Refused, Slots, SshDebug, StartError,
};
pub use api::{ApiSettings, openapi, router};
pub use environments::{Environment, Environments};
pub use ingi::{BackendSettings, serve_backend};
pub use order::{
    BadJobId, Debug, Graded, JOB_ID_BYTES_MAX, JobId, JobKind, JobOrder, Plain, PlainLimits,
    PlainNetwork, Priority,
};
pub use settings::{Runtime, Settings};
pub use verdict::{GradedDone, JobDone, JobUsage, Output, PlainDone, Verdict};
pub use zmtp::{Address, AddressError};
