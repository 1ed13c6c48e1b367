//! What is written on everything of ours at the engine, so that a later agent finds it.

use crate::job::core::Who;
use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher, RandomState},
    time::{SystemTime, UNIX_EPOCH},
};

/// Whose it is.
pub(crate) const OWNER: &str = "slotmux.agent";
/// The run of a job that it belongs to.
pub(crate) const RUN: &str = "slotmux.agent.run";
/// `main`, `student` or `warm`.
pub(crate) const ROLE: &str = "slotmux.agent.role";
/// By when it should be gone, for people who look: seconds since 1970.
pub(crate) const DEADLINE: &str = "slotmux.agent.deadline";

/// Of a student container: where its parent listens.
pub(crate) const SOCKET: &str = "slotmux.agent.socket";

/// Of one run of a job. A job's id may come again; this does not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Run(String);

impl Run {
    pub(crate) fn new() -> Self {
        let random = || RandomState::new().build_hasher().finish();
        Self(format!("{:08x}{:08x}", unix_s(SystemTime::now()) & 0xffff_ffff, random() >> 32))
    }

    /// As it was written by an agent before this one.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let fits = text.len() == 16 && text.bytes().all(|it| it.is_ascii_hexdigit());
        fits.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its container at the engine.
    pub(crate) fn container(&self, who: Who) -> String {
        match who {
            Who::Main => format!("slotmux-job-{}", self.0),
            Who::Student(id) => format!("slotmux-job-{}-{id}", self.0),
        }
    }
}

pub(crate) fn labels(
    owner: &str,
    run: &Run,
    role: &str,
    deadline: SystemTime,
) -> HashMap<String, String> {
    HashMap::from([
        (OWNER.to_owned(), owner.to_owned()),
        (RUN.to_owned(), run.as_str().to_owned()),
        (ROLE.to_owned(), role.to_owned()),
        (DEADLINE.to_owned(), unix_s(deadline).to_string()),
    ])
}

pub(crate) fn unix_s(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
