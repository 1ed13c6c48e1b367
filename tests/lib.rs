//! What tests across crates share: a pool as a process, HTTP to it, and what it leaves behind.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod engine;
pub mod traces;

use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// For what should happen soon; far longer than it takes, so that only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The binary under test: `SLOTMUX_BIN`, or the release build of this workspace.
pub fn slotmux() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/slotmux");
    let path = std::env::var_os("SLOTMUX_BIN").map_or(built, PathBuf::from);
    assert!(path.is_file(), "{} is missing: cargo build --release", path.display());
    path
}

/// Asks again and again, briefly, until there is an answer.
pub async fn until<T>(
    what: &str,
    patience: Duration,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {patience:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A directory that slot users can pass through.
pub fn open_dir() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("slotmux-it-").tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    dir
}

/// Every file below `dir`, of whatever kind.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|it| it.is_dir()) {
            found.extend(files_below(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

/// `slotmux serve` as a process of its own.
pub struct Pool {
    child: Child,
    pub url: String,
    pub http: reqwest::Client,
    dir: PathBuf,
    flags: Vec<String>,
    seen: traces::Traces,
}

impl Pool {
    pub async fn start(dir: &Path, flags: &[&str]) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let flags: Vec<String> = flags.iter().map(|it| (*it).to_owned()).collect();
        let child = spawn(dir, port, &flags);
        let url = format!("http://127.0.0.1:{port}");
        let http = reqwest::Client::new();
        let pool =
            Self { child, url, http, dir: dir.to_owned(), flags, seen: traces::Traces::default() };
        pool.ready().await;
        pool
    }

    async fn ready(&self) {
        until("the pool answers", PATIENCE, async || {
            self.http.get(format!("{}/health", self.url)).send().await.ok()
        })
        .await;
    }

    /// SIGKILL, and a new process on the same state.
    pub async fn kill_and_restart(&mut self, between: impl FnOnce(&Path)) {
        self.note();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        between(&self.dir);
        let port = self.url.rsplit(':').next().unwrap().parse().unwrap();
        self.child = spawn(&self.dir, port, &self.flags);
        self.ready().await;
    }

    /// Remembers what belongs to the pool now, to look for it in the end.
    pub fn note(&mut self) {
        self.seen.add_descendants(self.child.id());
        for pid in self.containers().iter().map(|it| it.1) {
            self.seen.add_descendants(pid);
        }
    }

    /// Names and process ids of the sandbox-servers that live.
    pub fn containers(&self) -> Vec<(String, u32)> {
        traces::processes()
            .filter_map(|pid| {
                let arguments = traces::arguments(pid);
                arguments.iter().find(|it| Path::new(it).starts_with(&self.dir))?;
                let name = arguments.iter().find_map(|it| it.strip_prefix("--container="))?;
                Some((name.to_owned(), pid))
            })
            .collect()
    }

    /// SIGTERM; then nothing of it may be left.
    pub async fn stop(mut self) {
        self.note();
        traces::signal(self.child.id(), rustix::process::Signal::TERM);
        let child = &mut self.child;
        let status = until("the pool ends", PATIENCE, async || child.try_wait().unwrap()).await;
        assert!(status.success(), "{status}");
        self.seen.assert_gone(PATIENCE).await;
    }

    /// Status and body.
    pub async fn send(&self, method: reqwest::Method, path: &str, body: Value) -> (u16, Value) {
        let request = self.http.request(method, format!("{}{path}", self.url)).json(&body);
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send(reqwest::Method::POST, path, body).await
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.send(reqwest::Method::GET, path, Value::Null).await
    }

    pub async fn acquire(&self, trajectory: &str) -> String {
        let (status, answer) =
            self.post("/v1/leases", json!({ "trajectory_id": trajectory })).await;
        assert_eq!(status, 201, "{answer}");
        answer["leases"][0]["lease_id"].as_str().unwrap().to_owned()
    }

    pub async fn bash(&self, lease: &str, command: &str) -> Value {
        let call = json!({ "tool": "bash", "args": { "command": command } });
        let (status, answer) = self.post(&format!("/v1/leases/{lease}/execute"), call).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Of a test that failed; `stop` has waited for it otherwise.
        if matches!(self.child.try_wait(), Ok(None)) {
            traces::signal(self.child.id(), rustix::process::Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

fn spawn(dir: &Path, port: u16, flags: &[String]) -> Child {
    Command::new(slotmux())
        .arg("serve")
        .args(["--listen", &format!("127.0.0.1:{port}"), "--state-dir"])
        .arg(dir)
        .args(flags)
        .env("SLOTMUX_LOG", "warn")
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}
