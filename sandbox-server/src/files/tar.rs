//! Tar streams into and out of a workspace.
//!
//! What is taken in comes from anybody. The rules:
//!
//! - Names that are absolute, have `..`, or lead through a link (one of the archive's own too) end
//!   the extraction with an error, and so do sparse files and anything over a limit. What was
//!   extracted before stays.
//! - Devices, FIFOs, unknown kinds and links that lead out of the directory that is extracted into
//!   are skipped; the answer counts and names them. A hard link must lead to a file that is there.
//! - Everything belongs to the slot. Permissions are kept without set-uid, set-gid and sticky bits,
//!   times of change are kept.
//! - What is there already is replaced, but no directory by something else and nothing else by a
//!   directory.
//!
//! What is given out has sorted names, relative to what is packed, and belongs to uid 0; so the
//! same files give the same bytes.
//!
//! Invariant: memory is bounded by the limits, not by what the stream says of itself.

pub(crate) mod bridge;
mod extract;
mod header;
mod pack;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use extract::extract;
pub(crate) use pack::{Packed, pack};

/// What one stream may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) entries_max: u64,
    /// Of all files, uncompressed.
    pub(crate) bytes_max: u64,
    /// What is extracted may take so much of the disk, where that is limited.
    pub(crate) disk_bytes_max: Option<u64>,
    pub(crate) links: Links,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries_max: 100_000,
            bytes_max: 4 << 30,
            disk_bytes_max: None,
            links: Links::Inside,
        }
    }
}

/// Which symbolic links are made. We never follow any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// Those that lead to somewhere below the directory that is extracted into.
    Inside,
    /// All, as they are: for what a slot has made itself.
    AsTheyAre,
}
