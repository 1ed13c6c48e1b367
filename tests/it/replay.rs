//! `slotmux replay`, from outside.

use serde_json::Value;
use slotmux_tests::{PATIENCE, open_dir, slotmux, traces};
use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// Nobody's: it needs no account.
const ORDINARY: u32 = 4_242;
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/rollouts.jsonl");

fn replay(scratch: &Path) -> Command {
    let mut command = Command::new(slotmux());
    command.arg("replay").env("TMPDIR", scratch).stdin(Stdio::null());
    command
}

#[tokio::test]
async fn a_thousand_trajectories_are_as_expected_and_leave_nothing_behind() {
    let scratch = open_dir();
    let out = scratch.path().join("results.jsonl");
    let mut child = replay(scratch.path())
        .arg(EXAMPLES)
        .args(["--containers", "2", "--slots", "8", "--trajectories", "1000", "--json", "--out"])
        .arg(&out)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = traces::Traces::default();
    while child.try_wait().unwrap().is_none() {
        seen.add_descendants(child.id());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{report:#}");
    assert_eq!(report["trajectories"], 1_000, "{report:#}");

    // The servers, their zygotes, 16 slot-inits at least and a command of each were seen.
    assert!(seen.count() > 100, "{} processes seen", seen.count());
    seen.assert_gone(PATIENCE).await;
    assert_eq!(traces::mounts_below(scratch.path()), Vec::<String>::new());
    let lines = fs::read_to_string(&out).unwrap();
    assert_eq!(lines.lines().count(), 1_000);
    fs::remove_file(&out).unwrap();
    let left: Vec<_> =
        fs::read_dir(scratch.path()).unwrap().flatten().map(|it| it.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// As everybody can, without root: the binary and the file are copied to where all may read them.
#[test]
fn an_ordinary_user_gets_the_same_results() {
    if !rustix::process::geteuid().is_root() {
        // Then the tests themselves are run by one.
        return;
    }
    let scratch = open_dir();
    let (binary, file) = (scratch.path().join("slotmux"), scratch.path().join("rollouts.jsonl"));
    let home = scratch.path().join("home");
    fs::copy(slotmux(), &binary).unwrap();
    fs::copy(EXAMPLES, &file).unwrap();
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(ORDINARY), Some(ORDINARY)).unwrap();
    let mut command = Command::new(&binary);
    command.arg("replay").arg(&file).env("TMPDIR", &home).env("HOME", &home);
    command.uid(ORDINARY).gid(ORDINARY).current_dir("/").stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::read_dir(&home).unwrap().next().is_none(), "files are left in {}", home.display());
}

#[test]
fn an_expectation_that_does_not_hold_is_named_with_its_line() {
    let scratch = open_dir();
    let file = scratch.path().join("wrong.jsonl");
    let lines = [
        r#"{"trajectory_id":"good","calls":[{"tool":"bash","args":{"command":"true"},"expect":{"exit_code":0}}]}"#,
        r#"{"trajectory_id":"bad","calls":[{"tool":"bash","args":{"command":"exit 3"},"expect":{"exit_code":4}}]}"#,
    ];
    fs::write(&file, lines.join("\n")).unwrap();
    let output = replay(scratch.path()).arg(&file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("wrong.jsonl:2: `bad` calls[0]"), "{text}");
    assert!(!text.contains("`good`"), "{text}");
}

#[test]
fn a_malformed_file_is_refused_before_anything_runs() {
    let scratch = open_dir();
    let file = scratch.path().join("broken.jsonl");
    let marker = scratch.path().join("ran");
    let lines = [
        format!(
            r#"{{"trajectory_id":"a","calls":[{{"tool":"bash","args":{{"command":"touch {}"}}}}]}}"#,
            marker.display()
        ),
        r#"{"trajectory_id":"b","calls":[{"tool":"bash","args":{"command":7}}]}"#.to_owned(),
        r#"{"trajectory_id":"#.to_owned(),
    ];
    fs::write(&file, lines.join("\n")).unwrap();
    let output =
        replay(scratch.path()).args(["--isolation-min", "none"]).arg(&file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(":2") && text.contains("command") && text.contains(":3"), "{text}");
    assert!(!marker.exists());
}
