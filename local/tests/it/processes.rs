//! What is particular to containers that are processes.

use crate::machine::Machine;
use slotmux_backend::{
    Backend, BackendError, Exit, ExitKind, Fact, Facts, LaunchSpec, conformance::spec,
};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    time::Duration,
};

const LIMIT: Duration = Duration::from_mins(1);
const GRACE: Duration = Duration::from_secs(10);

async fn next(facts: &mut Facts) -> Fact {
    tokio::time::timeout(LIMIT, facts.recv()).await.unwrap().unwrap()
}

async fn end_of(machine: &Machine, spec: LaunchSpec) -> Exit {
    let backend = machine.backend();
    let mut facts = backend.facts();
    backend.launch(spec).await.unwrap();
    loop {
        if let Fact::Gone { exit, .. } = next(&mut facts).await {
            return exit;
        }
    }
}

#[tokio::test]
async fn a_failure_is_told_with_its_code_and_last_words() {
    let exit = end_of(&Machine::with_script(), spec("fails")).await;
    assert_eq!(exit.kind, ExitKind::Code(3));
    assert_eq!(
        exit.reason,
        "sandbox-server failed with exit code 3; it last said: slots are ready | \
         no slot could be made"
    );
}

#[tokio::test]
async fn a_damaged_ready_file_ends_the_container() {
    let exit = end_of(&Machine::with_script(), spec("damaged")).await;
    assert_eq!(exit.kind, ExitKind::Signal(9));
}

#[tokio::test]
async fn the_deaf_are_killed_after_their_grace() {
    let machine = Machine::with_script();
    let backend = machine.backend();
    let mut facts = backend.facts();
    backend.launch(spec("deaf")).await.unwrap();
    assert!(matches!(next(&mut facts).await, Fact::Ready { .. }));
    backend.stop(&spec("deaf").container, Duration::from_millis(50)).await.unwrap();
    assert_eq!(machine.processes(), [0; 0]);
}

#[tokio::test]
async fn a_missing_program_is_refused_by_its_path_and_leaves_nothing() {
    let mut machine = Machine::with_script();
    machine.program = "/nowhere/server".into();
    let Err(BackendError::Refused { doing, source }) = machine.backend().launch(spec("one")).await
    else {
        panic!("not refused")
    };
    assert_eq!(doing, "launch container `one`");
    assert_eq!(source.to_string(), "run `/nowhere/server`");
    assert_eq!(machine.container_dirs().len(), 0);
    assert!(!machine.backend().diagnose().await.usable);
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_is_refused() {
    let machine = Machine::with_script();
    fs::write(machine.state_dir(), "a file").unwrap();
    let answer = machine.backend().launch(spec("one")).await;
    assert!(matches!(&answer, Err(BackendError::Refused { .. })), "{answer:?}");
}

#[tokio::test]
async fn a_container_that_died_meanwhile_is_removed_and_told_as_vanished() {
    let machine = Machine::with_script();
    let first = machine.backend();
    let mut facts = first.facts();
    first.launch(spec("one")).await.unwrap();
    assert!(matches!(next(&mut facts).await, Fact::Ready { .. }));
    drop(first);
    machine.kill(&spec("one").container);

    let second = machine.backend();
    let mut facts = second.facts();
    assert_eq!(second.list("conformance").await.unwrap(), []);
    let Fact::Gone { exit, .. } = next(&mut facts).await else { panic!("not gone") };
    assert_eq!(exit.kind, ExitKind::Vanished);
    assert_eq!(machine.container_dirs().len(), 0);
}

#[tokio::test]
async fn a_launch_that_was_cut_off_is_found_by_its_command_line() {
    let machine = Machine::with_script();
    let first = machine.backend();
    let mut facts = first.facts();
    first.launch(spec("one")).await.unwrap();
    assert!(matches!(next(&mut facts).await, Fact::Ready { .. }));
    drop(first);
    // As it is when the pool is killed right after it started the process.
    let record = machine.container_dirs()[0].join("container.json");
    let mut text: serde_json::Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    let pid = text["process"].take()["pid"].clone();
    fs::write(&record, text.to_string()).unwrap();

    let second = machine.backend();
    assert_eq!(second.list("conformance").await.unwrap().len(), 1);
    let text: serde_json::Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    assert_eq!(text["process"]["pid"], pid);
    second.stop(&spec("one").container, GRACE).await.unwrap();
    assert_eq!(machine.processes(), [0; 0]);
}

#[tokio::test]
async fn one_unreadable_container_does_not_hide_the_others() {
    let machine = Machine::with_script();
    let backend = machine.backend();
    backend.launch(spec("one")).await.unwrap();
    let strange = machine.container_dirs()[0].with_file_name("strange");
    fs::create_dir(&strange).unwrap();
    fs::write(strange.join("container.json"), "{}").unwrap();
    let later = machine.container_dirs()[0].with_file_name("later");
    fs::create_dir(&later).unwrap();
    let mut of_later =
        fs::read_to_string(strange.with_file_name("one").join("container.json")).unwrap();
    of_later = of_later.replace("\"format\":1", "\"format\":99");
    fs::write(later.join("container.json"), of_later).unwrap();
    let seen = backend.list("conformance").await.unwrap();
    assert_eq!(seen.len(), 1);
    assert!(!strange.exists(), "debris without a process is removed");
    assert!(later.exists(), "what a newer version wrote is left alone");
    backend.stop(&spec("one").container, GRACE).await.unwrap();
}

#[tokio::test]
async fn files_that_resist_are_removed_with_their_container() {
    let machine = Machine::with_script();
    let backend = machine.backend();
    backend.launch(spec("one")).await.unwrap();
    let locked = machine.container_dirs()[0].join("data/locked");
    fs::create_dir(&locked).unwrap();
    fs::write(locked.join("file"), "x").unwrap();
    fs::set_permissions(&locked, Permissions::from_mode(0o000)).unwrap();
    backend.stop(&spec("one").container, GRACE).await.unwrap();
    assert_eq!(machine.container_dirs().len(), 0);
}

#[tokio::test]
async fn a_launch_goes_on_when_its_caller_goes_away() {
    let machine = Machine::with_script();
    let backend = machine.backend();
    let mut facts = backend.facts();
    {
        let mut launch = backend.launch(spec("one"));
        // Polled once: it has begun.
        assert!(futures_util::poll!(&mut launch).is_pending());
    }
    assert!(matches!(next(&mut facts).await, Fact::Ready { .. }));
    backend.stop(&spec("one").container, GRACE).await.unwrap();
}

#[tokio::test]
async fn only_the_owner_reads_a_record() {
    let machine = Machine::with_script();
    let backend = machine.backend();
    backend.launch(spec("one")).await.unwrap();
    let dir = &machine.container_dirs()[0];
    for (file, mode) in [("container.json", 0o600), ("container.log", 0o600)] {
        let permissions = fs::metadata(dir.join(file)).unwrap().permissions();
        assert_eq!(permissions.mode() & 0o777, mode, "{file}");
    }
    assert_eq!(fs::metadata(dir).unwrap().permissions().mode() & 0o066, 0);
    backend.stop(&spec("one").container, GRACE).await.unwrap();
}
