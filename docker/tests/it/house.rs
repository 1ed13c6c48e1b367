//! One owner's containers at the tests' engine. Nothing of them is left when this is dropped.

use slotmux_backend::{Address, Backend, Exit, Fact, Facts, LaunchSpec, conformance::LIMIT};
use slotmux_docker::{DockerBackend, DockerSettings, Engine, Inject, News, NewsFeed, Walls};
use slotmux_protocol::{ContainerId, Isolation};
use std::{
    env,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};
use tokio::time::timeout;

/// Debian's essential packages, and nothing of ours.
pub(crate) const DEBIAN: &str = "slotmux-test:debian";
/// One file, busybox, under the names of its commands.
pub(crate) const SCRATCH: &str = "slotmux-test:busybox";

const STATIC: &str = "SLOTMUX_STATIC_SERVER";

pub(crate) struct House {
    pub(crate) settings: DockerSettings,
}

impl House {
    /// `None`: this machine has no engine, and that was said.
    pub(crate) fn open(test: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let program = match server() {
            Ok(program) => program,
            Err(why) => {
                println!("skipped: {test}: {why}");
                return None;
            }
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let owner = format!("it_{}_{number}", std::process::id());
        let mut settings = DockerSettings { owner, ..DockerSettings::new(program, DEBIAN) };
        // Most tests are about other things.
        settings.default.walls = Walls::Ordinary;
        settings.inject = Inject::Copy;
        Some(Self { settings })
    }

    pub(crate) fn backend(&self) -> DockerBackend {
        DockerBackend::new(self.settings.clone()).expect("settings without faults")
    }

    pub(crate) fn engine(&self) -> Engine {
        Engine::new(self.settings.host.as_deref())
    }

    /// As the engine knows it.
    pub(crate) fn id(&self, container: &ContainerId) -> String {
        let label = format!("label=slotmux.container={container}");
        let owner = format!("label=slotmux.owner={}", self.settings.owner);
        let arguments =
            ["ps", "--all", "--quiet", "--no-trunc", "--filter", &owner, "--filter", &label];
        let ids = docker(&arguments).expect("ps");
        assert!(!ids.is_empty() && !ids.contains('\n'), "not one `{container}`: {ids}");
        ids
    }

    /// Whatever the engine still holds of this house.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let owner = format!("label=slotmux.owner={}", self.settings.owner);
        let containers =
            docker(&["ps", "--all", "--filter", &owner, "--format", "container {{.Names}}"]);
        let volumes = docker(&["volume", "ls", "--filter", &owner, "--format", "volume {{.Name}}"]);
        let lines = [containers.expect("ps"), volumes.expect("volume ls")];
        lines.iter().flat_map(|text| text.lines()).map(str::to_owned).collect()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let owner = format!("label=slotmux.owner={}", self.settings.owner);
        let ids = docker(&["ps", "--all", "--quiet", "--filter", &owner]).unwrap_or_default();
        for id in ids.lines() {
            if std::thread::panicking() {
                println!("--- log of {id}:\n{}", log(id));
            }
            // It may be gone already.
            let _ = docker(&["rm", "--force", "--volumes", id]);
        }
    }
}

/// The shipped server, where there is an engine to run it. One that must be there and is not is a
/// failure.
fn server() -> Result<PathBuf, String> {
    let why = match docker(&["version", "--format", "{{.Server.Version}}"]) {
        Ok(_) if docker(&["image", "inspect", DEBIAN, SCRATCH]).is_ok() => {
            match env::var_os(STATIC) {
                Some(program) => return Ok(program.into()),
                None => format!("{STATIC} is not set"),
            }
        }
        Ok(_) => "the images are not made: run `tests/engine.sh images`".to_owned(),
        Err(why) => format!("no Docker engine: {why}"),
    };
    let owed = rustix::process::geteuid().is_root();
    let ci = env::var("CI").is_ok_and(|it| it == "true");
    assert!(!(owed && ci), "CI must have it: {why}");
    Err(why)
}

pub(crate) fn docker(args: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(args).output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = text(&output.stderr);
    let reason = said.lines().find(|it| !it.starts_with("WARNING"));
    Err(reason.unwrap_or("it failed").to_owned())
}

fn log(id: &str) -> String {
    let output = Command::new("docker").args(["logs", id]).output();
    output.map_or_else(
        |error| error.to_string(),
        |it| String::from_utf8_lossy(&[it.stdout, it.stderr].concat()).into_owned(),
    )
}

/// Of `name`, on whatever rung there is.
pub(crate) fn spec(name: &str) -> LaunchSpec {
    let isolation_min = Isolation::Landlock;
    LaunchSpec { isolation_min, ..slotmux_backend::conformance::spec(name) }
}

pub(crate) async fn next(facts: &mut Facts) -> Fact {
    timeout(LIMIT, facts.recv()).await.expect("a fact in time").expect("an open stream")
}

pub(crate) async fn next_news(feed: &mut NewsFeed) -> News {
    timeout(LIMIT, feed.next()).await.expect("news in time")
}

pub(crate) async fn ready(facts: &mut Facts) -> Address {
    match next(facts).await {
        Fact::Ready { address, .. } => address,
        Fact::Gone { exit, .. } => panic!("it was to become ready: {}", exit.reason),
    }
}

/// Skips what was told before the end.
pub(crate) async fn gone(facts: &mut Facts) -> Exit {
    loop {
        if let Fact::Gone { exit, .. } = next(facts).await {
            return exit;
        }
    }
}

/// From its launch to its end by itself.
pub(crate) async fn end_of(backend: &DockerBackend, spec: LaunchSpec) -> Exit {
    let mut facts = backend.facts();
    backend.launch(spec).await.expect("launch");
    gone(&mut facts).await
}
