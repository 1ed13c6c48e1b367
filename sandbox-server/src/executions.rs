//! At most once: what a slot remembers of the calls of its lease.
//!
//! Results are kept within a bound. What falls out leaves its id behind, so that a late retry is
//! told that nobody knows any more, and is not run a second time.

use crate::{outcome::Outcome, stop::Stop};
use slotmux_protocol::{ExecutionId, Limits, Problem};
use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};
use tokio::sync::watch;

/// How a call ended: with an outcome, or refused before it ran.
pub(crate) type Answer = Result<Arc<Outcome>, Problem>;
pub(crate) type Waiting = watch::Receiver<Option<Answer>>;

#[derive(Debug)]
pub(crate) struct Executions {
    known: HashMap<ExecutionId, Known>,
    /// Oldest first; those that hold a result.
    kept: VecDeque<ExecutionId>,
    /// Oldest first; all.
    order: VecDeque<ExecutionId>,
    kept_bytes: usize,
    limits: Limits,
}

#[derive(Debug)]
struct Known {
    /// Of the tool and its arguments: the same id must mean the same call.
    fingerprint: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Running(Waiting, Stop),
    Done(Arc<Outcome>),
    Forgotten,
}

/// What to do with a call that carries an id.
#[derive(Debug)]
pub(crate) enum Seen {
    /// Run it, and tell the others.
    New(watch::Sender<Option<Answer>>),
    Running(Waiting, Stop),
    Done(Arc<Outcome>),
    Forgotten,
    /// Another call came under this id.
    Reused,
}

impl Executions {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            known: HashMap::new(),
            kept: VecDeque::new(),
            order: VecDeque::new(),
            kept_bytes: 0,
            limits,
        }
    }

    /// `stop` ends the call, should it be new.
    pub(crate) fn begin(&mut self, id: &ExecutionId, call: &impl Hash, stop: &Stop) -> Seen {
        let fingerprint = fingerprint(call);
        match self.known.get(id) {
            Some(known) if known.fingerprint != fingerprint => Seen::Reused,
            Some(Known { state: State::Running(waiting, stop), .. }) => {
                Seen::Running(waiting.clone(), stop.clone())
            }
            Some(Known { state: State::Done(outcome), .. }) => Seen::Done(Arc::clone(outcome)),
            Some(Known { state: State::Forgotten, .. }) => Seen::Forgotten,
            None => {
                let (tell, waiting) = watch::channel(None);
                let state = State::Running(waiting, stop.clone());
                self.known.insert(id.clone(), Known { fingerprint, state });
                self.order.push_back(id.clone());
                self.forget_ids();
                Seen::New(tell)
            }
        }
    }

    /// What ends the call with this id, while it runs.
    pub(crate) fn running(&self, id: &ExecutionId) -> Option<&Stop> {
        match self.known.get(id) {
            Some(Known { state: State::Running(_, stop), .. }) => Some(stop),
            _ => None,
        }
    }

    /// A refused call was not run: its id is free again.
    pub(crate) fn end(&mut self, id: &ExecutionId, answer: &Answer) {
        let Ok(outcome) = answer else {
            self.known.remove(id);
            self.order.retain(|it| it != id);
            return;
        };
        let Some(known) = self.known.get_mut(id) else { return };
        known.state = State::Done(Arc::clone(outcome));
        self.kept_bytes += outcome.size_bytes();
        self.kept.push_back(id.clone());
        self.forget_results();
    }

    fn forget_results(&mut self) {
        while self.kept.len() > self.limits.kept_results_max
            || self.kept_bytes > self.limits.kept_results_bytes_max
        {
            let Some(oldest) = self.kept.pop_front() else { return };
            if let Some(known) = self.known.get_mut(&oldest)
                && let State::Done(outcome) = &known.state
            {
                self.kept_bytes -= outcome.size_bytes();
                known.state = State::Forgotten;
            }
        }
    }

    fn forget_ids(&mut self) {
        while self.order.len() > self.limits.kept_ids_max {
            let Some(oldest) = self.order.pop_front() else { return };
            match self.known.get(&oldest) {
                Some(Known { state: State::Running(..), .. }) => self.order.push_back(oldest),
                Some(Known { state: State::Done(outcome), .. }) => {
                    self.kept_bytes -= outcome.size_bytes();
                    self.known.remove(&oldest);
                    self.kept.retain(|it| *it != oldest);
                }
                _ => {
                    self.known.remove(&oldest);
                }
            }
        }
    }
}

fn fingerprint(call: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    call.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Told;
    use slotmux_protocol::{CausedBy, Code, Network};

    fn id(number: usize) -> ExecutionId {
        ExecutionId::new(format!("e{number}")).unwrap()
    }

    fn outcome(text: &str) -> Arc<Outcome> {
        let told = Told { text: text.to_owned(), data: None };
        Arc::new(Outcome::of_file(Ok(told), 0, CausedBy::Client, Network::Off))
    }

    fn executions(kept: usize, ids: usize) -> Executions {
        let limits = Limits { kept_results_max: kept, kept_ids_max: ids, ..Limits::default() };
        Executions::new(limits)
    }

    #[test]
    fn a_retry_gets_the_first_result_and_another_call_is_refused() {
        let mut it = executions(4, 8);
        assert!(matches!(it.begin(&id(1), &"ls", &Stop::default()), Seen::New(_)));
        assert!(matches!(it.begin(&id(1), &"ls", &Stop::default()), Seen::Running(..)));
        it.end(&id(1), &Ok(outcome("x")));
        assert!(matches!(it.begin(&id(1), &"ls", &Stop::default()), Seen::Done(_)));
        assert!(matches!(it.begin(&id(1), &"rm", &Stop::default()), Seen::Reused));
    }

    #[test]
    fn a_result_that_fell_out_is_forgotten_but_not_run_again() {
        let mut it = executions(2, 8);
        for number in 0..3 {
            assert!(matches!(it.begin(&id(number), &"ls", &Stop::default()), Seen::New(_)));
            it.end(&id(number), &Ok(outcome("x")));
        }
        assert!(matches!(it.begin(&id(0), &"ls", &Stop::default()), Seen::Forgotten));
        assert!(matches!(it.begin(&id(1), &"ls", &Stop::default()), Seen::Done(_)));
    }

    #[test]
    fn a_refused_call_may_be_tried_again() {
        let mut it = executions(2, 8);
        assert!(matches!(it.begin(&id(0), &"ls", &Stop::default()), Seen::New(_)));
        it.end(&id(0), &Err(Problem::new(Code::SlotBroken, "x")));
        assert!(matches!(it.begin(&id(0), &"ls", &Stop::default()), Seen::New(_)));
    }

    #[test]
    fn ids_are_bounded_and_running_calls_are_never_forgotten() {
        let mut it = executions(2, 3);
        assert!(matches!(it.begin(&id(0), &"ls", &Stop::default()), Seen::New(_)));
        for number in 1..10 {
            assert!(matches!(it.begin(&id(number), &"ls", &Stop::default()), Seen::New(_)));
            it.end(&id(number), &Ok(outcome("x")));
        }
        assert!(it.known.len() <= 3 && it.kept.len() <= 2, "{it:?}");
        assert!(matches!(it.begin(&id(0), &"ls", &Stop::default()), Seen::Running(..)));
    }
}
