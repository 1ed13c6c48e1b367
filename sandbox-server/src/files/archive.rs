//! A file or a directory as a `tar.gz`, within an answer.

use super::{
    FileError, Told, Until, Workspace,
    tar::{Limits, Packed, pack},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use flate2::{Compression, GzBuilder, write::GzEncoder};
use serde_json::json;
use slotmux_protocol::ArchiveArgs;
use std::io::{self, Write};

const BYTES_MAX: u64 = 5_000_000;
const ENTRIES_MAX: u64 = 5_000;
/// Of what is packed, before it is compressed: zeros alone shrink to a thousandth.
const CONTENT_BYTES_MAX: u64 = 4 << 30;

pub(super) fn archive(
    workspace: &Workspace,
    args: &ArchiveArgs,
    until: &Until,
) -> Result<Told, FileError> {
    let path = args.path.as_deref().unwrap_or(".");
    let limits = Limits {
        entries_max: args.max_entries.unwrap_or(ENTRIES_MAX).min(ENTRIES_MAX),
        bytes_max: CONTENT_BYTES_MAX,
        ..Limits::default()
    };
    let max = args.max_bytes.unwrap_or(BYTES_MAX).min(BYTES_MAX);
    let mut out = Bounded { bytes: Vec::new(), max, full: false };
    let packed = compress(workspace, path, limits, until, &mut out);
    if out.full {
        return Err(FileError::OverLimit { what: "Archive too large", max, unit: "bytes" });
    }
    let Packed { entries, skipped, .. } = packed?;
    let data = json!({
        "bytes": out.bytes.len(),
        "entries": entries,
        "skipped": skipped,
        "format": "tar.gz",
        "encoding": "base64",
    });
    Ok(Told { text: BASE64_STANDARD.encode(out.bytes), data: Some(data) })
}

/// The same files give the same bytes: neither time nor name is in the header.
fn compress(
    workspace: &Workspace,
    path: &str,
    limits: Limits,
    until: &Until,
    out: &mut Bounded,
) -> Result<Packed, FileError> {
    let mut gz: GzEncoder<_> = GzBuilder::new().mtime(0).write(out, Compression::default());
    let packed = pack(workspace, path, &mut gz, limits, until)?;
    gz.finish().map_err(|error| FileError::Stream(error.to_string()))?;
    Ok(packed)
}

struct Bounded {
    bytes: Vec<u8>,
    max: u64,
    full: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.bytes.len() + bytes.len()) as u64 > self.max {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
