//! Output in constant memory: its beginning, its end, and how much there was.

use crate::wire::Captured;

#[derive(Debug)]
pub(super) struct Capture {
    head: Vec<u8>,
    head_max: usize,
    /// A ring once it is full; `start` is its oldest byte.
    tail: Vec<u8>,
    tail_max: usize,
    start: usize,
    bytes: u64,
}

impl Capture {
    pub(super) fn new(head_max: usize, tail_max: usize) -> Self {
        Self { head: Vec::new(), head_max, tail: Vec::new(), tail_max, start: 0, bytes: 0 }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is kept, as if it were the whole.
    pub(super) fn so_far(&self) -> Vec<u8> {
        let (newer, older) = self.tail.split_at(self.start);
        [&*self.head, older, newer].concat()
    }

    pub(super) fn push(&mut self, data: &[u8]) {
        self.bytes += data.len() as u64;
        let (head, rest) = data.split_at(data.len().min(self.head_max - self.head.len()));
        self.head.extend_from_slice(head);
        self.push_tail(rest);
    }

    fn push_tail(&mut self, data: &[u8]) {
        let data = &data[data.len().saturating_sub(self.tail_max)..];
        let (fresh, over) = data.split_at(data.len().min(self.tail_max - self.tail.len()));
        self.tail.extend_from_slice(fresh);
        let (to_end, wrapped) = over.split_at(over.len().min(self.tail.len() - self.start));
        self.tail[self.start..self.start + to_end.len()].copy_from_slice(to_end);
        self.tail[..wrapped.len()].copy_from_slice(wrapped);
        if self.tail_max > 0 {
            self.start = (self.start + over.len()) % self.tail_max;
        }
    }

    pub(super) fn finish(mut self) -> Captured {
        self.tail.rotate_left(self.start);
        Captured { head: self.head, tail: self.tail, bytes: self.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(head_max: usize, tail_max: usize, pieces: &[&[u8]]) -> Captured {
        let mut capture = Capture::new(head_max, tail_max);
        for piece in pieces {
            capture.push(piece);
        }
        capture.finish()
    }

    #[test]
    fn whatever_the_pieces_the_ends_are_kept() {
        let data: Vec<u8> = (0..=255).collect();
        for size in 1..80 {
            let pieces: Vec<&[u8]> = data.chunks(size).collect();
            let got = capture(10, 7, &pieces);
            assert_eq!((&*got.head, &*got.tail), (&data[..10], &data[249..]), "pieces of {size}");
            assert_eq!((got.bytes, got.cut_bytes()), (256, 239));
        }
    }

    #[test]
    fn nothing_is_cut_up_to_the_limit_and_one_byte_past_it() {
        let got = capture(4, 4, &[b"abcdef", b"gh"]);
        assert_eq!((&*got.head, &*got.tail, got.cut_bytes()), (&b"abcd"[..], &b"efgh"[..], 0));
        let got = capture(4, 4, &[b"abcdef", b"ghi"]);
        assert_eq!((&*got.head, &*got.tail, got.cut_bytes()), (&b"abcd"[..], &b"fghi"[..], 1));
    }

    #[test]
    fn without_a_tail_the_rest_is_counted_only() {
        let got = capture(3, 0, &[b"abcdef"]);
        assert_eq!((&*got.head, got.tail.len(), got.cut_bytes()), (&b"abc"[..], 0, 3));
    }
}
