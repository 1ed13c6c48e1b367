//! What a session has printed, for who reads it piece by piece: the newest part of it, bounded.

use std::collections::VecDeque;

pub(crate) const LOG_BYTES_MAX: usize = 1 << 20;

/// Offsets count the bytes of the whole output, also of what is no longer here.
#[derive(Debug, Default)]
pub(crate) struct Log {
    bytes: VecDeque<u8>,
    /// Bytes that are no longer here.
    dropped: u64,
}

/// A part of the output or of the recording.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) text: String,
    /// Where it begins; later than it was asked for if that is no longer there.
    pub(crate) offset: u64,
    pub(crate) next_offset: u64,
    /// Bytes from where it was asked for to where it begins.
    pub(crate) dropped: u64,
    /// There is more by now.
    pub(crate) more: bool,
}

impl Log {
    pub(crate) fn end(&self) -> u64 {
        self.dropped + self.bytes.len() as u64
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(LOG_BYTES_MAX)..];
        self.dropped += (bytes.len() - kept.len()) as u64;
        let over = (self.bytes.len() + kept.len()).saturating_sub(LOG_BYTES_MAX);
        self.bytes.drain(..over);
        self.dropped += over as u64;
        self.bytes.extend(kept);
    }

    /// From `offset` on, at most `bytes_max`. A character is not cut in two by the end of the part;
    /// if the output itself ends within one, it is left for the next part unless `ended`. Bytes
    /// that are no UTF-8 are replaced.
    pub(crate) fn read(&self, offset: u64, bytes_max: usize, ended: bool) -> Part {
        let asked = offset.min(self.end());
        let begin = asked.max(self.dropped);
        // At most what is held, so it fits.
        let start = usize::try_from(begin - self.dropped).unwrap_or(usize::MAX);
        let end = start.saturating_add(bytes_max).min(self.bytes.len());
        let mut bytes = self.bytes.range(start..end).copied().collect::<Vec<_>>();
        let all = end == self.bytes.len();
        let unfinished = unfinished_bytes(&bytes);
        // Where there is room for nothing else it is given out as it is: reading has to get on.
        let waits = unfinished < bytes.len() || (all && unfinished < bytes_max);
        if waits && !(all && ended) {
            bytes.truncate(bytes.len() - unfinished);
        }
        let next_offset = begin + bytes.len() as u64;
        Part {
            text: String::from_utf8_lossy(&bytes).into_owned(),
            offset: begin,
            next_offset,
            dropped: begin - asked,
            more: !all,
        }
    }
}

/// Of a character that has begun at the end and is not whole.
pub(crate) fn unfinished_bytes(bytes: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(3)..];
    let Some(lead) = tail.iter().rposition(|it| *it >= 0xc0) else { return 0 };
    match std::str::from_utf8(&tail[lead..]) {
        Err(error) if error.valid_up_to() == 0 && error.error_len().is_none() => tail.len() - lead,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_read_on_from_where_the_last_part_ended() {
        let mut log = Log::default();
        log.push(b"one ");
        let part = log.read(0, 100, false);
        assert_eq!((&*part.text, part.next_offset), ("one ", 4));
        log.push("zwölf".as_bytes());
        let part = log.read(part.next_offset, 3, false);
        assert_eq!((&*part.text, part.next_offset, part.more), ("zw", 6, true));
        let part = log.read(part.next_offset, 100, false);
        assert_eq!((&*part.text, part.next_offset, part.more), ("ölf", 10, false));
        let part = log.read(1_000, 100, false);
        assert_eq!((&*part.text, part.offset, part.next_offset), ("", 10, 10));
    }

    #[test]
    fn a_character_waits_until_it_is_whole_or_nothing_follows() {
        let mut log = Log::default();
        log.push(b"a\xe4\xbd");
        let part = log.read(0, 100, false);
        assert_eq!((&*part.text, part.next_offset), ("a", 1));
        assert_eq!(log.read(1, 100, false).text, "");
        assert_eq!(log.read(0, 100, true).text, "a\u{fffd}");
        log.push(b"\xa0");
        assert_eq!(log.read(1, 100, false).text, "你");
        // Room for half of it: what would not get on is given out in pieces.
        assert_eq!(log.read(1, 2, false).next_offset, 3);
        log.push(b"\xff\xc3x");
        assert_eq!(log.read(4, 100, false).text, "\u{fffd}\u{fffd}x");
    }

    #[test]
    fn the_oldest_goes_and_the_reader_hears_of_it() {
        let mut log = Log::default();
        log.push(b"ab");
        log.push(&vec![b'x'; LOG_BYTES_MAX]);
        let part = log.read(0, 5, false);
        assert_eq!((&*part.text, part.offset, part.dropped), ("xxxxx", 2, 2));
        log.push(&vec![b'y'; 2 * LOG_BYTES_MAX]);
        assert_eq!((log.end(), log.bytes.len()), (2 + 3 * LOG_BYTES_MAX as u64, LOG_BYTES_MAX));
        assert_eq!(log.read(7, 2, false).text, "yy");
    }

    proptest! {
        #[test]
        fn parts_make_up_the_whole(text in "[a-zé你🎉]{0,60}", cut in 1..9_usize, max in 1..12_usize) {
            let mut log = Log::default();
            let (mut read, mut offset) = (String::new(), 0);
            for piece in text.as_bytes().chunks(cut) {
                log.push(piece);
                let part = log.read(offset, max.max(4), false);
                read.push_str(&part.text);
                offset = part.next_offset;
            }
            loop {
                let part = log.read(offset, max.max(4), true);
                if part.text.is_empty() { break }
                read.push_str(&part.text);
                offset = part.next_offset;
            }
            prop_assert_eq!(read, text);
        }
    }
}
