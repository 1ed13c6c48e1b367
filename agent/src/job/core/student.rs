//! What a grading container may start beside itself, and what became of it.

use super::{Holding, Mark, vessel::Vessel};
use crate::{Environment, Environments, wire::RunStudent};
use std::time::Duration;

/// The longest name of a socket, in bytes.
const SOCKET_ID_BYTES_MAX: usize = 100;

/// Memory in MB that a container has at least.
const MEMORY_MB_MIN: u64 = 20;

/// How many may be leaving for each that may be there.
const LEAVING_FACTOR: usize = 4;

/// Told to the grading container instead of an exit code.
pub(crate) const OUT_OF_MEMORY: i64 = 252;
pub(crate) const OUT_OF_TIME: i64 = 253;
pub(crate) const FAILED: i64 = 254;

/// What holds for all students of a job.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) environments: Environments,
    /// Of the grading container.
    pub(crate) environment_type: String,
    pub(crate) environment: String,
    /// Limits of the grading container.
    pub(crate) soft: Duration,
    pub(crate) hard: Duration,
    pub(crate) memory_mb: u64,
    /// Of the grading container and its students together.
    pub(crate) slot_memory_mb: u64,
    /// At a time.
    pub(crate) students_max: usize,
    /// Whether students may be looked into by ssh.
    pub(crate) ssh: bool,
}

/// A student container that may be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StudentSpec {
    pub(crate) environment: Environment,
    pub(crate) soft: Duration,
    pub(crate) hard: Duration,
    pub(crate) memory_mb: u64,
    pub(crate) share_network: bool,
    pub(crate) socket_id: String,
    pub(crate) ssh: bool,
}

#[derive(Debug)]
pub(super) struct Student {
    pub(super) spec: StudentSpec,
    pub(super) vessel: Vessel,
    /// The engine's id of it, when it was made.
    pub(super) container_id: Option<String>,
    pub(super) port: Holding,
    pub(super) mark: Option<Mark>,
    pub(super) told: bool,
}

/// Why there is no answer, or which.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("`{0}` is no name of a socket")]
    SocketId(String),
    #[error("there is a student container with this socket already")]
    Twice,
    #[error("no environment `{0}`")]
    Environment(String),
    #[error("nobody is root in there")]
    Root,
    #[error("nobody may look in by ssh")]
    Ssh,
    #[error("no more than {0} at a time")]
    TooMany(usize),
    #[error("{memory_mb} MB do not fit: {left_mb} MB of the slot are left")]
    Memory { memory_mb: u64, left_mb: u64 },
}

impl Rules {
    pub(super) fn check<'a>(
        &self,
        asked: &RunStudent,
        all: impl Iterator<Item = &'a Student> + Clone,
    ) -> Result<StudentSpec, Denied> {
        if !is_socket_id(&asked.socket_id) {
            return Err(Denied::SocketId(asked.socket_id.chars().take(40).collect()));
        }
        let live = all.clone().filter(|it| it.is_live());
        if live.clone().any(|it| it.spec.socket_id == asked.socket_id) {
            return Err(Denied::Twice);
        }
        let name = asked.environment.as_ref().unwrap_or(&self.environment);
        let environment = self.environments.get(&self.environment_type, name);
        let environment = environment.ok_or_else(|| Denied::Environment(name.clone()))?;
        if asked.run_as_root && !environment.run_as_root {
            return Err(Denied::Root);
        }
        if asked.ssh && !self.ssh {
            return Err(Denied::Ssh);
        }
        let is_full = live.clone().count() >= self.students_max;
        // Those that are being removed do not wait for one another.
        if is_full || all.count() >= self.students_max.saturating_mul(LEAVING_FACTOR) {
            return Err(Denied::TooMany(self.students_max));
        }
        let memory_mb = match asked.memory_mb {
            0 => self.memory_mb,
            asked => asked.clamp(MEMORY_MB_MIN.min(self.memory_mb), self.memory_mb),
        };
        let taken: u64 = self.memory_mb + live.map(|it| it.spec.memory_mb).sum::<u64>();
        let left_mb = self.slot_memory_mb.saturating_sub(taken);
        if memory_mb > left_mb {
            return Err(Denied::Memory { memory_mb, left_mb });
        }
        Ok(StudentSpec {
            environment: environment.clone(),
            soft: within(asked.time, self.soft),
            hard: within(asked.hard_time, self.hard),
            memory_mb,
            share_network: asked.share_network,
            socket_id: asked.socket_id.clone(),
            ssh: asked.ssh,
        })
    }
}

impl Student {
    /// Whether it has something that others could have.
    fn is_live(&self) -> bool {
        !self.told || self.vessel.may_run()
    }
}

/// It becomes a file's name.
fn is_socket_id(text: &str) -> bool {
    (1..=SOCKET_ID_BYTES_MAX).contains(&text.len())
        && !text.starts_with('.')
        && !text.contains(['/', '\\', ':', ','])
        && !text.chars().any(char::is_control)
}

/// None at all means what the parent has.
fn within(asked: Duration, parent: Duration) -> Duration {
    if asked.is_zero() { parent } else { asked.min(parent) }
}
