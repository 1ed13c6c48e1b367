//! Taking cgroups away again, also those of a server that was killed.

use rustix::{
    event::{Timespec, poll},
    process::{Pid, Signal, kill_process},
};
use std::{fs, io, path::Path};

/// Five seconds in all.
const PAUSES_MAX: usize = 1_000;
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

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

/// A cgroup's directories can be removed, deepest first, and its files cannot.
pub(super) fn remove_tree(dir: &Path) {
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
