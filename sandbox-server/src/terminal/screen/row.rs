//! One line of the screen: cells that are allocated as far as something was printed.
//!
//! Invariant: a wide character's first cell is followed by its second one, and no second cell
//! stands alone.

use std::ops::Range;

/// A character with at most two marks on it, in eight bytes. All zero is a cell where nothing was
/// printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell(u64);

const CHAR_BITS: u32 = 21;
const CHAR_MASK: u64 = (1 << CHAR_BITS) - 1;
const WIDE: u64 = 1 << 63;
const MARKS_MAX: u32 = 2;

impl Cell {
    const BLANK: Self = Self(0);
    /// The second half of a wide character; no character has this number.
    const REST: Self = Self(CHAR_MASK);

    pub(super) fn new(char: char, wide: bool) -> Self {
        Self(u64::from(char) | if wide { WIDE } else { 0 })
    }

    /// Further marks than there is room for are dropped: a program may print any number of them.
    fn mark(&mut self, mark: char) {
        for place in (1..=MARKS_MAX).map(|it| it * CHAR_BITS) {
            if self.0 >> place & CHAR_MASK == 0 {
                self.0 |= u64::from(mark) << place;
                return;
            }
        }
    }

    fn is_wide(self) -> bool {
        self.0 & WIDE != 0
    }

    fn write(self, text: &mut String) {
        if self == Self::REST {
            return;
        }
        let char_at = |place: u32| {
            let number = u32::try_from(self.0 >> place & CHAR_MASK).unwrap_or(0);
            char::from_u32(number).filter(|it| *it != '\0')
        };
        text.push(char_at(0).unwrap_or(' '));
        text.extend((1..=MARKS_MAX).filter_map(|it| char_at(it * CHAR_BITS)));
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Row {
    cells: Vec<Cell>,
}

impl Row {
    /// `col` and, for a wide character, the one after it lie on the screen.
    pub(super) fn put(&mut self, col: usize, cell: Cell) {
        let end = col + 1 + usize::from(cell.is_wide());
        // Nearly everything that is ever printed comes here.
        if self.cells.len() < end {
            self.cells.resize(end, Cell::BLANK);
        }
        self.free(col..end);
        self.cells[col] = cell;
        if cell.is_wide() {
            self.cells[col + 1] = Cell::REST;
        }
    }

    /// Puts a mark on the character that is at `col` or reaches to it.
    pub(super) fn mark(&mut self, col: usize, mark: char) {
        let col = match self.cells.get(col) {
            Some(&Cell::REST) => col.saturating_sub(1),
            _ => col,
        };
        if let Some(cell) = self.cells.get_mut(col).filter(|it| **it != Cell::BLANK) {
            cell.mark(mark);
        }
    }

    /// Takes the other halves of wide characters that are cut by the borders of `range`.
    fn free(&mut self, range: Range<usize>) {
        if self.cells.get(range.start) == Some(&Cell::REST) {
            self.cells[range.start - 1] = Cell::BLANK;
        }
        if self.cells.get(range.end) == Some(&Cell::REST) {
            self.cells[range.end] = Cell::BLANK;
        }
    }

    pub(super) fn clear(&mut self) {
        self.cells.clear();
    }

    pub(super) fn erase(&mut self, range: Range<usize>) {
        let range = range.start..range.end.min(self.cells.len());
        if range.is_empty() {
            return;
        }
        self.free(range.clone());
        if range.end == self.cells.len() {
            self.cells.truncate(range.start);
        } else {
            self.cells[range].fill(Cell::BLANK);
        }
    }

    /// What is pushed over the right border of a screen of `cols` is gone.
    pub(super) fn insert(&mut self, col: usize, count: usize, cols: usize) {
        let count = count.min(cols.saturating_sub(col));
        if col >= self.cells.len() || count == 0 {
            return;
        }
        self.free(col..col);
        self.free_for_cut(cols - count);
        self.cells.truncate(cols - count);
        let at = col.min(self.cells.len());
        self.cells.splice(at..at, std::iter::repeat_n(Cell::BLANK, count));
    }

    pub(super) fn delete(&mut self, col: usize, count: usize) {
        let end = col.saturating_add(count).min(self.cells.len());
        if col < end {
            self.free(col..end);
            self.cells.drain(col..end);
        }
    }

    pub(super) fn truncate(&mut self, cols: usize) {
        self.free_for_cut(cols);
        self.cells.truncate(cols);
    }

    fn free_for_cut(&mut self, cols: usize) {
        if cols > 0 && self.cells.get(cols) == Some(&Cell::REST) {
            self.cells[cols - 1] = Cell::BLANK;
        }
    }

    /// Without the blanks at its end.
    pub(super) fn write(&self, text: &mut String) {
        let start = text.len();
        for cell in &self.cells {
            cell.write(text);
        }
        let kept = text[start..].trim_end_matches(' ').len();
        text.truncate(start + kept);
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn check(&self, cols: usize) {
        assert!(self.cells.len() <= cols, "{} cells on {cols} columns", self.cells.len());
        let mut before = Cell::BLANK;
        for cell in self.cells.iter().chain([&Cell::BLANK]) {
            assert_eq!(before.is_wide(), *cell == Cell::REST, "a half of a wide character");
            before = *cell;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> Row {
        let mut row = Row::default();
        let mut col = 0;
        for char in text.chars() {
            let wide = char > '\u{1100}';
            row.put(col, Cell::new(char, wide));
            col += 1 + usize::from(wide);
        }
        row
    }

    #[test]
    fn half_of_a_wide_character_is_none() {
        for (col, text) in [(1, "ax c"), (2, "a xc")] {
            let mut row = row("a你c");
            row.put(col, Cell::new('x', false));
            row.check(4);
            assert_eq!(row.text(), text);
        }
        type Change = fn(&mut Row);
        let changes: [(&str, Change); 8] = [
            ("a", |row| row.truncate(2)),
            ("a", |row| row.erase(2..9)),
            ("   c", |row| row.erase(0..2)),
            ("a  c", |row| row.erase(1..2)),
            ("a c", |row| row.delete(1, 1)),
            ("a c", |row| row.delete(2, 1)),
            ("a   c", |row| row.insert(2, 1, 5)),
            (" a", |row| row.insert(0, 1, 3)),
        ];
        for (at, (text, change)) in changes.into_iter().enumerate() {
            let mut row = row("a你c");
            change(&mut row);
            row.check(5);
            assert_eq!(row.text(), text, "change {at}");
        }
    }

    #[test]
    fn a_cell_holds_two_marks_and_drops_more() {
        let mut row = row("e");
        for mark in ['\u{301}', '\u{302}', '\u{303}'] {
            row.mark(0, mark);
        }
        assert_eq!(row.text(), "e\u{301}\u{302}");
        row.mark(7, '\u{301}');
        assert_eq!(row.text(), "e\u{301}\u{302}");
    }

    #[test]
    fn inserted_cells_push_the_last_ones_off() {
        let mut row = row("abc");
        row.insert(1, 2, 4);
        assert_eq!(row.text(), "a  b");
        row.insert(3, 99, 4);
        assert_eq!(row.text(), "a");
        row.insert(0, 0, 4);
        row.check(4);
        assert_eq!(row.text(), "a");
    }
}
