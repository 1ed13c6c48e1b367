//! One job's news, for any number of followers, whenever they begin.

use crate::{JobDone, JobId};
use std::sync::Arc;
use tokio::sync::watch;

#[derive(Debug, Clone)]
pub enum JobNews {
    /// It has a slot.
    Started,
    /// Somebody may look in. At most once.
    SshDebug(SshDebug),
    /// Nothing comes after this.
    Done(Arc<JobDone>),
}

#[derive(Clone, PartialEq, Eq)]
pub struct SshDebug {
    pub host: String,
    pub port: u16,
    pub user: String,
    /// Or key.
    pub password: String,
}

impl std::fmt::Debug for SshDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port, user, password: _ } = self;
        write!(f, "SshDebug({user}@{host}:{port})")
    }
}

/// What is known of a job. It only ever grows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(crate) started: bool,
    pub(crate) ssh: Option<SshDebug>,
    pub(crate) done: Option<Arc<JobDone>>,
}

/// Tells each piece of news once, from the beginning. Two clones tell them each on their own.
#[derive(Debug, Clone)]
pub struct JobFollower {
    id: JobId,
    known: watch::Receiver<Known>,
    told_started: bool,
    told_ssh: bool,
    told_done: bool,
}

impl JobFollower {
    pub(crate) fn new(id: JobId, known: watch::Receiver<Known>) -> Self {
        Self { id, known, told_started: false, told_ssh: false, told_done: false }
    }

    pub fn id(&self) -> &JobId {
        &self.id
    }

    /// `None` after the end. Cancel-safe: what was not returned is told by the next call.
    pub async fn next(&mut self) -> Option<JobNews> {
        while !self.told_done {
            if let Some(news) = self.untold() {
                return Some(news);
            }
            self.known.changed().await.ok()?;
        }
        None
    }

    /// Skips to the end. `None`: the agent went away before.
    pub async fn done(mut self) -> Option<Arc<JobDone>> {
        let known = self.known.wait_for(|known| known.done.is_some()).await.ok()?;
        known.done.clone()
    }

    fn untold(&mut self) -> Option<JobNews> {
        let known = self.known.borrow_and_update().clone();
        if known.started && !self.told_started {
            self.told_started = true;
            return Some(JobNews::Started);
        }
        if let (Some(ssh), false) = (known.ssh, self.told_ssh) {
            self.told_ssh = true;
            return Some(JobNews::SshDebug(ssh));
        }
        let done = known.done?;
        self.told_done = true;
        Some(JobNews::Done(done))
    }
}
