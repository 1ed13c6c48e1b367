//! Processor time and memory of one container, seen often.
//!
//! Read of the files of its cgroup; where they cannot be read, asked of the engine. Neither needs
//! the engine to be well once it was found.

mod cgroup;

use crate::job::core::{Event, Who};
use cgroup::Cgroup;
use futures_util::StreamExt;
use slotmux_docker::Engine;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::mpsc, time::sleep};

const APART_MAX: Duration = Duration::from_millis(150);
const APART_MIN: Duration = Duration::from_millis(10);
/// A container that has said its last word is gone in no time.
const EMPTY_APART_MIN: Duration = Duration::from_millis(1);
const EMPTY_APART_MAX: Duration = Duration::from_millis(20);
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Processor time in ns, as last seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct CpuSeen(Arc<AtomicU64>);

impl CpuSeen {
    pub(crate) fn get(&self) -> Option<Duration> {
        let ns = self.0.load(Ordering::Relaxed);
        (ns > 0).then(|| Duration::from_nanos(ns))
    }

    pub(crate) fn set(&self, seen: Duration) {
        let ns = u64::try_from(seen.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_max(ns, Ordering::Relaxed);
    }
}

pub(crate) struct Meter {
    pub(crate) engine: Engine,
    pub(crate) container_id: String,
    pub(crate) who: Who,
    /// Of processor time; what was used before does not count.
    pub(crate) limit: Duration,
    pub(crate) used_before: CpuSeen,
    /// Whether the agent has to end it when it is out of memory.
    pub(crate) ends_on_memory: bool,
    pub(crate) cpus: u32,
    pub(crate) seen: CpuSeen,
    pub(crate) news: mpsc::Sender<Event>,
}

/// What a container has used up to now, where that can be seen without asking.
pub(crate) fn cpu_now(container_id: &str) -> Option<Duration> {
    Cgroup::of_id(container_id)?.cpu()
}

/// As far as that can be had here: without it, a container goes on without what was killed.
pub(crate) fn end_as_one(container_id: &str) {
    if let Some(cgroup) = Cgroup::of_id(container_id)
        && let Err(error) = cgroup.end_as_one()
    {
        tracing::debug!(container = container_id, %error, "its processes do not end as one");
    }
}

/// `None`: that cannot be seen here, or it is gone.
pub(crate) fn has_processes(container_id: &str) -> Option<bool> {
    Some(Cgroup::of_id(container_id)?.has_processes())
}

/// Waits until no process is left. `false`: that cannot be seen here.
pub(crate) async fn emptied(container_id: &str) -> bool {
    let Some(cgroup) = Cgroup::of_id(container_id) else { return false };
    let mut apart = EMPTY_APART_MIN;
    while cgroup.has_processes() {
        sleep(apart).await;
        apart = (apart * 2).min(EMPTY_APART_MAX);
    }
    true
}

impl Meter {
    /// To the end of the container, or until one of its limits was met.
    pub(crate) async fn run(self) {
        if let Some(cgroup) = self.find().await {
            self.read(&cgroup).await;
        } else {
            tracing::debug!(container = self.container_id, "its cgroup is not to be seen here");
            self.ask().await;
        }
    }

    async fn find(&self) -> Option<Cgroup> {
        if let Some(cgroup) = Cgroup::of_id(&self.container_id) {
            return Some(cgroup);
        }
        // Once: it costs a request.
        let found = self.engine.find(&self.container_id).await.ok()??;
        Cgroup::of_process(found.pid?, &self.container_id)
    }

    async fn read(&self, cgroup: &Cgroup) {
        let mut memory_met = false;
        loop {
            let Some(cpu) = cgroup.cpu() else { return };
            if self.is_over(cpu) {
                return self.tell(Event::CpuUp(self.who)).await;
            }
            if self.ends_on_memory && !memory_met && cgroup.is_out_of_memory() {
                memory_met = true;
                self.tell(Event::MemoryUp(self.who)).await;
            }
            sleep(self.apart(cpu)).await;
        }
    }

    /// It cannot use up what is left before that, on all processors together.
    fn apart(&self, cpu: Duration) -> Duration {
        let left = (self.limit + self.before()).saturating_sub(cpu);
        (left / self.cpus.max(1)).clamp(APART_MIN, APART_MAX)
    }

    async fn ask(&self) {
        loop {
            match self.engine.watch_stats(&self.container_id).await {
                Ok(mut stats) => {
                    while let Some(Ok(stats)) = stats.next().await {
                        if self.is_over(Duration::from_nanos(stats.cpu_ns)) {
                            return self.tell(Event::CpuUp(self.who)).await;
                        }
                    }
                }
                Err(error) if error.is_not_found() => return,
                Err(error) => tracing::debug!(%error, "no statistics of a container"),
            }
            if self.news.is_closed() {
                return;
            }
            sleep(ASK_AGAIN).await;
        }
    }

    fn is_over(&self, cpu: Duration) -> bool {
        let used = cpu.saturating_sub(self.before());
        self.seen.set(used);
        used > self.limit
    }

    fn before(&self) -> Duration {
        self.used_before.get().unwrap_or_default()
    }

    async fn tell(&self, event: Event) {
        // Without a reader the job is over.
        let _ = self.news.send(event).await;
    }
}
