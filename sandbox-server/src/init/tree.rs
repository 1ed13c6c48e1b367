//! Everything that a slot started, found and ended.

use crate::isolate::{Birth, sys};
use slotmux_protocol::Isolation;
use std::{fs, os::unix::fs::MetadataExt as _};

/// Kills every process of the slot but the init. To be repeated until there are no children left:
/// without a pid namespace a process may be forked while its parent is being looked for.
pub(super) fn kill(birth: &Birth) {
    match (birth.rung, birth.identity) {
        (Isolation::Namespaces, _) => {
            sys::kill_all(libc::SIGKILL);
        }
        (Isolation::Uid, Some(identity)) => {
            kill_as(identity.uid, identity.reaper_uid);
            kill_each(birth);
        }
        _ => kill_each(birth),
    }
}

/// Kills what runs as `uid`, from a process which that user may not signal.
fn kill_as(uid: u32, reaper_uid: u32) {
    match sys::fork() {
        Ok(None) => {
            if sys::set_ids(reaper_uid, uid, reaper_uid, uid).is_ok() {
                sys::kill_all(libc::SIGKILL);
            }
            sys::exit_now(0);
        }
        Ok(Some(child)) => {
            let pid = rustix::process::Pid::from_raw(child);
            let _ = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
        }
        // No process to be had: `kill_each` does it from here.
        Err(_) => {}
    }
}

fn kill_each(birth: &Birth) {
    for pid in processes(birth) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            // Gone already is what we want.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Kills the processes of one session. One that begins a session of its own has left it.
pub(super) fn kill_session(birth: &Birth, leader: i32) {
    // The second time for what was forked meanwhile by those that were not yet killed.
    for _ in 0..2 {
        for pid in processes(birth).into_iter().filter(|pid| session_of(*pid) == Some(leader)) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                // Gone already is what we want.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

fn session_of(pid: i32) -> Option<i32> {
    let pid = rustix::process::Pid::from_raw(pid)?;
    rustix::process::getsid(Some(pid)).ok().map(|it| it.as_raw_nonzero().get())
}

/// The processes of the slot, without the init.
pub(super) fn processes(birth: &Birth) -> Vec<i32> {
    if birth.rung == Isolation::Namespaces {
        return visible().filter(|pid| *pid != 1).collect();
    }
    let mut found = Vec::new();
    let own = rustix::process::getpid().as_raw_nonzero().get();
    collect_children(own, &mut found);
    found
}

/// The processes of this user.
pub(crate) fn processes_of(uid: u32) -> Vec<i32> {
    let owned = |pid: &i32| fs::metadata(format!("/proc/{pid}")).is_ok_and(|it| it.uid() == uid);
    visible().filter(owned).collect()
}

/// The threads of this user's processes: what the kernel counts as processes.
pub(crate) fn tasks_of(uid: u32) -> usize {
    let threads = |pid: i32| {
        // Not by the owner of the directory, which is root for what may not be dumped.
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let owner: u32 = line("Uid:")?.split_whitespace().next()?.parse().ok()?;
        let threads: usize = line("Threads:")?.trim().parse().ok()?;
        (owner == uid).then_some(threads)
    };
    visible().filter_map(threads).sum()
}

fn visible() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn collect_children(parent: i32, found: &mut Vec<i32>) {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    for task in tasks {
        let Ok(children) = fs::read_to_string(task.path().join("children")) else { continue };
        for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            found.push(child);
            collect_children(child, found);
        }
    }
}
