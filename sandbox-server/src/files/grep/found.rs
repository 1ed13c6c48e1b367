//! What a search has found, within the limits of an answer.

use crate::files::{Told, names};
use grep_searcher::{Searcher, Sink, SinkContext, SinkFinish, SinkMatch};
use serde_json::{Map, Value, json};
use slotmux_protocol::GrepMode;
use std::{fmt::Write as _, io};

/// Of a line that is shown.
const SHOWN_BYTES_MAX: usize = 2_000;
const OUTPUT_BYTES_MAX: usize = 1 << 20;

pub(super) struct Found {
    mode: GrepMode,
    max: u64,
    text: String,
    entries: Vec<Value>,
    /// Matching lines, or files, as the mode counts.
    count: u64,
    files: u64,
    searched: u64,
    binary: u64,
    /// Files that were not searched to their end.
    unfinished: u64,
    truncated: bool,
}

impl Found {
    pub(super) fn new(mode: GrepMode, max: u64) -> Self {
        Self {
            mode,
            max,
            text: String::new(),
            entries: Vec::new(),
            count: 0,
            files: 0,
            searched: 0,
            binary: 0,
            unfinished: 0,
            truncated: false,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.truncated
    }

    pub(super) fn told(mut self, more: bool, unreadable: u64) -> Told {
        let truncated = self.truncated || more;
        if truncated {
            self.text.push_str("... (there is more)\n");
        }
        for (count, what) in [
            (self.binary, "binary files skipped"),
            (self.unfinished, "files with a line too long, or too large, searched in part"),
            (unreadable, "files or directories not readable"),
        ] {
            if count > 0 {
                // Writing to a string cannot fail.
                let _ = writeln!(self.text, "({count} {what})");
            }
        }
        let entries = match self.mode {
            GrepMode::Lines => "matches",
            GrepMode::Files => "paths",
            GrepMode::Count => "counts",
        };
        let data = json!({
            entries: self.entries,
            "files": self.files,
            "searched": self.searched,
            "binary_files": self.binary,
            "unfinished_files": self.unfinished,
            "unreadable": unreadable,
            "truncated": truncated,
        });
        Told { text: self.text, data: Some(data) }
    }

    /// Adds a line, unless the answer is full.
    fn say(&mut self, line: &str) -> bool {
        if self.text.len() + line.len() > OUTPUT_BYTES_MAX {
            self.truncated = true;
            return false;
        }
        self.text.push_str(line);
        true
    }
}

/// What is found in one file.
pub(super) struct InFile<'a> {
    found: &'a mut Found,
    path: &'a [u8],
    shown: String,
    lines: u64,
    binary: bool,
    /// Of the answer before this file, should it prove binary.
    before: (usize, usize, u64),
}

impl<'a> InFile<'a> {
    pub(super) fn new(found: &'a mut Found, path: &'a [u8]) -> Self {
        found.searched += 1;
        let before = (found.text.len(), found.entries.len(), found.count);
        Self { found, path, shown: names::shown(path), lines: 0, binary: false, before }
    }

    pub(super) fn end(self, too_long: bool, cut: bool) {
        let found = self.found;
        if self.binary {
            found.binary += 1;
            found.text.truncate(self.before.0);
            found.entries.truncate(self.before.1);
            found.count = self.before.2;
            found.truncated = false;
            return;
        }
        found.unfinished += u64::from(too_long || cut);
        if self.lines == 0 {
            return;
        }
        let mut entry = Map::new();
        names::insert(&mut entry, self.path);
        let line = match found.mode {
            GrepMode::Lines => {
                found.files += 1;
                return;
            }
            GrepMode::Files => format!("{}\n", self.shown),
            GrepMode::Count => {
                entry.insert("count".to_owned(), self.lines.into());
                format!("{}:{}\n", self.shown, self.lines)
            }
        };
        if found.count >= found.max {
            found.truncated = true;
        } else if found.say(&line) {
            found.entries.push(entry.into());
            found.count += 1;
            found.files += 1;
        }
    }

    fn line(&mut self, number: Option<u64>, bytes: &[u8], mark: char) -> (bool, String) {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let kept = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
        let mut text = String::from_utf8_lossy(kept).into_owned();
        if kept.len() < bytes.len() {
            // Writing to a string cannot fail.
            let _ = write!(text, " ... ({} bytes cut)", bytes.len() - kept.len());
        }
        let number = number.unwrap_or(0);
        let line = format!("{}{mark}{number}{mark}{text}\n", self.shown);
        (self.found.say(&line), text)
    }
}

impl Sink for InFile<'_> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> Result<bool, io::Error> {
        self.lines += 1;
        match self.found.mode {
            // Seen to its end all the same: it may be binary.
            GrepMode::Files | GrepMode::Count => return Ok(true),
            GrepMode::Lines => {}
        }
        if self.found.count >= self.found.max {
            self.found.truncated = true;
            return Ok(false);
        }
        let (said, text) = self.line(found.line_number(), found.bytes(), ':');
        if said {
            let mut entry = Map::new();
            names::insert(&mut entry, self.path);
            entry.insert("line".to_owned(), found.line_number().into());
            entry.insert("text".to_owned(), text.into());
            self.found.entries.push(entry.into());
            self.found.count += 1;
        }
        Ok(said)
    }

    fn context(&mut self, _: &Searcher, context: &SinkContext<'_>) -> Result<bool, io::Error> {
        if self.found.mode != GrepMode::Lines {
            return Ok(true);
        }
        Ok(self.line(context.line_number(), context.bytes(), '-').0)
    }

    fn context_break(&mut self, _: &Searcher) -> Result<bool, io::Error> {
        Ok(self.found.mode != GrepMode::Lines || self.found.say("--\n"))
    }

    fn binary_data(&mut self, _: &Searcher, _: u64) -> Result<bool, io::Error> {
        self.binary = true;
        Ok(false)
    }

    fn finish(&mut self, _: &Searcher, finish: &SinkFinish) -> Result<(), io::Error> {
        self.binary |= finish.binary_byte_offset().is_some();
        Ok(())
    }
}
