//! The lines of a screen with their cursor, and everything that moves either.
//!
//! Invariant: the cursor is on the screen, and the scroll region is at least one line of it.

use super::row::{Cell, Row};
use std::ops::Range;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) row: usize,
    pub(super) col: usize,
    /// The last column was printed to: the next character goes to the next line.
    pub(super) wraps: bool,
}

#[derive(Debug)]
pub(super) struct Grid {
    rows: Vec<Row>,
    cols: usize,
    pub(super) cursor: Cursor,
    saved: Cursor,
    /// First line of the scroll region, and the line after its last.
    region: Range<usize>,
    /// Rows are counted from the scroll region's first one, and stay within it.
    origin: bool,
}

/// What of a line or of the screen, seen from the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    After,
    Before,
    All,
}

impl Grid {
    pub(super) fn new(rows: usize, cols: usize) -> Self {
        Self {
            rows: vec![Row::default(); rows],
            cols,
            cursor: Cursor::default(),
            saved: Cursor::default(),
            region: 0..rows,
            origin: false,
        }
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(super) fn cols(&self) -> usize {
        self.cols
    }

    /// Returns the lines that a lower screen has pushed off its top.
    pub(super) fn resize(&mut self, rows: usize, cols: usize) -> Vec<Row> {
        let over = self.rows.len().saturating_sub(rows);
        // Lines below the cursor are given up first.
        let below = self.rows.len() - 1 - self.cursor.row;
        self.rows.truncate(self.rows.len() - over.min(below));
        let pushed = self.rows.drain(..over - over.min(below)).collect::<Vec<_>>();
        self.rows.resize(rows, Row::default());
        for row in &mut self.rows {
            row.truncate(cols);
        }
        self.cols = cols;
        self.region = 0..rows;
        for cursor in [&mut self.cursor, &mut self.saved] {
            cursor.row = cursor.row.saturating_sub(pushed.len()).min(rows - 1);
            cursor.col = cursor.col.min(cols - 1);
            cursor.wraps = false;
        }
        pushed
    }

    pub(super) fn put(&mut self, cell: Cell) {
        self.rows[self.cursor.row].put(self.cursor.col, cell);
    }

    /// On the character before the cursor.
    pub(super) fn mark(&mut self, mark: char) {
        let Cursor { row, col, wraps } = self.cursor;
        let col = if wraps { Some(col) } else { col.checked_sub(1) };
        if let Some(col) = col {
            self.rows[row].mark(col, mark);
        }
    }

    pub(super) fn move_to(&mut self, row: usize, col: usize) {
        let row = if self.origin {
            (self.region.start + row).min(self.region.end - 1)
        } else {
            row.min(self.rows.len() - 1)
        };
        self.cursor = Cursor { row, col: col.min(self.cols - 1), wraps: false };
    }

    /// As a program counts them.
    pub(super) fn reported_position(&self) -> (usize, usize) {
        let first = if self.origin { self.region.start } else { 0 };
        (self.cursor.row.saturating_sub(first) + 1, self.cursor.col + 1)
    }

    pub(super) fn move_to_row(&mut self, row: usize) {
        self.move_to(row, self.cursor.col);
    }

    pub(super) fn move_to_col(&mut self, col: usize) {
        self.cursor.col = col.min(self.cols - 1);
        self.cursor.wraps = false;
    }

    pub(super) fn up(&mut self, count: usize) {
        let first = if self.cursor.row >= self.region.start { self.region.start } else { 0 };
        self.cursor.row = self.cursor.row.saturating_sub(count).max(first);
        self.cursor.wraps = false;
    }

    pub(super) fn down(&mut self, count: usize) {
        let end = if self.cursor.row < self.region.end { self.region.end } else { self.rows.len() };
        self.cursor.row = (self.cursor.row + count).min(end - 1);
        self.cursor.wraps = false;
    }

    pub(super) fn left(&mut self, count: usize) {
        self.move_to_col(self.cursor.col.saturating_sub(count));
    }

    pub(super) fn right(&mut self, count: usize) {
        self.move_to_col(self.cursor.col.saturating_add(count));
    }

    /// To the next line, scrolling at the end of the region. Returns what was pushed off the top
    /// of the screen.
    pub(super) fn line_feed(&mut self) -> Option<Row> {
        self.cursor.wraps = false;
        if self.cursor.row + 1 == self.region.end {
            return self.scroll_up(1).pop();
        }
        self.cursor.row = (self.cursor.row + 1).min(self.rows.len() - 1);
        None
    }

    pub(super) fn reverse_line_feed(&mut self) {
        self.cursor.wraps = false;
        if self.cursor.row == self.region.start {
            self.scroll_down(1);
        } else {
            self.cursor.row = self.cursor.row.saturating_sub(1);
        }
    }

    /// Returns what was pushed off the top of the screen; a region below the top keeps nothing.
    pub(super) fn scroll_up(&mut self, count: usize) -> Vec<Row> {
        let off = self.remove_lines(self.region.start, count);
        if self.region.start == 0 { off } else { Vec::new() }
    }

    pub(super) fn scroll_down(&mut self, count: usize) {
        self.insert_lines(self.region.start, count);
    }

    pub(super) fn insert_lines_here(&mut self, count: usize) {
        if self.region.contains(&self.cursor.row) {
            self.insert_lines(self.cursor.row, count);
            self.move_to_col(0);
        }
    }

    pub(super) fn delete_lines_here(&mut self, count: usize) {
        if self.region.contains(&self.cursor.row) {
            self.remove_lines(self.cursor.row, count);
            self.move_to_col(0);
        }
    }

    fn remove_lines(&mut self, at: usize, count: usize) -> Vec<Row> {
        let lines = &mut self.rows[at..self.region.end];
        let count = count.min(lines.len());
        let off = lines[..count].iter_mut().map(std::mem::take).collect();
        lines.rotate_left(count);
        off
    }

    fn insert_lines(&mut self, at: usize, count: usize) {
        let lines = &mut self.rows[at..self.region.end];
        let count = count.min(lines.len());
        lines.rotate_right(count);
        lines[..count].iter_mut().for_each(Row::clear);
    }

    pub(super) fn insert_cells(&mut self, count: usize) {
        self.cursor.wraps = false;
        self.rows[self.cursor.row].insert(self.cursor.col, count, self.cols);
    }

    pub(super) fn delete_cells(&mut self, count: usize) {
        self.cursor.wraps = false;
        self.rows[self.cursor.row].delete(self.cursor.col, count);
    }

    pub(super) fn erase_cells(&mut self, count: usize) {
        let col = self.cursor.col;
        self.cursor.wraps = false;
        self.rows[self.cursor.row].erase(col..col.saturating_add(count));
    }

    pub(super) fn erase_in_line(&mut self, part: Part) {
        let col = self.cursor.col;
        self.cursor.wraps = false;
        let range = match part {
            Part::After => col..self.cols,
            Part::Before => 0..col + 1,
            Part::All => 0..self.cols,
        };
        self.rows[self.cursor.row].erase(range);
    }

    pub(super) fn erase_in_screen(&mut self, part: Part) {
        let row = self.cursor.row;
        let range = match part {
            Part::After => row + 1..self.rows.len(),
            Part::Before => 0..row,
            Part::All => 0..self.rows.len(),
        };
        self.rows[range].iter_mut().for_each(Row::clear);
        self.erase_in_line(part);
    }

    /// Both ends belong to it; a region of less than two lines is none.
    pub(super) fn set_region(&mut self, first: usize, last: usize) {
        let last = last.min(self.rows.len() - 1);
        self.region = if first < last { first..last + 1 } else { 0..self.rows.len() };
        self.move_to(0, 0);
    }

    pub(super) fn set_origin(&mut self, origin: bool) {
        self.origin = origin;
        self.move_to(0, 0);
    }

    pub(super) fn save_cursor(&mut self) {
        self.saved = self.cursor;
    }

    pub(super) fn restore_cursor(&mut self) {
        self.cursor = self.saved;
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn check(&self) {
        for row in &self.rows {
            row.check(self.cols);
        }
        assert!(self.cursor.row < self.rows.len() && self.cursor.col < self.cols);
        assert!(self.region.start < self.region.end && self.region.end <= self.rows.len());
    }
}
