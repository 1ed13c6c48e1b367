//! The recording of a session: lines of asciinema's v2 format.
//!
//! Bounded: the oldest events go, the header stays, and a marker stands where some are missing.
//! Offsets count the bytes of the whole recording, header and missing events included.

use super::{
    log::{Part, unfinished_bytes},
    screen::Size,
};
use serde_json::json;
use std::{collections::VecDeque, time::Duration};

pub(crate) const CAST_BYTES_MAX: usize = 2 << 20;
/// What a line takes beside its text.
const LINE_BYTES: usize = size_of::<Box<str>>() + 16;
/// Of output in one event: a line is at most six times as long, and some.
const EVENT_BYTES_MAX: usize = 4 << 10;

#[derive(Debug)]
pub(crate) struct Cast {
    header: String,
    lines: VecDeque<Box<str>>,
    /// What the lines take in memory.
    held_bytes: usize,
    /// Bytes of events that are no longer here.
    dropped: u64,
    /// Of the newest event that is no longer here.
    dropped_until: Duration,
    end: u64,
    /// The beginning of a character whose rest was not printed yet.
    unfinished: Vec<u8>,
}

impl Cast {
    /// `timestamp_s` since 1970.
    pub(crate) fn new(size: Size, timestamp_s: u64) -> Self {
        let header = json!({
            "version": 2,
            "width": size.cols,
            "height": size.rows,
            "timestamp": timestamp_s,
            "env": { "TERM": super::TERM },
        });
        let header = format!("{header}\n");
        Self {
            end: header.len() as u64,
            header,
            lines: VecDeque::new(),
            held_bytes: 0,
            dropped: 0,
            dropped_until: Duration::ZERO,
            unfinished: Vec::new(),
        }
    }

    pub(crate) fn output(&mut self, at: Duration, bytes: &[u8]) {
        for piece in bytes.chunks(EVENT_BYTES_MAX) {
            let mut whole = std::mem::take(&mut self.unfinished);
            whole.extend_from_slice(piece);
            self.unfinished = whole.split_off(whole.len() - unfinished_bytes(&whole));
            if !whole.is_empty() {
                self.event(at, "o", &String::from_utf8_lossy(&whole));
            }
        }
    }

    pub(crate) fn input(&mut self, at: Duration, bytes: &[u8]) {
        for piece in bytes.chunks(EVENT_BYTES_MAX) {
            self.event(at, "i", &String::from_utf8_lossy(piece));
        }
    }

    pub(crate) fn resize(&mut self, at: Duration, size: Size) {
        self.event(at, "r", &format!("{}x{}", size.cols, size.rows));
    }

    fn event(&mut self, at: Duration, kind: &str, data: &str) {
        let line = line(at, kind, data);
        self.end += line.len() as u64;
        self.held_bytes += line.len() + LINE_BYTES;
        self.lines.push_back(line.into_boxed_str());
        while self.held_bytes > CAST_BYTES_MAX {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.held_bytes -= oldest.len() + LINE_BYTES;
            self.dropped += oldest.len() as u64;
            self.dropped_until = at;
        }
    }

    /// Whole lines from `offset` on, at most `bytes_max` but at least one. An offset within a line
    /// is taken for its beginning.
    pub(crate) fn read(&self, offset: u64, bytes_max: usize) -> Part {
        let header = self.header.len() as u64;
        let first = header + self.dropped;
        let mut part = Part::default();
        if offset < header {
            part.text.push_str(&self.header);
        }
        let from = offset.max(header).min(self.end);
        part.dropped = first.saturating_sub(from);
        if part.dropped > 0 {
            let text = format!("{} bytes of the recording are missing", part.dropped);
            part.text.push_str(&line(self.dropped_until, "m", &text));
        }
        part.offset = offset.min(self.end);
        let mut at = first;
        for line in &self.lines {
            let end = at + line.len() as u64;
            if end > from {
                if !part.text.is_empty() && part.text.len() + line.len() > bytes_max {
                    part.more = true;
                    break;
                }
                part.text.push_str(line);
            }
            at = end;
        }
        part.next_offset = at;
        part
    }
}

fn line(at: Duration, kind: &str, data: &str) -> String {
    let (seconds, micros) = (at.as_secs(), at.subsec_micros());
    // Escapes what has to be.
    let data = serde_json::Value::from(data);
    format!("[{seconds}.{micros:06}, \"{kind}\", {data}]\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn cast() -> Cast {
        Cast::new(Size::new(24, 80).unwrap(), 1_700_000_000)
    }

    /// Each line as it would be read by a player.
    fn events(text: &str) -> Vec<(String, String)> {
        let lines = text.lines().map(|it| serde_json::from_str::<Value>(it).unwrap());
        let events = lines.filter(Value::is_array);
        let text = |it: &Value| it.as_str().unwrap().to_owned();
        events
            .map(|it| {
                assert!(it[0].is_number());
                (text(&it[1]), text(&it[2]))
            })
            .collect()
    }

    #[test]
    fn a_recording_is_a_header_and_events() {
        let mut cast = cast();
        cast.output(Duration::from_micros(1_000_020), b"a\x1b[1m\r\n\"");
        cast.input(Duration::from_millis(1_500), b"\x03");
        cast.resize(Duration::from_secs(2), Size::new(30, 100).unwrap());
        let text = cast.read(0, usize::MAX).text;
        let header: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!((&header["version"], &header["width"]), (&json!(2), &json!(80)));
        assert_eq!(
            text.lines().skip(1).collect::<Vec<_>>(),
            [
                r#"[1.000020, "o", "a\u001b[1m\r\n\""]"#,
                r#"[1.500000, "i", "\u0003"]"#,
                r#"[2.000000, "r", "100x30"]"#,
            ]
        );
    }

    #[test]
    fn a_character_that_came_in_two_pieces_is_one() {
        let mut cast = cast();
        cast.output(Duration::ZERO, b"\xe4");
        cast.output(Duration::ZERO, b"\xbd");
        cast.output(Duration::ZERO, b"\xa0x\xff");
        let events = events(&cast.read(0, usize::MAX).text);
        assert_eq!(events, [("o".to_owned(), "你x\u{fffd}".to_owned())]);
    }

    #[test]
    fn it_is_read_on_by_whole_lines() {
        let mut cast = cast();
        let header = cast.read(0, 1);
        assert_eq!((header.text.lines().count(), header.more), (1, false));
        for byte in b"abc" {
            cast.output(Duration::ZERO, &[*byte]);
        }
        let one = cast.read(header.next_offset, 1);
        assert_eq!((events(&one.text).len(), one.more), (1, true));
        let rest = cast.read(one.next_offset, 1_000);
        assert_eq!((events(&rest.text).len(), rest.more), (2, false));
        assert_eq!(cast.read(rest.next_offset, 1_000).text, "");
        assert_eq!(cast.read(u64::MAX, 1_000).next_offset, rest.next_offset);
    }

    #[test]
    fn where_the_oldest_events_are_gone_a_marker_says_so() {
        let mut cast = cast();
        for _ in 0..2 * CAST_BYTES_MAX / EVENT_BYTES_MAX {
            cast.output(Duration::from_secs(1), &[b'x'; EVENT_BYTES_MAX]);
        }
        assert!(cast.held_bytes <= CAST_BYTES_MAX);
        let part = cast.read(0, usize::MAX);
        assert!(part.dropped > 0);
        assert!(part.text.starts_with("{\"env\""), "{}", &part.text[..100]);
        assert_eq!(events(&part.text)[0].0, "m");
        assert_eq!(cast.read(part.next_offset, 10).text, "");
    }

    proptest! {
        #[test]
        fn any_output_in_any_pieces_is_recorded(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20),
            max in 1..300_usize,
        ) {
            let mut cast = cast();
            for piece in &pieces {
                cast.output(Duration::ZERO, piece);
            }
            let (mut text, mut offset) = (String::new(), 0);
            loop {
                let part = cast.read(offset, max);
                if part.text.is_empty() { break }
                text.push_str(&part.text);
                offset = part.next_offset;
            }
            prop_assert_eq!(&text, &cast.read(0, usize::MAX).text);
            let data = events(&text).into_iter().map(|it| it.1).collect::<String>();
            let printed = String::from_utf8_lossy(&pieces.concat()).into_owned();
            prop_assert!(printed.starts_with(&data));
        }
    }
}
