//! The pool as others see it.
//!
//! Invariant: every request is answered, also when the actor has died; a request that is dropped
//! half-way leaves nothing behind.

#[cfg(test)]
mod tests;

use crate::{
    actor::{self, Clock, Mailbox, Order, Parts, Shell, WeakMailbox},
    api::Leases,
    config::{ConfigFaults, PoolConfig},
    core::{Closing, Recovered, WaiterId},
    journal::{JournalError, ReadJournal, Written},
    routes::Routes,
};
use futures_util::future::BoxFuture;
use slotmux_backend::{Backend, BackendError, Facts};
use slotmux_protocol::{Code, LeaseId, Problem, TrajectoryId, v1};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Semaphore, broadcast, oneshot};
use tokio_util::sync::CancellationToken;

/// How long a shutdown waits for containers to end.
const SHUTDOWN_MAX: Duration = Duration::from_mins(1);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the pool's configuration has faults: {0}")]
    Config(ConfigFaults),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("find the containers of an earlier run")]
    List { source: BackendError },
    #[error("start the pool's thread")]
    Thread { source: std::io::Error },
    #[error("the pool ended while it was starting")]
    Ended,
}

/// What becomes of the containers at a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// They and their leases go on, for the next pool of this name.
    KeepContainers,
    StopContainers,
}

/// Where a pool begins.
#[derive(Debug)]
pub struct Pool;

impl Pool {
    /// Reads the journal, finds the containers of an earlier run, and starts the actor on a thread
    /// of its own. Links and other tasks run on the current runtime.
    pub async fn start(
        config: PoolConfig,
        backend: Arc<dyn Backend>,
    ) -> Result<PoolHandle, StartError> {
        Ready::new(config, backend).await?.start().await
    }

    /// The same in the `LocalSet` of this thread, so that tests own the clock.
    #[cfg(test)]
    pub(crate) async fn start_here(
        config: PoolConfig,
        backend: Arc<dyn Backend>,
    ) -> Result<PoolHandle, StartError> {
        Ready::new(config, backend).await?.start_here()
    }

    /// The same with a journal that tests have prepared.
    #[cfg(test)]
    pub(crate) async fn start_with(
        config: PoolConfig,
        backend: Arc<dyn Backend>,
        journal: (ReadJournal, Recovered),
    ) -> Result<PoolHandle, StartError> {
        Ready::with(config, backend, journal).await?.start().await
    }
}

/// All that a pool needs, before anything runs.
struct Ready {
    parts: Parts,
    journal: ReadJournal,
    facts: Facts,
}

impl Ready {
    async fn new(config: PoolConfig, backend: Arc<dyn Backend>) -> Result<Self, StartError> {
        config.check().map_err(StartError::Config)?;
        let journal = ReadJournal::open(&config.journal)?;
        Self::with(config, backend, journal).await
    }

    async fn with(
        config: PoolConfig,
        backend: Arc<dyn Backend>,
        (journal, recovered): (ReadJournal, Recovered),
    ) -> Result<Self, StartError> {
        let clock = Clock::start();
        // Facts before the list, so that none falls between them.
        let facts = backend.facts();
        let seen = backend.list(&config.name).await;
        let seen = seen.map_err(|source| StartError::List { source })?;
        let (events, _) = broadcast::channel(config.events_max);
        let parts = Parts {
            config: Arc::new(config),
            clock,
            backend,
            runtime: tokio::runtime::Handle::current(),
            routes: Arc::new(Routes::new()),
            events,
            recovered,
            seen,
        };
        Ok(Self { parts, journal, facts })
    }

    async fn start(self) -> Result<PoolHandle, StartError> {
        let inner = Inner::of(&self.parts);
        let closed = inner.closed.clone();
        let mailbox = actor::start_thread(self.shell()?, closed);
        let mailbox = mailbox.map_err(|source| StartError::Thread { source })?;
        let mailbox = mailbox.await.map_err(|_| StartError::Ended)?;
        Ok(inner.handle(mailbox))
    }

    #[cfg(test)]
    fn start_here(self) -> Result<PoolHandle, StartError> {
        let inner = Inner::of(&self.parts);
        let closed = inner.closed.clone();
        let mailbox = actor::start(self.shell()?, closed);
        Ok(inner.handle(mailbox))
    }

    /// Starts the journal, apart from the shell: whether it can start is told at once.
    fn shell(
        self,
    ) -> Result<impl FnOnce(actor::TellNews, WeakMailbox) -> Shell + Send + 'static, StartError>
    {
        let Self { parts, journal, facts } = self;
        let (late, news) = late_news();
        let journal = journal.start(late)?;
        Ok(move |tell: actor::TellNews, home| {
            news.set(Arc::clone(&tell));
            parts.runtime.spawn(read_facts(facts, Arc::clone(&tell)));
            Shell::new(parts, journal, tell, home)
        })
    }
}

/// The journal starts before the actor that it tells.
fn late_news() -> (crate::journal::TellWritten, Late) {
    let late = Late::default();
    let cell = late.clone();
    let tell = move |written: Written| {
        if let Some(tell) = cell.0.get() {
            tell(actor::News::Written(written));
        }
    };
    (Arc::new(tell), late)
}

#[derive(Clone, Default)]
struct Late(Arc<std::sync::OnceLock<actor::TellNews>>);

impl Late {
    fn set(&self, tell: actor::TellNews) {
        // Nothing is appended before, so nothing is missed; and it is set once.
        let _ = self.0.set(tell);
    }
}

async fn read_facts(mut facts: Facts, tell: actor::TellNews) {
    while let Some(fact) = facts.recv().await {
        tell(actor::News::Fact(fact));
    }
}

/// A pool. Clones are the same one; when the last is dropped it ends, and its containers go on.
#[derive(Clone)]
pub struct PoolHandle(Arc<Shared>);

struct Shared {
    mailbox: Mailbox,
    inner: Inner,
}

struct Inner {
    routes: Arc<Routes>,
    events: broadcast::Sender<v1::Event>,
    closed: CancellationToken,
    next_waiter: AtomicU64,
    waiting: Semaphore,
    requests: Semaphore,
}

impl Inner {
    fn of(parts: &Parts) -> Self {
        Self {
            routes: Arc::clone(&parts.routes),
            events: parts.events.clone(),
            closed: CancellationToken::new(),
            next_waiter: AtomicU64::new(1),
            waiting: Semaphore::new(parts.config.waiting_max),
            requests: Semaphore::new(parts.config.requests_max),
        }
    }

    fn handle(self, mailbox: Mailbox) -> PoolHandle {
        PoolHandle(Arc::new(Shared { mailbox, inner: self }))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.mailbox.post(Order::Close { closing: Closing::Keep });
    }
}

/// Takes the wish back when its client goes away before the answer.
struct Waiting {
    waiter: WaiterId,
    home: Option<WeakMailbox>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.post(Order::Cancel { waiter: self.waiter });
        }
    }
}

impl PoolHandle {
    pub async fn acquire(&self, request: v1::AcquireRequest) -> Result<Vec<v1::Lease>, Problem> {
        check(&request)?;
        let Shared { mailbox, inner } = &*self.0;
        let _seat = inner.waiting.try_acquire().map_err(|_| {
            Problem::new(Code::QueueFull, "too many requests wait for a slot already; ask later")
        })?;
        let waiter = WaiterId(inner.next_waiter.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        // Dropped before `answer`: the cancel then is sent, and a grant on its way comes back.
        let mut waiting = Waiting { waiter, home: Some(mailbox.downgrade()) };
        mailbox.post(Order::Acquire { waiter, request, reply });
        let grant = answer.await;
        waiting.home = None;
        Ok(grant.map_err(|_| down())??.claim())
    }

    pub async fn release(&self, lease: LeaseId) -> Result<(), Problem> {
        self.ask(|reply| Order::Release { lease, reply }).await
    }

    /// Releases whatever the trajectory holds; whether it held anything.
    pub async fn release_trajectory(&self, trajectory: &TrajectoryId) -> Result<bool, Problem> {
        let trajectory = trajectory.clone();
        self.ask(|reply| Order::ReleaseTrajectory { trajectory, reply }).await
    }

    pub async fn renew(
        &self,
        lease: LeaseId,
        ttl: Option<v1::Seconds>,
    ) -> Result<v1::Lease, Problem> {
        let ttl_ms = ttl.map(v1::Seconds::as_millis);
        if ttl_ms == Some(0) {
            return Err(Problem::new(Code::Invalid, "a lease lasts longer than 0 s").at("ttl_s"));
        }
        self.ask(|reply| Order::Renew { lease, ttl_ms, reply }).await
    }

    pub async fn lease(&self, lease: LeaseId) -> Result<v1::Lease, Problem> {
        self.ask(|reply| Order::Lease { lease, reply }).await
    }

    pub async fn status(&self) -> Result<v1::Status, Problem> {
        self.ask(|reply| Order::Status { reply }).await
    }

    /// Events from now on.
    pub fn events(&self) -> broadcast::Receiver<v1::Event> {
        self.0.inner.events.subscribe()
    }

    pub fn routes(&self) -> &Routes {
        &self.0.inner.routes
    }

    /// Returns when the pool has ended: by a shutdown, or because its thread died.
    pub async fn closed(&self) {
        self.0.inner.closed.cancelled().await;
    }

    #[cfg(test)]
    pub(crate) fn closed_token(&self) -> CancellationToken {
        self.0.inner.closed.clone()
    }

    /// Ends the pool: whoever waits is refused, and the journal is written to its end.
    pub async fn shutdown(&self, how: Shutdown) {
        let closing = match how {
            Shutdown::KeepContainers => Closing::Keep,
            Shutdown::StopContainers => Closing::Stop,
        };
        self.0.mailbox.post(Order::Close { closing });
        if tokio::time::timeout(SHUTDOWN_MAX, self.closed()).await.is_err() {
            tracing::error!("containers are left: they did not stop in time");
            self.0.mailbox.post(Order::End);
            self.closed().await;
        }
    }

    async fn ask<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, Problem>>) -> Order,
    ) -> Result<T, Problem> {
        let Shared { mailbox, inner } = &*self.0;
        let _seat = inner.requests.acquire().await.map_err(|_| down())?;
        let (reply, answer) = oneshot::channel();
        mailbox.post(order(reply));
        answer.await.map_err(|_| down())?
    }
}

fn down() -> Problem {
    Problem::new(Code::ShuttingDown, "the pool has ended; start it again")
}

fn check(request: &v1::AcquireRequest) -> Result<(), Problem> {
    if request.count == Some(0) {
        return Err(Problem::new(Code::Invalid, "at least one slot must be asked for").at("count"));
    }
    if request.ttl_s.is_some_and(|ttl| ttl.as_millis() == 0) {
        return Err(Problem::new(Code::Invalid, "a lease lasts longer than 0 s").at("ttl_s"));
    }
    Ok(())
}

impl Leases for PoolHandle {
    fn acquire(
        &self,
        request: v1::AcquireRequest,
    ) -> BoxFuture<'_, Result<Vec<v1::Lease>, Problem>> {
        Box::pin(self.acquire(request))
    }

    fn release(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), Problem>> {
        Box::pin(self.release(lease))
    }

    fn release_trajectory<'a>(
        &'a self,
        trajectory: &'a TrajectoryId,
    ) -> BoxFuture<'a, Result<(), Problem>> {
        Box::pin(async move { self.release_trajectory(trajectory).await.map(|_| ()) })
    }

    fn renew(
        &self,
        lease: LeaseId,
        ttl: Option<v1::Seconds>,
    ) -> BoxFuture<'_, Result<v1::Lease, Problem>> {
        Box::pin(self.renew(lease, ttl))
    }

    fn lease(&self, lease: LeaseId) -> BoxFuture<'_, Result<v1::Lease, Problem>> {
        Box::pin(self.lease(lease))
    }

    fn status(&self) -> BoxFuture<'_, Result<v1::Status, Problem>> {
        Box::pin(self.status())
    }

    fn events(&self) -> broadcast::Receiver<v1::Event> {
        self.events()
    }

    fn routes(&self) -> &Routes {
        self.routes()
    }
}
