//! What a session has printed, in all the ways that it can be asked for.

use super::{
    cast::Cast,
    log::Log,
    screen::{Screen, Size},
    shell::Progress,
    sieve::{Mark, Sieve},
};
use crate::slot::SessionEnd;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) screen: Screen,
    pub(crate) log: Log,
    pub(crate) cast: Cast,
    pub(crate) progress: Progress,
    /// The program has ended, and all of its output is here.
    pub(crate) end: Option<SessionEnd>,
    /// Where the next `read` goes on, and the next `cast`.
    pub(crate) read_offset: u64,
    pub(crate) cast_offset: u64,
    sieve: Sieve,
    began: Instant,
    output: Vec<u8>,
    marks: Vec<Mark>,
}

impl State {
    pub(crate) fn new(size: Size, nonce: &str) -> Self {
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            screen: Screen::new(size),
            log: Log::default(),
            cast: Cast::new(size, timestamp.as_secs()),
            progress: Progress::new(),
            end: None,
            read_offset: 0,
            cast_offset: 0,
            sieve: Sieve::new(nonce),
            began: Instant::now(),
            output: Vec::new(),
            marks: Vec::new(),
        }
    }

    fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Takes what the program printed, and returns what a terminal writes back to that.
    pub(crate) fn printed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut output = std::mem::take(&mut self.output);
        self.sieve.push(bytes, &mut output, &mut self.marks);
        self.show(&output);
        output.clear();
        self.output = output;
        let now = Instant::now();
        for mark in self.marks.drain(..) {
            self.progress.note(mark, now);
        }
        self.screen.take_answers()
    }

    fn show(&mut self, output: &[u8]) {
        if output.is_empty() {
            return;
        }
        self.log.push(output);
        self.cast.output(self.age(), output);
        // A fault of the screen must not be more than that.
        let screen = &mut self.screen;
        if catch_unwind(AssertUnwindSafe(|| screen.feed(output))).is_err() {
            tracing::error!("a terminal's screen failed and was made anew");
            self.screen = Screen::new(self.screen.size());
        }
    }

    /// To be called before it is.
    pub(crate) fn typed(&mut self, bytes: &[u8]) {
        self.progress.typed(bytes);
        self.cast.input(self.age(), bytes);
    }

    pub(crate) fn resized(&mut self, size: Size) {
        self.screen.resize(size);
        self.cast.resize(self.age(), size);
    }

    pub(crate) fn ended(&mut self, end: SessionEnd) {
        let mut rest = Vec::new();
        self.sieve.finish(&mut rest);
        self.show(&rest);
        self.end = Some(end);
    }

    /// Nothing that was typed is being worked on any more.
    pub(crate) fn is_done(&self, now: Instant) -> bool {
        self.end.is_some() || self.progress.is_done(now)
    }
}
