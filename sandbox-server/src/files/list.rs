//! Listing directories, and finding files by a pattern of their path.

use super::{
    FileError, Told, Until, Workspace, names,
    walk::{Kind, Reach, Walk, walk},
};
use globset::{GlobBuilder, GlobMatcher};
use rustix::fs::Stat;
use serde_json::{Map, Value, json};
use slotmux_protocol::{GlobArgs, ListFilesArgs};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

const ENTRIES_MAX: u64 = 5_000;
/// Of all entries' paths: there may be that many, and each may be long.
const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// Looked at on the way to those that match.
pub(super) const LOOKED_AT_MAX: u64 = 1_000_000;
const PATTERN_BYTES_MAX: usize = 1_000;

pub(super) fn list_files(
    workspace: &Workspace,
    args: &ListFilesArgs,
    until: &Until,
) -> Result<Told, FileError> {
    let path = args.path.as_deref().unwrap_or(".");
    let max = args.max_entries.unwrap_or(ENTRIES_MAX).min(ENTRIES_MAX);
    let reach = Reach { recursive: args.recursive, entries_max: max };
    let mut walk = walk(workspace, path, reach, until)?;
    let mut list = List::new(workspace.place(path)?.prefix());
    while let Some(kind) = walk.next()? {
        // Gone meanwhile: it is not there to be listed.
        let Ok(stat) = walk.stat() else { continue };
        if !list.add(&walk, kind, &stat) {
            break;
        }
    }
    Ok(list.told(&walk))
}

pub(super) fn glob(
    workspace: &Workspace,
    args: &GlobArgs,
    until: &Until,
) -> Result<Told, FileError> {
    let pattern = Pattern::new(&args.pattern)?;
    let path = args.path.as_deref().unwrap_or(".");
    let max = args.max_entries.unwrap_or(ENTRIES_MAX).min(ENTRIES_MAX);
    let reach = Reach { recursive: true, entries_max: LOOKED_AT_MAX };
    let mut walk = walk(workspace, path, reach, until)?;
    let mut list = List::new(workspace.place(path)?.prefix());
    while let Some(kind) = walk.next()? {
        if !pattern.is_match(walk.path()) {
            continue;
        }
        if list.entries.len() as u64 >= max {
            list.truncated = true;
            break;
        }
        let Ok(stat) = walk.stat() else { continue };
        if !list.add(&walk, kind, &stat) {
            break;
        }
    }
    Ok(list.told(&walk))
}

/// A pattern of paths; `*` and `?` stay within a name.
pub(super) struct Pattern(GlobMatcher);

impl Pattern {
    pub(super) fn new(text: &str) -> Result<Self, FileError> {
        if text.len() > PATTERN_BYTES_MAX {
            let text = format!("a pattern of paths has at most {PATTERN_BYTES_MAX} bytes");
            return Err(FileError::Invalid(text));
        }
        let glob = GlobBuilder::new(text.strip_prefix("./").unwrap_or(text))
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|error| FileError::Invalid(format!("no pattern of paths: {error}")))?;
        Ok(Self(glob.compile_matcher()))
    }

    pub(super) fn is_match(&self, path: &[u8]) -> bool {
        self.0.is_match(Path::new(OsStr::from_bytes(path)))
    }
}

struct List {
    prefix: Vec<u8>,
    entries: Vec<Value>,
    text: String,
    truncated: bool,
}

impl List {
    fn new(prefix: Vec<u8>) -> Self {
        Self { prefix, entries: Vec::new(), text: String::new(), truncated: false }
    }

    /// `false`: no more.
    fn add(&mut self, walk: &Walk<'_>, kind: Kind, stat: &Stat) -> bool {
        let path = [&*self.prefix, walk.path()].concat();
        let shown = names::shown(&path);
        if self.text.len() + shown.len() > OUTPUT_BYTES_MAX {
            self.truncated = true;
            return false;
        }
        self.text.push_str(&shown);
        self.text.push_str(match kind {
            Kind::Directory => "/\n",
            _ => "\n",
        });
        let mut entry = Map::new();
        names::insert(&mut entry, &path);
        entry.insert("kind".to_owned(), kind.as_str().into());
        entry.insert("size".to_owned(), super::size_of_file(stat).into());
        entry.insert("mtime".to_owned(), super::stat::mtime(stat).into());
        self.entries.push(entry.into());
        true
    }

    fn told(mut self, walk: &Walk<'_>) -> Told {
        let truncated = self.truncated || walk.truncated;
        if truncated {
            self.text.push_str("... (there is more)\n");
        }
        let mut data = json!({ "entries": self.entries, "truncated": truncated });
        if walk.unreadable > 0 {
            data["unreadable"] = walk.unreadable.into();
        }
        Told { text: self.text, data: Some(data) }
    }
}
