//! What the engine knows of images, and of containers that run.

use crate::{
    house::{House, SCRATCH, docker},
    low_level::body,
    proxy::Door,
};
use futures_util::StreamExt;
use slotmux_backend::conformance::LIMIT;
use slotmux_docker::{Engine, Stats};
use std::time::{Duration, SystemTime};
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn images_are_found_by_label_and_looked_up_with_what_they_say() {
    let Some(house) = House::open("images by label") else { return };
    let engine = house.engine();
    let owner = &house.settings.owner;
    let tag = format!("slotmux-test:{owner}");
    let made = docker(&["create", SCRATCH, "true"]).unwrap();
    let label = format!("LABEL slotmux.test={owner}");
    let changes = [&*label, "EXPOSE 8080 53/udp"];
    let changes = changes.iter().flat_map(|change| ["--change", change]);
    let commit: Vec<&str> = ["commit"].into_iter().chain(changes).chain([&*made, &*tag]).collect();
    let id = docker(&commit).unwrap();
    docker(&["rm", &made]).unwrap();

    let images = engine.images_with_label(&format!("slotmux.test={owner}")).await.unwrap();
    let [image] = &images[..] else { panic!("{images:?}") };
    assert_eq!((&image.id, &image.tags[..]), (&id, &[tag.clone()][..]));
    assert_eq!(image.labels["slotmux.test"], *owner);
    let age = SystemTime::now().duration_since(image.created).unwrap_or_default();
    assert!(age < Duration::from_hours(1), "{age:?}");
    let with_any = engine.images_with_label("slotmux.test").await.unwrap();
    assert!(with_any.iter().any(|it| it.id == id));

    let found = engine.find_image(&tag).await.unwrap().unwrap();
    assert_eq!(
        (&found.image, &found.exposed_ports[..]),
        (image, &["53/udp".to_owned(), "8080/tcp".to_owned()][..])
    );
    docker(&["rmi", &tag]).unwrap();
    assert_eq!(engine.find_image(&tag).await.unwrap(), None);
}

#[tokio::test]
async fn a_container_that_works_uses_more_and_more_of_the_processors() {
    let Some(house) = House::open("statistics") else { return };
    let engine = house.engine();
    let body = body(&house, &["/bin/sh", "-c", "while :; do :; done"]);
    let id = engine.create(&house.settings.owner, body).await.unwrap();
    let idle = engine.stats(&id).await.unwrap();
    assert_eq!((idle.cpu_ns, idle.tasks), (0, 0), "it does not run");
    assert_eq!(engine.find(&id).await.unwrap().unwrap().pid, None);
    engine.start(&id).await.unwrap();
    let pid = engine.find(&id).await.unwrap().unwrap().pid.expect("it runs");
    assert!(pid > 1);

    let mut watched = engine.watch_stats(&id).await.unwrap();
    let mut last = Stats::default();
    for _ in 0..3 {
        let next = timeout(LIMIT, watched.next()).await.expect("a look in time").unwrap().unwrap();
        assert!(next.cpu_ns > last.cpu_ns, "{next:?} after {last:?}");
        assert!(next.memory_bytes > 0 && next.tasks >= 1, "{next:?}");
        last = next;
    }
    assert!(engine.stats(&id).await.unwrap().cpu_ns >= last.cpu_ns);
    engine.kill(&id).await.unwrap();
    let to_the_end = async { while watched.next().await.is_some_and(|it| it.is_ok()) {} };
    timeout(LIMIT, to_the_end).await.expect("the stream ends with the container");
    engine.remove(&id).await.unwrap();
    assert!(engine.stats(&id).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn calls_share_the_connections_that_are_kept() {
    let Some(house) = House::open("kept connections") else { return };
    let door = Door::open();
    let engine = Engine::new(Some(&door.host()));
    for _ in 0..50 {
        engine.find("slotmux-none-such").await.unwrap();
        engine.list("slotmux.none-such").await.unwrap();
    }
    assert_eq!(door.connections(), 1, "one after the other");
    let together = (0..10).map(|_| engine.list("slotmux.none-such"));
    for listed in futures_util::future::join_all(together).await {
        listed.unwrap();
    }
    assert!(door.connections() <= 10, "{} connections", door.connections());

    let before = door.connections();
    let id = engine.create(&house.settings.owner, body(&house, &["/bin/sh"])).await.unwrap();
    let attached = engine.attach(&id).await.unwrap();
    assert!(engine.remove(&id).await.unwrap());
    drop(attached);
    assert!(door.connections() <= before + 1, "an attached stream has its own");
    door.shut().await;
    engine.info().await.expect_err("the door is shut");
    door.open_again();
    // What was kept is cut: that is no reason to fail.
    let back = async {
        while engine.info().await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, back).await.expect("it is back");
}
