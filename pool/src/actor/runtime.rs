//! Containers and their links: the side of the pool that waits, in tasks that report back.

use super::{News, TellNews};
use crate::{
    config::PoolConfig,
    core::{ContainerKey, Retry},
    link::{Link, LinkIdentity},
};
use slotmux_backend::{Address, Backend, BackendError, Fact, Labels, LaunchSpec, Phase};
use slotmux_protocol::{ContainerId, Isolation};
use std::{collections::HashMap, error::Error, sync::Arc, time::Duration};

const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How often an unanswered launch is looked up before it counts as failed.
const LOOKUPS_MAX: u32 = 5;

pub(super) struct Containers {
    config: Arc<PoolConfig>,
    backend: Arc<dyn Backend>,
    runtime: tokio::runtime::Handle,
    news: TellNews,
    generation: u64,
    linked: HashMap<ContainerKey, Linked>,
}

struct Linked {
    link: Link,
    address: Address,
    isolation: Option<Isolation>,
}

impl Containers {
    pub(super) fn new(
        config: Arc<PoolConfig>,
        backend: Arc<dyn Backend>,
        runtime: tokio::runtime::Handle,
        news: TellNews,
        generation: u64,
    ) -> Self {
        Self { config, backend, runtime, news, generation, linked: HashMap::new() }
    }

    pub(super) fn link(&self, key: ContainerKey) -> Option<&Link> {
        self.linked.get(&key).map(|linked| &linked.link)
    }

    /// Where it answers, and how its slots are kept apart, as far as that is known.
    pub(super) fn describe(&self, key: ContainerKey) -> (String, Option<Isolation>) {
        self.linked.get(&key).map_or_else(
            || (String::new(), None),
            |linked| (linked.address.authority.clone(), linked.isolation),
        )
    }

    pub(super) fn met(&mut self, key: ContainerKey, isolation: Isolation) {
        if let Some(linked) = self.linked.get_mut(&key) {
            linked.isolation = Some(isolation);
        }
    }

    /// The container is ready at `address`. Told twice, nothing changes.
    pub(super) fn dial(&mut self, key: ContainerKey, id: ContainerId, address: Address) {
        if let Some(linked) = self.linked.get(&key) {
            if linked.address == address {
                return;
            }
            linked.link.close("the container has another address");
        }
        let news = Arc::clone(&self.news);
        let tell = Arc::new(move |told| news(News::Link { container: key, news: told }));
        let identity = LinkIdentity { pool: self.config.name.clone(), generation: self.generation };
        // The link lives on the process's runtime, not on the actor's thread.
        let _runtime = self.runtime.enter();
        let link = Link::dial(id, address.clone(), identity, self.config.heartbeat, tell);
        self.linked.insert(key, Linked { link, address, isolation: None });
    }

    pub(super) fn forget(&mut self, key: ContainerKey, why: &str) {
        if let Some(linked) = self.linked.remove(&key) {
            linked.link.close(why);
        }
    }

    pub(super) fn launch(&self, key: ContainerKey, id: ContainerId, profile: usize) {
        let profile = &self.config.profiles[profile];
        let spec = LaunchSpec {
            container: id,
            labels: Labels {
                pool: self.config.name.clone(),
                generation: self.generation,
                profile: profile.name.clone(),
            },
            slots: profile.slots_per_container,
            isolation_min: profile.isolation_min,
            root: profile.root,
            network: profile.network,
            slot_limits: profile.slot_limits,
            lifetime: profile.container_lifetime,
            orphaned_after: profile.orphaned_after,
        };
        let (backend, news) = (Arc::clone(&self.backend), Arc::clone(&self.news));
        let mut report = Report { key, news: Some(Arc::clone(&news)) };
        self.runtime.spawn(async move {
            match launch(&*backend, spec, &news).await {
                Ok(()) => report.done(),
                Err((retry, why)) => report.fail(retry, why),
            }
        });
    }

    /// Tried until it is done: what runs on unwatched costs its owner.
    pub(super) fn stop(&mut self, key: Option<ContainerKey>, id: ContainerId) {
        let grace = self.config.stop_grace;
        if let Some(linked) = key.and_then(|key| self.linked.remove(&key)) {
            linked.link.shutdown(grace);
            linked.link.close("the container is being stopped");
        }
        let (backend, news) = (Arc::clone(&self.backend), Arc::clone(&self.news));
        self.runtime.spawn(async move {
            let mut pause = RETRY_MIN;
            while let Err(error) = backend.stop(&id, grace).await {
                tracing::warn!(error = chain(&error), container = %id, "container not stopped");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
            news(News::Stopped { container: id });
        });
    }
}

/// A launch task that ends without a word, such as by a panic, has failed.
struct Report {
    key: ContainerKey,
    news: Option<TellNews>,
}

impl Report {
    fn done(mut self) {
        self.news = None;
    }

    fn fail(&mut self, retry: Retry, why: String) {
        if let Some(news) = self.news.take() {
            news(News::LaunchFailed { container: self.key, retry, why });
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.fail(Retry::Later, "the launch was not finished".to_owned());
    }
}

async fn launch(
    backend: &dyn Backend,
    spec: LaunchSpec,
    news: &TellNews,
) -> Result<(), (Retry, String)> {
    let (id, pool) = (spec.container.clone(), spec.labels.pool.clone());
    let error = match backend.launch(spec).await {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let why = chain(&error);
    tracing::warn!(error = why, container = %id, "container not launched");
    match error {
        BackendError::Refused { .. } => Err((Retry::Never, why)),
        BackendError::Unavailable { .. } => Err((Retry::Later, why)),
        BackendError::Unknown { .. } => look_up(backend, &pool, &id, news, why).await,
    }
}

/// The launch may have taken effect: the runtime's list decides.
async fn look_up(
    backend: &dyn Backend,
    pool: &str,
    id: &ContainerId,
    news: &TellNews,
    why: String,
) -> Result<(), (Retry, String)> {
    let mut pause = RETRY_MIN;
    for _ in 0..LOOKUPS_MAX {
        if let Ok(list) = backend.list(pool).await {
            let Some(seen) = list.into_iter().find(|seen| seen.container == *id) else {
                return Err((Retry::Later, why));
            };
            if let Phase::Ready(address) = seen.phase {
                news(News::Fact(Fact::Ready { container: id.clone(), address }));
            }
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
    // Nobody can say. What we cannot see we do not keep.
    if let Err(error) = backend.stop(id, Duration::ZERO).await {
        tracing::error!(error = chain(&error), container = %id, "container may have been left");
    }
    Err((Retry::Later, why))
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
