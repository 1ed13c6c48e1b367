//! The name that a connection gives itself, so that a ROUTER finds it again on the next one.

use std::io;

const BYTES: usize = 16;

/// Drawn once for as many connections as are to be the same peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity(pub(super) [u8; BYTES]);

impl Identity {
    pub(crate) fn draw() -> io::Result<Self> {
        let mut bytes = [0; BYTES];
        let mut drawn = 0;
        while drawn < BYTES {
            let flags = rustix::rand::GetRandomFlags::empty();
            drawn += rustix::rand::getrandom(&mut bytes[drawn..], flags)?;
        }
        // A first byte of zero is for names that a ROUTER chooses (RFC 37, "The Identity Property").
        bytes[0] |= 1;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_the_same_and_none_begins_with_zero() {
        let drawn: Vec<_> = (0..100).map(|_| Identity::draw().unwrap()).collect();
        for (at, identity) in drawn.iter().enumerate() {
            assert!(identity.0[0] != 0 && !drawn[..at].contains(identity));
        }
    }
}
