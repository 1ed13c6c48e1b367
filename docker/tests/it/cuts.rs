//! The connection to the engine is cut, and nothing is lost by it.

use crate::{
    house::{House, SCRATCH, docker, gone, next, ready, spec},
    proxy::Door,
};
use slotmux_backend::{Backend, BackendError, ExitKind, Fact, conformance::LIMIT};
use slotmux_docker::{Engine, News, NewsFeed, Selector};
use std::time::Duration;
use tokio::time::timeout;

const GRACE: Duration = Duration::from_secs(10);

/// Runs to its end, behind the door.
fn run(house: &House) -> String {
    let label = format!("slotmux.owner={}", house.settings.owner);
    let id = docker(&["create", "--label", &label, SCRATCH, "/bin/sh", "-c", "exit 3"]).unwrap();
    docker(&["start", &id]).unwrap();
    assert_eq!(docker(&["wait", &id]).unwrap(), "3");
    id
}

/// News up to the end of container `id`.
async fn news_until(feed: &mut NewsFeed, id: &str) -> Vec<News> {
    let mut told = Vec::new();
    let all = async {
        loop {
            let news = feed.next().await;
            let found = matches!(&news, News::Event(event) if event.id == id);
            told.push(news);
            if found {
                return;
            }
        }
    };
    // For all of them together: an engine that tells something else all the time is no better.
    let heard = timeout(LIMIT, all).await;
    assert!(heard.is_ok(), "nothing of {id}: {told:?}");
    told
}

#[tokio::test]
async fn events_from_before_during_and_after_a_cut_are_all_told() {
    let Some(house) = House::open("a stream of events that is cut") else { return };
    let door = Door::open();
    let label = "slotmux.owner".to_owned();
    let value = house.settings.owner.clone();
    let mut feed =
        Engine::new(Some(&door.host())).events(Selector { label, value, actions: &["die"] });
    assert_eq!(timeout(LIMIT, feed.next()).await.unwrap(), News::LookAgain);
    door.listens(1).await;

    let told = news_until(&mut feed, &run(&house)).await;
    let [News::Event(event)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((&*event.action, &*event.attributes["exitCode"]), ("die", "3"));

    door.shut().await;
    let during = [run(&house), run(&house)];
    door.open_again();
    for id in &during {
        let told = news_until(&mut feed, id).await;
        assert_eq!(told.contains(&News::LookAgain), *id == during[0], "{told:?}");
    }

    let told = news_until(&mut feed, &run(&house)).await;
    assert!(!told.contains(&News::LookAgain), "the new stream holds: {told:?}");
}

#[tokio::test]
async fn containers_that_ended_during_a_cut_are_told_with_how_they_ended() {
    let Some(mut house) = House::open("ends during a cut") else { return };
    let door = Door::open();
    house.settings.host = Some(door.host());
    let backend = house.backend();
    let mut facts = backend.facts();
    for name in ["killed", "removed", "kept"] {
        backend.launch(spec(name)).await.unwrap();
        ready(&mut facts).await;
    }
    door.listens(1).await;
    door.shut().await;
    docker(&["kill", &house.id(&spec("killed").container)]).unwrap();
    docker(&["rm", "--force", &house.id(&spec("removed").container)]).unwrap();
    let unanswered = backend.stop(&spec("kept").container, GRACE).await;
    assert!(
        matches!(&unanswered, Err(BackendError::Unavailable { .. } | BackendError::Unknown { .. })),
        "{unanswered:?}"
    );
    door.open_again();

    let mut ends = Vec::new();
    while ends.len() < 2 {
        if let Fact::Gone { container, exit } = next(&mut facts).await {
            ends.push((container.to_string(), exit.kind));
        }
    }
    ends.sort_by(|a, b| a.0.cmp(&b.0));
    let [(killed, how), (removed, vanished)] = &ends[..] else { panic!("{ends:?}") };
    assert_eq!((&**killed, *how), ("killed", ExitKind::Signal(9)));
    assert_eq!((&**removed, *vanished), ("removed", ExitKind::Vanished));

    let seen = backend.list("conformance").await.unwrap();
    let names: Vec<_> = seen.iter().map(|it| it.container.as_str()).collect();
    assert_eq!(names, ["kept"], "silence is no end");
    backend.stop(&spec("kept").container, GRACE).await.unwrap();
    assert_eq!(gone(&mut facts).await.kind, ExitKind::Stopped);
    backend.stop(&spec("killed").container, GRACE).await.unwrap();
    backend.stop(&spec("removed").container, GRACE).await.unwrap();
    assert_eq!(house.leftovers(), [""; 0], "its volume neither");
}

#[tokio::test]
async fn a_launch_without_an_answer_is_found_by_a_list_or_done_again() {
    let Some(mut house) = House::open("a launch without an answer") else { return };
    let door = Door::open();
    house.settings.host = Some(door.host());
    let backend = house.backend();
    let mut facts = backend.facts();
    backend.list("conformance").await.unwrap();
    door.shut().await;
    let unanswered = backend.launch(spec("one")).await;
    assert!(unanswered.is_err(), "{unanswered:?}");
    door.open_again();
    backend.launch(spec("one")).await.unwrap();
    ready(&mut facts).await;
    assert_eq!(backend.list("conformance").await.unwrap().len(), 1);
    backend.stop(&spec("one").container, GRACE).await.unwrap();
    assert_eq!(house.leftovers(), [""; 0]);
}

#[tokio::test]
async fn what_nobody_has_removed_in_time_goes_at_the_next_look() {
    let Some(mut house) = House::open("expired containers") else { return };
    let door = Door::open();
    house.settings.host = Some(door.host());
    let backend = house.backend();
    backend.list("conformance").await.unwrap();
    door.listens(1).await;
    let owner = format!("slotmux.owner={}_other", house.settings.owner);
    let create = |expires: &str| {
        let expires = format!("slotmux.expires={expires}");
        docker(&["create", "--label", &owner, "--label", &expires, SCRATCH, "true"]).unwrap()
    };
    let (old, young) = (create("1000"), create("4000000000"));
    door.shut().await;
    door.open_again();
    let gone = async {
        while docker(&["inspect", &old]).is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, gone).await.expect("it goes");
    docker(&["rm", &young]).expect("this has time left");
}
