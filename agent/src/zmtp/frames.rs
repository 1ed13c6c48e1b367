//! Frames: messages and commands cut out of a stream of bytes (RFC 37, "Framing").

use super::commands::{Command, CommandFault};
use bytes::{Buf, BufMut, Bytes, BytesMut};

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// A READY has a few metadata, all other commands are shorter.
const COMMAND_BYTES_MAX: usize = 8 << 10;
/// Of one message. A ROUTER's messages to us have one.
const PARTS_MAX: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameFault {
    #[error("a frame with reserved bits set: {0:#04x}")]
    Reserved(u8),
    #[error("a command of {0} bytes")]
    Command(u64),
    #[error("a message of at least {bytes} bytes, over the limit of {limit_bytes}")]
    Message { bytes: u64, limit_bytes: usize },
    #[error("a message of more than {PARTS_MAX} frames")]
    Parts,
    #[error(transparent)]
    Body(#[from] CommandFault),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Traffic {
    Command(Command),
    /// All frames of it.
    Message(Vec<Bytes>),
}

/// Messages come whole or not at all. After a fault the stream is out of step.
#[derive(Debug)]
pub(super) struct Frames {
    message_bytes_max: usize,
    parts: Vec<Bytes>,
    parts_bytes: usize,
}

impl Frames {
    pub(super) fn new(message_bytes_max: usize) -> Self {
        Self { message_bytes_max, parts: Vec::new(), parts_bytes: 0 }
    }

    /// Takes the next whole command or message off the front; `None` until more bytes have come.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Traffic>, FrameFault> {
        loop {
            let Some((flags, header, length)) = header(buffer)? else { return Ok(None) };
            let command = flags & COMMAND != 0;
            let length = self.admit(command, length)?;
            if buffer.len() < header + length {
                return Ok(None);
            }
            buffer.advance(header);
            let body = buffer.split_to(length).freeze();
            if command {
                return Ok(Some(Traffic::Command(Command::parse(body)?)));
            }
            self.parts_bytes += length;
            self.parts.push(body);
            if flags & MORE == 0 {
                self.parts_bytes = 0;
                return Ok(Some(Traffic::Message(std::mem::take(&mut self.parts))));
            }
        }
    }

    fn admit(&self, command: bool, length: u64) -> Result<usize, FrameFault> {
        let known = usize::try_from(length).unwrap_or(usize::MAX);
        if command {
            let fits = known <= COMMAND_BYTES_MAX;
            return if fits { Ok(known) } else { Err(FrameFault::Command(length)) };
        }
        if self.parts.len() == PARTS_MAX {
            return Err(FrameFault::Parts);
        }
        if known > self.message_bytes_max - self.parts_bytes {
            let bytes = length.saturating_add(self.parts_bytes as u64);
            return Err(FrameFault::Message { bytes, limit_bytes: self.message_bytes_max });
        }
        Ok(known)
    }
}

/// Flags, bytes of the header, bytes of the body.
fn header(buffer: &[u8]) -> Result<Option<(u8, usize, u64)>, FrameFault> {
    let Some((&flags, rest)) = buffer.split_first() else { return Ok(None) };
    let odd = flags & !(MORE | LONG | COMMAND) != 0 || flags & (COMMAND | MORE) == COMMAND | MORE;
    if odd {
        return Err(FrameFault::Reserved(flags));
    }
    if flags & LONG == 0 {
        return Ok(rest.first().map(|length| (flags, 2, u64::from(*length))));
    }
    Ok(rest.first_chunk().map(|length| (flags, 9, u64::from_be_bytes(*length))))
}

pub(super) fn put_message(body: &[u8], out: &mut BytesMut) {
    put(0, body, out);
}

pub(super) fn put_command(body: &[u8], out: &mut BytesMut) {
    put(COMMAND, body, out);
}

fn put(flags: u8, body: &[u8], out: &mut BytesMut) {
    if let Ok(short) = u8::try_from(body.len()) {
        out.put_u8(flags);
        out.put_u8(short);
    } else {
        out.put_u8(flags | LONG);
        out.put_u64(body.len() as u64);
    }
    out.put_slice(body);
}

#[cfg(test)]
mod tests {
    use super::{super::commands::pong, *};
    use proptest::prelude::*;

    const LIMIT: usize = 1_000;

    fn all(bytes: &[u8]) -> Result<Vec<Traffic>, FrameFault> {
        let mut frames = Frames::new(LIMIT);
        let mut buffer = BytesMut::from(bytes);
        let mut got = Vec::new();
        while let Some(traffic) = frames.next(&mut buffer)? {
            got.push(traffic);
        }
        Ok(got)
    }

    fn message(size: usize) -> BytesMut {
        let mut out = BytesMut::new();
        put_message(&vec![b'x'; size], &mut out);
        out
    }

    #[test]
    fn short_and_long_frames_have_the_headers_of_the_rfc() {
        assert_eq!(&message(255)[..3], b"\x00\xffx");
        assert_eq!(&message(256)[..10], b"\x02\0\0\0\0\0\0\x01\0x");
        let mut out = BytesMut::new();
        put_command(&pong(b"7"), &mut out);
        assert_eq!(&out[..], b"\x04\x06\x04PONG7");
    }

    #[test]
    fn messages_and_commands_come_out_in_their_order_however_they_are_cut() {
        let mut bytes = message(300);
        bytes.put_slice(b"\x01\x01a\x04\x06\x04PONG7\x00\x01b");
        let whole = all(&bytes).unwrap();
        let pong = Traffic::Command(Command::Pong { context: Bytes::from_static(b"7") });
        let parts = vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")];
        assert_eq!(whole[1..], [pong, Traffic::Message(parts)]);
        let mut frames = Frames::new(LIMIT);
        let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
        for byte in bytes {
            buffer.put_u8(byte);
            got.extend(frames.next(&mut buffer).unwrap());
        }
        assert_eq!(got, whole);
    }

    #[test]
    fn the_limit_holds_at_it_and_one_past_it_over_all_parts() {
        assert!(all(&message(LIMIT)).is_ok());
        assert!(matches!(all(&message(LIMIT + 1)), Err(FrameFault::Message { .. })));
        let mut parts = BytesMut::from(&b"\x03\0\0\0\0\0\0\x03\xe7"[..]);
        parts.put_bytes(b'x', LIMIT - 1);
        assert!(all(&[&parts, &b"\x00\x01x"[..]].concat()).is_ok());
        assert!(matches!(
            all(&[&parts, &b"\x00\x02"[..]].concat()),
            Err(FrameFault::Message { bytes: 1_001, .. })
        ));
        assert_eq!(all(&b"\x01\0".repeat(PARTS_MAX + 1)), Err(FrameFault::Parts));
    }

    #[test]
    fn an_announced_length_is_refused_before_it_has_come() {
        let huge = b"\x02\x7f\xff\xff\xff\xff\xff\xff\xff";
        assert!(matches!(all(huge), Err(FrameFault::Message { .. })));
        assert!(matches!(all(b"\x06\0\0\0\0\0\0\x20\x01"), Err(FrameFault::Command(8_193))));
        assert_eq!(all(b"\x08\0"), Err(FrameFault::Reserved(8)));
        assert_eq!(all(b"\x05\0"), Err(FrameFault::Reserved(5)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(0_u8..9, 0..300)) {
            let _ = all(&bytes);
        }
    }
}
