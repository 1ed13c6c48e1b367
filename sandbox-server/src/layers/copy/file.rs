//! The content of one file: shared where the file system can, else only where there is some.

use rustix::{
    fd::OwnedFd,
    fs::{SeekFrom, copy_file_range, fstat, ftruncate, ioctl_ficlone, seek},
    io::{Errno, pread, pwrite},
};
use std::io;
use tokio_util::sync::CancellationToken;

/// In one go; in between it is asked whether to stop.
const RANGE_BYTES: u64 = 32 << 20;
const BUFFER_BYTES: usize = 256 << 10;

/// `reflinks`: whether to try; no more after the first refusal.
pub(super) fn copy_content(
    from: &OwnedFd,
    to: &OwnedFd,
    reflinks: &mut bool,
    stop: &CancellationToken,
) -> io::Result<()> {
    let length = u64::try_from(fstat(from)?.st_size).unwrap_or(0);
    if length == 0 {
        return Ok(());
    }
    if *reflinks {
        match ioctl_ficlone(to, from) {
            Ok(()) => return Ok(()),
            Err(_) => *reflinks = false,
        }
    }
    let mut at = 0;
    while at < length {
        let Some((start, end)) = data_from(from, at, length)? else { break };
        copy_range(from, to, start, end, stop)?;
        at = end;
    }
    // What comes after is a hole.
    Ok(ftruncate(to, length)?)
}

/// Where data begins and ends, from `at` on. `None`: there is no more.
fn data_from(file: &OwnedFd, at: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    match seek(file, SeekFrom::Data(at)) {
        Ok(start) => {
            let end = seek(file, SeekFrom::Hole(start))?.min(length);
            Ok((start < end).then_some((start, end)))
        }
        Err(Errno::NXIO) => Ok(None),
        // A file system that tells nothing of holes has none.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some((at, length))),
        Err(errno) => Err(errno.into()),
    }
}

fn copy_range(
    from: &OwnedFd,
    to: &OwnedFd,
    start: u64,
    end: u64,
    stop: &CancellationToken,
) -> io::Result<()> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        if stop.is_cancelled() {
            return Err(io::Error::other("it was stopped"));
        }
        let bytes = usize::try_from((end - read_at).min(RANGE_BYTES)).map_err(io::Error::other)?;
        match copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), bytes) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                return copy_by_hand(from, to, read_at, end, stop);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(
    from: &OwnedFd,
    to: &OwnedFd,
    start: u64,
    end: u64,
    stop: &CancellationToken,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut at = start;
    while at < end {
        if stop.is_cancelled() {
            return Err(io::Error::other("it was stopped"));
        }
        let bytes = usize::try_from(end - at).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
        let read = match pread(from, &mut buffer[..bytes], at) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let mut written = 0;
        while written < read {
            match pwrite(to, &buffer[written..read], at + written as u64) {
                Ok(length) => written += length,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        at += read as u64;
    }
    Ok(())
}
