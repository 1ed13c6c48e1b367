//! The one framing: a big-endian `u32` length, then that many bytes of msgpack.
//!
//! Structs are maps with named fields: a reader skips the fields it does not know, and takes the
//! default for those that are missing.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

const HEADER_BYTES: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {bytes} bytes is over the limit of {limit_bytes}")]
    TooLarge { bytes: usize, limit_bytes: usize },
    #[error("write msgpack")]
    Encode(#[from] rmp_serde::encode::Error),
    #[error("read msgpack")]
    Decode(#[from] rmp_serde::decode::Error),
}

/// Appends `message` as one frame. On an error `out` is as it was.
pub fn encode<T: Serialize>(
    message: &T,
    limit_bytes: usize,
    out: &mut BytesMut,
) -> Result<(), FrameError> {
    let start = out.len();
    out.put_u32(0);
    let written = rmp_serde::encode::write_named(&mut out.writer(), message);
    let bytes = out.len() - start - HEADER_BYTES;
    let result = match (written, u32::try_from(bytes)) {
        (Err(error), _) => Err(error.into()),
        (Ok(()), Ok(length)) if bytes <= limit_bytes => {
            out[start..start + HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
            Ok(())
        }
        (Ok(()), _) => Err(FrameError::TooLarge { bytes, limit_bytes }),
    };
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Cuts a stream of bytes into messages.
///
/// After an error the stream is out of step; the connection has to be closed.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    limit_bytes: usize,
}

impl Decoder {
    pub fn new(limit_bytes: usize) -> Self {
        Self { buffer: BytesMut::new(), limit_bytes }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Where to read into.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole message, or `None` until more bytes have come.
    pub fn next_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some(payload) = self.next_payload()? else { return Ok(None) };
        Ok(Some(rmp_serde::from_slice(&payload)?))
    }

    fn next_payload(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let bytes = u32::from_be_bytes(*header) as usize;
        if bytes > self.limit_bytes {
            return Err(FrameError::TooLarge { bytes, limit_bytes: self.limit_bytes });
        }
        if self.buffer.len() < HEADER_BYTES + bytes {
            self.buffer.reserve(HEADER_BYTES + bytes - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        Ok(Some(self.buffer.split_to(bytes).freeze()))
    }

    /// Bytes of a message that has not come whole.
    pub fn pending_bytes(&self) -> usize {
        self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 1 << 10;

    fn frame(text: &str) -> BytesMut {
        let mut out = BytesMut::new();
        encode(&text, LIMIT, &mut out).unwrap();
        out
    }

    #[test]
    fn a_message_comes_back_from_pieces_of_any_size() {
        let bytes = [frame("one"), frame(""), frame("three")].concat();
        for size in 1..=bytes.len() {
            let mut decoder = Decoder::new(LIMIT);
            let mut got = Vec::new();
            for piece in bytes.chunks(size) {
                decoder.push(piece);
                while let Some(text) = decoder.next_message::<String>().unwrap() {
                    got.push(text);
                }
            }
            assert_eq!(got, ["one", "", "three"], "pieces of {size}");
            assert_eq!(decoder.pending_bytes(), 0);
        }
    }

    #[test]
    fn the_limit_holds_at_it_and_one_past_it() {
        // A string of 256 to 65,535 bytes has a header of three.
        let fits = "x".repeat(LIMIT - 3);
        let mut decoder = Decoder::new(LIMIT);
        decoder.push(&frame(&fits));
        assert_eq!(decoder.next_message::<String>().unwrap(), Some(fits));
        let mut out = BytesMut::from(&b"before"[..]);
        let error = encode(&"x".repeat(LIMIT - 2), LIMIT, &mut out).unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { bytes: 1_025, limit_bytes: 1_024 }));
        assert_eq!(&out[..], b"before");
        let mut decoder = Decoder::new(LIMIT);
        decoder.push(&1_025_u32.to_be_bytes());
        assert!(matches!(decoder.next_message::<String>(), Err(FrameError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::new(LIMIT);
            decoder.push(&bytes);
            // Ends: each message takes at least its header away.
            while let Ok(Some(_)) = decoder.next_message::<crate::link::ToContainer>() {}
            prop_assert!(decoder.pending_bytes() <= bytes.len());
        }
    }
}
