//! Waiting for ends.

use crate::{
    house::{House, docker},
    low_level::body,
    proxy::Door,
};
use slotmux_backend::conformance::LIMIT;
use slotmux_docker::{Ended, Engine, Until};
use tokio::time::timeout;

/// As the engine knows it.
fn with(code: i64) -> Ended {
    Ended { code, out_of_memory: false, error: String::new() }
}

async fn end(engine: &Engine, id: &str, until: Until) -> Option<Ended> {
    timeout(LIMIT, engine.wait(id, until)).await.expect("an end in time").unwrap()
}

#[tokio::test]
async fn an_end_is_told_with_its_code_whenever_one_begins_to_wait() {
    let Some(house) = House::open("wait") else { return };
    let engine = house.engine();
    let body = body(&house, &["/bin/sh", "-c", "read -r line; exit 5"]);
    let id = engine.create(&house.settings.owner, body).await.unwrap();
    let run = async {
        let mut attached = engine.attach(&id).await.unwrap();
        engine.start(&id).await.unwrap();
        tokio::io::AsyncWriteExt::shutdown(&mut attached.input).await.unwrap();
    };
    // One waits from before its start on.
    let (before, ()) = tokio::join!(end(&engine, &id, Until::Ended), run);
    assert_eq!(before, Some(with(5)));
    assert_eq!(end(&engine, &id, Until::Ended).await, Some(with(5)), "it has ended already");
    let remove = async { docker(&["rm", &id]).unwrap() };
    let (removed, _) = tokio::join!(end(&engine, &id, Until::Removed), remove);
    assert!(removed.as_ref().is_none_or(|it| *it == with(5)), "{removed:?}");
    assert_eq!(end(&engine, &id, Until::Ended).await, None, "nobody knows it any more");
}

#[tokio::test]
async fn an_end_during_a_cut_is_told_when_the_engine_is_back() {
    let Some(house) = House::open("wait over a cut") else { return };
    let door = Door::open();
    let engine = Engine::new(Some(&door.host()));
    let direct = house.engine();
    let body = body(&house, &["/bin/sh", "-c", "read -r line; exit 6"]);
    let id = engine.create(&house.settings.owner, body).await.unwrap();
    engine.start(&id).await.unwrap();
    let cut = async {
        door.waits(1).await;
        door.shut().await;
        direct.kill(&id).await.unwrap();
        docker(&["wait", &id]).unwrap();
        door.open_again();
    };
    let (told, ()) = tokio::join!(end(&engine, &id, Until::Ended), cut);
    assert_eq!(told, Some(with(137)));
    engine.remove(&id).await.unwrap();

    door.shut().await;
    assert!(engine.wait(&id, Until::Ended).await.is_err(), "who asks a dead engine hears it");
}
