//! A pool in this process, for as long as this process.
//!
//! Invariant: when it is stopped, its containers and files are gone.

use crate::{
    fault::Fault, replay::target::Target, scratch::Scratch, settings::ProfileOptions, stop::Signals,
};
use slotmux_local::{LocalBackend, LocalSettings};
use slotmux_pool::{Pool, PoolConfig, PoolHandle, ProfileConfig, Shutdown};
use slotmux_protocol::ProfileName;
use std::{collections::BTreeSet, env, io, path::PathBuf, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// A pool that was killed leaves containers behind; they end by themselves after this long.
const ORPHANED_AFTER: Duration = Duration::from_secs(30);

/// How long containers may fail to start before we give up: a single failure may pass.
const TROUBLE_MAX: Duration = Duration::from_secs(3);
const START_MAX: Duration = Duration::from_secs(90);
const LOOKS_APART: Duration = Duration::from_millis(5);

pub(crate) struct Embedded {
    pool: PoolHandle,
    backend: Arc<LocalBackend>,
    /// Last: the containers' files are in it.
    _scratch: Scratch,
}

impl Embedded {
    /// Returns when a container is ready. Each name is a profile of its own.
    pub(crate) async fn start(
        profile: &ProfileOptions,
        names: impl Iterator<Item = ProfileName>,
        signals: &mut Signals,
    ) -> Result<Self, Fault> {
        let scratch = Scratch::new("replay")?;
        let backend = Arc::new(LocalBackend::new(LocalSettings {
            program: own_program()?,
            args_before: vec!["sandbox-server".into()],
            state_dir: scratch.path().join("state"),
        }));
        let config = PoolConfig::new("replay", profiles(profile, names)?);
        let pool = Pool::start(config, backend.clone())
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

fn profiles(
    options: &ProfileOptions,
    names: impl Iterator<Item = ProfileName>,
) -> Result<Vec<ProfileConfig>, Fault> {
    let mut names: BTreeSet<ProfileName> = names.collect();
    if names.is_empty() {
        let default = ProfileName::new("default");
        names.insert(default.map_err(|error| Fault::because("name the profile", &error))?);
    }
    let profile = |name| ProfileConfig { orphaned_after: ORPHANED_AFTER, ..options.config(name) };
    Ok(names.into_iter().map(profile).collect())
}

fn no_container(why: &str) -> Fault {
    Fault::failed(format!("no container starts: {why}"))
        .hint("`slotmux doctor` says what this machine offers")
}

/// This very executable, to be started as a container.
pub(crate) fn own_program() -> Result<PathBuf, Fault> {
    let program = env::current_exe().and_then(|path| {
        // Replaced while it runs, as by an upgrade; the name has ` (deleted)` at its end.
        if path.exists() { Ok(path) } else { Err(io::ErrorKind::NotFound.into()) }
    });
    program.map_err(|error| Fault::because("find the own executable", &error))
}
