//! A directory for a while.

use crate::fault::Fault;
use std::{
    env,
    fs::{self, DirBuilder},
    hash::{BuildHasher, Hasher, RandomState},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// Removed when dropped. Users of slots may pass through it, not look into it.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(crate) fn new(purpose: &str) -> Result<Self, Fault> {
        // Seeded by the system's randomness; making it fails if somebody has it already.
        let number = RandomState::new().build_hasher().finish();
        let path = env::temp_dir().join(format!("slotmux-{purpose}-{number:016x}"));
        DirBuilder::new().mode(0o711).create(&path).map_err(|error| {
            Fault::because(format!("make the directory `{}`", path.display()), &error)
                .hint("TMPDIR says where temporary directories are made")
        })?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "directory not removed");
        }
    }
}
