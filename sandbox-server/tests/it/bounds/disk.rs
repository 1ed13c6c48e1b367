//! The disk of a slot: what its files take, in whatever way.

use super::{MIB, assert_limit, modes, server_with};
use crate::{
    host::{mark, until, until_gone},
    rung::{Rung, scenarios},
    server::Server,
};
use std::{fs, os::unix::fs::MetadataExt as _};

scenarios! {
    everywhere: [
        one_file_over_the_limit_is_the_disk,
        many_files_over_the_limit_are_the_disk,
        calls_that_add_up_are_the_disk,
        sparse_files_are_not_the_disk,
        one_file_of_many_names_is_counted_once,
        a_deleted_file_that_is_held_open_is_the_disk,
        what_hides_behind_a_closed_directory_is_the_disk,
        what_the_background_writes_is_the_disk,
        the_file_tools_write_within_the_limit_and_not_beyond,
    ]
}

fn server(rung: &'static Rung, mode: &[&str], mib: u64) -> Server {
    let max = (mib * MIB).to_string();
    server_with(rung, mode, &["--disk-bytes-max", &max, "--file-bytes-max", "0"])
}

/// Whoever went over reads, deletes, and may then write again.
async fn assert_freed_by(server: &Server, delete: &str) {
    let refused = server.write(0, "w", "x").await;
    assert!(!refused.success && refused.error.contains("disk"), "{refused:?}");
    assert_eq!(refused.metadata["ended"], "disk", "{refused:?}");
    assert!(server.bash(0, "ls > /dev/null").await.success);
    assert!(server.bash(0, delete).await.success, "{delete}");
    let written = server.write(0, "w", "x").await;
    assert!(written.success, "{written:?}");
    assert_eq!(server.output(1, "echo works").await, "works");
}

async fn one_file_over_the_limit_is_the_disk(rung: &'static Rung) {
    for mode in modes(rung) {
        let server = server(rung, mode, 32);
        let result = server.bash_within(0, "head -c 1500M /dev/zero > big; sleep 60", 30.0).await;
        assert_limit(&result, "disk", "disk");
        let taken = fs::metadata(server.workspace(0).join("big")).unwrap().blocks() * 512;
        println!("{} MiB were taken", taken / MIB);
        assert!(taken >= 32 * MIB, "{taken}");
        // To grow further is an end each time.
        let result = server.bash_within(0, "head -c 8M /dev/zero > more; sleep 60", 30.0).await;
        assert_limit(&result, "disk", "disk");
        assert_freed_by(&server, "rm -f big more").await;
    }
}

async fn many_files_over_the_limit_are_the_disk(rung: &'static Rung) {
    for mode in modes(rung) {
        let server = server(rung, mode, 16);
        let command = "i=0; while :; do mkdir -p d$i/e; head -c 100k /dev/zero > d$i/e/f; \
            i=$((i+1)); done";
        let result = server.bash_within(0, command, 60.0).await;
        assert_limit(&result, "disk", "disk");
        assert_freed_by(&server, "rm -rf d*").await;
    }
}

async fn calls_that_add_up_are_the_disk(rung: &'static Rung) {
    for mode in modes(rung) {
        let server = server(rung, mode, 16);
        for number in 0..5 {
            let command = format!("head -c 3M /dev/zero > f{number}");
            assert!(server.bash(0, &command).await.success, "{number}");
        }
        let result = server.bash(0, "head -c 3M /dev/zero > f5").await;
        assert_limit(&result, "disk", "disk");
        assert_freed_by(&server, "rm f5").await;
    }
}

async fn sparse_files_are_not_the_disk(rung: &'static Rung) {
    for mode in modes(rung) {
        let server = server(rung, mode, 16);
        let result = server.bash(0, "truncate -s 100G sparse; head -c 1M /dev/zero > f").await;
        assert!(result.success, "{result:?}");
        assert!(server.write(0, "w", "x").await.success);
        // The disk is looked at while this waits, since something has run.
        assert!(server.bash(0, "sleep 1.5; cat w").await.success);
    }
}

async fn one_file_of_many_names_is_counted_once(rung: &'static Rung) {
    for mode in modes(rung) {
        let server = server(rung, mode, 16);
        let command = "head -c 6M /dev/zero > f; for i in 1 2 3 4 5 6 7 8; do ln f f$i; done; \
            head -c 6M /dev/zero > g; sleep 1.5";
        let result = server.bash(0, command).await;
        assert!(result.success, "{result:?}");
    }
}

async fn a_deleted_file_that_is_held_open_is_the_disk(rung: &'static Rung) {
    for mode in modes(rung) {
        let server = server(rung, mode, 32);
        let command = "exec 9> x; rm x; head -c 1500M /dev/zero >&9; sleep 60";
        let result = server.bash_within(0, command, 30.0).await;
        assert_limit(&result, "disk", "disk");
        // It is gone with who held it.
        assert!(server.write(0, "w", "x").await.success);
    }
}

async fn what_hides_behind_a_closed_directory_is_the_disk(rung: &'static Rung) {
    for mode in modes(rung) {
        let server = server(rung, mode, 16);
        let command = "mkdir -p d/e; exec 9> d/e/x; chmod 0 d/e d; head -c 200M /dev/zero >&9; \
            exec 9>&-; sleep 60";
        let result = server.bash_within(0, command, 30.0).await;
        assert_limit(&result, "disk", "disk");
        let mode = fs::metadata(server.workspace(0).join("d")).unwrap().mode();
        assert_eq!(mode & 0o777, 0, "it was left open");
        assert_freed_by(&server, "chmod 700 d; chmod 700 d/e; rm -r d").await;
    }
}

async fn what_the_background_writes_is_the_disk(rung: &'static Rung) {
    for mode in modes(rung) {
        let server = server(rung, mode, 32);
        let mark = mark();
        let command =
            format!("(sleep 3000.{mark} & head -c 1500M /dev/zero > big; wait) > /dev/null 2>&1 &");
        assert!(server.bash(0, &command).await.success);
        let big = server.workspace(0).join("big");
        until("it is over", || fs::metadata(&big).is_ok_and(|it| it.blocks() * 512 > 32 * MIB))
            .await;
        until_gone(&mark).await;
        assert_freed_by(&server, "rm big").await;
    }
}

async fn the_file_tools_write_within_the_limit_and_not_beyond(rung: &'static Rung) {
    for mode in modes(rung) {
        let server = server(rung, mode, 4);
        let content = "x".repeat(1 << 20);
        for number in 0..3 {
            let written = server.write(0, &format!("f{number}"), &content).await;
            assert!(written.success, "{number}: {written:?}");
        }
        let refused = server.write(0, "f3", &content).await;
        assert!(!refused.success && refused.error.contains("disk"), "{refused:?}");
        assert_eq!(refused.metadata["limit"], "disk", "{refused:?}");
        assert!(!server.workspace(0).join("f3").exists());
        assert!(server.write(1, "f", &content).await.success);
        assert!(server.reset(0).await.success);
        assert!(server.write(0, "f3", &content).await.success);
    }
}
