//! Where a container's files are.
//!
//! `STATE/POOL/containers/NAME/{container.json, ready.json, container.log, data/}`; names are
//! encoded, so that none of them leaves its directory.

use slotmux_protocol::ContainerId;
use std::{
    fmt::Write,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// Longest file name of common file systems.
const NAME_BYTES_MAX: usize = 255;

#[derive(Debug, thiserror::Error)]
#[error("the name `{0}` is too long for a directory")]
pub(crate) struct NameTooLong(String);

/// The directory of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContainerDir {
    path: PathBuf,
}

impl ContainerDir {
    pub(crate) fn new(
        state_dir: &Path,
        pool: &str,
        container: &ContainerId,
    ) -> Result<Self, NameTooLong> {
        let path = containers(state_dir, pool)?.join(encode(container.as_str())?);
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.path.join("container.json")
    }

    pub(crate) fn ready(&self) -> PathBuf {
        self.path.join("ready.json")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("container.log")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Makes it with everything above it. Users of slots pass through, and cannot look around.
    pub(crate) fn create(&self) -> io::Result<()> {
        let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
        DirBuilder::new().recursive(true).mode(mode).create(self.data())
    }
}

/// The directories of every container of `pool`.
pub(crate) fn of_pool(state_dir: &Path, pool: &str) -> io::Result<Vec<ContainerDir>> {
    match containers(state_dir, pool) {
        Ok(path) => Ok(subdirectories(&path)?.map(|path| ContainerDir { path }).collect()),
        Err(NameTooLong(_)) => Ok(Vec::new()),
    }
}

/// The directory of `container`, whatever its pool.
pub(crate) fn find(state_dir: &Path, container: &ContainerId) -> io::Result<Option<ContainerDir>> {
    let Ok(name) = encode(container.as_str()) else { return Ok(None) };
    Ok(subdirectories(state_dir)?
        .map(|pool| pool.join("containers").join(&name))
        .find(|path| path.is_dir())
        .map(|path| ContainerDir { path }))
}

fn containers(state_dir: &Path, pool: &str) -> Result<PathBuf, NameTooLong> {
    Ok(state_dir.join(encode(pool)?).join("containers"))
}

fn subdirectories(path: &Path) -> io::Result<impl Iterator<Item = PathBuf> + use<>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => Some(entries),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let paths: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    Ok(paths.into_iter().filter(|path| path.is_dir()))
}

/// Letters, digits, `-`, `_` and inner dots stand for themselves; other bytes as `%hh`.
fn encode(name: &str) -> Result<String, NameTooLong> {
    let mut encoded = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => encoded.push(byte.into()),
            b'-' | b'.' if at > 0 => encoded.push(byte.into()),
            // Writing to a string never fails.
            _ => drop(write!(encoded, "%{byte:02x}")),
        }
    }
    if encoded.is_empty() || encoded.len() > NAME_BYTES_MAX {
        return Err(NameTooLong(name.chars().take(40).collect()));
    }
    Ok(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leaves_its_directory() {
        for (name, encoded) in [
            ("small-0.1_a", "small-0.1_a"),
            ("..", "%2e."),
            (".", "%2e"),
            ("a/../b", "a%2f..%2fb"),
            ("-rf", "%2drf"),
            ("%2e", "%252e"),
            ("ü", "%c3%bc"),
        ] {
            assert_eq!(encode(name).unwrap(), encoded);
        }
    }

    #[test]
    fn a_name_is_checked_at_the_limit_and_one_past_it() {
        assert!(encode(&"n".repeat(255)).is_ok());
        assert!(encode(&"n".repeat(256)).is_err());
        assert!(encode(&"/".repeat(86)).is_err());
        assert!(encode("").is_err());
    }
}
