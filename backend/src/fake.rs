//! A backend in memory, driven by tests.
//!
//! [`FakeRuntime`] is the container runtime: it outlives any pool, and tests make it misbehave.
//! [`FakeBackend`] is one pool's door to it, as a real backend is to a real runtime.
//!
//! Invariant: the fake keeps every promise of [`Backend`] unless a test told it not to.

mod script;

pub use script::{Answer, Call};

use crate::{
    Address, Backend, BackendError, Diagnosis, Exit, ExitKind, Fact, Facts, LaunchSpec, Phase, Seen,
};
use futures_util::future::BoxFuture;
use slotmux_protocol::ContainerId;
use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use tokio::sync::{mpsc, watch};

/// Facts that a pool may leave unread. Far more than any test makes.
const FACTS_MAX: usize = 1 << 20;

/// What a container may print before its oldest output is forgotten.
const LOG_BYTES_MAX: usize = 1 << 20;

/// The container runtime that tests drive. Clones are the same runtime.
#[derive(Clone)]
pub struct FakeRuntime {
    world: Arc<World>,
}

struct World {
    state: Mutex<State>,
    /// Rises with every change, for those who wait for one.
    version: watch::Sender<u64>,
    address: Box<dyn Fn(&ContainerId) -> Address + Send + Sync>,
}

#[derive(Default)]
struct State {
    containers: BTreeMap<ContainerId, Container>,
    subscribers: Vec<Weak<Mutex<Subscription>>>,
    script: script::Script,
    launched: u64,
}

struct Container {
    spec: LaunchSpec,
    phase: Phase,
    log: String,
    /// Tells this container from a later one of the same name.
    number: u64,
}

/// One backend object's view: whom it watches, and where it tells.
#[derive(Default)]
struct Subscription {
    known: HashSet<ContainerId>,
    facts: Option<mpsc::Sender<Fact>>,
}

impl FakeRuntime {
    /// `address` says where each container answers; tests put a real server behind it.
    pub fn new(address: impl Fn(&ContainerId) -> Address + Send + Sync + 'static) -> Self {
        Self {
            world: Arc::new(World {
                state: Mutex::default(),
                version: watch::Sender::new(0),
                address: Box::new(address),
            }),
        }
    }

    /// A pool's door to this runtime; as many as wanted, one after another or at once.
    pub fn backend(&self) -> FakeBackend {
        let subscription = Arc::new(Mutex::new(Subscription::default()));
        self.world.lock().subscribers.push(Arc::downgrade(&subscription));
        FakeBackend { world: self.world.clone(), subscription }
    }

    pub fn containers(&self) -> Vec<ContainerId> {
        self.world.lock().containers.keys().cloned().collect()
    }

    /// What the container was launched with.
    pub fn spec(&self, container: &ContainerId) -> Option<LaunchSpec> {
        self.world.lock().containers.get(container).map(|it| it.spec.clone())
    }

    /// Every launch that took effect since the beginning.
    pub fn launched(&self) -> u64 {
        self.world.lock().launched
    }

    /// Waits until `holds`; looked at again after every change.
    pub async fn until(&self, mut holds: impl FnMut(&Self) -> bool) {
        let mut version = self.world.version.subscribe();
        while !holds(self) {
            if version.changed().await.is_err() {
                return;
            }
        }
    }

    /// A held container comes up.
    pub fn make_ready(&self, container: &ContainerId) {
        let address = (self.world.address)(container);
        let mut state = self.world.lock();
        if let Some(held) = state.containers.get_mut(container) {
            held.phase = Phase::Ready(address.clone());
            state.tell(&Fact::Ready { container: container.clone(), address });
        }
        drop(state);
        self.world.changed();
    }

    /// A container ends by itself.
    pub fn end(&self, container: &ContainerId, exit: Exit) {
        self.world.remove(container, exit);
    }

    /// A container is killed from outside.
    pub fn kill(&self, container: &ContainerId) {
        let reason = "the container was killed by signal 9 (SIGKILL)".to_owned();
        self.end(container, Exit { kind: ExitKind::Signal(9), reason });
    }

    /// The runtime forgets a container. Those who watched it hear that it vanished.
    pub fn vanish(&self, container: &ContainerId) {
        let reason = "the runtime no longer knows the container".to_owned();
        self.end(container, Exit { kind: ExitKind::Vanished, reason });
    }

    /// The runtime forgets a container and says nothing; only a list shows it.
    pub fn vanish_unsaid(&self, container: &ContainerId) {
        self.world.lock().containers.remove(container);
        self.world.changed();
    }

    /// A container prints.
    pub fn print(&self, container: &ContainerId, text: &str) {
        if let Some(it) = self.world.lock().containers.get_mut(container) {
            it.log.push_str(text);
            it.log = tail(&it.log, LOG_BYTES_MAX).to_owned();
        }
    }

    /// Tells any fact to everybody who watches its container, true or not.
    pub fn tell(&self, fact: &Fact) {
        self.world.lock().tell(fact);
    }
}

impl World {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    fn remove(&self, container: &ContainerId, exit: Exit) {
        let mut state = self.lock();
        if state.containers.remove(container).is_some() {
            state.tell(&Fact::Gone { container: container.clone(), exit });
        }
        drop(state);
        self.changed();
    }

    fn launch(self: &Arc<Self>, spec: LaunchSpec) {
        let container = spec.container.clone();
        let address = (self.address)(&container);
        let mut state = self.lock();
        if let Some(there) = state.containers.get(&container) {
            // Said again, for a caller that never heard.
            if let Phase::Ready(address) = there.phase.clone() {
                state.tell(&Fact::Ready { container, address });
            }
            return;
        }
        state.launched += 1;
        let number = state.launched;
        let held = state.script.holds_launches();
        let phase = if held { Phase::Starting } else { Phase::Ready(address.clone()) };
        let lifetime = spec.lifetime;
        let new = Container { spec, phase, log: String::new(), number };
        state.containers.insert(container.clone(), new);
        if !held {
            state.tell(&Fact::Ready { container: container.clone(), address });
        }
        drop(state);
        self.changed();
        tokio::spawn(end_of_life(Arc::downgrade(self), container, number, lifetime));
    }
}

/// Ends the container after its lifetime, unless it ended before.
async fn end_of_life(world: Weak<World>, name: ContainerId, number: u64, lifetime: Duration) {
    tokio::time::sleep(lifetime).await;
    let Some(world) = world.upgrade() else { return };
    let same = world.lock().containers.get(&name).is_some_and(|it| it.number == number);
    if same {
        let reason = "the container's lifetime was over".to_owned();
        world.remove(&name, Exit { kind: ExitKind::Code(0), reason });
    }
}

impl State {
    fn tell(&mut self, fact: &Fact) {
        for fact in self.script.pass(fact) {
            self.subscribers.retain(|it| it.strong_count() > 0);
            for subscriber in self.subscribers.iter().filter_map(Weak::upgrade) {
                lock(&subscriber).tell(&fact);
            }
        }
    }
}

impl Subscription {
    fn tell(&mut self, fact: &Fact) {
        let container = match fact {
            Fact::Ready { container, .. } | Fact::Gone { container, .. } => container,
        };
        let Some(facts) = self.facts.as_ref().filter(|_| self.known.contains(container)) else {
            return;
        };
        if let Err(mpsc::error::TrySendError::Full(fact)) = facts.try_send(fact.clone()) {
            tracing::error!(?fact, "fact dropped: nobody reads them");
        }
    }
}

fn lock(subscription: &Mutex<Subscription>) -> MutexGuard<'_, Subscription> {
    subscription.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tail(text: &str, bytes_max: usize) -> &str {
    let mut start = text.len().saturating_sub(bytes_max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// One pool's door to a [`FakeRuntime`].
pub struct FakeBackend {
    world: Arc<World>,
    subscription: Arc<Mutex<Subscription>>,
}

impl FakeBackend {
    /// Does `effect` and answers, or whatever else the test wants of the next such call.
    async fn answer<T>(
        &self,
        call: Call,
        doing: String,
        effect: impl FnOnce() -> T,
    ) -> Result<T, BackendError> {
        let answer = self.world.lock().script.next(call);
        let source = || "a test asked for this".into();
        match answer {
            None => Ok(effect()),
            Some(Answer::Refused) => Err(BackendError::Refused { doing, source: source() }),
            Some(Answer::Unavailable) => Err(BackendError::Unavailable { doing, source: source() }),
            Some(Answer::LostAfterEffect) => {
                effect();
                Err(BackendError::Unknown { doing, source: source() })
            }
            Some(Answer::LostBeforeEffect) => {
                Err(BackendError::Unknown { doing, source: source() })
            }
            Some(Answer::Never) => std::future::pending().await,
        }
    }
}

impl fmt::Debug for FakeBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeBackend").finish_non_exhaustive()
    }
}

impl Backend for FakeBackend {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn launch(&self, spec: LaunchSpec) -> BoxFuture<'_, Result<(), BackendError>> {
        let doing = format!("launch container `{}`", spec.container);
        Box::pin(self.answer(Call::Launch, doing, move || {
            lock(&self.subscription).known.insert(spec.container.clone());
            self.world.launch(spec);
        }))
    }

    fn stop<'a>(
        &'a self,
        container: &'a ContainerId,
        _grace: Duration,
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        let doing = format!("stop container `{container}`");
        Box::pin(self.answer(Call::Stop, doing, move || {
            let reason = "the container was stopped".to_owned();
            self.world.remove(container, Exit { kind: ExitKind::Stopped, reason });
        }))
    }

    fn list<'a>(&'a self, pool: &'a str) -> BoxFuture<'a, Result<Vec<Seen>, BackendError>> {
        let doing = format!("list containers of pool `{pool}`");
        Box::pin(self.answer(Call::List, doing, move || {
            // Both at once, so that no fact falls between what is seen and what is told.
            let state = self.world.lock();
            let seen: Vec<Seen> = state
                .containers
                .values()
                .filter(|it| it.spec.labels.pool == pool)
                .map(Container::seen)
                .collect();
            lock(&self.subscription).known.extend(seen.iter().map(|it| it.container.clone()));
            seen
        }))
    }

    fn facts(&self) -> Facts {
        let (sender, receiver) = mpsc::channel(FACTS_MAX);
        lock(&self.subscription).facts = Some(sender);
        receiver
    }

    fn logs<'a>(
        &'a self,
        container: &'a ContainerId,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<String, BackendError>> {
        Box::pin(async move {
            let doing = format!("read logs of container `{container}`");
            let log = self.answer(Call::Logs, doing.clone(), || {
                let state = self.world.lock();
                state.containers.get(container).map(|it| tail(&it.log, bytes_max).to_owned())
            });
            log.await?.ok_or_else(|| BackendError::Refused {
                doing,
                source: "there is no such container".into(),
            })
        })
    }

    fn diagnose(&self) -> BoxFuture<'_, Diagnosis> {
        Box::pin(async { Diagnosis { usable: true, findings: vec!["in memory".to_owned()] } })
    }
}

impl Container {
    fn seen(&self) -> Seen {
        Seen {
            container: self.spec.container.clone(),
            labels: self.spec.labels.clone(),
            slots: self.spec.slots,
            phase: self.phase.clone(),
        }
    }
}
