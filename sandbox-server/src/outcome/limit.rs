//! Which limit a command has run into, and whose fault that is.
//!
//! What stops at a limit shows as an exit code or a signal first; here it gets its name. Programs
//! find it in `data.limit`.

use super::{Outcome, Pressure};
use crate::wire::{End, Full, Seen};
use serde_json::json;
use slotmux_protocol::{CallLimits, CausedBy, Ended, Usage};

/// A shell's exit code for a command that was ended by a signal is this and the signal.
const SIGNALED: i32 = 128;

/// The limits that a slot has, by the names that `/health` has for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Memory,
    Processes,
    Disk,
    /// One of the file systems in memory.
    Tmp,
    /// The disk of the machine, which others have filled.
    MachineDisk,
    FileSize,
    CpuTime,
    WallTime,
    Output,
}

impl Limit {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Processes => "processes",
            Self::Disk => "disk",
            Self::Tmp => "tmp",
            Self::MachineDisk => "machine_disk",
            Self::FileSize => "file_size",
            Self::CpuTime => "cpu_time",
            Self::WallTime => "wall_time",
            Self::Output => "output",
        }
    }

    fn ended(self) -> Ended {
        match self {
            Self::Memory => Ended::Oom,
            Self::Processes => Ended::Pids,
            Self::Disk | Self::Tmp | Self::MachineDisk | Self::FileSize => Ended::Disk,
            Self::CpuTime | Self::WallTime => Ended::Timeout,
            Self::Output => Ended::OutputLimit,
        }
    }

    fn text(self, limits: &CallLimits) -> String {
        let text = match self {
            Self::Memory => super::OOM,
            Self::Processes => super::PIDS,
            Self::Disk => DISK,
            Self::Tmp => "No space left in the slot's /tmp or /dev/shm",
            Self::MachineDisk => "No space left on the machine's disk, which others have filled",
            Self::FileSize => "File too large: the slot's limit of file size was reached",
            Self::Output => "Command printed more than it may",
            Self::CpuTime => {
                let seconds = super::seconds(limits.cpu_ms_max);
                return format!("Command used more than {seconds} s of processor time");
            }
            Self::WallTime => return super::timed_out(limits.timeout_ms),
        };
        text.to_owned()
    }
}

const DISK: &str = "Disk full: the slot's limit of disk space was reached; delete files to go on";

/// What is known of a command's end beside how it ended.
pub(super) struct Facts {
    pub(super) end: End,
    pub(super) seen: Seen,
    pub(super) processes_full: bool,
    pub(super) pressure: Pressure,
    /// In all.
    pub(super) cpu_us: u64,
}

impl Outcome {
    pub(super) fn attribute(&mut self, facts: &Facts, limits: &CallLimits) {
        if let Some(limit) = limit_met(facts, limits) {
            self.meet(limit, limits);
        }
    }

    fn meet(&mut self, limit: Limit, limits: &CallLimits) {
        self.ended = limit.ended();
        self.error = limit.text(limits);
        self.data = Some(json!({ "limit": limit.name() }));
        if limit == Limit::MachineDisk {
            self.caused_by = CausedBy::Infra;
        }
    }

    /// A file could not be written because the slot takes all that it may.
    pub(crate) fn meet_disk(&mut self) {
        self.meet(Limit::Disk, &CallLimits::default());
    }

    /// The same because the machine has no room left, and it is not the slot's doing.
    pub(crate) fn meet_machine_disk(&mut self) {
        self.meet(Limit::MachineDisk, &CallLimits::default());
    }
}

fn limit_met(facts: &Facts, limits: &CallLimits) -> Option<Limit> {
    let status = match facts.end {
        End::Exited(0) => return None,
        End::Exited(code) => code,
        End::Signaled(signal) => SIGNALED + signal,
        End::Timeout => return Some(Limit::WallTime),
        End::CpuTime => return Some(Limit::CpuTime),
        End::Oom | End::NotStarted(libc::ENOMEM) => return Some(Limit::Memory),
        End::Disk => return Some(Limit::Disk),
        End::OutputLimit => return Some(Limit::Output),
        End::Processes | End::NotStarted(libc::EAGAIN) => return Some(Limit::Processes),
        _ => return None,
    };
    let exited = matches!(facts.end, End::Exited(_));
    let killed = [libc::SIGXCPU, libc::SIGKILL].iter().any(|it| status == SIGNALED + it);
    let no_more_cpu =
        limits.cpu_ms_max > 0 && facts.cpu_us >= limits.cpu_ms_max.saturating_mul(1_000);
    let refused = facts.pressure.pids_hits.map_or(facts.processes_full, |hits| hits > 0);
    if facts.pressure.oom_kills > 0 {
        Some(Limit::Memory)
    } else if killed && no_more_cpu {
        Some(Limit::CpuTime)
    } else if exited && refused {
        Some(Limit::Processes)
    } else if status == SIGNALED + libc::SIGXFSZ {
        Some(Limit::FileSize)
    } else {
        facts.seen.full.map(|full| match full {
            Full::Memory => Limit::Tmp,
            Full::Disk => Limit::Disk,
            Full::Machine => Limit::MachineDisk,
        })
    }
}

/// The two ways of counting differ by less, if they count the same.
const COUNT_SLACK_US: u64 = 20_000;

/// The kernel's count of processor time is whole; what ended is known to the microsecond. What is
/// in the one and not in the other is divided as the kernel says that all of it was.
pub(super) fn merge_cpu(usage: &mut Usage, seen: &Seen, pressure: &Pressure) {
    usage.user_us = usage.user_us.max(seen.user_us);
    usage.system_us = usage.system_us.max(seen.system_us);
    let mut known = usage.user_us.saturating_add(usage.system_us);
    if let Some(counted) = pressure.cpu_us.filter(|it| known > it.saturating_add(COUNT_SLACK_US)) {
        // What ended during the call has lived before it, too.
        let part = u128::from(usage.user_us) * u128::from(counted) / u128::from(known);
        usage.user_us = u64::try_from(part).unwrap_or(counted);
        usage.system_us = counted - usage.user_us;
        known = counted;
    }
    let counted = pressure.cpu_us.unwrap_or(0).saturating_sub(seen.own_us);
    let rest = counted.saturating_sub(known);
    let split = u128::from(pressure.user_us) + u128::from(pressure.system_us);
    let user = match split {
        0 => rest / 2,
        split => {
            let part = u128::from(rest) * u128::from(pressure.user_us) / split;
            u64::try_from(part).unwrap_or(rest)
        }
    };
    usage.user_us = usage.user_us.saturating_add(user);
    usage.system_us = usage.system_us.saturating_add(rest - user);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(end: End) -> Facts {
        Facts {
            end,
            seen: Seen::default(),
            processes_full: false,
            pressure: Pressure::default(),
            cpu_us: 0,
        }
    }

    fn met(facts: &Facts) -> Option<Limit> {
        limit_met(facts, &CallLimits { cpu_ms_max: 1_000, ..CallLimits::default() })
    }

    #[test]
    fn what_went_well_has_met_no_limit() {
        let full = Seen { full: Some(Full::Disk), ..Seen::default() };
        let pressure = Pressure { oom_kills: 1, pids_hits: Some(1), ..Pressure::default() };
        let facts = Facts { seen: full, pressure, ..facts(End::Exited(0)) };
        assert_eq!(met(&facts), None);
    }

    #[test]
    fn each_exhaustion_has_its_name() {
        for (full, limit) in [
            (Full::Memory, Limit::Tmp),
            (Full::Disk, Limit::Disk),
            (Full::Machine, Limit::MachineDisk),
        ] {
            let seen = Seen { full: Some(full), ..Seen::default() };
            assert_eq!(met(&Facts { seen, ..facts(End::Exited(1)) }), Some(limit));
        }
        for (end, limit) in [
            (End::Signaled(libc::SIGXFSZ), Limit::FileSize),
            (End::Exited(128 + libc::SIGXFSZ), Limit::FileSize),
            (End::CpuTime, Limit::CpuTime),
            (End::Oom, Limit::Memory),
            (End::NotStarted(libc::EAGAIN), Limit::Processes),
        ] {
            assert_eq!(met(&facts(end)), Some(limit), "{end:?}");
        }
        assert_eq!(met(&facts(End::Exited(1))), None);
        assert_eq!(met(&facts(End::Signaled(libc::SIGKILL))), None);
    }

    #[test]
    fn the_kernels_count_of_refused_forks_stands_over_a_guess() {
        let guessed = Facts { processes_full: true, ..facts(End::Exited(1)) };
        assert_eq!(met(&guessed), Some(Limit::Processes));
        let counted = Pressure { pids_hits: Some(0), ..Pressure::default() };
        assert_eq!(met(&Facts { pressure: counted, ..guessed }), None);
    }

    #[test]
    fn a_signal_of_the_backstop_is_the_time_only_when_it_was_used() {
        let killed = facts(End::Signaled(libc::SIGXCPU));
        assert_eq!(met(&killed), None);
        assert_eq!(met(&Facts { cpu_us: 1_000_000, ..killed }), Some(Limit::CpuTime));
    }

    #[test]
    fn what_ended_and_what_the_kernel_counted_make_one_sum() {
        let mut usage = Usage { user_us: 10, system_us: 10, ..Usage::default() };
        let seen = Seen { user_us: 100, own_us: 50, ..Seen::default() };
        let pressure =
            Pressure { cpu_us: Some(560), user_us: 3, system_us: 1, ..Pressure::default() };
        merge_cpu(&mut usage, &seen, &pressure);
        assert_eq!((usage.user_us, usage.system_us), (400, 110));
        // A count that lags behind takes nothing away.
        let mut usage = Usage { user_us: 10, ..Usage::default() };
        merge_cpu(&mut usage, &Seen::default(), &Pressure { cpu_us: Some(5), ..pressure });
        assert_eq!((usage.user_us, usage.system_us), (10, 0));
    }
}
