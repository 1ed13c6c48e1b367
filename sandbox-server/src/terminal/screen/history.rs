//! What has scrolled off the top of the screen: bounded in lines and in bytes, the oldest go first.

use std::collections::VecDeque;

pub(super) const LINES_MAX: usize = 10_000;
pub(super) const BYTES_MAX: usize = 2 << 20;
/// What a line takes beside its text.
const LINE_BYTES: usize = size_of::<Box<str>>() + 16;

#[derive(Debug, Default)]
pub(super) struct History {
    lines: VecDeque<Box<str>>,
    bytes: usize,
    dropped: u64,
}

impl History {
    pub(super) fn push(&mut self, line: String) {
        self.bytes += line.len() + LINE_BYTES;
        self.lines.push_back(line.into_boxed_str());
        while self.lines.len() > LINES_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.len() + LINE_BYTES;
            self.dropped += 1;
        }
    }

    pub(super) fn clear(&mut self) {
        self.lines.clear();
        self.bytes = 0;
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|it| &**it)
    }

    /// Lines that are no longer here because newer ones needed the room.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_go_when_there_are_too_many() {
        let mut history = History::default();
        for number in 0..LINES_MAX + 3 {
            history.push(number.to_string());
        }
        assert_eq!(history.lines().count(), LINES_MAX);
        assert_eq!((history.lines().next(), history.dropped()), (Some("3"), 3));
    }

    #[test]
    fn the_oldest_lines_go_when_they_are_too_long() {
        let mut history = History::default();
        let long = "x".repeat(BYTES_MAX / 4 - LINE_BYTES);
        for _ in 0..4 {
            history.push(long.clone());
        }
        assert_eq!(history.dropped(), 0);
        history.push(String::new());
        assert_eq!((history.lines().count(), history.dropped()), (4, 1));
        history.clear();
        assert_eq!((history.lines().count(), history.bytes), (0, 0));
    }
}
