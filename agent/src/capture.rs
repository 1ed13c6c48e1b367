//! Head and tail of what a command prints, in bounded memory.

use crate::Output;
use bytes::Bytes;
use std::collections::VecDeque;

#[derive(Debug)]
pub(crate) struct Capture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    /// Of each of both.
    half: usize,
    cut_bytes: u64,
}

impl Capture {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { head: Vec::new(), tail: VecDeque::new(), half: bytes_max / 2, cut_bytes: 0 }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let room = self.half - self.head.len();
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(head);
        let kept = &rest[rest.len().saturating_sub(self.half)..];
        let over = (self.tail.len() + kept.len()).saturating_sub(self.half);
        self.tail.drain(..over);
        self.tail.extend(kept);
        self.cut_bytes += (over + rest.len() - kept.len()) as u64;
    }

    pub(crate) fn output(&self) -> Output {
        let (first, second) = self.tail.as_slices();
        Output {
            head: Bytes::copy_from_slice(&self.head),
            tail: [first, second].concat().into(),
            cut_bytes: self.cut_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_cut_however_it_comes() {
        for size in 1..=12 {
            let mut capture = Capture::new(8);
            for piece in b"0123456789ab".chunks(size) {
                capture.push(piece);
            }
            let output = capture.output();
            assert_eq!((&output.head[..], &output.tail[..]), (&b"0123"[..], &b"89ab"[..]));
            assert_eq!(output.cut_bytes, 4);
            assert_eq!(output.text(), "0123\n[4 bytes cut]\n89ab");
        }
        let mut capture = Capture::new(100);
        capture.push("größe".as_bytes());
        assert_eq!(capture.output().text(), "größe");
        let mut none = Capture::new(0);
        none.push(b"x");
        assert_eq!(none.output().cut_bytes, 1);
    }
}
