//! Tokens for one slot: who has one may call that slot, and no longer than it stays in the same
//! hands.
//!
//! A token says what it is for, in the open, and proves it by a MAC under a secret that is drawn
//! at start and never leaves this process. So nothing is kept for a token, and none outlives the
//! server.

use crate::slot::Stay;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::Sha256;
use slotmux_protocol::{Epoch, SlotIndex};
use std::{fmt::Write as _, io};
use subtle::ConstantTimeEq as _;

/// What every slot token begins with.
const PREFIX: &str = "slot.";
/// A block of the hash, which an HMAC takes as it is.
const SECRET_BYTES: usize = 64;
/// Room for every number and the MAC; what is longer is none of ours.
const TOKEN_BYTES_MAX: usize = 160;

pub(crate) struct Tokens {
    secret: [u8; SECRET_BYTES],
}

/// A bearer token that is not the main one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given {
    /// Made here, for this.
    Slot(SlotIndex, Stay),
    /// It looks like a slot token, and is none of ours.
    Forged,
    Other,
}

impl Tokens {
    pub(crate) fn draw() -> io::Result<Self> {
        let mut secret = [0; SECRET_BYTES];
        let mut filled = 0;
        while filled < SECRET_BYTES {
            filled += getrandom(&mut secret[filled..], GetRandomFlags::empty())?;
        }
        Ok(Self { secret })
    }

    /// `slot.3.7.-.<mac>`: slot, round, and the epoch of its lease, if it has one.
    pub(crate) fn issue(&self, slot: SlotIndex, stay: Stay) -> String {
        let mut token = format!("{PREFIX}{}.{}.", slot.0, stay.round);
        // Writing to a string cannot fail.
        let _ = match stay.epoch {
            Some(Epoch(epoch)) => write!(token, "{epoch}"),
            None => write!(token, "-"),
        };
        let mac = self.mac(token.as_bytes());
        token.push('.');
        for byte in mac {
            let _ = write!(token, "{byte:02x}");
        }
        token
    }

    pub(crate) fn read(&self, token: &str) -> Given {
        if !token.starts_with(PREFIX) {
            return Given::Other;
        }
        let parsed = (token.len() <= TOKEN_BYTES_MAX).then(|| parse(token)).flatten();
        let Some((slot, stay)) = parsed else { return Given::Forged };
        // Made anew and compared whole: another spelling of the same numbers is not a token.
        let ours = self.issue(slot, stay);
        if bool::from(ours.as_bytes().ct_eq(token.as_bytes())) {
            Given::Slot(slot, stay)
        } else {
            Given::Forged
        }
    }

    fn mac(&self, text: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new(&self.secret.into());
        mac.update(text);
        mac.finalize().into_bytes().into()
    }
}

fn parse(token: &str) -> Option<(SlotIndex, Stay)> {
    let mut parts = token.strip_prefix(PREFIX)?.split('.');
    let slot = SlotIndex(parts.next()?.parse().ok()?);
    let round = parts.next()?.parse().ok()?;
    let epoch = match parts.next()? {
        "-" => None,
        number => Some(Epoch(number.parse().ok()?)),
    };
    Some((slot, Stay { round, epoch }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_made_and_a_changed_one_is_forged() {
        let tokens = Tokens::draw().unwrap();
        for (slot, round, epoch) in
            [(0, 0, None), (3, 7, Some(Epoch(9))), (u16::MAX, u64::MAX, Some(Epoch(u64::MAX)))]
        {
            let (slot, stay) = (SlotIndex(slot), Stay { round, epoch });
            let token = tokens.issue(slot, stay);
            assert!(token.len() <= TOKEN_BYTES_MAX, "{token}");
            assert_eq!(tokens.read(&token), Given::Slot(slot, stay));
            for at in PREFIX.len()..token.len() {
                let mut changed = token.clone().into_bytes();
                changed[at] = if changed[at] == b'1' { b'2' } else { b'1' };
                let changed = String::from_utf8(changed).unwrap();
                assert_eq!(tokens.read(&changed), Given::Forged, "{changed}");
                assert_eq!(tokens.read(&token[..at]), Given::Forged);
            }
            assert_eq!(tokens.read(&format!("{token}0")), Given::Forged);
            // Another server's.
            assert_eq!(Tokens::draw().unwrap().read(&token), Given::Forged);
        }
        assert_eq!(tokens.read("secret"), Given::Other);
        assert_eq!(tokens.read(&format!("{PREFIX}{}", "1".repeat(10_000))), Given::Forged);
    }

    #[test]
    fn the_mac_is_hmac_sha256() {
        // RFC 4231, test case 1, whose key is shorter than ours.
        let mut secret = [0; SECRET_BYTES];
        secret[..20].fill(0x0b);
        let mac = Tokens { secret }.mac(b"Hi There");
        assert_eq!(
            mac[..8],
            [0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53],
            "zeroes at the end of a key change nothing"
        );
    }
}
