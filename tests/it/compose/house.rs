//! `compose.yaml` at the tests' engine, under a name of its own. Nothing of it is left when this
//! is dropped.
#![expect(clippy::print_stdout, reason = "what a failure leaves is said")]

use super::images::Images;
use serde_json::{Value, json};
use slotmux_tests::{PATIENCE, until};
use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

/// Made by `tests/engine.sh`, of what this machine has.
pub(super) const BASE: &str = "slotmux-test:debian";

/// A start with all that a busy machine may put before it.
const START_MAX: Duration = Duration::from_mins(2);

/// For names that nothing else has.
pub(super) static NEXT: AtomicU32 = AtomicU32::new(0);

/// The two programs that read a compose file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    /// `docker-compose`: version 1, or version 2 where Debian ships that.
    Program,
    /// `docker compose`.
    Plugin,
}

impl Tool {
    fn command(self) -> Command {
        match self {
            Self::Program => Command::new("docker-compose"),
            Self::Plugin => {
                let mut command = Command::new("docker");
                command.arg("compose");
                command
            }
        }
    }

    /// Such as `1.29.2`.
    pub(super) fn version(self) -> Result<String, String> {
        done(self.command().args(["version", "--short"]))
    }
}

/// One project: the pool or the agent, its network, its volumes.
pub(super) struct Project {
    tool: Tool,
    name: String,
    images: Arc<Images>,
    files: Vec<PathBuf>,
    /// Inside its container.
    port: &'static str,
    /// Of the agent.
    dir: tempfile::TempDir,
    /// Empty: what stands in the tree is not ours.
    variables: tempfile::NamedTempFile,
    http: reqwest::Client,
}

impl Project {
    pub(super) fn new(tool: Tool, images: Arc<Images>, files: &[&str]) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            tool,
            name: format!("slotmuxit{}x{number}", std::process::id()),
            images,
            files: files.iter().map(|it| root().join(it)).collect(),
            port: "8080/tcp",
            dir: tempfile::tempdir().unwrap(),
            variables: tempfile::NamedTempFile::new().unwrap(),
            http: reqwest::Client::new(),
        }
    }

    /// Something that `docker-compose` does.
    pub(super) fn run<I: AsRef<OsStr>>(&self, arguments: &[I]) -> Result<String, String> {
        let mut command = self.tool.command();
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("SLOTMUX_") || text.starts_with("COMPOSE_") {
                command.env_remove(&name);
            }
        }
        command
            .current_dir(root())
            .env("SLOTMUX_POOL_IMAGE", self.images.pool())
            // Any that is free, and another one after each start.
            .env("SLOTMUX_PORT", "0")
            .env("SLOTMUX_AGENT_PORT", "0")
            .env("SLOTMUX_AGENT_DIR", self.dir.path())
            .env("SLOTMUX_TOKEN", super::TOKEN)
            .env("SLOTMUX_IMAGE", BASE)
            .env("SLOTMUX_CONTAINER_NETWORK", format!("{}-containers", self.name))
            .env("SLOTMUX_DOCKER_SOCKET", socket())
            .arg("--env-file")
            .arg(self.variables.path())
            .args(["--project-name", &self.name]);
        for file in &self.files {
            command.arg("--file").arg(file);
        }
        done(command.args(arguments))
    }

    pub(super) async fn up(&self) {
        self.run(&["up", "--detach", "--no-build"]).unwrap();
        self.answers().await;
    }

    /// The agent alone.
    pub(super) async fn up_agent(&mut self) {
        self.port = "8090/tcp";
        self.run(&["--profile", "agent", "up", "--detach", "--no-build", "agent"]).unwrap();
        self.answers().await;
    }

    pub(super) async fn answers(&self) {
        until("the pool answers", START_MAX, async || {
            let answer = self.http.get(self.url("/health")).send().await;
            answer.is_ok_and(|it| it.status() == 200).then_some(())
        })
        .await;
    }

    /// The id of its one container.
    pub(super) fn container(&self) -> String {
        let ids = docker(&["ps", "--all", "--quiet", "--filter", &self.label()]).unwrap();
        assert!(!ids.is_empty() && !ids.contains('\n'), "not one container: {ids}");
        ids
    }

    pub(super) fn inspect(&self, format: &str) -> String {
        docker(&["inspect", "--format", format, &self.container()]).unwrap()
    }

    pub(super) fn label(&self) -> String {
        format!("label=com.docker.compose.project={}", self.name)
    }

    /// Where it is published; nothing, while its container does not run.
    pub(super) fn published(&self) -> String {
        docker(&["port", &self.container(), self.port]).unwrap_or_default()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.published())
    }

    /// Status and body.
    pub(super) async fn send(
        &self,
        token: Option<&str>,
        method: reqwest::Method,
        path: &str,
        body: Value,
    ) -> (u16, Value) {
        let mut request = self.http.request(method, self.url(path)).json(&body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// A lease's id, and the isolation of its slot.
    pub(super) async fn acquire(&self, trajectory: &str) -> (String, String) {
        let body = json!({ "trajectory_id": trajectory, "wait_s": START_MAX.as_secs() });
        let post = reqwest::Method::POST;
        let (status, answer) = self.send(Some(super::TOKEN), post, "/v1/leases", body).await;
        assert_eq!(status, 201, "{answer}");
        let lease = &answer["leases"][0];
        let text = |key: &str| lease[key].as_str().unwrap().to_owned();
        (text("lease_id"), text("isolation"))
    }

    pub(super) async fn bash(&self, lease: &str, command: &str) -> Value {
        let call = json!({ "tool": "bash", "args": { "command": command } });
        let path = format!("/v1/leases/{lease}/execute");
        let post = reqwest::Method::POST;
        let (status, answer) = self.send(Some(super::TOKEN), post, &path, call).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Of a pool that has just come back: its links come a moment later.
    pub(super) async fn read_when_linked(&self, lease: &str, file: &str) -> String {
        let call = json!({ "tool": "bash", "args": { "command": format!("cat {file}") } });
        let path = format!("/v1/leases/{lease}/execute");
        until("the slot can be reached again", PATIENCE, async || {
            let post = reqwest::Method::POST;
            let (status, answer) = self.send(Some(super::TOKEN), post, &path, call.clone()).await;
            assert!(status == 200 || status == 503, "{status} {answer}");
            (status == 200).then(|| answer["output"].as_str().unwrap().to_owned())
        })
        .await
    }

    /// What the engine still holds of it.
    pub(super) fn leftovers(&self) -> Vec<String> {
        let label = self.label();
        let kinds = [
            ("container", vec!["ps", "--all", "--quiet"]),
            ("network", vec!["network", "ls", "--quiet"]),
            ("volume", vec!["volume", "ls", "--quiet"]),
        ];
        let mut left = Vec::new();
        for (kind, mut list) in kinds {
            list.extend(["--filter", label.as_str()]);
            left.extend(docker(&list).unwrap().lines().map(|it| format!("{kind} {it}")));
        }
        left
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- {}", self.run(&["logs", "--no-color"]).unwrap_or_else(|why| why));
        }
        // It is down already, unless the test has failed.
        let _ = self.run(&["--profile", "agent", "down", "--volumes", "--timeout", "5"]);
    }
}

pub(super) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Of the engine, on this machine.
fn socket() -> String {
    let host = env::var("DOCKER_HOST").unwrap_or_default();
    host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock").to_owned()
}

pub(super) fn docker(arguments: &[&str]) -> Result<String, String> {
    done(Command::new("docker").args(arguments))
}

/// What it printed, or why it failed.
pub(super) fn done(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Until the engine says `wanted` of the container.
pub(super) async fn becomes(project: &Project, format: &str, wanted: &str) {
    until(wanted, PATIENCE, async || (project.inspect(format) == wanted).then_some(())).await;
}
