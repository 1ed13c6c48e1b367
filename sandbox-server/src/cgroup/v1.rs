//! Version 1: a hierarchy for each controller, or for a few together.

use super::{
    CpuSplit,
    place::{below, fields, write_existing},
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// The usual one: what is not used in a period is lost.
const PERIOD_US: u64 = 100_000;
/// `USER_HZ` is 100 wherever we run, whatever the kernel itself counts in.
const TICK_US: u64 = 10_000;

/// This process's own cgroup of a controller.
pub(super) fn parent(own: &str, mounts: &str, controller: &str) -> Option<PathBuf> {
    let mount = mounts.lines().map(fields).find(|it| {
        it.get(2) == Some(&"cgroup")
            && it.get(3).is_some_and(|options| options.split(',').any(|it| it == controller))
    })?;
    let path = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let controllers = parts.next()?;
        controllers.split(',').any(|it| it == controller).then(|| parts.next()).flatten()
    })?;
    Some(below(Path::new(mount.get(1)?), path))
}

pub(super) fn limit_memory(dir: &Path, max: u64) -> io::Result<()> {
    let text = if max == 0 { "-1".to_owned() } else { max.to_string() };
    write_existing(&dir.join("memory.limit_in_bytes"), &text)?;
    // Memory and swap together; absent when swap is not accounted.
    let _ = write_existing(&dir.join("memory.memsw.limit_in_bytes"), &text);
    Ok(())
}

pub(super) fn limit_cpu(dir: &Path, millis: u32) -> io::Result<()> {
    let quota = match millis {
        0 => "-1".to_owned(),
        millis => (u64::from(millis) * PERIOD_US / 1_000).to_string(),
    };
    write_existing(&dir.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
    write_existing(&dir.join("cpu.cfs_quota_us"), &quota)
}

/// `user N`, `system N` of `cpuacct.stat`, in the kernel's ticks for people.
pub(super) fn split(stat: &str) -> CpuSplit {
    let of = |name: &str| {
        let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|it| it.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    CpuSplit { user_us: of("user") * TICK_US, system_us: of("system") * TICK_US }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_hierarchy_is_found_where_this_process_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap();
        fs::create_dir_all(dir.path().join("box/inner")).unwrap();
        let mounts = format!("cgroup {root} cgroup rw,nosuid,memory 0 0\n");
        let own = "5:cpu:/\n4:memory:/box/inner\n0::/\n";
        let found = parent(own, &mounts, "memory");
        assert_eq!(found, Some(dir.path().join("box/inner")));
        assert_eq!(parent(own, &mounts, "pids"), None);
    }

    #[test]
    fn the_share_is_a_quota_of_each_period() {
        let dir = tempfile::tempdir().unwrap();
        for (millis, quota) in [(0, "-1"), (1_500, "150000"), (10, "1000")] {
            for name in ["cpu.cfs_period_us", "cpu.cfs_quota_us"] {
                fs::write(dir.path().join(name), "").unwrap();
            }
            limit_cpu(dir.path(), millis).unwrap();
            let written = fs::read_to_string(dir.path().join("cpu.cfs_quota_us")).unwrap();
            assert_eq!(written, quota);
        }
    }
}
