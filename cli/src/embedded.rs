//! A pool in this process, for as long as this process.
//!
//! Invariant: when it is stopped, its containers and files are gone.

use crate::{
    backends::Running, fault::Fault, replay::target::Target, scratch::Scratch, settings::Settings,
    stop::Signals,
};
use slotmux_pool::{Pool, PoolHandle, Shutdown};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// How long containers may fail to start before we give up: a single failure may pass.
const TROUBLE_MAX: Duration = Duration::from_secs(3);
const START_MAX: Duration = Duration::from_secs(90);
const LOOKS_APART: Duration = Duration::from_millis(5);

pub(crate) struct Embedded {
    pool: PoolHandle,
    backend: Running,
    /// Last: the containers' files are in it.
    _scratch: Scratch,
}

impl Embedded {
    /// Returns when a container is ready. The state of `settings` is in `scratch`.
    pub(crate) async fn start(
        settings: Settings,
        scratch: Scratch,
        signals: &mut Signals,
    ) -> Result<Self, Fault> {
        let backend = Running::start(settings.backend, &settings.state_dir)?;
        let pool = Pool::start(settings.pool, backend.backend())
            .await
            .map_err(|error| Fault::because("start the pool", &error))?;
        let embedded = Self { pool, backend, _scratch: scratch };
        let ready = tokio::select! {
            ready = embedded.ready() => ready,
            signal = signals.next() => {
                Err(Fault::failed(format!("ended by {signal}")).exit(crate::fault::INTERRUPTED))
            }
        };
        match ready {
            Ok(()) => Ok(embedded),
            Err(fault) => {
                embedded.stop().await;
                Err(fault)
            }
        }
    }

    pub(crate) fn target(&self) -> Target {
        Target::Embedded(Arc::new(self.pool.clone()))
    }

    /// Whether slots see the executables of this machine.
    pub(crate) fn slots_are_here(&self) -> bool {
        self.backend.slots_are_here()
    }

    pub(crate) async fn stop(self) {
        self.pool.shutdown(Shutdown::StopContainers).await;
        self.backend.settled().await;
    }

    async fn ready(&self) -> Result<(), Fault> {
        let started = Instant::now();
        let mut in_trouble_since = None;
        loop {
            let status = self.pool.status().await;
            let status = status.map_err(|problem| Fault::failed(format!("the pool: {problem}")))?;
            if status.profiles.values().any(|it| it.containers.ready > 0) {
                return Ok(());
            }
            let trouble = status.profiles.values().find_map(|it| it.trouble.clone());
            match trouble {
                Some(why) => {
                    let since = *in_trouble_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > TROUBLE_MAX {
                        return Err(no_container(&why));
                    }
                }
                None => in_trouble_since = None,
            }
            if started.elapsed() > START_MAX {
                return Err(no_container("none was ready in time"));
            }
            sleep(LOOKS_APART).await;
        }
    }
}

fn no_container(why: &str) -> Fault {
    Fault::failed(format!("no container starts: {why}"))
        .hint("`slotmux doctor` says what this machine offers")
}
