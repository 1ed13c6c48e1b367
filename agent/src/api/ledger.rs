//! Which jobs there are and have been. Time is an argument, and nothing here waits.
//!
//! Invariants: a name means one job for as long as anything is known of it; what a job came to is
//! kept until room is needed, first of those that were fetched, oldest first; a job that is not
//! done is never forgotten.

mod record;
#[cfg(test)]
mod tests;

pub(super) use record::{Digest, Record};

use crate::JobDone;
use slotmux_protocol::{JobName, job::JobStatus};
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

/// Names of jobs that are gone, so that none of them is run again: the latest ones.
const REMEMBERED_MAX: usize = 65_536;

/// What is kept of jobs that are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) results_max: usize,
    pub(super) bytes_max: usize,
}

#[derive(Debug)]
pub(super) struct Ledger {
    room: Room,
    /// In the order in which they came.
    jobs: BTreeMap<u64, Record>,
    names: HashMap<JobName, u64>,
    next: u64,
    /// In the order in which they were done; may name some that are gone.
    done: VecDeque<u64>,
    fetched: VecDeque<u64>,
    results: usize,
    results_bytes: usize,
    held_bytes: usize,
    /// In the order in which they went.
    gone: VecDeque<JobName>,
    gone_names: HashSet<JobName>,
    unfetched_dropped: u64,
}

/// What is known under a name.
#[derive(Debug)]
pub(super) enum Found<'a> {
    Job(&'a Record),
    /// It was there, and what it came to is no longer kept.
    Gone,
    Nothing,
}

impl Ledger {
    pub(super) fn new(room: Room) -> Self {
        Self {
            room,
            jobs: BTreeMap::new(),
            names: HashMap::new(),
            next: 0,
            done: VecDeque::new(),
            fetched: VecDeque::new(),
            results: 0,
            results_bytes: 0,
            held_bytes: 0,
            gone: VecDeque::new(),
            gone_names: HashSet::new(),
            unfetched_dropped: 0,
        }
    }

    pub(super) fn find(&self, name: &JobName) -> Found<'_> {
        match self.names.get(name).and_then(|number| self.jobs.get(number)) {
            Some(record) => Found::Job(record),
            None if self.gone_names.contains(name) => Found::Gone,
            None => Found::Nothing,
        }
    }

    pub(super) fn list(&self) -> impl Iterator<Item = JobStatus> {
        self.jobs.values().map(Record::status)
    }

    /// Of a name that was not found.
    pub(super) fn add(&mut self, record: Record) {
        self.held_bytes += record.held_bytes();
        self.names.insert(record.name().clone(), self.next);
        self.jobs.insert(self.next, record);
        self.next += 1;
    }

    pub(super) fn change(&mut self, name: &JobName, change: impl FnOnce(&mut Record)) {
        let number = self.names.get(name);
        if let Some(record) = number.and_then(|number| self.jobs.get_mut(number)) {
            change(record);
        }
    }

    /// Returns the jobs whose results nobody has fetched, and that had to make room.
    pub(super) fn finish(
        &mut self,
        name: &JobName,
        done: Arc<JobDone>,
        now_ms: u64,
    ) -> Vec<JobName> {
        let Some(&number) = self.names.get(name) else { return Vec::new() };
        let Some(record) = self.jobs.get_mut(&number) else { return Vec::new() };
        self.held_bytes -= record.held_bytes();
        let before = record.result_bytes();
        record.finish(done, now_ms);
        if before == 0 {
            self.results += 1;
            self.done.push_back(number);
        }
        self.results_bytes = self.results_bytes - before + record.result_bytes();
        self.make_room(number)
    }

    /// Notes that its result was given to somebody.
    pub(super) fn fetch(&mut self, name: &JobName) {
        let Some(&number) = self.names.get(name) else { return };
        if self.jobs.get_mut(&number).is_some_and(Record::fetch) {
            self.fetched.push_back(number);
        }
    }

    /// Only what is done can be forgotten.
    pub(super) fn forget(&mut self, name: &JobName) {
        if let Some(&number) = self.names.get(name)
            && self.jobs.get(&number).is_some_and(|record| record.done().is_some())
        {
            self.drop_result(number);
        }
    }

    /// What requests of jobs that are not done hold.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    pub(super) fn results(&self) -> (usize, usize) {
        (self.results, self.results_bytes)
    }

    pub(super) fn open(&self) -> usize {
        self.jobs.len() - self.results
    }

    pub(super) fn unfetched_dropped(&self) -> u64 {
        self.unfetched_dropped
    }

    /// The newest one stays, so that it can be fetched at all.
    fn make_room(&mut self, newest: u64) -> Vec<JobName> {
        let mut unfetched = Vec::new();
        while self.results > 1 && self.is_over() {
            let oldest = self.fetched.pop_front().or_else(|| self.done.pop_front());
            let Some(number) = oldest.filter(|number| *number != newest) else { break };
            // Of those that were done, some were fetched and are gone already.
            let Some(record) = self.jobs.get(&number) else { continue };
            if !record.is_fetched() {
                unfetched.push(record.name().clone());
            }
            self.drop_result(number);
        }
        self.unfetched_dropped += unfetched.len() as u64;
        unfetched
    }

    fn is_over(&self) -> bool {
        self.results > self.room.results_max || self.results_bytes > self.room.bytes_max
    }

    fn drop_result(&mut self, number: u64) {
        let Some(record) = self.jobs.remove(&number) else { return };
        self.results -= 1;
        self.results_bytes -= record.result_bytes();
        self.names.remove(record.name());
        self.gone_names.insert(record.name().clone());
        self.gone.push_back(record.name().clone());
        if self.gone.len() > REMEMBERED_MAX
            && let Some(name) = self.gone.pop_front()
        {
            self.gone_names.remove(&name);
        }
        self.tidy();
    }

    /// The queues hold numbers of jobs that are gone; never more than those that are there.
    fn tidy(&mut self) {
        let jobs = &self.jobs;
        for queue in [&mut self.done, &mut self.fetched] {
            if queue.len() > 64 + 2 * self.results {
                queue.retain(|number| jobs.contains_key(number));
            }
        }
    }
}
