//! Processor time of a call: of everything that runs in the slot meanwhile.
//!
//! Without a cgroup that counts it, it is put together: what ended processes have used comes with
//! their end, and what living ones have used so far is in `/proc`. A process whose parent does not
//! want to hear of its end is in neither once it is gone.

use super::processes;
use crate::isolate::Birth;
use rustix::time::{ClockId, clock_gettime};
use std::{fs, time::Duration};

/// `USER_HZ` is 100 wherever we run.
const TICK_US: u64 = 10_000;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) user_us: u64,
    pub(super) system_us: u64,
    /// By the init itself, which its cgroup counts along.
    pub(super) own_us: u64,
    /// Of the largest process that has ended.
    pub(super) max_rss_bytes: u64,
}

pub(super) struct CpuWatch {
    /// Somebody else sees to the limit, and to what the living have used.
    counted_elsewhere: bool,
    max_us: u64,
    reaped: Used,
    /// What lived when the call began had used this.
    before: Used,
    own_before: Duration,
}

impl CpuWatch {
    pub(super) fn new(counted_elsewhere: bool) -> Self {
        let none = Used::default();
        let own_before = own_time();
        Self { counted_elsewhere, max_us: 0, reaped: none, before: none, own_before }
    }

    pub(super) fn begin(&mut self, birth: &Birth, max_ms: u64) {
        self.max_us = max_ms.saturating_mul(1_000);
        self.reaped = Used::default();
        self.before = self.living(birth);
        self.own_before = own_time();
    }

    pub(super) fn end(&mut self) {
        self.max_us = 0;
    }

    pub(super) fn note_exit(&mut self, usage: &libc::rusage) {
        self.reaped.user_us += time_us(usage.ru_utime);
        self.reaped.system_us += time_us(usage.ru_stime);
        let resident = usage.ru_maxrss.unsigned_abs().saturating_mul(1_024);
        self.reaped.max_rss_bytes = self.reaped.max_rss_bytes.max(resident);
    }

    pub(super) fn is_limited(&self) -> bool {
        self.max_us > 0 && !self.counted_elsewhere
    }

    pub(super) fn is_over(&self, birth: &Birth) -> bool {
        if !self.is_limited() {
            return false;
        }
        let used = self.used(birth);
        used.user_us.saturating_add(used.system_us) > self.max_us
    }

    pub(super) fn used(&self, birth: &Birth) -> Used {
        let living = self.living(birth);
        let since =
            |reaped: u64, living: u64, before: u64| (reaped + living).saturating_sub(before);
        let own = own_time().saturating_sub(self.own_before);
        Used {
            user_us: since(self.reaped.user_us, living.user_us, self.before.user_us),
            system_us: since(self.reaped.system_us, living.system_us, self.before.system_us),
            own_us: u64::try_from(own.as_micros()).unwrap_or(u64::MAX),
            max_rss_bytes: self.reaped.max_rss_bytes,
        }
    }

    fn living(&self, birth: &Birth) -> Used {
        let mut used = Used::default();
        if self.counted_elsewhere || super::no_children_left() {
            return used;
        }
        for pid in processes(birth) {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if let Some((user_us, system_us)) = times(&stat) {
                used.user_us += user_us;
                used.system_us += system_us;
            }
        }
        used
    }
}

/// Of a process and of the children that it has waited for.
fn times(stat: &str) -> Option<(u64, u64)> {
    // The name of the program may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    let (user, system, user_below, system_below) = (next()?, next()?, next()?, next()?);
    Some(((user + user_below) * TICK_US, (system + system_below) * TICK_US))
}

fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn time_us(time: libc::timeval) -> u64 {
    time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_usec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_that_looks_like_them() {
        let stat = "12 (a) R 1 2) S 1 2 3 4 5 6 7 8 9 10 3 4 50 60 20 0 1 0 99";
        assert_eq!(times(stat), Some((530_000, 640_000)));
        assert_eq!(times("12 (a) S 1"), None);
    }
}
