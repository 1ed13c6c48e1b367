//! A context on its way to the engine: an archive, made at the engine's pace.

use super::{Context, Entry, Kind};
use bytes::Bytes;
use futures_util::{Stream, stream};
use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
};
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;

/// Pieces that wait to be sent, and the size of each.
const PIECES_MAX: usize = 4;
const PIECE_BYTES: usize = 256 << 10;

/// Ends with an error if it cannot be read to its end: half a context is none.
pub(crate) fn pack(context: Context) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    tokio::task::spawn_blocking(move || {
        let writer = Sending(sender.clone());
        if let Err(error) = write(&context, BufWriter::with_capacity(PIECE_BYTES, writer)) {
            // Nobody hears it if the engine has refused meanwhile.
            let _ = sender.blocking_send(Err(error));
        }
    });
    stream::unfold(pieces, async |mut pieces| Some((pieces.recv().await?, pieces)))
}

struct Sending(mpsc::Sender<io::Result<Bytes>>);

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(context: &Context, writer: impl Write) -> io::Result<()> {
    let mut archive = Builder::new(writer);
    for entry in &context.entries {
        append(&mut archive, entry).map_err(|error| {
            let path = entry.path.display();
            io::Error::new(error.kind(), format!("pack `{path}`: {error}"))
        })?;
    }
    archive.into_inner()?.flush()
}

fn append(archive: &mut Builder<impl Write>, entry: &Entry) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    match &entry.kind {
        Kind::Directory => {
            header.set_entry_type(EntryType::Directory);
            archive.append_data(&mut header, entry.name.join(""), io::empty())
        }
        Kind::Link(to) => {
            header.set_entry_type(EntryType::Symlink);
            archive.append_link(&mut header, &entry.name, to)
        }
        Kind::File { length, .. } => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(*length);
            let mut file = File::open(&entry.path)?.take(*length);
            let mut counted = Counted { file: &mut file, left: *length };
            archive.append_data(&mut header, &entry.name, &mut counted)
        }
    }
}

/// A file that became shorter would spoil all that follows it.
struct Counted<'a, R> {
    file: &'a mut R,
    left: u64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(bytes)?;
        self.left -= count as u64;
        if count == 0 && self.left > 0 && !bytes.is_empty() {
            let why = "it changed while it was read";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        Ok(count)
    }
}
