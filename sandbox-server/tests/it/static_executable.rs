//! The executable that is shipped, where there is nothing else: no C library, no shell but
//! busybox, no /tmp, no /etc. Needs `SLOTMUX_STATIC_SERVER`, which `test.sh` builds.

use crate::{host::until_within, server::LIMIT};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::{
    env, fs,
    net::TcpListener,
    os::unix::{fs::symlink, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;
use tokio::time::Instant;

/// Larger than this, something came in that does not belong there.
const BYTES_MAX: u64 = 16 << 20;
const STARTS: usize = 15;

fn executable() -> Option<PathBuf> {
    let path = env::var_os("SLOTMUX_STATIC_SERVER").map(PathBuf::from);
    if path.is_none() {
        println!("skipped: the static executable: SLOTMUX_STATIC_SERVER is not set");
        let ci = env::var("CI").is_ok_and(|it| it == "true");
        assert!(!ci, "CI must have it");
    }
    path
}

#[test]
fn it_asks_for_no_loader_and_is_small() {
    let Some(path) = executable() else { return };
    let bytes = fs::read(&path).unwrap();
    assert_eq!(&bytes[..4], b"\x7fELF");
    let number = |at: usize, size: usize| {
        bytes[at..at + size].iter().rev().fold(0_usize, |sum, it| sum << 8 | usize::from(*it))
    };
    // Program headers: of a 64-bit file at 32, their size at 54 and their count at 56.
    let (offset, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    const INTERPRETER: usize = 3;
    let kinds: Vec<_> = (0..count).map(|it| number(offset + it * size, 4)).collect();
    assert!(!kinds.contains(&INTERPRETER), "it needs a loader: {kinds:?}");
    println!("static executable: {} bytes", bytes.len());
    assert!(u64::try_from(bytes.len()).unwrap() < BYTES_MAX, "{} bytes", bytes.len());
}

/// A directory with the executable, busybox, a device, and mount points.
fn empty_root(executable: &Path) -> Option<TempDir> {
    let root = tempfile::Builder::new().prefix("slotmux-static-").tempdir_in("/tmp").unwrap();
    for dir in ["bin", "dev", "proc", "data"] {
        fs::create_dir(root.path().join(dir)).unwrap();
    }
    let busybox =
        ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|it| Path::new(it).exists());
    let Some(busybox) = busybox else {
        println!("skipped: an empty root: install the package busybox-static");
        return None;
    };
    // By another process: one that is forked meanwhile would hold a copy open for writing.
    for (from, to) in [(executable, "server"), (Path::new(busybox), "bin/busybox")] {
        assert!(Command::new("cp").arg(from).arg(root.path().join(to)).status().unwrap().success());
    }
    for name in ["sh", "cat", "id", "ls", "sleep", "echo"] {
        symlink("busybox", root.path().join("bin").join(name)).unwrap();
    }
    fs::write(root.path().join("dev/null"), "").unwrap();
    Some(root)
}

/// In namespaces of its own, so that its mounts go with it: an ordinary user's as well.
fn start_in(root: &Path, port: u16) -> Child {
    let script = format!(
        "mount --rbind /proc {0}/proc && mount --bind /dev/null {0}/dev/null && \
         exec chroot {0} /server --port {port} --slots 2 --data-dir /data --lifetime-s 120",
        root.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["sh", "-c", &script]).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(fs::File::create(root.join("log")).unwrap()).process_group(0);
    command.spawn().unwrap()
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn ask(port: u16, path: &str, body: &Value) -> Option<Value> {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://127.0.0.1:{port}{path}");
    let request =
        if body.is_null() { http.get(url) } else { http.post(url).body(body.to_string()) };
    request.send().await.ok()?.json().await.ok()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn it_serves_in_a_root_that_holds_only_busybox() {
    let Some(executable) = executable() else { return };
    let Some(root) = empty_root(&executable) else { return };
    let port = free_port();
    let mut server = Ended(start_in(root.path(), port));
    let log = || fs::read_to_string(root.path().join("log")).unwrap_or_default();
    let mut health = None;
    until_within(LIMIT, "it answers", async || {
        health = ask(port, "/health", &Value::Null).await;
        if let Some(status) = server.0.try_wait().unwrap() {
            panic!("it ended with {status}: {}", log());
        }
        health.is_some()
    })
    .await;
    let health = health.unwrap();
    println!("with busybox alone: {} by {}", health["isolation"], health["shell"]);
    assert_eq!(health["shell"], "/bin/sh", "{health}");
    assert_ne!(health["isolation"], "none");
    let call = |tool: &str, args: Value| json!({ "slot_id": "slot_0", "tool": tool, "args": args });
    let command = "echo text > f; cat f; [ \"$(id -u)\" != 0 ] && ls -a / | cat; echo $HOME";
    let answer = ask(port, "/execute", &call("bash", json!({ "command": command }))).await.unwrap();
    assert_eq!(answer["success"], true, "{answer} {}", log());
    assert!(answer["output"].as_str().unwrap().starts_with("text\n"), "{answer}");
    let answer = ask(port, "/execute", &call("read_file", json!({ "path": "f" }))).await.unwrap();
    assert_eq!(answer["output"], "text\n", "{answer}");
    let reset = ask(port, "/reset", &json!({ "slot_id": "slot_0" })).await.unwrap();
    assert_eq!(reset["success"], true, "{reset} {}", log());
    let pid = Pid::from_raw(server.0.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let status = server.0.wait().unwrap();
    assert!(status.success(), "{status}: {}", log());
}

/// Printed for the README; a machine that is busy with other tests says little about time.
#[tokio::test]
async fn it_starts_in_no_time() {
    let Some(executable) = executable() else { return };
    let home = tempfile::Builder::new().prefix("slotmux-static-").tempdir_in("/tmp").unwrap();
    for slots in ["1", "10"] {
        let mut times = Vec::new();
        for _ in 0..STARTS {
            let ready = home.path().join("ready");
            let _ = fs::remove_file(&ready);
            let began = Instant::now();
            let mut command = Command::new(&executable);
            command.args(["--port", "0", "--slots", slots, "--lifetime-s", "60", "--data-dir"]);
            command.arg(home.path().join("data")).arg("--ready-file").arg(&ready);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut server = Ended(command.spawn().unwrap());
            until_within(LIMIT, "it is ready", async || ready.exists()).await;
            times.push(began.elapsed());
            let pid = Pid::from_raw(server.0.id().try_into().unwrap()).unwrap();
            kill_process(pid, Signal::TERM).unwrap();
            assert!(server.0.wait().unwrap().success());
        }
        times.sort_unstable();
        let median = times[STARTS / 2];
        println!("ready after {median:?} with {slots} slots (median of {STARTS})");
        assert!(median < LIMIT / 4, "{times:?}");
    }
}
