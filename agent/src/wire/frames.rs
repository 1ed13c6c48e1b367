//! Messages in a stream of bytes: a length of four bytes, big end first, then so many bytes.
//!
//! Invariant: what is kept is what was really received, and no more than one message may have.

use bytes::{Buf, BufMut, Bytes, BytesMut};

const LENGTH_BYTES: usize = 4;

/// Of a message. Archives of work are in there.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a message of {bytes} bytes, and {MESSAGE_BYTES_MAX} are allowed")]
pub(crate) struct TooLong {
    pub(crate) bytes: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Deframer {
    unread: BytesMut,
}

impl Deframer {
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.unread.extend_from_slice(piece);
    }

    /// The next message that is there as a whole. After an error nothing more can be read.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, TooLong> {
        let Some(length) = self.unread.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let bytes = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if bytes > MESSAGE_BYTES_MAX {
            return Err(TooLong { bytes });
        }
        if self.unread.len() - LENGTH_BYTES < bytes {
            return Ok(None);
        }
        self.unread.advance(LENGTH_BYTES);
        Ok(Some(self.unread.split_to(bytes).freeze()))
    }
}

pub(crate) fn framed(message: &[u8]) -> Result<Bytes, TooLong> {
    let bytes = message.len();
    match u32::try_from(bytes) {
        Ok(length) if bytes <= MESSAGE_BYTES_MAX => {
            let mut framed = BytesMut::with_capacity(LENGTH_BYTES + bytes);
            framed.put_u32(length);
            framed.put_slice(message);
            Ok(framed.freeze())
        }
        Ok(_) | Err(_) => Err(TooLong { bytes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_however_they_are_cut() {
        let messages: [&[u8]; 4] = [b"", b"a", &[7; 300], b"end"];
        let stream: Vec<u8> = messages.iter().flat_map(|it| framed(it).unwrap()).collect();
        for size in 1..stream.len() {
            let mut deframer = Deframer::default();
            let mut found = Vec::new();
            for piece in stream.chunks(size) {
                deframer.push(piece);
                while let Some(message) = deframer.next().unwrap() {
                    found.push(message);
                }
            }
            assert_eq!(found, messages, "in pieces of {size}");
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_at_once_and_one_at_the_limit_is_waited_for() {
        let mut deframer = Deframer::default();
        deframer.push(&u32::try_from(MESSAGE_BYTES_MAX).unwrap().to_be_bytes());
        assert_eq!(deframer.next(), Ok(None));
        let mut deframer = Deframer::default();
        deframer.push(&(u32::try_from(MESSAGE_BYTES_MAX).unwrap() + 1).to_be_bytes());
        assert_eq!(deframer.next(), Err(TooLong { bytes: MESSAGE_BYTES_MAX + 1 }));
        let mut deframer = Deframer::default();
        deframer.push(&[0xff; 4]);
        assert!(deframer.next().is_err());
    }
}
