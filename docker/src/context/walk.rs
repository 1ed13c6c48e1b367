//! What there is in a directory, in order, without following links.

use super::{CONTEXT_ENTRIES_MAX, ContextError, Entry, Kind, ignore::Ignored};
use std::{
    fs::{self, FileType, Metadata},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Without what is ignored, but with `always`.
pub(super) fn walk(
    root: &Path,
    ignored: &Ignored,
    always: Option<&Path>,
) -> Result<Vec<Entry>, ContextError> {
    let mut entries = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let path = root.join(&directory);
        let read = |source| ContextError::Read { path: path.clone(), source };
        for child in fs::read_dir(&path).map_err(read)? {
            let name = directory.join(child.map_err(read)?.file_name());
            let path = root.join(&name);
            let meta = fs::symlink_metadata(&path)
                .map_err(|source| ContextError::Read { path: path.clone(), source })?;
            let left_out = ignored.leaves_out(&name) && always != Some(&*name);
            let holds = always.is_some_and(|always| always.starts_with(&name));
            if meta.is_dir() && (!left_out || holds || ignored.brings_back()) {
                directories.push(name.clone());
            }
            if left_out {
                continue;
            }
            if let Some(entry) = entry(name, path, &meta)? {
                entries.push(entry);
            }
            if entries.len() > CONTEXT_ENTRIES_MAX {
                return Err(ContextError::TooMany { path: root.to_owned() });
            }
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// One file, under another name. Links to it are followed.
pub(super) fn file(path: &Path, name: PathBuf) -> Result<Entry, ContextError> {
    let read = |source| ContextError::Read { path: path.to_owned(), source };
    let meta = fs::metadata(path).map_err(read)?;
    if !meta.is_file() {
        return Err(ContextError::NoFile(path.to_owned()));
    }
    entry(name, path.to_owned(), &meta)?.ok_or_else(|| read(io::ErrorKind::InvalidInput.into()))
}

/// `None`: a socket or the like, which no archive holds.
fn entry(name: PathBuf, path: PathBuf, meta: &Metadata) -> Result<Option<Entry>, ContextError> {
    let kind: FileType = meta.file_type();
    let read = |source| ContextError::Read { path: path.clone(), source };
    let kind = if kind.is_dir() {
        Kind::Directory
    } else if kind.is_symlink() {
        Kind::Link(fs::read_link(&path).map_err(read)?)
    } else if kind.is_file() {
        Kind::File { length: meta.len(), modified: meta.modified().map_err(read)? }
    } else {
        return Ok(None);
    };
    // A link's own is the kernel's affair.
    let mode = if matches!(kind, Kind::Link(_)) { 0o777 } else { meta.permissions().mode() };
    Ok(Some(Entry { name, path, mode: mode & 0o7777, kind }))
}
