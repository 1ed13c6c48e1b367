//! Real files, and a disk that fails when it is told to.

use super::{Journal, JournalError, JournalMode, ReadJournal, Written, disk::Disk};
use crate::core::{ContainerRecord, LeaseRecord, Record, Recovered};
use redb::{Database, TableDefinition};
use slotmux_protocol::{ContainerId, Epoch, LeaseId, SlotIndex, TrajectoryId};
use std::{
    path::Path,
    sync::{Arc, mpsc},
    time::Duration,
};

const LONG: Duration = Duration::from_secs(20);

fn lease(epoch: u64) -> LeaseRecord {
    LeaseRecord {
        lease: LeaseId(Epoch(epoch)),
        trajectory: TrajectoryId::new(format!("t{epoch}")).unwrap(),
        container: ContainerId::new("c").unwrap(),
        slot: SlotIndex(3),
        ttl_ms: 60_000,
    }
}

fn opened(epoch: u64) -> Record {
    Record::LeaseOpened(lease(epoch))
}

fn ended(epoch: u64) -> Record {
    Record::LeaseEnded { lease: LeaseId(Epoch(epoch)) }
}

fn container(boot: Option<&str>) -> ContainerRecord {
    ContainerRecord { id: ContainerId::new("c").unwrap(), boot: boot.map(Into::into) }
}

fn begin(read: ReadJournal) -> (Journal, mpsc::Receiver<Written>) {
    let (told, written) = mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let tell = move |it| drop(told.lock().unwrap().send(it));
    (read.start(Arc::new(tell)).unwrap(), written)
}

fn open(path: &Path) -> Result<(ReadJournal, Recovered), JournalError> {
    ReadJournal::open(&JournalMode::File(path.to_owned()))
}

#[test]
fn what_was_written_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/er/journal.redb");
    let (read, recovered) = open(&path).unwrap();
    assert_eq!(recovered, Recovered::default());
    let (journal, written) = begin(read);
    journal.append(vec![Record::ContainerKnown(container(None)), opened(7), opened(9)]);
    journal.append(vec![Record::ContainerKnown(container(Some("boot"))), ended(9), opened(8)]);
    let mut leases = Vec::new();
    while leases.len() < 3 {
        let told = written.recv_timeout(LONG).unwrap();
        assert!(told.result.is_ok());
        leases.extend(told.leases.iter().map(|lease| lease.0.0));
    }
    assert_eq!(leases, [7, 9, 8]);
    drop(journal);
    let (_, recovered) = open(&path).unwrap();
    assert_eq!(recovered.leases, [lease(7), lease(8)]);
    assert_eq!(recovered.containers, [container(Some("boot"))]);
    assert_eq!(recovered.epoch_max, 9, "also of leases that have ended");
}

#[test]
fn what_was_said_to_be_written_survives_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let (path, copy) = (directory.path().join("a.redb"), directory.path().join("b.redb"));
    let (journal, written) = begin(open(&path).unwrap().0);
    for epoch in 1..50 {
        journal.append(vec![opened(epoch)]);
        written.recv_timeout(LONG).unwrap().result.unwrap();
        // The file as a crash would leave it: nobody has closed it.
        std::fs::copy(&path, &copy).unwrap();
        let (_, recovered) = open(&copy).unwrap();
        assert_eq!(recovered.leases.len() as u64, epoch);
    }
}

#[test]
fn a_file_of_the_future_a_damaged_one_and_one_in_use_are_refused_with_advice() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.redb");
    let held = open(&path).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, JournalError::InUse { .. }), "{error:?}");
    drop(held);

    let meta: TableDefinition<&str, u64> = TableDefinition::new("meta");
    let database = Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(meta).unwrap().insert("format", 2).unwrap();
    write.commit().unwrap();
    drop(database);
    let error = open(&path).unwrap_err();
    assert!(matches!(error, JournalError::Newer { found: 2, known: 1, .. }), "{error:?}");

    std::fs::write(&path, vec![0x5a; 8_192]).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("journal.redb") && text.contains("move it away"), "{text}");
}

#[test]
fn a_full_disk_is_told_and_the_ends_are_written_when_there_is_room_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.redb");
    let disk = Disk::new(path.clone());
    let (journal, written) = begin(disk.open().unwrap().0);
    let told = |epoch| {
        let told = written.recv_timeout(LONG).unwrap();
        assert_eq!(told.leases, [LeaseId(Epoch(epoch))]);
        told.result.is_ok()
    };
    journal.append(vec![opened(1)]);
    assert!(told(1));
    disk.fill();
    journal.append(vec![ended(1), opened(2)]);
    assert!(!told(2));
    journal.append(vec![opened(3)]);
    assert!(!told(3), "still full");
    disk.make_room();
    journal.append(vec![opened(4)]);
    assert!(told(4));
    drop(journal);
    let (_, recovered) = open(&path).unwrap();
    assert_eq!(recovered.leases, [lease(4)]);
}
