//! Reading a file: whole, by bytes, or by lines.
//!
//! Invariant: no more of a file is held than may be given, however long it or its lines are, and
//! however it changes meanwhile.

use super::{FileError, Told, Until, Workspace, fault, path::Place, regular, short, size_of_file};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustix::{
    fd::OwnedFd,
    fs::{FileType, Mode, OFlags, Stat, fstat},
    io::Errno,
};
use serde_json::{Value, json};
use slotmux_protocol::{Encoding, ReadFileArgs};

/// Largest file that `read_file` gives without a range, in bytes.
pub(crate) const READ_BYTES_MAX: u64 = 100_000;
/// Most that it gives of a range.
pub(crate) const RANGE_BYTES_MAX: u64 = 5_000_000;
const CHUNK_BYTES: usize = 64 << 10;

impl Workspace {
    /// The whole file, if it is not too large.
    pub(crate) fn read(&self, path: &str) -> Result<Vec<u8>, FileError> {
        let (file, stat) = self.open_file(path)?;
        let bytes = size_of_file(&stat);
        if bytes > READ_BYTES_MAX {
            return Err(FileError::TooLarge { bytes, max: READ_BYTES_MAX });
        }
        read_up_to_max(&file, bytes).map_err(|errno| fault(path, errno))?
    }

    /// A regular file, opened by the slot's rights.
    pub(super) fn open_file(&self, path: &str) -> Result<(OwnedFd, Stat), FileError> {
        let place = self.place(path)?;
        if let Some(opened) = self.open_own(place) {
            return Ok(opened);
        }
        let _slot = self.as_slot();
        let file = self.open_to_read(place).map_err(|errno| fault(path, errno))?;
        let stat = regular(&file, path)?;
        Ok((file, stat))
    }

    /// What belongs to the slot and is readable for it needs no change of ids, which costs more
    /// than all the rest. Anything else is opened as the slot, and refused as the slot.
    fn open_own(&self, place: Place<'_>) -> Option<(OwnedFd, Stat)> {
        let uid = self.identity?.uid;
        let file = self.open_to_read(place).ok()?;
        let stat = fstat(&file).ok()?;
        let own = stat.st_uid == uid && stat.st_mode & Mode::RUSR.as_raw_mode() != 0;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        (own && regular).then_some((file, stat))
    }

    fn open_to_read(&self, place: Place<'_>) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        self.open_at(place, flags, Mode::empty())
    }
}

/// A file that grows meanwhile is read as far as the limit, one byte more shows it. A short read
/// of a regular file is its end.
fn read_up_to_max(file: &OwnedFd, bytes: u64) -> rustix::io::Result<Result<Vec<u8>, FileError>> {
    let max = usize::try_from(READ_BYTES_MAX).unwrap_or(usize::MAX);
    let expected = usize::try_from(bytes).unwrap_or(max);
    let mut content = vec![0; expected + 1];
    let mut length = 0;
    loop {
        match rustix::io::read(file, &mut content[length..]) {
            Ok(count) => {
                length += count;
                if length < content.len() {
                    break;
                }
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        if length > max {
            return Ok(Err(FileError::TooLarge { bytes: length as u64, max: READ_BYTES_MAX }));
        }
        if length == content.len() {
            content.resize((length * 2).min(max + 1), 0);
        }
    }
    content.truncate(length);
    Ok(Ok(content))
}

pub(super) fn text_of(content: Vec<u8>) -> String {
    match String::from_utf8(content) {
        Ok(text) => text,
        Err(other) => String::from_utf8_lossy(other.as_bytes()).into_owned(),
    }
}

pub(super) fn read_file(
    workspace: &Workspace,
    args: &ReadFileArgs,
    until: &Until,
) -> Result<Told, FileError> {
    let ranged = args.offset.is_some() || args.max_bytes.is_some();
    let lines = args.first_line.is_some() || args.last_line.is_some();
    if args.offset.is_some() && lines {
        let text = "offset and lines exclude each other: give one of them";
        return Err(FileError::Invalid(text.to_owned()));
    }
    if !ranged && !lines {
        let content = workspace.read(&args.path)?;
        if args.encoding == Encoding::Text {
            return Ok(Told { text: text_of(content), data: None });
        }
        let file_bytes = content.len() as u64;
        let piece = Piece { content, offset: 0, lines: None, truncated: false };
        return Ok(piece.told(file_bytes, args.encoding));
    }
    let (file, _) = workspace.open_file(&args.path)?;
    let max = args.max_bytes.unwrap_or(READ_BYTES_MAX).min(RANGE_BYTES_MAX);
    let from = Source { file: &file, path: &args.path, until };
    let piece = if lines {
        let first = args.first_line.unwrap_or(1);
        let last = args.last_line.unwrap_or(u64::MAX);
        if first == 0 || last < first {
            let text = "lines count from 1, and the last is not before the first";
            return Err(FileError::Invalid(text.to_owned()));
        }
        from.lines(first, last, max)?
    } else {
        from.bytes(args.offset.unwrap_or(0), max)?
    };
    let stat = fstat(&file).map_err(|errno| fault(&args.path, errno))?;
    Ok(piece.told(size_of_file(&stat), args.encoding))
}

/// What was read of a file.
struct Piece {
    content: Vec<u8>,
    offset: u64,
    /// First and last of them, when lines were asked for and there are such.
    lines: Option<(u64, u64)>,
    /// There is more of what was asked for.
    truncated: bool,
}

impl Piece {
    fn told(self, file_bytes: u64, encoding: Encoding) -> Told {
        let (first, last) = self
            .lines
            .map_or((Value::Null, Value::Null), |(first, last)| (first.into(), last.into()));
        let data = json!({
            "bytes": self.content.len(),
            "file_bytes": file_bytes,
            "offset": self.offset,
            "first_line": first,
            "last_line": last,
            "truncated": self.truncated,
            "encoding": encoding,
        });
        let text = match encoding {
            Encoding::Text => text_of(self.content),
            Encoding::Base64 => BASE64_STANDARD.encode(self.content),
        };
        Told { text, data: Some(data) }
    }
}

/// An open file that is read at its offsets, in time.
pub(super) struct Source<'a> {
    pub(super) file: &'a OwnedFd,
    pub(super) path: &'a str,
    pub(super) until: &'a Until,
}

impl Source<'_> {
    /// 0 only at the end.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, FileError> {
        loop {
            self.until.check()?;
            match rustix::io::pread(self.file, &mut *buffer, offset) {
                Err(Errno::INTR) => {}
                // An offset that no file can have.
                Err(Errno::INVAL | Errno::OVERFLOW) => return Ok(0),
                other => return other.map_err(|errno| fault(self.path, errno)),
            }
        }
    }

    fn bytes(&self, offset: u64, max: u64) -> Result<Piece, FileError> {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let mut content = Vec::new();
        let mut truncated = false;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            // One byte more tells whether there is more.
            let wanted = (max - content.len() + 1).min(CHUNK_BYTES);
            let at = offset.saturating_add(content.len() as u64);
            let count = self.read_at(&mut chunk[..wanted], at)?;
            let taken = count.min(max - content.len());
            content.extend_from_slice(&chunk[..taken]);
            truncated |= taken < count;
            if count == 0 || truncated {
                return Ok(Piece { content, offset, lines: None, truncated });
            }
        }
    }

    fn lines(&self, first: u64, last: u64, max: u64) -> Result<Piece, FileError> {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let mut chunk = vec![0; CHUNK_BYTES];
        let (mut at, mut line) = (0_u64, 1_u64);
        let mut piece = Piece { content: Vec::new(), offset: 0, lines: None, truncated: false };
        'file: loop {
            let count = self.read_at(&mut chunk, at)?;
            let mut rest = &chunk[..count];
            while !rest.is_empty() {
                let (part, ends) = match memchr::memchr(b'\n', rest) {
                    Some(end) => (&rest[..=end], true),
                    None => (rest, false),
                };
                if line > last {
                    break 'file;
                }
                if line >= first {
                    let taken = part.len().min(max - piece.content.len());
                    if piece.lines.is_none() {
                        piece.offset = at;
                    }
                    if taken > 0 || piece.lines.is_none() {
                        piece.lines = Some((first, line));
                    }
                    piece.content.extend_from_slice(&part[..taken]);
                    if taken < part.len() {
                        piece.truncated = true;
                        break 'file;
                    }
                }
                line += u64::from(ends);
                at += part.len() as u64;
                rest = &rest[part.len()..];
            }
            if count == 0 {
                break;
            }
        }
        Ok(piece)
    }
}

impl Workspace {
    /// The whole file within a limit of the caller's, or an error that says how large it is.
    pub(super) fn read_all(
        &self,
        path: &str,
        max: u64,
        until: &Until,
    ) -> Result<(Vec<u8>, Stat), FileError> {
        let (file, stat) = self.open_file(path)?;
        if size_of_file(&stat) > max {
            return Err(FileError::TooLarge { bytes: size_of_file(&stat), max });
        }
        let piece = Source { file: &file, path, until }.bytes(0, max)?;
        if piece.truncated {
            return Err(FileError::Invalid(format!("{} grows while it is read", short(path))));
        }
        Ok((piece.content, stat))
    }
}
