//! What goes wrong is said at once, and by its name.

use crate::house::{House, docker, end_of, gone, ready, spec};
use slotmux_backend::{Backend, BackendError, ExitKind, conformance::LIMIT};
use slotmux_docker::{DockerBackend, DockerSettings, Ports, Pull, Reach};
use slotmux_protocol::Isolation;
use std::{error::Error, net::IpAddr};
use tokio::time::timeout;

/// An error with its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    let causes = error.source().map(chain);
    causes.map_or(error.to_string(), |causes| format!("{error}: {causes}"))
}

async fn failure(backend: &DockerBackend) -> (BackendError, String) {
    let launched = timeout(LIMIT, backend.launch(spec("one"))).await.expect("an answer in time");
    let error = launched.expect_err("it was to fail");
    let text = chain(&error);
    (error, text)
}

#[tokio::test]
async fn a_crash_at_start_is_told_with_its_code_and_last_words() {
    let Some(house) = House::open("a crash at start") else { return };
    let mut spec = spec("one");
    // An ordinary container has no namespaces to give.
    spec.isolation_min = Isolation::Namespaces;
    let backend = house.backend();
    let exit = end_of(&backend, spec.clone()).await;
    assert_eq!(exit.kind, ExitKind::Code(Isolation::REFUSED.into()));
    let reason = exit.reason;
    assert!(reason.starts_with("container failed with exit code 3; it last said: "), "{reason}");
    assert!(reason.contains("namespaces"), "{reason}");
    backend.stop(&spec.container, LIMIT).await.unwrap();
    assert_eq!(house.leftovers(), [""; 0]);
}

#[tokio::test]
async fn an_image_that_is_not_there_is_refused_by_its_name() {
    let Some(mut house) = House::open("a missing image") else { return };
    house.settings.default.image = "slotmux-test:none-such".to_owned();
    house.settings.default.pull = Pull::Never;
    let (error, text) = failure(&house.backend()).await;
    assert!(matches!(error, BackendError::Refused { .. }), "{text}");
    assert!(text.starts_with("launch container `one`: refused: image `slotmux-test:none-such`"));
    assert_eq!(house.leftovers(), [""; 0]);
    let diagnosis = house.backend().diagnose().await;
    assert!(!diagnosis.usable, "{diagnosis:?}");
}

/// Nothing listens there; whichever way the engine puts it, it is passed on.
#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_told_with_what_the_engine_said() {
    let Some(mut house) = House::open("a pull that fails") else { return };
    house.settings.default.image = "127.0.0.1:9/none/such:1".to_owned();
    let (error, text) = failure(&house.backend()).await;
    assert!(!matches!(error, BackendError::Unknown { .. }), "{text}");
    assert!(text.contains("image `127.0.0.1:9/none/such:1` cannot be had"), "{text}");
    assert!(text.contains("the engine said: "), "{text}");
    assert_eq!(house.leftovers(), [""; 0]);
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_and_leaves_nothing() {
    let Some(mut house) = House::open("a taken port") else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let bind = IpAddr::from([127, 0, 0, 1]);
    house.settings.reach = Reach::Published(Ports { bind, range: Some(port..=port), host: None });
    let (error, text) = failure(&house.backend()).await;
    assert!(matches!(error, BackendError::Unavailable { .. }), "{text}");
    assert!(text.contains("in use") || text.contains("allocated"), "{text}");
    assert_eq!(house.leftovers(), [""; 0]);
}

#[tokio::test]
async fn a_network_that_is_not_there_is_refused_by_its_name() {
    let Some(mut house) = House::open("a missing network") else { return };
    house.settings.default.network = "slotmux-none-such".to_owned();
    let (error, text) = failure(&house.backend()).await;
    assert!(matches!(error, BackendError::Refused { .. }), "{text}");
    assert!(text.contains("slotmux-none-such"), "{text}");
    assert_eq!(house.leftovers(), [""; 0]);
    assert!(!house.backend().diagnose().await.usable);
}

#[tokio::test]
async fn a_server_that_cannot_be_read_is_refused_by_its_path_and_leaves_nothing() {
    let Some(mut house) = House::open("a missing server") else { return };
    house.settings.program = "/nowhere/server".into();
    let (error, text) = failure(&house.backend()).await;
    assert!(matches!(error, BackendError::Refused { .. }), "{text}");
    assert!(text.contains("read `/nowhere/server`"), "{text}");
    assert_eq!(house.leftovers(), [""; 0]);
}

#[tokio::test]
async fn a_name_that_somebody_else_has_is_not_taken_from_them() {
    let Some(house) = House::open("a taken name") else { return };
    let name = format!("slotmux-{}-one", house.settings.owner);
    let image = &house.settings.default.image;
    let id = docker(&["create", "--name", &name, image, "true"]).unwrap();
    let (_, text) = failure(&house.backend()).await;
    assert!(text.contains("another container of this name"), "{text}");
    house.backend().stop(&spec("one").container, LIMIT).await.unwrap();
    docker(&["rm", &id]).expect("it is still there");
}

#[tokio::test]
async fn an_engine_that_is_down_is_unavailable_and_names_its_address() {
    let mut settings = DockerSettings::new("/server".into(), "image");
    for (host, word) in [("unix:///nowhere/docker.sock", "socket"), ("tcp://127.0.0.1:9", "tcp")] {
        settings.host = Some(host.to_owned());
        let backend = DockerBackend::new(settings.clone()).unwrap();
        let (error, text) = failure(&backend).await;
        assert!(matches!(error, BackendError::Unavailable { .. }), "{text}");
        assert!(text.contains(host) && text.contains(word), "{text}");
        assert!(matches!(backend.list("any").await, Err(BackendError::Unavailable { .. })));
        let diagnosis = backend.diagnose().await;
        assert!(!diagnosis.usable && diagnosis.findings[0].contains(host), "{diagnosis:?}");
    }
    settings.host = Some("ssh://somewhere".to_owned());
    let (error, text) = failure(&DockerBackend::new(settings).unwrap()).await;
    assert!(matches!(error, BackendError::Refused { .. }), "{text}");
    assert!(text.contains("not reached by ssh") && text.contains("unix://"), "{text}");
}

/// An engine may miss a kill for memory, so one that nobody has asked for counts as that.
#[tokio::test]
async fn a_kill_that_somebody_asked_for_is_not_taken_for_one_for_memory() {
    let Some(mut house) = House::open("killed within memory") else { return };
    house.settings.default.memory_bytes_max = 256 << 20;
    let backend = house.backend();
    let mut facts = backend.facts();
    backend.launch(spec("one")).await.unwrap();
    ready(&mut facts).await;
    docker(&["kill", &house.id(&spec("one").container)]).unwrap();
    let exit = gone(&mut facts).await;
    assert_eq!(exit.kind, ExitKind::Signal(9), "{}", exit.reason);
    backend.stop(&spec("one").container, LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_container_that_its_own_memory_does_not_suffice_is_told_as_out_of_memory() {
    let Some(mut house) = House::open("out of memory") else { return };
    house.settings.default.memory_bytes_max = 8 << 20;
    let mut spec = spec("one");
    spec.slots = 200;
    let backend = house.backend();
    let exit = end_of(&backend, spec.clone()).await;
    assert_eq!(exit.kind, ExitKind::OutOfMemory, "{}", exit.reason);
    backend.stop(&spec.container, LIMIT).await.unwrap();
    assert_eq!(house.leftovers(), [""; 0]);
}
