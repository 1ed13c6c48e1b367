//! The users of the container, each as itself in a slot's user namespace.
//!
//! Files then keep their owners in the slot, and its root is the container's root, without the
//! powers that this has. Only who has the powers over users in the container can map so, and from
//! outside: the zygote does it for the init that it has forked.

use super::{Step as _, WallError, sys};
use rustix::pipe::{PipeFlags, pipe_with};
use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::fd::OwnedFd,
};

/// Ids from there on are no user's of an image; on the machine they may be other containers'.
const IDS_MAX: u64 = 1 << 16;
/// What the slots of one container have in common as one user, and other containers with them: each
/// may have a part. Of other namespaces they make none.
const OWN_LIMITS: [(&str, u32); 12] = [
    ("max_cgroup_namespaces", 0),
    ("max_ipc_namespaces", 0),
    ("max_mnt_namespaces", 0),
    ("max_net_namespaces", 0),
    ("max_pid_namespaces", 0),
    ("max_time_namespaces", 0),
    ("max_user_namespaces", 0),
    ("max_uts_namespaces", 0),
    ("max_fanotify_groups", 0),
    ("max_fanotify_marks", 0),
    ("max_inotify_instances", 16),
    ("max_inotify_watches", 65_536),
];

/// How the child hears that its ids are mapped.
pub(super) struct Told {
    ours: OwnedFd,
    theirs: OwnedFd,
}

impl Told {
    /// Before the fork.
    pub(super) fn new() -> io::Result<Self> {
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok(Self { ours, theirs })
    }

    /// Of the parent: maps the child's ids, and tells it what came of it.
    pub(super) fn map(self, child: i32) -> io::Result<()> {
        drop(self.theirs);
        let errno = match map(child) {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
        };
        File::from(self.ours).write_all(&errno.to_ne_bytes())
    }

    /// Of the child.
    pub(super) fn wait(self) -> io::Result<()> {
        drop(self.ours);
        let mut errno = [0; 4];
        File::from(self.theirs).read_exact(&mut errno)?;
        match i32::from_ne_bytes(errno) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

fn map(child: i32) -> io::Result<()> {
    for name in ["gid_map", "uid_map"] {
        let own = fs::read_to_string(format!("/proc/self/{name}"))?;
        fs::write(format!("/proc/{child}/{name}"), each_as_itself(&own))?;
    }
    Ok(())
}

/// From what is mapped here: the first number of each line is ours, the last their count.
fn each_as_itself(own: &str) -> String {
    let extent = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (first, count) = (numbers.next()?.ok()?, numbers.nth(1)?.ok()?);
        let count = count.min(IDS_MAX.checked_sub(first)?);
        (count > 0).then(|| format!("{first} {first} {count}\n"))
    };
    own.lines().filter_map(extent).collect()
}

/// The init's own ids, and what all of its namespace may have. While the container's `/proc` is
/// still there.
pub(crate) fn settle() -> Result<(), WallError> {
    sys::set_ids(0, 0, 0, 0).step("become the slot's root")?;
    for (name, max) in OWN_LIMITS {
        // Kernels lack the one or the other; the slot's filter refuses what makes namespaces.
        let _ = fs::write(format!("/proc/sys/user/{name}"), max.to_string());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_an_image_are_mapped_as_far_as_the_container_has_them() {
        let whole = "         0          0 4294967295\n";
        assert_eq!(each_as_itself(whole), "0 0 65536\n");
        let rootless = "0 1000 1\n1 100000 70000\n";
        assert_eq!(each_as_itself(rootless), "0 0 1\n1 1 65535\n");
        assert_eq!(each_as_itself("65536 1 5\n100000 1 5\nnonsense\n"), "");
    }
}
