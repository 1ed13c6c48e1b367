//! The monotonic clock, for code that has no runtime whose clock it could take.
//!
//! Nothing here is decided by the time of day, which people and time servers change.

use std::time::Duration;

pub(crate) fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
