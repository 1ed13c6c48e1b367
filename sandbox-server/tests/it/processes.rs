//! What commands start: when it ends, and when it does not.

use crate::{
    host::{self, Process, mark, marked, sleeper, until, until_gone, until_within},
    http::{bash, read_file, write_file},
    rung::{Rung, scenarios},
    server::{LIMIT, Server},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

scenarios! {
    everywhere: [
        a_timeout_kills_the_whole_tree,
        a_timeout_does_not_ask_twice,
        endless_output_ends_with_the_time,
        a_background_process_does_not_hold_the_answer_and_lives_on,
        a_background_process_may_go_on_printing,
        a_later_call_can_end_a_background_process,
        one_slots_calls_run_in_order_and_others_do_not_wait,
        calls_of_one_client_each_run_in_the_order_of_the_batch,
        a_client_that_hangs_up_does_not_get_its_command_run_twice,
        a_call_after_one_whose_client_hung_up_waits_for_its_turn,
        orphans_are_reaped,
    ]
    behind_walls: [
        a_slot_whose_init_was_killed_says_so_and_a_reset_mends_it,
        killing_all_that_can_be_killed_harms_only_the_slot,
    ]
}

async fn a_timeout_kills_the_whole_tree(rung: &'static Rung) {
    let server = Server::start(rung);
    let mark = mark();
    let command = format!(
        "sleep 3000.{mark} &
         setsid sleep 3000.{mark} &
         (setsid sh -c 'sleep 3000.{mark} & exec sleep 3000.{mark}' &)
         (trap '' TERM HUP INT; (exec sleep 3000.{mark}) & wait) &
         nohup sleep 3000.{mark} > /dev/null 2>&1 &
         sleep 3000.{mark}"
    );
    let result = server.bash_within(0, &command, 0.3).await;
    assert!(!result.success);
    assert_eq!(result.error, "Command timed out after 0.3s");
    assert_eq!(result.metadata["exit_code"], -1);
    assert_eq!(result.metadata["timeout"], true);
    assert_eq!(result.metadata["ended"], "timeout");
    assert_eq!(result.metadata["caused_by"], "policy");
    // They are gone when the answer comes, not some time later.
    assert_eq!(marked(&mark), [0; 0]);
    assert_eq!(server.output(0, "echo works").await, "works");
}

async fn a_timeout_does_not_ask_twice(rung: &'static Rung) {
    let server = Server::start(rung);
    for command in
        ["trap '' TERM INT HUP; while :; do :; done", "trap '' TERM; sleep 3000; sleep 3000"]
    {
        let result = server.bash_within(0, command, 0.1).await;
        assert_eq!(result.metadata["ended"], "timeout", "{result:?}");
    }
    let result = server.bash_within(0, "echo partial; sleep 3000", 2.0).await;
    assert_eq!(result.output, "partial");
}

async fn endless_output_ends_with_the_time(rung: &'static Rung) {
    let server = Server::start(rung);
    let result = server.bash_within(0, "yes", 0.3).await;
    assert_eq!(result.metadata["ended"], "timeout");
    assert_eq!(result.output.len(), 50_000 + "\n... (output truncated)".len());
}

async fn a_background_process_does_not_hold_the_answer_and_lives_on(rung: &'static Rung) {
    let server = Server::start(rung);
    let mark = mark();
    let output = server.output(0, &format!("sleep 3000.{mark} & echo $! > pid; echo done")).await;
    assert_eq!(output, "done");
    sleeper(&mark).await;
    assert_eq!(server.output(0, "[ -d /proc/$(cat pid) ] && echo there").await, "there");
    assert!(server.reset(0).await.success);
    assert_eq!(marked(&mark), [0; 0]);
}

async fn a_background_process_may_go_on_printing(rung: &'static Rung) {
    let server = Server::start(rung);
    // More than any pipe holds, and only after the call was answered.
    let command = "(while [ ! -e go ]; do sleep 0.01; done
        head -c 3000000 /dev/zero && head -c 3000000 /dev/zero >&2 && touch survived) & echo begun";
    assert_eq!(server.output(0, command).await, "begun");
    assert!(server.write(0, "go", "").await.success);
    until_within(LIMIT, "it has printed all", async || server.read(0, "survived").await.success)
        .await;
}

async fn a_later_call_can_end_a_background_process(rung: &'static Rung) {
    if rung.isolation == Some("landlock") {
        // Each command is in a Landlock domain of its own, where kernels scope signals by domain.
        return;
    }
    let server = Server::start(rung);
    let mark = mark();
    server.output(0, &format!("sleep 3000.{mark} & echo $! > pid")).await;
    until("it is there", || marked(&mark).len() == 1).await;
    server.output(0, "kill $(cat pid)").await;
    until_gone(&mark).await;
}

async fn one_slots_calls_run_in_order_and_others_do_not_wait(rung: &'static Rung) {
    let server = Server::start(rung);
    let mark = mark();
    let blocked = format!("while [ ! -e go ]; do sleep 0.01; done; echo first >> log; : {mark}");
    let (first, second, ()) = tokio::join!(
        server.bash(0, &blocked),
        async {
            until("the first runs", || !marked(&mark).is_empty()).await;
            server.bash(0, "echo second >> log; cat log").await
        },
        async {
            until("the first runs", || !marked(&mark).is_empty()).await;
            assert!(server.is_executing(0).await);
            // Slot 1 is served while slot 0 has one call running and one waiting.
            assert_eq!(server.output(1, "echo meanwhile").await, "meanwhile");
            assert!(!marked(&mark).is_empty(), "slot 0 was waited for");
            std::fs::write(server.workspace(0).join("go"), "").unwrap();
        }
    );
    assert!(first.success, "{first:?}");
    assert_eq!(second.output, "first\nsecond");
    assert!(!server.is_executing(0).await);
}

async fn calls_of_one_client_each_run_in_the_order_of_the_batch(rung: &'static Rung) {
    let server = Server::start(rung);
    let calls = (0..30).flat_map(|number: u16| {
        // The earlier ones take longer.
        let command = format!("sleep 0.00{}; echo {number} >> log", 9 - number % 10);
        [bash(0, &command), bash(1, &command)]
    });
    let calls = [write_file(0, "log", ""), write_file(1, "log", "")]
        .into_iter()
        .chain(calls)
        .chain([read_file(0, "log"), read_file(1, "log")])
        .collect::<Vec<_>>();
    let results = server.batch(calls).await;
    let expected = (0..30).map(|it| it.to_string() + "\n").collect::<String>();
    assert_eq!(results.len(), 64);
    for result in &results[62..] {
        assert_eq!(result.output, expected);
    }
}

async fn a_client_that_hangs_up_does_not_get_its_command_run_twice(rung: &'static Rung) {
    let server = Server::start(rung);
    let mut call = bash(0, "echo ran >> count; while [ ! -e go ]; do sleep 0.01; done; cat count");
    call["execution_id"] = json!("once");
    let count = server.workspace(0).join("count");
    tokio::select! {
        _ = server.call(call.clone()) => panic!("it cannot have ended"),
        () = until("it runs", || count.exists()) => {}
    }
    std::fs::write(server.workspace(0).join("go"), "").unwrap();
    let again = server.call(call).await;
    assert_eq!(again.output, "ran", "{again:?}");
    assert_eq!(again.execution_id.as_deref(), Some("once"));
    assert_eq!(server.output(0, "cat count").await, "ran");
}

async fn a_call_after_one_whose_client_hung_up_waits_for_its_turn(rung: &'static Rung) {
    let server = Server::start(rung);
    let begun = server.workspace(0).join("begun");
    let slow = "touch begun; while [ ! -e go ]; do sleep 0.01; done; echo slow >> log";
    tokio::select! {
        _ = server.bash(0, slow) => panic!("it cannot have ended"),
        () = until("it runs", || begun.exists()) => {}
    }
    let (next, ()) = tokio::join!(server.bash(0, "echo next >> log; cat log"), async {
        until_within(LIMIT, "the next one waits", async || server.is_executing(0).await).await;
        std::fs::write(server.workspace(0).join("go"), "").unwrap();
    });
    assert_eq!(next.output, "slow\nnext", "two commands ran in one slot at once");
}

async fn orphans_are_reaped(rung: &'static Rung) {
    let server = Server::start(rung);
    server.output(0, "for i in $(seq 50); do (setsid true &) ; done").await;
    until_within(LIMIT, "no zombie is left", async || {
        let zombies = server.processes().into_iter().filter(Process::is_zombie);
        zombies.count() == 0
    })
    .await;
}

async fn a_slot_whose_init_was_killed_says_so_and_a_reset_mends_it(rung: &'static Rung) {
    let server = Server::start(rung);
    let mark = mark();
    server.output(0, &format!("echo mine > file; (setsid sleep 3000.{mark} &)")).await;
    let orphan = sleeper(&mark).await;
    until("the orphan has come to the init", || {
        host::parent(orphan)
            .is_some_and(|it| host::parent(it) == Some(server.pid().as_raw_nonzero().get()))
    })
    .await;
    let init = host::parent(orphan).unwrap();
    kill_process(Pid::from_raw(init).unwrap(), Signal::KILL).unwrap();
    until_within(LIMIT, "calls are refused", async || !server.bash(0, "true").await.success).await;
    let refused = server.bash(0, "true").await;
    assert!(refused.error.contains("init"), "{refused:?}");
    let reset = server.reset(0).await;
    if rung.isolation == Some("landlock") {
        // Nobody can say what the init has left, so the slot is never called clean again.
        assert!(!reset.success && !server.bash(0, "true").await.success, "{reset:?}");
        kill_process(Pid::from_raw(orphan).unwrap(), Signal::KILL).unwrap();
        until_gone(&mark).await;
        return;
    }
    assert!(reset.success, "{reset:?}");
    assert_eq!(marked(&mark), [0; 0], "a process outlived the reset");
    assert_eq!(server.output(0, "ls -A; echo works").await, "works");
}

async fn killing_all_that_can_be_killed_harms_only_the_slot(rung: &'static Rung) {
    let server = Server::start(rung);
    let mark = mark();
    server.output(1, &format!("sleep 3000.{mark} &")).await;
    sleeper(&mark).await;
    server
        .bash_within(0, "kill -9 -1; for p in /proc/[0-9]*; do kill -9 ${p#/proc/}; done", 5.0)
        .await;
    assert_eq!(marked(&mark).len(), 1, "a process of another slot was killed");
    assert_eq!(server.output(1, "echo works").await, "works");
    assert!(server.reset(0).await.success);
    assert_eq!(server.output(0, "echo works").await, "works");
}
