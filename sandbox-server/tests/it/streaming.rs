//! Output while a command runs: what comes, when, and what a reader cannot do to the command.

use crate::{
    host::{mark, marked, until_gone},
    http::bash,
    rung::{Rung, scenarios},
    server::{LIMIT, Server},
};
use reqwest::{Response, header::ACCEPT};
use serde_json::{Value, json};
use tokio::time::timeout;

scenarios! {
    everywhere: [
        output_comes_while_the_command_runs,
        the_result_is_the_same_as_without,
        time_runs_for_a_command_whose_reader_does_not_read,
        a_reader_that_hangs_up_does_not_end_the_command,
        a_job_of_the_persistent_shell_is_heard_in_the_next_call,
    ]
}

/// Lines as they come.
struct Lines {
    response: Response,
    pending: Vec<u8>,
}

impl Lines {
    async fn of(server: &Server, tool: &str, command: &str, timeout_s: f64) -> Self {
        let body = json!({ "tool": tool, "args": { "command": command }, "timeout_s": timeout_s });
        let url = format!("http://{}/v1/slots/slot_0/execute", server.authority);
        let request = server.http.post(url).header(ACCEPT, "application/x-ndjson");
        let response = request.body(body.to_string()).send().await.unwrap();
        assert!(response.status().is_success(), "{response:?}");
        Self { response, pending: Vec::new() }
    }

    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(at) = self.pending.iter().position(|it| *it == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=at).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let more = timeout(LIMIT, self.response.chunk()).await.expect("a line").unwrap()?;
            self.pending.extend_from_slice(&more);
        }
    }

    /// All that is still to come: stdout, stderr, and the result.
    async fn rest(mut self) -> (String, String, Value) {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        loop {
            let line = self.next().await.expect("a result comes last");
            if let Some(text) = line["stdout"].as_str() {
                stdout.push_str(text);
            } else if let Some(text) = line["stderr"].as_str() {
                stderr.push_str(text);
            } else {
                assert_eq!(self.next().await, None, "nothing comes after {line}");
                return (stdout, stderr, line["result"].clone());
            }
        }
    }
}

async fn output_comes_while_the_command_runs(rung: &'static Rung) {
    let server = Server::start(rung);
    for tool in ["bash", "bash_stateful"] {
        let command = "rm -f go; echo one; until [ -e go ]; do sleep 0.01; done; echo two";
        let mut lines = Lines::of(&server, tool, command, 20.0).await;
        assert_eq!(lines.next().await, Some(json!({ "stdout": "one\n" })), "{tool}");
        std::fs::write(server.workspace(0).join("go"), "").unwrap();
        let (stdout, stderr, result) = lines.rest().await;
        assert_eq!((&*stdout, &*stderr), ("two\n", ""), "{tool}");
        assert_eq!((&result["output"], &result["success"]), (&json!("one\ntwo\n"), &json!(true)));
    }
}

async fn the_result_is_the_same_as_without(rung: &'static Rung) {
    let server = Server::start(rung);
    let command = "seq 200000; seq 100000 >&2; printf '\\303'; exit 3";
    let whole = (1..=200_000).map(|it| it.to_string()).collect::<Vec<_>>().join("\n") + "\n";
    let errors = &whole[..whole.find("100001\n").unwrap()];
    let body = json!({ "tool": "bash", "args": { "command": command } }).to_string();
    let (_, without) = server.post("/v1/slots/slot_0/execute", body).await;
    let ended = command.replace("exit 3", "(exit 3)");
    for (tool, command) in [("bash", command), ("bash_stateful", ended.as_str())] {
        let (stdout, stderr, with) = Lines::of(&server, tool, command, 20.0).await.rest().await;
        assert_eq!(stdout.len(), whole.len() + '\u{fffd}'.len_utf8(), "{tool}");
        assert!(stdout.starts_with(&whole) && stderr == errors, "{tool}: {} bytes", stderr.len());
        for field in ["output", "exit_code", "ended", "error"] {
            assert_eq!(with[field], without[field], "{tool}");
        }
        for field in ["stdout_bytes", "stderr_bytes", "cut_bytes"] {
            assert_eq!(with["usage"][field], without["usage"][field], "{tool}");
        }
    }
}

async fn time_runs_for_a_command_whose_reader_does_not_read(rung: &'static Rung) {
    let server = Server::start(rung);
    let mark = mark();
    let command = format!("sleep 3000.{mark} & while :; do echo {}; done", "x".repeat(1_000));
    let lines = Lines::of(&server, "bash", &command, 1.5).await;
    // Nobody reads, and what comes next in the slot has not to wait for it.
    let next = timeout(LIMIT, server.call(bash(0, "echo next"))).await.unwrap();
    assert_eq!(next.output, "next", "{next:?}");
    until_gone(&mark).await;
    let (stdout, _, result) = lines.rest().await;
    assert_eq!((&result["ended"], &result["caused_by"]), (&json!("timeout"), &json!("policy")));
    assert!(stdout.starts_with("xxx"), "{}", stdout.len());
}

async fn a_reader_that_hangs_up_does_not_end_the_command(rung: &'static Rung) {
    let server = Server::start(rung);
    let mark = mark();
    let command = format!(
        "echo one; sleep 3000.{mark} & until [ -e go ]; do echo >> log; sleep 0.01; done; echo >> done"
    );
    let mut lines = Lines::of(&server, "bash", &command, 20.0).await;
    assert_eq!(lines.next().await, Some(json!({ "stdout": "one\n" })));
    drop(lines);
    assert!(server.is_executing(0).await);
    std::fs::write(server.workspace(0).join("go"), "").unwrap();
    assert_eq!(server.output(0, "wc -l < done").await, "1");
    assert_eq!(marked(&mark).len(), 1);
}

async fn a_job_of_the_persistent_shell_is_heard_in_the_next_call(rung: &'static Rung) {
    let server = Server::start(rung);
    let job = "{ until [ -e go ]; do sleep 0.01; done; echo job; touch done; } &";
    let (stdout, _, _) = Lines::of(&server, "bash_stateful", job, 20.0).await.rest().await;
    assert_eq!(stdout, "");
    server.output(0, "touch go; until [ -e done ]; do sleep 0.01; done").await;
    let lines = Lines::of(&server, "bash_stateful", "echo call", 20.0).await;
    let (stdout, _, result) = lines.rest().await;
    assert_eq!((&*stdout, &result["output"]), ("job\ncall\n", &json!("job\ncall\n")));
}
