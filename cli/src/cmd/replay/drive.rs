//! Runs a plan to its end, or until somebody stops it.

use crate::{
    fault::Fault,
    replay::{
        outcome::Outcome,
        plan::Plan,
        progress::Progress,
        report::{Frame, Report, Tally},
        results::Results,
        run::Replayer,
        target::Target,
    },
    stop::Signals,
};
use futures_util::{StreamExt, future::join_all, stream};
use slotmux_protocol::v1::Status;
use std::{pin::pin, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// How long the last slots may take to be emptied before they are counted.
const RESETS_MAX: Duration = Duration::from_secs(10);
const LOOKS_APART: Duration = Duration::from_millis(10);

/// What releasing may take when we are interrupted.
const RELEASE_MAX: Duration = Duration::from_secs(10);

pub(super) struct Drive {
    pub(super) replayer: Replayer,
    pub(super) concurrency: usize,
    pub(super) file: String,
    pub(super) pool: String,
}

impl Drive {
    pub(super) async fn run(
        &self,
        plan: &Plan,
        mut results: Option<Results>,
        signals: &mut Signals,
    ) -> Result<Report, Fault> {
        let resets_before = self.replayer.target.status().await.ok().map(|it| resets(&it));
        let started = Instant::now();
        let mut tally = Tally::default();
        let progress = Progress::new(plan.total());
        let write = |outcome: Outcome| {
            if let Some(results) = &mut results {
                results.write(&outcome)?;
            }
            tally.add(outcome);
            progress.one_more(tally.failing());
            Ok(())
        };
        let ended = self.all(plan, signals, write).await;
        let took = started.elapsed();
        drop(progress);
        // Also after a failure: nobody else knows of these leases.
        self.release_held().await;
        let interrupted = ended?;
        if let Some(results) = results {
            results.finish()?;
        }
        let resets = self.resets_since(resets_before).await;
        Ok(tally.report(Frame {
            file: self.file.clone(),
            pool: self.pool.clone(),
            took,
            resets,
            interrupted_of: interrupted.then_some(plan.total()),
        }))
    }

    /// Whether it was interrupted.
    async fn all(
        &self,
        plan: &Plan,
        signals: &mut Signals,
        mut write: impl FnMut(Outcome) -> Result<(), Fault>,
    ) -> Result<bool, Fault> {
        let runs =
            stream::iter(plan.runs()).map(|(trajectory, id)| self.replayer.run(trajectory, id));
        let mut outcomes = pin!(runs.buffer_unordered(self.concurrency));
        loop {
            tokio::select! {
                outcome = outcomes.next() => match outcome {
                    Some(outcome) => write(outcome)?,
                    None => return Ok(false),
                },
                signal = signals.next() => {
                    tracing::warn!(signal, "interrupted");
                    return Ok(true);
                }
            }
        }
    }

    async fn release_held(&self) {
        let leases = self.replayer.held.all();
        let target = &self.replayer.target;
        // An embedded pool ends them with itself.
        if matches!(target, Target::Embedded(_)) || leases.is_empty() {
            return;
        }
        let released = join_all(leases.into_iter().map(|lease| target.release(lease)));
        if timeout(RELEASE_MAX, released).await.is_err() {
            tracing::warn!("some leases were not released; they expire");
        }
    }

    async fn resets_since(&self, before: Option<u64>) -> Option<u64> {
        let deadline = Instant::now() + RESETS_MAX;
        loop {
            let status = self.replayer.target.status().await.ok()?;
            let resetting = status.profiles.values().any(|it| it.slots.resetting > 0);
            if !resetting || Instant::now() > deadline {
                return Some(resets(&status).saturating_sub(before?));
            }
            sleep(LOOKS_APART).await;
        }
    }
}

fn resets(status: &Status) -> u64 {
    status.profiles.values().map(|it| it.totals.resets).sum()
}
