//! What the suite needs of a runtime beside the trait, and how it waits.

use crate::{Address, Backend, Exit, Fact, Facts, Labels, LaunchSpec};
use slotmux_protocol::{ContainerId, Isolation, Network, ProfileName, Root, SlotLimits};
use std::{collections::VecDeque, future::Future, time::Duration};
use tokio::time::timeout;

/// How long any single thing may take before the suite gives up.
pub const LIMIT: Duration = Duration::from_mins(1);

const HOUR: Duration = Duration::from_hours(1);

/// A runtime under test. One harness, one fresh runtime.
pub trait Harness {
    type Backend: Backend;

    /// A new backend object for the same runtime.
    fn backend(&self) -> impl Future<Output = Self::Backend>;

    /// Kills a container behind the backend's back.
    fn kill(&self, container: &ContainerId) -> impl Future<Output = ()>;

    /// Has the container print something, unless it did already, and says what.
    fn print(&self, container: &ContainerId) -> impl Future<Output = String>;

    /// Whatever the runtime still holds of any container: processes, files, names.
    fn leftovers(&self) -> impl Future<Output = Vec<String>>;

    /// The shortest lifetime that the runtime knows.
    fn lifetime_min(&self) -> Duration;
}

/// What the suite launches.
pub fn spec(name: &str) -> LaunchSpec {
    LaunchSpec {
        container: id(name),
        labels: Labels {
            pool: "conformance".to_owned(),
            generation: 7,
            profile: ProfileName::new("small").expect("a valid name"),
        },
        slots: 2,
        isolation_min: Isolation::None,
        root: Root::Minimal,
        network: Network::On,
        slot_limits: SlotLimits::default(),
        lifetime: HOUR,
        orphaned_after: HOUR,
    }
}

pub(super) fn id(name: &str) -> ContainerId {
    ContainerId::new(name).expect("a valid name")
}

/// Reads facts, each within [`LIMIT`], of one container at a time.
pub(super) struct Watch {
    facts: Facts,
    /// Of other containers than those asked for so far.
    unread: VecDeque<Fact>,
}

impl Watch {
    pub(super) fn of(backend: &impl Backend) -> Self {
        Self { facts: backend.facts(), unread: VecDeque::new() }
    }

    /// The next fact about `name`.
    pub(super) async fn next(&mut self, name: &ContainerId) -> Fact {
        let kept = self.unread.iter().position(|fact| about(fact) == name);
        if let Some(fact) = kept.and_then(|at| self.unread.remove(at)) {
            return fact;
        }
        loop {
            let fact = timeout(LIMIT, self.facts.recv())
                .await
                .unwrap_or_else(|_| panic!("nothing is told of `{name}`"))
                .expect("the stream lives as long as its backend");
            if about(&fact) == name {
                return fact;
            }
            self.unread.push_back(fact);
        }
    }

    pub(super) async fn ready(&mut self, name: &ContainerId) -> Address {
        match self.next(name).await {
            Fact::Ready { address, .. } => address,
            Fact::Gone { exit, .. } => panic!("`{name}` was to become ready: {}", exit.reason),
        }
    }

    /// Skips what was told of it before its end.
    pub(super) async fn gone(&mut self, name: &ContainerId) -> Exit {
        loop {
            if let Fact::Gone { exit, .. } = self.next(name).await {
                return exit;
            }
        }
    }

    /// What was told of `name` and not read so far.
    pub(super) fn told(&mut self, name: &ContainerId) -> Vec<Fact> {
        while let Ok(fact) = self.facts.try_recv() {
            self.unread.push_back(fact);
        }
        self.unread.iter().filter(|fact| about(fact) == name).cloned().collect()
    }

    /// Reads to the end of the stream.
    pub(super) async fn ends(mut self) {
        let end = async { while self.facts.recv().await.is_some() {} };
        timeout(LIMIT, end).await.expect("the stream ends");
    }
}

fn about(fact: &Fact) -> &ContainerId {
    match fact {
        Fact::Ready { container, .. } | Fact::Gone { container, .. } => container,
    }
}
