//! Between bodies, which are async, and the work on files, which blocks.
//!
//! For threads that may block (`spawn_blocking`). Both directions are bounded, and neither waits
//! longer than its call may last or for somebody who has gone away.

use crate::files::Until;
use bytes::Bytes;
use std::{
    future::Future,
    io::{self, Read, Write},
};
use tokio::{runtime::Handle, sync::mpsc, time::timeout_at};

/// Pieces on their way.
const PIECES_MAX: usize = 4;
/// A piece that is sent; those that come are as large as they come.
const PIECE_BYTES: usize = 64 << 10;

/// A body as a reader. An error that is sent is an error of the reader's; the end of the sender is
/// the end of the body.
pub(crate) fn reader(until: Until) -> (mpsc::Sender<io::Result<Bytes>>, BodyReader) {
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    (sender, BodyReader { wait: Wait::new(until), pieces, piece: Bytes::new() })
}

/// A writer as a body. Dropped before [`BodyWriter::finish`] it leaves the body without an end,
/// which its reader has to learn by other means.
pub(crate) fn writer(until: Until) -> (BodyWriter, mpsc::Receiver<Bytes>) {
    let (pieces, receiver) = mpsc::channel(PIECES_MAX);
    let piece = Vec::with_capacity(PIECE_BYTES);
    (BodyWriter { wait: Wait::new(until), pieces, piece }, receiver)
}

pub(crate) struct BodyReader {
    wait: Wait,
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.wait.for_one(self.pieces.recv())? {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

pub(crate) struct BodyWriter {
    wait: Wait,
    pieces: mpsc::Sender<Bytes>,
    piece: Vec<u8>,
}

impl BodyWriter {
    /// Sends what is still held.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.flush()
    }
}

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        let count = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        let sent = self.wait.for_one(self.pieces.send(piece.into()))?;
        sent.map_err(|_gone| io::ErrorKind::BrokenPipe.into())
    }
}

struct Wait {
    until: Until,
    runtime: Handle,
}

impl Wait {
    fn new(until: Until) -> Self {
        Self { until, runtime: Handle::current() }
    }

    fn for_one<T>(&self, what: impl Future<Output = T>) -> io::Result<T> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.until.stop().cancelled() => Err(io::Error::other("cancelled")),
                done = timeout_at(self.until.deadline(), what) => {
                    done.map_err(|_late| io::ErrorKind::TimedOut.into())
                }
            }
        })
    }
}
