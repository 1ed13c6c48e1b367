//! Who may call the server: not a slot; and with a slot's token, only that slot.

use crate::{
    host::until,
    http::{bash, call},
    rung::{Rung, User, scenarios},
    server::{Server, Setup},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::os::unix::{fs::MetadataExt as _, process::CommandExt as _};

scenarios! {
    everywhere: [
        a_call_from_inside_a_slot_is_refused_whatever_it_asks_for,
        a_slot_that_hangs_up_at_once_has_nothing_done_for_it,
        clients_outside_are_let_in_as_whoever_they_are,
        a_slot_that_knocks_without_end_keeps_nobody_out,
        a_slot_token_opens_its_slot_until_that_is_reset,
    ]
    behind_walls: [
        a_slot_without_network_does_not_come_to_the_door,
    ]
}

fn port(server: &Server) -> &str {
    server.authority.rsplit(':').next().unwrap()
}

/// A shell's HTTP client. The socket is also that of its children.
fn ask(server: &Server, request: &str) -> String {
    format!(
        "exec 3<>/dev/tcp/127.0.0.1/{} && (printf '{request}' >&3; head -c 4096 <&3)",
        port(server)
    )
}

fn post(path: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\\r\\nhost: h\\r\\nauthorization: Bearer right\\r\\n\
         content-length: {}\\r\\nconnection: close\\r\\n\\r\\n{body}",
        body.len()
    )
}

async fn a_call_from_inside_a_slot_is_refused_whatever_it_asks_for(rung: &'static Rung) {
    for token in [None, Some("right")] {
        let env = token.map(|token| ("SLOTMUX_CONTAINER_TOKEN", token));
        let env: Vec<_> = env.into_iter().collect();
        let mut server = Server::with(rung, Setup { env: &env, ..Setup::default() });
        server.token = token.map(str::to_owned);
        let get = |path: &str| format!("GET {path} HTTP/1.1\\r\\nhost: h\\r\\n\\r\\n");
        for request in [
            get("/health"),
            get("/slots"),
            get("/none-such"),
            get("/v1/link").replace(
                "\\r\\n\\r\\n",
                "\\r\\nauthorization: Bearer right\\r\\nconnection: upgrade\\r\\n\
                 upgrade: websocket\\r\\nsec-websocket-version: 13\\r\\n\
                 sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\\r\\n\\r\\n",
            ),
            post("/execute", &bash(1, "touch ran")),
            post("/reset", &json!({ "slot_id": "slot_1" })),
            "half".to_owned(),
        ] {
            let result = server.bash(0, &ask(&server, &request)).await;
            assert!(result.output.starts_with("HTTP/1.1 403"), "{request}: {result:?}");
            assert!(result.output.contains("calls from inside a slot are refused"), "{result:?}");
        }
        // By every address that the machine has.
        let hosts = server.bash(0, "hostname -I 2>/dev/null").await.output;
        for host in hosts.split_whitespace().filter(|it| it.contains('.')) {
            let command = ask(&server, &get("/health")).replace("127.0.0.1", host);
            let result = server.bash(0, &command).await;
            assert!(!result.output.contains("200 OK"), "{host}: {result:?}");
        }
        assert_eq!(server.output(1, "ls").await, "");
    }
}

async fn a_slot_that_hangs_up_at_once_has_nothing_done_for_it(rung: &'static Rung) {
    let server = Server::with(rung, Setup { probe: true, ..Setup::default() });
    let body = json!({ "slot_id": "slot_1", "tool": "write_file",
        "args": { "path": "ran", "content": "x" }, "timeout": 9.0 });
    let request = post("/execute", &body).replace('"', "\\\"");
    let command = server.probe_command("hang_up", "ARGS");
    let args = format!("\"{} {request}\"", port(&server));
    let result = server.bash(0, &command.replace("'ARGS'", &args)).await;
    assert!(result.success, "{result:?}");
    // In their order: when this is answered those before it have been.
    for _ in 0..3 {
        assert_eq!(server.output(1, "ls").await, "");
    }
}

async fn clients_outside_are_let_in_as_whoever_they_are(rung: &'static Rung) {
    let server = Server::start(rung);
    // The server's own user; root where the tests are root; somebody else.
    let own = std::fs::metadata(server.dir.path()).unwrap().uid();
    let mut users = vec![None];
    if rustix::process::geteuid().is_root() {
        users.extend([Some(own), Some(12_345)]);
    }
    for user in users {
        // Its parent is gone when it asks, as that of a daemon is.
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{}; (printf 'GET /health HTTP/1.1\\r\\nhost: h\\r\\n\
             connection: close\\r\\n\\r\\n' >&3; cat <&3) & wait",
            port(&server)
        );
        let mut command = std::process::Command::new("bash");
        command.args(["-c", &script]).current_dir("/");
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.starts_with("HTTP/1.1 200"), "as {user:?}: {text} {output:?}");
    }
}

async fn a_slot_that_knocks_without_end_keeps_nobody_out(rung: &'static Rung) {
    let server = Server::start(rung);
    let knock = format!(
        "touch knocking; while :; do (exec 3<>/dev/tcp/127.0.0.1/{}) 2>/dev/null; done",
        port(&server)
    );
    assert!(server.bash(0, &format!("({knock}) > /dev/null 2>&1 &")).await.success);
    until("it knocks", || server.workspace(0).join("knocking").exists()).await;
    for _ in 0..20 {
        // Each with a connection of its own.
        let fresh = reqwest::Client::builder().no_proxy().build().unwrap();
        let response = fresh.get(format!("http://{}/health", server.authority)).send().await;
        assert_eq!(response.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(server.output(1, "echo works").await, "works");
    assert!(server.reset(0).await.success);
}

async fn a_slot_without_network_does_not_come_to_the_door(rung: &'static Rung) {
    let server = Server::with(rung, Setup { args: &["--network", "off"], ..Setup::default() });
    let result =
        server.bash(0, &ask(&server, "GET /health HTTP/1.1\\r\\nhost: h\\r\\n\\r\\n")).await;
    assert!(!result.output.contains("HTTP/1.1"), "{result:?}");
    assert!(!server.log().contains("connection refused"), "{}", server.log());
}

async fn token(server: &Server, slot: u16) -> String {
    let (status, body) = server.post(&format!("/v1/slots/slot_{slot}/token"), "").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["slot"], format!("slot_{slot}"));
    body["token"].as_str().unwrap().to_owned()
}

async fn a_slot_token_opens_its_slot_until_that_is_reset(rung: &'static Rung) {
    for main in [None, Some("right")] {
        let env = main.map(|token| ("SLOTMUX_CONTAINER_TOKEN", token));
        let env: Vec<_> = env.into_iter().collect();
        let mut server = Server::with(rung, Setup { env: &env, ..Setup::default() });
        server.token = main.map(str::to_owned);
        let (zero, one) = (token(&server, 0).await, token(&server, 1).await);
        assert_ne!(zero, one);
        server.token = Some(zero.clone());
        let write = json!({ "path": "mine", "content": "x" });
        assert!(server.call(call(0, "write_file", write)).await.success);
        let v1 = json!({ "tool": "bash", "args": { "command": "cat mine" } }).to_string();
        let (status, body) = server.post("/v1/slots/slot_0/execute", v1.clone()).await;
        assert_eq!((status, &body["output"]), (StatusCode::OK, &json!("x")), "{body}");
        let batch =
            json!({ "calls": [{ "slot": 1, "tool": "bash", "args": { "command": "touch x" } }] });
        let (status, body) = server.post("/v1/batch", batch.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert_eq!(body["results"][0]["problem"]["code"], "forbidden", "{body}");
        for (path, body) in [
            ("/execute", bash(1, "touch x").to_string()),
            ("/batch", json!([bash(0, "true"), bash(1, "touch x")]).to_string()),
            ("/reset", json!({ "slot_id": "slot_0" }).to_string()),
            ("/v1/slots/slot_1/execute", v1.clone()),
            ("/v1/slots/slot_0/reset", String::new()),
            ("/v1/slots/slot_0/token", String::new()),
        ] {
            let (status, body) = server.post(path, body).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {body}");
        }
        for path in ["/slots", "/v1/slots", "/v1/link"] {
            let (status, body) = server.request(Method::GET, path, "").await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {body}");
        }
        server.token = Some(one.clone());
        assert_eq!(server.output(1, "ls").await, "");
        // Another's reset ends it; its neighbour's goes on.
        server.token = main.map(str::to_owned);
        assert!(server.reset(0).await.success);
        for (given, status) in [
            (zero.clone(), StatusCode::FORBIDDEN),
            (one, StatusCode::OK),
            (format!("{zero}0"), StatusCode::FORBIDDEN),
            (zero.replace("slot.0.", "slot.1."), StatusCode::FORBIDDEN),
        ] {
            server.token = Some(given.clone());
            let (got, body) = server.post("/execute", bash(1, "true").to_string()).await;
            assert_eq!(got, status, "{given}: {body}");
        }
        server.token = main.map(str::to_owned);
        server.token = Some(token(&server, 0).await);
        assert_eq!(server.output(0, "ls").await, "");
        assert_eq!(rung.user == User::Whoever, rung.is_none());
    }
}
