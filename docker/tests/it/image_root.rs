//! An image with a repository in it, as evaluations of software work have them: each slot is root in
//! the whole of it, and what it changes goes with its lease.

use crate::{
    house::{DEBIAN, House, docker, next, ready, spec},
    serving::{health, output_of, reset},
};
use slotmux_backend::{Backend as _, Fact, LaunchSpec};
use slotmux_docker::Walls;
use slotmux_protocol::Root;
use std::time::Duration;

/// Removed when it goes.
struct Image(String);

impl Image {
    /// Debian, and what `command` makes of it.
    fn made_by(house: &House, command: &str) -> Self {
        let name = format!("slotmux-test:{}", house.settings.owner);
        let label = format!("slotmux.owner={}", house.settings.owner);
        let made = ["run", "--detach", "--label", &label, DEBIAN, "sh", "-ec", command];
        let id = docker(&made).expect("a container for the image");
        assert_eq!(docker(&["wait", &id]).as_deref(), Ok("0"), "the image is made");
        docker(&["commit", &id, &name]).expect("the image");
        docker(&["rm", &id]).expect("the container goes");
        Self(name)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Its containers go before it does.
        let _ = docker(&["image", "rm", "--force", &self.0]);
    }
}

#[tokio::test]
async fn two_slots_work_on_the_repository_of_one_image_and_the_next_lease_sees_the_original() {
    let Some(mut house) = House::open("image root") else { return };
    let image = Image::made_by(
        &house,
        "mkdir -p /testbed/src && seq 2000 > /testbed/src/lines && chown -R 1000:1000 /testbed
         for i in $(seq 1500); do echo $i > /testbed/src/$i; done",
    );
    house.settings.default.image.clone_from(&image.0);
    for walls in [Walls::Ordinary, Walls::Namespaces] {
        house.settings.default.walls = walls;
        serve_both(&house).await;
    }
    drop(house);
    drop(image);
}

async fn serve_both(house: &House) {
    let backend = house.backend();
    let mut facts = backend.facts();
    let spec = LaunchSpec { root: Root::Image, slots: 2, ..spec("c-1") };
    backend.launch(spec.clone()).await.unwrap();
    let address = ready(&mut facts).await;
    let health = health(&address).await;
    assert_eq!((&health["isolation"], &health["root"]), (&"namespaces".into(), &"image".into()));
    assert_eq!(health["image"]["by"], "parts", "{health}");

    let look = "tail -n 1 /testbed/src/lines; stat -c %u:%g /testbed/src/lines; ls /usr/share/base-files | wc -w
                ls -d /opt/own /root/own /tmp/own /testbed/new 2> /dev/null; cat /testbed/src/7";
    let original = output_of(&address, 0, look).await;
    assert!(original.starts_with("2000\n1000:1000\n") && original.ends_with("\n7"), "{original}");
    let work = |name: &str| {
        format!(
            "echo {name} >> /testbed/src/lines && chown 0:0 /testbed/src/lines && echo {name} > /testbed/new
             rm -rf /usr/share/base-files /testbed/src/7; mkdir -p /opt/own /root/own && touch /tmp/own
             printf '#!/bin/sh\necho {name}\n' > /usr/bin/own && chmod +x /usr/bin/own && id -u"
        )
    };
    for (slot, name) in [(0, "first"), (1, "second")] {
        assert_eq!(output_of(&address, slot, &work(name)).await, "0");
    }
    let seen =
        "tail -n 1 /testbed/src/lines; stat -c %u:%g /testbed/src/lines; cat /testbed/new; own
                ls -d /testbed/src/7 /usr/share/base-files 2> /dev/null | wc -l";
    for (slot, name) in [(0, "first"), (1, "second")] {
        let seen = output_of(&address, slot, seen).await;
        assert_eq!(seen, format!("{name}\n0:0\n{name}\n{name}\n0"));
    }
    reset(&address, 0).await;
    assert_eq!(output_of(&address, 0, look).await, original);
    assert_eq!(output_of(&address, 1, "own").await, "second");

    backend.stop(&spec.container, Duration::from_secs(10)).await.unwrap();
    while !matches!(next(&mut facts).await, Fact::Gone { .. }) {}
    assert_eq!(house.leftovers(), Vec::<String>::new());
}
