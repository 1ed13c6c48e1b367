//! Commands: the handshake of the NULL mechanism, and heartbeats (RFC 37).

use super::Identity;
use bytes::{BufMut, Bytes, BytesMut};

/// RFC 37, "Connection Heartbeating".
const CONTEXT_BYTES_MAX: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// The peer's socket type, when it says one.
    Ready {
        socket_type: Option<Bytes>,
    },
    Error {
        reason: String,
    },
    /// To be answered with the same context.
    Ping {
        context: Bytes,
    },
    Pong {
        context: Bytes,
    },
    /// Whatever else there is; to be ignored.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandFault {
    #[error("a command without a name")]
    Name,
    #[error("a READY whose metadata do not fill it")]
    Metadata,
    #[error("a PING that is too short, or whose context is too long")]
    Ping,
}

impl Command {
    pub(super) fn parse(mut body: Bytes) -> Result<Self, CommandFault> {
        let name = short(&mut body).filter(|it| !it.is_empty()).ok_or(CommandFault::Name)?;
        Ok(match &name[..] {
            b"READY" => Self::Ready { socket_type: socket_type(body)? },
            b"ERROR" => {
                let reason = short(&mut body).unwrap_or_default();
                Self::Error { reason: String::from_utf8_lossy(&reason).into_owned() }
            }
            b"PING" if (2..=2 + CONTEXT_BYTES_MAX).contains(&body.len()) => {
                // The first two bytes ask us to give up after a while; liveness is judged above.
                Self::Ping { context: body.split_off(2) }
            }
            b"PING" => return Err(CommandFault::Ping),
            b"PONG" => Self::Pong { context: body },
            _ => Self::Other,
        })
    }
}

/// A READY of a DEALER. The identity is the name under which a ROUTER knows this connection.
pub(super) fn ready(identity: Identity) -> Bytes {
    let mut body = named(b"READY");
    for (name, value) in [("Socket-Type", &b"DEALER"[..]), ("Identity", &identity.0)] {
        put_short(&mut body, name.as_bytes());
        // Both are a few bytes long.
        body.put_u32(u32::try_from(value.len()).unwrap_or(0));
        body.put_slice(value);
    }
    body.freeze()
}

/// Asks for no time to live: whether this connection is given up is not the peer's to decide.
pub(super) fn ping(context: &[u8]) -> Bytes {
    let mut body = named(b"PING");
    body.put_u16(0);
    body.put_slice(context);
    body.freeze()
}

pub(super) fn pong(context: &[u8]) -> Bytes {
    let mut body = named(b"PONG");
    body.put_slice(context);
    body.freeze()
}

fn named(name: &[u8]) -> BytesMut {
    let mut body = BytesMut::new();
    put_short(&mut body, name);
    body
}

/// `text` is never longer than 255 bytes: all of them stand in this file.
fn put_short(out: &mut BytesMut, text: &[u8]) {
    out.put_u8(u8::try_from(text.len()).unwrap_or(0));
    out.put_slice(text);
}

/// A string with one byte for its length.
fn short(rest: &mut Bytes) -> Option<Bytes> {
    let length = usize::from(*rest.first()?);
    (rest.len() > length).then(|| {
        let _ = rest.split_to(1);
        rest.split_to(length)
    })
}

fn socket_type(mut metadata: Bytes) -> Result<Option<Bytes>, CommandFault> {
    let mut found = None;
    while !metadata.is_empty() {
        let name =
            short(&mut metadata).filter(|it| !it.is_empty()).ok_or(CommandFault::Metadata)?;
        let length = metadata.first_chunk().map(|it| u32::from_be_bytes(*it) as usize);
        let length = length.filter(|it| metadata.len() - 4 >= *it).ok_or(CommandFault::Metadata)?;
        let _ = metadata.split_to(4);
        let value = metadata.split_to(length);
        // Names have no case.
        if name.eq_ignore_ascii_case(b"Socket-Type") {
            found = Some(value);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_ready_says_dealer_and_an_identity() {
        let body = ready(Identity(*b"0123456789abcdef"));
        let said = b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER\
            \x08Identity\0\0\0\x100123456789abcdef";
        assert_eq!(&body[..], said);
        let said = Some(Bytes::from_static(b"DEALER"));
        assert_eq!(Command::parse(body), Ok(Command::Ready { socket_type: said }));
    }

    #[test]
    fn a_heartbeat_keeps_its_context_up_to_sixteen_bytes() {
        let context = Bytes::from_static(b"0123456789abcdef");
        assert_eq!(Command::parse(ping(&context)), Ok(Command::Ping { context: context.clone() }));
        assert_eq!(Command::parse(pong(&context)), Ok(Command::Pong { context }));
        assert_eq!(Command::parse(ping(&[0; 17])), Err(CommandFault::Ping));
        assert_eq!(Command::parse(Bytes::from_static(b"\x04PING\0")), Err(CommandFault::Ping));
    }

    #[test]
    fn metadata_that_promise_more_than_there_is_are_refused() {
        for body in [
            &b"\x05READY\x0bSocket-Type\xff\xff\xff\xffDEALER"[..],
            b"\x05READY\x0bSocket-Type\0\0",
            b"\x05READY\0\0\0\0\0",
            b"\x05READY\x20Socket",
        ] {
            assert_eq!(Command::parse(Bytes::from_static(body)), Err(CommandFault::Metadata));
        }
        assert_eq!(Command::parse(Bytes::new()), Err(CommandFault::Name));
        assert_eq!(Command::parse(Bytes::from_static(b"\x09PING")), Err(CommandFault::Name));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(body in prop::collection::vec(any::<u8>(), 0..64), ready: bool) {
            let head: &[u8] = if ready { b"\x05READY" } else { b"" };
            let _ = Command::parse([head, &body].concat().into());
        }
    }
}
