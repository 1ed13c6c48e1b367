//! What is there already: containers that an earlier pool has started, and what it left behind.

use super::Shared;
use crate::{
    causes::{chain, not_removed},
    engine::{EngineError, Found, Listed, State},
    exit,
    keeper::Held,
    names::{self, Marks, engine_name},
    ready,
    seen::Container,
};
use futures_util::{StreamExt, stream};
use slotmux_backend::{BackendError, Fact, Seen};
use slotmux_protocol::ContainerId;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// How long a forced end and the removal may take before we say that we do not know.
pub(super) const STOP_SLACK: Duration = Duration::from_mins(1);

/// Containers that are looked at together.
const ADOPTIONS_MAX: usize = 16;

/// Of a log, for the reason of an end.
const LAST_WORDS_BYTES: usize = 4 << 10;

impl Shared {
    pub(super) async fn stop(
        self: Arc<Self>,
        container: ContainerId,
        grace: Duration,
    ) -> Result<(), BackendError> {
        let doing = format!("stop container `{container}`");
        self.watch();
        let held = {
            // A launch may wait for its image, and who stops it is not to wait as long.
            let turn = timeout(grace.saturating_add(STOP_SLACK), self.turn(&container)).await;
            let _turn = turn.map_err(|elapsed| BackendError::Unknown {
                doing: doing.clone(),
                source: elapsed.into(),
            })?;
            match self.held(&container) {
                Some(held) => Some(held),
                None => self
                    .adopt_by_name(&container)
                    .await
                    .map_err(|error| error.into_backend_error(&doing))?,
            }
        };
        let Some(held) = held else { return Ok(()) };
        held.ask_to_stop(grace);
        removed(&held, grace, doing).await
    }

    pub(super) async fn list(self: Arc<Self>, pool: String) -> Result<Vec<Seen>, BackendError> {
        let doing = format!("list containers of pool `{pool}`");
        self.watch();
        let listed = self.engine.list(names::OWNER).await;
        let listed = listed.map_err(|error| error.into_backend_error(&doing))?;
        let adoptions = listed.into_iter().map(|listed| self.adopt_listed(&pool, listed));
        stream::iter(adoptions).buffer_unordered(ADOPTIONS_MAX).collect::<()>().await;
        let held = self.all_held();
        let own = held.iter().filter(|held| held.seen.labels.pool == pool);
        Ok(own.filter_map(|held| held.seen_now()).collect())
    }

    async fn adopt_listed(self: &Arc<Self>, pool: &str, listed: Listed) {
        let marks = Marks::read(&self.settings.owner, &listed.labels);
        let own = marks.filter(|marks| marks.labels.pool == pool);
        let result = match own {
            Some(marks) => {
                let _turn = self.turn(&marks.container).await;
                if self.held(&marks.container).is_some() {
                    return;
                }
                match self.engine.find(&listed.id).await {
                    Ok(Some(found)) => self.adopt(found).await.map(drop),
                    Ok(None) => Ok(()),
                    Err(error) => Err(error),
                }
            }
            None if names::has_outlived(&listed.labels) => {
                self.discard(&listed).await;
                Ok(())
            }
            None => Ok(()),
        };
        if let Err(error) = result {
            // One that cannot be read must not hide the others.
            tracing::error!(id = listed.id, error = %chain(&error), "container not adopted");
        }
    }

    /// Of one that has outlived its time, whose ever it was.
    pub(crate) async fn discard(&self, listed: &Listed) {
        let id = &listed.id;
        tracing::warn!(id, "container has outlived its time, and goes");
        if let Err(error) = self.engine.remove(id).await {
            tracing::error!(id, error = %chain(&error), "container not removed");
        }
    }

    /// Finds a container that an earlier backend object started, in whatever pool. The caller has
    /// the name's turn.
    pub(super) async fn adopt_by_name(
        self: &Arc<Self>,
        container: &ContainerId,
    ) -> Result<Option<Arc<Held>>, EngineError> {
        // What has no name at the engine is not there.
        let Ok(name) = engine_name(&self.settings.owner, container) else { return Ok(None) };
        match self.engine.find(&name).await? {
            Some(found) => self.adopt(found).await,
            None => Ok(None),
        }
    }

    /// Takes over what was found: a living container is kept, debris is removed.
    async fn adopt(self: &Arc<Self>, found: Found) -> Result<Option<Arc<Held>>, EngineError> {
        let id = found.id.clone();
        let Some(container) = Container::read(&self.settings, found) else { return Ok(None) };
        if container.state == State::Running {
            let is_ready = match &container.address {
                Some(address) => ready::look(&address.authority).await,
                None => false,
            };
            return Ok(Some(self.keep(container, is_ready)));
        }
        if let State::Ended(ended) = &container.state {
            let log = self.engine.log_end(&id, LAST_WORDS_BYTES).await.unwrap_or_default();
            let exit = exit::of_unasked(Some(ended), &log);
            let container = container.marks.container;
            tracing::warn!(%container, reason = exit.reason, "container found dead");
            self.teller.tell(Fact::Gone { container, exit }).await;
        }
        self.engine.remove(&id).await?;
        Ok(None)
    }
}

/// Waits until a container that is ending is gone.
pub(super) async fn removed(
    held: &Held,
    grace: Duration,
    doing: String,
) -> Result<(), BackendError> {
    match timeout(grace.saturating_add(STOP_SLACK), held.removed()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(BackendError::Unavailable { doing, source: not_removed(why) }),
        Err(elapsed) => Err(BackendError::Unknown { doing, source: elapsed.into() }),
    }
}
