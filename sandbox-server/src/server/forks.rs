//! The files of one slot given to others.

use super::Server;
use crate::{
    isolate::ImageUpper,
    layers::{Base, probe::Sharing},
    slot::{KillSwitch, RenewError, Running, Slot, Taken, problem_of},
};
use futures_util::{StreamExt as _, future::join_all, stream};
use slotmux_protocol::{Code, Problem, SlotIndex};
use std::sync::Arc;

/// Slots that are filled at the same time.
const FILLED_AT_ONCE: usize = 8;
/// More would only wait for the same disk.
const COPIED_AT_ONCE: usize = 2;

/// What became of a slot that was to be filled.
#[derive(Debug)]
pub(crate) struct Filled {
    pub(crate) slot: SlotIndex,
    pub(crate) refused: Option<Problem>,
}

impl Server {
    /// Gives the workspace of `source` to `targets`, which are reset. What runs in `source` is
    /// ended; its files stay, but for temporary ones. It is seen through when nobody waits for it.
    pub(crate) async fn fork(
        self: &Arc<Self>,
        source: SlotIndex,
        targets: &[SlotIndex],
        running: Running,
    ) -> Result<Vec<Filled>, Problem> {
        let server = Arc::clone(self);
        let source = Arc::clone(self.known(source)?);
        let targets = self.all_known(&source, targets)?;
        let forked = tokio::spawn(async move { server.fork_now(&source, &targets, running).await });
        forked.await.unwrap_or_else(|_panic_or_end| {
            Err(Problem::new(Code::ShuttingDown, "the server is shutting down"))
        })
    }

    fn known(&self, index: SlotIndex) -> Result<&Arc<Slot>, Problem> {
        self.slot(index)
            .ok_or_else(|| Problem::new(Code::UnknownSlot, format!("there is no {index}")).at("to"))
    }

    fn all_known(
        &self,
        source: &Arc<Slot>,
        targets: &[SlotIndex],
    ) -> Result<Vec<Arc<Slot>>, Problem> {
        let invalid = |detail: &str| Problem::new(Code::Invalid, detail).at("to");
        let mut known: Vec<Arc<Slot>> = Vec::new();
        if targets.is_empty() {
            return Err(invalid("name at least one slot"));
        }
        for index in targets {
            let slot = self.known(*index)?;
            if Arc::ptr_eq(slot, source) {
                return Err(invalid("a slot is not forked into itself"));
            }
            if known.iter().any(|it| Arc::ptr_eq(it, slot)) {
                return Err(invalid("a slot is named twice"));
            }
            known.push(Arc::clone(slot));
        }
        Ok(known)
    }

    async fn fork_now(
        &self,
        source: &Arc<Slot>,
        targets: &[Arc<Slot>],
        running: Running,
    ) -> Result<Vec<Filled>, Problem> {
        let _one = self.sharing_turn.lock().await;
        if self.root.upper() == Some(ImageUpper::Memory) {
            return Err(Problem::new(
                Code::Invalid,
                "slots keep what they change of the image in memory, and a fork would lose it: \
                 give the server a --data-dir that an overlay can write to",
            ));
        }
        for target in targets {
            target.may_be_taken()?;
        }
        let source = source.take(running).await?;
        let mut taken = Vec::new();
        let mut filled = Vec::new();
        for (slot, target) in
            join_all(targets.iter().map(|it| async { (it.index, it.take(Running::End).await) }))
                .await
        {
            match target {
                Ok(target) => taken.push(target),
                Err(problem) => filled.push(Filled { slot, refused: Some(problem) }),
            }
        }
        filled.extend(match self.sharing {
            Sharing::Overlay => self.share(source, taken).await?,
            Sharing::Copy(_) => self.copy(source, taken).await?,
        });
        filled.sort_by_key(|it| it.slot);
        Ok(filled)
    }

    /// All lie on the same from now on.
    async fn share(&self, mut source: Taken, targets: Vec<Taken>) -> Result<Vec<Filled>, Problem> {
        let base = match source.works().seal(&self.ground.layers, &self.draining).await {
            Ok(base) => base,
            Err(error) => return Err(keep(source, targets, &error).await),
        };
        let (source, filled) = tokio::join!(
            renew_on(source, base.clone()),
            stream::iter(targets)
                .map(|target| renew_on(target, base.clone()))
                .buffer_unordered(FILLED_AT_ONCE)
                .collect::<Vec<_>>()
        );
        source.refused.map_or(Ok(filled), Err)
    }

    async fn copy(&self, mut source: Taken, targets: Vec<Taken>) -> Result<Vec<Filled>, Problem> {
        if let Err(error) = source.works().end().await {
            return Err(keep(source, targets, &error).await);
        }
        let Some(from) = source.works().workspace().cloned() else {
            let error = RenewError::Fill(std::io::ErrorKind::NotFound.into());
            return Err(keep(source, targets, &error).await);
        };
        let filled = stream::iter(targets)
            .map(async |mut target| {
                let slot = target.slot().index;
                let renewed = target.works().renew_with(&from, &self.draining).await;
                Filled { slot, refused: finish(target, renewed).await }
            })
            .buffer_unordered(COPIED_AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        drop(from);
        start_again(source).await.map_or(Ok(filled), Err)
    }
}

async fn renew_on(mut target: Taken, base: Base) -> Filled {
    let slot = target.slot().index;
    let renewed = target.works().renew_on(base).await;
    Filled { slot, refused: finish(target, renewed).await }
}

/// Why the slot is not what it should be, if it is not.
pub(super) async fn finish(
    target: Taken,
    renewed: Result<KillSwitch, RenewError>,
) -> Option<Problem> {
    match renewed {
        Ok(switch) => {
            target.give_back(switch);
            None
        }
        Err(error) => Some(target.give_up(&error).await),
    }
}

/// The source could not be forked: it goes on with what it had, and the others are empty.
async fn keep(source: Taken, targets: Vec<Taken>, error: &RenewError) -> Problem {
    tokio::join!(
        start_again(source),
        join_all(targets.into_iter().map(|it| renew_on(it, Base::default())))
    );
    problem_of(error)
}

async fn start_again(mut source: Taken) -> Option<Problem> {
    match source.works().start_again().await {
        Ok(switch) => {
            source.give_back(switch);
            None
        }
        Err(error) => {
            let problem = problem_of(&error);
            source.leave_dirty(crate::chain(&error));
            Some(problem)
        }
    }
}
