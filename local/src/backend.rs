//! The trait for local processes.

use crate::{
    LocalSettings,
    container::{self, Container, Found, lasts, log_end},
    exit,
    keeper::{Held, Keeper, Stage, remove_debris},
    layout::{self, ContainerDir},
};
use futures_util::future::BoxFuture;
use slotmux_backend::{
    Backend, BackendError, Cause, Diagnosis, Fact, Facts, LaunchSpec, Seen, Teller, chain,
};
use slotmux_protocol::ContainerId;
use std::{
    collections::HashMap,
    future::Future,
    io, path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    task::AbortHandle,
    time::{error::Elapsed, timeout},
};

/// How long a forced end and the removal of files may take before we say that we do not know.
const STOP_SLACK: Duration = Duration::from_secs(30);

/// Containers as child processes. Dropping it leaves them running.
#[derive(Debug)]
pub struct LocalBackend {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Arc<LocalSettings>,
    teller: Arc<Teller>,
    held: Mutex<HashMap<ContainerId, (Arc<Held>, AbortHandle)>>,
    /// Held by whoever starts or adopts, so that no name gets two processes.
    turn: tokio::sync::Mutex<()>,
}

impl LocalBackend {
    pub fn new(settings: LocalSettings) -> Self {
        // Containers run elsewhere, and a pool may change its directory.
        let absolute = |path: path::PathBuf| path::absolute(&path).unwrap_or(path);
        let settings = LocalSettings {
            program: absolute(settings.program),
            state_dir: absolute(settings.state_dir),
            ..settings
        };
        let shared = Shared {
            settings: Arc::new(settings),
            teller: Arc::default(),
            held: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Waits until the files of every container that ended are removed. To be called before the
    /// process ends; what it leaves, the next list of the pool removes.
    pub async fn settled(&self) {
        let ended: Vec<Arc<Held>> = {
            let held = self.shared.lock();
            let held = held.values().filter(|(held, _)| held.seen_now().is_none());
            held.map(|(held, _)| held.clone()).collect()
        };
        for held in ended {
            // A failure was logged where it happened.
            let _ = held.removed().await;
        }
    }
}

impl Drop for LocalBackend {
    fn drop(&mut self) {
        self.shared.teller.close();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for (_, keeper) in self.lock().values() {
            keeper.abort();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<ContainerId, (Arc<Held>, AbortHandle)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self, container: &ContainerId) -> Option<Arc<Held>> {
        self.lock().get(container).map(|(held, _)| held.clone())
    }

    async fn launch(self: Arc<Self>, spec: LaunchSpec) -> Result<(), BackendError> {
        let doing = format!("launch container `{}`", spec.container);
        let _turn = self.turn.lock().await;
        if self.runs_already(&spec, &doing).await? {
            return Ok(());
        }
        let settings = self.settings.clone();
        let started = blocking(move || {
            let dir = ContainerDir::new(&settings.state_dir, &spec.labels.pool, &spec.container)?;
            container::start(&settings, &spec, dir)
        });
        let container = started.await.map_err(|error| error.into_backend_error(doing.clone()))?;
        self.keep(container).map_err(|error| unavailable(&doing, error))?;
        Ok(())
    }

    /// Whether there is such a container. If it is ready, that is told again.
    async fn runs_already(
        self: &Arc<Self>,
        spec: &LaunchSpec,
        doing: &str,
    ) -> Result<bool, BackendError> {
        let mut held = self.held(&spec.container);
        if held.is_none() {
            held = self.adopt_by_name(&spec.container, doing).await?;
        }
        let Some(held) = held else { return Ok(false) };
        let stage = held.stage.borrow().clone();
        match stage {
            Stage::Starting => Ok(true),
            Stage::Ready(address) => {
                let container = spec.container.clone();
                self.teller.tell(Fact::Ready { container, address }).await;
                Ok(true)
            }
            Stage::Ended | Stage::Removed(_) => {
                let removed = within(STOP_SLACK, doing, held.removed()).await?;
                removed.map(|()| false).map_err(|why| unavailable(doing, why))
            }
        }
    }

    /// Finds a container that an earlier backend object started, in whatever pool.
    async fn adopt_by_name(
        self: &Arc<Self>,
        container: &ContainerId,
        doing: &str,
    ) -> Result<Option<Arc<Held>>, BackendError> {
        let settings = self.settings.clone();
        let name = container.clone();
        let found = blocking(move || layout::find(&settings.state_dir, &name)).await;
        match found.map_err(|error| state_dir_fault(doing, error))? {
            Some(dir) => self.adopt(dir).await.map_err(|error| unavailable(doing, error)),
            None => Ok(None),
        }
    }

    /// Takes over what is in `dir`: a living container is kept, debris is removed.
    async fn adopt(self: &Arc<Self>, dir: ContainerDir) -> Result<Option<Arc<Held>>, Cause> {
        let looked_at = dir.clone();
        match blocking(move || container::find(looked_at)).await? {
            Found::Alive(container) => Ok(Some(self.keep(*container)?)),
            Found::Dead(record) => {
                let log = log_end(&dir.log(), 4 << 10).unwrap_or_default();
                let name = record.map(|record| record.container);
                remove_debris(&self.settings, &dir, name.as_ref()).await?;
                if let Some(container) = name {
                    let exit = exit::of_unasked(None, &log);
                    tracing::warn!(%container, reason = exit.reason, "container found dead");
                    self.teller.tell(Fact::Gone { container, exit }).await;
                }
                Ok(None)
            }
        }
    }

    fn keep(self: &Arc<Self>, container: Container) -> io::Result<Arc<Held>> {
        let name = container.record.container.clone();
        let (keeper, held) = Keeper::new(self.settings.clone(), self.teller.clone(), container)?;
        let held = Arc::new(held);
        let shared = Arc::downgrade(self);
        let mut map = self.lock();
        let forget = {
            let name = name.clone();
            move || forget(&shared, &name)
        };
        let task = tokio::spawn(keeper.run(forget));
        map.insert(name, (held.clone(), task.abort_handle()));
        Ok(held)
    }

    async fn stop(
        self: Arc<Self>,
        container: ContainerId,
        grace: Duration,
    ) -> Result<(), BackendError> {
        let doing = format!("stop container `{container}`");
        let held = {
            let _turn = self.turn.lock().await;
            match self.held(&container) {
                Some(held) => Some(held),
                None => self.adopt_by_name(&container, &doing).await?,
            }
        };
        let Some(held) = held else { return Ok(()) };
        held.ask_to_stop(grace);
        let removed = within(grace + STOP_SLACK, &doing, held.removed()).await?;
        removed.map_err(|why| unavailable(&doing, why))
    }

    async fn list(self: Arc<Self>, pool: String) -> Result<Vec<Seen>, BackendError> {
        let doing = format!("list containers of pool `{pool}`");
        let _turn = self.turn.lock().await;
        let settings = self.settings.clone();
        let of_pool = pool.clone();
        let dirs = blocking(move || layout::of_pool(&settings.state_dir, &of_pool)).await;
        let held_dirs: Vec<ContainerDir> = self
            .lock()
            .keys()
            .filter_map(|name| ContainerDir::new(&self.settings.state_dir, &pool, name).ok())
            .collect();
        for dir in dirs.map_err(|error| state_dir_fault(&doing, error))? {
            if !held_dirs.contains(&dir)
                && let Err(error) = self.adopt(dir.clone()).await
            {
                // One that cannot be read must not hide the others.
                let path = dir.path().display();
                tracing::error!(%path, error = %chain(&*error), "container not adopted");
            }
        }
        let map = self.lock();
        let own = map.values().filter(|(held, _)| held.seen.labels.pool == pool);
        Ok(own.filter_map(|(held, _)| held.seen_now()).collect())
    }
}

fn forget(shared: &Weak<Shared>, name: &ContainerId) {
    if let Some(shared) = shared.upgrade() {
        shared.lock().remove(name);
    }
}

impl Backend for LocalBackend {
    fn name(&self) -> &'static str {
        "local"
    }

    fn launch(&self, spec: LaunchSpec) -> BoxFuture<'_, Result<(), BackendError>> {
        let doing = format!("launch container `{}`", spec.container);
        to_the_end(doing, self.shared.clone().launch(spec))
    }

    fn stop<'a>(
        &'a self,
        container: &'a ContainerId,
        grace: Duration,
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        let doing = format!("stop container `{container}`");
        to_the_end(doing, self.shared.clone().stop(container.clone(), grace))
    }

    fn list<'a>(&'a self, pool: &'a str) -> BoxFuture<'a, Result<Vec<Seen>, BackendError>> {
        let doing = format!("list containers of pool `{pool}`");
        to_the_end(doing, self.shared.clone().list(pool.to_owned()))
    }

    fn facts(&self) -> Facts {
        self.shared.teller.subscribe()
    }

    fn logs<'a>(
        &'a self,
        container: &'a ContainerId,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<String, BackendError>> {
        let doing = format!("read logs of container `{container}`");
        let (settings, container) = (self.shared.settings.clone(), container.clone());
        Box::pin(async move {
            let read = blocking(move || {
                let dir = layout::find(&settings.state_dir, &container)?;
                dir.map(|dir| log_end(&dir.log(), bytes_max)).transpose()
            });
            let log = read.await.map_err(|error| unavailable(&doing, error))?;
            let source = "there is no such container".into();
            log.ok_or(BackendError::Refused { doing, source })
        })
    }

    fn diagnose(&self) -> BoxFuture<'_, Diagnosis> {
        let settings = self.shared.settings.clone();
        Box::pin(blocking(move || crate::diagnose::look(&settings)))
    }
}

/// Runs `work` to its end even if its caller goes away.
fn to_the_end<T: Send + 'static>(
    doing: String,
    work: impl Future<Output = Result<T, BackendError>> + Send + 'static,
) -> BoxFuture<'static, Result<T, BackendError>> {
    Box::pin(async move {
        let joined = tokio::spawn(work).await;
        joined.unwrap_or_else(|error| Err(BackendError::Unknown { doing, source: error.into() }))
    })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down, and nobody polls us again.
            Err(_cancelled) => std::future::pending().await,
        },
    }
}

async fn within<T>(
    limit: Duration,
    doing: &str,
    work: impl Future<Output = T>,
) -> Result<T, BackendError> {
    timeout(limit, work).await.map_err(|elapsed: Elapsed| BackendError::Unknown {
        doing: doing.to_owned(),
        source: elapsed.into(),
    })
}

fn unavailable(doing: &str, source: impl Into<Cause>) -> BackendError {
    BackendError::Unavailable { doing: doing.to_owned(), source: source.into() }
}

fn state_dir_fault(doing: &str, error: io::Error) -> BackendError {
    if lasts(error.kind()) {
        BackendError::Refused { doing: doing.to_owned(), source: error.into() }
    } else {
        unavailable(doing, error)
    }
}
