//! The persistent shell of a slot: what stays, what is exact, and what it survives.

use crate::{
    host::{mark, marked, until, until_gone},
    http::call,
    rung::{ANY, Rung, scenarios},
    server::{Server, Setup},
};
use serde_json::{Value, json};
use slotmux_protocol::atropos::SlotResult;
use std::time::Duration;

scenarios! {
    everywhere: [
        directory_variables_functions_options_and_jobs_stay,
        exit_codes_are_exact_whatever_the_command,
        streams_are_apart_and_nothing_comes_from_stdin,
        a_command_that_ends_its_shell_is_told_and_the_next_begins_with_a_new_one,
        a_command_that_breaks_its_shell_never_outlives_its_time,
        what_a_job_prints_between_calls_stands_at_the_head_of_the_next,
        a_timeout_ends_the_shell_and_all_its_jobs,
        nothing_of_ours_is_within_a_commands_reach,
        a_shell_that_is_killed_between_calls_is_replaced_and_says_so,
        a_restart_and_a_reset_begin_anew,
    ]
}

fn stateful(slot: u16, command: &str) -> Value {
    call(slot, "bash_stateful", json!({ "command": command }))
}

impl Server {
    async fn keep(&self, slot: u16, command: &str) -> SlotResult {
        let result = self.call(stateful(slot, command)).await;
        assert_eq!(result.metadata["stateful"], true, "{result:?}");
        result
    }

    async fn kept(&self, slot: u16, command: &str) -> String {
        let result = self.keep(slot, command).await;
        assert!(result.success && result.error.is_empty(), "{command}: {result:?}");
        result.output
    }
}

async fn directory_variables_functions_options_and_jobs_stay(rung: &'static Rung) {
    let server = Server::start(rung);
    server.kept(0, "mkdir -p a/b; cd a/b; x='1  2'; export y=3; declare -A map=([k]=v)").await;
    server
        .kept(0, "f() { echo \"f $1\"; }; shopt -s nullglob; set -f; alias say='echo said'")
        .await;
    server.kept(0, "exec 3> log 4< /etc/passwd; umask 027").await;
    let output = server
        .kept(
            0,
            "pwd | grep -o 'a/b$'; echo \"$x\" $(sh -c 'echo $y') ${map[k]}; f 5; say it; umask",
        )
        .await;
    assert_eq!(output, "a/b\n1  2 3 v\nf 5\nsaid it\n0027");
    assert!(server.kept(0, "shopt -q nullglob && echo $-").await.contains('f'));
    assert_eq!(
        server.kept(0, "echo kept >&3; read -r line <&4; cat log; [ -n \"$line\" ]").await,
        "kept"
    );
    server.kept(0, "sleep 1000 & sleep 1001 &").await;
    let jobs = server.kept(0, "jobs").await;
    assert!(jobs.contains("sleep 1000 &") && jobs.contains("sleep 1001 &"), "{jobs}");
    assert_eq!(
        server.kept(0, "kill %1; wait %1; echo $?; kill %2; wait %2; echo $?").await,
        "143\n143"
    );
    assert_eq!(server.kept(0, "jobs").await, "");
    // Another slot has another shell, and `bash` has its own.
    assert_eq!(server.kept(1, "echo \"[$x]\"").await, "[]");
    assert_eq!(server.output(0, "echo \"[$x]\"").await, "[]");
}

async fn exit_codes_are_exact_whatever_the_command(rung: &'static Rung) {
    let server = Server::start(rung);
    let table = [
        ("true", 0),
        ("false", 1),
        ("(exit 42)", 42),
        ("sh -c 'exit 255'", 255),
        ("true | false", 1),
        ("false | true", 0),
        ("set -o pipefail; false | true", 1),
        ("set +o pipefail; ! true", 1),
        ("no-such-command-here", 127),
        ("/", 126),
        ("if then", 2),
        ("echo 'unbalanced", 2),
        ("echo \"$(", 2),
        ("case x in", 2),
        ("f() { return 9; }; f", 9),
        ("sh -c 'kill -TERM $$'", 143),
        ("echo $((1/0))", 1),
        ("cat << END\nnever closed", 0),
        ("break", 0),
        ("continue", 0),
        ("while true; do break; done", 0),
        ("", 0),
        ("# a comment", 0),
        ("echo a \\", 0),
        ("true & false", 1),
        ("wait", 0),
    ];
    for (command, code) in table {
        let result = server.keep(0, command).await;
        assert_eq!(result.metadata["exit_code"], code, "{command:?}: {result:?}");
        let error = if code == 0 { String::new() } else { format!("Exit code: {code}") };
        assert_eq!(result.error, error, "{command:?}: {result:?}");
        assert_eq!(result.metadata["ended"], "exited", "{command:?}: {result:?}");
    }
    server.keep(0, "(exit 7)").await;
    assert_eq!(server.kept(0, "echo $?").await, "7");
    let long = format!("echo {}", "x".repeat(300_000));
    assert_eq!(server.kept(0, &format!("{long} | wc -c")).await, "300001");
    let lines = (0..2_000).map(|it| format!("echo {it}")).collect::<Vec<_>>().join("\n") + "\n";
    assert!(server.kept(0, &lines).await.ends_with("1998\n1999"));
    let nul = server.keep(0, "echo a\0b").await;
    assert_eq!(nul.metadata["exit_code"], 126, "{nul:?}");
    assert_eq!(server.kept(0, "printf 'é\\x01\\x7f'").await, "é\u{1}\u{7f}");
    assert_eq!(server.kept(0, "echo 'é\u{1}\u{7f}\\n'").await, "é\u{1}\u{7f}\\n");
}

async fn streams_are_apart_and_nothing_comes_from_stdin(rung: &'static Rung) {
    let server = Server::start(rung);
    assert_eq!(server.kept(0, "echo out; echo err >&2").await, "out\n\n[stderr]\nerr");
    assert_eq!(server.kept(0, "cat; read -r line || echo end").await, "end");
    assert_eq!(server.kept(0, "exec < /etc/passwd; read -r line; [ -n \"$line\" ]").await, "");
    assert_eq!(server.kept(0, "cat").await, "");
    assert_eq!(
        server.kept(0, "set -x; echo a; set +x").await,
        "a\n\n[stderr]\n++ echo a\n++ set +x"
    );
    server.kept(0, "set -x").await;
    assert_eq!(server.kept(0, "echo b").await, "b\n\n[stderr]\n++ echo b");
    server.kept(0, "set +x").await;
    assert_eq!(server.kept(0, "echo c").await, "c");
    let cut = server.kept(0, "head -c 1000000 /dev/zero | tr '\\0' x").await;
    assert!(cut.starts_with("xxx") && cut.ends_with("(output truncated)"), "{}", cut.len());
    server.kept(0, "exec > file 2>&1").await;
    assert_eq!(server.kept(0, "echo into; echo the >&2").await, "");
    assert_eq!(server.output(0, "cat file").await, "into\nthe");
}

async fn a_command_that_ends_its_shell_is_told_and_the_next_begins_with_a_new_one(
    rung: &'static Rung,
) {
    let server = Server::start(rung);
    let table = [
        ("exit 3", 3, "exit code 3"),
        ("exit 0", 0, "exit code 0"),
        ("exec true", 0, "exit code 0"),
        ("exec sh -c 'sleep 0.2; exit 5'", 5, "exit code 5"),
        (
            // Its script is gone with them: to bash that is an error of its own.
            "for fd in /proc/$$/fd/*; do eval \"exec ${fd##*/}>&-\"; done; (exit 6)",
            2,
            "exit code 2",
        ),
        ("exec no-such-command-here", 127, "exit code 127"),
        ("kill -9 $$", -9, "signal 9"),
        ("kill -TERM $$", -15, "signal 15"),
        ("set -e; false", 1, "exit code 1"),
        ("set -u; echo $unset", 1, "exit code 1"),
        ("trap 'exit 4' EXIT; exit", 4, "exit code 4"),
    ];
    for (command, code, how) in table {
        assert_eq!(server.kept(0, "kept=1; echo \"[$lost]\"; lost=1").await, "[]", "{command}");
        let result = server.keep(0, &format!("echo said; {command}")).await;
        assert_eq!(result.metadata["exit_code"], code, "{command}: {result:?}");
        assert!(result.output.starts_with("said"), "{command}: {result:?}");
        let text = format!(
            "the shell was ended by its command ({how}); the next call begins with a new one"
        );
        assert_eq!(result.error, text, "{command}");
        assert_eq!(result.metadata["caused_by"], "policy", "{command}");
    }
    assert_eq!(server.kept(0, "echo \"[$kept]\"").await, "[]");
    server.kept(0, "set -e").await;
    let result = server.keep(0, "false").await;
    assert!(result.error.contains("(exit code 1)"), "{result:?}");
}

async fn a_command_that_breaks_its_shell_never_outlives_its_time(rung: &'static Rung) {
    let server = Server::start(rung);
    for command in [
        "for fd in /proc/$$/fd/*; do eval \"exec ${fd##*/}>&-\"; done",
        "for fd in {0..255}; do eval \"exec $fd>&-\"; done",
        "__slot_get() { :; }; __slot_put() { :; }",
        "builtin() { :; }",
        "unset -f __slot_get __slot_put",
        "set -n",
        "printf '0123456789abcdef 0\\n' >&58; echo x > /proc/$$/fd/58",
        "cat /proc/$$/fd/255 > /dev/null & cat < /proc/$$/fd/10",
        "enable -n eval printf read builtin",
        "trap 'exec 0<&-' DEBUG",
        "ulimit -n 8",
        "set -o posix; readonly __slot_status __slot_x",
        "exec 58>/dev/null 59</dev/null; exec 1>&- 2>&-",
        "( kill -STOP $$ )",
    ] {
        let mut call = stateful(0, command);
        call["timeout"] = 1.0.into();
        let first = server.call(call.clone()).await;
        call["args"]["command"] = "echo next".into();
        let second = server.call(call.clone()).await;
        for result in [&first, &second] {
            assert_eq!(result.metadata["caused_by"], "policy", "{command}: {result:?}");
        }
        // At the latest when its time is over, the shell is another one.
        call["args"] = json!({ "command": "echo works", "restart": true });
        call["timeout"] = 20.0.into();
        let third = server.call(call).await;
        assert_eq!((third.success, &*third.output), (true, "works"), "{command}: {third:?}");
    }
}

async fn what_a_job_prints_between_calls_stands_at_the_head_of_the_next(rung: &'static Rung) {
    let server = Server::start(rung);
    let wait = "until [ -e go ]; do sleep 0.01; done";
    server.kept(0, &format!("{{ {wait}; echo job; echo err >&2; touch done; }} &")).await;
    server.output(0, "touch go; until [ -e done ]; do sleep 0.01; done").await;
    assert_eq!(server.kept(0, "echo call").await, "job\ncall\n\n[stderr]\nerr");
    // More than a pipe holds: the job is not held up, and what is kept is bounded.
    server.kept(0, "rm go done").await;
    let job = format!("{{ {wait}; head -c 3000000 /dev/zero | tr '\\0' j; touch done; }} &");
    server.kept(0, &job).await;
    server.output(0, "touch go; until [ -e done ]; do sleep 0.01; done").await;
    let output = server.kept(0, "echo call").await;
    assert!(output.starts_with("jjj") && output.len() < 100_000, "{}", output.len());
}

async fn a_timeout_ends_the_shell_and_all_its_jobs(rung: &'static Rung) {
    let server = Server::start(rung);
    let mark = mark();
    server.kept(0, &format!("kept=1; sleep 3000.{mark} & sleep 3001.{mark} &")).await;
    until("the jobs run", || marked(&mark).len() == 2).await;
    let mut call = stateful(0, "echo begun; sleep 100");
    call["timeout"] = 1.0.into();
    let result = server.call(call).await;
    assert_eq!(result.error, "Command timed out after 1.0s", "{result:?}");
    assert_eq!(result.metadata["timeout"], true);
    assert_eq!((&*result.output, &result.metadata["exit_code"]), ("begun", &json!(-1)));
    until_gone(&mark).await;
    assert_eq!(server.kept(0, "echo \"[$kept]\"").await, "[]");
}

async fn nothing_of_ours_is_within_a_commands_reach(rung: &'static Rung) {
    let server = Server::start(rung);
    server.kept(0, "true").await;
    let open =
        server.kept(0, "ls /proc/self/fd; (ls /proc/self/fd); sh -c 'ls /proc/self/fd'").await;
    assert_eq!(open, ["0\n1\n2\n3"; 3].join("\n"));
    // Nor by way of the shell's own process: its input, its status, a command of somebody's.
    let hidden = "for fd in /proc/$$/fd/*; do readlink $fd; done | grep -c -e memfd -e pipe";
    assert_eq!(server.kept(0, hidden).await, "5");
    assert_eq!(server.kept(0, "env; export -p; alias").await.find("__slot"), None);
}

async fn a_shell_that_is_killed_between_calls_is_replaced_and_says_so(rung: &'static Rung) {
    let server = Server::start(rung);
    let job = "{ until [ -e go ]; do sleep 0.01; done; kill -9 $$; } &";
    let pid = server.kept(0, &format!("kept=1; {job} echo $$")).await;
    let kill = format!("touch go; while [ -e /proc/{pid} ]; do sleep 0.01; done");
    server.output(0, &kill).await;
    let output = server.kept(0, "echo \"[$kept]\"").await;
    let note = "the shell ended after the last call (signal 9); this one is new";
    assert_eq!(output, format!("[]\n\n[stderr]\n{note}"));
    assert_eq!(server.kept(0, "echo x").await, "x");
}

async fn a_restart_and_a_reset_begin_anew(rung: &'static Rung) {
    let server = Server::start(rung);
    let mark = mark();
    server.kept(0, &format!("kept=1; cd /; sleep 3000.{mark} &")).await;
    until("the job runs", || marked(&mark).len() == 1).await;
    let mut restart = stateful(0, "echo \"[$kept]\"; [ \"$PWD\" = \"$HOME\" ]");
    restart["args"]["restart"] = true.into();
    let result = server.call(restart).await;
    assert_eq!((result.success, &*result.output), (true, "[]"), "{result:?}");
    until_gone(&mark).await;
    server.kept(0, "kept=2; touch file").await;
    assert!(server.reset(0).await.success);
    assert_eq!(server.kept(0, "echo \"[$kept]\"; ls").await, "[]");
}

#[tokio::test]
async fn a_shell_with_a_network_runs_no_command_that_must_be_without() {
    let server = Server::with(&ANY, Setup::default());
    if server.get("/health").await["isolation"] == "none" {
        println!("skipped: needs isolation");
        return;
    }
    server.kept(0, "kept=1").await;
    let mut without = stateful(0, "echo ran > file; echo \"[$kept]\"");
    without["args"]["allow_network"] = false.into();
    let result = server.call(without.clone()).await;
    assert!(!result.success && result.error.contains("restart"), "{result:?}");
    assert_eq!(server.output(0, "ls").await, "");
    without["args"]["restart"] = true.into();
    let result = server.call(without).await;
    assert_eq!((&*result.output, &result.metadata["network_isolated"]), ("[]", &json!(true)));
    // And it stays without, also where the next call would not mind.
    let result = server.keep(0, "true").await;
    assert_eq!(result.metadata["network_isolated"], true, "{result:?}");
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_end_the_command() {
    let server = Server::start(&ANY);
    let url = format!("http://{}/execute", server.authority);
    let body = stateful(0, "touch begun; until [ -e go ]; do sleep 0.01; done; kept=1; touch done");
    let request = server.http.post(url).body(body.to_string()).timeout(Duration::from_secs(30));
    let calling = tokio::spawn(request.send());
    let workspace = server.workspace(0);
    until("the command runs", || workspace.join("begun").exists()).await;
    calling.abort();
    std::fs::write(workspace.join("go"), "").unwrap();
    assert_eq!(server.kept(0, "ls done; echo $kept").await, "done\n1");
}
