//! What an init has to say, and the server has not taken yet.
//!
//! Invariant: nothing here waits. Who reads slowly is answered late; what prints meanwhile is held
//! up by its own pipe, and time limits stand.

use crate::{
    passing,
    wire::{FRAME_BYTES_MAX, FromInit},
};
use bytes::{Buf, BytesMut};
use rustix::{
    fd::{AsFd, OwnedFd},
    net::{SendFlags, send},
};
use slotmux_protocol::encode;
use std::{io, os::unix::net::UnixStream};

/// Beyond, no more output is read to be told.
const FULL_BYTES: usize = 256 << 10;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: BytesMut,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= FULL_BYTES
    }

    pub(super) fn push(&mut self, server: &UnixStream, message: &FromInit) -> io::Result<()> {
        encode(message, FRAME_BYTES_MAX, &mut self.bytes).map_err(io::Error::other)?;
        self.flush(server)
    }

    /// Only when it is empty: descriptors go with the first byte.
    pub(super) fn push_with(
        &mut self,
        server: &UnixStream,
        message: &FromInit,
        fds: &[OwnedFd],
    ) -> io::Result<()> {
        encode(message, FRAME_BYTES_MAX, &mut self.bytes).map_err(io::Error::other)?;
        let sent = passing::send_with(server.as_fd(), &self.bytes, fds)?;
        self.bytes.advance(sent);
        self.flush(server)
    }

    /// Sends what the server takes now.
    pub(super) fn flush(&mut self, server: &UnixStream) -> io::Result<()> {
        while !self.bytes.is_empty() {
            match send(server.as_fd(), &self.bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(sent) => self.bytes.advance(sent),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        // A long answer should not be kept in memory for the rest of the slot's life.
        if self.bytes.capacity() > FULL_BYTES {
            self.bytes = BytesMut::new();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Output, Stream};
    use slotmux_protocol::Decoder;
    use std::io::Read as _;

    #[test]
    fn what_is_not_taken_waits_and_comes_in_order() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut outbox = Outbox::default();
        let mut pushed = 0;
        while !outbox.is_full() {
            let output = Output { seq: pushed, stream: Stream::Stdout, data: vec![7; 10_000] };
            outbox.push(&ours, &FromInit::Output(output)).unwrap();
            pushed += 1;
        }
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        let mut buffer = vec![0; 50_000];
        let mut taken = 0;
        while taken < pushed {
            let bytes = theirs.read(&mut buffer).unwrap();
            decoder.push(&buffer[..bytes]);
            outbox.flush(&ours).unwrap();
            while let Some(message) = decoder.next_message::<FromInit>().unwrap() {
                let FromInit::Output(output) = message else { panic!("{message:?}") };
                assert_eq!((output.seq, output.data.len()), (taken, 10_000));
                taken += 1;
            }
        }
        assert!(outbox.is_empty());
    }
}
