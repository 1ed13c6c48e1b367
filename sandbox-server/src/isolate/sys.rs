//! System calls that no library of ours wraps, each a few lines, none with a policy.
#![expect(unsafe_code, reason = "raw system calls")]

use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::{
    ffi::{CStr, CString},
    io,
    os::unix::ffi::OsStrExt,
    path::Path,
};

pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// What `fork` became in this process.
pub(crate) enum Forked {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// Forks into new namespaces. The child is a child of *our* parent, which so may wait for it.
///
/// To be called with one thread only: the child goes on with a copy of that thread.
pub(crate) fn fork_for_parent(namespaces: libc::c_int) -> io::Result<Forked> {
    let mut pidfd: libc::c_int = -1;
    let flags = libc::CLONE_PIDFD | libc::CLONE_PARENT | namespaces;
    // Not `clone3`: the filters of ordinary containers do not know it. The first three arguments
    // are the same on every architecture; the descriptor goes where a parent's thread id would.
    // SAFETY: without CLONE_VM the child has its own copy of all memory; `pidfd` outlives the call.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0_usize, &raw mut pidfd, 0, 0)
    })?;
    if pid == 0 {
        return Ok(Forked::Child);
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Forked::Parent { pid: i32::try_from(pid).unwrap_or(-1), pidfd })
}

/// Plain `fork`, for a process with one thread. `None` in the child.
pub(crate) fn fork() -> io::Result<Option<i32>> {
    // SAFETY: the caller has one thread, so the child's copy of every lock is consistent.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(pid)),
    }
}

pub(crate) fn unshare_user() -> io::Result<()> {
    // SAFETY: takes a number; a user namespace shares no memory with anybody.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into())?;
    Ok(())
}

/// Ends the process at once: no destructors, no handlers.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: always sound.
    unsafe { libc::_exit(code) }
}

/// Makes a whole tree of mounts read-only, and without devices and set-uid.
pub(crate) fn lock_mounts(path: &CStr, read_only: bool) -> io::Result<()> {
    let mut attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    if read_only {
        attributes |= libc::MOUNT_ATTR_RDONLY;
    }
    set_attributes(path, attributes)
}

/// Makes the mount of a device read-only, which is not what the device is.
pub(crate) fn lock_device(path: &CStr) -> io::Result<()> {
    let read_only = libc::MOUNT_ATTR_RDONLY;
    set_attributes(path, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC | read_only)
}

fn set_attributes(path: &CStr, attributes: u64) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: `path` and `attr` outlive the call, and the size is that of `attr`.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}

/// Turns the loopback interface of this network namespace on.
pub(crate) fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(0);
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which outlives the call.
    let done =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    check(done.into())?;
    Ok(())
}

/// The ids of this thread alone (glibc's wrappers would change every thread's).
pub(crate) fn set_ids(real: u32, effective: u32, saved: u32, gid: u32) -> io::Result<()> {
    // SAFETY: these calls take numbers and an empty list.
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()))?;
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, real, effective, saved))?;
    }
    Ok(())
}

/// Becomes somebody else who can become root again. Root's groups are left for good.
pub(crate) fn lend_ids(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: as above.
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()))?;
        check(libc::syscall(libc::SYS_setresgid, gid, gid, 0))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, 0))?;
    }
    Ok(())
}

/// After [`lend_ids`], or in a user namespace: one id for all purposes.
pub(crate) fn settle_ids(id: u32) -> io::Result<()> {
    // SAFETY: these calls take numbers.
    unsafe {
        // The user first where that is root, last where that takes the power away.
        if id == 0 {
            check(libc::syscall(libc::SYS_setresuid, id, id, id))?;
        }
        check(libc::syscall(libc::SYS_setresgid, id, id, id))?;
        check(libc::syscall(libc::SYS_setresuid, id, id, id))?;
    }
    Ok(())
}

/// Whose files this thread works with. The kernel drops the capabilities over files with a
/// `uid` that is not 0, and gives them back with 0.
pub(crate) fn set_file_ids(uid: u32, gid: u32) {
    // SAFETY: these calls take numbers; they report no errors.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
    }
}

/// Sends `signal` to everything that this process may signal, but not to itself. `false`: there
/// was nothing.
pub(crate) fn kill_all(signal: i32) -> bool {
    // SAFETY: takes numbers.
    unsafe { libc::kill(-1, signal) == 0 }
}

/// A descriptor that becomes readable when a child ends. Blocks SIGCHLD for this thread.
pub(crate) fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised before use and outlives the calls; the descriptor is new.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()).into())?;
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        check(fd.into())?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// A child that has ended, with what it and its own children used.
pub(crate) struct Reaped {
    pub(crate) pid: i32,
    pub(crate) status: i32,
    pub(crate) usage: libc::rusage,
}

impl Reaped {
    /// Of one that lives on, and says this of a part of its life.
    pub(crate) fn exited(pid: i32, code: u8, user_us: u64, system_us: u64) -> Self {
        // SAFETY: zero is a valid `rusage`.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        usage.ru_utime = time_of(user_us);
        usage.ru_stime = time_of(system_us);
        Self { pid, status: i32::from(code) << 8, usage }
    }
}

fn time_of(us: u64) -> libc::timeval {
    libc::timeval {
        tv_sec: i64::try_from(us / 1_000_000).unwrap_or(i64::MAX),
        tv_usec: i64::try_from(us % 1_000_000).unwrap_or(0),
    }
}

/// Reaps one child that has ended; `Ok(None)` if none has, `ECHILD` if there are no children.
pub(crate) fn reap() -> io::Result<Option<Reaped>> {
    let mut status = 0;
    // SAFETY: zero is a valid `rusage`; both outlive the call.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(Reaped { pid, status, usage })),
    }
}

/// A read-only `prctl`-like switch: forbids this process tree to gain anything by `execve`.
pub(crate) fn no_new_privileges() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true).map_err(Into::into)
}

/// Restricts this thread and its children by a Landlock ruleset.
pub(crate) fn landlock_restrict(ruleset: BorrowedFd<'_>) -> io::Result<()> {
    // What a slot is refused would fill the log of the machine (ABI 7 writes it), and what its own
    // sandboxes refuse as well.
    const QUIET: u32 = 1 | 4;
    let restrict = |flags: u32| {
        // SAFETY: takes numbers.
        check(unsafe {
            libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), flags)
        })
    };
    match restrict(QUIET) {
        // An older kernel, which logs nothing.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => restrict(0)?,
        done => done?,
    };
    Ok(())
}

/// Filters the system calls of this thread and its children.
pub(crate) fn seccomp_filter(program: &[seccompiler::sock_filter]) -> io::Result<()> {
    let fprog = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the program outlives the call; both `sock_filter` types are the kernel's.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const fprog,
        )
    })?;
    Ok(())
}

/// Every signal back to its default: an ignored one would stay ignored in every command. Also
/// those that the C library keeps for itself, which is why it is not asked.
pub(crate) fn default_signals() -> io::Result<()> {
    // `struct sigaction` of the kernel: no handler, no flags, no restorer, an empty mask.
    let default = [0_u64; 4];
    let none = std::ptr::null_mut::<u64>();
    for signal in 1..=64 {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            // SAFETY: no handler is installed; the kernel reads as much as there is.
            check(unsafe {
                libc::syscall(
                    libc::SYS_rt_sigaction,
                    signal,
                    default.as_ptr(),
                    none,
                    size_of::<u64>(),
                )
            })?;
        }
    }
    Ok(())
}

/// Closes every descriptor from `first` on: what our parent's parent forgot is not a slot's.
pub(crate) fn close_from(first: i32) -> io::Result<()> {
    // SAFETY: called before this process has opened any of them.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) })?;
    Ok(())
}
