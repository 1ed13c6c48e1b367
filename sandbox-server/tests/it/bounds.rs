//! Each limit of a slot, with a cgroup and without: what goes over it is told apart from all
//! else, and is the policy's.

mod disk;
mod endurance;
mod usage;

use crate::{
    rung::{Rung, User, scenarios},
    server::{Server, Setup},
};
use slotmux_protocol::atropos::SlotResult;

scenarios! {
    everywhere: [
        memory_of_a_file_without_a_name_is_the_policys_oom,
        forks_over_the_limit_are_pids,
        processor_time_over_the_limit_is_a_timeout_that_says_so,
        processor_time_of_short_lived_processes_counts,
        time_that_is_slept_away_is_no_processor_time,
        a_file_over_its_size_is_the_disk_and_says_which_limit,
        health_says_what_enforces_each_limit,
    ]
    in_namespaces: [
        memory_of_a_shared_segment_is_the_policys_oom,
        memory_of_files_in_memory_is_the_policys_oom,
        a_full_tmp_is_the_disk_and_says_which_limit,
    ]
}

const MIB: u64 = 1 << 20;

/// As the machine has it, and with nothing but supervision where the first is more than that.
pub(crate) fn modes(rung: &Rung) -> &'static [&'static [&'static str]] {
    let root = rustix::process::geteuid().is_root();
    if root && rung.user != User::Ordinary { &[&[], &["--no-cgroup"]] } else { &[&["--no-cgroup"]] }
}

pub(crate) fn server_with(rung: &'static Rung, mode: &[&str], args: &[&str]) -> Server {
    let args: Vec<_> = mode.iter().chain(args).copied().collect();
    println!("{}: {args:?}", rung.name);
    Server::with(rung, Setup { args: &args, probe: true, ..Setup::default() })
}

pub(crate) fn assert_limit(result: &SlotResult, ended: &str, limit: &str) {
    let metadata = &result.metadata;
    assert!(!result.success, "{result:?}");
    let told = |name: &str| metadata.get(name).and_then(|it| it.as_str()).unwrap_or_default();
    assert_eq!((told("ended"), told("limit")), (ended, limit), "{result:?}");
    assert_eq!(told("caused_by"), "policy", "{result:?}");
}

async fn assert_both_work(server: &Server) {
    assert!(server.reset(0).await.success);
    for slot in [0, 1] {
        assert_eq!(server.output(slot, "echo $(echo works)").await, "works");
    }
}

async fn memory_of_a_file_without_a_name_is_the_policys_oom(rung: &'static Rung) {
    for mode in modes(rung) {
        let memory = (96 * MIB).to_string();
        let server = server_with(rung, mode, &["--memory-bytes-max", &memory]);
        let hoard = server.probe_command("hoard_memfd", "400");
        let result = server.bash_within(0, &hoard, 20.0).await;
        assert_limit(&result, "oom", "memory");
        // A third of it is no reason.
        let hoard = server.probe_command("hoard_memfd", "30");
        let command =
            format!("{hoard} > log & until grep -q written log; do sleep 0.02; done; sleep 0.5");
        let result = server.bash_within(0, &command, 20.0).await;
        assert!(result.success, "{result:?}");
        assert_both_work(&server).await;
    }
}

async fn memory_of_a_shared_segment_is_the_policys_oom(rung: &'static Rung) {
    for mode in modes(rung) {
        let memory = (96 * MIB).to_string();
        let server = server_with(rung, mode, &["--memory-bytes-max", &memory]);
        let hoard = server.probe_command("hoard_segment", "200");
        let result = server.bash_within(0, &hoard, 20.0).await;
        assert_limit(&result, "oom", "memory");
        assert_both_work(&server).await;
    }
}

async fn memory_of_files_in_memory_is_the_policys_oom(rung: &'static Rung) {
    for mode in modes(rung) {
        let args = ["--memory-bytes-max", "67108864", "--tmp-bytes-max", "536870912"];
        let server = server_with(rung, mode, &args);
        for path in ["$TMPDIR/x", "/dev/shm/x"] {
            let command = format!("head -c 300M /dev/zero > {path}; sleep 60");
            let result = server.bash_within(0, &command, 20.0).await;
            assert_limit(&result, "oom", "memory");
            assert_both_work(&server).await;
        }
    }
}

async fn a_full_tmp_is_the_disk_and_says_which_limit(rung: &'static Rung) {
    for mode in modes(rung) {
        let server = server_with(rung, mode, &["--tmp-bytes-max", "8388608"]);
        for path in ["$TMPDIR/x", "/dev/shm/x"] {
            let result = server.bash(0, &format!("head -c 20M /dev/zero > {path}")).await;
            assert_limit(&result, "disk", "tmp");
            // What does well beside it is not blamed, and what fails with room again neither.
            assert!(server.bash(0, "true").await.success);
            let result = server.bash(0, &format!("rm {path}; exit 3")).await;
            assert_eq!(result.metadata["ended"], "exited", "{result:?}");
        }
    }
}

async fn forks_over_the_limit_are_pids(rung: &'static Rung) {
    for mode in modes(rung) {
        // There `kill -9 -1` is the end of everything that the user of the tests runs.
        if rung.is_none() {
            continue;
        }
        let server = server_with(rung, mode, &["--processes-max", "40"]);
        let result = server.probe(0, "hoard_children", "500").await;
        assert_limit(&result, "pids", "processes");
        // Full as it is, it can be seen to by itself.
        let result = server.bash(0, "kill -9 -1").await;
        println!("{result:?}");
        // Slots that share a user share its number of processes where no cgroup counts.
        if rung.isolation != Some("landlock") {
            let within = server.probe(1, "hoard_children", "10").await;
            assert!(within.success, "{within:?}");
        }
        assert_both_work(&server).await;
    }
}

async fn processor_time_over_the_limit_is_a_timeout_that_says_so(rung: &'static Rung) {
    for mode in modes(rung) {
        let server = server_with(rung, mode, &["--cpu-ms-max", "500"]);
        let result = server.bash_within(0, "while :; do :; done", 60.0).await;
        assert_limit(&result, "timeout", "cpu_time");
        assert_eq!(result.error, "Command used more than 0.5 s of processor time");
        // Of one that nobody waits for.
        let command = "(while :; do :; done) & sleep 60";
        let result = server.bash_within(0, command, 60.0).await;
        assert_limit(&result, "timeout", "cpu_time");
        // Each call has its own.
        for _ in 0..3 {
            let result = server.bash(0, "i=0; while [ $i -lt 10000 ]; do i=$((i+1)); done").await;
            assert!(result.success, "{result:?}");
        }
    }
}

async fn processor_time_of_short_lived_processes_counts(rung: &'static Rung) {
    for mode in modes(rung) {
        let server = server_with(rung, mode, &["--cpu-ms-max", "300"]);
        let command = "while :; do (i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done); done";
        let result = server.bash_within(0, command, 60.0).await;
        assert_limit(&result, "timeout", "cpu_time");
    }
}

async fn time_that_is_slept_away_is_no_processor_time(rung: &'static Rung) {
    for mode in modes(rung) {
        let server = server_with(rung, mode, &["--cpu-ms-max", "500"]);
        let result = server.bash_within(0, "sleep 1", 60.0).await;
        assert!(result.success, "{result:?}");
        let result = server.bash_within(0, "sleep 60", 0.7).await;
        assert_limit(&result, "timeout", "wall_time");
    }
}

async fn a_file_over_its_size_is_the_disk_and_says_which_limit(rung: &'static Rung) {
    for mode in modes(rung) {
        let server = server_with(rung, mode, &["--file-bytes-max", "1000000"]);
        for command in ["head -c 3M /dev/zero > big", "head -c 3M /dev/zero > big; exit $?"] {
            let result = server.bash(0, command).await;
            assert_limit(&result, "disk", "file_size");
            assert!(result.error.contains("file size"), "{result:?}");
        }
        assert!(server.bash(0, "head -c 1M /dev/zero | head -c 999999 > big").await.success);
    }
}

async fn health_says_what_enforces_each_limit(rung: &'static Rung) {
    for mode in modes(rung) {
        let server = server_with(rung, mode, &[]);
        let by = server.get("/health").await["limits_by"].clone();
        println!("{by}");
        let cgroups = !mode.contains(&"--no-cgroup");
        for name in ["memory", "cpu_time", "processes", "disk", "tmp", "output", "wall_time"] {
            assert!(by[name].is_string(), "{name}: {by}");
        }
        if !cgroups {
            assert_eq!(by["memory"], "supervision");
            assert_eq!(by["cpu"], "nothing");
            let unheld = rung.is_none() && rustix::process::geteuid().is_root();
            assert_eq!(by["processes"], if unheld { "nothing" } else { "rlimit" });
        }
        let tmp = if rung.is_namespaces() { "tmpfs" } else { "supervision" };
        assert_eq!(by["tmp"], tmp);
    }
}
