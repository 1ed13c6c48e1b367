//! One job: a state machine, and what it has done round it.

pub(crate) mod core;
