//! What a program prints, carried out on the screen: the part of xterm that has to do with text.
//!
//! Colours are not kept: what is shown here is read by programs. Work for each byte is bounded by
//! the size of the screen, whatever its parameters say.

use super::{
    grid::{Grid, Part},
    history::History,
    row::Cell,
};
use unicode_width::UnicodeWidthChar;
use vte::{Params, Perform};

const TAB: usize = 8;
const TITLE_CHARS_MAX: usize = 200;
/// Answers that the program does not fetch are not kept without end.
const ANSWERS_BYTES_MAX: usize = 4 << 10;

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "a terminal's modes")]
pub(super) struct Term {
    pub(super) grid: Grid,
    /// The main screen, while the alternate one is shown.
    main: Option<Grid>,
    pub(super) history: History,
    pub(super) title: String,
    pub(super) application_cursor: bool,
    pub(super) cursor_hidden: bool,
    wraps: bool,
    inserts: bool,
    tabs: Vec<bool>,
    /// Whether G0 and G1 are the line drawing characters.
    drawing: [bool; 2],
    charset: usize,
    last_printed: Option<char>,
    answers: Vec<u8>,
}

impl Term {
    pub(super) fn new(rows: usize, cols: usize) -> Self {
        Self {
            grid: Grid::new(rows, cols),
            main: None,
            history: History::default(),
            title: String::new(),
            application_cursor: false,
            cursor_hidden: false,
            wraps: true,
            inserts: false,
            tabs: tabs(cols),
            drawing: [false; 2],
            charset: 0,
            last_printed: None,
            answers: Vec::new(),
        }
    }

    pub(super) fn is_alternate(&self) -> bool {
        self.main.is_some()
    }

    pub(super) fn resize(&mut self, rows: usize, cols: usize) {
        let pushed = match &mut self.main {
            Some(main) => {
                self.grid.resize(rows, cols);
                main.resize(rows, cols)
            }
            None => self.grid.resize(rows, cols),
        };
        for row in pushed {
            self.history.push(row.text());
        }
        self.tabs = tabs(cols);
    }

    /// What the program is owed for its questions.
    pub(super) fn take_answers(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.answers)
    }

    fn answer(&mut self, text: &str) {
        if self.answers.len() + text.len() <= ANSWERS_BYTES_MAX {
            self.answers.extend_from_slice(text.as_bytes());
        }
    }

    fn line_feed(&mut self) {
        if let Some(row) = self.grid.line_feed()
            && self.main.is_none()
        {
            self.history.push(row.text());
        }
    }

    fn scroll_up(&mut self, count: usize) {
        let off = self.grid.scroll_up(count);
        if self.main.is_none() {
            for row in off {
                self.history.push(row.text());
            }
        }
    }

    fn show(&mut self, char: char) {
        let cols = self.grid.cols();
        let width = match char.width() {
            None => return,
            Some(0) => return self.grid.mark(char),
            // A wide character has no place on a screen of one column.
            Some(width) => width.min(2).min(cols),
        };
        let over = self.grid.cursor.wraps || self.grid.cursor.col + width > cols;
        if over && self.wraps {
            self.grid.move_to_col(0);
            self.line_feed();
        } else if over {
            self.grid.move_to_col(cols - width);
        }
        if self.inserts {
            self.grid.insert_cells(width);
        }
        self.grid.put(Cell::new(char, width == 2));
        let next = self.grid.cursor.col + width;
        self.grid.move_to_col(next);
        self.grid.cursor.wraps = next >= cols && self.wraps;
    }

    fn tab_forward(&mut self, count: usize) {
        let mut col = self.grid.cursor.col;
        for _ in 0..count.min(self.grid.cols()) {
            let next = (col + 1..self.tabs.len()).find(|it| self.tabs[*it]);
            col = next.unwrap_or(self.grid.cols() - 1);
        }
        self.grid.move_to_col(col);
    }

    fn tab_backward(&mut self, count: usize) {
        let mut col = self.grid.cursor.col;
        for _ in 0..count.min(self.grid.cols()) {
            col = (0..col).rev().find(|it| self.tabs[*it]).unwrap_or(0);
        }
        self.grid.move_to_col(col);
    }

    fn set_alternate(&mut self, alternate: bool) {
        match (alternate, self.main.take()) {
            (true, None) => {
                let (rows, cols) = (self.grid.rows().len(), self.grid.cols());
                let mut fresh = Grid::new(rows, cols);
                fresh.cursor = self.grid.cursor;
                self.main = Some(std::mem::replace(&mut self.grid, fresh));
            }
            (false, Some(main)) => self.grid = main,
            (_, main) => self.main = main,
        }
    }

    fn set_private_mode(&mut self, mode: u16, on: bool) {
        match mode {
            1 => self.application_cursor = on,
            6 => self.grid.set_origin(on),
            7 => self.wraps = on,
            25 => self.cursor_hidden = !on,
            47 | 1047 => self.set_alternate(on),
            1048 if on => self.grid.save_cursor(),
            1048 => self.grid.restore_cursor(),
            1049 if on => {
                self.grid.save_cursor();
                self.set_alternate(true);
            }
            1049 => {
                let was = self.is_alternate();
                self.set_alternate(false);
                if was {
                    self.grid.restore_cursor();
                }
            }
            _ => {}
        }
    }

    fn reset(&mut self) {
        let (rows, cols) = (self.grid.rows().len(), self.grid.cols());
        let fresh = Self::new(rows, cols);
        let history = std::mem::take(&mut self.history);
        let answers = std::mem::take(&mut self.answers);
        *self = Self { history, answers, ..fresh };
    }

    fn report(&mut self, what: u16, private: &str) {
        match what {
            5 => self.answer("\x1b[0n"),
            6 => {
                let (row, col) = self.grid.reported_position();
                self.answer(&format!("\x1b[{private}{row};{col}R"));
            }
            _ => {}
        }
    }

    fn private(&mut self, params: &Params, end: char) {
        match end {
            'h' | 'l' => {
                for mode in params.iter().flatten() {
                    self.set_private_mode(*mode, end == 'h');
                }
            }
            'n' => self.report(number(params, 0), "?"),
            'J' => self.erase_in_screen(number(params, 0)),
            'K' => self.erase_in_line(number(params, 0)),
            _ => {}
        }
    }

    fn erase_in_screen(&mut self, what: u16) {
        match what {
            0 => self.grid.erase_in_screen(Part::After),
            1 => self.grid.erase_in_screen(Part::Before),
            2 => self.grid.erase_in_screen(Part::All),
            3 => self.history.clear(),
            _ => {}
        }
    }

    fn erase_in_line(&mut self, what: u16) {
        match what {
            0 => self.grid.erase_in_line(Part::After),
            1 => self.grid.erase_in_line(Part::Before),
            2 => self.grid.erase_in_line(Part::All),
            _ => {}
        }
    }

    fn control_sequence(&mut self, params: &Params, end: char) {
        let count = usize::from(number(params, 0).max(1));
        let second = usize::from(number(params, 1).max(1));
        match end {
            '@' => self.grid.insert_cells(count),
            'A' => self.grid.up(count),
            'B' | 'e' => self.grid.down(count),
            'C' | 'a' => self.grid.right(count),
            'D' => self.grid.left(count),
            'E' | 'F' => {
                if end == 'E' {
                    self.grid.down(count);
                } else {
                    self.grid.up(count);
                }
                self.grid.move_to_col(0);
            }
            'G' | '`' => self.grid.move_to_col(count - 1),
            'H' | 'f' => self.grid.move_to(count - 1, second - 1),
            'I' => self.tab_forward(count),
            'J' => self.erase_in_screen(number(params, 0)),
            'K' => self.erase_in_line(number(params, 0)),
            'L' => self.grid.insert_lines_here(count),
            'M' => self.grid.delete_lines_here(count),
            'P' => self.grid.delete_cells(count),
            'S' => self.scroll_up(count),
            'T' => self.grid.scroll_down(count),
            'X' => self.grid.erase_cells(count),
            'Z' => self.tab_backward(count),
            'b' => {
                // More than a line is no use to anybody but who wants to keep us busy.
                if let Some(char) = self.last_printed {
                    (0..count.min(self.grid.cols())).for_each(|_| self.show(char));
                }
            }
            // A VT100 with its advanced video option, as tmux says of itself.
            'c' => self.answer("\x1b[?1;2c"),
            'd' => self.grid.move_to_row(count - 1),
            'g' => match number(params, 0) {
                0 => self.set_tab(false),
                3 => self.tabs.fill(false),
                _ => {}
            },
            'h' | 'l' if params.iter().flatten().any(|it| *it == 4) => self.inserts = end == 'h',
            'n' => self.report(number(params, 0), ""),
            'r' => {
                let last = match number(params, 1) {
                    0 => self.grid.rows().len(),
                    last => usize::from(last),
                };
                self.grid.set_region(count - 1, last - 1);
            }
            's' => self.grid.save_cursor(),
            't' if number(params, 0) == 18 => {
                let (rows, cols) = (self.grid.rows().len(), self.grid.cols());
                self.answer(&format!("\x1b[8;{rows};{cols}t"));
            }
            'u' => self.grid.restore_cursor(),
            _ => {}
        }
    }

    fn set_tab(&mut self, on: bool) {
        let col = self.grid.cursor.col;
        if let Some(tab) = self.tabs.get_mut(col) {
            *tab = on;
        }
    }
}

impl Perform for Term {
    fn print(&mut self, char: char) {
        let char = if self.drawing[self.charset] { drawn(char) } else { char };
        self.last_printed = Some(char);
        self.show(char);
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            0x08 => self.grid.left(1),
            b'\t' => self.tab_forward(1),
            b'\n' | 0x0b | 0x0c => self.line_feed(),
            b'\r' => self.grid.move_to_col(0),
            0x0e => self.charset = 1,
            0x0f => self.charset = 0,
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, end: char) {
        match intermediates {
            _ if ignore => {}
            [] => self.control_sequence(params, end),
            b"?" => self.private(params, end),
            // The version: an old xterm, so that nobody asks for what newer ones can do.
            b">" if end == 'c' => self.answer("\x1b[>0;95;0c"),
            b"!" if end == 'p' => self.reset(),
            _ => {}
        }
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], _ignore: bool, byte: u8) {
        match (intermediates, byte) {
            ([], b'7') => self.grid.save_cursor(),
            ([], b'8') => self.grid.restore_cursor(),
            ([], b'D') => self.line_feed(),
            ([], b'E') => {
                self.grid.move_to_col(0);
                self.line_feed();
            }
            ([], b'H') => self.set_tab(true),
            ([], b'M') => self.grid.reverse_line_feed(),
            ([], b'Z') => self.answer("\x1b[?1;2c"),
            ([], b'c') => self.reset(),
            (b"(", set) => self.drawing[0] = set == b'0',
            (b")", set) => self.drawing[1] = set == b'0',
            _ => {}
        }
    }

    fn osc_dispatch(&mut self, params: &[&[u8]], _bell_terminated: bool) {
        if let [b"0" | b"2", title @ ..] = params {
            // A semicolon in it has cut it in pieces.
            let title = title.join(&b';');
            let title = String::from_utf8_lossy(&title);
            self.title = title.chars().take(TITLE_CHARS_MAX).collect();
        }
    }
}

fn tabs(cols: usize) -> Vec<bool> {
    (0..cols).map(|it| it > 0 && it % TAB == 0).collect()
}

fn number(params: &Params, at: usize) -> u16 {
    params.iter().nth(at).and_then(|it| it.first().copied()).unwrap_or(0)
}

/// The line drawing characters of a VT100.
fn drawn(char: char) -> char {
    const DRAWN: [char; 31] = [
        '◆', '▒', '␉', '␌', '␍', '␊', '°', '±', '␤', '␋', '┘', '┐', '┌', '└', '┼', '⎺', '⎻', '─',
        '⎼', '⎽', '├', '┤', '┴', '┬', '│', '≤', '≥', 'π', '≠', '£', '·',
    ];
    let place = (char as usize).checked_sub('`' as usize);
    place.and_then(|it| DRAWN.get(it)).copied().unwrap_or(char)
}
