//! The one door to a container runtime.
//!
//! A backend starts containers under the names that its caller chose, tells facts about them, and
//! stops them. It knows nothing of slots or leases. Everything it starts is labelled with its
//! pool, so that a pool which comes back finds its own ([`Backend::list`]) and a pool which never
//! comes back leaves nothing for ever ([`LaunchSpec::lifetime`]).

pub mod conformance;
pub mod fake;
mod tell;
mod words;

pub use tell::Teller;
pub use words::{chain, last_lines};

use futures_util::future::BoxFuture;
use slotmux_protocol::{ContainerId, Isolation, Network, ProfileName, Root, SlotLimits};
use std::{error::Error, time::Duration};
use tokio::sync::mpsc;

/// What to start. The same name twice is the same container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchSpec {
    pub container: ContainerId,
    pub labels: Labels,
    pub slots: u16,
    pub isolation_min: Isolation,
    pub root: Root,
    pub network: Network,
    pub slot_limits: SlotLimits,
    /// The container ends by itself after this long, whatever happened to its pool.
    pub lifetime: Duration,
    /// The container ends by itself when no pool has been linked to it for this long.
    pub orphaned_after: Duration,
}

/// Put on everything we start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// The pool's stable name.
    pub pool: String,
    /// Of the pool process that launched it.
    pub generation: u64,
    pub profile: ProfileName,
}

/// Where a container's sandbox-server answers.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// `host:port`
    pub authority: String,
    /// Bearer token of this container alone.
    pub token: String,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Address").field("authority", &self.authority).finish_non_exhaustive()
    }
}

/// A container as its runtime sees it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub container: ContainerId,
    pub labels: Labels,
    pub slots: u16,
    pub phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Ready(Address),
}

/// News about one container. Late and repeated news are normal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    Ready { container: ContainerId, address: Address },
    Gone { container: ContainerId, exit: Exit },
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    pub kind: ExitKind,
    /// In the runtime's own words, for people.
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitKind {
    /// We asked for it.
    Stopped,
    Code(i32),
    Signal(i32),
    OutOfMemory,
    /// The runtime no longer knows the container, and nobody saw it end.
    Vanished,
}

pub type Cause = Box<dyn Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// Nothing was changed; the same call will be refused again.
    #[error("{doing}: refused")]
    Refused { doing: String, source: Cause },
    /// Nothing was changed; it may work later.
    #[error("{doing}: unavailable")]
    Unavailable { doing: String, source: Cause },
    /// It may or may not have taken effect: list, then decide.
    #[error("{doing}: no answer")]
    Unknown { doing: String, source: Cause },
}

/// A stream of facts. Bounded by the backend; it ends when the backend is dropped.
pub type Facts = mpsc::Receiver<Fact>;

/// What `slotmux doctor` shows of a runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    pub usable: bool,
    /// A line for each thing that was looked at.
    pub findings: Vec<String>,
}

pub trait Backend: Send + Sync + 'static {
    /// `local`, `docker`, …
    fn name(&self) -> &'static str;

    /// Starts a container. Returns when the runtime has taken the order, before it is ready. A
    /// name that exists already is not started twice, and is no error.
    fn launch(&self, spec: LaunchSpec) -> BoxFuture<'_, Result<(), BackendError>>;

    /// Stops a container, by force after `grace`, and forgets it. Idempotent: an unknown one is
    /// stopped already. Its `Gone` is told before or after this returns.
    fn stop<'a>(
        &'a self,
        container: &'a ContainerId,
        grace: Duration,
    ) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Every container of `pool` that exists now, whoever started it. From then on facts about
    /// these are told too.
    fn list<'a>(&'a self, pool: &'a str) -> BoxFuture<'a, Result<Vec<Seen>, BackendError>>;

    /// Facts from now on. One subscriber: a second call ends the first one's stream.
    fn facts(&self) -> Facts;

    /// The last `bytes_max` bytes of what the container printed.
    fn logs<'a>(
        &'a self,
        container: &'a ContainerId,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<String, BackendError>>;

    fn diagnose(&self) -> BoxFuture<'_, Diagnosis>;
}
