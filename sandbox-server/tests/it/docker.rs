//! The server in Docker containers: ordinary ones, and those that are given more or less.
//!
//! Needs an engine, which `tests/engine.sh` finds or starts, and the images that it makes. Without
//! one these tests are skipped, and say so.

mod container;
mod image;

use crate::hostile::{TABLE, Target, assail};
use container::{A_USER, Container, DEBIAN, Failed, SCRATCH, engine, is_static};

/// What a container is given, and the rung that this has to be enough for.
struct Given {
    name: &'static str,
    args: &'static [&'static str],
    rung: &'static str,
}

const SHIPPED: &str =
    concat!("seccomp=", env!("CARGO_MANIFEST_DIR"), "/../docker/seccomp/namespaces.json");
/// Writable and executable for everybody: what an operator mounts for a server that is not root.
const DATA: [&str; 2] = ["--tmpfs", "/data:exec,mode=1777"];
const NO_FILTER: [&str; 2] = ["--security-opt", "seccomp=unconfined"];

const ORDINARY: Given = Given { name: "an ordinary container", args: &[], rung: "uid" };
const NO_ROOT: Given = Given {
    name: "a container that is not root",
    args: &["--user", A_USER, DATA[0], DATA[1]],
    rung: "landlock",
};
const UNCONFINED: Given = Given {
    name: "a container that is not root and not confined",
    args: &[
        "--user",
        A_USER,
        DATA[0],
        DATA[1],
        NO_FILTER[0],
        NO_FILTER[1],
        "--security-opt",
        "apparmor=unconfined",
        "--security-opt",
        "systempaths=unconfined",
    ],
    rung: "namespaces",
};
const ROOT_UNCONFINED: Given = Given {
    name: "a container of root that is not confined",
    args: &[
        NO_FILTER[0],
        NO_FILTER[1],
        "--security-opt",
        "apparmor=unconfined",
        "--security-opt",
        "systempaths=unconfined",
    ],
    rung: "namespaces",
};
const SYS_ADMIN: Given = Given {
    name: "a container with the power to mount",
    args: &[
        "--cap-add",
        "SYS_ADMIN",
        NO_FILTER[0],
        NO_FILTER[1],
        "--security-opt",
        "apparmor=unconfined",
    ],
    rung: "namespaces",
};
/// As a profile with `root = "image"` has it.
const ROOT_SHIPPED: Given = Given {
    name: "a container of root with the shipped filter",
    args: &[
        "--volume",
        "/data",
        "--security-opt",
        SHIPPED,
        "--security-opt",
        "apparmor=unconfined",
        "--security-opt",
        "systempaths=unconfined",
    ],
    rung: "namespaces",
};
const PRIVILEGED: Given =
    Given { name: "a privileged container", args: &["--privileged"], rung: "namespaces" };
const READ_ONLY: Given = Given {
    name: "a container that is read-only",
    args: &["--read-only", "--tmpfs", "/data:exec,mode=755"],
    rung: "uid",
};

async fn started(given: &Given, image: &str, args: &[&str]) -> Option<Container> {
    if let Err(why) = engine() {
        println!("skipped: {}: {why}", given.name);
        return None;
    }
    match Container::run(given.args, image, args).await {
        Ok(container) => Some(container),
        // A machine that is a guest itself has not all powers to give.
        Err(Failed::Engine(why)) if given.args.contains(&"--privileged") => {
            println!("skipped: {}: {why}", given.name);
            None
        }
        Err(failed) => panic!("{}: {failed:?}", given.name),
    }
}

/// All groups in one server: whatever one attempt has done to it, the next finds out.
async fn hold(given: &Given) {
    hold_with(given, &[]).await;
}

async fn hold_with(given: &Given, args: &[&str]) {
    let args: Vec<_> = crate::hostile::LIMITS.iter().chain(args).copied().collect();
    let Some(container) = started(given, DEBIAN, &args).await else { return };
    let target = container.target(given.name).await;
    assert_eq!(target.isolation, given.rung, "{}:\n{}", given.name, container.log());
    let mut faults = Vec::new();
    for (group, _) in TABLE {
        faults.extend(assail(&target, group).await);
    }
    container.assert_no_zombies().await;
    container.stop();
    assert!(faults.is_empty(), "not contained in {}:\n{}", given.name, faults.join("\n"));
}

#[tokio::test]
async fn an_ordinary_container_holds() {
    hold(&ORDINARY).await;
}

#[tokio::test]
async fn a_container_that_is_not_root_holds() {
    hold(&NO_ROOT).await;
}

#[tokio::test]
async fn a_container_that_is_not_root_and_not_confined_holds() {
    hold(&UNCONFINED).await;
}

#[tokio::test]
async fn a_container_of_root_that_is_not_confined_holds() {
    hold(&ROOT_UNCONFINED).await;
}

#[tokio::test]
async fn a_container_of_root_whose_image_is_the_slots_root_holds() {
    hold_with(&ROOT_SHIPPED, &image::ROOT).await;
}

#[tokio::test]
async fn a_container_with_the_power_to_mount_holds() {
    hold(&SYS_ADMIN).await;
}

#[tokio::test]
async fn a_privileged_container_holds() {
    hold(&PRIVILEGED).await;
}

#[tokio::test]
async fn every_kind_of_container_serves_on_its_rung_and_stops_when_told_to() {
    for given in [
        ORDINARY,
        NO_ROOT,
        UNCONFINED,
        ROOT_UNCONFINED,
        ROOT_SHIPPED,
        SYS_ADMIN,
        PRIVILEGED,
        READ_ONLY,
    ] {
        let Some(container) = started(&given, DEBIAN, &[]).await else { continue };
        let target = container.target(given.name).await;
        assert_eq!(target.isolation, given.rung, "{}:\n{}", given.name, container.log());
        serves(&target, "/bin/bash").await;
        container.stop();
    }
}

/// There is the executable, and busybox, and nothing else: no glibc, no bash, no /tmp, no /etc.
#[tokio::test]
async fn an_image_of_busybox_alone_serves_on_each_rung() {
    if !is_static() {
        println!("skipped: an image without glibc: SLOTMUX_STATIC_SERVER is not set");
        return;
    }
    for given in [ORDINARY, NO_ROOT, UNCONFINED, ROOT_UNCONFINED, SYS_ADMIN, READ_ONLY] {
        let Some(container) = started(&given, SCRATCH, &[]).await else { continue };
        let target = container.target(given.name).await;
        assert_eq!(target.isolation, given.rung, "{}:\n{}", given.name, container.log());
        serves(&target, "/bin/sh").await;
        container.stop();
    }
}

#[tokio::test]
async fn a_container_without_a_token_says_that_it_needs_one() {
    let Ok(()) = engine() else {
        println!("skipped: no Docker engine");
        return;
    };
    let failed = Container::run_without_token(&[], DEBIAN, &[]).await.err();
    let Some(Failed::Server(log)) = failed else { panic!("{failed:?}") };
    assert!(log.contains("SLOTMUX_CONTAINER_TOKEN"), "{log}");
}

/// Commands, files and resets, with whatever shell the image has.
async fn serves(target: &Target, shell: &str) {
    let said =
        target.output(0, "echo $SHELL; echo text > f; cat f; pwd > /dev/null && id -u").await;
    let said = said.unwrap();
    assert!(said.starts_with(&format!("{shell}\ntext\n")) || said.contains("bash"), "{said}");
    assert!(!said.ends_with("\n0"), "{said}");
    let read = target.call(crate::http::read_file(0, "f")).await.unwrap();
    assert_eq!(read.output, "text\n", "{read:?}");
    let written = target.call(crate::http::write_file(0, "dir/g", "more")).await.unwrap();
    assert!(written.success, "{written:?}");
    assert_eq!(target.output(0, "cat dir/g").await.unwrap(), "more");
    let mut slow = crate::http::bash(0, "sleep 3000 & sleep 3000");
    slow["timeout"] = 0.3.into();
    let slow = target.call(slow).await.unwrap();
    assert_eq!(slow.metadata["ended"], "timeout", "{slow:?}");
    target.reset(0).await.unwrap();
    assert_eq!(target.output(0, "ls").await.unwrap(), "");
    assert_eq!(target.output(1, "echo works").await.unwrap(), "works");
}
