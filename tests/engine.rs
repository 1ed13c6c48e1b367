//! Docker engines: the one that `test.sh` provides, and others that tests may stop and kill.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::{PATIENCE, traces, until};
use rustix::process::Signal;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// Debian's essential packages.
pub const DEBIAN: &str = "slotmux-test:debian";
/// One file, busybox, under the names of its commands.
pub const BUSYBOX: &str = "slotmux-test:busybox";

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/engine.sh");

/// An engine, and what one owner has there.
pub struct Engine {
    pub host: String,
    /// Of the containers of this test.
    pub owner: String,
    /// It is this test's own: its name and how it is started.
    own: Option<Own>,
}

struct Own {
    name: String,
    environment: Vec<(&'static str, String)>,
}

impl Engine {
    /// The one for all tests. `None`: this machine has none, and that was said.
    #[must_use]
    pub fn shared(test: &str) -> Option<Self> {
        let host = env::var("DOCKER_HOST").unwrap_or("unix:///var/run/docker.sock".to_owned());
        let engine = Self { host, owner: owner(test), own: None };
        let there = engine.try_docker(&["image", "inspect", DEBIAN, BUSYBOX]).status.success();
        usable(test, there).then_some(engine)
    }

    /// One that can be stopped and killed. `number` is of this test alone.
    #[must_use]
    pub fn own(test: &str, number: u8, flags: &str) -> Option<Self> {
        let there = Command::new("dockerd").arg("--version").output().is_ok();
        if !usable(test, there && rustix::process::geteuid().is_root()) {
            return None;
        }
        let name = format!("{number}");
        let environment = vec![
            ("SLOTMUX_ENGINE", name.clone()),
            ("SLOTMUX_ENGINE_NET", format!("172.29.{}.1/22", 88 + 4 * number)),
            ("SLOTMUX_ENGINE_FLAGS", flags.to_owned()),
        ];
        let mut engine =
            Self { host: String::new(), owner: owner(test), own: Some(Own { name, environment }) };
        engine.start();
        engine.script(&["images", "busybox"]);
        Some(engine)
    }

    /// The test's own engine, which does not run.
    pub fn start(&mut self) {
        self.script(&["start"]).trim().clone_into(&mut self.host);
    }

    /// As the machine's service manager does.
    pub async fn stop(&self) {
        self.end(Signal::TERM).await;
    }

    pub async fn kill(&self) {
        self.end(Signal::KILL).await;
    }

    async fn end(&self, signal: Signal) {
        let own = self.own.as_ref().unwrap();
        let file = format!("/run/slotmux-engine-{}/pid", own.name);
        let pid: u32 = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        traces::signal(pid, signal);
        let comm = PathBuf::from(format!("/proc/{pid}/comm"));
        until("the engine ends", PATIENCE, async || {
            let name = fs::read_to_string(&comm).unwrap_or_default();
            (name.trim() != "dockerd").then_some(())
        })
        .await;
        // A killed one leaves it, and the next would take it for itself.
        let _ = fs::remove_file(file);
    }

    fn script(&self, arguments: &[&str]) -> String {
        let own = self.own.as_ref().unwrap();
        let mut command = Command::new(SCRIPT);
        command.args(arguments).env("DOCKER_HOST", &self.host).stdin(Stdio::null());
        let output = command.envs(own.environment.iter().cloned()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// For a pool with containers of `image`.
    #[must_use]
    pub fn flags(&self, image: &str) -> Vec<String> {
        let server = env::var("SLOTMUX_STATIC_SERVER").unwrap();
        ["--backend", "docker", "--docker-host", &self.host, "--docker-owner", &self.owner]
            .into_iter()
            .chain(["--image", image, "--pull", "never", "--sandbox-server", &server])
            .map(str::to_owned)
            .collect()
    }

    pub fn docker(&self, arguments: &[&str]) -> String {
        let output = self.try_docker(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn try_docker(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("docker");
        command.args(arguments).env("DOCKER_HOST", &self.host).stdin(Stdio::null());
        command.output().unwrap_or_else(|error| Output {
            status: std::os::unix::process::ExitStatusExt::from_raw(1 << 8),
            stdout: Vec::new(),
            stderr: error.to_string().into_bytes(),
        })
    }

    fn label(&self) -> String {
        format!("label=slotmux.owner={}", self.owner)
    }

    /// Ids of those that run.
    #[must_use]
    pub fn running(&self) -> Vec<String> {
        let ids = self.docker(&["ps", "--quiet", "--no-trunc", "--filter", &self.label()]);
        ids.lines().map(str::to_owned).collect()
    }

    /// Containers in whatever state, and volumes.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        let label = self.label();
        let containers =
            self.docker(&["ps", "--all", "--filter", &label, "--format", "container {{.Names}}"]);
        let volumes =
            self.docker(&["volume", "ls", "--filter", &label, "--format", "volume {{.Name}}"]);
        containers.lines().chain(volumes.lines()).map(str::to_owned).collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for line in self
            .try_docker(&["ps", "-aq", "--filter", &self.label()])
            .stdout
            .split(|it| *it == b'\n')
        {
            if let Ok(id @ [_, ..]) = std::str::from_utf8(line).map(str::as_bytes) {
                let id = String::from_utf8_lossy(id);
                self.try_docker(&["unpause", &id]);
                self.try_docker(&["rm", "--force", "--volumes", &id]);
            }
        }
        if let Some(own) = &self.own {
            let stopped =
                Command::new(SCRIPT).arg("stop").envs(own.environment.iter().cloned()).status();
            let images =
                Path::new(SCRIPT).parent().unwrap().join(format!("../target/engine-{}", own.name));
            if stopped.is_ok_and(|it| it.success()) {
                let _ = fs::remove_dir_all(images);
            }
        }
    }
}

/// Of one run of one test.
fn owner(test: &str) -> String {
    format!("{test}_{}", std::process::id())
}

/// What must be there in CI and is not is a failure; elsewhere it is said.
#[expect(clippy::print_stdout, reason = "what was not tested is said")]
fn usable(test: &str, there: bool) -> bool {
    let there = there && env::var_os("SLOTMUX_STATIC_SERVER").is_some();
    let owed = rustix::process::geteuid().is_root() && env::var("CI").is_ok_and(|it| it == "true");
    assert!(there || !owed, "CI must have a Docker engine, its images, and SLOTMUX_STATIC_SERVER");
    if !there {
        println!("skipped: {test}: no Docker engine with the tests' images; ./test.sh makes it");
    }
    there
}
