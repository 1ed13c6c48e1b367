//! Processes, cgroups and mounts, noted while they are there and looked for when they should be
//! gone.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::until;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// A process id alone may be given out again.
type Process = (u32, String);

#[derive(Debug, Default)]
pub struct Traces {
    processes: BTreeSet<Process>,
    cgroups: BTreeSet<PathBuf>,
}

impl Traces {
    pub fn count(&self) -> usize {
        self.processes.len()
    }

    /// Everything below `pid`, and the cgroups of ours that these are in.
    pub fn add_descendants(&mut self, pid: u32) {
        let parents: Vec<_> = processes().filter_map(|it| Some((it, parent(it)?))).collect();
        let mut below = vec![pid];
        while let Some(pid) = below.pop() {
            if let Some(started) = started(pid) {
                self.processes.insert((pid, started));
            }
            self.cgroups.extend(cgroups_of(pid));
            below.extend(parents.iter().filter(|it| it.1 == pid).map(|it| it.0));
        }
    }

    pub async fn assert_gone(&self, patience: Duration) {
        until("every process is gone", patience, async || {
            self.processes.iter().all(|it| !lives(it)).then_some(())
        })
        .await;
        let left: Vec<_> = self.cgroups.iter().filter(|it| it.exists()).collect();
        assert!(left.is_empty(), "cgroups are left: {left:?}");
    }
}

/// A zombie that its parent does not reap is its parent's fault, not ours.
fn lives((pid, started_at): &Process) -> bool {
    started(*pid).is_some_and(|it| it == *started_at)
        && fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|it| !it.rsplit(") ").next().is_some_and(|it| it.starts_with('Z')))
}

pub fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|it| it.file_name().to_str()?.parse().ok())
}

pub fn arguments(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|it| *it == 0).map(|it| String::from_utf8_lossy(it).into_owned()).collect()
}

/// Counted from the end of the name, which may hold anything.
fn stat_field(pid: u32, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.split(' ').nth(field - 3).map(str::to_owned)
}

fn parent(pid: u32) -> Option<u32> {
    stat_field(pid, 4)?.parse().ok()
}

fn started(pid: u32) -> Option<String> {
    stat_field(pid, 22)
}

fn cgroups_of(pid: u32) -> Vec<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let ours = text.lines().filter(|line| line.contains("slotmux-"));
    ours.filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controller, path) = (parts.next()?, parts.next()?);
        Some(Path::new("/sys/fs/cgroup").join(controller).join(path.trim_start_matches('/')))
    })
    .filter(|path| path.exists())
    .collect()
}

pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // It may have ended by itself.
    let _ = kill_process(pid, signal);
}

/// Mounts of this namespace below `dir`.
pub fn mounts_below(dir: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let below = mounts
        .lines()
        .filter(|line| line.split(' ').nth(1).is_some_and(|it| Path::new(it).starts_with(dir)));
    below.map(str::to_owned).collect()
}
