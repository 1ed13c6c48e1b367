//! What a door needs of an agent, so that it can be tested without an engine.

#[cfg(test)]
pub(crate) mod fake;

use crate::{AgentHandle, Environments, JobFollower, JobId, JobOrder, Kill, Refused, Slots};
use tokio::sync::watch;

pub(crate) trait Jobs: Clone + Send + Sync + 'static {
    fn submit(&self, order: JobOrder) -> Result<JobFollower, Refused>;
    fn kill(&self, id: &JobId) -> Kill;
    fn environments(&self) -> watch::Receiver<Environments>;
    fn slots(&self) -> watch::Receiver<Slots>;
}

impl Jobs for AgentHandle {
    fn submit(&self, order: JobOrder) -> Result<JobFollower, Refused> {
        self.submit(order)
    }

    fn kill(&self, id: &JobId) -> Kill {
        self.kill(id)
    }

    fn environments(&self) -> watch::Receiver<Environments> {
        self.environments()
    }

    fn slots(&self) -> watch::Receiver<Slots> {
        self.slots()
    }
}
