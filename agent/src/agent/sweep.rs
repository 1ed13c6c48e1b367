//! Removes what is ours and nobody's: what an engine has made for an agent that was gone by then.
//!
//! Invariant: a container whose run is written down in [`Shared::runs`] is left alone, and it is
//! written down before anything of it is asked for.

use crate::{job::chain, names, names::Run, shared::Shared};
use slotmux_docker::{EngineError, Listed};
use std::{sync::Weak, time::Duration};
use tokio::time::sleep;

const SWEEP_EVERY: Duration = Duration::from_secs(20);

/// To the end of the agent.
pub(super) async fn run(shared: Weak<Shared>) {
    loop {
        sleep(SWEEP_EVERY).await;
        let Some(shared) = shared.upgrade() else { return };
        // Before that, those of before would be taken for orphans.
        if !*shared.is_settled.borrow() {
            continue;
        }
        match list(&shared).await {
            Ok(listed) => remove_orphans(&shared, &listed).await,
            Err(error) => tracing::debug!(error = chain(&error), "containers not listed"),
        }
    }
}

/// Everything of this agent's name.
pub(super) async fn list(shared: &Shared) -> Result<Vec<Listed>, EngineError> {
    let mut listed = shared.engine.list(names::OWNER).await?;
    listed.retain(|it| it.labels.get(names::OWNER) == Some(&shared.settings.owner));
    Ok(listed)
}

pub(super) async fn remove_orphans(shared: &Shared, listed: &[Listed]) {
    for container in listed {
        let run = container.labels.get(names::RUN).and_then(|it| Run::read(it));
        if run.is_some_and(|run| shared.runs().contains(&run)) {
            continue;
        }
        tracing::info!(container = container.id, "a container that is nobody's is removed");
        remove(shared, container.id.clone()).await;
    }
}

pub(super) async fn remove(shared: &Shared, id: String) {
    if let Err(error) = shared.engine.remove(&id).await {
        tracing::warn!(container = id, error = chain(&error), "container not removed");
    }
}
