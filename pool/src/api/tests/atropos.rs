//! What clients of the Python pool see.

use super::fake::FakePool;
use crate::{api::ApiSettings, routes::LeaseEnd};
use serde_json::{Value, json};
use slotmux_protocol::{Code, Epoch, LeaseId, Problem};
use std::sync::Arc;

fn bash(trajectory: &str, command: &str) -> Value {
    let tool = json!({"name": "bash", "arguments": {"command": command}, "uniq_id": "u1"});
    json!({"trajectory_id": trajectory, "tool": tool, "timeout_s": 5.0, "unknown": 1})
}

#[tokio::test]
async fn a_trajectory_keeps_the_slot_of_its_first_call_until_it_releases_it() {
    let pool = FakePool::start().await;
    let app = pool.app(ApiSettings::default());
    for _ in 0..3 {
        let answer = app.post("/execute", &bash("t", "hello")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.json(),
            json!({
                "success": true, "output": "hello", "error": "", "uniq_id": "u1",
                "metadata": {
                    "exit_code": 0, "sandboxed": true, "network_isolated": true,
                    "ended": "exited", "caused_by": "policy",
                },
            })
        );
    }
    assert_eq!(pool.acquires(), 1);
    for trajectory in ["t", "t", "holds nothing"] {
        let body = json!({"trajectory_id": trajectory, "reset_workspace": true});
        let answer = app.post("/release", &body).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"status": "ok"})));
    }
    app.post("/execute", &bash("t", "again")).await;
    assert_eq!(pool.acquires(), 2);
}

#[tokio::test]
async fn a_failed_tool_is_a_result() {
    let pool = FakePool::start().await;
    let app = pool.app(ApiSettings::default());
    let failed = app.post("/execute", &bash("t", "fail")).await;
    assert_eq!(failed.status, 200);
    assert_eq!(failed.json()["error"], "Exit code: 3");
    for (tool, error) in [
        (json!({"name": "python"}), "unknown tool `python`"),
        (json!({"name": "bash"}), "arguments: missing field `command`"),
        (json!({"name": "bash", "arguments": "ls"}), "arguments must be an object"),
        (
            json!({"name": "terminal", "arguments": {"command": "ls", "background": true}}),
            "background",
        ),
    ] {
        let body = json!({"trajectory_id": "t", "tool": tool});
        let failed = app.post("/execute", &body).await;
        assert_eq!(failed.status, 200);
        let result = failed.json();
        assert_eq!(result["success"], false, "{body}");
        assert!(result["error"].as_str().unwrap().contains(error), "{result}");
        assert_eq!(result["metadata"]["caused_by"], "policy", "{body}");
    }
}

#[tokio::test]
async fn a_revoked_lease_is_told_once_and_then_begun_anew() {
    let pool = FakePool::start().await;
    let app = pool.app(ApiSettings::default());
    app.post("/execute", &bash("t", "a")).await;
    pool.end(LeaseId(Epoch(1)), LeaseEnd::Revoked { why: "oom".into() });
    let told = app.post("/execute", &bash("t", "b")).await;
    assert_eq!(told.status, 200);
    let told = told.json();
    assert_eq!(told["success"], false);
    assert!(told["error"].as_str().unwrap().contains("revoked: oom"), "{told}");
    assert_eq!(
        told["metadata"],
        json!({"infra_error": true, "code": "lease_revoked", "caused_by": "infra"})
    );
    assert_eq!(app.post("/execute", &bash("t", "c")).await.json()["output"], "c");
    assert_eq!(pool.acquires(), 2);
}

#[tokio::test]
async fn a_lease_revoked_under_a_call_is_told_by_that_call_alone() {
    let pool = FakePool::start().await;
    let app = pool.app(ApiSettings::default());
    let body = bash("t", "hang");
    let call = async { app.post("/execute", &body).await.json() };
    let revoke = async {
        while pool.calls() == 0 {
            tokio::task::yield_now().await;
        }
        pool.end(LeaseId(Epoch(1)), LeaseEnd::Revoked { why: "oom".into() });
    };
    let (told, ()) = tokio::join!(call, revoke);
    assert_eq!(told["success"], false);
    assert_eq!(told["metadata"]["ended"], "lost");
    assert_eq!(told["metadata"]["infra_error"], true);
    assert_eq!(app.post("/execute", &bash("t", "next")).await.json()["output"], "next");
}

#[tokio::test]
async fn an_expired_lease_is_told_too_for_its_files_are_gone() {
    let pool = FakePool::start().await;
    let app = pool.app(ApiSettings::default());
    app.post("/execute", &bash("t", "a")).await;
    pool.end(LeaseId(Epoch(1)), LeaseEnd::Expired);
    let told = app.post("/execute", &bash("t", "b")).await.json();
    assert_eq!(told["metadata"], json!({"code": "lease_expired", "caused_by": "client"}));
    assert_eq!(app.post("/execute", &bash("t", "c")).await.json()["success"], true);
}

#[tokio::test]
async fn no_free_slot_is_an_infra_error_of_that_call() {
    let pool = FakePool::start().await;
    let app = pool.app(ApiSettings::default());
    pool.refuse(Problem::new(Code::AcquireTimeout, "no slot within 30 s"));
    let told = app.post("/execute", &bash("t", "a")).await;
    assert_eq!(told.status, 200);
    assert_eq!(
        told.json()["metadata"],
        json!({"infra_error": true, "code": "acquire_timeout", "caused_by": "infra"})
    );
}

#[tokio::test]
async fn what_cannot_be_understood_is_refused_in_the_words_of_this_wire() {
    let pool = FakePool::start().await;
    let token = Some(Arc::from("s3cret"));
    let open = pool.app(ApiSettings::default());
    for (body, status) in [
        ("{", 400),
        ("[]", 422),
        (r#"{"trajectory_id": 7, "tool": {"name": "bash"}}"#, 422),
        (r#"{"trajectory_id": "", "tool": {"name": "bash"}}"#, 422),
        (r#"{"trajectory_id": "t", "tool": {"name": "bash"}, "timeout_s": -1}"#, 422),
        (r#"{"trajectory_id": "t", "tool": {"name": "bash"}, "timeout_s": 0}"#, 422),
    ] {
        let refused = open.call("POST", "/execute", body).await;
        assert_eq!(refused.status.as_u16(), status, "{body}");
        assert_eq!(refused.headers["content-type"], "application/json");
        assert_eq!(refused.json()["success"], false);
        assert!(refused.json()["error"].is_string());
    }
    let closed = pool.app(ApiSettings { token, ..ApiSettings::default() });
    let refused = closed.post("/execute", &bash("t", "a")).await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.json()["success"], false);
    assert_eq!(refused.headers["www-authenticate"], "Bearer");
    assert_eq!(pool.acquires(), 0);
}

#[tokio::test]
async fn status_and_health_have_that_wire_s_shape() {
    let pool = FakePool::start().await;
    let app = pool.app(ApiSettings::default());
    app.post("/execute", &bash("t", "a")).await;
    app.post("/execute", &bash("t", "fail")).await;
    assert_eq!(app.get("/health").await.json(), json!({"status": "ok"}));
    assert_eq!(
        app.get("/status").await.json(),
        json!({
            "queue_size": 0, "total_requests": 2, "total_errors": 1,
            "pool": {
                "total_slots": 12, "available_slots": 6, "acquired_slots": 4, "containers": 0,
                "slots_by_state": {
                    "available": 6, "acquired": 4, "resetting": 2, "quarantined": 0,
                    "unreachable": 0,
                },
                "started": true,
            },
        })
    );
}

#[tokio::test]
async fn a_lease_that_is_held_and_not_linked_yet_is_not_taken_for_lost() {
    let pool = FakePool::start().await;
    let app = pool.app(ApiSettings::default());
    let lease = pool.hold("t");
    let body = bash("t", "hello");
    let call = async { app.post("/execute", &body).await.json() };
    let link = async {
        tokio::task::yield_now().await;
        pool.link_again(lease);
    };
    let (answer, ()) = tokio::join!(call, link);
    assert_eq!(answer["output"], "hello");
}
