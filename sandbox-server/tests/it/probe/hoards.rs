//! Taking much of one thing, in ways that a shell cannot.

use rustix::fs::{MemfdFlags, memfd_create};
use std::io::Write as _;

static PIECE: [u8; 1 << 20] = [b'x'; 1 << 20];

fn mib(args: &[&str]) -> usize {
    args[0].parse().unwrap()
}

/// A file without a name, as large as it is told in MiB, held until the end.
pub(super) fn memfd(args: &[&str]) -> Vec<String> {
    let mut file = std::fs::File::from(memfd_create("hoard", MemfdFlags::CLOEXEC).unwrap());
    for _ in 0..mib(args) {
        if let Err(error) = file.write_all(&PIECE) {
            return vec![format!("write: {error}")];
        }
    }
    println!("written");
    loop {
        std::thread::park();
    }
}

/// A System V segment that is filled, and left without anybody who has it.
#[expect(unsafe_code, reason = "System V calls")]
pub(super) fn segment(args: &[&str]) -> Vec<String> {
    let bytes = mib(args) << 20;
    // SAFETY: a new segment of our own, as large as what is written to it.
    unsafe {
        let id = libc::shmget(libc::IPC_PRIVATE, bytes, libc::IPC_CREAT | 0o600);
        if id < 0 {
            return vec![format!("shmget: {}", std::io::Error::last_os_error())];
        }
        let at = libc::shmat(id, std::ptr::null(), 0);
        if at.addr() == usize::MAX {
            return vec![format!("shmat: {}", std::io::Error::last_os_error())];
        }
        libc::memset(at, 1, bytes);
        libc::shmdt(at);
    }
    println!("written");
    loop {
        std::thread::park();
    }
}

/// Processes that do nothing, until there is no more to be had; then it ends without them.
#[expect(unsafe_code, reason = "a fork without an exec")]
pub(super) fn children(args: &[&str]) -> Vec<String> {
    for number in 0..mib(args) {
        // SAFETY: the child makes one system call after the other.
        match unsafe { libc::fork() } {
            -1 => return vec![format!("after {number}: {}", std::io::Error::last_os_error())],
            0 => loop {
                // SAFETY: takes nothing.
                unsafe { libc::pause() };
            },
            _ => {}
        }
    }
    Vec::new()
}
