//! Reading a tar stream, entry by entry.
//!
//! Written anew because the stream is hostile: what libraries hold in memory of it (long names,
//! extended headers) is as large as the stream says.

use super::header::{BLOCK_BYTES, Block, Raw, parse};
use crate::files::{FileError, Until};
use flate2::read::MultiGzDecoder;
use std::io::{self, Read};

/// More than a path that the kernel takes.
const PATH_BYTES_MAX: usize = 4_096 + 256;
/// An extended header, which may also have comments and attributes.
const EXTENDED_BYTES_MAX: u64 = 64 << 10;
/// Headers one after another that belong to one entry.
const EXTENSIONS_MAX: usize = 8;
/// zstd's `--long=25`; its default needs 8 MiB at most.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;
/// What may follow the end: tar fills up records of 10 KiB, or as many as it was told.
const TRAILER_BYTES_MAX: u64 = 1 << 20;
const CHUNK_BYTES: usize = 64 << 10;

/// What kind of thing an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    /// Nothing that a slot gets from an archive.
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) mtime: u64,
}

pub(super) struct Entries<'a> {
    input: Box<dyn Read + 'a>,
    until: &'a Until,
    /// Of the entry that was given last: its content, and what fills up its last block.
    content: u64,
    padding: u64,
    /// Uncompressed, that may still come.
    allowance: u64,
    chunk: Vec<u8>,
}

impl<'a> Entries<'a> {
    /// `tar`, `tar.gz` or `tar.zst`, by what it begins with. `bytes_max` of it, uncompressed.
    pub(super) fn new(
        input: impl Read + 'a,
        bytes_max: u64,
        until: &'a Until,
    ) -> Result<Self, FileError> {
        let mut input = Timely { input, until };
        let mut magic = [0; 4];
        let length = fill(&mut input, &mut magic).map_err(|error| fault(&error, until))?;
        let whole = io::Cursor::new(magic).take(length as u64).chain(input);
        let input: Box<dyn Read + 'a> = match magic {
            [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(whole)),
            [0x28, 0xb5, 0x2f, 0xfd] => {
                let mut decoder =
                    zstd::Decoder::new(whole).map_err(|error| fault(&error, until))?;
                decoder
                    .window_log_max(ZSTD_WINDOW_LOG_MAX)
                    .map_err(|error| fault(&error, until))?;
                Box::new(decoder)
            }
            _ => Box::new(whole),
        };
        let chunk = vec![0; CHUNK_BYTES];
        Ok(Self { input, until, content: 0, padding: 0, allowance: bytes_max, chunk })
    }

    /// Skips what is left of the entry before.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, FileError> {
        let (mut long_path, mut long_link, mut pax) = (None, None, Pax::default());
        for _ in 0..EXTENSIONS_MAX {
            self.skip()?;
            let Some(block) = self.block()? else { return Ok(None) };
            if block.iter().all(|byte| *byte == 0) {
                self.drain()?;
                return Ok(None);
            }
            let raw =
                parse(&block).ok_or_else(|| invalid("this is no tar archive, or a damaged one"))?;
            match raw.kind {
                b'L' => long_path = Some(self.long_name(raw.size)?),
                b'K' => long_link = Some(self.long_name(raw.size)?),
                b'x' => pax.read(&self.extension(raw.size)?)?,
                // For all entries that follow: comments, and names of no use there.
                b'g' => drop(self.extension(raw.size)?),
                b'S' => return Err(sparse()),
                _ => return Ok(Some(self.entry(raw, long_path, long_link, pax))),
            }
        }
        Err(invalid("too many extended headers before one entry"))
    }

    fn entry(
        &mut self,
        raw: Raw,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        pax: Pax,
    ) -> Entry {
        let path = pax.path.or(long_path).unwrap_or(raw.path);
        let kind = match raw.kind {
            // As it was before there was a kind for directories.
            0 | b'0' | b'7' if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'5' => Kind::Directory,
            _ => Kind::Other,
        };
        let size = pax.size.unwrap_or(raw.size);
        // Those of known kinds that are no files have none, whatever they say.
        let has_content =
            kind == Kind::File || !(b'1'..=b'6').contains(&raw.kind) && kind == Kind::Other;
        self.expect(if has_content { size } else { 0 });
        Entry {
            kind,
            path,
            link: pax.link.or(long_link).unwrap_or(raw.link),
            size: self.content,
            mode: raw.mode,
            mtime: pax.mtime.unwrap_or(raw.mtime),
        }
    }

    /// A piece of the entry's content; empty at its end.
    pub(super) fn content(&mut self) -> Result<&[u8], FileError> {
        let wanted = usize::try_from(self.content).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let count = self.read(wanted)?;
        if count < wanted {
            return Err(cut_off());
        }
        self.content -= count as u64;
        Ok(&self.chunk[..count])
    }

    fn expect(&mut self, size: u64) {
        self.content = size;
        self.padding = size.wrapping_neg() % BLOCK_BYTES as u64;
    }

    fn skip(&mut self) -> Result<(), FileError> {
        while !self.content()?.is_empty() {}
        self.content = std::mem::take(&mut self.padding);
        self.content().map(drop)
    }

    fn block(&mut self) -> Result<Option<Block>, FileError> {
        match self.read(BLOCK_BYTES)? {
            // Without the two blocks of zeros: some leave them out.
            0 => Ok(None),
            BLOCK_BYTES => self.chunk[..BLOCK_BYTES].try_into().map(Some).map_err(|_| cut_off()),
            _ => Err(cut_off()),
        }
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, FileError> {
        if size > EXTENDED_BYTES_MAX {
            return Err(invalid("an extended header is too long"));
        }
        self.expect(size);
        let mut whole = Vec::new();
        loop {
            match self.content()? {
                [] => return Ok(whole),
                piece => whole.extend_from_slice(piece),
            }
        }
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, FileError> {
        let mut name = self.extension(size)?;
        if let Some(end) = memchr::memchr(0, &name) {
            name.truncate(end);
        }
        if name.len() > PATH_BYTES_MAX {
            return Err(invalid("a name is too long"));
        }
        Ok(name)
    }

    /// As much as there is, up to `wanted`, into the chunk.
    fn read(&mut self, wanted: usize) -> Result<usize, FileError> {
        self.until.check()?;
        let mut chunk = std::mem::take(&mut self.chunk);
        let result = fill(&mut self.input, &mut chunk[..wanted]);
        self.chunk = chunk;
        let count = result.map_err(|error| fault(&error, self.until))?;
        self.allowance = self.allowance.checked_sub(count as u64).ok_or_else(too_much)?;
        Ok(count)
    }

    /// Who sends it shall not find the door shut before the end.
    fn drain(&mut self) -> Result<(), FileError> {
        let mut rest = TRAILER_BYTES_MAX;
        while rest > 0 {
            let count = self.read(CHUNK_BYTES)? as u64;
            if count == 0 {
                break;
            }
            rest = rest.saturating_sub(count);
        }
        Ok(())
    }
}

/// What an extended header says of the entry that follows.
#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    mtime: Option<u64>,
}

impl Pax {
    /// `LENGTH KEY=VALUE\n`, again and again.
    fn read(&mut self, mut records: &[u8]) -> Result<(), FileError> {
        let damaged = || invalid("an extended header is damaged");
        while !records.is_empty() {
            let space = memchr::memchr(b' ', records).ok_or_else(damaged)?;
            let length = number(&records[..space]).ok_or_else(damaged)?;
            let length = usize::try_from(length).map_err(|_| damaged())?;
            if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
                return Err(damaged());
            }
            let record = &records[space + 1..length - 1];
            let equals = memchr::memchr(b'=', record).ok_or_else(damaged)?;
            self.set(&record[..equals], &record[equals + 1..])?;
            records = &records[length..];
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), FileError> {
        let damaged = || invalid("an extended header is damaged");
        let is_path = matches!(key, b"path" | b"linkpath");
        if is_path && (value.len() > PATH_BYTES_MAX || value.contains(&0)) {
            return Err(invalid("a name is too long or has a NUL byte"));
        }
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number(value).ok_or_else(damaged)?),
            b"mtime" => {
                let whole = value.split(|byte| *byte == b'.').next().unwrap_or_default();
                // Before 1970, or not a number: as if it were 1970.
                self.mtime = Some(number(whole).unwrap_or(0));
            }
            key if key.starts_with(b"GNU.sparse.") => return Err(sparse()),
            _ => {}
        }
        Ok(())
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Gives up in time also while a decoder finds nothing to give.
struct Timely<'a, R> {
    input: R,
    until: &'a Until,
}

impl<R: Read> Read for Timely<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.until.check().map_err(io::Error::other)?;
        self.input.read(buffer)
    }
}

/// Less than the buffer holds only at the end.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match input.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn fault(error: &io::Error, until: &Until) -> FileError {
    until.check().err().unwrap_or_else(|| FileError::Stream(format!("read the archive: {error}")))
}

fn invalid(text: &str) -> FileError {
    FileError::Invalid(text.to_owned())
}

fn cut_off() -> FileError {
    invalid("the archive ends in the middle")
}

fn sparse() -> FileError {
    invalid("the archive has a sparse file; pack it without that (tar without --sparse)")
}

fn too_much() -> FileError {
    invalid("the archive has more bytes than are taken")
}
