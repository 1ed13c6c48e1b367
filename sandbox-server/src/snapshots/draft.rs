//! A snapshot on its way: a file without a name that counts, and its share of the room.

use super::{SNAPSHOTS_MAX, Snapshot, SnapshotError, SnapshotId, Snapshots};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

#[derive(Debug)]
pub(super) struct Draft {
    store: Arc<Snapshots>,
    path: PathBuf,
    file: File,
    bytes: u64,
    full: bool,
    kept: bool,
}

impl Draft {
    pub(super) fn new(store: &Arc<Snapshots>) -> Result<Self, SnapshotError> {
        if store.known().len() >= SNAPSHOTS_MAX {
            return Err(SnapshotError::TooMany);
        }
        let number = store.next.fetch_add(1, Ordering::Relaxed);
        let path = store.dir.join(format!("{number}.draft"));
        let file = File::create_new(&path)?;
        Ok(Self { store: Arc::clone(store), path, file, bytes: 0, full: false, kept: false })
    }

    /// The last of what was compressed.
    pub(super) fn finished(encoder: zstd::Encoder<'_, Self>) -> Result<Self, SnapshotError> {
        encoder.try_finish().map_err(|(encoder, error)| {
            encoder.get_ref().fault().unwrap_or(SnapshotError::Io(error))
        })
    }

    /// Why it could not be written, if it was us who refused.
    pub(super) fn fault(&self) -> Option<SnapshotError> {
        self.full.then_some(SnapshotError::Full { max: self.store.bytes_max })
    }

    pub(super) fn tar_bytes_max(&self) -> u64 {
        self.store.tar_bytes_max
    }

    /// To be read from its beginning.
    pub(super) fn reopen(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// Gives it its name. What is known already is not kept twice.
    pub(super) fn keep(
        mut self,
        id: SnapshotId,
        bytes: u64,
        entries: u64,
    ) -> Result<Snapshot, SnapshotError> {
        let store = Arc::clone(&self.store);
        let mut known = store.known();
        if let Some(known) = known.get(&id) {
            return Ok(known.clone());
        }
        if known.len() >= SNAPSHOTS_MAX {
            return Err(SnapshotError::TooMany);
        }
        fs::rename(&self.path, store.path(&id))?;
        self.kept = true;
        let snapshot = Snapshot { id: id.clone(), bytes, stored_bytes: self.bytes, entries };
        known.insert(id, snapshot.clone());
        Ok(snapshot)
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (more, max) = (bytes.len() as u64, self.store.bytes_max);
        let room = |used: u64| used.checked_add(more).filter(|it| max == 0 || *it <= max);
        let taken = self.store.used_bytes.try_update(Ordering::Relaxed, Ordering::Relaxed, room);
        if taken.is_err() {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        match self.file.write(bytes) {
            Ok(written) => {
                self.bytes += written as u64;
                self.store.used_bytes.fetch_sub(more - written as u64, Ordering::Relaxed);
                Ok(written)
            }
            Err(error) => {
                self.store.used_bytes.fetch_sub(more, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        self.store.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file = %self.path.display(), %error, "not removed");
        }
    }
}
