//! Unix time that never goes back, and that tests can stop.

use crate::{config::millis, core::Millis, routes::Pulse};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    born: Instant,
    born_ms: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let born_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis);
        Self { born: Instant::now(), born_ms }
    }

    pub(crate) fn now(&self) -> Millis {
        Millis(self.born_ms + self.uptime_ms())
    }

    pub(crate) fn uptime_ms(&self) -> u64 {
        millis(self.born.elapsed())
    }

    /// Tells this pool process from others of its name.
    pub(crate) fn generation(&self) -> u64 {
        self.born_ms
    }

    pub(crate) fn pulse(&self) -> std::sync::Arc<Pulse> {
        Pulse::new(self.born)
    }

    /// When the lease last did something.
    pub(crate) fn last_activity(&self, pulse: &Pulse) -> Millis {
        if pulse.running() > 0 {
            self.now()
        } else {
            Millis(self.born_ms + pulse.last_activity_ms())
        }
    }
}
