//! Keeps the list of environments true.
//!
//! Invariant: an image that is there is found: by the engine's events, by a look now and then, and
//! when a job asks for what is not known.

use crate::{
    Environments, Runtime, Settings,
    containers::CgroupVersion,
    images::{self, Facts},
};
use bollard::models::SystemInfoCgroupVersionEnum;
use slotmux_docker::{Engine, EngineError, NewsFeed};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep, timeout},
};

const LOOK_EVERY: Duration = Duration::from_mins(1);
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(200);
/// Whoever asks for what is not there does not make us ask the engine more often than this.
const APART_MIN: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Discovery {
    engine: Engine,
    named: Vec<Runtime>,
    ssh: bool,
    facts: watch::Sender<Option<Arc<Facts>>>,
    environments: watch::Sender<Environments>,
    last: Mutex<Option<Instant>>,
}

impl Discovery {
    pub(crate) fn new(engine: Engine, settings: &Settings) -> Self {
        Self {
            engine,
            named: settings.runtimes.clone(),
            ssh: settings.ssh,
            facts: watch::channel(None).0,
            environments: watch::channel(Environments::default()).0,
            last: Mutex::new(None),
        }
    }

    pub(crate) fn facts(&self) -> watch::Receiver<Option<Arc<Facts>>> {
        self.facts.subscribe()
    }

    pub(crate) fn environments(&self) -> watch::Receiver<Environments> {
        self.environments.subscribe()
    }

    /// Unless that was just done.
    pub(crate) async fn look(&self) -> Result<(), EngineError> {
        let mut last = self.last.lock().await;
        if last.is_some_and(|it| it.elapsed() < APART_MIN) {
            return Ok(());
        }
        let known = self.facts.borrow().clone();
        let facts = if let Some(facts) = known {
            facts
        } else {
            let facts = Arc::new(self.ask().await?);
            self.facts.send_replace(Some(facts.clone()));
            facts
        };
        let listed = self.engine.images_with_label(images::NAME).await?;
        let found = images::environments(&listed, &facts.runtimes);
        self.environments.send_if_modified(|known| {
            let is_new = *known != found;
            if is_new {
                let names: Vec<_> = found.0.values().flat_map(|it| it.keys()).collect();
                tracing::info!(?names, "environments found");
                *known = found;
            }
            is_new
        });
        *last = Some(Instant::now());
        Ok(())
    }

    async fn ask(&self) -> Result<Facts, EngineError> {
        let info = self.engine.info().await?;
        let names: Vec<String> = info.runtimes.unwrap_or_default().into_keys().collect();
        let runtimes = if self.named.is_empty() {
            images::runtimes(&names, info.default_runtime.as_deref(), self.ssh)
        } else {
            self.named.clone()
        };
        let cgroup = match info.cgroup_version {
            Some(SystemInfoCgroupVersionEnum::_2) => CgroupVersion::V2,
            _ => CgroupVersion::V1,
        };
        Ok(Facts {
            cgroup,
            memory_mb: u64::try_from(info.mem_total.unwrap_or(0)).unwrap_or(0) >> 20,
            cpus: u32::try_from(info.ncpu.unwrap_or(1)).unwrap_or(1),
            runtimes,
        })
    }
}

/// To the end of the agent.
pub(crate) async fn follow(discovery: Weak<Discovery>, mut feed: NewsFeed) {
    let mut again = LOOK_AGAIN_MIN;
    let mut is_away = false;
    loop {
        let Some(it) = discovery.upgrade() else { return };
        let looked = it.look().await;
        drop(it);
        match looked {
            Ok(()) => {
                again = LOOK_AGAIN_MIN;
                is_away = false;
                // Whatever is told, all are looked at.
                let _ = timeout(LOOK_EVERY, feed.next()).await;
                // Of many at once, the last ones are looked at together.
                sleep(APART_MIN).await;
            }
            Err(error) => {
                if !is_away {
                    let why = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, why, "images not listed");
                }
                is_away = true;
                sleep(again).await;
                again = (again * 2).min(LOOK_EVERY);
            }
        }
    }
}
