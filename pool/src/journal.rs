//! What must survive a crash of the pool: leases, containers, and the highest epoch.
//!
//! One thread writes. It takes whatever is queued, writes it as one fsynced transaction, then says
//! so: under load many leases share a sync. Renewals are not written: after a restart each lease
//! has its whole `ttl` anew.
//!
//! Invariants: nothing is said to be written before it is on the disk; a write that failed is
//! said to have failed, and the next one begins with a database opened anew. Ends and containers
//! that could not be written are carried into the next write; leases are not, as nobody has them.

#[cfg(test)]
pub(crate) mod disk;
mod format;
mod store;
#[cfg(test)]
mod tests;

use crate::core::{Record, Recovered};
use slotmux_protocol::LeaseId;
use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
    thread::JoinHandle,
};
use store::Store;

/// Records in one transaction.
const BATCH_MAX: usize = 16_384;
/// Records of failed writes that are kept for the next one.
const CARRIED_MAX: usize = 1 << 20;

/// Where the journal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalMode {
    /// Nothing is written: for pools that end with their process.
    Off,
    File(PathBuf),
}

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("journal `{path}` is in use by another pool; give each pool a journal of its own")]
    InUse { path: String },
    #[error(
        "journal `{path}` has format {found}, and this version knows up to {known}; use a newer \
         slotmux, or move the file away: the pool then rebuilds from its containers"
    )]
    Newer { path: String, found: u64, known: u64 },
    #[error(
        "journal `{path}` is damaged; move it away: the pool then rebuilds from its containers"
    )]
    Damaged { path: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("open journal `{path}`")]
    Open { path: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("write journal `{path}`")]
    Write { path: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("start the journal's thread")]
    Thread { source: std::io::Error },
}

/// Leases whose records were written, or could not be.
#[derive(Debug)]
pub struct Written {
    pub leases: Vec<LeaseId>,
    pub result: Result<(), Arc<JournalError>>,
}

pub type TellWritten = Arc<dyn Fn(Written) + Send + Sync>;

/// A journal that was read and is not written yet.
#[derive(Debug)]
pub struct ReadJournal(Option<Store>);

impl ReadJournal {
    pub fn open(mode: &JournalMode) -> Result<(Self, Recovered), JournalError> {
        match mode {
            JournalMode::Off => Ok((Self(None), Recovered::default())),
            JournalMode::File(path) => {
                let mut store = Store::file(path)?;
                let recovered = store.read()?;
                Ok((Self(Some(store)), recovered))
            }
        }
    }

    #[cfg(test)]
    fn with(mut store: Store) -> Result<(Self, Recovered), JournalError> {
        let recovered = store.read()?;
        Ok((Self(Some(store)), recovered))
    }

    /// `tell` is called from the journal's thread, in the order of the appends.
    pub fn start(self, tell: TellWritten) -> Result<Journal, JournalError> {
        let Some(store) = self.0 else { return Ok(Journal::Off(tell)) };
        let (records, queue) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("slotmux-journal".to_owned())
            .spawn(move || Writer { store, tell, carried: Vec::new() }.run(&queue))
            .map_err(|source| JournalError::Thread { source })?;
        Ok(Journal::File { records: Some(records), thread: Some(thread) })
    }
}

/// Dropping it waits until everything is written.
pub enum Journal {
    Off(TellWritten),
    File { records: Option<mpsc::Sender<Vec<Record>>>, thread: Option<JoinHandle<()>> },
}

impl Journal {
    /// Queues records. What became of the leases among them is told later.
    pub fn append(&self, records: Vec<Record>) {
        match self {
            Self::Off(tell) => {
                let leases = opened(&records);
                if !leases.is_empty() {
                    tell(Written { leases, result: Ok(()) });
                }
            }
            Self::File { records: Some(queue), .. } => {
                if queue.send(records).is_err() {
                    tracing::error!("the journal's thread has ended");
                }
            }
            Self::File { records: None, .. } => {}
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let Self::File { records, thread } = self else { return };
        drop(records.take());
        if thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the journal's thread panicked");
        }
    }
}

fn opened(records: &[Record]) -> Vec<LeaseId> {
    let lease = |record: &Record| match record {
        Record::LeaseOpened(lease) => Some(lease.lease),
        _ => None,
    };
    records.iter().filter_map(lease).collect()
}

struct Writer {
    store: Store,
    tell: TellWritten,
    carried: Vec<Record>,
}

impl Writer {
    fn run(mut self, queue: &mpsc::Receiver<Vec<Record>>) {
        while let Ok(mut batch) = queue.recv() {
            while batch.len() < BATCH_MAX
                && let Ok(more) = queue.try_recv()
            {
                batch.extend(more);
            }
            self.write(batch);
        }
        if !self.carried.is_empty() {
            self.write(Vec::new());
        }
    }

    fn write(&mut self, mut batch: Vec<Record>) {
        let leases = opened(&batch);
        if !self.carried.is_empty() {
            self.carried.append(&mut batch);
            batch = std::mem::take(&mut self.carried);
        }
        let result = self.store.write(&batch).map_err(Arc::new);
        if let Err(error) = &result {
            let source = std::error::Error::source(&**error).map(ToString::to_string);
            tracing::error!(%error, source, "journal not written");
            batch.retain(|record| !matches!(record, Record::LeaseOpened(_)));
            batch.truncate(CARRIED_MAX);
            self.carried = batch;
        }
        if !leases.is_empty() {
            (self.tell)(Written { leases, result });
        }
    }
}
