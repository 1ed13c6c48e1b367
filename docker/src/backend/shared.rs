//! What the calls of a backend have in common: who is held, and whose turn it is.

use super::{images::Images, walls::Tried};
use crate::{
    engine::Engine,
    keeper::{Held, Keeper},
    parcel::Parcel,
    seen::Container,
    settings::{DockerSettings, Inject},
    watcher,
};
use slotmux_backend::Teller;
use slotmux_protocol::ContainerId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
};
use tokio::{
    sync::{OnceCell, OwnedMutexGuard},
    task::AbortHandle,
};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Arc<DockerSettings>,
    pub(crate) engine: Engine,
    pub(crate) teller: Arc<Teller>,
    pub(super) parcel: Arc<Parcel>,
    pub(super) images: Images,
    pub(super) tried: Tried,
    pub(super) inject: OnceCell<Inject>,
    held: Mutex<HashMap<ContainerId, (Arc<Held>, AbortHandle)>>,
    /// A name's lock lives as long as somebody has it or waits for it.
    turns: Mutex<HashMap<ContainerId, Weak<tokio::sync::Mutex<()>>>>,
    watcher: OnceLock<AbortHandle>,
}

impl Shared {
    pub(super) fn new(settings: DockerSettings) -> Self {
        let mut engine = Engine::new(settings.host.as_deref());
        if let Some(dir) = &settings.config_dir {
            engine = engine.with_config(dir);
        }
        if let Some(dir) = &settings.certificates {
            engine = engine.with_certificates(dir);
        }
        Self {
            engine,
            settings: Arc::new(settings),
            teller: Arc::default(),
            parcel: Arc::default(),
            images: Images::default(),
            tried: Tried::default(),
            inject: OnceCell::new(),
            held: Mutex::default(),
            turns: Mutex::default(),
            watcher: OnceLock::new(),
        }
    }

    /// From the first call on, as there is a runtime then.
    pub(super) fn watch(self: &Arc<Self>) {
        self.watcher.get_or_init(|| {
            let feed = self.engine.events(watcher::selector(&self.settings.owner));
            tokio::spawn(watcher::watch(Arc::downgrade(self), feed)).abort_handle()
        });
    }

    /// Whoever starts, adopts or removes a container has its name's turn, so that no name gets two
    /// containers, and none is taken for debris while it is being made.
    pub(super) async fn turn(&self, name: &ContainerId) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let turn = turns.get(name).and_then(Weak::upgrade).unwrap_or_default();
            turns.insert(name.clone(), Arc::downgrade(&turn));
            turn
        };
        turn.lock_owned().await
    }

    pub(crate) fn held(&self, container: &ContainerId) -> Option<Arc<Held>> {
        self.lock().get(container).map(|(held, _)| held.clone())
    }

    pub(crate) fn held_by_id(&self, id: &str) -> Option<Arc<Held>> {
        self.lock().values().find(|(held, _)| held.id == id).map(|(held, _)| held.clone())
    }

    pub(crate) fn all_held(&self) -> Vec<Arc<Held>> {
        self.lock().values().map(|(held, _)| held.clone()).collect()
    }

    pub(super) fn keep(self: &Arc<Self>, container: Container, is_ready: bool) -> Arc<Held> {
        let name = container.marks.container.clone();
        let (engine, teller) = (self.engine.clone(), self.teller.clone());
        let (keeper, held) = Keeper::new(engine, teller, container, is_ready);
        let held = Arc::new(held);
        let forget = {
            let (shared, name) = (Arc::downgrade(self), name.clone());
            move || {
                if let Some(shared) = shared.upgrade() {
                    shared.lock().remove(&name);
                }
            }
        };
        // Before the task can end and forget what is not there yet.
        let mut map = self.lock();
        let task = tokio::spawn(keeper.run(forget));
        map.insert(name, (held.clone(), task.abort_handle()));
        held
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ContainerId, (Arc<Held>, AbortHandle)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for (_, keeper) in self.lock().values() {
            keeper.abort();
        }
        if let Some(watcher) = self.watcher.get() {
            watcher.abort();
        }
    }
}
