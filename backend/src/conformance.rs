//! What every backend promises, as tests: one suite for the fake and for each real one.
//!
//! A backend's tests implement [`Harness`] for its runtime and expand [`conformance_suite!`]; each
//! promise becomes a test of its own, with a harness of its own.
//!
//! [`conformance_suite!`]: crate::conformance_suite

mod harness;

pub use harness::{Harness, LIMIT, spec};

use crate::{Backend, BackendError, ExitKind, Fact, Phase, Seen};
use harness::{Watch, id};
use slotmux_protocol::ContainerId;
use std::{future::Future, time::Duration};

/// Makes a `#[tokio::test]` of each promise. The argument is an expression that makes a
/// [`Harness`] of a fresh runtime.
#[macro_export]
macro_rules! conformance_suite {
    ($harness:expr) => {
        $crate::conformance_suite!(
            @each $harness;
            a_launched_container_becomes_ready_with_an_address
            the_same_name_twice_is_one_container
            the_same_name_at_the_same_time_is_one_container
            a_list_shows_the_own_pool_only
            stopping_is_idempotent_and_is_told_as_stopped
            a_container_that_is_still_starting_can_be_stopped
            a_name_that_was_stopped_can_be_launched_again
            a_container_that_was_killed_is_told_as_gone
            logs_are_bounded
            a_new_backend_object_adopts_what_runs
            one_subscriber_at_a_time_hears_facts
            a_lifetime_ends_a_container_by_itself
            many_at_once_leave_nothing_behind
            a_hostile_name_harms_nobody
            a_diagnosis_says_what_was_looked_at
        );
    };
    (@each $harness:expr; $($promise:ident)*) => {
        $(
            #[tokio::test]
            async fn $promise() {
                $crate::conformance::$promise($harness).await;
            }
        )*
    };
}

const GRACE: Duration = Duration::from_secs(5);

pub async fn a_launched_container_becomes_ready_with_an_address<H: Harness>(harness: H) {
    let backend = harness.backend().await;
    let mut watch = Watch::of(&backend);
    backend.launch(spec("one")).await.expect("launch");
    let address = watch.ready(&id("one")).await;
    assert!(address.authority.contains(':'), "`{}` is no host:port", address.authority);
    assert!(!address.token.is_empty(), "a container needs a token of its own");
    let seen = one(backend.list("conformance").await.expect("list"));
    assert_eq!(seen.phase, Phase::Ready(address));
    assert_eq!((seen.slots, seen.labels), (spec("one").slots, spec("one").labels));
    end(&harness, &backend, &["one"]).await;
}

pub async fn the_same_name_twice_is_one_container<H: Harness>(harness: H) {
    let backend = harness.backend().await;
    let mut watch = Watch::of(&backend);
    backend.launch(spec("one")).await.expect("launch");
    let address = watch.ready(&id("one")).await;
    backend.launch(spec("one")).await.expect("launch what is there");
    assert_eq!(watch.ready(&id("one")).await, address, "its address is told again, unchanged");
    one(backend.list("conformance").await.expect("list"));
    end(&harness, &backend, &["one"]).await;
}

pub async fn the_same_name_at_the_same_time_is_one_container<H: Harness>(harness: H) {
    let backend = harness.backend().await;
    let mut watch = Watch::of(&backend);
    let (first, second) = tokio::join!(backend.launch(spec("one")), backend.launch(spec("one")));
    first.and(second).expect("launch twice");
    watch.ready(&id("one")).await;
    one(backend.list("conformance").await.expect("list"));
    end(&harness, &backend, &["one"]).await;
}

pub async fn a_list_shows_the_own_pool_only<H: Harness>(harness: H) {
    let backend = harness.backend().await;
    let mut watch = Watch::of(&backend);
    let mut other = spec("other");
    other.labels.pool = String::from("another pool");
    backend.launch(spec("own")).await.expect("launch");
    backend.launch(other).await.expect("launch");
    watch.ready(&id("own")).await;
    watch.ready(&id("other")).await;
    let own = one(backend.list("conformance").await.expect("list"));
    assert_eq!(own.container, id("own"));
    let other = one(backend.list("another pool").await.expect("list"));
    assert_eq!(other.container, id("other"));
    assert!(backend.list("nobody").await.expect("list").is_empty());
    backend.stop(&id("other"), GRACE).await.expect("stop");
    end(&harness, &backend, &["own"]).await;
}

pub async fn stopping_is_idempotent_and_is_told_as_stopped<H: Harness>(harness: H) {
    let backend = harness.backend().await;
    let mut watch = Watch::of(&backend);
    backend.stop(&id("never there"), GRACE).await.expect("stop what never was");
    backend.launch(spec("one")).await.expect("launch");
    watch.ready(&id("one")).await;
    backend.stop(&id("one"), GRACE).await.expect("stop");
    assert!(backend.list("conformance").await.expect("list").is_empty());
    backend.stop(&id("one"), GRACE).await.expect("stop again");
    assert_eq!(watch.gone(&id("one")).await.kind, ExitKind::Stopped);
    // Whatever else was told of it came before this one is ready.
    backend.launch(spec("two")).await.expect("launch");
    watch.ready(&id("two")).await;
    for fact in watch.told(&id("one")) {
        let stopped = matches!(&fact, Fact::Gone { exit, .. } if exit.kind == ExitKind::Stopped);
        assert!(stopped, "told after its stop: {fact:?}");
    }
    end(&harness, &backend, &["two"]).await;
}

pub async fn a_container_that_is_still_starting_can_be_stopped<H: Harness>(harness: H) {
    let backend = harness.backend().await;
    let mut watch = Watch::of(&backend);
    backend.launch(spec("one")).await.expect("launch");
    backend.stop(&id("one"), GRACE).await.expect("stop");
    assert_eq!(watch.gone(&id("one")).await.kind, ExitKind::Stopped);
    end(&harness, &backend, &[]).await;
}

pub async fn a_name_that_was_stopped_can_be_launched_again<H: Harness>(harness: H) {
    let backend = harness.backend().await;
    let mut watch = Watch::of(&backend);
    for _ in 0..2 {
        backend.launch(spec("one")).await.expect("launch");
        watch.ready(&id("one")).await;
        backend.stop(&id("one"), GRACE).await.expect("stop");
        watch.gone(&id("one")).await;
    }
    end(&harness, &backend, &[]).await;
}

pub async fn a_container_that_was_killed_is_told_as_gone<H: Harness>(harness: H) {
    let backend = harness.backend().await;
    let mut watch = Watch::of(&backend);
    backend.launch(spec("one")).await.expect("launch");
    watch.ready(&id("one")).await;
    harness.kill(&id("one")).await;
    let exit = watch.gone(&id("one")).await;
    assert_ne!(exit.kind, ExitKind::Stopped, "nobody asked for it: {}", exit.reason);
    assert!(!exit.reason.is_empty());
    assert!(backend.list("conformance").await.expect("list").is_empty());
    end(&harness, &backend, &["one"]).await;
}

pub async fn logs_are_bounded<H: Harness>(harness: H) {
    let backend = harness.backend().await;
    let mut watch = Watch::of(&backend);
    backend.launch(spec("one")).await.expect("launch");
    watch.ready(&id("one")).await;
    let printed = harness.print(&id("one")).await;
    let log = logged(&backend, &printed).await;
    let end_of_log = backend.logs(&id("one"), 8).await.expect("logs");
    assert!(end_of_log.len() <= 8 && log.ends_with(&end_of_log), "`{end_of_log}` of `{log}`");
    assert_eq!(backend.logs(&id("one"), 0).await.expect("logs"), "");
    let unknown = backend.logs(&id("never there"), 8).await;
    assert!(matches!(unknown, Err(BackendError::Refused { .. })), "{unknown:?}");
    end(&harness, &backend, &["one"]).await;
}

pub async fn a_new_backend_object_adopts_what_runs<H: Harness>(harness: H) {
    let first = harness.backend().await;
    let mut watch = Watch::of(&first);
    first.launch(spec("kept")).await.expect("launch");
    first.launch(spec("killed")).await.expect("launch");
    let address = watch.ready(&id("kept")).await;
    watch.ready(&id("killed")).await;
    drop(first);
    watch.ends().await;

    let second = harness.backend().await;
    let mut watch = Watch::of(&second);
    let mut seen = second.list("conformance").await.expect("list");
    seen.sort_by(|a, b| a.container.cmp(&b.container));
    let names: Vec<_> = seen.iter().map(|it| it.container.as_str()).collect();
    assert_eq!(names, ["kept", "killed"]);
    assert_eq!(seen[0].phase, Phase::Ready(address));
    assert_eq!(seen[0].labels, spec("kept").labels);
    harness.kill(&id("killed")).await;
    assert_ne!(watch.gone(&id("killed")).await.kind, ExitKind::Stopped);
    second.stop(&id("kept"), GRACE).await.expect("stop");
    assert_eq!(watch.gone(&id("kept")).await.kind, ExitKind::Stopped);
    end(&harness, &second, &["killed"]).await;
}

pub async fn one_subscriber_at_a_time_hears_facts<H: Harness>(harness: H) {
    let backend = harness.backend().await;
    let first = Watch::of(&backend);
    let mut second = Watch::of(&backend);
    first.ends().await;
    backend.launch(spec("one")).await.expect("launch");
    second.ready(&id("one")).await;
    end(&harness, &backend, &["one"]).await;
    drop(backend);
    second.ends().await;
}

pub async fn a_lifetime_ends_a_container_by_itself<H: Harness>(harness: H) {
    let backend = harness.backend().await;
    let mut watch = Watch::of(&backend);
    let mut short = spec("one");
    short.lifetime = harness.lifetime_min();
    backend.launch(short).await.expect("launch");
    let exit = watch.gone(&id("one")).await;
    assert_ne!(exit.kind, ExitKind::Stopped, "nobody asked for it: {}", exit.reason);
    end(&harness, &backend, &["one"]).await;
}

pub async fn many_at_once_leave_nothing_behind<H: Harness>(harness: H) {
    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let backend = harness.backend().await;
    let mut watch = Watch::of(&backend);
    together(NAMES.map(|name| backend.launch(spec(name)))).await;
    for name in NAMES {
        watch.ready(&id(name)).await;
    }
    assert_eq!(backend.list("conformance").await.expect("list").len(), NAMES.len());
    let ids = NAMES.map(id);
    together(ids.each_ref().map(|id| backend.stop(id, GRACE))).await;
    end(&harness, &backend, &[]).await;
}

/// Either it runs under that name or it is refused; nothing is written where it does not belong.
pub async fn a_hostile_name_harms_nobody<H: Harness>(harness: H) {
    let backend = harness.backend().await;
    let mut watch = Watch::of(&backend);
    let long = "n".repeat(250);
    for name in ["../../escape", ".", "..", "a/b", "-rf", "ü 名", "%2e%2e", &long] {
        match backend.launch(spec(name)).await {
            Ok(()) => {
                watch.ready(&id(name)).await;
                let seen = one(backend.list("conformance").await.expect("list"));
                assert_eq!(seen.container, id(name));
            }
            Err(error) => assert!(matches!(error, BackendError::Refused { .. }), "{error:?}"),
        }
        backend.stop(&id(name), GRACE).await.expect("stop");
    }
    end(&harness, &backend, &[]).await;
}

pub async fn a_diagnosis_says_what_was_looked_at<H: Harness>(harness: H) {
    let backend = harness.backend().await;
    let diagnosis = backend.diagnose().await;
    assert!(diagnosis.usable, "{diagnosis:?}");
    assert!(!diagnosis.findings.is_empty());
    assert!(!backend.name().is_empty());
}

/// Stops `names` (also those that are gone already) and sees that nothing is left.
async fn end<H: Harness>(harness: &H, backend: &H::Backend, names: &[&str]) {
    for name in names {
        backend.stop(&id(name), GRACE).await.expect("stop");
    }
    assert!(backend.list("conformance").await.expect("list").is_empty());
    let left = harness.leftovers().await;
    assert!(left.is_empty(), "left behind: {left:#?}");
}

async fn together(calls: impl IntoIterator<Item: Future<Output = Result<(), BackendError>>>) {
    for answer in futures_util::future::join_all(calls).await {
        answer.expect("call");
    }
}

/// The whole log, once it holds what was printed.
async fn logged(backend: &impl Backend, printed: &str) -> String {
    let read = async {
        loop {
            let log = backend.logs(&id("one"), 1 << 20).await.expect("logs");
            if log.contains(printed) {
                return log;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, read).await.expect("what was printed is in the log")
}

fn one(seen: Vec<Seen>) -> Seen {
    let names: Vec<ContainerId> = seen.iter().map(|it| it.container.clone()).collect();
    let [seen] = <[Seen; 1]>::try_from(seen).unwrap_or_else(|_| panic!("not one: {names:?}"));
    seen
}
