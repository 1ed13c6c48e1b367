//! A pool whose containers are those of a Docker engine.

use serde_json::{Value, json};
use slotmux_tests::{
    PATIENCE, Pool,
    engine::{BUSYBOX, DEBIAN, Engine},
    open_dir, slotmux, until,
};
use std::{path::Path, process::Command, time::Duration};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/rollouts.jsonl");

/// Two containers of four slots, no more and no less.
const SIZE: [&str; 8] =
    ["--slots", "4", "--containers-min", "2", "--containers-max", "2", "--dead-after-s", "3"];

async fn pool(engine: &Engine, dir: &Path, more: &[&str]) -> Pool {
    let flags = engine.flags(BUSYBOX);
    let flags: Vec<&str> =
        flags.iter().map(String::as_str).chain(SIZE).chain(more.iter().copied()).collect();
    let pool = Pool::start(dir, &flags).await;
    whole(&pool).await;
    pool
}

/// It has its size again, and nothing that is of no use.
async fn whole(pool: &Pool) {
    until("the pool is at its size", PATIENCE, async || {
        let (_, status) = pool.get("/v1/status").await;
        let profile = &status["profiles"]["default"];
        let of = |key: &str| profile["slots"][key].as_u64().unwrap_or(0);
        let usable = of("free") + of("leased") + of("resetting");
        (profile["containers"]["ready"] == 2 && usable == 8).then_some(())
    })
    .await;
}

async fn leases(pool: &Pool, count: usize) -> Vec<String> {
    let mut leases = Vec::new();
    for number in 0..count {
        leases.push(pool.acquire(&format!("t{number}")).await);
    }
    leases
}

/// A call that is under way, and does not end by itself. Each has a number of its own.
async fn long_call(
    pool: &Pool,
    engine: &Engine,
    lease: &str,
    number: u32,
) -> tokio::task::JoinHandle<Value> {
    let body = json!({ "tool": "bash", "args": { "command": format!("sleep 60{number}") }, "timeout_s": 600 });
    let request = pool.http.post(format!("{}/v1/leases/{lease}/execute", pool.url)).json(&body);
    let call = tokio::spawn(async move { request.send().await.unwrap().json().await.unwrap() });
    let name = format!("sleep 60{number}");
    until("the call runs", PATIENCE, async || {
        let tops = engine.running().into_iter().map(|id| engine.docker(&["top", &id]));
        tops.into_iter().any(|top| top.contains(&name)).then_some(())
    })
    .await;
    call
}

/// How many leases were revoked; those are our fault, and say why.
async fn revoked(pool: &Pool, leases: &[String], word: &str) -> usize {
    let mut revoked = 0;
    for lease in leases {
        let (status, answer) = pool.get(&format!("/v1/leases/{lease}")).await;
        if status == 410 {
            assert_eq!(
                (&answer["code"], &answer["caused_by"]),
                (&json!("lease_revoked"), &json!("infra"))
            );
            let detail = answer["detail"].as_str().unwrap();
            assert!(detail.contains(word), "{detail}");
            revoked += 1;
        } else {
            assert_eq!(status, 200, "{answer}");
        }
    }
    revoked
}

async fn ends(pool: Pool, engine: &Engine) {
    pool.stop().await;
    assert_eq!(engine.leftovers(), [""; 0]);
}

#[test]
fn the_examples_are_as_expected_in_containers() {
    let Some(engine) = Engine::shared("replay") else { return };
    let dir = open_dir();
    let mut command = Command::new(slotmux());
    command.arg("replay").arg(EXAMPLES).arg("--json").args(engine.flags(DEBIAN));
    let output = command.env("TMPDIR", dir.path()).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{report:#}");
    assert_eq!(report["trajectories"], 52, "{report:#}");
    assert_eq!(report["isolation"]["namespaces"], 52, "{report:#}");
    // For want of compilers and the like in the image.
    assert!(report["skipped"].as_u64().unwrap() < 20, "{report:#}");
    assert_eq!(engine.leftovers(), [""; 0]);
}

#[tokio::test]
async fn a_killed_container_is_replaced_and_its_leases_are_revoked() {
    let Some(engine) = Engine::shared("kill") else { return };
    let dir = open_dir();
    let pool = pool(&engine, dir.path(), &[]).await;
    let leases = leases(&pool, 8).await;
    let calls = [
        long_call(&pool, &engine, &leases[0], 0).await,
        long_call(&pool, &engine, &leases[7], 1).await,
    ];
    let victims = engine.running();
    assert_eq!(victims.len(), 2);

    engine.docker(&["kill", &victims[0]]);

    until("four leases are revoked", PATIENCE, async || {
        (revoked(&pool, &leases, "signal 9").await == 4).then_some(())
    })
    .await;
    whole(&pool).await;
    engine.docker(&["kill", &victims[1]]);
    for call in calls {
        let answer = call.await.unwrap();
        assert_eq!(
            (&answer["ended"], &answer["caused_by"]),
            (&json!("lost"), &json!("infra")),
            "{answer}"
        );
    }
    whole(&pool).await;
    assert_eq!(revoked(&pool, &leases, "signal 9").await, 8);
    let lease = pool.acquire("afterwards").await;
    assert_eq!(pool.bash(&lease, "ls; echo replaced").await["output"], "replaced\n");
    ends(pool, &engine).await;
}

#[tokio::test]
async fn a_paused_container_is_given_up_and_removed() {
    let Some(engine) = Engine::shared("pause") else { return };
    let dir = open_dir();
    let pool = pool(&engine, dir.path(), &[]).await;
    let leases = leases(&pool, 8).await;
    let call = long_call(&pool, &engine, &leases[0], 0).await;
    for victim in engine.running() {
        engine.docker(&["pause", &victim]);
    }
    until("all leases are revoked", PATIENCE, async || {
        (revoked(&pool, &leases, "").await == 8).then_some(())
    })
    .await;
    let answer = call.await.unwrap();
    assert_eq!(
        (&answer["ended"], &answer["caused_by"]),
        (&json!("lost"), &json!("infra")),
        "{answer}"
    );
    whole(&pool).await;
    until("the paused ones are gone", PATIENCE, async || {
        (engine.running().len() == 2).then_some(())
    })
    .await;
    ends(pool, &engine).await;
}

#[tokio::test]
async fn leases_in_containers_survive_the_death_of_the_pool() {
    let Some(engine) = Engine::shared("crash") else { return };
    let dir = open_dir();
    let mut pool = pool(&engine, dir.path(), &[]).await;
    let leases = leases(&pool, 8).await;
    for (number, lease) in leases.iter().enumerate() {
        pool.bash(lease, &format!("echo canary-{number} > canary")).await;
    }
    let before = engine.running();
    pool.kill_and_restart(|_| ()).await;
    for (number, lease) in leases.iter().enumerate() {
        let result = until("the slot can be reached again", PATIENCE, async || {
            let call = json!({ "tool": "bash", "args": { "command": "cat canary" } });
            let (status, answer) = pool.post(&format!("/v1/leases/{lease}/execute"), call).await;
            assert!(status == 200 || status == 503, "lease {number}: {status} {answer}");
            (status == 200).then_some(answer)
        })
        .await;
        assert_eq!(result["output"], format!("canary-{number}\n"), "{result}");
    }
    assert_eq!(engine.running(), before, "no container was started or stopped");
    ends(pool, &engine).await;
}

#[tokio::test]
async fn a_pool_that_comes_back_late_finds_its_containers_ended_and_removes_them() {
    let Some(engine) = Engine::shared("late") else { return };
    let dir = open_dir();
    let mut pool = pool(&engine, dir.path(), &["--orphaned-after-s", "1"]).await;
    let leases = leases(&pool, 8).await;
    let before = engine.running();
    pool.kill_and_restart(|_| {
        for id in &before {
            // They end by themselves.
            assert_eq!(engine.docker(&["wait", id]), "0");
        }
    })
    .await;
    whole(&pool).await;
    assert_eq!(revoked(&pool, &leases, "").await, 8);
    let now = engine.running();
    assert!(now.len() == 2 && before.iter().all(|id| !now.contains(id)), "{before:?} {now:?}");
    assert_eq!(engine.leftovers().len(), 4, "two containers, and a volume of each");
    ends(pool, &engine).await;
}

#[tokio::test]
async fn an_engine_that_is_stopped_and_started_again_is_found_again() {
    let Some(mut engine) = Engine::own("engine_stop", 1, "") else { return };
    let dir = open_dir();
    let pool = pool(&engine, dir.path(), &[]).await;
    let leases = leases(&pool, 8).await;
    let call = long_call(&pool, &engine, &leases[0], 0).await;
    engine.stop().await;
    // Their links have ended; what became of them nobody can say while the engine is away.
    let answer = call.await.unwrap();
    // Servers that are told to end cancel what runs; what is cut off is lost.
    assert!(["cancelled", "lost"].contains(&answer["ended"].as_str().unwrap()), "{answer}");
    assert_eq!(answer["caused_by"], "infra", "{answer}");
    engine.start();
    whole(&pool).await;
    assert_eq!(revoked(&pool, &leases, "").await, 8);
    let lease = pool.acquire("afterwards").await;
    assert_eq!(pool.bash(&lease, "echo back").await["output"], "back\n");
    // The engine may have ended between a volume and its container.
    until("no volume is loose", PATIENCE, async || {
        let loose = ["volume", "ls", "--quiet", "--filter", "dangling=true", "--filter"];
        let label = format!("label=slotmux.owner={}", engine.owner);
        engine.docker(&[&loose[..], &[&label]].concat()).is_empty().then_some(())
    })
    .await;
    ends(pool, &engine).await;
}

#[tokio::test]
async fn slots_do_not_notice_that_the_engine_was_killed_and_came_back() {
    let Some(mut engine) = Engine::own("engine_kill", 2, "--live-restore") else { return };
    let dir = open_dir();
    let pool = pool(&engine, dir.path(), &[]).await;
    let leases = leases(&pool, 7).await;
    pool.bash(&leases[0], "echo text > file").await;
    let before = engine.running();
    engine.kill().await;
    // Longer than the pool waits for a container that is out of reach.
    let slow = pool.bash(&leases[0], "sleep 4; cat file").await;
    assert_eq!(slow["output"], "text\n", "{slow}");
    let late = pool.acquire("meanwhile").await;
    assert_eq!(pool.bash(&late, "echo works").await["output"], "works\n");
    engine.start();
    until("the engine is there", Duration::from_secs(30), async || {
        (engine.running() == before).then_some(())
    })
    .await;
    assert_eq!(revoked(&pool, &leases, "").await, 0);
    ends(pool, &engine).await;
}
