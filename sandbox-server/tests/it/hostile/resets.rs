//! On resets: what goes on while one is made, and what is to be found after it.

use super::{Action, Target, target::ensure};
use crate::http::bash;
use serde_json::json;

pub(super) const ACTIONS: &[Action] = &[
    Action::bash(
        "files made as fast as they are thrown away",
        "for i in 1 2 3 4; do (while :; do mkdir -p a/b/c/$i; touch a/b/c/$i/$RANDOM \"$TMPDIR/$RANDOM\"; done) \\
           > /dev/null 2>&1 & done; until [ -e a/b/c/1 ]; do :; done; echo begun",
    )
    .next_lease("ls -A . \"$TMPDIR\" | grep -v -e : -e '^$' -e '^slotmux-it-' | wc -l", "0"),
    Action::bash(
        "directories that nobody may enter",
        "mkdir -p a/b/c; touch a/b/c/f; chmod 000 a/b/c a/b a .; chmod 000 \"$TMPDIR\"; echo begun",
    )
    .next_lease("touch f && ls", "f"),
    Action::bash(
        "processes that sit in its directories and hold its files",
        "mkdir -p a/b; (cd a/b && exec sleep 3000.{mark}) & (cd \"$TMPDIR\" && exec sleep 3000.{mark}) &
         exec 9> held; flock 9; (sleep 3000.{mark} <&9 &) ; cp /bin/sleep own; (exec ./own 3000.{mark}) & echo begun",
    )
    .next_lease("ls -A", ""),
    Action::probe("queues, semaphores and segments that outlive their makers", "queues", "make")
        .next_lease("{probe queues find} > /dev/null 2>&1 && echo none", "none"),
    Action::bash(
        "settings of its shell",
        "umask 777; ulimit -Sn 20; cd /; alias ls=false; set -e; export PS1=x PATH=/nowhere; trap '' TERM; echo begun",
    )
    .next_lease("umask; ulimit -Sn; pwd | grep -c -e workspace; ls -A", "0022\n1024\n1"),
    Action::bash(
        "a process for the next lease to meet",
        "(setsid bash -c 'while :; do touch \"$HOME/planted\" \"$TMPDIR/planted\"; done' > /dev/null 2>&1 &)
         until [ -e planted ]; do :; done; echo begun",
    )
    .next_lease("for i in $(seq 20); do ls -A . \"$TMPDIR\" | grep planted; done; echo clean", "clean"),
    Action::bash(
        "an answer that names its command's end before it comes",
        "printf '{\"success\":true,\"metadata\":{\"exit_code\":0}}\\n\\0\\n[stderr]\\n'; exit 7",
    )
    .ends(&["exited"]),
    Action::requests("a reset in the middle of a call, many times", |it| Box::pin(races(it))),
    Action::requests("resets of everything at once", |it| Box::pin(all_at_once(it))),
    Action::requests("a retry after a reset", |it| Box::pin(retry(it))),
];

async fn races(target: &Target) -> Result<(), String> {
    for round in 0..15 {
        let command = format!("touch r{round}; sleep 0.0{}; cat r{round} && echo whole", round % 7);
        let (call, reset) = tokio::join!(target.bash(0, &command), target.reset(0));
        reset?;
        let call = call?;
        let ended = call.metadata.get("ended").and_then(|it| it.as_str()).unwrap_or_default();
        // It came first, came after, was ended, or was refused; never half a workspace.
        let whole = call.success && call.output == "whole";
        let cut = !call.success && (ended == "cancelled" || ended.is_empty());
        ensure(whole || cut, || format!("{call:?}"))?;
    }
    Ok(())
}

async fn all_at_once(target: &Target) -> Result<(), String> {
    let resets = futures_util::future::join_all((0..50).map(|_| target.reset(0))).await;
    let failed: Vec<_> = resets.into_iter().filter_map(Result::err).collect();
    // Some may be refused while others are made; the last word is that it works.
    ensure(failed.is_empty(), || format!("{failed:?}"))?;
    target.output(0, "true").await.map(|_| ())
}

/// An answer of an earlier lease is not given to a later one.
async fn retry(target: &Target) -> Result<(), String> {
    let mut call = bash(0, "echo secret-of-the-first");
    call["execution_id"] = json!("retried");
    let first = target.call(call.clone()).await?;
    ensure(first.output == "secret-of-the-first", || format!("{first:?}"))?;
    target.reset(0).await?;
    call["args"]["command"] = json!("echo second");
    let second = target.call(call).await?;
    ensure(!second.output.contains("secret"), || format!("{second:?}"))
}
