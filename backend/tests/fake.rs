//! The fake misbehaves exactly as it is told.

use slotmux_backend::{
    Address, Backend, BackendError, ExitKind, Fact, Phase,
    conformance::spec,
    fake::{Answer, Call, FakeRuntime},
};
use std::time::Duration;

fn runtime() -> FakeRuntime {
    FakeRuntime::new(|container| Address {
        authority: format!("{container}:1"),
        token: String::new(),
    })
}

fn kind(fact: &Fact) -> &'static str {
    match fact {
        Fact::Ready { .. } => "ready",
        Fact::Gone { .. } => "gone",
    }
}

#[tokio::test]
async fn a_lost_answer_tells_nothing_of_what_happened() {
    let runtime = runtime();
    let backend = runtime.backend();
    runtime.answer_next(Call::Launch, Answer::LostBeforeEffect);
    runtime.answer_next(Call::Launch, Answer::LostAfterEffect);
    for exist in [0, 1] {
        let answer = backend.launch(spec("one")).await;
        assert!(matches!(answer, Err(BackendError::Unknown { .. })), "{answer:?}");
        assert_eq!(runtime.containers().len(), exist);
    }
    runtime.answer_next(Call::Stop, Answer::Refused);
    let answer = backend.stop(&spec("one").container, Duration::ZERO).await;
    assert!(matches!(answer, Err(BackendError::Refused { .. })), "{answer:?}");
    assert_eq!(runtime.containers().len(), 1);
}

#[tokio::test]
async fn a_held_launch_is_starting_until_the_test_says_ready() {
    let runtime = runtime();
    let backend = runtime.backend();
    let mut facts = backend.facts();
    runtime.hold_launches();
    backend.launch(spec("one")).await.unwrap();
    assert_eq!(backend.list("conformance").await.unwrap()[0].phase, Phase::Starting);
    assert!(facts.try_recv().is_err());
    runtime.make_ready(&spec("one").container);
    assert_eq!(kind(&facts.recv().await.unwrap()), "ready");
}

#[tokio::test]
async fn facts_can_be_late_and_repeated() {
    let runtime = runtime();
    let backend = runtime.backend();
    let mut facts = backend.facts();
    runtime.hold_facts();
    runtime.repeat_facts(1);
    backend.launch(spec("one")).await.unwrap();
    runtime.vanish(&spec("one").container);
    assert!(facts.try_recv().is_err());
    runtime.tell_held_facts();
    let mut told = Vec::new();
    while let Ok(fact) = facts.try_recv() {
        told.push(kind(&fact));
    }
    assert_eq!(told, ["ready", "ready", "gone", "gone"]);
}

#[tokio::test]
async fn a_stranger_hears_nothing_before_it_lists() {
    let runtime = runtime();
    let (owner, stranger) = (runtime.backend(), runtime.backend());
    let mut facts = stranger.facts();
    owner.launch(spec("one")).await.unwrap();
    assert!(facts.try_recv().is_err());
    stranger.list("conformance").await.unwrap();
    runtime.kill(&spec("one").container);
    let Some(Fact::Gone { exit, .. }) = facts.recv().await else { panic!("not told") };
    assert_eq!(exit.kind, ExitKind::Signal(9));
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_ends_its_own_container_and_no_later_one_of_that_name() {
    let runtime = runtime();
    let backend = runtime.backend();
    backend.launch(spec("one")).await.unwrap();
    tokio::time::sleep(Duration::from_mins(30)).await;
    backend.stop(&spec("one").container, Duration::ZERO).await.unwrap();
    backend.launch(spec("one")).await.unwrap();
    tokio::time::sleep(Duration::from_mins(45)).await;
    assert_eq!(runtime.containers().len(), 1);
    tokio::time::sleep(Duration::from_mins(16)).await;
    assert_eq!(runtime.containers().len(), 0);
}

#[tokio::test]
async fn a_test_can_wait_for_what_a_pool_does() {
    let runtime = runtime();
    let backend = runtime.backend();
    let waiting = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.until(|it| it.launched() == 2).await }
    });
    backend.launch(spec("one")).await.unwrap();
    backend.launch(spec("two")).await.unwrap();
    waiting.await.unwrap();
}
