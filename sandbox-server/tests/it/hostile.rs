//! What a slot, or a client, does to break out, to stay, or to take the server down.
//!
//! A table of named attempts. Each is made against a server that serves a neighbour meanwhile, on
//! every rung with walls, on the machine itself and in containers (`docker.rs`). An attempt proves
//! its own failure; after each, the neighbour, the server, and the next lease of the slot are
//! looked at as well. What a rung cannot hold names its line in `docs/isolation.md`.
//!
//! What other files test (`walls.rs`, `processes.rs`, `reset.rs`, `limits.rs`) is not repeated.

mod assault;
mod exhaustion;
mod files;
mod kernel;
mod processes;
mod requests;
mod resets;
mod smuggling;
mod sockets;
mod target;

use crate::{
    rung::{Rung, scenarios},
    server::{Server, Setup},
};
pub(crate) use assault::assail;
use std::pin::Pin;
pub(crate) use target::Target;

/// Of its own image, and of nothing else.
const ROOT: &str = "a slot gives files to any user of the image, becomes one of them";
/// What a slot of the servers here may use: little, so that bombs are small.
pub(crate) const LIMITS: [&str; 6] =
    ["--memory-bytes-max", "268435456", "--processes-max", "128", "--disk-bytes-max", "134217728"];

/// One attempt.
pub(crate) struct Action {
    /// What it tries; unique.
    pub(crate) name: &'static str,
    pub(crate) does: Does,
    pub(crate) proof: Proof,
    pub(crate) limit: Option<Limit>,
    /// What root of its own image may.
    pub(crate) owned: Option<Limit>,
}

pub(crate) enum Does {
    /// In slot 0. `{mark}`, `{data}`, `{port}` and `{probe NAME}` are filled in.
    Bash { command: &'static str, seconds: f64 },
    /// A function of this executable in slot 0; see `probe`. Its faults are the escape.
    Probe { name: &'static str, args: &'static str, seconds: f64 },
    /// Whatever a client may send.
    Requests(Requests),
}

pub(crate) type Answer<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + 'a>>;
pub(crate) type Requests = for<'a> fn(&'a Target) -> Answer<'a>;

pub(crate) enum Proof {
    /// It says TRIED when it has tried, and ESCAPED for each thing that it reached.
    Refused,
    /// The call ends in one of these ways.
    Ends(&'static [&'static str]),
    /// Slot 1 then prints this.
    Neighbour { command: &'static str, prints: &'static str },
    /// After a reset slot 0 prints this.
    NextLease { command: &'static str, prints: &'static str },
    /// What the requests themselves have found.
    Answers,
}

/// Where an attempt is known to succeed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) place: Place,
    /// Found in `docs/isolation.md`, word for word.
    pub(crate) said: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Rungs(&'static [&'static str]),
    /// The slot is root in its image.
    Image,
    /// Without a cgroup for memory.
    Supervised,
}

impl Action {
    const fn bash(name: &'static str, command: &'static str) -> Self {
        let does = Does::Bash { command, seconds: 20.0 };
        Self { name, does, proof: Proof::Refused, limit: None, owned: None }
    }

    const fn probe(name: &'static str, probe: &'static str, args: &'static str) -> Self {
        let does = Does::Probe { name: probe, args, seconds: 20.0 };
        Self { name, does, proof: Proof::Refused, limit: None, owned: None }
    }

    const fn requests(name: &'static str, requests: Requests) -> Self {
        Self {
            name,
            does: Does::Requests(requests),
            proof: Proof::Answers,
            limit: None,
            owned: None,
        }
    }

    const fn within(mut self, limit_s: f64) -> Self {
        match &mut self.does {
            Does::Bash { seconds, .. } | Does::Probe { seconds, .. } => *seconds = limit_s,
            Does::Requests(_) => {}
        }
        self
    }

    const fn ends(mut self, ways: &'static [&'static str]) -> Self {
        self.proof = Proof::Ends(ways);
        self
    }

    const fn neighbour(mut self, command: &'static str, prints: &'static str) -> Self {
        self.proof = Proof::Neighbour { command, prints };
        self
    }

    const fn next_lease(mut self, command: &'static str, prints: &'static str) -> Self {
        self.proof = Proof::NextLease { command, prints };
        self
    }

    const fn except(mut self, place: Place, said: &'static str) -> Self {
        self.limit = Some(Limit { place, said });
        self
    }

    const fn but_for_root(mut self, said: &'static str) -> Self {
        self.owned = Some(Limit { place: Place::Image, said });
        self
    }
}

/// Every attempt, by what it is made on.
pub(crate) const TABLE: &[(&str, &[Action])] = &[
    ("files", files::ACTIONS),
    ("processes", processes::ACTIONS),
    ("kernel", kernel::ACTIONS),
    ("sockets", sockets::ACTIONS),
    ("exhaustion", exhaustion::ACTIONS),
    ("resets", resets::ACTIONS),
    ("requests", requests::ACTIONS),
    ("smuggling", smuggling::ACTIONS),
];

scenarios! {
    behind_walls: [
        files_hold,
        processes_hold,
        the_kernel_holds,
        sockets_hold,
        exhaustion_is_contained,
        resets_hold,
        requests_are_answered,
        smuggling_is_refused,
    ]
}

async fn hold(rung: &'static Rung, group: &str) {
    let mut server = Server::with(rung, Setup { args: &LIMITS, probe: true, ..Setup::default() });
    let target = Target::of(&server).await;
    let faults = assail(&target, group).await;
    // Some stop nothing that was begun, so the server is told to stop by itself.
    server.stop();
    assert!(faults.is_empty(), "not contained on {}:\n{}", rung.name, faults.join("\n"));
}

async fn files_hold(rung: &'static Rung) {
    hold(rung, "files").await;
}

async fn processes_hold(rung: &'static Rung) {
    hold(rung, "processes").await;
}

async fn the_kernel_holds(rung: &'static Rung) {
    hold(rung, "kernel").await;
}

async fn sockets_hold(rung: &'static Rung) {
    hold(rung, "sockets").await;
}

async fn exhaustion_is_contained(rung: &'static Rung) {
    hold(rung, "exhaustion").await;
}

async fn resets_hold(rung: &'static Rung) {
    hold(rung, "resets").await;
}

async fn requests_are_answered(rung: &'static Rung) {
    hold(rung, "requests").await;
}

async fn smuggling_is_refused(rung: &'static Rung) {
    hold(rung, "smuggling").await;
}

#[test]
fn there_are_sixty_attempts_and_more_each_with_a_name_of_its_own() {
    let actions = || TABLE.iter().flat_map(|(_, actions)| actions.iter());
    let names: std::collections::BTreeSet<_> = actions().map(|it| it.name).collect();
    assert_eq!(names.len(), actions().count(), "two have one name");
    assert!(names.len() >= 60, "only {}", names.len());
    println!("{} hostile actions", names.len());
}

#[test]
fn every_limit_is_written_down() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/isolation.md");
    let page = std::fs::read_to_string(path).unwrap();
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    for action in TABLE.iter().flat_map(|(_, actions)| actions.iter()) {
        for limit in action.limit.iter().chain(&action.owned) {
            assert!(page.contains(limit.said), "{}: `{}` is not there", action.name, limit.said);
        }
    }
}
