//! The screen that a session's output is shown on.
//!
//! It takes any bytes, cut anywhere. It holds at most the cells of two screens (eight bytes each),
//! and of what has scrolled off 10,000 lines and 2 MiB. The parser is `vte`, without its growing
//! buffers.

mod grid;
mod history;
mod row;
mod term;
#[cfg(test)]
mod tests;

use super::log::unfinished_bytes;
use std::num::NonZeroU16;
use term::Term;

pub(crate) const ROWS_MAX: u16 = 500;
pub(crate) const COLS_MAX: u16 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: NonZeroU16,
    pub(crate) cols: NonZeroU16,
}

impl Size {
    /// `None` if it is out of bounds.
    pub(crate) fn new(rows: u16, cols: u16) -> Option<Self> {
        let within = rows <= ROWS_MAX && cols <= COLS_MAX;
        let size = Self { rows: NonZeroU16::new(rows)?, cols: NonZeroU16::new(cols)? };
        within.then_some(size)
    }
}

pub(crate) struct Screen {
    parser: vte::Parser,
    /// The beginning of a character whose rest was not printed yet. The parser would take it, but
    /// loses what is near it at times.
    unfinished: Vec<u8>,
    term: Term,
    size: Size,
}

/// Text of the screen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) text: String,
    /// Lines at the beginning that were left out, for there is room for newer ones only.
    pub(crate) lines_cut: u64,
}

impl Screen {
    pub(crate) fn new(size: Size) -> Self {
        let term = Term::new(size.rows.get().into(), size.cols.get().into());
        Self { parser: vte::Parser::new(), unfinished: Vec::new(), term, size }
    }

    pub(crate) fn size(&self) -> Size {
        self.size
    }

    /// Takes what was printed. How long that takes is bounded by its length and the screen's size.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let whole = bytes.len() - unfinished_bytes(bytes);
        if self.unfinished.is_empty() {
            self.parser.advance(&mut self.term, &bytes[..whole]);
            self.unfinished.extend_from_slice(&bytes[whole..]);
            return;
        }
        let mut joined = std::mem::take(&mut self.unfinished);
        joined.extend_from_slice(bytes);
        self.unfinished = joined.split_off(joined.len() - unfinished_bytes(&joined));
        self.parser.advance(&mut self.term, &joined);
    }

    /// What a terminal would have written back by now to questions in what was printed.
    pub(crate) fn take_answers(&mut self) -> Vec<u8> {
        self.term.take_answers()
    }

    /// Lines are not wrapped anew.
    pub(crate) fn resize(&mut self, size: Size) {
        self.term.resize(size.rows.get().into(), size.cols.get().into());
        self.size = size;
    }

    /// From 0 on: row and column.
    pub(crate) fn cursor(&self) -> (usize, usize) {
        (self.term.grid.cursor.row, self.term.grid.cursor.col)
    }

    pub(crate) fn is_cursor_hidden(&self) -> bool {
        self.term.cursor_hidden
    }

    pub(crate) fn is_alternate(&self) -> bool {
        self.term.is_alternate()
    }

    pub(crate) fn is_application_cursor(&self) -> bool {
        self.term.application_cursor
    }

    pub(crate) fn title(&self) -> &str {
        &self.term.title
    }

    /// The visible lines, without blanks at their ends, and without empty lines at the end.
    pub(crate) fn visible(&self, bytes_max: usize) -> Shown {
        let rows = self.term.grid.rows().iter().map(row::Row::text).collect::<Vec<_>>();
        join_end(rows.iter().map(|it| &**it), 0, bytes_max)
    }

    /// What has scrolled off, and the visible lines.
    pub(crate) fn entire(&self, bytes_max: usize) -> Shown {
        let history = &self.term.history;
        let rows = self.term.grid.rows().iter().map(row::Row::text).collect::<Vec<_>>();
        let lines = history.lines().chain(rows.iter().map(|it| &**it));
        join_end(lines, history.dropped(), bytes_max)
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn check(&self) {
        self.term.grid.check();
        let history = &self.term.history;
        assert!(history.lines().count() <= history::LINES_MAX);
        assert!(history.lines().map(str::len).sum::<usize>() <= history::BYTES_MAX);
    }
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("size", &self.size).finish_non_exhaustive()
    }
}

/// As many of the last lines as there is room for, and of a line that is longer its end.
fn join_end<'a>(lines: impl Iterator<Item = &'a str>, dropped: u64, bytes_max: usize) -> Shown {
    let mut lines = lines.collect::<Vec<_>>();
    while lines.last().is_some_and(|it| it.is_empty()) {
        lines.pop();
    }
    let mut room = bytes_max;
    let mut first = lines.len();
    for line in lines.iter().rev() {
        let Some(left) = room.checked_sub(line.len() + usize::from(first < lines.len())) else {
            break;
        };
        room = left;
        first -= 1;
    }
    let mut text = lines[first..].join("\n");
    if first == lines.len()
        && let Some(last) = lines.last()
    {
        let start = (last.len() - bytes_max..=last.len()).find(|it| last.is_char_boundary(*it));
        text.push_str(&last[start.unwrap_or(last.len())..]);
    }
    Shown { text, lines_cut: dropped + first as u64 }
}
