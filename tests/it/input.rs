//! Bad input gets a clear answer and harms nobody.

use serde_json::{Value, json};
use slotmux_tests::{Pool, open_dir, slotmux};
use std::{fs, net::TcpListener, process::Command};

const SMALL: [&str; 4] = ["--slots", "2", "--containers-max", "1"];

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_with_status_code_and_field() {
    let dir = open_dir();
    let pool = Pool::start(dir.path(), &SMALL).await;
    let lease = pool.acquire("t").await;
    let execute = format!("/v1/leases/{lease}/execute");
    let bash = |args: Value| json!({ "tool": "bash", "args": args });

    for (path, body, status, code, field) in [
        ("/v1/leases", json!({}), 422, "invalid", "trajectory_id"),
        ("/v1/leases", json!({ "trajectory_id": 7 }), 422, "invalid", "trajectory_id"),
        ("/v1/leases", json!({ "trajectory_id": "x", "wait_s": -1 }), 422, "invalid", "wait_s"),
        ("/v1/leases", json!({ "trajectory_id": "x", "slots": 1 }), 422, "invalid", "slots"),
        (
            "/v1/leases",
            json!({ "trajectory_id": "x", "profile": "no" }),
            404,
            "unknown_profile",
            "",
        ),
        ("/v1/leases", json!({ "trajectory_id": "x", "count": 99 }), 422, "never_enough", ""),
        (&*execute, bash(json!({ "command": 7 })), 422, "invalid", "args.command"),
        (&*execute, bash(json!({})), 422, "invalid", "command"),
        (&*execute, json!({ "tool": "python", "args": {} }), 422, "unknown_tool", "tool"),
        ("/v1/leases/lease-1/execute", bash(json!({ "command": "id" })), 404, "unknown_lease", ""),
        ("/v1/nothing", json!({}), 404, "not_found", ""),
        ("/v1/status", json!({}), 405, "method_not_allowed", ""),
    ] {
        let (got, problem) = pool.post(path, body.clone()).await;
        assert_eq!((got, &problem["code"]), (status, &json!(code)), "{path} {body}: {problem}");
        assert!(problem.to_string().contains(field), "{path} {body}: {problem}");
    }
    for body in [&b"{\"trajectory_id\":"[..], b"\xff\xfe", b""] {
        let request = pool.http.post(format!("{}/v1/leases", pool.url)).body(body.to_vec());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 400, "{body:?}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
    let huge = "x".repeat(17 << 20);
    let (status, problem) = pool.post(&execute, bash(json!({ "command": huge }))).await;
    assert_eq!((status, &problem["code"]), (413, &json!("too_large")), "{problem}");

    assert_eq!(pool.bash(&lease, "echo unharmed").await["output"], "unharmed\n");
    pool.stop().await;
}

#[tokio::test]
async fn a_lease_that_is_over_is_said_to_be() {
    let dir = open_dir();
    let pool = Pool::start(dir.path(), &SMALL).await;
    let lease = pool.acquire("t").await;
    let path = format!("/v1/leases/{lease}");
    for _ in 0..2 {
        let (status, _) = pool.send(reqwest::Method::DELETE, &path, Value::Null).await;
        assert_eq!(status, 204);
    }
    let call = json!({ "tool": "bash", "args": { "command": "touch late" } });
    let (status, problem) = pool.post(&format!("{path}/execute"), call).await;
    assert_eq!((status, &problem["code"]), (410, &json!("lease_released")), "{problem}");
    pool.stop().await;
}

#[tokio::test]
async fn no_path_of_a_file_tool_leads_outside() {
    let dir = open_dir();
    let pool = Pool::start(dir.path(), &SMALL).await;
    let lease = pool.acquire("t").await;
    pool.bash(&lease, "ln -s /etc/passwd a; ln -s / b; ln -s .. c").await;
    for path in ["../x", "/etc/passwd", "a", "b/etc/passwd", "c/x", "x/../../y", "nul\0x"] {
        for call in [
            json!({ "tool": "read_file", "args": { "path": path } }),
            json!({ "tool": "write_file", "args": { "path": path, "content": "x" } }),
        ] {
            let (status, result) =
                pool.post(&format!("/v1/leases/{lease}/execute"), call.clone()).await;
            assert_eq!((status, &result["success"]), (200, &json!(false)), "{call}: {result}");
            assert_eq!(result["caused_by"], "policy", "{call}: {result}");
        }
    }
    pool.stop().await;
}

#[test]
fn every_fault_of_a_settings_file_is_listed_with_its_line() {
    let dir = open_dir();
    let config = dir.path().join("slotmux.toml");
    fs::write(&config, "listen = 7\nnonsense = true\n[[profile]]\nname = \"\"\nslots = 0\n")
        .unwrap();
    let output = Command::new(slotmux()).args(["serve", "--config"]).arg(&config).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    for line in [":1", ":2", ":4", ":5"] {
        assert!(text.contains(&format!("slotmux.toml{line}")), "{line}: {text}");
    }
}

#[test]
fn a_port_in_use_is_said_to_be() {
    let dir = open_dir();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = Command::new(slotmux());
    command.args(["serve", "--listen", &address, "--state-dir"]).arg(dir.path());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&address) && text.contains("in use"), "{text}");
}

#[test]
fn a_public_address_needs_a_token() {
    let dir = open_dir();
    let mut command = Command::new(slotmux());
    command.args(["serve", "--listen", "0.0.0.0:0", "--state-dir"]).arg(dir.path());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("token"), "{text}");
}
