//! On what there is only so much of. Bombs go off in the background and are held while the
//! neighbour is looked at; a reset then takes them away.

use super::{Action, Place, Target, target::ensure};
use crate::{host::until_within, http::bash, server::LIMIT};
use std::time::Duration;
use tokio::time::timeout;

const SHARED_TERMINALS: &str =
    "Terminals are those of the machine on the `uid` and `landlock` rungs";
const UNCOUNTED: &str = "The watch counts resident memory only: without a cgroup";

/// Starts a probe in the background, and ends when it holds all that it got.
macro_rules! bomb {
    ($name:literal, $probe:literal) => {
        Action::bash(
            $name,
            concat!(
                "{probe ",
                $probe,
                "} > log 2>&1 & for i in $(seq 1500); do [ -e full ] && break; sleep 0.01; done; \
                 [ -e full ] && echo TRIED; cat log"
            ),
        )
    };
}

pub(super) const ACTIONS: &[Action] = &[
    bomb!("descriptors, as many as it may", "bomb files").neighbour("echo $(cat kept)", "kept"),
    bomb!("pipes, as large as it may", "bomb pipes").neighbour("echo $(cat kept | cat)", "kept"),
    bomb!("threads, as many as it may", "bomb threads").except(
        Place::Rungs(&["landlock"]),
        "counts that for the user as a whole, so slots of one server can take processes",
    ).but_for_root("processes of a slot that is root in parts are counted twenty times a second"),
    bomb!("timers, as many as it may", "bomb timers"),
    bomb!("events and counters, as many as it may", "bomb events"),
    bomb!("watches of files, as many as it may", "bomb watches"),
    bomb!("signals that nobody takes", "bomb signals"),
    bomb!("locks on files, as many as it may", "bomb locks"),
    bomb!("mappings of memory, as many as it may", "bomb mappings"),
    bomb!("terminals, as many as it may", "bomb terminals").neighbour(
        "{probe one_terminal} > /dev/null 2>&1 && echo a terminal",
        "a terminal",
    )
    .except(Place::Rungs(&["uid", "landlock"]), SHARED_TERMINALS),
    Action::bash("memory in files without names", "{probe memfd}")
        .ends(&["oom"])
        .except(Place::Supervised, UNCOUNTED),
    Action::bash("memory in large steps", "{probe memory}").ends(&["oom"]),
    Action::bash(
        "the disk, in many files",
        "for i in $(seq 400); do head -c 1M /dev/zero > f$i || break; done; echo TRIED",
    )
    .ends(&["disk"]),
    Action::bash(
        "every processor",
        "for i in $(seq 40); do (while :; do :; done) & done; sleep 3000.{mark}",
    )
    .within(1.0)
    .ends(&["timeout"]),
    Action::bash(
        "arguments and variables as large as the kernel takes",
        "big=$(printf 'x%.0s' $(seq 100000)); for i in $(seq 40); do export V$i=$big; done 2>/dev/null
         /bin/true $big $big 2>/dev/null; /bin/true $(seq 1000000) 2>/dev/null; echo TRIED",
    ),
    Action::bash(
        "output from everywhere after the answer",
        "for i in $(seq 20); do (yes {mark} & yes {mark} >&2 &) ; done; echo begun",
    )
    .neighbour("echo $(cat kept)", "kept"),
    Action::requests("the server's log", |it| Box::pin(fill_the_log(it))),
    Action::requests("ten thousand calls that wait", |it| Box::pin(queue(it))),
];

/// What clients and slots say is not written down by the line.
async fn fill_the_log(target: &Target) -> Result<(), String> {
    let name = format!("slot_\u{1b}[2J{}", "x".repeat(5_000));
    let before = target.log_bytes();
    for _ in 0..200 {
        target.call(serde_json::json!({ "slot_id": name, "tool": name, "args": {} })).await?;
        target.post("/execute", b"{".to_vec()).await?;
    }
    let grown = target.log_bytes().saturating_sub(before);
    ensure(grown < 64 << 10, || format!("the log grew by {grown} bytes"))
}

async fn queue(target: &Target) -> Result<(), String> {
    const BATCH: usize = 1_000;
    let blocked = target.bash(0, "sleep 3000");
    let batches = (0..10).map(|_| async {
        let calls: Vec<_> = (0..BATCH).map(|_| bash(0, "true")).collect();
        let (status, body) =
            target.post("/batch", serde_json::Value::from(calls).to_string().into_bytes()).await?;
        let answered = body.as_array().map_or(0, Vec::len);
        ensure(answered == BATCH, || format!("{status}: {answered} answers"))
    });
    let ended = async {
        // Neighbours do not wait, and neither does the reset.
        for _ in 0..10 {
            target.output(1, "true").await?;
        }
        until_within(LIMIT, "the queue is full", async || {
            let slots = target.slots().await.unwrap_or_default();
            slots["slots"][0]["queued"].as_u64() > Some(1_000)
        })
        .await;
        target.reset(0).await
    };
    let all = futures_util::future::join3(blocked, futures_util::future::join_all(batches), ended);
    let Ok((blocked, batches, ended)) = timeout(Duration::from_mins(1), all).await else {
        return Err("not all of them are answered".to_owned());
    };
    let blocked = blocked?;
    ensure(!blocked.success, || format!("{blocked:?}"))?;
    ended?;
    batches.into_iter().collect()
}
