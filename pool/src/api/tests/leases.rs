//! Acquire, look, renew, release, execute.

use super::fake::FakePool;
use crate::{api::ApiSettings, routes::LeaseEnd};
use serde_json::json;
use slotmux_protocol::{Code, Problem};

#[tokio::test]
async fn a_lease_is_acquired_looked_at_renewed_used_and_released() {
    let pool = FakePool::start().await;
    let app = pool.app(ApiSettings::default());
    let acquired = app.post("/v1/leases", &json!({"trajectory_id": "t", "ttl_s": 9})).await;
    assert_eq!(acquired.status, 201);
    assert_eq!(acquired.headers["location"], "/v1/leases/lease-1");
    let lease = &acquired.json()["leases"][0];
    assert_eq!((&lease["lease_id"], &lease["ttl_s"]), (&json!("lease-1"), &json!(9.0)));

    assert_eq!(app.get("/v1/leases/lease-1").await.json(), *lease);
    let renewed = app.post("/v1/leases/lease-1/renew", &json!({"ttl_s": 5})).await;
    assert_eq!(renewed.json()["ttl_s"], 5.0);
    let renewed = app.call("POST", "/v1/leases/lease-1/renew", " \n").await;
    assert_eq!(renewed.json()["ttl_s"], 9.0);

    let body = json!({"tool": "bash", "args": {"command": "echo"}, "execution_id": "mine"});
    let result = app.post("/v1/leases/lease-1/execute", &body).await;
    assert_eq!(result.status, 200);
    assert_eq!(result.headers["content-type"], "application/json");
    let result = result.json();
    assert_eq!((&result["output"], &result["execution_id"]), (&json!("echo"), &json!("mine")));

    for _ in 0..2 {
        let released = app.call("DELETE", "/v1/leases/lease-1", "").await;
        assert_eq!((released.status.as_u16(), released.text.as_str()), (204, ""));
    }
}

#[tokio::test]
async fn an_ended_lease_is_gone_and_says_how_it_ended() {
    let pool = FakePool::start().await;
    let app = pool.app(ApiSettings::default());
    let revoked = LeaseEnd::Revoked { why: "its container ran out of memory".into() };
    for (lease, end, code) in [
        ("lease-1", LeaseEnd::Released, "lease_released"),
        ("lease-2", LeaseEnd::Expired, "lease_expired"),
        ("lease-3", revoked, "lease_revoked"),
    ] {
        let id = pool.grant(lease);
        assert_eq!(id.to_string(), lease);
        pool.end(id, end);
        let body = json!({"tool": "bash", "args": {"command": "ls"}});
        let refused = app.post(&format!("/v1/leases/{lease}/execute"), &body).await;
        assert_eq!(refused.code(), (410, code.into()));
        assert_eq!(app.get(&format!("/v1/leases/{lease}")).await.code(), (410, code.into()));
        if code == "lease_revoked" {
            assert!(refused.text.contains("ran out of memory"), "{}", refused.text);
            assert_eq!(refused.json()["caused_by"], "infra");
            let released = app.call("DELETE", "/v1/leases/lease-3", "").await;
            assert_eq!(released.code(), (410, code.into()));
        }
    }
}

#[tokio::test]
async fn an_unknown_lease_is_not_found_however_it_is_spelled() {
    let app = FakePool::start().await.app(ApiSettings::default());
    for lease in ["lease-77", "lease-01", "77", "%00", "lease-1%2F..", "%ff"] {
        let refused = app.get(&format!("/v1/leases/{lease}")).await;
        assert_eq!(refused.status, 404, "{lease}");
        refused.problem();
        let body = json!({"tool": "bash", "args": {"command": "ls"}});
        let refused = app.post(&format!("/v1/leases/{lease}/execute"), &body).await;
        assert_eq!(refused.status, 404, "{lease}");
    }
}

#[tokio::test]
async fn a_wrong_call_names_its_field_and_is_not_run() {
    let pool = FakePool::start().await;
    let app = pool.app(ApiSettings::default());
    pool.grant("t");
    for (body, status, code, field) in [
        (json!({"tool": "python", "args": {}}), 422, "unknown_tool", "tool"),
        (json!({"tool": "bash", "args": {"command": 7}}), 422, "invalid", "args.command"),
        (
            json!({"tool": "bash", "args": {"command": "hang"}, "timeout_s": 0}),
            422,
            "invalid",
            "timeout_s",
        ),
        (
            json!({"tool": "bash", "args": {"command": "hang"}, "timeout_s": 86401}),
            422,
            "invalid",
            "timeout_s",
        ),
        (
            json!({"tool": "bash", "args": {"command": "hang"}, "execution_id": ""}),
            422,
            "invalid",
            "execution_id",
        ),
        (json!({"tool": "bash", "args": {"command": "hang"}, "cwd": "/"}), 422, "invalid", "cwd"),
    ] {
        let refused = app.post("/v1/leases/lease-1/execute", &body).await;
        assert_eq!(refused.problem(), (status, code.into(), Some(field.into())), "{body}");
    }
    assert_eq!(pool.calls(), 0);
}

#[tokio::test]
async fn a_container_s_refusal_reaches_the_client() {
    let pool = FakePool::start().await;
    let app = pool.app(ApiSettings::default());
    pool.grant("t");
    let body = json!({"tool": "bash", "args": {"command": "stale"}});
    let refused = app.post("/v1/leases/lease-1/execute", &body).await;
    assert_eq!(refused.code(), (409, "stale_epoch".into()));
}

#[tokio::test]
async fn a_pool_s_refusal_reaches_the_client() {
    let pool = FakePool::start().await;
    let app = pool.app(ApiSettings::default());
    let refusals = [Code::UnknownProfile, Code::NeverEnough, Code::QueueFull, Code::Superseded];
    let failures = [Code::AcquireTimeout, Code::LaunchFailed, Code::JournalUnavailable];
    for code in refusals.into_iter().chain(failures) {
        pool.refuse(Problem::new(code, "told to"));
        let refused = app.post("/v1/leases", &json!({"trajectory_id": "t"})).await;
        assert_eq!(refused.code(), (code.status(), code.as_str().into()));
    }
}

#[tokio::test]
async fn a_running_call_keeps_its_lease_alive_and_ends_with_it() {
    let pool = FakePool::start().await;
    let app = pool.app(ApiSettings::default());
    let lease = pool.grant("t");
    let pulse = pool.route(lease).pulse;
    let body = json!({"tool": "bash", "args": {"command": "hang"}});
    let call = async { app.post("/v1/leases/lease-1/execute", &body).await };
    let revoke = async {
        while pool.calls() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pulse.running(), 1);
        pool.end(lease, LeaseEnd::Revoked { why: "its container died".into() });
    };
    let (answer, ()) = tokio::join!(call, revoke);
    assert_eq!(answer.status, 200);
    let result = answer.json();
    assert_eq!((&result["ended"], &result["caused_by"]), (&json!("lost"), &json!("infra")));
    assert_eq!(pulse.running(), 0);
}

#[tokio::test]
async fn a_lease_that_is_held_and_not_linked_yet_is_waited_for_and_not_unknown() {
    let pool = FakePool::start().await;
    let app = pool.app(ApiSettings::default());
    let lease = pool.hold("t");
    let body = json!({"tool": "bash", "args": {"command": "echo"}});
    let call = async { app.post("/v1/leases/lease-1/execute", &body).await };
    let link = async {
        tokio::task::yield_now().await;
        pool.link_again(lease);
    };
    let (answer, ()) = tokio::join!(call, link);
    assert_eq!(answer.json()["output"], "echo");
}

#[tokio::test]
async fn a_lease_that_is_never_linked_is_unreachable() {
    let pool = FakePool::start().await;
    let app = pool.app(ApiSettings::default());
    pool.hold("t");
    tokio::time::pause();
    let body = json!({"tool": "bash", "args": {"command": "echo"}});
    let refused = app.post("/v1/leases/lease-1/execute", &body).await;
    assert_eq!(refused.code(), (503, "container_unreachable".into()));
}
