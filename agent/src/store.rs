//! What a later agent needs to know of jobs that run, should this one be killed.
//!
//! Invariant: a job's record is written before its container begins with it, and gone only when
//! nothing of the job is left.

use crate::{containers::PortPair, names::Run};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const VERSION: u32 = 1;
const ENDING: &str = "json";
/// Of a record: what is larger is none of ours.
const BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Clone)]
pub(crate) struct Store {
    dir: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    pub(crate) run: String,
    pub(crate) job: String,
    written_unix_ms: u64,
    pub(crate) kind: RecordKind,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RecordKind {
    Graded(GradedRecord),
    Plain,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct GradedRecord {
    pub(crate) previous_state: String,
    pub(crate) environment_type: String,
    pub(crate) environment: String,
    pub(crate) soft_ms: u64,
    pub(crate) hard_ms: u64,
    pub(crate) memory_mb: u64,
    /// Of the container and of this machine.
    pub(crate) ports: Vec<(u16, u16)>,
    /// Processor time that was used before the job began.
    pub(crate) used_before_ns: u64,
}

impl Record {
    pub(crate) fn new(run: &Run, job: &str, kind: RecordKind) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            version: VERSION,
            run: run.as_str().to_owned(),
            job: job.to_owned(),
            written_unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            kind,
        }
    }

    /// Processor time that its container had used before the job began.
    pub(crate) fn used_before(&mut self, used: Duration) {
        if let RecordKind::Graded(graded) = &mut self.kind {
            graded.used_before_ns = u64::try_from(used.as_nanos()).unwrap_or(u64::MAX);
        }
    }

    /// Since it was written, about when the container was started.
    pub(crate) fn age(&self, now: SystemTime) -> Duration {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(Duration::from_millis(self.written_unix_ms))
    }
}

impl GradedRecord {
    pub(crate) fn port_pairs(&self) -> Vec<PortPair> {
        self.ports.iter().map(|(inner, outer)| PortPair { inner: *inner, outer: *outer }).collect()
    }
}

impl Store {
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        // What students have sent stands in there.
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(Self { dir })
    }

    /// Blocks until it is on the disk.
    pub(crate) fn write(&self, record: &Record) -> io::Result<()> {
        let path = self.path(&record.run);
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.sync_data()?;
        fs::rename(&new, &path)?;
        File::open(&self.dir)?.sync_data()
    }

    /// Only this process may die then, and not its machine: that ends the container as well.
    pub(crate) fn write_soon(&self, record: &Record) -> io::Result<()> {
        let path = self.path(&record.run);
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec(record)?)?;
        fs::rename(&new, &path)
    }

    pub(crate) fn remove(&self, run: &Run) -> io::Result<()> {
        match fs::remove_file(self.path(run.as_str())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// What cannot be read is removed: it was never finished, and its container never started.
    pub(crate) fn all(&self) -> io::Result<Vec<(Run, Record)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if let Some(found) = read(&path) {
                all.push(found);
            } else {
                tracing::warn!(path = %path.display(), "no record of a job, and removed");
                fs::remove_file(&path)?;
            }
        }
        Ok(all)
    }

    fn path(&self, run: &str) -> PathBuf {
        self.dir.join(run).with_extension(ENDING)
    }
}

fn read(path: &Path) -> Option<(Run, Record)> {
    let is_whole = path.extension()? == ENDING && fs::metadata(path).ok()?.len() <= BYTES_MAX;
    let text = is_whole.then(|| fs::read(path))?.ok()?;
    let record: Record = serde_json::from_slice(&text).ok()?;
    let run = Run::read(&record.run).filter(|it| path.file_stem() == Some(it.as_str().as_ref()))?;
    (record.version == VERSION).then_some((run, record))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_again_and_half_written_ones_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("state")).unwrap();
        let run = Run::new();
        let record = Record::new(&run, "job/../1", RecordKind::Plain);
        store.write(&record).unwrap();
        fs::write(dir.path().join("state/0123456789abcdef.new"), b"{").unwrap();
        fs::write(dir.path().join("state/0123456789abcdef.json"), b"{").unwrap();
        let again = Store::open(dir.path().join("state")).unwrap();
        assert_eq!(again.all().unwrap(), [(run.clone(), record)]);
        assert_eq!(fs::read_dir(dir.path().join("state")).unwrap().count(), 1);
        again.remove(&run).unwrap();
        again.remove(&run).unwrap();
        assert_eq!(again.all().unwrap(), []);
    }
}
