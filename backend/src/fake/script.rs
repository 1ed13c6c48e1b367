//! How a test makes the fake runtime misbehave.

use super::FakeRuntime;
use crate::Fact;
use std::collections::{HashMap, VecDeque};

/// The calls of the trait that can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    Launch,
    Stop,
    List,
    Logs,
}

/// What a call is answered instead of succeeding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Refused,
    Unavailable,
    /// It took effect, and the caller is told that nobody knows.
    LostAfterEffect,
    /// It took no effect, and the caller is told that nobody knows.
    LostBeforeEffect,
    /// It took no effect, and no answer ever comes.
    Never,
}

/// The misbehaviour that is asked for at the moment.
#[derive(Debug, Default)]
pub(super) struct Script {
    answers: HashMap<Call, VecDeque<Answer>>,
    held_launches: bool,
    /// Facts that wait to be told, while they are held.
    late: Option<Vec<Fact>>,
    extra_copies: usize,
}

impl Script {
    pub(super) fn next(&mut self, call: Call) -> Option<Answer> {
        self.answers.get_mut(&call)?.pop_front()
    }

    pub(super) fn holds_launches(&self) -> bool {
        self.held_launches
    }

    /// What to tell now, instead of `fact`.
    pub(super) fn pass(&mut self, fact: &Fact) -> Vec<Fact> {
        let copies = std::iter::repeat_n(fact.clone(), 1 + self.extra_copies);
        match &mut self.late {
            Some(late) => {
                late.extend(copies);
                Vec::new()
            }
            None => copies.collect(),
        }
    }
}

impl FakeRuntime {
    /// Queues an answer for the next `call` that has none queued before it.
    pub fn answer_next(&self, call: Call, answer: Answer) {
        self.world.lock().script.answers.entry(call).or_default().push_back(answer);
    }

    /// From now on a launched container stays `Starting` until [`FakeRuntime::make_ready`].
    pub fn hold_launches(&self) {
        self.world.lock().script.held_launches = true;
    }

    /// From now on a launched container is ready at once, as in the beginning.
    pub fn release_launches(&self) {
        self.world.lock().script.held_launches = false;
    }

    /// From now on every fact is told `extra` times more.
    pub fn repeat_facts(&self, extra: usize) {
        self.world.lock().script.extra_copies = extra;
    }

    /// From now on facts are kept back.
    pub fn hold_facts(&self) {
        self.world.lock().script.late.get_or_insert_default();
    }

    /// Tells the facts that were kept back, oldest first, and keeps back no more.
    pub fn tell_held_facts(&self) {
        let mut state = self.world.lock();
        // The copies were counted when the facts happened.
        let copies = std::mem::take(&mut state.script.extra_copies);
        for fact in state.script.late.take().unwrap_or_default() {
            state.tell(&fact);
        }
        state.script.extra_copies = copies;
    }
}
