//! Limits of memory, processes and processors by cgroup, version 1 or 2, where this process may
//! write.
//!
//! Slots keep their cgroups from lease to lease; counters are read as differences. Whatever a
//! machine does not offer is left to the slot-init: rlimits, and its watch.
//!
//! `place` knows directories, `v1` and `v2` what each version calls things, `slot` what one slot
//! has, `removal` how all of it goes away again.

mod place;
mod removal;
mod slot;
mod v1;
mod v2;

pub(crate) use removal::remove_recorded;
pub(crate) use slot::{Counters, SlotCgroup};

use place::{Place, Version, directory_name, new_directory, write_existing};
use slotmux_protocol::SlotLimits;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Whose processor time it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CpuSplit {
    pub(crate) user_us: u64,
    pub(crate) system_us: u64,
}

/// Where this server makes its cgroups. Removed by [`Cgroups::remove`].
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    memory: Option<Place>,
    pids: Option<Place>,
    /// The share of processors.
    cpu: Option<Place>,
    /// What was used of them.
    cpu_time: Option<Place>,
    subtree: Option<v2::Subtree>,
}

impl Cgroups {
    /// `name` is the container's: unique among those alive on this machine.
    pub(crate) fn detect(name: &str) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        Self::detect_in(&own, &mounts, &directory_name(name))
    }

    fn detect_in(own: &str, mounts: &str, name: &str) -> Self {
        let subtree = v2::Subtree::take(own, mounts, name, &write_existing);
        let handed = |controller: &str| {
            let subtree = subtree.as_ref().filter(|it| it.controllers.contains(&controller))?;
            Some(Place { version: Version::V2, dir: subtree.dir.clone() })
        };
        // Two controllers of one hierarchy share a directory.
        let mut made: Vec<(PathBuf, PathBuf)> = Vec::new();
        let mut on_v1 = |controller: &str| {
            let parent = v1::parent(own, mounts, controller)?;
            let dir = match made.iter().find(|(known, _)| *known == parent) {
                Some((_, dir)) => dir.clone(),
                None => new_directory(&parent, name)?,
            };
            made.push((parent, dir.clone()));
            Some(Place { version: Version::V1, dir })
        };
        // Version 2 counts processor time in each cgroup, whatever is limited there.
        let counted =
            subtree.as_ref().map(|it| Place { version: Version::V2, dir: it.dir.clone() });
        Self {
            memory: handed("memory").or_else(|| on_v1("memory")),
            pids: handed("pids").or_else(|| on_v1("pids")),
            cpu: handed("cpu").or_else(|| on_v1("cpu")),
            cpu_time: counted.or_else(|| on_v1("cpuacct")),
            subtree,
        }
    }

    pub(crate) fn memory_by(&self) -> Option<&'static str> {
        self.memory.as_ref().map(|it| it.version.name())
    }

    pub(crate) fn pids_by(&self) -> Option<&'static str> {
        self.pids.as_ref().map(|it| it.version.name())
    }

    pub(crate) fn cpu_by(&self) -> Option<&'static str> {
        self.cpu.as_ref().map(|it| it.version.name())
    }

    pub(crate) fn cpu_time_by(&self) -> Option<&'static str> {
        self.cpu_time.as_ref().map(|it| it.version.name())
    }

    pub(crate) fn slot(&self, name: &str, limits: &SlotLimits) -> io::Result<SlotCgroup> {
        SlotCgroup::create(name, self, limits)
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        [&self.memory, &self.pids, &self.cpu, &self.cpu_time].into_iter().flatten()
    }

    /// Each once.
    fn directories(&self) -> Vec<&Path> {
        let mut dirs: Vec<_> = self.places().map(|it| it.dir.as_path()).collect();
        dirs.sort_unstable();
        dirs.dedup();
        dirs
    }

    /// Removes what is empty; call it after the slots' processes are gone.
    pub(crate) fn remove(&self) {
        self.directories().into_iter().for_each(removal::remove_tree);
        if let Some(subtree) = &self.subtree {
            subtree.close(&write_existing);
        }
    }

    /// Writes down where they are: who cleans up after a killed server may live in another cgroup,
    /// and so would look for them elsewhere.
    pub(crate) fn record(&self, file: &Path) -> io::Result<()> {
        let mut text = String::new();
        // Not the leaf that we went into ourselves: whoever started us may be in it too.
        for dir in self.directories() {
            text.push_str(&dir.to_string_lossy());
            text.push('\n');
        }
        fs::write(file, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_of_one_hierarchy_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for name in ["cpu,cpuacct", "pids"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        let mounts = format!(
            "cgroup {0}/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\ncgroup {0}/pids cgroup rw,pids 0 0\n",
            root.display()
        );
        let found = Cgroups::detect_in("4:cpu,cpuacct:/\n3:pids:/\n", &mounts, "slotmux-a");
        assert_eq!(found.cpu, found.cpu_time);
        assert_eq!(found.cpu.as_ref().unwrap().dir, root.join("cpu,cpuacct/slotmux-a"));
        assert_eq!((found.memory_by(), found.pids_by()), (None, Some("cgroup v1")));
        assert_eq!(found.directories().len(), 2);
    }

    #[test]
    fn what_version_2_does_not_hand_on_is_taken_from_version_1() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for name in ["unified", "memory", "pids"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        fs::write(root.join("unified/cgroup.controllers"), "pids\n").unwrap();
        fs::write(root.join("unified/cgroup.subtree_control"), "").unwrap();
        // A kernel makes these when the directory is made.
        fs::create_dir(root.join("unified/slotmux-a")).unwrap();
        fs::create_dir(root.join("unified/slotmux-a-1")).unwrap();
        let mounts = format!(
            "cgroup2 {0}/unified cgroup2 rw 0 0\ncgroup {0}/memory cgroup rw,memory 0 0\n\
             cgroup {0}/pids cgroup rw,pids 0 0\n",
            root.display()
        );
        let found = Cgroups::detect_in("5:memory:/\n4:pids:/\n0::/\n", &mounts, "slotmux-a");
        assert_eq!(found.memory_by(), Some("cgroup v1"));
        // A directory of this tree gets no files by itself, so nothing can be handed on in it.
        assert_eq!(found.pids_by(), Some("cgroup v1"));
        assert!(!root.join("unified/slotmux-a-2").exists(), "what cannot be used is not left");
    }
}
