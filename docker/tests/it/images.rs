//! Any image serves slots, in any kind of container, on the rung that this kind gives.

use crate::{
    house::{DEBIAN, House, SCRATCH, docker, ready, spec},
    serving::{health, output, status_of_a_stranger},
};
use slotmux_backend::{Address, Backend};
use slotmux_docker::{ContainerSettings, Data, Inject, Ports, Reach, User, Walls};
use std::{net::IpAddr, time::Duration};

const GRACE: Duration = Duration::from_secs(10);

/// Launches, has `seen` look at it, and stops it.
async fn serves(house: &House, rung: &str, seen: impl AsyncFnOnce(&Address, &str)) {
    let backend = house.backend();
    let mut facts = backend.facts();
    let spec = spec("one");
    backend.launch(spec.clone()).await.unwrap();
    let address = ready(&mut facts).await;
    let settings = &house.settings.default;
    assert_eq!(health(&address).await["isolation"], rung, "{settings:?}");
    assert_eq!(status_of_a_stranger(&address).await, 403);
    let said = output(&address, "echo text > f; cat f; id -u").await;
    let uid = said.strip_prefix("text\n").unwrap().trim();
    assert_ne!(uid, "0", "{settings:?}");
    seen(&address, &house.id(&spec.container)).await;
    backend.stop(&spec.container, GRACE).await.unwrap();
    assert_eq!(house.leftovers(), [""; 0]);
}

async fn default_serves(test: &str, rung: &str, change: impl FnOnce(&mut ContainerSettings)) {
    let Some(mut house) = House::open(test) else { return };
    change(&mut house.settings.default);
    serves(&house, rung, async |_, _| {}).await;
}

#[tokio::test]
async fn debian_serves_on_the_rung_of_an_ordinary_container() {
    default_serves("debian", "uid", |_| {}).await;
}

#[tokio::test]
async fn an_image_of_busybox_alone_serves() {
    default_serves("busybox", "uid", |container| container.image = SCRATCH.to_owned()).await;
}

#[tokio::test]
async fn the_shipped_filter_permits_namespaces_in_a_container_without_any_privilege() {
    for image in [DEBIAN, SCRATCH] {
        default_serves("namespaces", "namespaces", |container| {
            container.image = image.to_owned();
            container.walls = Walls::Namespaces;
        })
        .await;
    }
}

#[tokio::test]
async fn the_best_is_namespaces_where_they_can_be_had() {
    default_serves("best", "namespaces", |container| container.walls = Walls::Best).await;
}

/// As a machine does that has none for users.
const NO_NAMESPACES: &str = r#"{
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [
        { "names": ["unshare"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 },
        { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
        {
            "names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
            "args": [{
                "index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 268435456, "valueTwo": 268435456
            }]
        }
    ]
}"#;

#[tokio::test]
async fn the_best_is_users_where_namespaces_are_refused() {
    default_serves("second best", "uid", |container| {
        container.walls = Walls::Best;
        container.security_opt = vec![format!("seccomp={NO_NAMESPACES}")];
    })
    .await;
}

/// A server that ends for another reason has not said that it has no namespaces.
#[tokio::test]
async fn a_trial_that_fails_is_no_refusal() {
    let Some(mut house) = House::open("a failed trial") else { return };
    house.settings.default.walls = Walls::Best;
    house.settings.args_before = vec!["--no-such-option".into()];
    let backend = house.backend();
    let error = backend.launch(spec("one")).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("whether it gets namespaces") && source.contains("no-such-option"));
    assert_eq!(house.leftovers(), [""; 0]);
}

#[tokio::test]
async fn root_in_a_container_that_opens_nothing_falls_back_to_users() {
    let filter = format!("seccomp={}", slotmux_docker::NAMESPACES_FILTER);
    default_serves("filter alone", "uid", |container| container.security_opt = vec![filter]).await;
}

#[tokio::test]
async fn a_container_that_is_read_only_serves() {
    default_serves("read-only", "uid", |container| container.read_only = true).await;
    default_serves("read-only namespaces", "namespaces", |container| {
        container.read_only = true;
        container.walls = Walls::Namespaces;
    })
    .await;
}

#[tokio::test]
async fn a_container_that_is_not_root_serves_from_memory_or_from_its_volume() {
    for data in [Data::Volume, Data::Tmpfs { bytes_max: 64 << 20 }] {
        default_serves("not root", "landlock", |container| {
            container.user = Some(User { uid: 61_001, gid: 61_001 });
            container.data = data;
        })
        .await;
    }
}

#[tokio::test]
async fn a_mounted_server_cannot_be_written_to() {
    let Some(mut house) = House::open("mounted") else { return };
    house.settings.inject = Inject::Bind;
    serves(&house, "uid", async |_, id| {
        let mounts = docker(&["inspect", "--format", "{{json .Mounts}}", id]).unwrap();
        let mounts: serde_json::Value = serde_json::from_str(&mounts).unwrap();
        let mounts = mounts.as_array().unwrap();
        let server = mounts.iter().find(|it| it["Destination"] == "/slotmux/server").unwrap();
        assert_eq!((server["Type"].as_str(), server["RW"].as_bool()), (Some("bind"), Some(false)));
    })
    .await;
}

async fn server_is_mounted(house: &House) -> bool {
    let mut mounted = false;
    serves(house, "uid", async |_, id| {
        let format = "{{range .Mounts}}{{.Destination}} {{end}}";
        mounted = docker(&["inspect", "--format", format, id]).unwrap().contains("/slotmux/server");
    })
    .await;
    mounted
}

#[tokio::test]
async fn the_server_is_mounted_where_the_engine_has_the_same_file_and_copied_elsewhere() {
    let Some(mut house) = House::open("the best way in") else { return };
    house.settings.inject = Inject::Best;
    assert!(server_is_mounted(&house).await);

    // The engine makes these itself, with nothing in them, or says that they are not there: it does
    // not see this process's own files below /proc.
    let program = std::fs::File::open(&house.settings.program).unwrap();
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&program);
    house.settings.program = format!("/proc/self/fd/{descriptor}").into();
    assert!(!server_is_mounted(&house).await);
}

#[tokio::test]
async fn a_published_port_is_reached_on_loopback() {
    let Some(mut house) = House::open("published") else { return };
    let bind = IpAddr::from([127, 0, 0, 1]);
    house.settings.reach = Reach::Published(Ports { bind, range: None, host: None });
    serves(&house, "uid", async |address, _| {
        assert!(address.authority.starts_with("127.0.0.1:"), "{address:?}");
    })
    .await;
}

/// It wants to run as somebody else, something else, elsewhere, and to be looked at.
#[tokio::test]
async fn an_image_with_wishes_of_its_own_serves() {
    let Some(mut house) = House::open("an image with wishes") else { return };
    let image = format!("slotmux-test:{}", house.settings.owner);
    let made = docker(&["create", DEBIAN, "true"]).unwrap();
    let mut command = vec!["commit"];
    for wish in [
        "ENTRYPOINT [\"/bin/false\"]",
        "USER 1000",
        "WORKDIR /nowhere",
        "HEALTHCHECK CMD false",
        "VOLUME /data",
        "ENV SLOTMUX_CONTAINER_TOKEN=baked",
    ] {
        command.extend(["--change", wish]);
    }
    command.extend([&*made, &*image]);
    docker(&command).unwrap();
    docker(&["rm", &made]).unwrap();
    house.settings.default.image.clone_from(&image);
    serves(&house, "uid", async |_, id| {
        let health = docker(&["inspect", "--format", "{{json .State.Health}}", id]).unwrap();
        assert_eq!(health, "null");
    })
    .await;
    docker(&["rmi", &image]).unwrap();
}

#[tokio::test]
async fn limits_of_a_profile_reach_the_engine() {
    let Some(mut house) = House::open("limits") else { return };
    house.settings.default.memory_bytes_max = 256 << 20;
    house.settings.default.cpu_millis_max = 500;
    house.settings.default.processes_max = 300;
    serves(&house, "uid", async |_, id| {
        let format = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}";
        let limits = docker(&["inspect", "--format", format, id]).unwrap();
        assert_eq!(limits, "268435456 500000000 300");
    })
    .await;
}

#[tokio::test]
async fn each_container_has_a_token_of_its_own() {
    let Some(house) = House::open("tokens") else { return };
    let backend = house.backend();
    let mut facts = backend.facts();
    let mut tokens = Vec::new();
    for name in ["one", "two"] {
        backend.launch(spec(name)).await.unwrap();
        tokens.push(ready(&mut facts).await.token);
    }
    assert_ne!(tokens[0], tokens[1]);
    assert!(tokens.iter().all(|it| it.len() == 64));
    for name in ["one", "two"] {
        backend.stop(&spec(name).container, GRACE).await.unwrap();
    }
}
