//! The files of a container's cgroup, of version 1 or 2.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

const ROOT: &str = "/sys/fs/cgroup";

/// Of version 1, in both spellings.
const CPU: [&str; 3] = ["cpuacct", "cpu,cpuacct", "cpuacct,cpu"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cgroup {
    V1 { cpuacct: PathBuf, memory: Option<PathBuf> },
    V2 { dir: PathBuf },
}

impl Cgroup {
    /// Where engines usually put it.
    pub(crate) fn of_id(id: &str) -> Option<Self> {
        let below = [format!("docker/{id}"), format!("system.slice/docker-{id}.scope")];
        below.iter().find_map(|below| Self::at(Path::new(ROOT), below, below))
    }

    /// Where it says itself. Only if it is the container's: its number may be another's by now.
    pub(crate) fn of_process(pid: u32, id: &str) -> Option<Self> {
        Self::of_lines(
            Path::new(ROOT),
            &fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?,
            id,
        )
    }

    fn of_lines(root: &Path, lines: &str, id: &str) -> Option<Self> {
        let path_of = |wanted: &str| {
            lines.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let (controllers, path) = (parts.next()?, parts.next()?);
                let is_it = controllers.split(',').any(|it| it == wanted);
                (is_it && path.contains(id)).then(|| path.trim_start_matches('/'))
            })
        };
        let cpu = path_of("cpuacct").or_else(|| path_of(""))?;
        Self::at(root, cpu, path_of("memory").unwrap_or(cpu))
    }

    fn at(root: &Path, cpu: &str, memory: &str) -> Option<Self> {
        let unified = root.join(cpu);
        if unified.join("cpu.stat").exists() && unified.join("cgroup.procs").exists() {
            return Some(Self::V2 { dir: unified });
        }
        let cpuacct = CPU.iter().map(|it| root.join(it).join(cpu));
        let cpuacct = cpuacct.into_iter().find(|it| it.join("cpuacct.usage").exists())?;
        let memory = root.join("memory").join(memory);
        let memory = memory.join("memory.oom_control").exists().then_some(memory);
        Some(Self::V1 { cpuacct, memory })
    }

    /// Of all processes that there ever were in it. `None`: it is gone.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        match self {
            Self::V1 { cpuacct, .. } => {
                let text = fs::read_to_string(cpuacct.join("cpuacct.usage")).ok()?;
                Some(Duration::from_nanos(text.trim().parse().ok()?))
            }
            Self::V2 { dir } => {
                let text = fs::read_to_string(dir.join("cpu.stat")).ok()?;
                number(&text, "usage_usec").map(Duration::from_micros)
            }
        }
    }

    /// Whatever in it is killed for memory, all of it is. Version 1 has no such thing, and grading
    /// containers of INGInious want to see it before they begin.
    pub(crate) fn end_as_one(&self) -> io::Result<()> {
        match self {
            Self::V1 { .. } => Ok(()),
            Self::V2 { dir } => fs::write(dir.join("memory.oom.group"), b"1"),
        }
    }

    /// What is gone has none.
    pub(crate) fn has_processes(&self) -> bool {
        let (Self::V1 { cpuacct: dir, .. } | Self::V2 { dir }) = self;
        let found = fs::read(dir.join("cgroup.procs"));
        // Version 2 refuses it where there are threads of their own.
        found.map_or_else(|error| error.kind() != io::ErrorKind::NotFound, |it| !it.is_empty())
    }

    /// Whether it waits for memory (version 1), or something in it was killed for want of it.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        match self {
            Self::V1 { memory: Some(dir), .. } => {
                number(&read(dir.join("memory.oom_control")), "under_oom") == Some(1)
            }
            Self::V1 { memory: None, .. } => false,
            Self::V2 { dir } => {
                // With `memory.oom.group` everything in it was killed: its end is on its way.
                number(&read(dir.join("memory.events")), "oom_group_kill").is_some_and(|it| it > 0)
            }
        }
    }
}

/// Of `name value` lines.
fn number(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn both_versions_are_read_where_the_process_says_it_is() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root, "cpu,cpuacct/docker/abc/cpuacct.usage", "1500000000\n");
        write(root, "memory/docker/abc/memory.oom_control", "oom_kill_disable 1\nunder_oom 1\n");
        let lines = "9:name=systemd:/\n4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/\n";
        let cgroup = Cgroup::of_lines(root, lines, "abc").unwrap();
        assert_eq!(cgroup.cpu(), Some(Duration::from_millis(1500)));
        assert!(cgroup.is_out_of_memory());
        write(root, "cpu,cpuacct/docker/abc/cgroup.procs", "12\n");
        assert!(cgroup.has_processes());
        write(root, "cpu,cpuacct/docker/abc/cgroup.procs", "");
        assert!(!cgroup.has_processes());
        assert_eq!(Cgroup::of_lines(root, lines, "other"), None, "of another container by now");

        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root, "system.slice/docker-abc.scope/cpu.stat", "usage_usec 250000\nuser_usec 1\n");
        write(root, "system.slice/docker-abc.scope/cgroup.procs", "");
        write(root, "system.slice/docker-abc.scope/memory.events", "oom 4\noom_group_kill 0\n");
        let lines = "0::/system.slice/docker-abc.scope\n";
        let cgroup = Cgroup::of_lines(root, lines, "abc").unwrap();
        assert_eq!(cgroup.cpu(), Some(Duration::from_millis(250)));
        assert!(!cgroup.is_out_of_memory());
        cgroup.end_as_one().unwrap();
        let group = root.join("system.slice/docker-abc.scope/memory.oom.group");
        assert_eq!(fs::read_to_string(group).unwrap(), "1");
        fs::remove_dir_all(root.join("system.slice")).unwrap();
        assert_eq!((cgroup.cpu(), cgroup.has_processes()), (None, false));
    }
}
