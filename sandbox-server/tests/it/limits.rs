//! A slot's limits: what goes over them is the slot's own loss.

use crate::{
    host::until,
    http::bash,
    rung::{ANY, Rung, scenarios},
    server::{Server, Setup, home},
};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use std::{
    fs,
    process::{Command, Stdio},
};

scenarios! {
    everywhere: [
        memory_over_the_limit_is_the_policys_oom,
        memory_of_many_processes_is_counted_together,
        a_fork_bomb_leaves_others_their_processes,
        a_file_over_its_limit_is_cut_there,
        files_and_core_dumps_have_the_limits_that_were_set,
    ]
    in_namespaces: [
        memory_that_files_take_is_the_policys_oom_and_goes_with_a_reset,
    ]
}

const MIB: u32 = 1 << 20;

fn with_memory(rung: &'static Rung, mib: u32) -> Server {
    let bytes = (mib * MIB).to_string();
    Server::with(rung, Setup { args: &["--memory-bytes-max", &bytes], ..Setup::default() })
}

async fn memory_over_the_limit_is_the_policys_oom(rung: &'static Rung) {
    let server = with_memory(rung, 64);
    // `tail` keeps a line whole, and this one does not end.
    let result = server.bash_within(0, "head -c 4G /dev/zero | tail", 15.0).await;
    assert_eq!(result.metadata["ended"], "oom", "{result:?}");
    assert_eq!(result.metadata["caused_by"], "policy");
    assert!(!result.success && result.error.contains("memory"), "{result:?}");
    assert_eq!(server.output(0, "echo works").await, "works");
    assert_eq!(server.output(1, "echo works").await, "works");
}

async fn memory_of_many_processes_is_counted_together(rung: &'static Rung) {
    let server = with_memory(rung, 96);
    // Each of six holds some 30 MB, until all hold theirs or they are ended.
    let command = "for i in 1 2 3 4 5 6; do \
        { head -c 30M /dev/zero; sleep 1; } | tail > /dev/null & done; wait; exit 1";
    let result = server.bash_within(0, command, 15.0).await;
    assert_eq!(result.metadata["ended"], "oom", "{result:?}");
}

async fn memory_that_files_take_is_the_policys_oom_and_goes_with_a_reset(rung: &'static Rung) {
    let args = ["--memory-bytes-max", "67108864", "--tmp-bytes-max", "268435456"];
    let server = Server::with(rung, Setup { args: &args, ..Setup::default() });
    if server.get("/health").await["limits_by"]["memory"] == "supervision" {
        println!("skipped: there is no cgroup that counts files in memory");
        return;
    }
    for path in ["$TMPDIR/x", "/dev/shm/x"] {
        let result = server.bash_within(0, &format!("cat /dev/zero > {path}"), 15.0).await;
        assert_eq!(result.metadata["ended"], "oom", "{path}: {result:?}");
        assert_eq!(result.metadata["caused_by"], "policy", "{path}: {result:?}");
        assert!(server.reset(0).await.success);
        assert_eq!(
            server.output(0, "ls /tmp /dev/shm | grep x; echo $(echo works)").await,
            "works"
        );
    }
    assert_eq!(server.output(1, "echo works").await, "works");
}

async fn a_fork_bomb_leaves_others_their_processes(rung: &'static Rung) {
    let setup = Setup { args: &["--processes-max", "64"], ..Setup::default() };
    let server = Server::with(rung, setup);
    if server.get("/health").await["limits_by"]["processes"] == "nothing" {
        println!("not here: nothing holds the processes of root on this rung");
        return;
    }
    let bomb = async {
        let result = server.bash_within(0, "bomb() { bomb | bomb & }; bomb; sleep 100", 1.0).await;
        assert!(!result.success, "{result:?}");
        result
    };
    // Where slots share a user they also share its count of processes.
    let root = rustix::process::geteuid().is_root();
    let forks = rung.isolation != Some("landlock") && (root || !rung.is_none());
    let others = async {
        for _ in 0..20 {
            let command = if forks { "echo $(echo works)" } else { "echo works" };
            let result = server.bash(1, command).await;
            assert_eq!(result.output, "works", "{result:?}");
        }
    };
    let (result, ()) = tokio::join!(bomb, others);
    assert_eq!(result.metadata["caused_by"], "policy", "{result:?}");
    assert!(server.reset(0).await.success);
    assert_eq!(server.output(0, "echo $(echo works)").await, "works");
    let results = server.batch(vec![bash(0, "echo a"), bash(1, "echo b")]).await;
    assert!(results.iter().all(|it| it.success), "{results:?}");
}

async fn a_file_over_its_limit_is_cut_there(rung: &'static Rung) {
    let setup = Setup { args: &["--file-bytes-max", "1000000"], ..Setup::default() };
    let server = Server::with(rung, setup);
    let result = server.bash(0, "head -c 3000000 /dev/zero > big").await;
    assert!(!result.success, "{result:?}");
    assert_eq!(server.output(0, "stat -c %s big").await, "1000000");
}

async fn files_and_core_dumps_have_the_limits_that_were_set(rung: &'static Rung) {
    let setup = Setup { args: &["--open-files-max", "77"], ..Setup::default() };
    let server = Server::with(rung, setup);
    assert_eq!(
        server.output(0, "ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Hc").await,
        "77\n77\n0\n0"
    );
}

#[tokio::test]
async fn the_servers_own_limit_of_file_sizes_is_an_error_and_not_its_end() {
    let server = Server::start(&ANY);
    let limit = Rlimit { current: Some(1_000_000), maximum: Some(1_000_000) };
    prlimit(Some(server.pid()), Resource::Fsize, limit).unwrap();
    let written = server.write(0, "big", &"x".repeat(2_000_000)).await;
    assert!(!written.success && !written.error.is_empty(), "{written:?}");
    assert!(server.write(0, "small", "x").await.success);
    assert_eq!(server.output(0, "cat small").await, "x");
}

#[tokio::test]
async fn the_server_takes_all_the_descriptors_that_it_may_have() {
    let dir = home(&ANY);
    let mut server = Command::new("bash")
        .args(["-c", "ulimit -Sn 200; ulimit -Hn 300; exec \"$@\"", "-"])
        .arg(dir.path().join("server"))
        .args(["--port", "0", "--slots", "1", "--isolation", "none", "--isolation-min", "none"])
        .args(["--lifetime-s", "60", "--data-dir"])
        .arg(dir.path().join("data"))
        .arg("--ready-file")
        .arg(dir.path().join("ready"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("it serves", || dir.path().join("ready").exists()).await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
    let pid = Pid::from_raw(server.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert!(server.wait().unwrap().success());
    let line = limits.lines().find_map(|it| it.strip_prefix("Max open files")).unwrap();
    let numbers: Vec<_> = line.split_whitespace().take(2).collect();
    assert_eq!(numbers, ["300", "300"]);
}
