//! What must survive a SIGKILL, and what its end must be told.

use serde_json::{Value, json};
use slotmux_tests::{PATIENCE, Pool, files_below, open_dir, traces, until};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

const LEASES: usize = 64;
/// Eight containers of eight slots; no more, so that a slot in two hands would show.
const FULL_HOUSE: [&str; 8] =
    ["--slots", "8", "--containers-max", "8", "--lease-ttl-s", "120", "--cooldown-s", "3600"];

#[tokio::test]
async fn leases_survive_the_death_of_the_pool() {
    leases_survive(|_| ()).await;
}

#[tokio::test]
async fn leases_survive_the_death_of_the_pool_and_of_its_journal() {
    leases_survive(|dir| {
        let journals: Vec<_> = files_below(dir)
            .into_iter()
            .filter(|it| it.extension().is_some_and(|it| it == "journal"))
            .collect();
        assert_eq!(journals.len(), 1, "{journals:?}");
        fs::remove_file(&journals[0]).unwrap();
    })
    .await;
}

async fn leases_survive(between: impl FnOnce(&Path)) {
    let dir = open_dir();
    let mut pool = Pool::start(dir.path(), &FULL_HOUSE).await;
    let mut leases = Vec::new();
    for number in 0..LEASES {
        let lease = pool.acquire(&format!("t{number}")).await;
        let result = pool.bash(&lease, &format!("echo canary-{number} > canary")).await;
        assert_eq!(result["success"], true, "{result}");
        leases.push(lease);
    }
    let interrupted = interrupt_a_call(&pool, dir.path(), &leases[0]).await;

    pool.kill_and_restart(between).await;

    finish_the_call(&pool, dir.path(), &leases[0], interrupted).await;
    for (number, lease) in leases.iter().enumerate() {
        let result = until("the slot can be reached again", PATIENCE, async || {
            let call = json!({ "tool": "bash", "args": { "command": "cat canary" } });
            let (status, answer) = pool.post(&format!("/v1/leases/{lease}/execute"), call).await;
            assert!(status == 200 || status == 503, "lease {number}: {status} {answer}");
            (status == 200).then_some(answer)
        })
        .await;
        assert_eq!(result["output"], format!("canary-{number}\n"), "{result}");
        assert_eq!(pool.acquire(&format!("t{number}")).await, *lease);
    }

    let wanted = json!({ "trajectory_id": "one too many", "wait_s": 0.3 });
    let (status, answer) = pool.post("/v1/leases", wanted).await;
    assert_eq!((status, &answer["code"]), (503, &json!("acquire_timeout")), "{answer}");

    let (status, _) =
        pool.send(reqwest::Method::DELETE, &format!("/v1/leases/{}", leases[1]), Value::Null).await;
    assert_eq!(status, 204);
    let lease = pool.acquire("the next one").await;
    assert_ne!(lease, leases[1]);
    assert_eq!(pool.bash(&lease, "ls -A").await["output"], "", "the slot was emptied");
    pool.stop().await;
}

/// Sends a call that runs until a file `go` appears, and returns when it does run.
async fn interrupt_a_call(pool: &Pool, dir: &Path, lease: &str) -> Value {
    let command = "echo started >> runs; while [ ! -e go ]; do sleep 0.02; done; echo finished";
    let call = json!({
        "tool": "bash", "args": { "command": command }, "timeout_s": 60, "execution_id": "only-once",
    });
    let request = pool.http.post(format!("{}/v1/leases/{lease}/execute", pool.url)).json(&call);
    // The connection breaks with the pool.
    tokio::spawn(request.send());
    until("the call runs", PATIENCE, async || file_named(dir, "runs")).await;
    call
}

/// The same call again: it was not run twice, and its result comes.
async fn finish_the_call(pool: &Pool, dir: &Path, lease: &str, call: Value) {
    let runs = file_named(dir, "runs").unwrap();
    fs::write(runs.with_file_name("go"), "").unwrap();
    let (status, answer) = pool.post(&format!("/v1/leases/{lease}/execute"), call).await;
    assert_eq!((status, &answer["output"]), (200, &json!("finished\n")), "{answer}");
    assert_eq!(fs::read_to_string(runs).unwrap(), "started\n");
}

fn file_named(dir: &Path, name: &str) -> Option<PathBuf> {
    files_below(dir).into_iter().find(|it| it.file_name().is_some_and(|it| it == name))
}

#[tokio::test]
async fn the_death_of_a_container_revokes_its_leases_with_the_reason() {
    let dir = open_dir();
    let flags = ["--slots", "4", "--containers-max", "1", "--containers-min", "1"];
    let mut pool = Pool::start(dir.path(), &flags).await;
    let mut leases = Vec::new();
    for number in 0..4 {
        leases.push(pool.acquire(&format!("t{number}")).await);
    }
    let running = json!({ "tool": "bash", "args": { "command": "touch begun; sleep 600" }, "timeout_s": 600 });
    let request = pool.http.post(format!("{}/v1/leases/{}/execute", pool.url, leases[0]));
    let running = tokio::spawn(request.json(&running).send());
    pool.note();
    let containers = pool.containers();
    assert_eq!(containers.len(), 1, "{containers:?}");
    let pid = containers[0].1;
    until("the call runs", PATIENCE, async || file_named(dir.path(), "begun")).await;

    traces::signal(pid, rustix::process::Signal::KILL);

    for lease in &leases {
        let (status, problem) =
            until("the holder hears of it", Duration::from_secs(3), async || {
                let (status, answer) = pool.get(&format!("/v1/leases/{lease}")).await;
                (status != 200).then_some((status, answer))
            })
            .await;
        assert_eq!((status, &problem["code"]), (410, &json!("lease_revoked")), "{problem}");
        assert_eq!(problem["caused_by"], "infra");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("signal 9") || detail.contains("SIGKILL"), "{detail}");
    }
    let answer: Value = running.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(
        (&answer["ended"], &answer["caused_by"]),
        (&json!("lost"), &json!("infra")),
        "{answer}"
    );

    let lease = pool.acquire("afterwards").await;
    assert_eq!(pool.bash(&lease, "echo replaced").await["output"], "replaced\n");
    pool.stop().await;
}
