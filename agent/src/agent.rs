//! The agent as doors see it: jobs go in, and each comes out once.
//!
//! Invariant: what a job comes to is told to whoever follows it, now or later; no door is waited
//! for, and none that goes away takes a job with it.

mod follow;

pub use follow::{JobFollower, JobNews, SshDebug};

use crate::{Environments, JobId, JobOrder, Settings};
use tokio::sync::watch;

/// Starts an agent.
#[derive(Debug)]
pub struct Agent;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct AgentHandle {
    environments: watch::Sender<Environments>,
    slots: watch::Sender<Slots>,
}

/// Jobs that can be run at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slots {
    pub total: u16,
    /// Not taken at this moment.
    pub free: u16,
    /// Jobs that wait for one.
    pub waiting: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("make the agent's directory")]
    Dir(#[source] std::io::Error),
}

/// Why a job was not taken. It leaves no trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("job `{0}` is known already")]
    Known(JobId),
    #[error("too many jobs wait already")]
    Full,
    #[error("the agent is shutting down")]
    ShuttingDown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    /// Its follower will hear of it.
    Asked,
    /// It is done, or never was: the door answers by itself.
    Unknown,
}

impl Agent {
    /// Adopts what an agent of this name has left. The engine may be down.
    pub async fn start(settings: Settings) -> Result<AgentHandle, StartError> {
        let (environments, _) = watch::channel(Environments::default());
        let total = settings.concurrency;
        let (slots, _) = watch::channel(Slots { total, free: total, waiting: 0 });
        Ok(AgentHandle { environments, slots })
    }
}

impl AgentHandle {
    /// It waits for a slot, in the order of priorities, and then runs.
    pub fn submit(&self, order: JobOrder) -> Result<JobFollower, Refused> {
        Err(Refused::Known(order.id))
    }

    pub fn kill(&self, _id: &JobId) -> Kill {
        Kill::Unknown
    }

    /// `None`: it is done, or never was.
    pub fn follow(&self, _id: &JobId) -> Option<JobFollower> {
        None
    }

    /// Jobs of the agent before this one that go on, or whose end was found. Handed out once.
    pub fn take_adopted(&self) -> Vec<JobFollower> {
        Vec::new()
    }

    pub fn environments(&self) -> watch::Receiver<Environments> {
        self.environments.subscribe()
    }

    pub fn slots(&self) -> watch::Receiver<Slots> {
        self.slots.subscribe()
    }

    /// Takes no more jobs, kills those that run, and returns when nothing of them is left, or after
    /// a minute.
    pub async fn shutdown(&self) {}
}
