//! From a workspace into a tar stream.

use super::{
    Limits,
    header::{BLOCK_BYTES, Raw, build},
};
use crate::files::{
    FileError, Until, Workspace, fault, is_ours,
    read::Source,
    size_of_file,
    walk::{Kind, Reach, Walk, walk},
};
use rustix::{fd::OwnedFd, fs::Stat, io::Errno};
use std::io::Write;

const CHUNK_BYTES: usize = 64 << 10;
/// The longest that the kernel takes, but for the NUL.
const PATH_BYTES_MAX: usize = 4_095;
const MODE_BITS: u32 = 0o777;

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) entries: u64,
    /// Of the files' content.
    pub(crate) bytes: u64,
    /// Neither files, directories nor links, or not readable for the slot.
    pub(crate) skipped: u64,
}

/// Writes what is below `path`, or the file that it is. Blocks.
pub(crate) fn pack(
    workspace: &Workspace,
    path: &str,
    to: impl Write,
    limits: Limits,
    until: &Until,
) -> Result<Packed, FileError> {
    let mut packing =
        Packing { to, limits, until, done: Packed::default(), chunk: vec![0; CHUNK_BYTES] };
    let reach = Reach { recursive: true, entries_max: limits.entries_max };
    match walk(workspace, path, reach, until) {
        Err(FileError::NotADirectory(_)) => {
            let (file, stat) = workspace.open_file(path)?;
            let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or(path);
            packing.file(name.as_bytes(), &file, &stat)?;
        }
        walk => packing.tree(walk?)?,
    }
    packing.write(&[0; 2 * BLOCK_BYTES])?;
    packing.to.flush().map_err(|error| FileError::Stream(error.to_string()))?;
    Ok(packing.done)
}

struct Packing<'a, W> {
    to: W,
    limits: Limits,
    until: &'a Until,
    done: Packed,
    chunk: Vec<u8>,
}

/// What is missing for a reason of ours would pass for something that never was.
fn told(walk: &Walk<'_>, errno: Errno) -> FileError {
    fault(&String::from_utf8_lossy(walk.path()), errno)
}

impl<W: Write> Packing<'_, W> {
    fn tree(&mut self, mut walk: Walk<'_>) -> Result<(), FileError> {
        while let Some(kind) = walk.next()? {
            let packed = match kind {
                Kind::File => match walk.open() {
                    Ok(Some((file, stat))) => {
                        self.file(walk.path(), &file, &stat)?;
                        true
                    }
                    Err(errno) if is_ours(errno) => return Err(told(&walk, errno)),
                    Ok(None) | Err(_) => false,
                },
                Kind::Directory => match walk.stat() {
                    Ok(stat) => {
                        let path = [walk.path(), b"/"].concat();
                        self.header(b'5', &path, Vec::new(), &stat, 0)?;
                        true
                    }
                    Err(errno) if is_ours(errno) => return Err(told(&walk, errno)),
                    Err(_) => false,
                },
                Kind::Symlink => match (walk.stat(), walk.link()) {
                    (Ok(stat), Ok(link)) => {
                        self.header(b'2', walk.path(), link.into_bytes(), &stat, 0)?;
                        true
                    }
                    _ => false,
                },
                Kind::Fifo | Kind::Socket | Kind::Device => false,
            };
            self.done.skipped += u64::from(!packed);
        }
        if walk.truncated {
            // Part of a tree would pass for the whole.
            let max = self.limits.entries_max;
            return Err(FileError::OverLimit {
                what: "Archive too large or too deep",
                max,
                unit: "entries",
            });
        }
        self.done.skipped += walk.unreadable;
        Ok(())
    }

    fn header(
        &mut self,
        kind: u8,
        path: &[u8],
        link: Vec<u8>,
        stat: &Stat,
        size: u64,
    ) -> Result<(), FileError> {
        if path.len() > PATH_BYTES_MAX {
            // The kernel itself would not make it again.
            let max = PATH_BYTES_MAX as u64;
            return Err(FileError::OverLimit { what: "Path too long", max, unit: "bytes" });
        }
        let raw = Raw {
            kind,
            path: path.to_vec(),
            link,
            size,
            mode: stat.st_mode & MODE_BITS,
            mtime: u64::try_from(stat.st_mtime).unwrap_or(0),
        };
        self.done.entries += 1;
        self.write(&build(&raw))
    }

    /// As long as it was when it was opened: a file that shrinks is filled up with zeros, one that
    /// grows is cut.
    fn file(&mut self, path: &[u8], file: &OwnedFd, stat: &Stat) -> Result<(), FileError> {
        let size = size_of_file(stat);
        self.done.bytes = self.done.bytes.saturating_add(size);
        if self.done.bytes > self.limits.bytes_max {
            let max = self.limits.bytes_max;
            return Err(FileError::OverLimit { what: "Archive too large", max, unit: "bytes" });
        }
        self.header(b'0', path, Vec::new(), stat, size)?;
        let source = Source { file, path: "", until: self.until };
        let mut at = 0;
        while at < size {
            let mut chunk = std::mem::take(&mut self.chunk);
            let wanted = usize::try_from(size - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            let read = source.read_at(&mut chunk[..wanted], at);
            let count = match read {
                Err(error @ (FileError::TimedOut | FileError::Cancelled)) => return Err(error),
                // Its header is said already.
                Ok(0) | Err(_) => {
                    chunk[..wanted].fill(0);
                    wanted
                }
                Ok(count) => count,
            };
            let written = self.write(&chunk[..count]);
            self.chunk = chunk;
            written?;
            at += count as u64;
        }
        let padding = usize::try_from(size.wrapping_neg() % BLOCK_BYTES as u64).unwrap_or(0);
        self.write(&[0; BLOCK_BYTES][..padding])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.until.check()?;
        self.to.write_all(bytes).map_err(|error| {
            self.until.check().err().unwrap_or_else(|| FileError::Stream(error.to_string()))
        })
    }
}
