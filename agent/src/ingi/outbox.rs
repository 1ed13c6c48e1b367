//! Answers that no backend has taken yet.
//!
//! Invariant: an answer stays until a backend gave its receipt, on whichever connection; only room
//! that has run out ends it earlier, oldest first, and that is said.

use crate::JobId;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque, hash_map::Entry};

/// What is kept for a backend that does not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) answers_max: usize,
    pub(super) bytes_max: usize,
}

/// Rises with each answer that is sent.
pub(super) type Receipt = u64;

#[derive(Debug)]
pub(super) struct Outbox {
    room: Room,
    /// First those that were sent, then the others.
    answers: VecDeque<Answer>,
    /// How many answers each has: an id can come again once its answer is on its way.
    jobs: HashMap<JobId, usize>,
    bytes: usize,
    /// How many at the front were sent on this connection.
    sent: usize,
    last: Receipt,
}

#[derive(Debug)]
struct Answer {
    job: JobId,
    message: Bytes,
    /// Meaningful for those that were sent.
    receipt: Receipt,
}

impl Outbox {
    pub(super) fn new(room: Room) -> Self {
        let (answers, jobs) = (VecDeque::new(), HashMap::new());
        Self { room, answers, jobs, bytes: 0, sent: 0, last: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    pub(super) fn holds(&self, job: &JobId) -> bool {
        self.jobs.contains_key(job)
    }

    /// Whether an answer is there that was not even sent on this connection.
    pub(super) fn withholds(&self, job: &JobId) -> bool {
        self.holds(job) && self.answers.iter().skip(self.sent).any(|it| it.job == *job)
    }

    /// Returns the jobs whose answers had to make room. An answer alone always fits.
    pub(super) fn put(&mut self, job: JobId, message: Bytes) -> Vec<JobId> {
        self.bytes += message.len();
        *self.jobs.entry(job.clone()).or_default() += 1;
        self.answers.push_back(Answer { job, message, receipt: 0 });
        let mut dropped = Vec::new();
        while self.answers.len() > 1 && self.is_over() {
            dropped.extend(self.pop());
        }
        dropped
    }

    /// The next one to send, and the receipt to ask for with it.
    pub(super) fn send_next(&mut self) -> Option<(Bytes, Receipt)> {
        let answer = self.answers.get_mut(self.sent)?;
        self.sent += 1;
        self.last += 1;
        answer.receipt = self.last;
        Some((answer.message.clone(), self.last))
    }

    /// Everything that was sent up to this receipt has arrived.
    pub(super) fn arrived(&mut self, receipt: Receipt) {
        while self.sent > 0 && self.answers.front().is_some_and(|it| it.receipt <= receipt) {
            self.pop();
        }
    }

    /// Everything that was sent has arrived.
    pub(super) fn all_arrived(&mut self) {
        self.arrived(self.last);
    }

    /// The connection is gone, and with it whatever was on its way.
    pub(super) fn begin_again(&mut self) {
        self.sent = 0;
    }

    fn is_over(&self) -> bool {
        self.answers.len() > self.room.answers_max || self.bytes > self.room.bytes_max
    }

    fn pop(&mut self) -> Option<JobId> {
        let answer = self.answers.pop_front()?;
        self.sent = self.sent.saturating_sub(1);
        self.bytes -= answer.message.len();
        if let Entry::Occupied(mut count) = self.jobs.entry(answer.job.clone()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(answer.job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { answers_max: 3, bytes_max: 10 };

    fn id(number: usize) -> JobId {
        JobId::try_from(format!("j-{number}")).unwrap()
    }

    fn put(outbox: &mut Outbox, number: usize, bytes: usize) -> Vec<JobId> {
        outbox.put(id(number), Bytes::from(vec![0; bytes]))
    }

    #[test]
    fn an_answer_is_sent_again_until_its_receipt_has_come() {
        let mut outbox = Outbox::new(ROOM);
        put(&mut outbox, 1, 1);
        put(&mut outbox, 2, 2);
        let (_, first) = outbox.send_next().unwrap();
        let (_, second) = outbox.send_next().unwrap();
        assert!(second > first && outbox.send_next().is_none());
        outbox.arrived(first);
        assert!(!outbox.holds(&id(1)) && outbox.holds(&id(2)));
        outbox.begin_again();
        let (message, third) = outbox.send_next().unwrap();
        assert_eq!(message.len(), 2);
        // A receipt of the connection before is no receipt of this one.
        outbox.arrived(second);
        assert!(outbox.holds(&id(2)));
        outbox.arrived(third);
        assert!(outbox.is_empty());
    }

    #[test]
    fn an_id_can_come_again_once_its_answer_is_on_its_way() {
        let mut outbox = Outbox::new(ROOM);
        put(&mut outbox, 1, 1);
        assert!(outbox.withholds(&id(1)) && !outbox.withholds(&id(2)));
        let (_, first) = outbox.send_next().unwrap();
        assert!(!outbox.withholds(&id(1)) && outbox.holds(&id(1)));
        put(&mut outbox, 1, 2);
        assert!(outbox.withholds(&id(1)));
        outbox.arrived(first);
        assert!(outbox.holds(&id(1)) && outbox.withholds(&id(1)));
    }

    #[test]
    fn the_oldest_makes_room_at_the_limit_and_not_before() {
        let mut outbox = Outbox::new(ROOM);
        for number in 1..=3 {
            assert_eq!(put(&mut outbox, number, 3), []);
        }
        assert_eq!(put(&mut outbox, 4, 1), [id(1)]);
        assert_eq!(put(&mut outbox, 5, 4), [id(2)]);
        assert_eq!(put(&mut outbox, 6, 100), [id(3), id(4), id(5)]);
        assert!(outbox.holds(&id(6)) && !outbox.holds(&id(5)));
    }

    #[test]
    fn what_made_room_while_it_was_on_its_way_is_not_counted_as_sent() {
        let mut outbox = Outbox::new(ROOM);
        put(&mut outbox, 1, 1);
        outbox.send_next();
        for number in 2..=4 {
            put(&mut outbox, number, 1);
        }
        assert!(!outbox.holds(&id(1)));
        let (_, receipt) = outbox.send_next().unwrap();
        outbox.arrived(receipt);
        assert!(!outbox.holds(&id(2)) && outbox.holds(&id(3)));
        outbox.all_arrived();
        assert!(outbox.holds(&id(3)), "it was not sent");
    }
}
