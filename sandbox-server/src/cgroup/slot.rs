//! The cgroups of one slot: its limits set, its counters kept open.

use super::{
    CpuSplit,
    place::{Place, Version, make_usable, write_existing},
    v1, v2,
};
use slotmux_protocol::SlotLimits;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Processes beyond those that there are, for a call in a slot that is full: its shell, and what it
/// needs to put an end to others.
const PROCESSES_SPARE: u32 = 16;
/// What fills the slot takes the spare, too, if it is faster than the call. It gets no more than
/// this beyond the limit.
const PROCESSES_SPARE_MAX: u32 = 256;
/// How long processes that are gone may be counted.
const UNCOUNTED_MAX: Duration = Duration::from_secs(2);
const UNCOUNTED_TICK: Duration = Duration::from_millis(2);
/// More than any of the files has that are read for what they count.
const COUNTER_BYTES_MAX: usize = 4_096;

/// Only counters go up; read as differences. Whatever the machine has no controller for is absent.
#[derive(Debug, Default)]
pub(crate) struct SlotCgroup {
    /// Each directory once, whatever it is for.
    dirs: Vec<PathBuf>,
    memory: Option<Memory>,
    pids: Option<Pids>,
    cpu_time: Option<CpuTime>,
}

/// What has been counted so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) oom_kills: u64,
    /// Forks that were refused.
    pub(crate) pids_hits: u64,
    /// All processor time, exactly; absent where it is not counted.
    pub(crate) cpu_us: Option<u64>,
    /// About how much of it was whose.
    pub(crate) cpu_split: CpuSplit,
}

impl SlotCgroup {
    pub(super) fn create(
        name: &str,
        places: &super::Cgroups,
        limits: &SlotLimits,
    ) -> io::Result<Self> {
        let mut slot = Self::default();
        let dir = |place: &Place| place.dir.join(name);
        for place in places.places() {
            let dir = dir(place);
            make_usable(&dir)?;
            if !slot.dirs.contains(&dir) {
                slot.dirs.push(dir);
            }
        }
        if let Some(place) = &places.memory {
            slot.memory = Some(Memory::limit(place.version, &dir(place), limits.memory_bytes_max)?);
        }
        if let Some(place) = &places.pids {
            slot.pids = Some(Pids::limit(&dir(place), limits.processes_max)?);
        }
        if let Some(place) = &places.cpu {
            match place.version {
                Version::V1 => v1::limit_cpu(&dir(place), limits.cpu_millis_max)?,
                Version::V2 => v2::limit_cpu(&dir(place), limits.cpu_millis_max)?,
            }
        }
        if let Some(place) = &places.cpu_time {
            slot.cpu_time = Some(CpuTime::open(place.version, &dir(place))?);
        }
        Ok(slot)
    }

    pub(crate) fn holds_memory(&self) -> bool {
        self.memory.is_some()
    }

    pub(crate) fn holds_pids(&self) -> bool {
        self.pids.is_some()
    }

    pub(crate) fn counts_cpu_time(&self) -> bool {
        self.cpu_time.is_some()
    }

    /// Puts a process into it; what that forks later will be in it too. Blocks: on version 1 the
    /// first write waits for all processors, which takes milliseconds on an idle machine.
    pub(crate) fn placing(&self) -> impl FnOnce(i32) -> io::Result<()> + Send + 'static {
        let dirs = self.dirs.clone();
        move |pid| {
            let place = |dir: &PathBuf| write_existing(&dir.join("cgroup.procs"), &pid.to_string());
            dirs.iter().try_for_each(place)
        }
    }

    /// Whether the kernel says what of the slot runs.
    pub(crate) fn can_tell(&self) -> bool {
        !self.dirs.is_empty()
    }

    /// What of the slot runs, by the kernel's word; nothing where it cannot say.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let procs = self.dirs.iter().flat_map(|dir| {
            // Unreadable is not empty.
            fs::read_to_string(dir.join("cgroup.procs"))
                .unwrap_or_else(|_| "0".to_owned())
                .lines()
                .filter_map(|it| it.parse().ok())
                .collect::<Vec<_>>()
        });
        procs.collect()
    }

    pub(crate) fn counters(&mut self) -> Counters {
        Counters {
            oom_kills: self.memory.as_mut().map_or(0, |it| count(&mut it.events, "oom_kill")),
            pids_hits: self.pids.as_mut().map_or(0, |it| count(&mut it.events, "max")),
            cpu_us: self.cpu_us(),
            cpu_split: self.cpu_time.as_mut().map_or(CpuSplit::default(), CpuTime::split),
        }
    }

    pub(crate) fn cpu_us(&mut self) -> Option<u64> {
        self.cpu_time.as_mut()?.usage_us()
    }

    /// Before a call, so that it can begin, and the peak is its own.
    pub(crate) async fn prepare_for_call(&mut self, quiet: bool) {
        if let Some(memory) = &mut self.memory {
            memory.reset_peak();
        }
        match &mut self.pids {
            Some(pids) if quiet => pids.until_uncounted().await,
            Some(pids) => pids.make_room(pids.current()),
            None => {}
        }
    }

    /// After a call that could not begin, since the slot is full: `false` if it has been given all
    /// the room there is.
    pub(crate) fn make_more_room(&mut self) -> bool {
        self.pids.as_mut().is_some_and(Pids::make_more_room)
    }

    pub(crate) fn memory_peak_bytes(&mut self) -> Option<u64> {
        let file = self.memory.as_mut()?.peak.as_mut()?;
        read_again(file).ok()?.trim().parse().ok()
    }
}

#[derive(Debug)]
struct Memory {
    events: File,
    /// Absent on kernels that cannot tell.
    peak: Option<File>,
}

impl Memory {
    fn limit(version: Version, dir: &Path, max: u64) -> io::Result<Self> {
        let (events, peak) = match version {
            Version::V1 => {
                v1::limit_memory(dir, max)?;
                ("memory.oom_control", "memory.max_usage_in_bytes")
            }
            Version::V2 => {
                v2::limit_memory(dir, max)?;
                ("memory.events", "memory.peak")
            }
        };
        let peak = dir.join(peak);
        // Kernels before 6.12 have it read-only on version 2.
        let opened = OpenOptions::new().read(true).write(true).open(&peak);
        Ok(Self {
            events: File::open(dir.join(events))?,
            peak: opened.or_else(|_| File::open(&peak)).ok(),
        })
    }

    fn reset_peak(&mut self) {
        if let Some(peak) = &mut self.peak {
            // Where it cannot be reset it is the peak of the slot's life so far.
            let _ = peak.write_all(b"0");
        }
    }
}

#[derive(Debug)]
struct Pids {
    dir: PathBuf,
    max: u32,
    events: File,
    current: File,
    /// What is given beyond the limit at the moment.
    spare: u32,
}

impl Pids {
    fn limit(dir: &Path, max: u32) -> io::Result<Self> {
        let mut pids = Self {
            dir: dir.to_owned(),
            max,
            events: File::open(dir.join("pids.events"))?,
            current: File::open(dir.join("pids.current"))?,
            spare: 0,
        };
        pids.set(0)?;
        Ok(pids)
    }

    /// One more for the init, which is in it too.
    fn set(&mut self, spare: u32) -> io::Result<()> {
        let text = match self.max {
            0 => "max".to_owned(),
            max => max.saturating_add(1 + spare).to_string(),
        };
        write_existing(&self.dir.join("pids.max"), &text)?;
        self.spare = spare;
        Ok(())
    }

    fn current(&self) -> u32 {
        read_again(&self.current).ok().and_then(|it| it.trim().parse().ok()).unwrap_or(0)
    }

    /// In a slot where nothing runs: processes that are gone are counted a moment longer, and would
    /// refuse the call's own.
    async fn until_uncounted(&mut self) {
        let until = Instant::now() + UNCOUNTED_MAX;
        let mut current = self.current();
        // The init is one.
        while current > 1 && Instant::now() < until {
            sleep(UNCOUNTED_TICK).await;
            current = self.current();
        }
        self.make_room(current);
    }

    /// A slot that is full can be entered.
    fn make_room(&mut self, current: u32) {
        if self.max == 0 {
            return;
        }
        let spare = match current.checked_sub(self.max) {
            None | Some(0) => 0,
            Some(over) => (over + PROCESSES_SPARE).min(PROCESSES_SPARE_MAX),
        };
        if spare != self.spare {
            // The call is told if there is no room.
            let _ = self.set(spare);
        }
    }

    fn make_more_room(&mut self) -> bool {
        let more = self.spare.max(PROCESSES_SPARE).saturating_mul(2).min(PROCESSES_SPARE_MAX);
        self.max > 0 && more > self.spare && self.set(more).is_ok()
    }
}

#[derive(Debug)]
enum CpuTime {
    V1 { usage: File, stat: File },
    V2 { stat: File },
}

impl CpuTime {
    fn open(version: Version, dir: &Path) -> io::Result<Self> {
        Ok(match version {
            Version::V1 => Self::V1 {
                usage: File::open(dir.join("cpuacct.usage"))?,
                stat: File::open(dir.join("cpuacct.stat"))?,
            },
            Version::V2 => Self::V2 { stat: File::open(dir.join("cpu.stat"))? },
        })
    }

    fn usage_us(&mut self) -> Option<u64> {
        match self {
            Self::V1 { usage, .. } => {
                let ns: u64 = read_again(usage).ok()?.trim().parse().ok()?;
                Some(ns / 1_000)
            }
            Self::V2 { stat } => v2::stat_us(&read_again(stat).ok()?, "usage_usec"),
        }
    }

    fn split(&mut self) -> CpuSplit {
        match self {
            Self::V1 { stat, .. } => v1::split(&read_again(stat).unwrap_or_default()),
            Self::V2 { stat } => v2::split(&read_again(stat).unwrap_or_default()),
        }
    }
}

/// A line `name N`.
fn count(file: &mut File, name: &str) -> u64 {
    let text = read_again(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|it| it.trim().parse().ok()).unwrap_or(0)
}

/// By one system call: a dozen of these are made for each command.
fn read_again(file: &File) -> io::Result<String> {
    let mut text = [0; COUNTER_BYTES_MAX];
    let length = file.read_at(&mut text, 0)?;
    Ok(String::from_utf8_lossy(&text[..length]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Cgroups;

    const FILES: [(&str, &str); 10] = [
        ("cgroup.procs", ""),
        ("memory.max", ""),
        ("memory.swap.max", ""),
        ("memory.events", "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n"),
        ("memory.peak", "4096\n"),
        ("pids.max", ""),
        ("pids.events", "max 5\n"),
        ("pids.current", "1\n"),
        ("cpu.max", ""),
        ("cpu.stat", "usage_usec 70\nuser_usec 50\nsystem_usec 20\n"),
    ];

    /// A tree of files that looks as version 2 does.
    fn v2_slot(limits: &SlotLimits) -> (tempfile::TempDir, io::Result<SlotCgroup>) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("0")).unwrap();
        for (name, text) in FILES {
            fs::write(dir.path().join("0").join(name), text).unwrap();
        }
        let place = Some(Place { version: Version::V2, dir: dir.path().to_owned() });
        let cgroups = Cgroups {
            memory: place.clone(),
            pids: place.clone(),
            cpu: place.clone(),
            cpu_time: place,
            subtree: None,
        };
        let slot = cgroups.slot("0", limits);
        (dir, slot)
    }

    #[test]
    fn version_2_is_told_its_limits_and_read_for_what_was_used() {
        let limits = SlotLimits {
            memory_bytes_max: 1 << 20,
            processes_max: 7,
            cpu_millis_max: 250,
            ..SlotLimits::default()
        };
        let (dir, slot) = v2_slot(&limits);
        let mut slot = slot.unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join("0").join(name)).unwrap();
        assert_eq!(read("memory.max"), "1048576");
        assert_eq!(read("memory.swap.max"), "0");
        assert_eq!(read("pids.max"), "8");
        assert_eq!(read("cpu.max"), "25000 100000");
        slot.placing()(77).unwrap();
        assert_eq!(read("cgroup.procs"), "77");
        assert_eq!(slot.processes(), [77]);
        let counters = Counters {
            oom_kills: 2,
            pids_hits: 5,
            cpu_us: Some(70),
            cpu_split: CpuSplit { user_us: 50, system_us: 20 },
        };
        assert_eq!(slot.counters(), counters);
        assert_eq!(slot.memory_peak_bytes(), Some(4_096));
    }

    #[test]
    fn no_limit_is_a_word_of_the_kernels() {
        let limits = SlotLimits {
            memory_bytes_max: 0,
            processes_max: 0,
            cpu_millis_max: 0,
            ..SlotLimits::default()
        };
        let (dir, slot) = v2_slot(&limits);
        slot.unwrap();
        for (name, text) in [("memory.max", "max"), ("pids.max", "max"), ("cpu.max", "max 100000")]
        {
            assert_eq!(fs::read_to_string(dir.path().join("0").join(name)).unwrap(), text);
        }
    }

    #[tokio::test]
    async fn a_full_slot_gets_some_room_for_the_next_call_and_loses_it_again() {
        let (dir, slot) = v2_slot(&SlotLimits { processes_max: 100, ..SlotLimits::default() });
        let mut slot = slot.unwrap();
        let written = || fs::read_to_string(dir.path().join("0/pids.max")).unwrap();
        for (current, max) in [("100", "101"), ("101", "118"), ("110", "127"), ("9", "101")] {
            fs::write(dir.path().join("0/pids.current"), current).unwrap();
            slot.prepare_for_call(false).await;
            assert_eq!(written(), max, "{current}");
        }
        for max in ["133", "165", "229", "357"] {
            assert!(slot.make_more_room());
            assert_eq!(written(), max);
        }
        assert!(!slot.make_more_room());
    }
}
