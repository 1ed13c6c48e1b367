//! The commands, a file each.

pub(crate) mod acquire;
pub(crate) mod agent;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod exec;
pub(crate) mod leases;
pub(crate) mod replay;
pub(crate) mod serve;
mod serving;
pub(crate) mod status;
