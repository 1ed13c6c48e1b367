//! The atropos wire: what is answered to whom, and in which words.

use crate::{
    host::until_within,
    http::{bash, call},
    rung::ANY,
    server::{LIMIT, Server, Setup},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

#[tokio::test]
async fn a_result_has_the_fields_of_the_wire_and_no_others() {
    let server = Server::start(&ANY);
    let body = json!({ "slot_id": "slot_0", "tool": "bash", "args": { "command": "echo x" },
        "execution_id": "e1", "of_a_later_version": [1] });
    let (status, answer) = server.post("/execute", body.to_string()).await;
    assert_eq!(status, StatusCode::OK);
    let names: Vec<_> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["error", "execution_id", "metadata", "output", "success"]);
    assert_eq!((&answer["output"], &answer["execution_id"]), (&json!("x"), &json!("e1")));
    assert_eq!(answer["error"], "");
}

#[tokio::test]
async fn health_and_slots_say_what_the_wire_says() {
    let server = Server::with(&ANY, Setup { slots: 3, ..Setup::default() });
    let health = server.get("/health").await;
    for (name, value) in [
        ("status", json!("ok")),
        ("slots", json!(3)),
        ("available", json!(3)),
        ("executing", json!(0)),
        ("data_dir", json!(server.data_dir())),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("bwrap_available", json!(health["isolation"] != "none")),
    ] {
        assert_eq!(health[name], value, "{name} of {health}");
    }
    for name in ["isolation", "limits", "limits_by", "network", "container"] {
        assert!(!health[name].is_null(), "{name} of {health}");
    }
    let slots = server.get("/slots").await;
    let slots = slots["slots"].as_array().unwrap();
    assert_eq!(slots.len(), 3);
    assert_eq!(slots[2]["slot_id"], "slot_2");
    assert_eq!(slots[2]["state"], "available");
    assert_eq!(slots[2]["current_execution_id"], Value::Null);
    assert_eq!(slots[2]["workspace_dir"], json!(server.workspace(2)));
}

#[tokio::test]
async fn what_is_not_json_is_refused_and_harms_nobody() {
    let server = Server::start(&ANY);
    let deep = "[".repeat(100_000);
    let bodies: [&[u8]; 11] = [
        b"",
        b"{",
        b"nonsense",
        b"{\"slot_id\":\"slot_0\"",
        b"\xff\xfe",
        b"{\"slot_id\":\"slot_\xff\",\"tool\":\"bash\"}",
        b"{\"slot_id\":\"slot_0\",\"tool\":\"bash\",\"args\":{}} trailing",
        b"\0",
        b"{\"slot_id\":\"slot_0\",\"tool\":\"bash\",\"timeout\":NaN}",
        b"1e999999",
        deep.as_bytes(),
    ];
    for path in ["/execute", "/batch", "/reset"] {
        for body in bodies {
            let (status, answer) = server.post(path, body.to_vec()).await;
            let sent = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
            assert_eq!(status, StatusCode::BAD_REQUEST, "{path} {sent}: {answer}");
            assert_eq!(answer["success"], false);
            let error = answer["error"].as_str().unwrap();
            assert!(!error.is_empty() && error.len() < 1_000, "{error}");
        }
    }
    let half = r#"{"slot_id":"slot_0","tool":"bash","args":{"command":"\ud800"}}"#;
    assert_eq!(server.post("/execute", half).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(server.output(0, "echo works").await, "works");
}

#[tokio::test]
async fn json_of_another_shape_is_refused_with_its_place() {
    let server = Server::start(&ANY);
    for (path, body, place) in [
        ("/execute", json!([]), ""),
        ("/execute", json!({}), "slot_id"),
        ("/execute", json!({ "slot_id": 0, "tool": "bash" }), "slot_id"),
        ("/execute", json!({ "slot_id": "slot_0", "tool": null }), "tool"),
        ("/execute", json!({ "slot_id": "slot_0", "tool": "bash", "timeout": "5" }), "timeout"),
        ("/execute", json!({ "slot_id": "slot_0", "tool": "bash", "timeout": null }), "timeout"),
        ("/batch", json!({}), "array"),
        ("/batch", json!({ "slot_id": "slot_0", "tool": "bash" }), "array"),
        ("/batch", json!("x"), "array"),
        ("/batch", json!(null), "array"),
        ("/batch", json!([bash(0, "touch ran"), 7]), "1"),
        ("/batch", json!([bash(0, "touch ran"), { "slot_id": "slot_0" }]), "tool"),
        ("/reset", json!({ "slot": "slot_0" }), "slot_id"),
        ("/reset", json!([]), ""),
    ] {
        let (status, answer) = server.post(path, body.to_string()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path} {body}: {answer}");
        assert_eq!(answer["success"], false);
        assert!(answer["error"].as_str().unwrap().contains(place), "{path} {body}: {answer}");
    }
    assert_eq!(server.output(0, "ls").await, "", "a part of a refused batch was run");
}

#[tokio::test]
async fn a_call_that_cannot_be_made_is_a_result_that_failed() {
    let server = Server::start(&ANY);
    let mut late = bash(0, "touch ran");
    late["timeout"] = json!(0);
    let mut never = bash(0, "touch ran");
    never["timeout"] = json!(-1.5);
    let mut for_ever = bash(0, "touch ran");
    for_ever["timeout"] = json!(1e300);
    let mut long_id = bash(0, "touch ran");
    long_id["execution_id"] = json!("x".repeat(257));
    let mut no_id = bash(0, "touch ran");
    no_id["execution_id"] = json!("");
    for (body, text) in [
        (bash(2, "touch ran"), "Unknown slot: slot_2"),
        (json!({ "slot_id": "slot_00", "tool": "bash" }), "Unknown slot: slot_00"),
        (json!({ "slot_id": "../slot_0", "tool": "bash" }), "Unknown slot: ../slot_0"),
        (call(0, "python", json!({})), "Unknown tool: python"),
        (call(0, "bash", json!({})), "command"),
        (call(0, "bash", json!({ "command": 7 })), "command"),
        (call(0, "bash", json!("touch ran")), "Invalid arguments"),
        (call(0, "write_file", json!({ "path": "ran" })), "content"),
        (call(0, "read_file", json!({ "path": ["a"] })), "path"),
        (late, "timeout"),
        (never, "timeout"),
        (for_ever, "timeout"),
        (long_id, "execution_id"),
        (no_id, "execution_id"),
    ] {
        let result = server.call(body.clone()).await;
        assert!(!result.success && result.error.contains(text), "{body}: {result:?}");
    }
    assert_eq!(server.output(0, "ls").await, "", "a refused call was run");
    // In a batch only they fail.
    let results = server.batch(vec![bash(9, "true"), bash(0, "echo ran"), bash(1, "exit 1")]).await;
    let success: Vec<_> = results.iter().map(|it| it.success).collect();
    assert_eq!(success, [false, true, false]);
    assert!(server.batch(vec![]).await.is_empty());
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let server = Server::start(&ANY);
    let limit = 16 << 20;
    let of_length = |length: usize| {
        let empty = call(0, "write_file", json!({ "path": "big", "content": "" })).to_string();
        let content = "x".repeat(length - empty.len());
        call(0, "write_file", json!({ "path": "big", "content": content })).to_string()
    };
    let (status, answer) = server.post("/execute", of_length(limit)).await;
    assert_eq!((status, &answer["success"]), (StatusCode::OK, &json!(true)), "{answer}");
    let (status, answer) = server.post("/execute", of_length(limit + 1)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{answer}");
    assert_eq!(answer["success"], false);
    let many = vec![bash(0, "touch ran"); 1_001];
    let (status, answer) = server.post("/batch", Value::from(many).to_string()).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{answer}");
    assert_eq!(server.output(0, "ls").await, "big");
}

#[tokio::test]
async fn too_many_waiting_calls_are_refused_one_by_one() {
    let server = Server::start(&ANY);
    let mut calls = vec![bash(0, "while [ ! -e go ]; do sleep 0.01; done; echo ran")];
    calls.extend((0..999).map(|_| crate::http::read_file(0, "go")));
    let more = || server.batch((0..1_000).map(|_| crate::http::read_file(0, "go")).collect());
    let queued = async |count: u64| {
        until_within(LIMIT, "so many wait", async || {
            server.get("/slots").await["slots"][0]["queued"] == count
        })
        .await;
    };
    let rest = async {
        queued(1_000).await;
        tokio::join!(more(), async {
            queued(2_000).await;
            last_batch(&server).await
        })
    };
    let (first, (second, (taken, refused))) = tokio::join!(server.batch(calls), rest);
    assert_eq!((taken, refused), (48, 952));
    assert!(first.iter().chain(&second).all(|it| it.success), "{:?}", first[0]);
}

/// Line by line, so that the refused ones are known before those that were taken may run.
async fn last_batch(server: &Server) -> (usize, usize) {
    let read = json!({ "slot": 0, "tool": "read_file", "args": { "path": "go" } });
    let calls = json!({ "calls": vec![read; 1_000] });
    let url = format!("http://{}/v1/batch", server.authority);
    let request = server.http.post(url).header("accept", "application/x-ndjson");
    let mut response = request.body(calls.to_string()).send().await.unwrap();
    let (mut text, mut gone) = (Vec::new(), false);
    while let Some(chunk) = response.chunk().await.unwrap() {
        text.extend_from_slice(&chunk);
        if !gone && count(&text, "queue_full") == 952 {
            std::fs::write(server.workspace(0).join("go"), "now").unwrap();
            gone = true;
        }
    }
    (count(&text, "\"success\":true"), count(&text, "queue_full\","))
}

fn count(text: &[u8], what: &str) -> usize {
    String::from_utf8_lossy(text).lines().filter(|line| line.contains(what)).count()
}

#[tokio::test]
async fn unknown_paths_and_methods_are_refused_in_json() {
    let server = Server::start(&ANY);
    for (method, path, expected) in [
        (Method::GET, "/", StatusCode::NOT_FOUND),
        (Method::POST, "/execute/", StatusCode::NOT_FOUND),
        (Method::GET, "/execute", StatusCode::METHOD_NOT_ALLOWED),
        (Method::PUT, "/batch", StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, "/health", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let (status, answer) = server.request(method, path, "").await;
        assert_eq!((status, &answer["success"]), (expected, &json!(false)), "{path}: {answer}");
    }
}

#[tokio::test]
async fn the_token_is_asked_for_everywhere_but_at_health() {
    let env = [("SLOTMUX_CONTAINER_TOKEN", "right")];
    let mut server = Server::with(&ANY, Setup { env: &env, ..Setup::default() });
    for (token, expected) in [
        (None, StatusCode::UNAUTHORIZED),
        (Some("wrong"), StatusCode::FORBIDDEN),
        (Some("righ"), StatusCode::FORBIDDEN),
        (Some("right "), StatusCode::OK),
        (Some("right"), StatusCode::OK),
    ] {
        server.token = token.map(str::to_owned);
        for (method, path, body) in [
            (Method::POST, "/execute", bash(0, "touch ran").to_string()),
            (Method::POST, "/batch", json!([bash(0, "touch ran")]).to_string()),
            (Method::POST, "/reset", json!({ "slot_id": "slot_1" }).to_string()),
            (Method::GET, "/slots", String::new()),
        ] {
            let (status, answer) = server.request(method, path, body).await;
            assert_eq!(status, expected, "{path} with {token:?}: {answer}");
            if expected != StatusCode::OK {
                assert_eq!(answer["success"], false);
                assert!(!server.workspace(0).join("ran").exists());
            }
        }
        assert_eq!(server.get("/health").await["status"], "ok");
    }
    server.token = Some("right".to_owned());
}

#[tokio::test]
async fn the_same_execution_id_runs_once_and_answers_each() {
    let server = Server::start(&ANY);
    let mut once = bash(0, "echo ran >> count; echo $RANDOM");
    once["execution_id"] = json!("e1");
    let (first, second) = tokio::join!(server.call(once.clone()), server.call(once.clone()));
    let third = server.call(once.clone()).await;
    assert!(first.success, "{first:?}");
    assert_eq!((&second, &third), (&first, &first));
    assert_eq!(server.output(0, "cat count").await, "ran");
    // Another slot knows nothing of it; another call may not use it.
    once["slot_id"] = json!("slot_1");
    assert!(server.call(once.clone()).await.success);
    let mut other = bash(0, "echo other >> count");
    other["execution_id"] = json!("e1");
    let refused = server.call(other).await;
    assert!(refused.error.contains("e1"), "{refused:?}");
    assert_eq!(server.output(0, "cat count").await, "ran");
    // After a reset all is forgotten.
    assert!(server.reset(1).await.success);
    assert!(server.call(once).await.success);
    assert_eq!(server.output(1, "cat count").await, "ran");
}
