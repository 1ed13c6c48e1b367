//! The agent as doors see it: jobs go in, and each comes out once.
//!
//! Invariant: what a job comes to is told to whoever follows it, now or later; no door is waited
//! for, and none that goes away takes a job with it.

mod adopt;
mod book;
mod follow;
mod sweep;

pub(crate) use follow::Known;
pub use follow::{JobFollower, JobNews, SshDebug};

use crate::{
    Environments, JobId, JobOrder, Settings,
    containers::open_files,
    discovery::{self, Discovery},
    hub::{self, Hub},
    job::run::{KillAsked, Refusal, killed, run},
    ports::Ports,
    shared::{Shared, jobs_dir},
    store::Store,
    warm::{self, Warm},
};
use book::{Book, Seat};
use rustix::{
    fs::{FlockOperation, flock},
    process::{Resource, getrlimit},
};
use slotmux_docker::Engine;
use std::{
    fs::{DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{runtime::Handle, sync::watch, task::AbortHandle, time::timeout};

/// For everything to be gone.
const SHUTDOWN_MAX: Duration = Duration::from_mins(1);

/// Starts an agent.
#[derive(Debug)]
pub struct Agent;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct AgentHandle {
    shared: Arc<Shared>,
    book: Arc<Book>,
    adopted: Arc<Mutex<Vec<JobFollower>>>,
    /// Doors need not be on it.
    runtime: Handle,
    _background: Arc<Background>,
}

/// Ends it with the last handle.
#[derive(Debug)]
struct Background(Vec<AbortHandle>);

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
    #[error("the agent's directory")]
    Dir(#[source] io::Error),
    #[error("another agent works in this directory")]
    Taken,
    #[error("an agent's directory is absolute and has no colon in its name")]
    DirName,
    #[error("an agent has at least one slot")]
    NoSlots,
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
    /// Adopts what an agent of this name has left. The engine may be down. Called in a runtime.
    ///
    /// # Errors
    ///
    /// If the settings cannot be met, or the directory is not to be had.
    pub async fn start(settings: Settings) -> Result<AgentHandle, StartError> {
        if settings.concurrency == 0 {
            return Err(StartError::NoSlots);
        }
        // Engines take a colon for the end of a path.
        let is_plain = settings.dir.to_str().is_some_and(|it| !it.contains(':'));
        if !settings.dir.is_absolute() || !is_plain {
            return Err(StartError::DirName);
        }
        let opened = tokio::task::spawn_blocking(move || {
            let shared = Arc::new(open(settings)?);
            let book = Book::new(shared.settings.concurrency);
            let entered = adopt::enter(&shared, &book).map_err(StartError::Dir)?;
            Ok((shared, book, entered))
        });
        let opened = opened.await.map_err(|error| StartError::Dir(io::Error::other(error)))?;
        let (shared, book, (left, adopted)) = opened?;
        let feed = shared.engine.events(hub::selector(&shared.settings.owner));
        let images = shared.engine.image_events();
        let (hub, discovery) = (Arc::downgrade(&shared.hub), Arc::downgrade(&shared.discovery));
        let background = [
            tokio::spawn(hub::listen(hub, shared.engine.clone(), feed)).abort_handle(),
            tokio::spawn(discovery::follow(discovery, images)).abort_handle(),
            tokio::spawn(adopt::run(shared.clone(), left)).abort_handle(),
            tokio::spawn(warm::keep(shared.clone())).abort_handle(),
            tokio::spawn(sweep::run(Arc::downgrade(&shared))).abort_handle(),
        ];
        Ok(AgentHandle {
            shared,
            book,
            adopted: Arc::new(Mutex::new(adopted)),
            runtime: Handle::current(),
            _background: Arc::new(Background(background.into())),
        })
    }
}

/// Everything that needs no engine.
fn open(settings: Settings) -> Result<Shared, StartError> {
    // Other accounts of the machine neither list jobs nor look into them.
    for dir in [settings.dir.clone(), jobs_dir(&settings)] {
        DirBuilder::new().recursive(true).mode(0o711).create(&dir).map_err(StartError::Dir)?;
    }
    let lock = File::create(settings.dir.join("lock")).map_err(StartError::Dir)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| StartError::Taken)?;
    let store = Store::open(settings.dir.join("state")).map_err(StartError::Dir)?;
    let engine = Engine::new(settings.engine.as_deref());
    let own = getrlimit(Resource::Nofile).current;
    Ok(Shared {
        hub: Arc::new(Hub::default()),
        warm: Warm::new(settings.warm),
        ports: Ports::new(settings.ports.clone()),
        store,
        discovery: Arc::new(Discovery::new(engine.clone(), &settings)),
        disk: Shared::disk_workers(),
        open_files: open_files(own, settings.concurrency),
        runs: Mutex::default(),
        is_settled: watch::channel(false).0,
        _lock: lock,
        engine,
        settings,
    })
}

impl AgentHandle {
    /// It waits for a slot, in the order of priorities, and then runs.
    ///
    /// # Errors
    ///
    /// If it is not taken; then nothing is done.
    pub fn submit(&self, order: JobOrder) -> Result<JobFollower, Refused> {
        let mut seat = Book::enter(&self.book, &order)?;
        let follower = JobFollower::new(order.id.clone(), seat.known().subscribe());
        let shared = self.shared.clone();
        self.runtime.spawn(async move {
            seat.answered_by(Refusal::of(&order.kind));
            let mut kill = seat.kill();
            if seat.slot(&mut kill).await {
                seat.begin();
                run(shared, order, seat.known(), kill).await;
            } else {
                Refusal::of(&order.kind).killed(&seat.known());
            }
        });
        Ok(follower)
    }

    pub fn kill(&self, id: &JobId) -> Kill {
        self.book.kill(id)
    }

    /// `None`: it is done, or never was.
    pub fn follow(&self, id: &JobId) -> Option<JobFollower> {
        let known = self.book.known(id)?;
        Some(JobFollower::new(id.clone(), known))
    }

    /// Jobs of the agent before this one that go on, or whose end was found. Handed out once.
    pub fn take_adopted(&self) -> Vec<JobFollower> {
        std::mem::take(&mut *self.adopted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn environments(&self) -> watch::Receiver<Environments> {
        self.shared.discovery.environments()
    }

    pub fn slots(&self) -> watch::Receiver<Slots> {
        self.book.slots()
    }

    /// Takes no more jobs, kills those that run, and returns when nothing of them is left, or after
    /// a minute.
    pub async fn shutdown(&self) {
        self.book.close();
        self.shared.warm.close();
        let empty = async {
            self.book.empty().await;
            warm::clear(&self.shared).await;
        };
        if timeout(SHUTDOWN_MAX, empty).await.is_err() {
            tracing::warn!("jobs are left behind, for the next agent to clear away");
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}
