//! Tokens, bodies, panics, and requests that nothing is for.

use super::fake::{App, FakePool, request};
use crate::api::ApiSettings;
use axum::body::Body;
use serde_json::{Value, json};
use slotmux_protocol::{Limits, ToolCall};
use std::sync::Arc;

#[tokio::test]
async fn a_token_is_asked_of_all_but_the_open_paths() {
    let pool = FakePool::start().await;
    let token = Some(Arc::from("s3cret"));
    let app = pool.app(ApiSettings { token, ..ApiSettings::default() });
    for path in ["/health", "/openapi.json"] {
        assert_eq!(app.get(path).await.status, 200, "{path}");
    }
    for path in ["/v1/status", "/v1/tools", "/v1/events", "/v1/leases/lease-1", "/nowhere"] {
        let refused = app.get(path).await;
        assert_eq!(refused.code(), (401, "unauthenticated".into()), "{path}");
        assert_eq!(refused.headers["www-authenticate"], "Bearer");
    }
    for (header, status) in [
        ("Bearer s3cret", 200),
        ("bearer s3cret", 200),
        ("Bearer s3cre", 403),
        ("Bearer s3cretx", 403),
        ("Bearer ", 403),
        ("Basic s3cret", 401),
        ("s3cret", 401),
        ("", 401),
    ] {
        let mut request = request("GET", "/v1/status", Body::empty());
        request.headers_mut().insert("authorization", header.parse().unwrap());
        assert_eq!(app.send(request).await.status.as_u16(), status, "{header}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let app = FakePool::start().await.app(ApiSettings::default());
    assert_eq!(app.get("/nowhere").await.code(), (404, "not_found".into()));
    let refused = app.get("/v1/leases").await;
    assert_eq!(refused.code(), (405, "method_not_allowed".into()));
    assert_eq!(refused.headers["allow"], "POST");
    assert_eq!(app.call("PUT", "/execute", "").await.code(), (405, "method_not_allowed".into()));
}

#[tokio::test]
async fn a_wrong_body_is_malformed_invalid_or_too_large() {
    let pool = FakePool::start().await;
    let limits = Limits { body_bytes_max: 100, ..Limits::default() };
    let app = pool.app(ApiSettings { limits, ..ApiSettings::default() });
    let post = async |body: Body| app.call("POST", "/v1/leases", body).await;
    for body in ["", "nonsense", "{\"trajectory_id\": \"t\""] {
        assert_eq!(post(body.into()).await.code(), (400, "malformed".into()), "{body}");
    }
    let not_utf8 = b"{\"trajectory_id\": \"\xff\"}".to_vec();
    assert_eq!(post(not_utf8.into()).await.code(), (400, "malformed".into()));
    let invalid = post(r#"{"trajectory_id": "t", "wait_s": "1"}"#.into()).await;
    assert_eq!(invalid.problem(), (422, "invalid".into(), Some("wait_s".into())));

    let padded = |bytes: usize| format!("{:<bytes$}", r#"{"trajectory_id": "t"}"#);
    assert_eq!(post(padded(100).into()).await.status, 201);
    assert_eq!(post(padded(101).into()).await.code(), (413, "too_large".into()));
    // Of unknown length: counted as it comes.
    let chunks = |count: usize| {
        let chunk = || Ok::<_, std::io::Error>(" ".repeat(50));
        let start = [Ok(r#"{"trajectory_id": "t"}"#.to_owned())];
        let chunks = start.into_iter().chain((0..count).map(move |_| chunk()));
        Body::from_stream(futures_util::stream::iter(chunks))
    };
    assert_eq!(post(chunks(1)).await.status, 201);
    assert_eq!(post(chunks(2)).await.code(), (413, "too_large".into()));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for_for_ever() {
    let pool = FakePool::start().await;
    let app = pool.app(ApiSettings::default());
    let never = futures_util::stream::pending::<Result<String, std::io::Error>>();
    let refused = app.call("POST", "/v1/leases", Body::from_stream(never)).await;
    assert_eq!(refused.code(), (400, "malformed".into()));
}

#[tokio::test]
async fn a_panic_costs_one_request_only() {
    let pool = FakePool::start().await;
    let app = pool.app(ApiSettings::default());
    pool.panic();
    let body = json!({"trajectory_id": "t"});
    assert_eq!(app.post("/v1/leases", &body).await.code(), (500, "internal".into()));
    assert_eq!(app.post("/v1/leases", &body).await.status, 201);
}

#[tokio::test]
async fn tools_are_listed_and_the_document_names_every_path_that_is_served() {
    let app = FakePool::start().await.app(ApiSettings::default());
    let tools = app.get("/v1/tools").await.json();
    let names: Vec<&str> = tools
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["function"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ToolCall::NAMES);
    let document = app.get("/openapi.json").await.json();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            served(&app, &method.to_uppercase(), path).await;
        }
    }
}

async fn served(app: &App, method: &str, path: &str) {
    if path == "/v1/events" {
        return;
    }
    let answer = app.call(method, path, "{").await;
    let code = serde_json::from_str::<Value>(&answer.text).unwrap_or_default();
    assert!(
        code["code"] != "not_found" && code["code"] != "method_not_allowed",
        "{method} {path} is documented and not served"
    );
}
