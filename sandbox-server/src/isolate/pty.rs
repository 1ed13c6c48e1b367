//! Pseudo-terminals.
#![expect(unsafe_code, reason = "requests to terminals that no library of ours wraps")]

use rustix::{
    fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    fs::{Gid, Mode, OFlags, Uid},
};
use std::{ffi::CStr, io};

/// Of the exit status that a session's pipe carries: as `waitpid` has it, in the machine's order.
pub(crate) const STATUS_BYTES: usize = 4;

pub(crate) struct Pair {
    pub(crate) master: OwnedFd,
    pub(crate) slave: OwnedFd,
}

/// Opens a pair by `ptmx`; its terminal belongs to `owner`, or to whoever opens it.
pub(crate) fn open(ptmx: &CStr, owner: Option<u32>, rows: u16, cols: u16) -> io::Result<Pair> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open(ptmx, flags, Mode::empty())?;
    let unlocked: libc::c_int = 0;
    // SAFETY: reads one number, which outlives the call.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) })?;
    let slave = slave(&master)?;
    if let Some(owner) = owner {
        rustix::fs::fchown(&slave, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))?;
    }
    let pair = Pair { master, slave };
    resize(rustix::fd::AsFd::as_fd(&pair.master), rows, cols)?;
    Ok(pair)
}

/// Opens the other side.
fn slave(master: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // Not by its name: that may lead elsewhere, or nowhere.
    // SAFETY: takes a number; the descriptor that it returns is new.
    let slave = check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(slave) })
}

/// Bytes that were typed, could be read by a program, and were not.
pub(crate) fn unread_bytes(master: &OwnedFd) -> io::Result<u64> {
    Ok(rustix::io::ioctl_fionread(slave(master)?)?)
}

pub(crate) fn resize(terminal: BorrowedFd<'_>, rows: u16, cols: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: reads one `winsize`, which outlives the call.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })?;
    Ok(())
}

/// Makes the terminal at `fd` that of this session. Async-signal-safe.
pub(crate) fn take(fd: i32) -> io::Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { libc::ioctl(fd, libc::TIOCSCTTY, 0) })?;
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
