//! A stream that goes through a hash.

use super::{SnapshotError, SnapshotId};
use sha2::{Digest, Sha256};
use std::{
    fmt::Write as _,
    io::{self, Read, Write},
};

const BUFFER_BYTES: usize = 64 << 10;

pub(super) struct Hashed<S> {
    inner: S,
    hash: Sha256,
    bytes: u64,
}

impl<S> Hashed<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0 }
    }

    /// The stream, what the hash of all that went through is, and how much that was.
    pub(super) fn finish(self) -> (S, SnapshotId, u64) {
        let mut id = String::with_capacity(64);
        for byte in self.hash.finalize() {
            // Writing to a string cannot fail.
            let _ = write!(id, "{byte:02x}");
        }
        (self.inner, SnapshotId(id), self.bytes)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

impl<R: Read> Hashed<R> {
    /// Reads what is left, up to a limit for all of it.
    pub(super) fn drain(&mut self, bytes_max: u64) -> Result<(), SnapshotError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) if self.bytes > bytes_max => {
                    return Err(SnapshotError::TooLarge { max: bytes_max });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(SnapshotError::Malformed(error)),
            }
        }
    }
}
