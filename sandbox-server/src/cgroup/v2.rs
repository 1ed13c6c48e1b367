//! Version 2: one hierarchy, of which a subtree may have been handed to us.
//!
//! A cgroup that hands controllers on to its children may hold no processes itself (but for the
//! root of all). Where ours does, they go into a leaf of it first.

use super::{
    CpuSplit,
    place::{below, fields, new_directory, write_existing},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

const WANTED: [&str; 3] = ["memory", "pids", "cpu"];
const PERIOD_US: u64 = 100_000;
const LEAF: &str = "slotmux-server";

/// A directory of ours below our own cgroup, and what its children can be limited by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subtree {
    pub(super) dir: PathBuf,
    pub(super) controllers: Vec<&'static str>,
    /// Where this process has gone, if it had to: from `dir`'s parent.
    pub(super) leaf: Option<PathBuf>,
}

/// How a file of the kernel's is written: tests have a kernel of their own.
pub(super) type Write<'a> = &'a dyn Fn(&Path, &str) -> io::Result<()>;

impl Subtree {
    /// `None`: nothing was handed to us, or nothing that limits.
    pub(super) fn take(own: &str, mounts: &str, name: &str, write: Write<'_>) -> Option<Self> {
        let mount = mounts.lines().map(fields).find(|it| it.get(2) == Some(&"cgroup2"))?;
        let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
        let parent = below(Path::new(mount.get(1)?), path);
        let offered = fs::read_to_string(parent.join("cgroup.controllers")).ok()?;
        let offered: Vec<_> = WANTED
            .into_iter()
            .filter(|wanted| offered.split_whitespace().any(|it| it == *wanted))
            .collect();
        if offered.is_empty() {
            return None;
        }
        let dir = new_directory(&parent, name)?;
        let mut subtree = Self { dir, controllers: offered, leaf: None };
        if subtree.open(&parent, path == "/", write) {
            return Some(subtree);
        }
        subtree.close(write);
        None
    }

    fn open(&mut self, parent: &Path, is_root_of_namespace: bool, write: Write<'_>) -> bool {
        let mut handed = hand_on(parent, &self.controllers, write);
        if handed.is_empty() {
            self.leaf = new_directory(parent, LEAF);
            let Some(leaf) = &self.leaf else { return false };
            evacuate(parent, leaf, is_root_of_namespace, write);
            handed = hand_on(parent, &self.controllers, write);
        }
        self.controllers = hand_on(&self.dir, &handed, write);
        !self.controllers.is_empty()
    }

    /// To be called when the slots' cgroups are gone: goes back to where this process was.
    pub(super) fn close(&self, write: Write<'_>) {
        // A cgroup in which somebody else still uses a controller keeps it: no harm.
        if let (Some(leaf), Some(parent)) = (&self.leaf, self.dir.parent()) {
            let _ = fs::remove_dir(&self.dir);
            for controller in WANTED {
                let _ = write(&parent.join("cgroup.subtree_control"), &format!("-{controller}"));
            }
            for pid in members(leaf) {
                let _ = write(&parent.join("cgroup.procs"), &pid.to_string());
            }
            let _ = fs::remove_dir(leaf);
        } else {
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

/// Which of them the children have now: all at once, or else each that can be had.
fn hand_on(dir: &Path, controllers: &[&'static str], write: Write<'_>) -> Vec<&'static str> {
    let file = dir.join("cgroup.subtree_control");
    let all = controllers.iter().map(|it| format!("+{it}")).collect::<Vec<_>>().join(" ");
    if write(&file, &all).is_ok() {
        return controllers.to_vec();
    }
    let each = controllers.iter().filter(|it| write(&file, &format!("+{it}")).is_ok());
    each.copied().collect()
}

/// Moves this process and what it has started into the leaf; in a container's own namespace
/// everybody, for it is all ours.
fn evacuate(parent: &Path, leaf: &Path, everybody: bool, write: Write<'_>) {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    for pid in members(parent) {
        if everybody || pid == own || parent_of(pid) == Some(own) {
            // One that cannot be moved shows in what comes next.
            let _ = write(&leaf.join("cgroup.procs"), &pid.to_string());
        }
    }
}

fn members(dir: &Path) -> Vec<i32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|it| it.parse().ok()).collect()
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

pub(super) fn limit_memory(dir: &Path, max: u64) -> io::Result<()> {
    let text = if max == 0 { "max".to_owned() } else { max.to_string() };
    write_existing(&dir.join("memory.max"), &text)?;
    // Absent when swap is not accounted. `memory.oom.group` stays off: one process of the slot is
    // taken, not its init along with it.
    let _ = write_existing(&dir.join("memory.swap.max"), "0");
    Ok(())
}

pub(super) fn limit_cpu(dir: &Path, millis: u32) -> io::Result<()> {
    let quota = match millis {
        0 => "max".to_owned(),
        millis => (u64::from(millis) * PERIOD_US / 1_000).to_string(),
    };
    write_existing(&dir.join("cpu.max"), &format!("{quota} {PERIOD_US}"))
}

/// A number of `cpu.stat`.
pub(super) fn stat_us(stat: &str, name: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

pub(super) fn split(stat: &str) -> CpuSplit {
    CpuSplit {
        user_us: stat_us(stat, "user_usec").unwrap_or(0),
        system_us: stat_us(stat, "system_usec").unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// As much of a kernel as is needed: no controllers from a cgroup that holds processes.
    struct Kernel {
        dir: tempfile::TempDir,
        refused: Vec<&'static str>,
        root: bool,
        log: RefCell<Vec<String>>,
    }

    fn lines<T: ToString>(numbers: impl Iterator<Item = T>) -> String {
        numbers.flat_map(|it| [it.to_string(), "\n".to_owned()]).collect()
    }

    impl Kernel {
        fn new(controllers: &str, members: &[i32]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let box_dir = dir.path().join("box");
            fs::create_dir(&box_dir).unwrap();
            fs::write(box_dir.join("cgroup.controllers"), controllers).unwrap();
            let members = lines(members.iter());
            fs::write(box_dir.join("cgroup.procs"), members).unwrap();
            Self { dir, refused: Vec::new(), root: false, log: RefCell::new(Vec::new()) }
        }

        fn parent(&self) -> PathBuf {
            self.dir.path().join("box")
        }

        fn write(&self, path: &Path, text: &str) -> io::Result<()> {
            self.log.borrow_mut().push(text.to_owned());
            let dir = path.parent().unwrap();
            if path.ends_with("cgroup.procs") {
                let from = self.parent().join("cgroup.procs");
                let left = members(&self.parent()).into_iter().filter(|it| it.to_string() != text);
                let left = lines(left);
                fs::write(from, left).unwrap();
                let mut there = members(dir);
                there.push(text.parse().unwrap());
                let there = lines(there.iter());
                return fs::write(path, there);
            }
            if !members(dir).is_empty() && !self.root && text.starts_with('+') {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            if self.refused.iter().any(|it| text.contains(it)) {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            Ok(())
        }

        fn take(&self, path: &str) -> Option<Subtree> {
            let mounts = format!("cgroup2 {} cgroup2 rw 0 0\n", self.dir.path().display());
            Subtree::take(&format!("0::{path}\n"), &mounts, "slotmux-a", &|path, text| {
                self.write(path, text)
            })
        }
    }

    fn own() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    #[test]
    fn what_is_offered_is_taken_and_nothing_means_none() {
        assert_eq!(Kernel::new("", &[]).take("/box"), None);
        assert_eq!(Kernel::new("io hugetlb", &[]).take("/box"), None);
        for (offered, taken) in
            [("cpu io memory pids", vec!["memory", "pids", "cpu"]), ("pids", vec!["pids"])]
        {
            let kernel = Kernel::new(offered, &[]);
            let subtree = kernel.take("/box").unwrap();
            assert_eq!(subtree.controllers, taken);
            assert_eq!(subtree.dir, kernel.parent().join("slotmux-a"));
            assert_eq!(subtree.leaf, None);
        }
    }

    #[test]
    fn a_controller_that_is_refused_does_not_cost_the_others() {
        let mut kernel = Kernel::new("cpu memory pids", &[]);
        kernel.refused = vec!["cpu"];
        assert_eq!(kernel.take("/box").unwrap().controllers, ["memory", "pids"]);
    }

    #[test]
    fn a_cgroup_with_processes_is_left_for_a_leaf_first_and_gone_back_to_at_the_end() {
        let kernel = Kernel::new("cpu memory pids", &[own()]);
        let subtree = kernel.take("/box").unwrap();
        assert_eq!(subtree.controllers, ["memory", "pids", "cpu"]);
        let leaf = subtree.leaf.clone().unwrap();
        assert_eq!(members(&leaf), [own()]);
        assert!(members(&kernel.parent()).is_empty());
        // A kernel's own files go with their directory.
        subtree.close(&|path, text| {
            let done = kernel.write(path, text);
            if path.ends_with("cgroup.procs") {
                fs::remove_file(leaf.join("cgroup.procs")).unwrap();
            }
            done
        });
        assert_eq!(members(&kernel.parent()), [own()]);
        assert!(!leaf.exists() && !subtree.dir.exists());
    }

    #[test]
    fn processes_of_others_are_not_moved_and_then_there_is_no_cgroup() {
        // Ours and one that has nothing to do with us.
        let kernel = Kernel::new("cpu memory pids", &[own(), 1]);
        assert_eq!(kernel.take("/box"), None);
        assert!(members(&kernel.parent()).contains(&1));
        assert!(!kernel.parent().join("slotmux-a").exists());
    }

    #[test]
    fn in_a_containers_namespace_everybody_goes_into_the_leaf() {
        let kernel = Kernel::new("", &[]);
        let root = kernel.dir.path();
        fs::write(root.join("cgroup.controllers"), "memory pids").unwrap();
        fs::write(root.join("cgroup.procs"), format!("1\n{}\n", own())).unwrap();
        let moved = RefCell::new(Vec::new());
        let mounts = format!("cgroup2 {} cgroup2 rw 0 0\n", root.display());
        let subtree = Subtree::take("0::/\n", &mounts, "slotmux-a", &|path, text| {
            if path.ends_with("cgroup.procs") {
                moved.borrow_mut().push(text.to_owned());
                return Ok(());
            }
            let busy = moved.borrow().len() < 2;
            if busy { Err(io::ErrorKind::ResourceBusy.into()) } else { Ok(()) }
        });
        assert_eq!(subtree.unwrap().controllers, ["memory", "pids"]);
        assert_eq!(*moved.borrow(), ["1".to_owned(), own().to_string()]);
    }

    #[test]
    fn the_share_and_its_use_are_written_as_the_kernel_has_them() {
        let dir = tempfile::tempdir().unwrap();
        for (millis, text) in [(0, "max 100000"), (500, "50000 100000")] {
            fs::write(dir.path().join("cpu.max"), "").unwrap();
            limit_cpu(dir.path(), millis).unwrap();
            assert_eq!(fs::read_to_string(dir.path().join("cpu.max")).unwrap(), text);
        }
        let stat = "usage_usec 500\nuser_usec 300\nsystem_usec 200\nnr_periods 0\n";
        assert_eq!(stat_us(stat, "usage_usec"), Some(500));
        assert_eq!(split(stat), CpuSplit { user_us: 300, system_us: 200 });
    }
}
