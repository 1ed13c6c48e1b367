//! A reset: nothing of what was is left.

use crate::{
    host::{self, mark, marked, until, until_within},
    rung::{Rung, scenarios},
    server::{LIMIT, Server, Setup},
};
use std::{fs, path::Path};

scenarios! {
    everywhere: [
        a_reset_leaves_no_file_and_no_process,
        a_reset_ends_the_running_call_and_those_that_wait,
        resets_at_the_same_time_all_succeed,
        calls_between_resets_never_see_one_anothers_files,
        many_resets_leave_nothing_in_the_server,
    ]
    behind_walls: [
        shared_memory_does_not_outlive_a_reset,
    ]
}

async fn a_reset_leaves_no_file_and_no_process(rung: &'static Rung) {
    let server = Server::start(rung);
    let mark = mark();
    let command = format!(
        "mkdir -p a/b/c .hidden 'odd name' && touch a/b/c/f .hidden/.f 'odd name/f' .dot \\
           && ln -s / root && mkfifo fifo && echo x > \"$TMPDIR/temporary\" && mkdir \"$TMPDIR/dir\" \\
           && chmod 000 a/b a \"$TMPDIR/dir\"
         for dir in /dev/shm /tmp /var/tmp /run; do (echo x > $dir/slot-{mark}) 2> /dev/null; done
         sleep 3000.{mark} & (setsid sleep 3000.{mark} &); echo done"
    );
    assert_eq!(server.output(0, &command).await, "done");
    let kept = server.write(1, "kept", "x").await;
    assert!(kept.success, "{kept:?}");
    let reset = server.reset(0).await;
    assert!(reset.success, "{reset:?}");
    assert_eq!(marked(&mark), [0; 0]);
    let look = format!("ls -A . \"$TMPDIR\"; ls -A /tmp /dev/shm 2>/dev/null | grep {mark}; true");
    let left = server.output(0, &look).await;
    // Without walls nothing keeps a command from the machine's own directories.
    assert!(rung.is_none() || !left.contains(&mark), "{left}");
    assert_eq!(server.output(0, "find . \"$TMPDIR\" -mindepth 1").await, "");
    assert_eq!(server.output(1, "ls").await, "kept");
    for dir in ["/dev/shm", "/tmp", "/var/tmp", "/run"] {
        let file = Path::new(dir).join(format!("slot-{mark}"));
        let left = if rung.is_none() { fs::remove_file(&file).is_err() } else { !file.exists() };
        assert!(left || rung.is_none(), "{} is left", file.display());
    }
    let trash = server.data_dir().join("trash");
    until("the trash is empty", || fs::read_dir(&trash).unwrap().count() == 0).await;
}

async fn a_reset_ends_the_running_call_and_those_that_wait(rung: &'static Rung) {
    let server = Server::start(rung);
    let mark = mark();
    let running = format!("touch mine; sleep 3000.{mark}");
    let (running, waiting, reset) = tokio::join!(
        server.bash(0, &running),
        async {
            until("it runs", || !marked(&mark).is_empty()).await;
            server.bash(0, "touch late; echo ran").await
        },
        async {
            until("it runs", || !marked(&mark).is_empty()).await;
            until_within(LIMIT, "two calls are there", async || {
                server.get("/slots").await["slots"][0]["state"] == "executing"
            })
            .await;
            server.reset(0).await
        }
    );
    assert!(reset.success, "{reset:?}");
    let ended = [&running.metadata.get("ended"), &running.metadata.get("caused_by")]
        .map(|it| it.and_then(|it| it.as_str()).unwrap_or_default());
    assert_eq!(ended, ["cancelled", "client"], "{running:?}");
    // It came before the reset and was ended by it, or was refused, or came after it.
    assert!(waiting.output.is_empty() || waiting.output == "ran", "{waiting:?}");
    assert_eq!(marked(&mark), [0; 0]);
    let left = server.output(0, "ls -A").await;
    assert!(left.is_empty() || waiting.success, "{left}");
    assert!(!left.contains("mine"));
}

async fn resets_at_the_same_time_all_succeed(rung: &'static Rung) {
    let server = Server::start(rung);
    server.output(0, "touch f").await;
    let resets = futures_util::future::join_all((0..5).map(|_| server.reset(0))).await;
    assert!(resets.iter().all(|it| it.success), "{resets:?}");
    assert_eq!(server.output(0, "ls -A").await, "");
}

async fn calls_between_resets_never_see_one_anothers_files(rung: &'static Rung) {
    let server = Server::start(rung);
    for round in 0..5 {
        let seen =
            server.output(0, &format!("ls -A; touch round-{round}; touch $TMPDIR/{round}")).await;
        assert_eq!(seen, "");
        let (reset, call) = tokio::join!(server.reset(0), server.bash(0, "ls -A; touch racing"));
        assert!(reset.success, "{reset:?}");
        assert!(
            ["", &format!("round-{round}")].contains(&&*call.output) || !call.success,
            "{call:?}"
        );
        assert!(server.reset(0).await.success);
    }
}

async fn many_resets_leave_nothing_in_the_server(rung: &'static Rung) {
    let server = Server::start(rung);
    // Only root may look; others see none before and none after.
    let fds = format!("/proc/{}/fd", server.pid().as_raw_nonzero());
    let open = || fs::read_dir(&fds).into_iter().flatten().count();
    let mut before = None;
    for _ in 0..15 {
        assert!(server.bash(0, "sleep 1000 & touch f").await.success);
        assert!(server.reset(0).await.success);
        // The first round opens what is opened once.
        before.get_or_insert_with(open);
    }
    until("no descriptor was leaked", || open() <= before.unwrap() + 2).await;
    until("no process was leaked", || {
        // The server, its zygote, and one init for each slot.
        let mut pids: Vec<_> = server.processes().into_iter().map(|it| it.pid).collect();
        pids.sort_unstable();
        pids.dedup();
        pids.len() <= 4
    })
    .await;
    let trash = server.data_dir().join("trash");
    until("the trash is empty", || fs::read_dir(&trash).unwrap().count() == 0).await;
    assert!(host::status_kib(server.pid().as_raw_nonzero().get(), "VmRSS") < 30 << 10);
}

async fn shared_memory_does_not_outlive_a_reset(rung: &'static Rung) {
    let server = Server::with(rung, Setup { probe: true, ..Setup::default() });
    let key = mark();
    let made = server.probe(0, "lasting", &key).await;
    assert!(made.success, "{made:?}");
    assert!(server.reset(0).await.success);
    let found = server.probe(0, "lasting_left", &key).await;
    assert!(found.success, "{found:?}");
    // Nor did any other slot, or the machine, ever see it.
    let elsewhere = server.probe(1, "lasting_left", &key).await;
    assert!(elsewhere.success, "{elsewhere:?}");
}
