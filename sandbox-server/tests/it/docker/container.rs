//! A container with a server in it, started by Docker's command. Gone when this is dropped.

use crate::{
    host::{self, until_within},
    hostile::Target,
    server::LIMIT,
};
use std::{
    env, fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

/// Debian's essential packages, and nothing of ours.
pub(super) const DEBIAN: &str = "slotmux-test:debian";
/// One file, busybox, under the names of its commands.
pub(super) const SCRATCH: &str = "slotmux-test:busybox";

/// In what a container is given: some user without an account, each time another.
pub(super) const A_USER: &str = "A_USER";

const TOKEN: &str = "token-of-the-containers";
const STATIC: &str = "SLOTMUX_STATIC_SERVER";

#[derive(Debug)]
pub(super) enum Failed {
    /// It does not come to run the server.
    Engine(String),
    /// The server ended; what it said.
    Server(String),
}

#[derive(Debug)]
pub(super) struct Container {
    name: String,
    ip: String,
    /// Of the server, as this machine counts.
    pid: i32,
}

/// Whether there is an engine, and why not. One that must be there and is not is a failure.
pub(super) fn engine() -> Result<(), String> {
    let why = match docker(&["version", "--format", "{{.Server.Version}}"]) {
        Ok(_) if docker(&["image", "inspect", DEBIAN, SCRATCH]).is_ok() => return Ok(()),
        Ok(_) => "the images are not made: run `tests/engine.sh images`".to_owned(),
        Err(why) => format!("no Docker engine: {why}"),
    };
    let owed = rustix::process::geteuid().is_root();
    let ci = env::var("CI").is_ok_and(|it| it == "true");
    assert!(!(owed && ci), "CI must have it: {why}");
    Err(why)
}

pub(super) fn docker(args: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(args).output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = text(&output.stderr);
    let reason = said.lines().find(|it| !it.starts_with("WARNING"));
    Err(reason.unwrap_or("it failed").to_owned())
}

pub(super) fn is_static() -> bool {
    env::var_os(STATIC).is_some()
}

/// What is shipped, where it was built; else what these tests test.
fn executable() -> PathBuf {
    env::var_os(STATIC)
        .map_or_else(|| env!("CARGO_BIN_EXE_slotmux-sandbox-server").into(), PathBuf::from)
}

impl Container {
    pub(super) async fn run(given: &[&str], image: &str, args: &[&str]) -> Result<Self, Failed> {
        let token = format!("SLOTMUX_CONTAINER_TOKEN={TOKEN}");
        let given: Vec<_> = given.iter().copied().chain(["--env", &*token]).collect();
        Self::run_without_token(&given, image, args).await
    }

    pub(super) async fn run_without_token(
        given: &[&str],
        image: &str,
        args: &[&str],
    ) -> Result<Self, Failed> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("slotmux-it-{}-{number}", std::process::id());
        // The kernel counts the processes of a user, whichever containers they are in.
        let user = 20_000 + (std::process::id() % 1_000) * 32 + number;
        let user = format!("{user}:{user}");
        let server = format!("{}:/slotmux/server:ro", executable().display());
        let probe = env::current_exe().map_err(|error| Failed::Engine(error.to_string()))?;
        let probe = format!("{}:/slotmux-probe/probe:ro", probe.display());
        // Where only the engine's init is to be seen the server would not be process 1.
        let mut command = vec!["run", "--detach", "--name", &name, "--volume", &server];
        let shown = ["--volume", &*probe];
        if image == DEBIAN {
            command.extend(shown);
        }
        command.extend(given.iter().map(|it| if *it == A_USER { &*user } else { *it }));
        command.extend([image, "/slotmux/server", "--host", "0.0.0.0", "--slots", "2"]);
        command.extend(["--container", &name, "--data-dir", "/data", "--grace-s", "1"]);
        if image == DEBIAN {
            command.extend(["--expose", "/slotmux-probe"]);
        }
        command.extend(args);
        let mut container = Self { name: name.clone(), ip: String::new(), pid: 0 };
        docker(&command).map_err(Failed::Engine)?;
        let format = "{{.NetworkSettings.IPAddress}} {{.State.Pid}}";
        let state = docker(&["inspect", "--format", format, &name]).map_err(Failed::Engine)?;
        if let Some((ip, pid)) = state.split_once(' ') {
            ip.clone_into(&mut container.ip);
            container.pid = pid.parse().unwrap_or(0);
        }
        container.await_ready().await?;
        Ok(container)
    }

    async fn await_ready(&self) -> Result<(), Failed> {
        let http = client();
        let mut ended = None;
        until_within(LIMIT, "the container's server answers", async || {
            let health = http.get(format!("http://{}:8080/health", self.ip)).send();
            if !self.ip.is_empty() && health.await.is_ok_and(|it| it.status().is_success()) {
                return true;
            }
            let running = docker(&["inspect", "--format", "{{.State.Running}}", &self.name]);
            if running.as_deref() != Ok("true") {
                ended = Some(self.log());
            }
            ended.is_some()
        })
        .await;
        ended.map_or(Ok(()), |log| Err(Failed::Server(log)))
    }

    pub(super) async fn target(&self, name: &str) -> Target {
        let authority = format!("{}:8080", self.ip);
        let http = client();
        let health = http.get(format!("http://{authority}/health")).send().await.unwrap();
        let health: serde_json::Value = health.json().await.unwrap();
        let path = docker(&["inspect", "--format", "{{.LogPath}}", &self.name]);
        Target {
            name: name.to_owned(),
            isolation: health["isolation"].as_str().unwrap_or_default().to_owned(),
            pid: self.pid,
            authority,
            token: Some(TOKEN.to_owned()),
            http,
            data_dir: PathBuf::from("/data"),
            log: path.unwrap_or_default().into(),
            probe: Some(PathBuf::from("/slotmux-probe/probe")),
            supervised: health["limits_by"]["memory"] == "supervision",
            image: health["root"] == "image",
        }
    }

    /// What a command in the container itself prints, beside the server.
    pub(super) fn exec(&self, command: &str) -> String {
        let args = ["exec", &self.name, "sh", "-c", command];
        docker(&args).unwrap_or_else(|why| panic!("{command}: {why}"))
    }

    pub(super) fn log(&self) -> String {
        let output = Command::new("docker").args(["logs", &self.name]).output();
        output.map_or_else(
            |error| error.to_string(),
            |it| String::from_utf8_lossy(&[it.stdout, it.stderr].concat()).into_owned(),
        )
    }

    /// The server is process 1 there: orphans come to it.
    pub(super) async fn assert_no_zombies(&self) {
        let zombies = || {
            let processes =
                host::processes_of(rustix::process::Pid::from_raw(self.pid).unwrap(), &self.name);
            processes.into_iter().filter(host::Process::is_zombie).count()
        };
        until_within(LIMIT, "no zombie is left", async || zombies() == 0).await;
    }

    /// As an orchestrator does, and looks how it ended.
    pub(super) fn stop(&self) {
        docker(&["stop", "--time", "20", &self.name]).unwrap();
        let code = docker(&["inspect", "--format", "{{.State.ExitCode}}", &self.name]);
        assert_eq!(code.as_deref(), Ok("0"), "{}", self.log());
        let gone = !fs::exists(format!("/proc/{}", self.pid)).unwrap_or(false);
        assert!(gone, "its process is still there");
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- log of {}:\n{}", self.name, self.log());
        }
        // It was never made, or is gone already.
        let _ = docker(&["rm", "--force", "--volumes", &self.name]);
    }
}

/// A connection for each request: when the whole machine is held up, as some attempts do, a server
/// may have closed one by the time that it is used again.
fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap()
}
