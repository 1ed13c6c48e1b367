//! A snapshot's file, to be read from without holding up the runtime.

use bytes::Bytes;
use futures_util::{Stream, stream};
use std::{
    fs::File,
    io::{self, Read as _},
};
use tokio::task::spawn_blocking;

const PIECE_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub(crate) struct Stored {
    file: File,
    bytes: u64,
}

impl Stored {
    pub(super) fn new(file: File, bytes: u64) -> Self {
        Self { file, bytes }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn into_file(self) -> File {
        self.file
    }

    pub(crate) fn pieces(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        stream::try_unfold(self.file, |file| async {
            let (piece, file) =
                spawn_blocking(|| read_piece(file)).await.map_err(io::Error::other)??;
            Ok((!piece.is_empty()).then_some((piece, file)))
        })
    }
}

fn read_piece(mut file: File) -> io::Result<(Bytes, File)> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut length = 0;
    while length < piece.len() {
        match file.read(&mut piece[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    piece.truncate(length);
    Ok((piece.into(), file))
}
