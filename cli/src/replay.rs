//! Replaying trajectories against a pool.

pub(crate) mod expect;
pub(crate) mod outcome;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod report;
pub(crate) mod requires;
pub(crate) mod results;
pub(crate) mod rollouts;
pub(crate) mod run;
pub(crate) mod target;
