//! How a server starts, ends, and is cleaned up after.

use crate::{
    host::{self, mark, marked, until, until_within},
    http::bash,
    rung::{ANY, Rung, scenarios},
    server::{LIMIT, Server, Setup, command, home},
};
use rustix::process::Signal;
use std::{fs, net::TcpListener, time::Duration};

scenarios! {
    everywhere: [
        sigterm_lets_what_runs_finish_and_answers_it,
        after_the_grace_period_what_runs_is_cancelled_by_infra,
        background_processes_end_with_the_server,
        a_killed_server_takes_every_process_with_it_and_cleanup_removes_the_rest,
        the_next_server_finds_nothing_of_a_killed_one,
    ]
}

async fn sigterm_lets_what_runs_finish_and_answers_it(rung: &'static Rung) {
    let mut server = Server::start(rung);
    let processes = server.processes();
    let running = server.workspace(0).join("running");
    let (result, ()) = tokio::join!(
        server.bash(0, "touch running; while [ ! -e go ]; do sleep 0.01; done; echo done"),
        async {
            until("it runs", || running.exists()).await;
            server.signal(Signal::TERM);
            until_within(LIMIT, "it drains", async || {
                let refused = server.http.get(format!("http://{}/health", server.authority));
                refused.send().await.is_err()
            })
            .await;
            fs::write(server.workspace(0).join("go"), "").unwrap();
        }
    );
    assert_eq!(result.output, "done", "{result:?}");
    assert!(server.exit_within(LIMIT).unwrap().success());
    server.assert_nothing_left(&processes);
}

async fn after_the_grace_period_what_runs_is_cancelled_by_infra(rung: &'static Rung) {
    let mut server = Server::with(rung, Setup { args: &["--grace-s", "0.1"], ..Setup::default() });
    let processes = server.processes();
    let mark = mark();
    let deaf = format!("trap '' TERM; sleep 3000.{mark}; sleep 3000.{mark}");
    let (running, waiting, ()) = tokio::join!(
        server.bash(0, &deaf),
        async {
            until("it runs", || !marked(&mark).is_empty()).await;
            server.batch(vec![bash(0, "echo late"), bash(1, "echo other")]).await
        },
        async {
            until("it runs", || !marked(&mark).is_empty()).await;
            until_within(LIMIT, "one call waits, the other slot has answered", async || {
                let slots = server.get("/slots").await;
                slots["slots"][0]["queued"] == 2 && slots["slots"][1]["queued"] == 0
            })
            .await;
            server.signal(Signal::TERM);
        }
    );
    assert_eq!(running.metadata["ended"], "cancelled", "{running:?}");
    assert_eq!(running.metadata["caused_by"], "infra", "{running:?}");
    assert!(!waiting[0].success, "{waiting:?}");
    assert!(server.exit_within(LIMIT).unwrap().success());
    server.assert_nothing_left(&processes);
    assert_eq!(marked(&mark), [0; 0]);
}

async fn background_processes_end_with_the_server(rung: &'static Rung) {
    let mut server = Server::start(rung);
    let mark = mark();
    server
        .output(0, &format!("trap '' TERM; sleep 3000.{mark} & (setsid sleep 3000.{mark} &)"))
        .await;
    until("both are there", || marked(&mark).len() == 2).await;
    server.stop();
    assert_eq!(marked(&mark), [0; 0]);
}

async fn a_killed_server_takes_every_process_with_it_and_cleanup_removes_the_rest(
    rung: &'static Rung,
) {
    let mut server = Server::start(rung);
    let mark = mark();
    let sleep = format!(
        "sleep 3000.{mark} & (setsid sleep 3000.{mark} &); touch file; mkdir -p a/b; chmod 0 a"
    );
    assert!(server.bash(0, &sleep).await.success);
    let endless = format!("trap '' TERM HUP; while :; do sleep 3000.{mark}; done");
    tokio::select! {
        _ = server.bash(1, &endless) => panic!("it does not end"),
        () = until("all are there", || marked(&mark).len() >= 4) => {}
    }
    let processes = server.processes();
    server.kill();
    until_within(Duration::from_secs(3), "every process is gone", async || {
        processes.iter().all(|it| !it.is_alive()) && marked(&mark).is_empty()
    })
    .await;
    let cleanup = command(server.dir.path(), rung)
        .arg("--data-dir")
        .arg(server.data_dir())
        .args(["--container", &server.container, "--cleanup"])
        .status()
        .unwrap();
    assert!(cleanup.success());
    server.assert_nothing_left(&processes);
}

async fn the_next_server_finds_nothing_of_a_killed_one(rung: &'static Rung) {
    let mut server = Server::start(rung);
    assert!(server.bash(0, "touch file; mkdir -p a/b; chmod 0 a; touch $TMPDIR/f").await.success);
    let processes = server.processes();
    server.kill();
    until("every process is gone", || processes.iter().all(|it| !it.is_alive())).await;
    let dir = std::mem::replace(&mut server.dir, tempfile::tempdir().unwrap());
    drop(server);
    let next = Server::start_in(dir, rung, Setup::default());
    let next = next.unwrap_or_else(|failed| panic!("{failed:?}"));
    assert_eq!(next.output(0, "ls -A . $TMPDIR | grep -v :; true").await, "");
    until("the trash is empty", || {
        fs::read_dir(next.data_dir().join("trash")).unwrap().count() == 0
    })
    .await;
}

#[tokio::test]
async fn wrong_arguments_end_it_with_2_and_say_which() {
    for (args, text) in [
        (&["--slots", "0"][..], "--slots"),
        (&["--slots", "70000"], "--slots"),
        (&["--isolation", "bubblewrap"], "namespaces, uid, landlock, none"),
        (&["--isolation", "none", "--isolation-min", "uid"], "below"),
        (&["--network", "maybe"], "on, off or allow"),
        (&["--grace-s=-1"], "--grace-s"),
        (&["--lifetime-s", "NaN"], "--lifetime-s"),
        (&["--expose", "/no/such/directory"], "/no/such/directory"),
        (&["--expose", "usr"], "absolute"),
        (&["--container", ""], "--container"),
        (&["--memory-bytes-max", "1000000"], "--memory-bytes-max"),
        (&["--processes-max", "3"], "--processes-max"),
        (&["--open-files-max", "15"], "--open-files-max"),
        (&["--expose", "/"], "shown to every slot"),
        (&["--host", "localhost"], "--host"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--host", "0.0.0.0"], "SLOTMUX_CONTAINER_TOKEN"),
        (&["--host", "::"], "SLOTMUX_CONTAINER_TOKEN"),
    ] {
        let dir = home(&ANY);
        let output = command(dir.path(), &ANY)
            .args(["--port", "0", "--data-dir"])
            .arg(dir.path().join("data"))
            .args(args)
            .stderr(std::process::Stdio::piped())
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(text), "{args:?}: {error}");
        assert!(!dir.path().join("data").exists(), "{args:?} left files");
    }
}

#[tokio::test]
async fn a_data_directory_within_what_slots_are_shown_is_refused() {
    let home = home(&ANY);
    let link = home.path().join("link");
    std::os::unix::fs::symlink("/opt", &link).unwrap();
    let linked = link.join("none-such").display().to_string();
    for dir in ["/usr/local/none-such", "/opt/none-such", &linked] {
        let output = command(home.path(), &ANY)
            .args(["--port", "0", "--lifetime-s", "1", "--data-dir", dir])
            .stderr(std::process::Stdio::piped())
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{dir}: {error}");
        assert!(error.contains("shown to every slot") && error.contains("hint: "), "{error}");
        assert!(!fs::exists(dir).unwrap(), "{dir} was made");
    }
}

#[tokio::test]
async fn a_port_in_use_is_said_and_nothing_is_left() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let dir = home(&ANY);
    let name = dir.path().file_name().unwrap().to_str().unwrap().to_owned();
    let output = command(dir.path(), &ANY)
        .args(["--port", &port, "--container", &name, "--isolation-min", "none", "--data-dir"])
        .arg(dir.path().join("data"))
        .stderr(std::process::Stdio::piped())
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&format!("127.0.0.1:{port}")) && error.contains("in use"), "{error}");
    let left: Vec<_> = fs::read_dir(dir.path().join("data"))
        .into_iter()
        .flatten()
        .map(|it| it.unwrap().file_name())
        .filter(|it| it != ".lock")
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(host::cgroups_named(&format!("slotmux-{name}")).is_empty());
}

#[tokio::test]
async fn a_data_directory_in_use_is_refused_and_its_user_is_not_disturbed() {
    let server = Server::start(&ANY);
    assert!(server.write(0, "file", "kept").await.success);
    let dir = server.data_dir().display().to_string();
    let output = command(server.dir.path(), &ANY)
        .args(["--port", "0", "--isolation-min", "none", "--data-dir", &dir])
        .stderr(std::process::Stdio::piped())
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("used by another server"), "{error}");
    assert_eq!(server.read(0, "file").await.output, "kept");
    // Nor does cleaning up take anything from a server that lives.
    let cleanup = command(server.dir.path(), &ANY)
        .args(["--container", &server.container, "--data-dir", &dir, "--cleanup"])
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(!cleanup.success());
    assert_eq!(server.read(0, "file").await.output, "kept");
    assert_eq!(server.output(1, "echo works").await, "works");
}

#[tokio::test]
async fn a_rung_that_cannot_be_had_is_refused_with_the_reasons_and_nothing_is_left() {
    let root = rustix::process::geteuid().is_root();
    // Root's slots would share root; an ordinary user has no users to give.
    let rung = if root { "landlock" } else { "uid" };
    let dir = home(&ANY);
    let name = dir.path().file_name().unwrap().to_str().unwrap().to_owned();
    let output = command(dir.path(), &ANY)
        .args(["--port", "0", "--isolation", rung, "--container", &name, "--data-dir"])
        .args([dir.path().join("data")])
        .args(["--isolation-min", "landlock"])
        .stderr(std::process::Stdio::piped())
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(slotmux_protocol::Isolation::REFUSED.into()), "{error}");
    assert!(error.contains("no isolation of at least") && error.contains(rung), "{error}");
    let left: Vec<_> = fs::read_dir(dir.path().join("data"))
        .unwrap()
        .map(|it| it.unwrap().file_name())
        .filter(|it| it != ".lock")
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(host::cgroups_named(&format!("slotmux-{name}")).is_empty());
}

#[tokio::test]
async fn a_lifetime_ends_it_whatever_runs() {
    let args = ["--lifetime-s", "0.3", "--grace-s", "0"];
    let mut server = Server::with(&ANY, Setup { args: &args, ..Setup::default() });
    let result = server.bash(0, "sleep 3000").await;
    assert!(!result.success, "{result:?}");
    assert!(server.exit_within(LIMIT).unwrap().success());
    server.assert_nothing_left(&[]);
}

#[tokio::test]
async fn without_a_pool_it_ends_after_its_patience() {
    let args = ["--orphaned-after-s", "0.2"];
    let mut server = Server::with(&ANY, Setup { args: &args, ..Setup::default() });
    assert!(server.exit_within(LIMIT).unwrap().success());
    server.assert_nothing_left(&[]);
}
