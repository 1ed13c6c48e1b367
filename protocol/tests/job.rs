//! The JSON of an agent's jobs, so that a change of the wire is a change of `golden/jobs.ndjson`.
//!
//! `UPDATE=1 cargo test -p slotmux-protocol --test job` writes it anew.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use slotmux_protocol::{
    CausedBy, Ended, JobName,
    job::{
        GradedJob, GradedResult, JobEvent, JobEventKind, JobList, JobOutput, JobPhase, JobRequest,
        JobResult, JobStatus, JobUsed, PlainResult, SshAccess, Verdict,
    },
};
use std::fmt::Debug;

fn id() -> JobName {
    JobName::new("j-1").unwrap()
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn status(phase: JobPhase) -> JobStatus {
    JobStatus {
        job_id: id(),
        phase,
        submitted_at_ms: 1_000,
        started_at_ms: None,
        done_at_ms: None,
        result: None,
        ended: None,
        caused_by: None,
        fetched: false,
    }
}

fn done() -> JobStatus {
    JobStatus {
        started_at_ms: Some(2_000),
        done_at_ms: Some(3_000),
        result: Some(Verdict::Success),
        caused_by: Some(CausedBy::Policy),
        fetched: true,
        ..status(JobPhase::Done)
    }
}

fn graded() -> JobResult {
    let result = GradedResult {
        result: Verdict::Success,
        text: "well done".to_owned(),
        grade: 100.0,
        problems: object(json!({"q1": ["success", "ok"]})),
        tests: Map::new(),
        custom: object(json!({"bytes": {"$binary": "AP8="}})),
        state: "s".to_owned(),
        archive_base64: Some("H4s=".to_owned()),
        stdout: Some("out".to_owned()),
        stderr: None,
        caused_by: CausedBy::Policy,
        used: JobUsed { wall_us: 1_500_000, cpu_us: Some(250_000) },
    };
    JobResult { job_id: id(), graded: Some(result), plain: None }
}

fn plain() -> JobResult {
    let result = PlainResult {
        ended: Ended::Exited,
        caused_by: CausedBy::Policy,
        exit_code: Some(3),
        error: String::new(),
        stdout: JobOutput { text: "a\n[7 bytes cut]\nb".to_owned(), cut_bytes: 7 },
        stderr: JobOutput::default(),
        used: JobUsed::default(),
    };
    JobResult { job_id: id(), graded: None, plain: Some(result) }
}

/// The line, which also reads back as it was.
fn line<T: Serialize + DeserializeOwned + PartialEq + Debug>(message: &T) -> String {
    let text = serde_json::to_string(message).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), message);
    text + "\n"
}

fn event(seq: u32, kind: JobEventKind) -> JobEvent {
    JobEvent { seq, at_ms: 1_000, kind, ssh: None, status: None }
}

#[test]
fn what_is_said_of_jobs_has_the_golden_spelling() {
    let ssh = SshAccess { host: "h".into(), port: 22, user: "u".into(), password: "p".into() };
    let lines = [
        line(&status(JobPhase::Waiting)),
        line(&done()),
        line(&JobList { jobs: vec![status(JobPhase::Running)] }),
        line(&graded()),
        line(&plain()),
        line(&event(1, JobEventKind::Submitted)),
        line(&JobEvent { ssh: Some(ssh), ..event(3, JobEventKind::Ssh) }),
        line(&JobEvent { status: Some(done()), ..event(4, JobEventKind::Done) }),
    ];
    let got = lines.concat();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/jobs.ndjson");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &got).unwrap();
    }
    assert_eq!(got, std::fs::read_to_string(path).unwrap(), "the wire has changed: {path}");
}

#[test]
fn a_request_needs_little_and_refuses_what_it_does_not_know() {
    let read = |value: Value| serde_json::from_value::<JobRequest>(value);
    let request = read(json!({"graded": {"environment": "python"}})).unwrap();
    let job: GradedJob = request.graded.unwrap();
    assert_eq!((job.environment_type.as_str(), job.debug), ("docker", false));
    let request = read(json!({"job_id": "j-1", "plain": {"image": "debian:12"}})).unwrap();
    let job = request.plain.unwrap();
    assert_eq!((job.files_dir.as_str(), job.command.len()), ("/tmp", 0));
    for wrong in [
        json!({"plain": {"image": "debian:12"}, "wait": 1}),
        json!({"plain": {"image": "debian:12", "cmd": []}}),
        json!({"plain": {"image": "debian:12", "limits": {"memory": 1}}}),
        json!({"graded": {}}),
        json!({"job_id": "", "plain": {"image": "debian:12"}}),
    ] {
        assert!(read(wrong.clone()).is_err(), "{wrong}");
    }
}
