//! What is due when: a heap that forgets lazily.
//!
//! Entries are never removed from the middle. Whoever pops one looks whether it still means
//! anything; when most do not, the heap is swept once, so that it stays in proportion.

use super::types::Millis;
use std::{cmp::Reverse, collections::BinaryHeap};

/// Below this many entries nothing is swept.
const SWEEP_MIN: usize = 4_096;

#[derive(Debug)]
pub(super) struct Due<T: Ord> {
    heap: BinaryHeap<Reverse<(Millis, T)>>,
}

impl<T: Ord> Default for Due<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new() }
    }
}

impl<T: Ord> Due<T> {
    pub(super) fn push(&mut self, when: Millis, what: T) {
        self.heap.push(Reverse((when, what)));
    }

    pub(super) fn pop(&mut self, now: Millis) -> Option<(Millis, T)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    pub(super) fn next(&self) -> Option<Millis> {
        self.heap.peek().map(|Reverse((when, _))| *when)
    }

    /// Whether a sweep would leave less than a third of the heap, when `live` entries still mean something.
    pub(super) fn is_bloated(&self, live: usize) -> bool {
        self.heap.len() > SWEEP_MIN + 3 * live
    }

    pub(super) fn sweep(&mut self, is_live: impl Fn(Millis, &T) -> bool) {
        self.heap.retain(|Reverse((when, what))| is_live(*when, what));
    }
}
