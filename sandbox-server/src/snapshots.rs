//! Saved workspaces: `ID.tar.zst`, the id being the SHA-256 of the tar.
//!
//! Invariant: what has its name is whole, and the same content is there once. All of them together
//! take no more than they may; who would exceed that is refused, and nothing of theirs stays.

mod draft;
mod hashed;
mod stored;

pub(crate) use stored::Stored;

use crate::{
    files::{
        FileError, Until, Workspace,
        tar::{self, Limits, Links},
    },
    trash::Trash,
};
use draft::Draft;
use hashed::Hashed;
use serde::Serialize;
use slotmux_protocol::{Code, Problem};
use std::{
    collections::BTreeMap,
    fmt, fs, io,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Of all of them: each takes a little of our memory.
const SNAPSHOTS_MAX: usize = 10_000;
const ENTRIES_MAX: u64 = 4_000_000;
/// Of a tar, where workspaces have no limit.
const TAR_BYTES_MAX: u64 = 64 << 30;
/// Fast, and half of what is in a repository.
const LEVEL: i32 = 3;
/// What a frame may make us allocate to read it, as a power of two. `LEVEL` needs 21.
const WINDOW_LOG_MAX: u32 = 23;

/// The SHA-256 of a tar, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) struct SnapshotId(String);

impl SnapshotId {
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 64 && text.bytes().all(hex) {
            return Ok(Self(text.to_owned()));
        }
        let detail = "a snapshot's id is 64 digits of a SHA-256, in lower case";
        Err(Problem::new(Code::Invalid, detail).at("snapshot_id"))
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is known of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Snapshot {
    #[serde(rename = "snapshot_id")]
    pub(crate) id: SnapshotId,
    /// Of the tar.
    pub(crate) bytes: u64,
    /// On the disk.
    pub(crate) stored_bytes: u64,
    pub(crate) entries: u64,
}

/// One that was just made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Saved {
    #[serde(flatten)]
    pub(crate) snapshot: Snapshot,
    /// What it lacks: neither files, directories nor links, or not readable for the slot.
    pub(crate) skipped: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("there is no snapshot {0}")]
    Unknown(SnapshotId),
    #[error("snapshots may take {max} bytes together: delete some")]
    Full { max: u64 },
    #[error("there are {SNAPSHOTS_MAX} snapshots already: delete some")]
    TooMany,
    #[error("what came is not the snapshot {0}")]
    Mismatch(SnapshotId),
    #[error("snapshot {0} was changed on the disk")]
    Corrupt(SnapshotId),
    #[error("the body is no zstd of a tar")]
    Malformed(#[source] io::Error),
    #[error("more than {max} bytes unpacked")]
    TooLarge { max: u64 },
    #[error("files of the workspace")]
    Files(#[source] FileError),
    #[error("write the snapshot")]
    Io(#[from] io::Error),
}

impl From<SnapshotError> for Problem {
    fn from(error: SnapshotError) -> Self {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        let code = match &error {
            SnapshotError::Unknown(_) => Code::UnknownSnapshot,
            SnapshotError::Full { .. } | SnapshotError::TooMany => Code::StorageFull,
            SnapshotError::Mismatch(_) | SnapshotError::Files(_) => Code::Invalid,
            SnapshotError::Malformed(_) => Code::Malformed,
            SnapshotError::TooLarge { .. } => Code::TooLarge,
            SnapshotError::Io(io) if matches!(io.kind(), StorageFull | QuotaExceeded) => {
                Code::StorageFull
            }
            SnapshotError::Corrupt(_) | SnapshotError::Io(_) => Code::Internal,
        };
        Self::new(code, crate::chain(&error))
    }
}

/// Where they are kept. All of its functions block.
#[derive(Debug)]
pub(crate) struct Snapshots {
    dir: PathBuf,
    trash: Trash,
    bytes_max: u64,
    /// Of a tar, unpacked: what fits no workspace is of no use.
    tar_bytes_max: u64,
    known: Mutex<BTreeMap<SnapshotId, Snapshot>>,
    /// With what is being written.
    used_bytes: AtomicU64,
    next: AtomicU64,
}

impl Snapshots {
    /// What an earlier server left there is thrown away.
    pub(crate) fn open(
        dir: PathBuf,
        trash: Trash,
        bytes_max: u64,
        tar_bytes_max: u64,
    ) -> io::Result<Self> {
        let tar_bytes_max = if tar_bytes_max > 0 { tar_bytes_max } else { TAR_BYTES_MAX };
        trash.take(&dir)?;
        fs::create_dir(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        Ok(Self {
            dir,
            trash,
            bytes_max,
            tar_bytes_max,
            known: Mutex::default(),
            used_bytes: AtomicU64::new(0),
            next: AtomicU64::new(1),
        })
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<SnapshotId, Snapshot>> {
        // What it guards is whole between any two statements.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn list(&self) -> Vec<Snapshot> {
        self.known().values().cloned().collect()
    }

    pub(crate) fn find(&self, id: &SnapshotId) -> Result<Snapshot, SnapshotError> {
        self.known().get(id).cloned().ok_or_else(|| SnapshotError::Unknown(id.clone()))
    }

    fn limits(&self) -> Limits {
        let bytes_max = self.tar_bytes_max;
        Limits { entries_max: ENTRIES_MAX, bytes_max, links: Links::AsTheyAre, ..Limits::default() }
    }

    fn path(&self, id: &SnapshotId) -> PathBuf {
        self.dir.join(format!("{id}.tar.zst"))
    }

    /// Packs a workspace, or whatever else `pack` writes a tar of.
    pub(crate) fn save(
        self: &Arc<Self>,
        workspace: &Workspace,
        until: &Until,
    ) -> Result<Saved, SnapshotError> {
        let draft = Draft::new(self)?;
        let mut hashed = Hashed::new(zstd::Encoder::new(draft, LEVEL)?);
        let limits = self.limits();
        let packed = tar::pack(workspace, ".", &mut hashed, limits, until);
        let (encoder, id, bytes) = hashed.finish();
        let packed = match packed {
            Ok(packed) => packed,
            Err(error) => {
                return Err(encoder.get_ref().fault().unwrap_or(SnapshotError::Files(error)));
            }
        };
        let draft = Draft::finished(encoder)?;
        let snapshot = draft.keep(id, bytes, packed.entries)?;
        Ok(Saved { snapshot, skipped: packed.skipped })
    }

    /// Takes what another container has saved.
    pub(crate) fn receive(self: &Arc<Self>) -> Result<Receiving, SnapshotError> {
        Ok(Receiving { draft: Draft::new(self)? })
    }

    /// Fills an empty workspace. Whatever goes wrong, it has to be thrown away then.
    pub(crate) fn restore(
        &self,
        id: &SnapshotId,
        workspace: &Workspace,
        until: &Until,
    ) -> Result<(), SnapshotError> {
        let mut hashed = Hashed::new(decoder(self.stored(id)?.into_file())?);
        let limits = self.limits();
        tar::extract(workspace, ".", &mut hashed, limits, until).map_err(SnapshotError::Files)?;
        hashed.drain(self.tar_bytes_max)?;
        let (_, found, _) = hashed.finish();
        if found == *id { Ok(()) } else { Err(SnapshotError::Corrupt(id.clone())) }
    }

    /// For another container. It can be read to its end, also when it is deleted meanwhile.
    pub(crate) fn stored(&self, id: &SnapshotId) -> Result<Stored, SnapshotError> {
        let snapshot = self.find(id)?;
        match fs::File::open(self.path(id)) {
            Ok(file) => Ok(Stored::new(file, snapshot.stored_bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(SnapshotError::Unknown(id.clone()))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn delete(&self, id: &SnapshotId) -> Result<(), SnapshotError> {
        let mut known = self.known();
        let snapshot = known.get(id).ok_or_else(|| SnapshotError::Unknown(id.clone()))?;
        self.trash.take(&self.path(id))?;
        self.used_bytes.fetch_sub(snapshot.stored_bytes, Ordering::Relaxed);
        known.remove(id);
        Ok(())
    }
}

/// A snapshot that comes in pieces. Dropped, nothing of it stays.
#[derive(Debug)]
pub(crate) struct Receiving {
    draft: Draft,
}

impl Receiving {
    pub(crate) fn write(&mut self, piece: &[u8]) -> Result<(), SnapshotError> {
        io::Write::write_all(&mut self.draft, piece)
            .map_err(|error| self.draft.fault().unwrap_or(SnapshotError::Io(error)))
    }

    /// It gets its name only when it is what it is said to be.
    pub(crate) fn keep_as(self, id: SnapshotId) -> Result<Snapshot, SnapshotError> {
        let max = self.draft.tar_bytes_max();
        // However far what it holds would go on.
        let held = io::Read::take(decoder(self.draft.reopen()?)?, max.saturating_add(1));
        let mut hashed = Hashed::new(held);
        let mut entries = 0;
        let mut archive = ::tar::Archive::new(&mut hashed);
        for entry in archive.entries()?.raw(true) {
            entry.map_err(SnapshotError::Malformed)?;
            entries += 1;
        }
        hashed.drain(max)?;
        let (_, found, bytes) = hashed.finish();
        if found != id {
            return Err(SnapshotError::Mismatch(id));
        }
        self.draft.keep(id, bytes, entries)
    }
}

fn decoder(file: fs::File) -> io::Result<zstd::Decoder<'static, io::BufReader<fs::File>>> {
    let mut decoder = zstd::Decoder::new(file)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    Ok(decoder)
}
