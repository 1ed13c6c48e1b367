//! Who is here, who has a slot, and who waits for one.
//!
//! Invariants: a job that has a seat is answered when it leaves it, however it leaves; a slot is
//! taken by one job at a time, and goes to the one that has waited longest of those that matter
//! most.

use super::{Kill, KillAsked, Known, Refusal, Refused, Slots, killed};
use crate::{JobId, JobOrder, Priority, job::core::Failure};
use slotmux_protocol::CausedBy;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{oneshot, watch};

/// Jobs that wait for a slot.
const WAITING_MAX: usize = 10_000;

#[derive(Debug)]
pub(crate) struct Book {
    pages: Mutex<Pages>,
    slots: watch::Sender<Slots>,
    /// Jobs of which something is left.
    count: watch::Sender<usize>,
    total: u16,
}

#[derive(Debug, Default)]
struct Pages {
    jobs: HashMap<JobId, Entry>,
    waiting: BTreeMap<(Priority, u64), oneshot::Sender<()>>,
    /// Adopted jobs may be more than there are slots.
    taken: usize,
    seated: usize,
    next: u64,
    is_closed: bool,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    known: Arc<watch::Sender<Known>>,
    kill: Arc<watch::Sender<bool>>,
}

/// A job's place. It is left when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    book: Arc<Book>,
    id: JobId,
    priority: Priority,
    number: u64,
    known: Arc<watch::Sender<Known>>,
    kill: Arc<watch::Sender<bool>>,
    turn: Turn,
    unanswered: Option<Refusal>,
}

#[derive(Debug)]
enum Turn {
    Waits(oneshot::Receiver<()>),
    Has,
    Gone,
}

impl Book {
    pub(super) fn new(total: u16) -> Arc<Self> {
        let slots = Slots { total, free: total, waiting: 0 };
        Arc::new(Self {
            pages: Mutex::default(),
            slots: watch::channel(slots).0,
            count: watch::channel(0).0,
            total,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(book: &Arc<Self>, order: &JobOrder) -> Result<Seat, Refused> {
        let mut pages = book.lock();
        if pages.is_closed {
            return Err(Refused::ShuttingDown);
        }
        // One that is answered may still be cleared away.
        if pages.jobs.get(&order.id).is_some_and(|it| it.known.borrow().done.is_none()) {
            return Err(Refused::Known(order.id.clone()));
        }
        if pages.waiting.len() >= WAITING_MAX {
            return Err(Refused::Full);
        }
        let number = pages.next;
        let turn = if pages.taken < usize::from(book.total) {
            pages.taken += 1;
            Turn::Has
        } else {
            let (call, called) = oneshot::channel();
            pages.waiting.insert((order.priority, number), call);
            Turn::Waits(called)
        };
        let seat = Self::seat(book, &mut pages, order.id.clone(), order.priority, turn);
        book.publish(&pages);
        Ok(seat)
    }

    /// One that has a slot already, whether there is one or not.
    pub(super) fn enter_adopted(book: &Arc<Self>, id: JobId) -> Seat {
        let mut pages = book.lock();
        pages.taken += 1;
        let seat = Self::seat(book, &mut pages, id, Priority::default(), Turn::Has);
        book.publish(&pages);
        seat
    }

    fn seat(
        book: &Arc<Self>,
        pages: &mut Pages,
        id: JobId,
        priority: Priority,
        turn: Turn,
    ) -> Seat {
        let number = pages.next;
        pages.next += 1;
        pages.seated += 1;
        let known = Arc::new(watch::channel(Known::default()).0);
        let kill = Arc::new(watch::channel(false).0);
        let entry = Entry { number, known: known.clone(), kill: kill.clone() };
        pages.jobs.insert(id.clone(), entry);
        let book = book.clone();
        Seat { book, id, priority, number, known, kill, turn, unanswered: None }
    }

    fn publish(&self, pages: &Pages) {
        let free = usize::from(self.total).saturating_sub(pages.taken);
        let slots = Slots {
            total: self.total,
            free: u16::try_from(free).unwrap_or(u16::MAX),
            waiting: pages.waiting.len(),
        };
        self.slots.send_if_modified(|old| std::mem::replace(old, slots) != slots);
        self.count.send_replace(pages.seated);
    }

    pub(super) fn kill(&self, id: &JobId) -> Kill {
        match self.lock().jobs.get(id) {
            Some(entry) if entry.known.borrow().done.is_none() => {
                entry.kill.send_replace(true);
                Kill::Asked
            }
            Some(_) | None => Kill::Unknown,
        }
    }

    pub(super) fn known(&self, id: &JobId) -> Option<watch::Receiver<Known>> {
        let pages = self.lock();
        let entry = pages.jobs.get(id)?;
        Some(entry.known.subscribe())
    }

    pub(super) fn slots(&self) -> watch::Receiver<Slots> {
        self.slots.subscribe()
    }

    pub(super) fn close(&self) {
        let mut pages = self.lock();
        pages.is_closed = true;
        for entry in pages.jobs.values() {
            entry.kill.send_replace(true);
        }
    }

    /// Waits until everybody has left.
    pub(super) async fn empty(&self) {
        // Its sender is here.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Gives a slot to who is next.
    fn pass_on(&self, pages: &mut Pages) {
        pages.taken = pages.taken.saturating_sub(1);
        while pages.taken < usize::from(self.total) {
            let Some((_, call)) = pages.waiting.pop_first() else { return };
            // One that has gone meanwhile does not take it.
            if call.send(()).is_ok() {
                pages.taken += 1;
            }
        }
    }
}

impl Seat {
    pub(super) fn known(&self) -> Arc<watch::Sender<Known>> {
        self.known.clone()
    }

    pub(super) fn kill(&self) -> KillAsked {
        self.kill.subscribe()
    }

    /// How it is answered if it leaves without an answer.
    pub(super) fn answered_by(&mut self, refusal: Refusal) {
        self.unanswered = Some(refusal);
    }

    /// Waits for a slot. `false`: it was killed before.
    pub(super) async fn slot(&mut self, kill: &mut KillAsked) -> bool {
        let Turn::Waits(called) = &mut self.turn else { return true };
        let got = tokio::select! {
            biased;
            // Without an answer nobody gives slots any more.
            called = called => called.is_ok(),
            () = killed(kill) => false,
        };
        if got {
            self.turn = Turn::Has;
        } else {
            self.leave_queue();
        }
        got
    }

    pub(super) fn begin(&self) {
        self.known.send_modify(|known| known.started = true);
    }

    fn leave_queue(&mut self) {
        let mut pages = self.book.lock();
        let was_called = match std::mem::replace(&mut self.turn, Turn::Gone) {
            Turn::Waits(mut called) => called.try_recv().is_ok(),
            Turn::Has | Turn::Gone => false,
        };
        pages.waiting.remove(&(self.priority, self.number));
        if was_called {
            self.book.pass_on(&mut pages);
        }
        self.book.publish(&pages);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(refusal) = self.unanswered.take()
            && self.known.borrow().done.is_none()
        {
            let text = "The agent failed while it ran this job.".to_owned();
            refusal.failed(&self.known, Failure { text, caused_by: CausedBy::Infra });
        }
        if matches!(self.turn, Turn::Waits(_)) {
            self.leave_queue();
        }
        let mut pages = self.book.lock();
        pages.seated -= 1;
        if pages.jobs.get(&self.id).is_some_and(|it| it.number == self.number) {
            pages.jobs.remove(&self.id);
        }
        if matches!(self.turn, Turn::Has) {
            self.book.pass_on(&mut pages);
        }
        self.book.publish(&pages);
    }
}
