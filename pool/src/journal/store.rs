//! The database file.

use super::{
    JournalError,
    format::{self, FORMAT},
};
use crate::core::{Record, Recovered};
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
};
use slotmux_protocol::ContainerId;
use std::{error::Error, fmt, io, path::Path};

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const LEASES: TableDefinition<u64, &[u8]> = TableDefinition::new("leases");
const CONTAINERS: TableDefinition<&str, &[u8]> = TableDefinition::new("containers");
const CACHE_BYTES: usize = 32 << 20;

type Cause = Box<dyn Error + Send + Sync>;
type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

pub(super) struct Store {
    label: String,
    opener: Opener,
    /// None after a failed write: what redb then has in memory is not to be trusted.
    database: Option<Database>,
    epoch_max: u64,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("label", &self.label).finish_non_exhaustive()
    }
}

impl Store {
    pub(super) fn file(path: &Path) -> Result<Self, JournalError> {
        let label = path.display().to_string();
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|source| JournalError::Open {
                path: label.clone(),
                source: source.into(),
            })?;
        }
        let path = path.to_owned();
        Self::open(
            label,
            Box::new(move || Database::builder().set_cache_size(CACHE_BYTES).create(&path)),
        )
    }

    pub(super) fn open(label: String, opener: Opener) -> Result<Self, JournalError> {
        let database = opener().map_err(|error| not_opened(&label, error))?;
        Ok(Self { label, opener, database: Some(database), epoch_max: 0 })
    }

    /// Everything that is in it.
    pub(super) fn read(&mut self) -> Result<Recovered, JournalError> {
        let path = self.label.clone();
        let damaged = |source| JournalError::Damaged { path: path.clone(), source };
        let Some(database) = &self.database else { return Ok(Recovered::default()) };
        match check_format(database).map_err(damaged)? {
            FORMAT => {}
            found => return Err(JournalError::Newer { path, found, known: FORMAT }),
        }
        let recovered = read_all(database).map_err(damaged)?;
        self.epoch_max = recovered.epoch_max;
        Ok(recovered)
    }

    /// All of it or nothing, on the disk when this returns.
    pub(super) fn write(&mut self, records: &[Record]) -> Result<(), JournalError> {
        let result = self.try_write(records);
        if result.is_err() {
            self.database = None;
        }
        result.map_err(|source| JournalError::Write { path: self.label.clone(), source })
    }

    fn try_write(&mut self, records: &[Record]) -> Result<(), Cause> {
        let database = match self.database.take() {
            Some(database) => database,
            None => (self.opener)()?,
        };
        let epoch_max = write_all(&database, records, self.epoch_max)?;
        self.epoch_max = epoch_max;
        self.database = Some(database);
        Ok(())
    }
}

fn not_opened(label: &str, error: DatabaseError) -> JournalError {
    let path = label.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            JournalError::InUse { path }
        }
        DatabaseError::Storage(StorageError::Io(error))
            if !matches!(
                error.kind(),
                io::ErrorKind::InvalidData
                    | io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::InvalidInput
            ) =>
        {
            JournalError::Open { path, source: error.into() }
        }
        damaged => JournalError::Damaged { path, source: damaged.into() },
    }
}

/// The format of the file; a new one gets ours.
fn check_format(database: &Database) -> Result<u64, Cause> {
    let write = database.begin_write()?;
    let found = {
        let mut meta = write.open_table(META)?;
        let found = meta.get("format")?.map(|it| it.value());
        if found.is_none() {
            meta.insert("format", FORMAT)?;
        }
        found
    };
    if let Some(found) = found {
        write.abort()?;
        return Ok(found);
    }
    write.open_table(LEASES)?;
    write.open_table(CONTAINERS)?;
    write.commit()?;
    Ok(FORMAT)
}

fn read_all(database: &Database) -> Result<Recovered, Cause> {
    let read = database.begin_read()?;
    let mut recovered = Recovered::default();
    for entry in read.open_table(LEASES)?.iter()? {
        let (epoch, bytes) = entry?;
        recovered.leases.push(format::lease_from(epoch.value(), bytes.value())?);
    }
    for entry in read.open_table(CONTAINERS)?.iter()? {
        let (id, bytes) = entry?;
        let id = ContainerId::new(id.value())?;
        recovered.containers.push(format::container_from(id, bytes.value())?);
    }
    let epoch_max = read.open_table(META)?.get("epoch_max")?;
    recovered.epoch_max = epoch_max.map_or(0, |it| it.value());
    Ok(recovered)
}

fn write_all(database: &Database, records: &[Record], before: u64) -> Result<u64, Cause> {
    let write = database.begin_write()?;
    let mut epoch_max = before;
    {
        let mut leases = write.open_table(LEASES)?;
        let mut containers = write.open_table(CONTAINERS)?;
        for record in records {
            match record {
                Record::LeaseOpened(lease) => {
                    epoch_max = epoch_max.max(lease.lease.0.0);
                    leases.insert(lease.lease.0.0, &*format::lease_to_bytes(lease)?)?;
                }
                Record::LeaseEnded { lease } => {
                    leases.remove(lease.0.0)?;
                }
                Record::ContainerKnown(container) => {
                    let bytes = format::container_to_bytes(container)?;
                    containers.insert(container.id.as_str(), &*bytes)?;
                }
                Record::ContainerGone { id } => {
                    containers.remove(id.as_str())?;
                }
            }
        }
        if epoch_max > before {
            write.open_table(META)?.insert("epoch_max", epoch_max)?;
        }
    }
    write.commit()?;
    Ok(epoch_max)
}
