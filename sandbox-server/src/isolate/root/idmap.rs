//! Files of one user, shown as those of another: a mount with ids of its own.
//!
//! The kernel takes the mapping from a user namespace. A child is started in one for the moment
//! that it takes to get hold of it.
#![expect(unsafe_code, reason = "raw system calls")]

use crate::isolate::sys;
use rustix::{
    fd::{AsFd, AsRawFd, OwnedFd},
    fs::CWD,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
    process::{Pid, WaitOptions, waitpid},
};
use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::{ffi::OsStrExt as _, net::UnixStream},
    path::Path,
};

/// What has this owner on the disk...
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owners {
    pub(super) on_disk: u32,
    /// ...is shown as that one's. Nothing else has an owner that is known.
    pub(super) shown: u32,
}

/// Shows `tree`, without what is mounted below it, at the directory `at`.
pub(super) fn show(tree: &Path, at: &Path, owners: Option<Owners>) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, tree, flags)?;
    if let Some(owners) = owners.filter(|it| it.on_disk != it.shown) {
        map(&mount, &namespace(owners)?)?;
    }
    move_mount(&mount, c"", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

fn map(mount: &OwnedFd, namespace: &File) -> io::Result<()> {
    let userns_fd = u64::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?;
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd,
    };
    // SAFETY: the empty path and `attr` outlive the call, and the size is that of `attr`.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A user namespace with nobody in it, for what it maps.
fn namespace(owners: Owners) -> io::Result<File> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let Some(child) = sys::fork()? else {
        drop(ours);
        stay_in_namespace(theirs);
    };
    drop(theirs);
    let namespace = map_namespace_of(&mut ours, owners);
    drop(ours);
    let child = Pid::from_raw(child).ok_or_else(|| io::Error::other("no process id"))?;
    waitpid(Some(child), WaitOptions::empty())?;
    namespace
}

fn map_namespace_of(child: &mut UnixStream, owners: Owners) -> io::Result<File> {
    let mut name = [0; 16];
    let length = child.read(&mut name)?;
    let name = std::str::from_utf8(&name[..length]).map_err(io::Error::other)?;
    if name.is_empty() {
        return Err(io::Error::other("no user namespace can be made"));
    }
    let dir = Path::new("/proc").join(name);
    let line = format!("{} {} 1", owners.on_disk, owners.shown);
    fs::write(dir.join("gid_map"), &line)?;
    fs::write(dir.join("uid_map"), &line)?;
    File::open(dir.join("ns/user"))
}

/// The child: says by which number it is known in this /proc, and waits to be let go.
fn stay_in_namespace(mut parent: UnixStream) -> ! {
    if let Ok(name) = fs::read_link("/proc/self")
        && sys::unshare_user().is_ok()
        && parent.write_all(name.as_os_str().as_bytes()).is_ok()
    {
        // Returns when the other end is closed.
        let _ = parent.read(&mut [0]);
    }
    sys::exit_now(0)
}
