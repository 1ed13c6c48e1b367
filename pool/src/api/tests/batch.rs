//! Many calls in one request.

use super::fake::{App, FakePool, request};
use crate::{api::ApiSettings, link::peer::LONG};
use axum::body::Body;
use futures_util::StreamExt;
use serde_json::{Value, json};
use slotmux_protocol::{Limits, v1::BatchItem};
use tokio::time::timeout;
use tower::ServiceExt;

fn call(lease: u64, command: &str) -> Value {
    json!({"lease_id": format!("lease-{lease:x}"), "tool": "bash", "args": {"command": command}})
}

#[tokio::test]
async fn results_stand_in_the_order_of_the_calls() {
    let pool = FakePool::start().await;
    let app = pool.app(ApiSettings::default());
    for lease in 1..=4 {
        pool.grant(&format!("t{lease}"));
    }
    let calls: Vec<Value> = (0..40).map(|n| call(1 + n % 4, &n.to_string())).collect();
    let answer = app.post("/v1/batch", &json!({"calls": calls})).await;
    let results = answer.json()["results"].as_array().unwrap().clone();
    assert_eq!(results.len(), 40);
    for (n, item) in results.iter().enumerate() {
        assert_eq!(item["index"], n);
        assert_eq!(item["result"]["output"], n.to_string());
    }
    for slot in 1..=4 {
        let in_order: Vec<_> =
            (usize::from(slot) - 1..40).step_by(4).map(|n| n.to_string()).collect();
        assert_eq!(pool.asked(slot), in_order);
    }
    let empty = app.post("/v1/batch", &json!({"calls": []})).await;
    assert_eq!(empty.json(), json!({"results": []}));
}

#[tokio::test]
async fn a_call_that_is_refused_disturbs_no_other() {
    let pool = FakePool::start().await;
    let app = pool.app(ApiSettings::default());
    pool.grant("t");
    let mut wrong = call(1, "x");
    wrong["args"] = json!({"command": 1});
    let calls = [call(1, "a"), call(9, "b"), wrong, call(1, "stale"), call(1, "fail")];
    let answer = app.post("/v1/batch", &json!({"calls": calls})).await;
    assert_eq!(answer.status, 200);
    let results = &answer.json()["results"];
    assert_eq!(results[0]["result"]["success"], true);
    assert_eq!(results[1]["problem"]["code"], "unknown_lease");
    assert_eq!(results[2]["problem"]["code"], "invalid");
    assert_eq!(results[2]["problem"]["field"], "calls[2].args.command");
    assert_eq!(results[3]["problem"]["code"], "stale_epoch");
    assert_eq!(results[4]["result"]["exit_code"], 3);
    assert_eq!(results[4].get("problem"), None);
}

#[tokio::test]
async fn a_batch_is_limited_at_one_past_the_limit() {
    let pool = FakePool::start().await;
    let limits = Limits { batch_calls_max: 3, ..Limits::default() };
    let app = pool.app(ApiSettings { limits, ..ApiSettings::default() });
    pool.grant("t");
    let batch = |count: usize| json!({"calls": vec![call(1, "a"); count]});
    assert_eq!(app.post("/v1/batch", &batch(3)).await.status, 200);
    let refused = app.post("/v1/batch", &batch(4)).await;
    assert_eq!(refused.problem(), (413, "too_large".into(), Some("calls".into())));
}

#[tokio::test]
async fn lines_come_as_calls_finish_and_nobody_waits_for_the_slowest() {
    let pool = FakePool::start().await;
    let App(router) = pool.app(ApiSettings::default());
    pool.grant("slow");
    pool.grant("fast");
    let calls = [call(1, "hang"), call(2, "a"), call(2, "b")];
    let mut request = request("POST", "/v1/batch", json!({"calls": calls}).to_string());
    let accept = "application/json;q=0.1, application/x-ndjson".parse().unwrap();
    request.headers_mut().insert("accept", accept);
    let response = router.oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let mut lines = Body::into_data_stream(response.into_body());
    for index in [1, 2] {
        let line = timeout(LONG, lines.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(line.last(), Some(&b'\n'));
        let item: BatchItem = serde_json::from_slice(&line).unwrap();
        assert_eq!(item.index, index);
    }
    assert_eq!(pool.calls(), 1);
}
