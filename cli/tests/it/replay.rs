//! `slotmux replay`.

use crate::run::{Place, Ran, Serving, command, slotmux};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::{process::Stdio, time::Duration};

fn replay(place: &Place, args: &[&str]) -> Ran {
    let file = place.path("rollouts.jsonl");
    let mut command = command(["replay".as_ref(), file.as_os_str()]);
    command.args(args).env("TMPDIR", place.path("")).output().unwrap().into()
}

fn lines(lines: &[Value]) -> String {
    lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
}

fn bash(command: &str, expect: Value) -> Value {
    json!({"tool": "bash", "args": {"command": command}, "expect": expect})
}

#[test]
fn a_malformed_file_is_named_with_every_fault_and_nothing_is_run() {
    let place = Place::new();
    let text = lines(&[
        json!({"trajectory_id": "a", "calls": [bash("echo ran > /tmp/slotmux-test-ran", json!({}))]}),
        json!({"trajectory_id": "a", "calls": [{"tool": "python", "args": {}}]}),
        json!({"trajectory_id": "c", "calls": [bash("true", json!({"exit_code": "0"}))]}),
    ]);
    place.write("rollouts.jsonl", &text);
    let ran = replay(&place, &["--out", "/nonexistent/results.jsonl"]);
    assert_eq!(ran.code, Some(2));
    assert_eq!(ran.stdout, "");
    for fault in [
        "rollouts.jsonl:2: `trajectory_id`: `a` stands in line 1 already",
        "rollouts.jsonl:2: `calls[0].tool`: unknown tool `python`",
        "rollouts.jsonl:3: `calls[0].expect.exit_code`: invalid type",
    ] {
        assert!(ran.stderr.contains(fault), "{fault}: {}", ran.stderr);
    }
    assert_eq!(place.names(), ["rollouts.jsonl"], "nothing was started");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let ran = slotmux(["replay", "/nonexistent.jsonl"]);
    assert_eq!(ran.code, Some(2));
    assert_eq!(
        ran.stderr,
        "error: read `/nonexistent.jsonl`: No such file or directory (os error 2)\n"
    );
}

#[test]
fn results_that_cannot_be_written_are_told_before_anything_runs() {
    let place = Place::new();
    place.write("rollouts.jsonl", &lines(&[json!({"trajectory_id": "a", "calls": []})]));
    let ran = replay(&place, &["--out", "/nonexistent/results.jsonl"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("create `/nonexistent/results.jsonl`"), "{ran:?}");
}

#[test]
fn a_pool_that_is_not_there_is_named_with_a_hint() {
    let place = Place::new();
    place.write("rollouts.jsonl", &lines(&[json!({"trajectory_id": "a", "calls": []})]));
    let ran = replay(&place, &["--url", "http://127.0.0.1:1"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("no answer from http://127.0.0.1:1/"), "{ran:?}");
    assert!(ran.stderr.contains("hint: is a pool running there?"), "{ran:?}");
}

#[test]
fn a_replay_runs_everything_and_leaves_nothing() {
    let place = Place::new();
    place.write("rollouts.jsonl", &lines(&[
        json!({"trajectory_id": "whole", "files": {"in.txt": "seven"}, "calls": [
            bash("cat in.txt", json!({"success": true, "output_contains": "seven"})),
            {"tool": "bash", "args": {"command": "sleep 100"}, "timeout_s": 0.2, "expect": {"ended": "timeout"}},
        ], "reward": {"command": "echo 0.25"}}),
        json!({"trajectory_id": "missing", "requires": ["no-such-executable"], "calls": [bash("false", json!({"success": true}))]}),
        json!({"trajectory_id": "zero", "calls": [], "reward": {"command": "false"}}),
    ]));
    let out = place.path("results.jsonl");
    let ran = replay(
        &place,
        &[
            "--slots",
            "2",
            "--containers",
            "1",
            "--repeat",
            "2",
            "--json",
            "--out",
            out.to_str().unwrap(),
        ],
    );
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    for (path, value) in [
        ("/trajectories", json!(6)),
        ("/held", json!(4)),
        ("/skipped", json!(2)),
        ("/missing/no-such-executable", json!(2)),
        ("/calls/ended/timeout", json!(2)),
        ("/calls/by_tool/write_file/calls", json!(2)),
        ("/rewards/count", json!(4)),
        ("/rewards/mean", json!(0.125)),
        ("/containers_used", json!(1)),
        ("/resets", json!(4)),
    ] {
        assert_eq!(report.pointer(path), Some(&value), "{path} of {report}");
    }
    let results = std::fs::read_to_string(out).unwrap();
    let mut results: Vec<Value> =
        results.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    results.sort_by_key(|it| it["trajectory_id"].to_string());
    let ids: Vec<&str> = results.iter().map(|it| it["trajectory_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["missing#1", "missing#2", "whole#1", "whole#2", "zero#1", "zero#2"]);
    assert_eq!(results[0]["verdict"], "skipped");
    assert_eq!(results[2]["reward"], 0.25);
    assert_eq!(results[2]["calls"][1]["caused_by"], "policy");
    assert_eq!(place.names(), ["results.jsonl", "rollouts.jsonl"]);
    assert_eq!(place.processes(), [""; 0]);
}

#[test]
fn an_interrupted_replay_stops_everything_first() {
    let place = Place::new();
    // A time that no other sleep on this machine has.
    let nap = format!("{}.25", 100_000 + std::process::id());
    let call = bash(&format!("sleep {nap}"), json!({"success": true}));
    let text = lines(&[json!({"trajectory_id": "a", "calls": [call]})]);
    let file = place.write("rollouts.jsonl", &text);
    let replay = command(["replay".as_ref(), "--json".as_ref(), file.as_os_str()])
        .env("TMPDIR", place.path(""))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let napping = || processes_with(&format!("sleep\0{nap}\0"));
    until(|| napping() > 0);
    kill_process(Pid::from_child(&replay), Signal::INT).unwrap();
    let ran: Ran = replay.wait_with_output().unwrap().into();
    assert_eq!(ran.code, Some(130), "{ran:?}");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&report["trajectories"], &report["interrupted_of"]), (&json!(0), &json!(1)));
    assert_eq!(napping(), 0);
    assert_eq!(place.names(), ["rollouts.jsonl"]);
    assert_eq!(place.processes(), [""; 0]);
}

fn processes_with(part: &str) -> usize {
    let commands = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.unwrap().path().join("cmdline")).ok());
    commands.filter(|it| String::from_utf8_lossy(it).contains(part)).count()
}

fn until(holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "waited for too long");
        std::thread::yield_now();
    }
}

#[test]
fn what_was_not_as_expected_is_named() {
    let place = Place::new();
    place.write(
        "rollouts.jsonl",
        &lines(&[
            json!({"trajectory_id": "fine", "calls": [bash("true", json!({"exit_code": 0}))]}),
            json!({"trajectory_id": "not", "calls": [
                bash("true", json!({"exit_code": 0})),
                bash("echo red; exit 3", json!({"exit_code": 0, "output_contains": "green"})),
            ]}),
        ]),
    );
    let ran = replay(&place, &["--slots", "1", "--containers", "1"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    for line in [
        "rollouts.jsonl:2: `not` calls[1]: expected exit_code 0, came exit_code 3",
        "rollouts.jsonl:2: `not` calls[1]: expected output with \"green\", came other output",
        "    | red",
        "  as expected   1\n",
        "  FAILED        1\n",
    ] {
        assert!(ran.stdout.contains(line), "{line}: {}", ran.stdout);
    }
}

#[test]
fn an_isolation_that_cannot_be_had_is_an_answer_and_not_a_fallback() {
    let report = slotmux(["doctor", "--json"]);
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    if report["isolation"] == "namespaces" {
        return eprintln!("not here: this machine has the best rung");
    }
    let place = Place::new();
    place.write("rollouts.jsonl", &lines(&[json!({"trajectory_id": "a", "calls": []})]));
    let ran = replay(&place, &["--isolation-min", "namespaces"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("no container starts"), "{ran:?}");
    assert_eq!(place.names(), ["rollouts.jsonl"]);
}

#[test]
fn a_pool_elsewhere_is_asked_what_it_has() {
    let place = Place::new();
    let pool = Serving::start(&place, &["--slots", "2", "--containers-max", "1"]);
    place.write("rollouts.jsonl", &lines(&[
        json!({"trajectory_id": "a", "requires": ["bash"], "calls": [bash("echo $((6*7))", json!({"output_contains": "42"}))]}),
        json!({"trajectory_id": "b", "requires": ["bash", "it's-not there".replace(' ', "-")], "calls": []}),
    ]));
    let ran = replay(&place, &["--url", &pool.url, "--json"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&report["held"], &report["skipped"]), (&json!(1), &json!(1)), "{report}");
    assert_eq!(report["missing"], json!({"it's-not-there": 1}));
    let status: Value = serde_json::from_str(&pool.slotmux("status", &["--json"]).stdout).unwrap();
    assert_eq!(status["profiles"]["default"]["slots"]["leased"], 0, "{status}");
}
