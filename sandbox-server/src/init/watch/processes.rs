//! Processes of a slot that the kernel does not limit: its root is the container's root, against
//! whom no `RLIMIT_NPROC` holds.

use super::processes;
use crate::isolate::Birth;
use std::{fs, os::unix::fs::MetadataExt as _};

/// What is seen is also what is just ending.
const SLACK: u64 = 1;

/// Whether there are more threads than there may be processes, which is what the kernel counts.
pub(super) fn are_too_many(birth: &Birth) -> bool {
    let max = u64::from(birth.limits.processes_max);
    let mut seen = 0_u64;
    for pid in processes(birth) {
        seen = seen.saturating_add(threads_of(pid));
        if seen > max.saturating_add(SLACK) {
            return true;
        }
    }
    false
}

/// The links of the directory of its threads are those of any directory, and one for each.
fn threads_of(pid: i32) -> u64 {
    fs::metadata(format!("/proc/{pid}/task")).map_or(1, |it| it.nlink().saturating_sub(2).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::mpsc, thread};

    #[test]
    fn each_thread_counts() {
        let (held, wait) = mpsc::channel::<()>();
        let (started, starts) = mpsc::channel();
        let child = thread::spawn(move || {
            started.send(()).unwrap();
            // Until the other end is dropped.
            let _ = wait.recv();
        });
        starts.recv().unwrap();
        let threads = threads_of(i32::try_from(std::process::id()).unwrap());
        drop(held);
        child.join().unwrap();
        assert!(threads >= 2, "{threads}");
    }
}
