//! `container.json`: what a later pool needs to know of a container.
//!
//! Written whole or not at all. It holds the container's token, so only its owner reads it.

use crate::process::Identity;
use serde::{Deserialize, Serialize};
use slotmux_backend::{Labels, LaunchSpec};
use slotmux_protocol::{ContainerId, ProfileName};
use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Raised when an older Slotmux could misread the file.
const FORMAT: u32 = 1;

/// More than any record has.
const BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    format: u32,
    pub(crate) container: ContainerId,
    pool: String,
    generation: u64,
    profile: ProfileName,
    pub(crate) slots: u16,
    pub(crate) token: String,
    /// Absent in a launch that was cut off between its record and its process.
    pub(crate) process: Option<Identity>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("read its record")]
    Read(#[from] io::Error),
    #[error("its record is damaged")]
    Damaged(#[from] serde_json::Error),
    #[error("its record has format {0}, which this version does not know")]
    Format(u32),
}

impl Record {
    pub(crate) fn new(spec: &LaunchSpec, token: String) -> Self {
        Self {
            format: FORMAT,
            container: spec.container.clone(),
            pool: spec.labels.pool.clone(),
            generation: spec.labels.generation,
            profile: spec.labels.profile.clone(),
            slots: spec.slots,
            token,
            process: None,
        }
    }

    pub(crate) fn labels(&self) -> Labels {
        Labels {
            pool: self.pool.clone(),
            generation: self.generation,
            profile: self.profile.clone(),
        }
    }

    /// `None`: there is no record.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, RecordError> {
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut text = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut text)?;
        let record: Self = serde_json::from_slice(&text)?;
        if record.format != FORMAT {
            return Err(RecordError::Format(record.format));
        }
        Ok(Some(record))
    }

    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let draft = path.with_extension("json.new");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        fs::rename(draft, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_record_reads_back_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("container.json");
        assert!(Record::read(&path).unwrap().is_none());
        let spec = slotmux_backend::conformance::spec("one");
        let record = Record::new(&spec, "secret".to_owned());
        record.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Record::read(&path).unwrap().unwrap();
        assert_eq!((read.labels(), &read), (spec.labels, &record));
    }

    #[test]
    fn a_damaged_record_is_an_error_and_not_a_container() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("container.json");
        fs::write(&path, "{\"format\":").unwrap();
        assert!(matches!(Record::read(&path), Err(RecordError::Damaged(_))));
    }
}
