//! Starting a container's process, and finding it again. Blocking; called off the runtime.

use crate::{
    LocalSettings, command,
    layout::{ContainerDir, NameTooLong},
    process::Process,
    record::{Record, RecordError},
};
use slotmux_backend::{BackendError, LaunchSpec};
use std::{
    fs,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// A container with a process.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) dir: ContainerDir,
    pub(crate) record: Record,
    pub(crate) process: Process,
}

/// What a container's directory stands for.
#[derive(Debug)]
pub(crate) enum Found {
    Alive(Box<Container>),
    /// Debris; with its record, if there is one to read.
    Dead(Option<Box<Record>>),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("name its directory")]
    Name(#[from] NameTooLong),
    #[error("make its directory `{path}`")]
    Directory { path: PathBuf, source: io::Error },
    #[error("draw its token")]
    Token(#[source] io::Error),
    #[error("write in its directory `{path}`")]
    Write { path: PathBuf, source: io::Error },
    #[error("run `{program}`")]
    Run { program: PathBuf, source: io::Error },
    #[error("see its process")]
    Watch(#[source] io::Error),
}

pub(crate) fn start(
    settings: &LocalSettings,
    spec: &LaunchSpec,
    dir: ContainerDir,
) -> Result<Container, StartError> {
    dir.create().map_err(|source| StartError::Directory { path: dir.path().to_owned(), source })?;
    let started = run(settings, spec, &dir);
    if started.is_err() {
        // What cannot be removed now is removed by the next list.
        let _ = fs::remove_dir_all(dir.path());
    }
    let (record, process) = started?;
    Ok(Container { dir, record, process })
}

fn run(
    settings: &LocalSettings,
    spec: &LaunchSpec,
    dir: &ContainerDir,
) -> Result<(Record, Process), StartError> {
    let writes = |source| StartError::Write { path: dir.path().to_owned(), source };
    let mut record = Record::new(spec, command::new_token().map_err(StartError::Token)?);
    // Before the process: if we are cut off between them, it is found by its command line.
    record.write(&dir.record()).map_err(writes)?;
    let mut command = command::serve(settings, spec, dir, &record.token).map_err(writes)?;
    let mut child = command
        .spawn()
        .map_err(|source| StartError::Run { program: settings.program.clone(), source })?;
    let seen = Process::child(child.id()).map_err(StartError::Watch).and_then(|process| {
        record.process = Some(process.identity().clone());
        record.write(&dir.record()).map_err(writes)?;
        Ok(process)
    });
    if seen.is_err() {
        // A process that nobody can find again must not stay. It may have ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
    Ok((record, seen?))
}

/// Looks at what an earlier pool left in `dir`.
pub(crate) fn find(dir: ContainerDir) -> Result<Found, RecordError> {
    let mut record = match Record::read(&dir.record()) {
        Ok(Some(record)) => record,
        Ok(None) => return Ok(Found::Dead(None)),
        Err(error @ (RecordError::Read(_) | RecordError::Format(_))) => return Err(error),
        Err(error @ RecordError::Damaged(_)) => {
            tracing::warn!(path = %dir.path().display(), %error, "container without a record");
            return Ok(Found::Dead(None));
        }
    };
    let process = match &record.process {
        Some(identity) => Process::find(identity)?,
        None => Process::find_by_argument(&dir.ready())?,
    };
    let Some(process) = process else { return Ok(Found::Dead(Some(Box::new(record)))) };
    if record.process.is_none() {
        record.process = Some(process.identity().clone());
        record.write(&dir.record())?;
    }
    Ok(Found::Alive(Box::new(Container { dir, record, process })))
}

/// The last `bytes_max` bytes of a log, or a little less: no character is cut in two.
pub(crate) fn log_end(path: &Path, bytes_max: usize) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    let bytes_max = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    file.seek(SeekFrom::Start(length.saturating_sub(bytes_max)))?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    let cut = bytes.iter().take_while(|byte| **byte & 0b1100_0000 == 0b1000_0000).count();
    // A replaced byte is three bytes long; ours is the bound to keep.
    let mut text = String::from_utf8_lossy(&bytes[cut..]).into_owned();
    while u64::try_from(text.len()).unwrap_or(u64::MAX) > bytes_max {
        text.remove(0);
    }
    Ok(text)
}

impl StartError {
    /// Whether the same launch may work later.
    fn may_pass(&self) -> bool {
        match self {
            Self::Name(_) => false,
            Self::Token(_) | Self::Watch(_) => true,
            Self::Directory { source, .. }
            | Self::Write { source, .. }
            | Self::Run { source, .. } => !lasts(source.kind()),
        }
    }

    pub(crate) fn into_backend_error(self, doing: String) -> BackendError {
        if self.may_pass() {
            BackendError::Unavailable { doing, source: Box::new(self) }
        } else {
            BackendError::Refused { doing, source: Box::new(self) }
        }
    }
}

/// Errors that the same call would meet again.
pub(crate) fn lasts(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::ArgumentListTooLong
            | io::ErrorKind::InvalidInput
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_bounded_whatever_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "größe \u{1f600}").unwrap();
        assert_eq!(log_end(&path, 100).unwrap(), "größe \u{1f600}");
        assert_eq!(log_end(&path, 4).unwrap(), "\u{1f600}");
        assert_eq!(log_end(&path, 3).unwrap(), "");
        assert_eq!(log_end(&path, 0).unwrap(), "");
        fs::write(&path, b"\xff\xff\xff\xff").unwrap();
        assert!(log_end(&path, 4).unwrap().len() <= 4);
    }
}
