//! The machine as it is seen from outside of all slots.

use crate::server::LIMIT;
use rustix::process::Pid;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// A number that no other command line on this machine has. `sleep 3000.MARK` carries it.
pub(crate) fn mark() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{:07}{:05}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// One process, not to be mistaken for a later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    started: String,
    command: String,
}

impl Process {
    fn find(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<_> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        Some(Self { pid, started: (*fields.get(19)?).to_owned(), command })
    }

    pub(crate) fn is_zombie(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.pid)).is_ok_and(|it| it.contains(") Z "))
    }

    /// One that only waits to be reaped is not: by whom and when is the machine's affair, once
    /// its parent is gone.
    pub(crate) fn is_alive(&self) -> bool {
        Self::find(self.pid).is_some_and(|it| it.started == self.started) && !self.is_zombie()
    }
}

fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|it| it.file_name().to_str()?.parse().ok())
}

/// Processes with `mark` on their command line.
pub(crate) fn marked(mark: &str) -> Vec<i32> {
    let on = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(mark)
    };
    pids().filter(on).collect()
}

/// The `sleep` that carries the mark. What is about to become one carries it too, and for a moment
/// nothing at all.
pub(crate) async fn sleeper(mark: &str) -> i32 {
    let sleeps = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep\0"))
    };
    let find = || marked(mark).into_iter().find(sleeps);
    until(&format!("a sleep carries {mark}"), || find().is_some()).await;
    find().unwrap()
}

/// Processes with `mark` on their command line, in their environment or among their mounts.
pub(crate) fn marked_in_depth(mark: &str) -> Vec<Process> {
    let on = |pid: &i32| {
        ["cmdline", "environ", "mountinfo"].iter().any(|name| {
            let text = fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            String::from_utf8_lossy(&text).contains(mark)
        })
    };
    let own = i32::try_from(std::process::id()).unwrap();
    pids().filter(|pid| *pid != own).filter(on).filter_map(Process::find).collect()
}

pub(crate) fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// A server's process, its descendants, and others that carry its mark.
pub(crate) fn processes_of(server: Pid, mark: &str) -> Vec<Process> {
    let mut found = BTreeSet::from([server.as_raw_nonzero().get()]);
    loop {
        let before = found.len();
        let children: Vec<_> =
            pids().filter(|pid| parent(*pid).is_some_and(|it| found.contains(&it))).collect();
        found.extend(children);
        if found.len() == before {
            break;
        }
    }
    let mut processes = marked_in_depth(mark);
    processes.extend(found.into_iter().filter_map(Process::find));
    processes
}

pub(crate) fn cgroups_named(name: &str) -> Vec<PathBuf> {
    fn look(dir: &Path, name: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|it| it.is_dir()) {
                if entry.file_name() == name {
                    found.push(entry.path());
                }
                look(&entry.path(), name, found);
            }
        }
    }
    let mut found = Vec::new();
    look(Path::new("/sys/fs/cgroup"), name, &mut found);
    found
}

/// A line of `/proc/PID/status` in KiB.
pub(crate) fn status_kib(pid: i32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse().unwrap()
}

/// Waits for something that is bound to become so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    until_within(LIMIT, what, async || is_so()).await;
}

pub(crate) async fn until_within(
    limit: Duration,
    what: &str,
    mut is_so: impl AsyncFnMut() -> bool,
) {
    let end = Instant::now() + limit;
    while !is_so().await {
        assert!(Instant::now() < end, "after {limit:?} still not so: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until no process carries the mark any more.
pub(crate) async fn until_gone(mark: &str) {
    until(&format!("no process carries {mark}"), || marked(mark).is_empty()).await;
}

/// Whether the kernel's Landlock knows scopes (version 6).
#[expect(unsafe_code, reason = "no library of ours asks for the version")]
pub(crate) fn scopes_abstract_sockets() -> bool {
    // SAFETY: asks for a number; the null attributes are not looked at.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) >= 6 }
}
