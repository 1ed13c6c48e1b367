//! One job: a state machine, and what it has done round it.

mod answer;
pub(crate) mod calls;
pub(crate) mod core;
pub(crate) mod prepare;
mod recover;
pub(crate) mod run;
pub(crate) mod shell;
mod talk;

pub(crate) use calls::chain;
