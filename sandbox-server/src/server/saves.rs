//! Workspaces saved, and slots filled with what was saved.

use super::{Server, forks::finish};
use crate::{
    files::{Until, Workspace},
    layers::{Base, Chain, Layer, probe::Sharing},
    slot::{RenewError, Running, Scope, Slot},
    snapshots::{Saved, Snapshot, SnapshotError, SnapshotId, Snapshots},
};
use slotmux_protocol::{CallLimits, Code, Problem};
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};
use tokio::task::spawn_blocking;

/// Snapshots that lie unpacked below some slot.
pub(super) type Unpacked = HashMap<SnapshotId, Weak<Layer>>;

impl Server {
    /// Takes the slot's turn. What runs there in the background runs on, and may be half done.
    pub(crate) async fn snapshot(&self, slot: &Arc<Slot>, scope: Scope) -> Result<Saved, Problem> {
        let visit = slot.visit(scope).await?;
        let store = Arc::clone(&self.ground.snapshots);
        // The turn goes along: it is not given up before the work has ended.
        spawn_blocking(move || {
            let until = Until::new(no_hurry(), visit.stop().token());
            Ok(store.save(visit.workspace()?, &until)?)
        })
        .await
        .map_err(failed)?
    }

    /// Resets the slot and fills its workspace. It is seen through when nobody waits for it.
    pub(crate) async fn restore(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        id: SnapshotId,
    ) -> Result<Snapshot, Problem> {
        let (server, slot) = (Arc::clone(self), Arc::clone(slot));
        let restored = tokio::spawn(async move { server.restore_now(&slot, id).await });
        restored.await.unwrap_or_else(|_panic_or_end| {
            Err(Problem::new(Code::ShuttingDown, "the server is shutting down"))
        })
    }

    async fn restore_now(&self, slot: &Arc<Slot>, id: SnapshotId) -> Result<Snapshot, Problem> {
        let snapshot = self.ground.snapshots.find(&id)?;
        slot.may_be_taken()?;
        match self.sharing {
            Sharing::Overlay => {
                let layer = self.unpacked(&id).await?;
                let mut taken = slot.take(Running::End).await?;
                let renewed = taken.works().renew_on(Base::of(Chain::of(layer))).await;
                finish(taken, renewed).await.map_or(Ok(snapshot), Err)
            }
            Sharing::Copy(_) => {
                let mut taken = slot.take(Running::End).await?;
                let workspace = match taken.works().clear_to_fill().await {
                    Ok(workspace) => workspace,
                    Err(error) => return Err(taken.give_up(&error).await),
                };
                if let Err(problem) = self.unpack(&id, workspace).await {
                    let error = RenewError::Fill(std::io::Error::other(problem.detail.clone()));
                    taken.give_up(&error).await;
                    return Err(problem);
                }
                let renewed = taken.works().begin().await;
                finish(taken, renewed).await.map_or(Ok(snapshot), Err)
            }
        }
    }

    /// As a layer: once for all slots that lie on it at the same time.
    async fn unpacked(&self, id: &SnapshotId) -> Result<Arc<Layer>, Problem> {
        let mut unpacked = self.unpacked.lock().await;
        if let Some(layer) = unpacked.get(id).and_then(Weak::upgrade) {
            return Ok(layer);
        }
        unpacked.retain(|_, layer| layer.strong_count() > 0);
        // Anybody's: who lies on it is shown as its owner, or is the server's user as all are.
        let owner = if self.root.is_in_parts() { None } else { self.ground.nobody() };
        let io = |error| Problem::from(SnapshotError::Io(error));
        let layer = self.ground.layers.make(owner).map_err(io)?;
        let max = self.settings.slot_limits.file_bytes_max;
        let workspace = Workspace::open(layer.dir(), owner, max);
        self.unpack(id, workspace.map_err(|errno| io(errno.into()))?).await?;
        let layer = Arc::new(layer);
        unpacked.insert(id.clone(), Arc::downgrade(&layer));
        Ok(layer)
    }

    async fn unpack(&self, id: &SnapshotId, workspace: Workspace) -> Result<(), Problem> {
        let store: Arc<Snapshots> = Arc::clone(&self.ground.snapshots);
        let (id, stop) = (id.clone(), self.draining.clone());
        let unpacked =
            spawn_blocking(move || store.restore(&id, &workspace, &Until::new(no_hurry(), &stop)));
        Ok(unpacked.await.map_err(failed)??)
    }
}

/// It takes as long as it takes: what stops it is a reset, or the end of the server.
fn no_hurry() -> CallLimits {
    CallLimits { timeout_ms: 24 * 3_600_000, ..CallLimits::default() }
}

fn failed(error: tokio::task::JoinError) -> Problem {
    tracing::error!(%error, "snapshot failed");
    Problem::new(Code::Internal, "the snapshot failed; see the log")
}
