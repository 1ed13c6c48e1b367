//! What all jobs of an agent have in common.

use crate::{
    Environments, Settings, discovery::Discovery, hub::Hub, images::Facts, names::Run,
    ports::Ports, store::Store, warm::Warm,
};
use slotmux_docker::Engine;
use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};

/// Copies and removals of folders at a time: more of them only wait for the disk.
const DISK_WORKERS: usize = 4;

/// An engine that is away at the start may come back by this.
const FACTS_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) engine: Engine,
    pub(crate) hub: Arc<Hub>,
    pub(crate) ports: Ports,
    pub(crate) store: Store,
    pub(crate) warm: Warm,
    pub(crate) discovery: Arc<Discovery>,
    pub(crate) disk: Semaphore,
    /// Of a container: its share of the agent's open files.
    pub(crate) open_files: i64,
    /// Whose containers are nobody's orphans.
    pub(crate) runs: Mutex<HashSet<Run>>,
    /// Whether jobs may begin.
    pub(crate) is_settled: watch::Sender<bool>,
    /// Held as long as the agent lives.
    pub(crate) _lock: std::fs::File,
}

impl Shared {
    /// When what was left of before is cleared away. `None`: the engine has not answered yet.
    pub(crate) async fn facts(&self) -> Option<Arc<Facts>> {
        let mut settled = self.is_settled.subscribe();
        timeout(FACTS_MAX, settled.wait_for(|it| *it)).await.ok()?.ok()?;
        self.facts_known().await
    }

    /// However long it takes.
    pub(crate) async fn facts_ever(&self) -> Option<Arc<Facts>> {
        // Its sender is here.
        self.is_settled.subscribe().wait_for(|it| *it).await.ok()?;
        self.facts_known().await
    }

    pub(crate) async fn facts_known(&self) -> Option<Arc<Facts>> {
        let mut facts = self.discovery.facts();
        let known = timeout(FACTS_MAX, facts.wait_for(Option::is_some)).await.ok()?.ok()?;
        known.clone()
    }

    pub(crate) fn environments(&self) -> Environments {
        self.discovery.environments().borrow().clone()
    }

    pub(crate) fn runs(&self) -> MutexGuard<'_, HashSet<Run>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn jobs_dir(&self) -> PathBuf {
        jobs_dir(&self.settings)
    }

    /// Memory that a job may have, with all its containers.
    pub(crate) fn slot_memory_mb(&self, facts: &Facts) -> u64 {
        facts.memory_mb / u64::from(self.settings.concurrency.max(1))
    }

    /// On a thread for it, in its turn.
    pub(crate) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        // The semaphore is never closed.
        let _turn = self.disk.acquire().await;
        tokio::task::spawn_blocking(work).await
    }

    pub(crate) fn disk_workers() -> Semaphore {
        Semaphore::new(DISK_WORKERS)
    }
}

pub(crate) fn jobs_dir(settings: &Settings) -> PathBuf {
    settings.dir.join("jobs")
}
