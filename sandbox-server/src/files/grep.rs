//! Searching the text of files, as ripgrep does, but everywhere: neither hidden files nor those
//! that git ignores are left out.
//!
//! Binary files are skipped and counted. Invariant: memory is bounded by the limits below, however
//! many files, matches and bytes in a line there are.

mod found;

use super::{
    FileError, Told, Until, Workspace, fault, is_ours,
    list::{LOOKED_AT_MAX, Pattern},
    read::Source,
    walk::{Kind, Reach, walk},
};
use found::{Found, InFile};
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, MmapChoice, Searcher, SearcherBuilder};
use rustix::{fd::OwnedFd, io::Errno};
use slotmux_protocol::GrepArgs;
use std::io;

const MATCHES: u64 = 1_000;
const MATCHES_MAX: u64 = 10_000;
const CONTEXT_LINES_MAX: u8 = 20;
/// A file with a longer line is searched as far as that line.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Of each file.
const SEARCHED_BYTES_MAX: u64 = 256 << 20;
const PATTERN_BYTES_MAX: usize = 10_000;
/// Of a compiled pattern.
const REGEX_BYTES_MAX: usize = 1 << 20;

pub(super) fn grep(
    workspace: &Workspace,
    args: &GrepArgs,
    until: &Until,
) -> Result<Told, FileError> {
    let matcher = matcher(args)?;
    let glob = args.glob.as_deref().map(Pattern::new).transpose()?;
    // Without a `/` it is a pattern of names.
    let of_names = args.glob.as_deref().is_some_and(|it| !it.contains('/'));
    let max = args.max_matches.unwrap_or(MATCHES).min(MATCHES_MAX);
    let mut search = Search {
        matcher,
        searcher: searcher(args.context.unwrap_or(0).min(CONTEXT_LINES_MAX)),
        found: Found::new(args.mode, max),
        until,
    };
    let path = args.path.as_deref().unwrap_or(".");
    let reach = Reach { recursive: true, entries_max: LOOKED_AT_MAX };
    let mut walk = match walk(workspace, path, reach, until) {
        Err(FileError::NotADirectory(_)) => {
            let (file, _) = workspace.open_file(path)?;
            search.file(&file, path.as_bytes())?;
            return Ok(search.found.told(false, 0));
        }
        other => other?,
    };
    let prefix = workspace.place(path)?.prefix();
    while let Some(kind) = walk.next()? {
        let name = if of_names { walk.name().as_encoded_bytes() } else { walk.path() };
        if kind != Kind::File || glob.as_ref().is_some_and(|it| !it.is_match(name)) {
            continue;
        }
        match walk.open() {
            Ok(Some((file, _))) => search.file(&file, &[&*prefix, walk.path()].concat())?,
            Ok(None) | Err(Errno::NOENT) => {}
            Err(errno) if is_ours(errno) => return Err(fault(path, errno)),
            Err(_) => walk.unreadable += 1,
        }
        if search.found.is_full() {
            break;
        }
    }
    Ok(search.found.told(walk.truncated, walk.unreadable))
}

fn matcher(args: &GrepArgs) -> Result<RegexMatcher, FileError> {
    if args.pattern.len() > PATTERN_BYTES_MAX {
        let text = format!("a pattern has at most {PATTERN_BYTES_MAX} bytes");
        return Err(FileError::Invalid(text));
    }
    RegexMatcherBuilder::new()
        .multi_line(true)
        .line_terminator(Some(b'\n'))
        .case_insensitive(args.ignore_case)
        .fixed_strings(args.literal)
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_BYTES_MAX)
        .build(&args.pattern)
        .map_err(|error| FileError::Invalid(format!("no regular expression: {error}")))
}

fn searcher(context: u8) -> Searcher {
    SearcherBuilder::new()
        .binary_detection(BinaryDetection::quit(b'\0'))
        // A file that shrinks while it is mapped would be our end.
        .memory_map(MmapChoice::never())
        .heap_limit(Some(LINE_BYTES_MAX))
        .before_context(context.into())
        .after_context(context.into())
        .line_number(true)
        .build()
}

struct Search<'a> {
    matcher: RegexMatcher,
    searcher: Searcher,
    found: Found,
    until: &'a Until,
}

impl Search<'_> {
    fn file(&mut self, file: &OwnedFd, path: &[u8]) -> Result<(), FileError> {
        let mut reader = Timely {
            source: Source { file, path: "", until: self.until },
            offset: 0,
            failed: None,
            cut: false,
        };
        let mut sink = InFile::new(&mut self.found, path);
        let result = self.searcher.search_reader(&self.matcher, &mut reader, &mut sink);
        sink.end(result.is_err() && reader.failed.is_none(), reader.cut);
        match reader.failed {
            Some(error @ (FileError::TimedOut | FileError::Cancelled)) => Err(error),
            // A file that cannot be read to its end is not the end of the search.
            _ => Ok(()),
        }
    }
}

/// A file as a reader that gives up in time.
struct Timely<'a> {
    source: Source<'a>,
    offset: u64,
    failed: Option<FileError>,
    /// The file has more than is searched.
    cut: bool,
}

impl io::Read for Timely<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read_at(buffer, self.offset).map_err(|error| {
            self.failed = Some(error.clone());
            io::Error::other(error)
        })?;
        if self.offset >= SEARCHED_BYTES_MAX {
            self.cut = count > 0;
            return Ok(0);
        }
        self.offset += count as u64;
        Ok(count)
    }
}
