//! Containers come with the demand, and go without it.

use serde_json::Value;
use slotmux_tests::{PATIENCE, Pool, open_dir, until};

#[tokio::test]
async fn containers_are_started_for_the_demand_and_stopped_when_idle() {
    let dir = open_dir();
    let flags =
        ["--slots", "2", "--containers-min", "1", "--containers-max", "3", "--cooldown-s", "0.3"];
    let mut pool = Pool::start(dir.path(), &flags).await;
    until("the least is there", PATIENCE, async || (pool.containers().len() == 1).then_some(()))
        .await;

    let mut leases = Vec::new();
    for number in 0..6 {
        leases.push(pool.acquire(&format!("t{number}")).await);
    }
    assert_eq!(pool.containers().len(), 3);
    pool.note();

    // The container of the last lease stays, whichever of the three it is.
    let kept = leases.remove(2);
    pool.bash(&kept, "echo mine > canary").await;
    for lease in &leases {
        pool.send(reqwest::Method::DELETE, &format!("/v1/leases/{lease}"), Value::Null).await;
    }
    until("idle containers are stopped", PATIENCE, async || {
        (pool.containers().len() == 1).then_some(())
    })
    .await;
    assert_eq!(pool.bash(&kept, "cat canary").await["output"], "mine\n");
    let (_, status) = pool.get("/v1/status").await;
    assert_eq!(status["profiles"]["default"]["totals"]["revoked"], 0, "{status}");
    pool.stop().await;
}
