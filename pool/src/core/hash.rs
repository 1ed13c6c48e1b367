//! A hash for numbers that we draw ourselves. Not for keys that a client may choose.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

pub(crate) type NumberMap<T> = HashMap<u64, T, BuildHasherDefault<NumberHasher>>;

const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

/// Epochs that were drawn together lie together in the index, four by four: what is new is in few
/// lines of the processor's cache.
pub(super) fn epoch_hash(epoch: u64) -> u32 {
    let (group, place) = (epoch >> 2, epoch & 3);
    let mixed = group.wrapping_mul(MIX) >> 32;
    low_half(mixed << 2 | place)
}

/// As good as the whole, of a good hash.
#[expect(clippy::cast_possible_truncation, reason = "this is what it is for")]
pub(super) fn low_half(hash: u64) -> u32 {
    hash as u32
}

#[derive(Debug, Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The table takes its place from the low bits and its tag from the high ones.
        let mixed = (self.0 ^ number).wrapping_mul(MIX);
        self.0 = mixed ^ (mixed >> 32);
    }
}
