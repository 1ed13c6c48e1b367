//! What a slot uses during a call, by the word of its cgroups.

use crate::{
    cgroup::{Counters, SlotCgroup},
    outcome::Pressure,
    wire::End,
};
use std::time::Duration;
use tokio::time::sleep;

/// Processor time is looked at as often as all processors together could use it up, but no more
/// often than this.
const LOOK_MIN: Duration = Duration::from_millis(10);
const LOOK_MAX: Duration = Duration::from_secs(1);

/// Set going before a call, and read after it.
pub(super) struct Meter {
    before: Counters,
}

impl Meter {
    /// `known` is what was counted at the end of a call that has left nothing running.
    pub(super) fn start(cgroup: &mut SlotCgroup, known: Option<Counters>) -> Self {
        let before = match known {
            // The init itself has run.
            Some(known) => Counters { cpu_us: cgroup.cpu_us(), ..known },
            None => cgroup.counters(),
        };
        Self { before }
    }

    pub(super) fn read(&self, cgroup: &mut SlotCgroup) -> (Pressure, Counters) {
        let (before, now) = (&self.before, cgroup.counters());
        let used = |now: u64, before: u64| now.saturating_sub(before);
        let pressure = Pressure {
            oom_kills: used(now.oom_kills, before.oom_kills),
            pids_hits: cgroup.holds_pids().then(|| used(now.pids_hits, before.pids_hits)),
            cpu_us: now.cpu_us.zip(before.cpu_us).map(|(now, before)| used(now, before)),
            user_us: used(now.cpu_split.user_us, before.cpu_split.user_us),
            system_us: used(now.cpu_split.system_us, before.cpu_split.system_us),
            memory_peak_bytes: cgroup.memory_peak_bytes(),
        };
        (pressure, now)
    }
}

/// Returns when the slot has used more than `max_ms` from now on; never, where that is not limited
/// or not counted.
pub(super) async fn cpu_time_over(cgroup: &mut SlotCgroup, max_ms: u64) -> End {
    let begun = if max_ms > 0 { cgroup.cpu_us() } else { None };
    let Some(begun) = begun else { return std::future::pending().await };
    let processors = std::thread::available_parallelism().map_or(1, |it| it.get() as u64);
    loop {
        let used = cgroup.cpu_us().unwrap_or(begun).saturating_sub(begun);
        let Some(left) = max_ms.saturating_mul(1_000).checked_sub(used).filter(|it| *it > 0) else {
            return End::CpuTime;
        };
        let pause = Duration::from_micros(left / processors);
        sleep(pause.clamp(LOOK_MIN, LOOK_MAX)).await;
    }
}
