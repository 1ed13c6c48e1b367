//! A machine that runs short, and a slot that takes all it can: others are served, and nobody is
//! blamed for what somebody else has done.

use super::{assert_limit, modes, server_with};
use crate::{
    host::until_within,
    rung::{ANY, NAMESPACES_AS_ROOT, Rung, scenarios},
    server::{LIMIT, Server, Setup, home},
};
use rustix::{
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::{Resource, Rlimit, prlimit},
};
use std::{fs, path::PathBuf};
use tokio::net::TcpStream;

scenarios! {
    everywhere: [
        a_bomb_in_one_slot_is_not_felt_in_another,
    ]
}

/// Each is over when its time is, if no limit ends it before.
const BOMBS: [&str; 5] = [
    "bomb() { bomb | bomb & }; bomb; sleep 100",
    "head -c 4G /dev/zero | tail",
    "for i in 1 2 3 4; do (while :; do head -c 10M /dev/zero > f$i.$RANDOM; done) & done; wait",
    "yes & yes >&2 & yes",
    "(while :; do :; done) & (while :; do :; done) & while :; do :; done",
];

async fn a_bomb_in_one_slot_is_not_felt_in_another(rung: &'static Rung) {
    for mode in modes(rung) {
        let args = [
            "--memory-bytes-max",
            "67108864",
            "--disk-bytes-max",
            "67108864",
            "--processes-max",
            "64",
        ];
        let server = server_with(rung, mode, &args);
        // The bomb would be the machine's end.
        if server.get("/health").await["limits_by"]["processes"] == "nothing" {
            println!("not here: nothing holds the processes of root on this rung");
            continue;
        }
        let root = rustix::process::geteuid().is_root();
        // Where slots share a user and no cgroup counts, they share its number of processes.
        let shared = rung.isolation == Some("landlock") || (rung.is_none() && !root);
        let command = if shared { "echo works" } else { "echo $(echo works)" };
        for bomb in BOMBS {
            let result = async {
                let result = server.bash_within(0, bomb, 1.5).await;
                assert!(!result.success, "{bomb}: {result:?}");
                assert_eq!(result.metadata["caused_by"], "policy", "{bomb}: {result:?}");
            };
            let others = async {
                for _ in 0..20 {
                    let result = server.bash(1, command).await;
                    assert_eq!(result.output, "works", "{bomb}: {result:?}");
                    assert_eq!(result.metadata["ended"], "exited", "{bomb}: {result:?}");
                }
            };
            tokio::join!(result, others);
            let reset = server.reset(0).await;
            assert!(reset.success, "{bomb}: {reset:?}");
        }
    }
}

/// A small file system that is mounted as long as this lives.
struct Mounted(tempfile::TempDir);

impl Mounted {
    /// Seen as `path`. Its own name has no mark of the server's: the whole machine sees it.
    fn new(path: PathBuf) -> Self {
        let dir = tempfile::tempdir().unwrap();
        mount("small", dir.path(), "tmpfs", MountFlags::empty(), c"size=24m,mode=711").unwrap();
        std::os::unix::fs::symlink(dir.path(), path).unwrap();
        Self(dir)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn a_disk_that_others_have_filled_is_no_fault_of_the_policys() {
    let rung = &NAMESPACES_AS_ROOT;
    if !rung.is_offered().await {
        return;
    }
    for mode in modes(rung) {
        let dir = home(rung);
        let _small = Mounted::new(dir.path().join("data"));
        let server = Server::start_in(dir, rung, Setup { args: mode, ..Setup::default() }).unwrap();
        let result = server.bash(0, "head -c 100M /dev/zero > big").await;
        assert_limit(&result, "disk", "disk");
        let other = server.bash(1, "head -c 1M /dev/zero > small").await;
        assert_eq!(other.metadata["limit"], "machine_disk", "{other:?}");
        assert_eq!(other.metadata["ended"], "disk", "{other:?}");
        assert_eq!(other.metadata["caused_by"], "infra", "{other:?}");
        let written = server.write(1, "w", &"x".repeat(100_000)).await;
        assert_eq!(written.metadata["caused_by"], "infra", "{written:?}");
        // All else is served.
        assert_eq!(server.output(0, "echo works").await, "works");
        assert_eq!(server.output(1, "echo works").await, "works");
        let failed = server.bash(1, "rm -f small w; false").await;
        println!("{failed:?}");
        assert!(server.reset(0).await.success);
        until_within(LIMIT, "there is room", async || server.write(1, "w", "x").await.success)
            .await;
        drop(server);
    }
}

#[tokio::test]
async fn a_server_without_descriptors_serves_again_when_it_has_some() {
    let server = Server::start(&ANY);
    let pid = server.pid();
    let open = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).unwrap().count() as u64;
    let few = Rlimit { current: Some(open + 4), maximum: Some(open + 4) };
    prlimit(Some(pid), Resource::Nofile, few).unwrap();
    let mut clients = Vec::new();
    for _ in 0..30 {
        clients.push(TcpStream::connect(&server.authority).await.unwrap());
    }
    drop(clients);
    until_within(LIMIT, "it serves", async || {
        let sent = server.http.get(format!("http://{}/health", server.authority)).send().await;
        sent.is_ok_and(|it| it.status().is_success())
    })
    .await;
    assert_eq!(server.output(0, "echo works").await, "works");
    assert_eq!(server.output(1, "echo works").await, "works");
}
