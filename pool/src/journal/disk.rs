//! A disk that is full when a test says so.

use super::{JournalError, ReadJournal, store::Store};
use crate::core::Recovered;
use redb::{BackendError, Database, DatabaseError, StorageBackend, backends::FileBackend};
use std::{
    fs, io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

pub(crate) struct Disk {
    path: PathBuf,
    is_full: Arc<AtomicBool>,
}

impl Disk {
    /// With a journal at `path`.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, is_full: Arc::default() }
    }

    pub(crate) fn fill(&self) {
        self.is_full.store(true, Ordering::SeqCst);
    }

    pub(crate) fn make_room(&self) {
        self.is_full.store(false, Ordering::SeqCst);
    }

    pub(crate) fn open(&self) -> Result<(ReadJournal, Recovered), JournalError> {
        let (path, is_full) = (self.path.clone(), Arc::clone(&self.is_full));
        let opener = move || database(&path, &is_full);
        ReadJournal::with(Store::open("a disk of a test".into(), Box::new(opener))?)
    }
}

fn database(path: &Path, is_full: &Arc<AtomicBool>) -> Result<Database, DatabaseError> {
    let options = fs::File::options().read(true).write(true).create(true).truncate(false).clone();
    let file = FileBackend::new(options.open(path)?)?;
    Database::builder().create_with_backend(File { file, is_full: Arc::clone(is_full) })
}

#[derive(Debug)]
struct File {
    file: FileBackend,
    is_full: Arc<AtomicBool>,
}

impl File {
    fn check(&self) -> io::Result<()> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl StorageBackend for File {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }
}
