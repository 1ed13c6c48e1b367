//! Takes the shell's marks out of what a session prints.
//!
//! Our shells say when they are back at their prompt, by a sequence for the terminal that carries
//! a nonce: `ESC ] 6973 ; nonce ; D ; code ; pending BEL`. Everything else passes unchanged, and
//! no more than one unfinished mark is held back.

/// The longest that a mark can be after its nonce.
const REST_BYTES_MAX: usize = 32;
const BELL: u8 = 0x07;

/// What the shell says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The last command is over, with this code.
    Done {
        exit_code: i32,
        /// More was typed by then: the shell goes on with that.
        pending: bool,
    },
    /// The prompt is written.
    Prompt,
}

#[derive(Debug)]
pub(crate) struct Sieve {
    prefix: Vec<u8>,
    /// A mark that has begun, or what may turn out to be one.
    held: Vec<u8>,
}

impl Sieve {
    pub(crate) fn new(nonce: &str) -> Self {
        Self { prefix: prefix(nonce).into_bytes(), held: Vec::new() }
    }

    /// Appends what is not a mark to `out`, and the marks to `marks`.
    pub(crate) fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>, marks: &mut Vec<Mark>) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.held.is_empty() {
                let plain = bytes.iter().position(|it| *it == 0x1b).unwrap_or(bytes.len());
                out.extend_from_slice(&bytes[..plain]);
                bytes = &bytes[plain..];
                if !bytes.is_empty() {
                    self.held.push(0x1b);
                    bytes = &bytes[1..];
                }
                continue;
            }
            if !self.may_go_on_with(*first) {
                out.append(&mut self.held);
                continue;
            }
            bytes = rest;
            self.held.push(*first);
            if *first == BELL {
                match parse(&self.held[self.prefix.len()..self.held.len() - 1]) {
                    Some(mark) => marks.push(mark),
                    None => out.extend_from_slice(&self.held),
                }
                self.held.clear();
            }
        }
    }

    fn may_go_on_with(&self, byte: u8) -> bool {
        if let Some(wanted) = self.prefix.get(self.held.len()) {
            return *wanted == byte;
        }
        let within = self.held.len() < self.prefix.len() + REST_BYTES_MAX;
        within && (byte == BELL || byte.is_ascii_alphanumeric() || byte == b';')
    }

    /// At the end of the output: what is held back was no mark.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }
}

fn parse(text: &[u8]) -> Option<Mark> {
    let text = std::str::from_utf8(text).ok()?;
    let mut parts = text.split(';');
    let mark = match (parts.next()?, parts.next(), parts.next()) {
        ("D", Some(code), pending) => {
            Mark::Done { exit_code: code.parse().ok()?, pending: pending == Some("1") }
        }
        ("P", None, None) => Mark::Prompt,
        _ => return None,
    };
    parts.next().is_none().then_some(mark)
}

pub(super) fn prefix(nonce: &str) -> String {
    format!("\x1b]6973;{nonce};")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DONE: &str = "\x1b]6973;abc;D;7;0\x07";

    fn sieved(pieces: &[&[u8]]) -> (String, Vec<Mark>) {
        let (mut out, mut marks) = (Vec::new(), Vec::new());
        let mut sieve = Sieve::new("abc");
        for piece in pieces {
            sieve.push(piece, &mut out, &mut marks);
        }
        sieve.finish(&mut out);
        (String::from_utf8(out).unwrap(), marks)
    }

    #[test]
    fn marks_are_taken_out_wherever_they_are_cut() {
        let text = format!("a{DONE}b\x1b[1m\x1b]6973;abc;P\x07c\x1b]6973;abc;D;130;1\x07");
        let marks = vec![
            Mark::Done { exit_code: 7, pending: false },
            Mark::Prompt,
            Mark::Done { exit_code: 130, pending: true },
        ];
        for cut in 0..text.len() {
            let (one, two) = text.as_bytes().split_at(cut);
            assert_eq!(sieved(&[one, two]), ("ab\x1b[1mc".to_owned(), marks.clone()), "{cut}");
        }
    }

    #[test]
    fn what_is_nearly_a_mark_passes_unchanged() {
        for text in [
            "\x1b",
            "\x1b\x1b]0;t\x07",
            "\x1b]6973;abd;D;7;0\x07",
            "\x1b]6973;abc;D;x;0\x07",
            "\x1b]6973;abc;D\x07",
            "\x1b]6973;abc;D;1;0;0\x07",
            "\x1b]6973;abc;Q\x07",
            "\x1b]6973;abc;D;7;0\x1b\\",
            "\x1b]6973;abc;D;7",
            "\x1b]6973;abc;D;00000000000000000000000000000000000000\x07",
        ] {
            assert_eq!(sieved(&[text.as_bytes()]), (text.to_owned(), vec![]), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_else_is_changed_and_hardly_anything_held_back(
            text in "(\x1b|\\]|6973;|abc;|D;7;0|P|\x07|[a-z]|é){0,40}",
            cut in 1..9_usize,
        ) {
            let (mut out, mut marks) = (Vec::new(), Vec::new());
            let mut sieve = Sieve::new("abc");
            for piece in text.as_bytes().chunks(cut) {
                sieve.push(piece, &mut out, &mut marks);
                prop_assert!(sieve.held.len() <= sieve.prefix.len() + REST_BYTES_MAX + 1);
            }
            sieve.finish(&mut out);
            let mut left = text.clone();
            for mark in [DONE, "\x1b]6973;abc;P\x07"] {
                left = left.replace(mark, "");
            }
            // A mark may only come to be by the removal of another one.
            prop_assert!(left.len() <= out.len());
            let seen = text.matches(DONE).count() + text.matches("\x1b]6973;abc;P\x07").count();
            prop_assert_eq!(marks.len(), seen);
            prop_assert_eq!(out.len() + text.matches(DONE).count() * DONE.len()
                + text.matches("\x1b]6973;abc;P\x07").count() * 14, text.len());
        }
    }
}
