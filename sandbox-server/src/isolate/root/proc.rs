//! The slot's own `/proc`.
//!
//! Invariant: a slot whose root is the container's root, as the kernel sees it, writes to nothing
//! there but to what belongs to its own processes, and reads nothing that is for root only: the
//! kernel asks for the owner of most of these files, and for nothing else.

use super::QUIET;
use crate::isolate::{Birth, Step, WallError, sys};
use rustix::mount::{mount, mount_bind, mount_bind_recursive};
use std::{
    fs::{self, DirEntry, Metadata},
    io,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

/// Of the whole machine, and of no use to a slot.
const MASKED: [&str; 7] =
    ["kcore", "keys", "key-users", "kmsg", "latency_stats", "sysrq-trigger", "timer_list"];
/// The same, of directories.
const HIDDEN: [&str; 2] = ["acpi", "scsi"];
/// The first kernel in which each pid namespace has a limit of its own.
const OWN_PID_LIMIT: (u32, u32) = (6, 14);
/// Numbers that are given out once, and not again after the highest was.
const RESERVED_PIDS: u64 = 300;
const SPARE_PIDS: u64 = 64;

pub(super) fn mount_proc(root: &Path, birth: &Birth) -> Result<(), WallError> {
    let proc = root.join("proc");
    mount("proc", &proc, "proc", QUIET, c"").step("mount /proc")?;
    if birth.root.is_in_parts() {
        limit_pids(&proc, birth)?;
        let entries = fs::read_dir(&proc).step("read /proc")?;
        for entry in entries {
            let entry = entry.step("read /proc")?;
            cover(root, &entry).step("cover what is root's in /proc")?;
        }
        return Ok(());
    }
    for name in MASKED {
        let path = proc.join(name);
        if path.exists() {
            mask(root, &path).step("mask a file of /proc")?;
        }
    }
    Ok(())
}

fn cover(root: &Path, entry: &DirEntry) -> io::Result<()> {
    let (name, path) = (entry.file_name(), entry.path());
    let name = name.to_str().unwrap_or_default();
    let meta = fs::symlink_metadata(&path)?;
    if meta.is_symlink() {
        return Ok(());
    }
    if meta.is_dir() {
        let number = name.parse::<u32>();
        return match number {
            // The init, whose files there are root's.
            Ok(1) | Err(_) if !is_hidden(name, &meta) => read_only(&path),
            Ok(_) => Ok(()),
            // An empty directory that is there already.
            Err(_) => Ok(mount_bind(root.join("sys"), &path)?),
        };
    }
    let mode = meta.permissions().mode();
    if MASKED.contains(&name) || mode & 0o222 != 0 || mode & 0o004 == 0 {
        return mask(root, &path);
    }
    Ok(())
}

fn is_hidden(name: &str, meta: &Metadata) -> bool {
    HIDDEN.contains(&name) || meta.permissions().mode() & 0o005 != 0o005
}

fn read_only(path: &Path) -> io::Result<()> {
    mount_bind_recursive(path, path)?;
    sys::lock_mounts(&sys::c_path(path)?, true)
}

fn mask(root: &Path, path: &Path) -> io::Result<()> {
    Ok(mount_bind(root.join("dev/null"), path)?)
}

/// The kernel holds no `RLIMIT_NPROC` against root. The watch does, by looking; behind it stands
/// that a namespace has so many numbers for processes and no more.
fn limit_pids(proc: &Path, birth: &Birth) -> Result<(), WallError> {
    let max = u64::from(birth.limits.processes_max);
    // Before, there was one limit, of the machine.
    if birth.pids_cgroup || max == 0 || kernel() < Some(OWN_PID_LIMIT) {
        return Ok(());
    }
    let numbers = RESERVED_PIDS + max + SPARE_PIDS;
    let machine = fs::read_to_string(proc.join("sys/kernel/pid_max")).unwrap_or_default();
    if machine.trim().parse::<u64>().is_ok_and(|it| it <= numbers) {
        return Ok(());
    }
    fs::write(proc.join("sys/kernel/pid_max"), numbers.to_string()).step("limit process numbers")
}

fn kernel() -> Option<(u32, u32)> {
    version(rustix::system::uname().release().to_str().ok()?)
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|it: char| !it.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_of_which_nothing_is_known_has_no_limits_of_its_own() {
        assert!(version("6.14.0-generic") >= Some(OWN_PID_LIMIT));
        assert!(version("7.0") >= Some(OWN_PID_LIMIT));
        for older in ["6.13.12", "5.10.0-28-amd64", "odd", ""] {
            assert!(version(older) < Some(OWN_PID_LIMIT), "{older}");
        }
    }
}
