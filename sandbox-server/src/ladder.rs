//! Which rung this machine lets us stand on: found out by standing on it.

use crate::slot::Works;
use slotmux_protocol::Isolation;
use std::ops::RangeInclusive;

/// What came of trying one rung.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    pub rung: Isolation,
    /// Why it cannot be had.
    pub refused: Option<String>,
}

pub(crate) struct Prober {
    /// For a rung: what a slot of it would be born with, or why that cannot be.
    pub(crate) works: Box<dyn Fn(Isolation) -> Result<Works, String> + Send + Sync>,
}

impl Prober {
    /// Tries the rungs of `range` from the best down, and stops at the first that holds.
    pub(crate) async fn climb(
        &self,
        range: RangeInclusive<Isolation>,
    ) -> Result<Isolation, Vec<Trial>> {
        let mut trials = Vec::new();
        for rung in Isolation::LADDER.into_iter().filter(|rung| range.contains(rung)) {
            let trial = self.attempt(rung).await;
            match trial.refused {
                None => return Ok(rung),
                Some(_) => trials.push(trial),
            }
        }
        Err(trials)
    }

    /// Every rung.
    pub(crate) async fn survey(&self) -> Vec<Trial> {
        let mut trials = Vec::new();
        for rung in Isolation::LADDER {
            trials.push(self.attempt(rung).await);
        }
        trials
    }

    async fn attempt(&self, rung: Isolation) -> Trial {
        Trial { rung, refused: self.stand_on(rung).await.err() }
    }

    /// Puts up every wall of the rung, runs a command behind them, takes them down.
    async fn stand_on(&self, rung: Isolation) -> Result<(), String> {
        let mut works = (self.works)(rung)?;
        works.renew().await.map_err(|error| crate::chain(&error))?;
        let ran = works.try_out("exit 7").await;
        works.end().await.map_err(|error| crate::chain(&error))?;
        ran
    }
}
