//! The greeting: 64 bytes each way, before anything else (RFC 37, "Formal Grammar").

pub(super) const GREETING_BYTES: usize = 64;

const MECHANISM: std::ops::Range<usize> = 12..32;
const NULL: [u8; 20] = *b"NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GreetingFault {
    #[error("it does not speak ZMTP")]
    Signature,
    #[error("it speaks version {0} of ZMTP, which is older than 3")]
    Version(u8),
    #[error("it asks for a security mechanism that is not NULL")]
    Mechanism,
}

/// What we send: version 3.1, NULL, and as-server zero, as NULL demands.
pub(super) fn greeting() -> [u8; GREETING_BYTES] {
    let mut bytes = [0; GREETING_BYTES];
    bytes[0] = 0xff;
    bytes[9] = 0x7f;
    bytes[10] = 3;
    bytes[11] = 1;
    bytes[MECHANISM].copy_from_slice(&NULL);
    bytes
}

/// The minor version of a peer of version 3; for a later one its framing is ours, so 3.1's.
pub(super) fn check(bytes: &[u8; GREETING_BYTES]) -> Result<u8, GreetingFault> {
    // The padding between the two has no meaning.
    if bytes[0] != 0xff || bytes[9] != 0x7f {
        return Err(GreetingFault::Signature);
    }
    match bytes[10] {
        old @ 0..3 => Err(GreetingFault::Version(old)),
        _ if bytes[MECHANISM] != NULL => Err(GreetingFault::Mechanism),
        3 => Ok(bytes[11]),
        _ => Ok(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_greeting_is_one_to_accept() {
        assert_eq!(check(&greeting()), Ok(1));
    }

    #[test]
    fn padding_and_filler_have_no_meaning_and_versions_have() {
        let mut bytes = greeting();
        bytes[8] = 1;
        bytes[40] = 7;
        assert_eq!(check(&bytes), Ok(1));
        bytes[11] = 0;
        assert_eq!(check(&bytes), Ok(0));
        bytes[10] = 4;
        assert_eq!(check(&bytes), Ok(1));
        bytes[10] = 2;
        assert_eq!(check(&bytes), Err(GreetingFault::Version(2)));
    }

    #[test]
    fn another_mechanism_is_refused() {
        let mut bytes = greeting();
        bytes[12..17].copy_from_slice(b"PLAIN");
        assert_eq!(check(&bytes), Err(GreetingFault::Mechanism));
        bytes[0] = b'H';
        assert_eq!(check(&bytes), Err(GreetingFault::Signature));
    }
}
