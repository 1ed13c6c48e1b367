//! Our bytes beside those of Python's msgpack (`tests/golden/make.py`).

use super::{FromBackend, ToBackend};
use crate::{Debug, Environment, Environments, GradedDone, JobUsage, SshDebug, Verdict};
use rmpv::Value;
use slotmux_protocol::CausedBy;
use std::collections::BTreeMap;

fn fixture(file: &str, name: &str) -> Vec<u8> {
    let line = file.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let digits = line.unwrap_or_else(|| panic!("no `{name}`"));
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn python(name: &str) -> Vec<u8> {
    fixture(include_str!("../../tests/golden/to_backend.hex"), name)
}

fn parsed(name: &str) -> FromBackend {
    let bytes = fixture(include_str!("../../tests/golden/from_backend.hex"), name);
    FromBackend::parse(&bytes).unwrap()
}

fn map(entries: Vec<(Value, Value)>) -> Value {
    Value::Map(entries)
}

fn environments() -> Environments {
    let environment = Environment {
        id: "sha256:0f1e".to_owned(),
        created: 1_755_611_511,
        ports: vec![22, 8080],
        advertised: true,
        title: "Python 3".to_owned(),
        runtime: "io.containerd.runc.v2".to_owned(),
        run_as_root: false,
    };
    let named = BTreeMap::from([("default".to_owned(), environment)]);
    Environments(BTreeMap::from([
        ("docker".to_owned(), named),
        ("docker-ssh".to_owned(), BTreeMap::new()),
    ]))
}

fn success() -> GradedDone {
    let archive: Vec<u8> = [0x1f, 0x8b].into_iter().chain(0..=255).collect();
    let list = vec![
        1.into(),
        (-1).into(),
        2.5.into(),
        Value::Nil,
        true.into(),
        Value::Binary(vec![0, 255]),
    ];
    GradedDone {
        verdict: Verdict::Success,
        text: "Bravo, l'élève !".to_owned(),
        grade: 100.0,
        problems: map(vec![("q1".into(), Value::Array(vec!["success".into(), "ok".into()]))]),
        tests: map(vec![("t.1*".into(), 3.into())]),
        custom: map(vec![
            ("nested".into(), map(vec![("list".into(), Value::Array(list))])),
            (7.into(), "seven".into()),
        ]),
        state: "{}".to_owned(),
        archive: Some(archive.into()),
        stdout: Some("out".to_owned()),
        stderr: Some(String::new()),
        caused_by: CausedBy::Policy,
        usage: JobUsage::default(),
    }
}

#[test]
fn a_hello_is_what_python_would_write() {
    let environments = environments();
    let hello =
        ToBackend::Hello { friendly_name: "slotmux", job_slots: 4, environments: &environments };
    assert_eq!(hello.encode(), python("hello"));
    assert_eq!(ToBackend::Pong.encode(), python("pong"));
}

#[test]
fn the_answers_to_a_job_are_what_python_would_write() {
    assert_eq!(ToBackend::JobStarted { job_id: "j-1" }.encode(), python("started"));
    let done = success();
    assert_eq!(ToBackend::JobDone { job_id: "j-1", done: &done }.encode(), python("done"));
    let crash = GradedDone::without_result(Verdict::Crash, "x".repeat(300), "", CausedBy::Infra);
    assert_eq!(ToBackend::JobDone { job_id: "j-2", done: &crash }.encode(), python("crash"));
    let ssh = SshDebug {
        host: "192.0.2.1".to_owned(),
        port: 64_120,
        user: "worker".to_owned(),
        password: "secret".to_owned(),
    };
    assert_eq!(ToBackend::JobSshDebug { job_id: "j-1", ssh: &ssh }.encode(), python("ssh_debug"));
}

#[test]
fn a_job_that_python_wrote_is_read_with_nothing_lost() {
    let FromBackend::NewJob { job_id, job } = parsed("new_job") else { panic!("another kind") };
    assert_eq!(job_id, "a8098c1a-f86e-11da-bd1a-00112444be1e");
    assert_eq!(job.course_id.as_deref(), Some("tutorial"));
    assert_eq!(job.task_id.as_deref(), Some("04_run_student"));
    assert_eq!((job.environment_type.as_str(), job.environment.as_str()), ("docker", "default"));
    assert_eq!(job.debug, Debug::No);
    assert_eq!(job.problems["q1"]["name"], "Écrivez".into());
    let upload = (0..=255).collect::<Vec<u8>>();
    let input = vec![
        ("q1".into(), "print(1)\n".into()),
        (
            "file".into(),
            map(vec![("filename".into(), "a.bin".into()), ("value".into(), upload.into())]),
        ),
        ("@state".into(), "state".into()),
        ("@random".into(), Value::Array(vec![0.25.into(), 1.into()])),
        (3.into(), (-70_000).into()),
        (Value::Nil, (1_u64 << 63).into()),
    ];
    assert_eq!(job.inputdata, map(input));
    assert_eq!(job.parameters["limits"]["time"], "30".into());
    assert_eq!(job.parameters["network_grading"], false.into());
}

#[test]
fn the_other_messages_of_a_backend_are_read() {
    let FromBackend::NewJob { job, .. } = parsed("taskless") else { panic!("another kind") };
    assert_eq!((job.course_id, job.task_id, job.debug), (None, None, Debug::Ssh));
    assert!(matches!(
        parsed("kill"),
        FromBackend::KillJob { job_id, state } if job_id == "j-1" && state == "before"
    ));
    assert!(matches!(parsed("ping"), FromBackend::Ping));
}
