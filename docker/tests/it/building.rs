//! Images that are built when they are needed.

use crate::{
    failures::chain,
    house::{House, SCRATCH, docker, ready, spec},
    proxy::Door,
    serving::output,
};
use slotmux_backend::{Backend, BackendError, conformance::LIMIT};
use slotmux_docker::Build;
use slotmux_protocol::ProfileName;
use std::{fs, time::Duration};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

const GRACE: Duration = Duration::from_secs(10);
const LOOKS_APART: Duration = Duration::from_millis(50);

/// A house whose image is built of a directory with `steps` and a file `said`. Both go together.
struct Site {
    house: House,
    dir: TempDir,
    image: String,
}

impl Site {
    fn new(test: &str, steps: &str) -> Option<Self> {
        let mut house = House::open(test)?;
        let dir = tempfile::tempdir().unwrap();
        let image = format!("slotmux-{}:local", house.settings.owner);
        house.settings.default.image.clone_from(&image);
        house.settings.default.build = Some(Build::new(dir.path().to_owned()));
        let site = Self { house, dir, image };
        site.write("Dockerfile", &format!("FROM {SCRATCH}\n{steps}\n"));
        site.write("said", "first");
        Some(site)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn image_id(&self) -> String {
        docker(&["image", "inspect", "--format", "{{.Id}}", &self.image]).unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // It may not have been built.
        let _ = docker(&["rmi", "--force", &self.image]);
    }
}

#[tokio::test]
async fn an_image_is_built_once_for_all_who_wait_and_again_when_its_context_has_changed() {
    let Some(mut site) =
        Site::new("build", "COPY said /bin/said\nARG MORE=none\nRUN echo $MORE > /bin/more")
    else {
        return;
    };
    let door = Door::open();
    site.house.settings.host = Some(door.host());
    let build = site.house.settings.default.build.as_mut().unwrap();
    build.args.insert("MORE".to_owned(), "some".to_owned());
    let backend = site.house.backend();
    let mut facts = backend.facts();
    let names = ["a", "b", "c"];
    let launches = names.map(|name| backend.launch(spec(name)));
    for launched in futures_util::future::join_all(launches).await {
        launched.map_err(|error| chain(&error)).unwrap();
    }
    let mut address = ready(&mut facts).await;
    assert_eq!(output(&address, "cat /bin/said /bin/more").await, "firstsome");
    assert_eq!(door.builds(), 1);
    let first = site.image_id();
    for name in names {
        backend.stop(&spec(name).container, GRACE).await.unwrap();
    }

    let another = site.house.backend();
    facts = another.facts();
    another.launch(spec("d")).await.unwrap();
    ready(&mut facts).await;
    assert_eq!(door.builds(), 1, "it is there, and another backend knows of what it was made");
    another.stop(&spec("d").container, GRACE).await.unwrap();

    site.write("said", "second ");
    facts = another.facts();
    another.launch(spec("e")).await.unwrap();
    address = ready(&mut facts).await;
    assert_eq!(output(&address, "cat /bin/said /bin/more").await, "second some");
    assert_eq!(door.builds(), 2);
    another.stop(&spec("e").container, GRACE).await.unwrap();
    docker(&["image", "inspect", &first]).expect_err("the one before is gone");
    assert_eq!(site.house.leftovers(), [""; 0]);
}

#[tokio::test]
async fn a_step_that_fails_is_told_with_what_it_said() {
    let Some(site) = Site::new("a failing build", "RUN echo the reason; exit 3") else {
        return;
    };
    let error = site.house.backend().launch(spec("one")).await.unwrap_err();
    let text = chain(&error);
    assert!(matches!(error, BackendError::Refused { .. }), "{text}");
    for words in [
        &*site.image,
        "cannot be built",
        "RUN echo the reason",
        "code: 3",
        "it last said: the reason",
    ] {
        assert!(text.contains(words), "no {words}: {text}");
    }
    site.write("Dockerfile", "FORM scratch");
    let text = chain(&site.house.backend().launch(spec("one")).await.unwrap_err());
    assert!(text.to_lowercase().contains("unknown instruction: form"), "{text}");
    fs::remove_file(site.dir.path().join("Dockerfile")).unwrap();
    let text = chain(&site.house.backend().launch(spec("one")).await.unwrap_err());
    assert!(text.contains("Dockerfile`"), "{text}");
    assert_eq!(site.house.leftovers(), [""; 0]);
}

#[tokio::test]
async fn one_image_does_not_wait_for_another() {
    let Some(mut site) = Site::new("two builds", "COPY said /bin/said") else { return };
    let marker = format!("sleep 1000 # {}", site.house.settings.owner);
    let Some(slow) = Site::new("a slow build", &format!("RUN {marker}")) else { return };
    let profile = ProfileName::new("slow").unwrap();
    site.house.settings.profiles.insert(profile.clone(), slow.house.settings.default.clone());
    let backend = site.house.backend();
    let mut facts = backend.facts();
    let mut slow_spec = spec("slow");
    slow_spec.labels.profile = profile;
    let waits = backend.launch(slow_spec);
    let quick = async {
        let step = timeout(LIMIT, running(&marker)).await.expect("the slow one is under way");
        backend.launch(spec("quick")).await.unwrap();
        ready(&mut facts).await;
        docker(&["kill", &step]).unwrap();
    };
    let (failed, ()) = tokio::join!(waits, quick);
    let text = chain(&failed.unwrap_err());
    assert!(text.contains("code: 137"), "{text}");
    backend.stop(&spec("quick").container, GRACE).await.unwrap();
    assert_eq!(site.house.leftovers(), [""; 0]);
}

/// The container of a step.
async fn running(marker: &str) -> String {
    loop {
        let all = docker(&["ps", "--no-trunc", "--format", "{{.ID}} {{.Command}}"]).unwrap();
        let line = all.lines().find(|line| line.contains(marker));
        if let Some((id, _)) = line.and_then(|line| line.split_once(' ')) {
            return id.to_owned();
        }
        sleep(LOOKS_APART).await;
    }
}

#[tokio::test]
async fn a_local_image_that_nobody_has_made_is_not_looked_for_elsewhere() {
    let Some(mut site) = Site::new("a local image", "") else { return };
    site.house.settings.default.build = None;
    let backend = site.house.backend();
    let error = timeout(LIMIT, backend.launch(spec("one"))).await.unwrap().unwrap_err();
    let text = chain(&error);
    assert!(matches!(error, BackendError::Refused { .. }), "{text}");
    assert!(text.contains("never pulled") && text.contains("docker build"), "{text}");
    let diagnosis = backend.diagnose().await;
    assert!(!diagnosis.usable, "{diagnosis:?}");
    assert!(diagnosis.findings.iter().any(|it| it.contains("docker build")), "{diagnosis:?}");
    site.house.settings.default.build = Some(Build::new(site.dir.path().to_owned()));
    assert!(site.house.backend().diagnose().await.usable);
}
