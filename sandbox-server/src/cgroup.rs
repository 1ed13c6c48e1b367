//! Memory and process limits by cgroup, version 1 or 2, where this process may write.
//!
//! Slots keep their cgroups from lease to lease; counters are read as differences. Whatever a
//! machine does not offer is left to the slot-init: rlimits, and a watch over its memory.

use rustix::{
    event::{Timespec, poll},
    process::{Pid, Signal, kill_process},
};
use slotmux_protocol::SlotLimits;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

/// Processes of a slot's cgroup beyond its limit: the init has to be able to start a command in
/// a slot that is full (the limit itself is an rlimit of each command).
const PROCESSES_SPARE: u32 = 16;
/// Servers of one name on one machine, and what killed ones have left.
const NAMESAKES_MAX: u32 = 1_000;
/// Five seconds in all.
const PAUSES_MAX: usize = 1_000;
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// Where this server makes its cgroups. Removed by [`Cgroups::remove`].
#[derive(Debug)]
pub(crate) struct Cgroups {
    memory: Option<(Version, PathBuf)>,
    pids: Option<(Version, PathBuf)>,
}

impl Cgroups {
    /// `name` is the container's: unique among those alive on this machine.
    pub(crate) fn detect(name: &str) -> Self {
        let name = directory_name(name);
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        if let Some(dir) = v2_directory(&own, &mounts, &name) {
            let place = Some((Version::V2, dir));
            return Self { memory: place.clone(), pids: place };
        }
        Self {
            memory: v1_directory(&own, &mounts, "memory", &name),
            pids: v1_directory(&own, &mounts, "pids", &name),
        }
    }

    pub(crate) fn memory_by(&self) -> Option<&'static str> {
        self.memory.as_ref().map(|(version, _)| version.name())
    }

    pub(crate) fn pids_by(&self) -> Option<&'static str> {
        self.pids.as_ref().map(|(version, _)| version.name())
    }

    pub(crate) fn slot(&self, name: &str, limits: &SlotLimits) -> io::Result<SlotCgroup> {
        let memory = match &self.memory {
            Some((version, dir)) => Some(Memory::create(*version, &dir.join(name), limits)?),
            None => None,
        };
        let pids = match &self.pids {
            Some((_, dir)) => Some(create_pids(&dir.join(name), limits)?),
            None => None,
        };
        Ok(SlotCgroup { memory, pids })
    }

    /// Removes what is empty; call it after the slots' processes are gone.
    pub(crate) fn remove(&self) {
        self.directories().for_each(remove_tree);
    }

    fn directories(&self) -> impl Iterator<Item = &Path> {
        self.memory.iter().chain(&self.pids).map(|(_, dir)| dir.as_path())
    }

    /// Writes down where they are: who cleans up after a killed server may live in another cgroup,
    /// and so would look for them elsewhere.
    pub(crate) fn record(&self, file: &Path) -> io::Result<()> {
        let mut text = String::new();
        for dir in self.directories() {
            text.push_str(&dir.to_string_lossy());
            text.push('\n');
        }
        fs::write(file, text)
    }
}

/// Removes what a killed server has recorded, and kills what is still in it.
pub(crate) fn remove_recorded(file: &Path) {
    for dir in fs::read_to_string(file).unwrap_or_default().lines().map(Path::new) {
        // A killed process leaves its cgroup when it is reaped, or its parent's parent gets to it.
        for _ in 0..PAUSES_MAX {
            if kill_members(dir) == 0 {
                break;
            }
            let _ = poll(&mut [], Some(&PAUSE));
        }
        remove_tree(dir);
    }
}

/// How many there were.
fn kill_members(dir: &Path) -> usize {
    let members = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let mut count = 0;
    for pid in members.lines().filter_map(|it| it.parse().ok()).filter_map(Pid::from_raw) {
        count += 1;
        // Gone meanwhile is what we want.
        let _ = kill_process(pid, Signal::KILL);
    }
    let below = fs::read_dir(dir).into_iter().flatten().flatten();
    let directories = below.filter(|it| it.file_type().is_ok_and(|it| it.is_dir()));
    count + directories.map(|it| kill_members(&it.path())).sum::<usize>()
}

impl Version {
    fn name(self) -> &'static str {
        match self {
            Self::V1 => "cgroup v1",
            Self::V2 => "cgroup v2",
        }
    }
}

/// A cgroup's directories can be removed, deepest first, and its files cannot.
fn remove_tree(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|it| it.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let mut removed = fs::remove_dir(dir);
    for _ in 0..PAUSES_MAX {
        // A process that has ended, and is listed no more, keeps its cgroup busy for a moment.
        if !matches!(&removed, Err(error) if error.kind() == io::ErrorKind::ResourceBusy) {
            break;
        }
        let _ = poll(&mut [], Some(&PAUSE));
        removed = fs::remove_dir(dir);
    }
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(dir = %dir.display(), %error, "cgroup not removed");
    }
}

fn directory_name(container: &str) -> String {
    let safe = container.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '-' });
    format!("slotmux-{}", safe.collect::<String>())
}

fn v1_directory(
    own: &str,
    mounts: &str,
    controller: &str,
    name: &str,
) -> Option<(Version, PathBuf)> {
    let mount = mounts.lines().map(fields).find(|it| {
        it.get(2) == Some(&"cgroup")
            && it.get(3).is_some_and(|options| options.split(',').any(|it| it == controller))
    })?;
    let path = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let controllers = parts.next()?;
        controllers.split(',').any(|it| it == controller).then(|| parts.next()).flatten()
    })?;
    let parent = below(Path::new(mount.get(1)?), path);
    new_directory(&parent, name).map(|dir| (Version::V1, dir))
}

fn v2_directory(own: &str, mounts: &str, name: &str) -> Option<PathBuf> {
    let dir = new_directory(&v2_parent(own, mounts)?, name)?;
    delegate(&dir).ok()?;
    Some(dir)
}

/// Our own cgroup, when it may have children with limits.
fn v2_parent(own: &str, mounts: &str) -> Option<PathBuf> {
    let mount = mounts.lines().map(fields).find(|it| it.get(2) == Some(&"cgroup2"))?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let parent = below(Path::new(mount.get(1)?), path);
    let offered = fs::read_to_string(parent.join("cgroup.controllers")).ok()?;
    if !["memory", "pids"].iter().all(|it| offered.split_whitespace().any(|has| has == *it)) {
        return None;
    }
    if delegate(&parent).is_err() {
        // Processes in a cgroup forbid it to have limited children: we go into a leaf first.
        let leaf = parent.join("slotmux-server");
        fs::create_dir_all(&leaf).ok()?;
        fs::write(leaf.join("cgroup.procs"), "0").ok()?;
        delegate(&parent).ok()?;
    }
    Some(parent)
}

fn delegate(dir: &Path) -> io::Result<()> {
    write_existing(&dir.join("cgroup.subtree_control"), "+memory +pids")
}

fn fields(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// In a cgroup namespace the path may lie outside of what is mounted: then the mount is ours.
fn below(mount: &Path, path: &str) -> PathBuf {
    let inner = mount.join(path.trim_start_matches('/'));
    if inner.is_dir() { inner } else { mount.to_owned() }
}

/// A directory that nobody else has, not even a server of the same name: processes in it are ours
/// to kill.
fn new_directory(parent: &Path, name: &str) -> Option<PathBuf> {
    for number in 0..NAMESAKES_MAX {
        let suffix = if number == 0 { String::new() } else { format!("-{number}") };
        let dir = parent.join(format!("{name}{suffix}"));
        match fs::create_dir(&dir) {
            Ok(()) => return Some(dir),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(_read_only) => return None,
        }
    }
    None
}

/// Makes the directory of a slot, or makes use of the one that is there.
fn usable(dir: PathBuf) -> Option<PathBuf> {
    match fs::create_dir(&dir) {
        Ok(()) => Some(dir),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Some(dir),
        Err(_read_only) => None,
    }
}

fn create_pids(dir: &Path, limits: &SlotLimits) -> io::Result<PathBuf> {
    usable(dir.to_owned()).ok_or(io::ErrorKind::PermissionDenied)?;
    let max = match limits.processes_max {
        0 => "max".to_owned(),
        max => (max.saturating_add(PROCESSES_SPARE)).to_string(),
    };
    write_existing(&dir.join("pids.max"), &max)?;
    Ok(dir.to_owned())
}

/// Without `O_CREAT`: a file that the kernel does not offer must not be "written".
fn write_existing(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

#[derive(Debug)]
pub(crate) struct SlotCgroup {
    memory: Option<Memory>,
    pids: Option<PathBuf>,
}

#[derive(Debug)]
struct Memory {
    version: Version,
    dir: PathBuf,
    /// Kept open: read at each call.
    events: File,
    /// Absent on kernels that cannot tell.
    peak: Option<File>,
}

impl SlotCgroup {
    pub(crate) fn holds_memory(&self) -> bool {
        self.memory.is_some()
    }

    /// What this process forks later will be in it too.
    pub(crate) fn add(&self, pid: i32) -> io::Result<()> {
        let memory = self.memory.as_ref().map(|it| &it.dir);
        for dir in memory.into_iter().chain(&self.pids) {
            write_existing(&dir.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Whether the kernel says what of the slot runs.
    pub(crate) fn can_tell(&self) -> bool {
        self.memory.is_some() || self.pids.is_some()
    }

    /// What of the slot runs, by the kernel's word; nothing where it cannot say.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let memory = self.memory.as_ref().map(|it| &it.dir);
        let procs = memory.into_iter().chain(&self.pids).flat_map(|dir| {
            // Unreadable is not empty.
            fs::read_to_string(dir.join("cgroup.procs"))
                .unwrap_or_else(|_| "0".to_owned())
                .lines()
                .filter_map(|it| it.parse().ok())
                .collect::<Vec<_>>()
        });
        procs.collect()
    }

    /// Processes that the kernel has killed here for memory, ever.
    pub(crate) fn oom_kills(&mut self) -> u64 {
        self.memory.as_mut().map_or(0, |it| it.oom_kills().unwrap_or(0))
    }

    pub(crate) fn reset_peak(&mut self) {
        if let Some(peak) = self.memory.as_mut().and_then(|it| it.peak.as_mut()) {
            // Kernels before 6.12 cannot on version 2: then it is the peak of the lease so far.
            let _ = peak.write_all(b"0");
        }
    }

    pub(crate) fn peak_bytes(&mut self) -> Option<u64> {
        let file = self.memory.as_mut()?.peak.as_mut()?;
        read_again(file).ok()?.trim().parse().ok()
    }
}

impl Memory {
    fn create(version: Version, dir: &Path, limits: &SlotLimits) -> io::Result<Self> {
        usable(dir.to_owned()).ok_or(io::ErrorKind::PermissionDenied)?;
        let max = limits.memory_bytes_max;
        match version {
            Version::V1 => {
                let text = if max == 0 { "-1".to_owned() } else { max.to_string() };
                write_existing(&dir.join("memory.limit_in_bytes"), &text)?;
                // Absent when swap is not accounted.
                let _ = write_existing(&dir.join("memory.memsw.limit_in_bytes"), &text);
            }
            Version::V2 => {
                let text = if max == 0 { "max".to_owned() } else { max.to_string() };
                write_existing(&dir.join("memory.max"), &text)?;
                let _ = write_existing(&dir.join("memory.swap.max"), "0");
            }
        }
        let (events, peak) = match version {
            Version::V1 => ("memory.oom_control", "memory.max_usage_in_bytes"),
            Version::V2 => ("memory.events", "memory.peak"),
        };
        let peak = dir.join(peak);
        let peak = OpenOptions::new().read(true).write(true).open(&peak);
        Ok(Self {
            version,
            dir: dir.to_owned(),
            events: File::open(dir.join(events))?,
            peak: peak.or_else(|_| File::open(dir.join("memory.peak"))).ok(),
        })
    }

    fn oom_kills(&mut self) -> io::Result<u64> {
        let text = read_again(&mut self.events)?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        debug_assert!(count.is_some() || self.version == Version::V1, "{text}");
        Ok(count.and_then(|it| it.trim().parse().ok()).unwrap_or(0))
    }
}

fn read_again(file: &mut File) -> io::Result<String> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v1_hierarchy_is_found_where_this_process_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap();
        fs::create_dir_all(dir.path().join("box/inner")).unwrap();
        let mounts = format!("cgroup {root} cgroup rw,nosuid,memory 0 0\n");
        let own = "5:cpu:/\n4:memory:/box/inner\n0::/\n";
        let found = v1_directory(own, &mounts, "memory", "slotmux-a");
        assert_eq!(found, Some((Version::V1, dir.path().join("box/inner/slotmux-a"))));
        assert_eq!(v1_directory(own, &mounts, "pids", "slotmux-a"), None);
    }

    #[test]
    fn a_v2_hierarchy_counts_only_with_both_controllers() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap();
        let mounts = format!("cgroup2 {root} cgroup2 rw 0 0\n");
        fs::write(dir.path().join("cgroup.controllers"), "cpu memory\n").unwrap();
        assert_eq!(v2_parent("0::/\n", &mounts), None);
        fs::write(dir.path().join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        fs::write(dir.path().join("cgroup.subtree_control"), "").unwrap();
        assert_eq!(v2_parent("0::/\n", &mounts).as_deref(), Some(dir.path()));
        let control = fs::read_to_string(dir.path().join("cgroup.subtree_control")).unwrap();
        assert_eq!(control, "+memory +pids");
    }

    #[test]
    fn servers_of_one_name_do_not_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let made = [(); 3].map(|()| new_directory(dir.path(), "slotmux-a").unwrap());
        assert_eq!(made, ["slotmux-a", "slotmux-a-1", "slotmux-a-2"].map(|it| dir.path().join(it)));
    }

    #[test]
    fn a_container_name_is_one_directory() {
        assert_eq!(directory_name("a/../b c"), "slotmux-a----b-c");
    }
}
