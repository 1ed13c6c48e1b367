//! One stream of the engine's events for all jobs.
//!
//! Invariant: whatever became of an event, the end of a container that was enrolled is noticed:
//! after each gap in the stream, and every now and then, all are compared with the engine's list.

use crate::{
    job::core::{Event, Who},
    names,
};
use slotmux_docker::{Engine, News, NewsFeed, Selector};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::mpsc::UnboundedSender, time::timeout};

/// A connection that died without a word is found out by this.
const LOOK_EVERY: Duration = Duration::from_mins(1);
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(200);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(5);

/// What a container has said is heard by this.
const HEARD_AFTER: Duration = Duration::from_millis(400);

/// Who ends a container that is out of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    WeEnd,
    /// Or what is in there goes on without what was killed.
    KernelEnds,
}

#[derive(Debug, Default)]
pub(crate) struct Hub {
    enrolled: Mutex<HashMap<String, Enrolled>>,
    next: AtomicU64,
}

/// Each of its events is told once, so what waits unread is bounded.
#[derive(Debug)]
struct Enrolled {
    number: u64,
    who: Who,
    memory: Memory,
    out_of_memory_told: bool,
    died_told: bool,
    job: UnboundedSender<Event>,
}

/// Ends it when it is dropped.
#[derive(Debug)]
pub(crate) struct Enrolment {
    id: String,
    number: u64,
    hub: Arc<Hub>,
}

impl Hub {
    /// Before it is started; or again, for somebody else. `memory`: whether it has to be ended when it is out of memory.
    pub(crate) fn enrol(
        self: &Arc<Self>,
        id: String,
        who: Who,
        memory: Memory,
        job: UnboundedSender<Event>,
    ) -> Enrolment {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let enrolled =
            Enrolled { number, who, memory, out_of_memory_told: false, died_told: false, job };
        self.lock().insert(id.clone(), enrolled);
        Enrolment { id, number, hub: self.clone() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Enrolled>> {
        self.enrolled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: &slotmux_docker::Event) {
        let mut enrolled = self.lock();
        let Some(it) = enrolled.get_mut(&event.id) else { return };
        let told = match event.action.as_str() {
            "oom" => std::mem::replace(&mut it.out_of_memory_told, true),
            _ => std::mem::replace(&mut it.died_told, true),
        };
        if told {
            return;
        }
        let code = event.attributes.get("exitCode").and_then(|it| it.parse().ok());
        let event = match (event.action.as_str(), code) {
            ("oom", _) if it.memory == Memory::KernelEnds => Event::MemorySeen(it.who),
            ("oom", _) => Event::MemoryUp(it.who),
            (_, Some(code)) => Event::Died(it.who, code),
            (_, None) => Event::MayHaveEnded(it.who),
        };
        let job = it.job.clone();
        if matches!(event, Event::MemoryUp(_)) {
            // It stands still. What it said before is on its way, and came first.
            tokio::spawn(async move {
                tokio::time::sleep(HEARD_AFTER).await;
                let _ = job.send(event);
            });
            return;
        }
        // A job that is over listens no more.
        let _ = job.send(event);
    }

    /// Whether the engine said what there is.
    async fn look(&self, engine: &Engine) -> bool {
        // Before the list: what was started since is not on it.
        let before: Vec<String> = self.lock().keys().cloned().collect();
        if before.is_empty() {
            return true;
        }
        let listed = match engine.list(names::OWNER).await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::debug!(%error, "containers not listed");
                return false;
            }
        };
        let running: HashSet<String> =
            listed.into_iter().filter(|it| it.is_running).map(|it| it.id).collect();
        let enrolled = self.lock();
        for it in before.iter().filter(|id| !running.contains(*id)) {
            if let Some(it) = enrolled.get(it) {
                let _ = it.job.send(Event::MayHaveEnded(it.who));
            }
        }
        true
    }
}

impl Drop for Enrolment {
    fn drop(&mut self) {
        let mut enrolled = self.hub.lock();
        if enrolled.get(&self.id).is_some_and(|it| it.number == self.number) {
            enrolled.remove(&self.id);
        }
    }
}

pub(crate) fn selector(owner: &str) -> Selector {
    Selector { label: names::OWNER.to_owned(), value: owner.to_owned(), actions: &["die", "oom"] }
}

/// To the end of the hub.
pub(crate) async fn listen(hub: Weak<Hub>, engine: Engine, mut feed: NewsFeed) {
    let mut again = None;
    loop {
        let news = timeout(again.unwrap_or(LOOK_EVERY), feed.next()).await;
        let Some(hub) = hub.upgrade() else { return };
        match news {
            Ok(News::Event(event)) => hub.tell(&event),
            Ok(News::LookAgain) | Err(_) => {
                let later = again.map_or(LOOK_AGAIN_MIN, |it| (it * 2).min(LOOK_AGAIN_MAX));
                again = (!hub.look(&engine).await).then_some(later);
            }
        }
    }
}
