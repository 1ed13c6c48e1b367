//! Commands in any image, with nothing of a protocol inside.

use crate::lab::{Lab, execute, id, plain, until};
use slotmux_agent::{JobDone, JobKind, JobOrder, Plain, PlainLimits, Priority};
use slotmux_protocol::{CausedBy, Ended};
use std::time::Duration;

#[tokio::test]
async fn a_commands_code_and_outputs_come_back() {
    let Some(lab) = Lab::open("a plain job") else { return };
    let agent = lab.agent().await;
    let done = execute(&agent, "1", plain(&["sh", "-c", "echo out; echo err >&2; exit 3"])).await;
    assert_eq!((done.ended, done.exit_code), (Ended::Exited, Some(3)));
    assert_eq!((done.caused_by, &*done.error), (CausedBy::Policy, ""));
    assert_eq!((&*done.stdout.text(), &*done.stderr.text()), ("out\n", "err\n"));
    let order = Plain { stdin: "typed".into(), ..plain(&["cat"]) };
    let done = execute(&agent, "2", order).await;
    assert_eq!((done.exit_code, &*done.stdout.text()), (Some(0), "typed"));
    lab.is_clean().await;
}

#[tokio::test]
async fn files_environment_and_directory_are_the_orders() {
    let Some(lab) = Lab::open("a plain job's files") else { return };
    let agent = lab.agent().await;
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    tar.append_data(&mut header, "work/answer", &b"42\n\n\n"[..]).unwrap();
    let order = Plain {
        files: Some(tar.into_inner().unwrap().into()),
        working_dir: Some("/work".to_owned()),
        env: vec![("NAME".to_owned(), "a b".to_owned())],
        user: Some("1000:1000".to_owned()),
        ..plain(&["sh", "-c", "cat answer; echo $NAME; id -u"])
    };
    let done = execute(&agent, "1", order).await;
    assert_eq!(done.stdout.text(), "42\n\n\na b\n1000\n", "{done:?}");
}

#[tokio::test]
async fn limits_are_told_apart_and_so_is_whose_fault_it_is() {
    let Some(lab) = Lab::open("limits of plain jobs") else { return };
    let agent = lab.agent().await;
    let limited = |command: &[&str], limits| Plain { limits, ..plain(command) };
    let usual = PlainLimits::default;
    let burn = ["sh", "-c", "while :; do :; done"];
    for (name, order, ended, by) in [
        (
            "wall",
            limited(&["sleep", "60"], PlainLimits { wall: Duration::from_secs(1), ..usual() }),
            Ended::Timeout,
            CausedBy::Policy,
        ),
        (
            "cpu",
            limited(&burn, PlainLimits { cpu: Some(Duration::from_secs(1)), ..usual() }),
            Ended::Timeout,
            CausedBy::Policy,
        ),
        (
            "signal",
            plain(&["sh", "-c", "kill -9 $$; exec sleep 1"]),
            Ended::Exited,
            CausedBy::Policy,
        ),
        (
            "image",
            Plain { image: "slotmux-test:none".to_owned(), ..plain(&["true"]) },
            Ended::Lost,
            CausedBy::Client,
        ),
        ("command", plain(&["/no/such/program"]), Ended::Lost, CausedBy::Client),
        (
            "memory",
            limited(&["true"], PlainLimits { memory_bytes: 1 << 50, ..usual() }),
            Ended::Lost,
            CausedBy::Client,
        ),
    ] {
        let done = execute(&agent, name, order).await;
        assert_eq!((done.ended, done.caused_by), (ended, by), "{name}: {done:?}");
    }
    lab.is_clean().await;
}

#[tokio::test]
async fn a_command_that_is_out_of_memory_says_so() {
    let Some(lab) = Lab::open("a plain job out of memory") else { return };
    let agent = lab.agent().await;
    let limits = PlainLimits { memory_bytes: 20 << 20, ..PlainLimits::default() };
    // It doubles what it holds.
    let script = "x=0123456789; while :; do x=$x$x; done";
    let done = execute(&agent, "1", Plain { limits, ..plain(&["sh", "-c", script]) }).await;
    assert_eq!((done.ended, done.caused_by), (Ended::Oom, CausedBy::Policy), "{done:?}");
    lab.is_clean().await;
}

#[tokio::test]
async fn of_much_output_head_and_tail_are_kept() {
    let Some(lab) = Lab::open("a plain job's output") else { return };
    let agent = lab.agent().await;
    let limits = PlainLimits { output_bytes: 1_000, ..PlainLimits::default() };
    let script =
        "echo begin; i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo end";
    let done = execute(&agent, "1", Plain { limits, ..plain(&["sh", "-c", script]) }).await;
    assert_eq!(done.exit_code, Some(0), "{done:?}");
    assert!(done.stdout.head.starts_with(b"begin\nline 0\n"));
    assert!(done.stdout.tail.ends_with(b"line 19999\nend\n"));
    assert_eq!((done.stdout.head.len(), done.stdout.tail.len()), (500, 500));
    assert!(done.stdout.cut_bytes > 100_000);
}

#[tokio::test]
async fn a_kill_is_the_clients_doing() {
    let Some(lab) = Lab::open("a plain job that is killed") else { return };
    let agent = lab.agent().await;
    let kind = JobKind::Plain(plain(&["sleep", "60"]));
    let order = JobOrder { id: id("1"), kind, priority: Priority::default() };
    let follower = agent.submit(order).unwrap();
    until("its container is there", || !lab.containers().is_empty()).await;
    agent.kill(&id("1"));
    let JobDone::Plain(done) = &*crate::lab::done(follower).await else { panic!() };
    assert_eq!((done.ended, done.caused_by), (Ended::Cancelled, CausedBy::Client));
    lab.is_clean().await;
}
