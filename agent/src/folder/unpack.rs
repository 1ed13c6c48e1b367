//! A tar archive that came with a job.
//!
//! Invariant: nothing is written outside of the directory, and no more than there may be.

use std::{
    io::{self, Read},
    path::Path,
};
use tar::{Archive, EntryType};

const ENTRIES_MAX: u64 = 1_000_000;
const BYTES_MAX: u64 = 16 << 30;

#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    #[error("read the archive")]
    Read(#[source] io::Error),
    #[error("unpack `{path}`")]
    Entry { path: String, source: io::Error },
    #[error("`{0}` leads out of the directory")]
    Outside(String),
    #[error("more than {ENTRIES_MAX} entries")]
    Entries,
    #[error("more than {BYTES_MAX} bytes")]
    Bytes,
}

/// Files, directories and links; of anything else nothing is made.
pub(crate) fn unpack(archive: &[u8], dir: &Path) -> Result<(), UnpackError> {
    let mut archive = Archive::new(archive.take(u64::MAX));
    archive.set_preserve_permissions(false);
    archive.set_preserve_mtime(false);
    archive.set_overwrite(true);
    let mut bytes = 0_u64;
    for (number, entry) in (0..).zip(archive.entries().map_err(UnpackError::Read)?) {
        let mut entry = entry.map_err(UnpackError::Read)?;
        if number >= ENTRIES_MAX {
            return Err(UnpackError::Entries);
        }
        let kind = entry.header().entry_type();
        let is_kept = kind.is_file() || kind.is_dir() || kind.is_symlink() || kind.is_hard_link();
        if !is_kept && kind != EntryType::Continuous {
            continue;
        }
        // What it says of itself: a sparse file is as large as that.
        bytes = bytes.saturating_add(entry.size());
        if bytes > BYTES_MAX {
            return Err(UnpackError::Bytes);
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).chars().take(100).collect();
        // It looks where each path leads, through links as well.
        match entry.unpack_in(dir) {
            Ok(true) => {}
            Ok(false) => return Err(UnpackError::Outside(path)),
            Err(source) => return Err(UnpackError::Entry { path, source }),
        }
    }
    Ok(())
}
