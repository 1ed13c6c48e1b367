//! Whether a program runs in any image: for which processor it is, and whether it needs a loader.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// The header and the table behind it. Linkers put them there.
const BYTES_MAX: u64 = 64 << 10;
const PT_INTERP: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Elf {
    /// In the engine's words. `None`: another one.
    pub(crate) architecture: Option<&'static str>,
    /// It needs no library, and no loader.
    pub(crate) is_static: bool,
}

/// `None`: it is no program of 64 bits.
pub(crate) fn look(program: &Path) -> io::Result<Option<Elf>> {
    let mut bytes = Vec::new();
    File::open(program)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(parse(&bytes))
}

fn parse(bytes: &[u8]) -> Option<Elf> {
    // 64 bits, little-endian: both processors that we know are.
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let architecture = match u16_at(bytes, 18)? {
        62 => Some("x86_64"),
        183 => Some("aarch64"),
        _ => None,
    };
    let table = usize::try_from(u64::from_le_bytes(array(bytes, 32)?)).ok()?;
    let (size, count) = (usize::from(u16_at(bytes, 54)?), usize::from(u16_at(bytes, 56)?));
    let mut is_static = true;
    for number in 0..count {
        let at = table.checked_add(number * size)?;
        is_static &= u32::from_le_bytes(array(bytes, at)?) != PT_INTERP;
    }
    Some(Elf { architecture, is_static })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_program_is_known_and_whatever_is_none_is_not() {
        let own = std::env::current_exe().unwrap();
        let elf = look(&own).unwrap().unwrap();
        assert_eq!(elf.architecture, Some(std::env::consts::ARCH));
        assert_eq!(elf.is_static, cfg!(target_feature = "crt-static"));
        assert_eq!(parse(b"#!/bin/sh\n"), None);
        let start = std::fs::read(&own).unwrap()[..64].to_vec();
        assert_eq!(parse(&start), None, "the table is cut off");
        for length in 0..64 {
            assert_eq!(parse(&start[..length]), None);
        }
    }
}
