//! What a pool finds when it comes back.

use crate::house::{House, docker, gone, ready, spec};
use slotmux_backend::{Backend, ExitKind, Phase, conformance::LIMIT};
use slotmux_docker::ContainerSettings;
use std::time::Duration;
use tokio::time::timeout;

const GRACE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn what_died_meanwhile_is_removed_and_told_with_how_it_ended() {
    let Some(house) = House::open("died meanwhile") else { return };
    let first = house.backend();
    let mut facts = first.facts();
    first.launch(spec("one")).await.unwrap();
    ready(&mut facts).await;
    drop(first);
    docker(&["kill", &house.id(&spec("one").container)]).unwrap();

    let second = house.backend();
    let mut facts = second.facts();
    assert_eq!(second.list("conformance").await.unwrap(), []);
    let exit = gone(&mut facts).await;
    assert_eq!(exit.kind, ExitKind::Signal(9));
    assert!(exit.reason.contains("serving"), "{}", exit.reason);
    assert_eq!(house.leftovers(), [""; 0]);
}

/// As it is when the pool is killed between the two.
#[tokio::test]
async fn what_was_created_and_never_started_is_debris() {
    let Some(house) = House::open("never started") else { return };
    let backend = house.backend();
    backend.launch(spec("one")).await.unwrap();
    let id = house.id(&spec("one").container);
    let format = "{{range $name, $value := .Config.Labels}}--label={{$name}}={{$value}}\n{{end}}";
    let labels = docker(&["inspect", "--format", format, &id]).unwrap();
    backend.stop(&spec("one").container, GRACE).await.unwrap();
    drop(backend);
    let create = || {
        let name = format!("slotmux-{}-one", house.settings.owner);
        let mut command = vec!["create", "--name", &name, "--env", "SLOTMUX_CONTAINER_TOKEN=t"];
        command.extend(labels.lines());
        command.extend([&*house.settings.default.image, "true"]);
        docker(&command).unwrap();
    };
    create();
    assert_eq!(house.backend().list("conformance").await.unwrap(), []);
    assert_eq!(house.leftovers(), [""; 0]);

    create();
    let backend = house.backend();
    let mut facts = backend.facts();
    backend.launch(spec("one")).await.unwrap();
    ready(&mut facts).await;
    backend.stop(&spec("one").container, GRACE).await.unwrap();
    assert_eq!(house.leftovers(), [""; 0]);
}

#[tokio::test]
async fn what_outlived_its_time_is_removed_whose_ever_it_was_and_the_rest_is_let_be() {
    let Some(house) = House::open("expired") else { return };
    let owner = format!("slotmux.owner={}_other", house.settings.owner);
    let image = &house.settings.default.image;
    let create = |expires: &str| {
        let expires = format!("slotmux.expires={expires}");
        docker(&["create", "--label", &owner, "--label", &expires, image, "true"]).unwrap()
    };
    let (expired, fresh, odd) = (create("1000"), create("99999999999"), create("never"));
    assert_eq!(house.backend().list("conformance").await.unwrap(), []);
    let is_there = |id: &str| docker(&["inspect", id]).is_ok();
    assert_eq!([&expired, &fresh, &odd].map(|id| is_there(id)), [false, true, true]);
    docker(&["rm", &fresh, &odd]).unwrap();
}

#[tokio::test]
async fn one_that_cannot_be_read_does_not_hide_the_others() {
    let Some(house) = House::open("unreadable") else { return };
    let backend = house.backend();
    let mut facts = backend.facts();
    backend.launch(spec("one")).await.unwrap();
    let address = ready(&mut facts).await;
    let owner = format!("slotmux.owner={}", house.settings.owner);
    let image = &house.settings.default.image;
    docker(&["create", "--label", &owner, "--label", "slotmux.pool=conformance", image, "true"])
        .unwrap();
    let seen = house.backend().list("conformance").await.unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].phase, Phase::Ready(address));
    backend.stop(&spec("one").container, GRACE).await.unwrap();
}

#[tokio::test]
async fn a_launch_goes_on_when_its_caller_goes_away() {
    let Some(house) = House::open("a caller that goes away") else { return };
    let backend = house.backend();
    let mut facts = backend.facts();
    {
        let mut launch = backend.launch(spec("one"));
        // Polled once: it has begun.
        assert!(futures_util::poll!(&mut launch).is_pending());
    }
    ready(&mut facts).await;
    backend.stop(&spec("one").container, GRACE).await.unwrap();
    assert_eq!(house.leftovers(), [""; 0]);
}

#[tokio::test]
async fn a_paused_container_is_not_gone_and_can_be_stopped() {
    let Some(house) = House::open("paused") else { return };
    let backend = house.backend();
    let mut facts = backend.facts();
    backend.launch(spec("one")).await.unwrap();
    ready(&mut facts).await;
    docker(&["pause", &house.id(&spec("one").container)]).unwrap();
    let seen = house.backend().list("conformance").await.unwrap();
    assert_eq!((seen.len(), &seen[0].phase), (1, &Phase::Starting), "it does not answer");
    backend.stop(&spec("one").container, Duration::from_secs(1)).await.unwrap();
    assert_eq!(gone(&mut facts).await.kind, ExitKind::Stopped);
    assert_eq!(house.leftovers(), [""; 0]);
}

#[tokio::test]
async fn a_diagnosis_names_the_engine_the_server_and_the_image() {
    let Some(house) = House::open("a diagnosis") else { return };
    let diagnosis = house.backend().diagnose().await;
    assert!(diagnosis.usable, "{diagnosis:#?}");
    let text = diagnosis.findings.join("\n");
    let program = house.settings.program.display().to_string();
    for word in ["engine ", &*program, "into any image", &*house.settings.default.image, "seccomp"]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[tokio::test]
async fn a_diagnosis_looks_at_what_is_used_and_at_nothing_else() {
    let Some(mut house) = House::open("a diagnosis of profiles") else { return };
    let container = std::mem::replace(&mut house.settings.default, ContainerSettings::new("none"));
    let name = spec("one").labels.profile;
    house.settings.profiles.insert(name.clone(), container);
    let text = house.backend().diagnose().await.findings.join("\n");
    assert!(text.contains(&format!("profile `{name}`")), "{text}");
    assert!(!text.contains("`none`"), "{text}");
}

/// As an engine leaves it that ends between a volume and its container.
#[tokio::test]
async fn a_volume_without_a_container_goes() {
    let Some(house) = House::open("a loose volume") else { return };
    let owner = format!("slotmux.owner={}", house.settings.owner);
    docker(&["volume", "create", "--label", &owner]).unwrap();
    let backend = house.backend();
    backend.list("whatever").await.unwrap();
    let gone = async {
        while !house.leftovers().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, gone).await.expect("it goes");
}
