//! What is known of a job before it begins.

use super::student::Rules;
use std::time::Duration;

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Of processor time.
    pub(crate) soft: Duration,
    /// From the container's start.
    pub(crate) hard: Duration,
    /// That are published on this machine.
    pub(crate) ports: usize,
    pub(crate) has_folder: bool,
    /// Whether only a look tells that a container was out of memory.
    pub(crate) inspects: bool,
    /// Whether a result is waited for.
    pub(crate) speaks: bool,
    /// `None`: it has no students.
    pub(crate) students: Option<Rules>,
}
