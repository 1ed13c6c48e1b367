//! The blocks of 512 bytes that a tar stream consists of.

use tar::{EntryType, Header};

pub(super) const BLOCK_BYTES: usize = 512;
pub(super) type Block = [u8; BLOCK_BYTES];
/// The length of a name and of a link's target in a header.
const NAME_BYTES: usize = 100;
/// Who reads a long name by the rules of GNU tar finds this in its place.
const LONG_NAME: &[u8] = b"././@LongLink";

/// What stands in a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Raw {
    pub(super) kind: u8,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) mtime: u64,
}

/// `None`: it is no header.
pub(super) fn parse(block: &Block) -> Option<Raw> {
    let header = Header::from_byte_slice(block);
    if header.cksum().ok()? != checksum(block) {
        return None;
    }
    Some(Raw {
        kind: header.entry_type().as_byte(),
        path: header.path_bytes().into_owned(),
        link: header.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default(),
        size: header.entry_size().ok()?,
        // Both may be left out.
        mode: header.mode().unwrap_or(0o644),
        mtime: header.mtime().unwrap_or(0),
    })
}

/// Of all bytes, those of the checksum itself counted as spaces.
fn checksum(block: &Block) -> u32 {
    let (before, rest) = block.split_at(148);
    let sum = |bytes: &[u8]| bytes.iter().map(|it| u32::from(*it)).sum::<u32>();
    sum(before) + 8 * u32::from(b' ') + sum(&rest[8..])
}

/// A header for what a slot has, with names of any length before it.
pub(super) fn build(raw: &Raw) -> Vec<u8> {
    let mut blocks = Vec::with_capacity(BLOCK_BYTES);
    if raw.path.len() > NAME_BYTES {
        long(&mut blocks, EntryType::GNULongName, &raw.path);
    }
    if raw.link.len() > NAME_BYTES {
        long(&mut blocks, EntryType::GNULongLink, &raw.link);
    }
    blocks.extend_from_slice(one(raw).as_bytes());
    blocks
}

fn long(blocks: &mut Vec<u8>, kind: EntryType, name: &[u8]) {
    let raw = Raw {
        kind: kind.as_byte(),
        path: LONG_NAME.to_vec(),
        link: Vec::new(),
        size: name.len() as u64 + 1,
        mode: 0o644,
        mtime: 0,
    };
    blocks.extend_from_slice(one(&raw).as_bytes());
    blocks.extend_from_slice(name);
    blocks.push(0);
    blocks.resize(blocks.len().next_multiple_of(BLOCK_BYTES), 0);
}

fn one(raw: &Raw) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::new(raw.kind));
    header.set_size(raw.size);
    header.set_mode(raw.mode);
    header.set_mtime(raw.mtime);
    header.set_uid(0);
    header.set_gid(0);
    let old = header.as_old_mut();
    fill(&mut old.name, &raw.path);
    fill(&mut old.linkname, &raw.link);
    header.set_cksum();
    header
}

fn fill(field: &mut [u8; NAME_BYTES], name: &[u8]) {
    for (to, from) in field.iter_mut().zip(name) {
        *to = *from;
    }
}
