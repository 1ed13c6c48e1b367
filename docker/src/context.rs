//! What an image is built of: a directory without what its `.dockerignore` leaves out, and a
//! Dockerfile.
//!
//! Invariant: the digest says all that goes into the archive, and nothing else (no times, no
//! owners), so that one context has one digest on every machine.

mod ignore;
mod pack;
mod walk;

pub(crate) use ignore::PatternError;
pub(crate) use pack::pack;

use crate::settings::Build;
use sha2::{Digest, Sha256};
use std::{
    fmt::Write,
    fs::File,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};
use walk::walk;

/// Of all files together.
const CONTEXT_BYTES_MAX: u64 = 8 << 30;
const CONTEXT_ENTRIES_MAX: usize = 500_000;

/// Of a Dockerfile that is not in the directory.
const FOREIGN_DOCKERFILE: &str = ".dockerfile.slotmux";

#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    #[error("read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("`{0}` is no regular file")]
    NoFile(PathBuf),
    #[error("read the patterns of `{path}`")]
    Ignore { path: PathBuf, source: PatternError },
    #[error(
        "`{path}` has more than {CONTEXT_ENTRIES_MAX} entries: leave some out by a .dockerignore"
    )]
    TooMany { path: PathBuf },
    #[error("`{path}` has more than {CONTEXT_BYTES_MAX} bytes: leave some out by a .dockerignore")]
    TooLarge { path: PathBuf },
}

/// What there was when it was looked at, in an order that is always the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Context {
    pub(super) entries: Vec<Entry>,
    /// As the engine is told it.
    pub(crate) dockerfile: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// In the archive.
    pub(super) name: PathBuf,
    /// On this machine.
    pub(super) path: PathBuf,
    pub(super) mode: u32,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    Link(PathBuf),
    File { length: u64, modified: SystemTime },
}

impl Context {
    /// Blocking.
    pub(crate) fn look(build: &Build) -> Result<Self, ContextError> {
        let dockerfile = build.context.join(&build.dockerfile);
        let name = dockerfile.strip_prefix(&build.context).ok().filter(|name| is_plain(name));
        let ignored = ignore::read(&build.context)?;
        let mut entries = walk(&build.context, &ignored, name)?;
        let name = if let Some(name) = name.and_then(Path::to_str) {
            name.to_owned()
        } else {
            entries.push(walk::file(&dockerfile, FOREIGN_DOCKERFILE.into())?);
            FOREIGN_DOCKERFILE.to_owned()
        };
        if !entries.iter().any(|it| it.name == Path::new(&name)) {
            let source = io::ErrorKind::NotFound.into();
            return Err(ContextError::Read { path: dockerfile, source });
        }
        let bytes = entries.iter().map(|entry| match entry.kind {
            Kind::File { length, .. } => length,
            Kind::Directory | Kind::Link(_) => 0,
        });
        if bytes.sum::<u64>() > CONTEXT_BYTES_MAX {
            return Err(ContextError::TooLarge { path: build.context.clone() });
        }
        Ok(Self { entries, dockerfile: name })
    }

    /// Of what is in it, and of what it is built with. Reads every file; blocking.
    fn digest(&self, build: &Build) -> Result<String, ContextError> {
        let mut all = Sha256::new();
        // Each part with its length: two lists of parts never look alike.
        let mut add = |part: &[u8]| {
            all.update((part.len() as u64).to_le_bytes());
            all.update(part);
        };
        add(self.dockerfile.as_bytes());
        for (name, value) in &build.args {
            add(name.as_bytes());
            add(value.as_bytes());
        }
        for entry in &self.entries {
            add(entry.name.as_os_str().as_bytes());
            add(&entry.mode.to_le_bytes());
            match &entry.kind {
                Kind::Directory => add(b"d"),
                Kind::Link(to) => add(&[b"l", to.as_os_str().as_bytes()].concat()),
                Kind::File { .. } => add(&content(&entry.path)?),
            }
        }
        let mut text = "sha256:".to_owned();
        for byte in all.finalize() {
            // Writing to a string never fails.
            let _ = write!(text, "{byte:02x}");
        }
        Ok(text)
    }
}

/// Nothing in it leads upwards.
fn is_plain(name: &Path) -> bool {
    name.components().all(|part| matches!(part, std::path::Component::Normal(_)))
}

fn content(path: &Path) -> Result<[u8; 32], ContextError> {
    let read = |source| ContextError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read)?;
    let mut digest = Sha256::new();
    let mut bytes = vec![0; 64 << 10];
    loop {
        match io::Read::read(&mut file, &mut bytes).map_err(read)? {
            0 => return Ok(digest.finalize().into()),
            count => digest.update(&bytes[..count]),
        }
    }
}

/// The last digest of one context: its files are read again only if one looks changed.
#[derive(Debug, Default)]
pub(crate) struct Remembered(Mutex<Option<(Context, Build, String)>>);

impl Remembered {
    /// Blocking.
    pub(crate) fn look(&self, build: &Build) -> Result<(Context, String), ContextError> {
        let context = Context::look(build)?;
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, digest)) =
            last.as_ref().filter(|(seen, of, _)| *seen == context && of == build)
        {
            return Ok((context, digest.clone()));
        }
        let digest = context.digest(build)?;
        *last = Some((context.clone(), build.clone(), digest.clone()));
        Ok((context, digest))
    }
}

#[cfg(test)]
mod tests;
