//! Which trajectories run, and under which ids.

use super::rollouts::Trajectory;
use slotmux_protocol::{IdError, TrajectoryId};
use std::sync::Arc;

/// The file's trajectories, over and over until there are enough.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    trajectories: Vec<Arc<Trajectory>>,
    total: usize,
}

impl Plan {
    /// `trajectories` is not empty. An id that is used more than once is numbered.
    pub(crate) fn new(trajectories: Vec<Trajectory>, total: usize) -> Result<Self, IdError> {
        let plan = Self { trajectories: trajectories.into_iter().map(Arc::new).collect(), total };
        // The last round has the longest numbers.
        let last_round = total.saturating_sub(plan.trajectories.len())..total;
        last_round.map(|at| plan.id(at)).collect::<Result<Vec<_>, _>>()?;
        Ok(plan)
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }

    pub(crate) fn trajectories(&self) -> &[Arc<Trajectory>] {
        &self.trajectories
    }

    pub(crate) fn runs(&self) -> impl Iterator<Item = (Arc<Trajectory>, TrajectoryId)> + use<> {
        let plan = self.clone();
        (0..self.total).filter_map(move |at| {
            // All ids were checked.
            Some((plan.trajectory(at).clone(), plan.id(at).ok()?))
        })
    }

    fn trajectory(&self, at: usize) -> &Arc<Trajectory> {
        &self.trajectories[at % self.trajectories.len()]
    }

    fn id(&self, at: usize) -> Result<TrajectoryId, IdError> {
        let id = &self.trajectory(at).id;
        if self.total <= self.trajectories.len() {
            return Ok(id.clone());
        }
        TrajectoryId::new(format!("{id}#{}", at / self.trajectories.len() + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::rollouts;

    fn plan(ids: &[&str], total: usize) -> Result<Plan, IdError> {
        let lines: Vec<String> =
            ids.iter().map(|id| format!(r#"{{"trajectory_id": "{id}", "calls": []}}"#)).collect();
        Plan::new(rollouts::read(lines.join("\n").as_bytes()).unwrap().unwrap(), total)
    }

    fn ids(plan: &Plan) -> Vec<String> {
        plan.runs().map(|(_, id)| id.to_string()).collect()
    }

    #[test]
    fn ids_are_numbered_when_the_file_is_run_more_than_once() {
        assert_eq!(ids(&plan(&["a", "b"], 2).unwrap()), ["a", "b"]);
        assert_eq!(ids(&plan(&["a", "b"], 1).unwrap()), ["a"]);
        assert_eq!(ids(&plan(&["a", "b"], 5).unwrap()), ["a#1", "b#1", "a#2", "b#2", "a#3"]);
    }

    #[test]
    fn an_id_that_grows_too_long_is_found_before_anything_runs() {
        let long = "x".repeat(254);
        assert!(plan(&[&long, "b"], 18).is_ok());
        assert_eq!(plan(&[&long, "b"], 20).unwrap_err(), IdError::TooLong(257));
    }
}
