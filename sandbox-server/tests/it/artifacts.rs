//! The artifacts of the atropos wire, as its clients know them.

use crate::{
    http::write_file,
    rung::{ANY, Rung, scenarios},
    server::Server,
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeSet;

scenarios! {
    everywhere: [
        files_are_read_listed_and_archived,
        what_cannot_be_given_has_its_status,
    ]
}

async fn post(server: &Server, what: &str, mut body: Value) -> (StatusCode, Value) {
    if body.get("slot_id").is_none() {
        body["slot_id"] = json!("slot_0");
    }
    server.post(&format!("/artifacts/{what}"), body.to_string()).await
}

async fn given(server: &Server, what: &str, body: Value) -> Value {
    let (status, answer) = post(server, what, body.clone()).await;
    assert_eq!((status, &answer["success"]), (StatusCode::OK, &json!(true)), "{body}: {answer}");
    answer
}

fn names(answer: &Value) -> BTreeSet<&str> {
    answer.as_object().unwrap().keys().map(String::as_str).collect()
}

async fn files_are_read_listed_and_archived(rung: &'static Rung) {
    let server = Server::start(rung);
    let command = r"mkdir -p out/d; printf 'one\n' > out/r.JSON; printf 'a\377' > out/d/b
        touch -d @1000000000.25 out/r.JSON; ln -s d out/l";
    server.output(0, command).await;
    let read =
        given(&server, "read", json!({ "path": "out/r.JSON", "include_sha256": true })).await;
    let expected = json!({
        "success": true, "content": "one\n", "encoding": "text", "truncated": false, "bytes": 4,
        "file_size": 4, "path": "out/r.JSON", "mime": "application/json",
        "sha256": "2c8b08da5ce60398e1f19af0e5dccc744df274b826abe585eaba68c525434806",
    });
    assert_eq!(read, expected);
    let args = json!({ "path": "/workspace/out/d/b", "encoding": "base64", "unknown": 1 });
    let read = given(&server, "read", args).await;
    assert_eq!((&read["content"], &read["sha256"]), (&json!("Yf8="), &Value::Null));
    assert_eq!(read["mime"], "application/octet-stream");
    let read = given(&server, "read", json!({ "path": "out/r.JSON", "max_bytes": 2 })).await;
    assert_eq!((&read["content"], &read["truncated"]), (&json!("on"), &json!(true)));
    assert_eq!((&read["bytes"], &read["file_size"]), (&json!(2), &json!(4)));

    let list = given(&server, "list", json!({})).await;
    assert_eq!(names(&list), BTreeSet::from(["entries", "success", "truncated"]));
    assert_eq!(list["entries"].as_array().unwrap().len(), 1);
    assert_eq!(names(&list["entries"][0]), BTreeSet::from(["is_dir", "mtime", "path", "size"]));
    let list = given(&server, "list", json!({ "path": "out", "recursive": true })).await;
    let entries = list["entries"].as_array().unwrap();
    let found: Vec<_> = entries.iter().map(|it| (&it["path"], &it["is_dir"])).collect();
    let expected = [("out/d", true), ("out/d/b", false), ("out/l", false), ("out/r.JSON", false)];
    let expected = expected.map(|(path, is_dir)| (json!(path), json!(is_dir)));
    assert_eq!(found, expected.iter().map(|(path, dir)| (path, dir)).collect::<Vec<_>>());
    assert_eq!(entries[3]["mtime"], 1_000_000_000.25);
    let list = given(&server, "list", json!({ "path": "out", "max_entries": 2 })).await;
    assert_eq!((list["entries"].as_array().unwrap().len(), &list["truncated"]), (2, &json!(true)));

    let archive = given(&server, "archive", json!({ "path": "out", "format": "tgz" })).await;
    let keys = ["bytes", "content", "encoding", "entry_count", "format", "success"];
    assert_eq!(names(&archive), BTreeSet::from(keys));
    assert_eq!((&archive["format"], &archive["entry_count"]), (&json!("tar.gz"), &json!(4)));
    let content = archive["content"].as_str().unwrap();
    assert!(server.call(write_file(1, "a.b64", content)).await.success);
    let listed = server.output(1, "base64 -d a.b64 | tar -tz | sort").await;
    assert_eq!(listed, "d/\nd/b\nl\nr.JSON");
}

async fn what_cannot_be_given_has_its_status(rung: &'static Rung) {
    let server = Server::start(rung);
    let command =
        "mkdir d; echo x > f; mkfifo p; ln -s /etc etc; head -c 6000000 /dev/urandom > big
        mkdir many; cd many; seq 1 5001 | xargs touch";
    server.output(0, command).await;
    for (what, body, expected) in [
        ("read", json!({ "path": "../f" }), 403),
        ("read", json!({ "path": "/etc/passwd" }), 403),
        ("read", json!({ "path": "etc/passwd" }), 403),
        ("list", json!({ "path": ".." }), 403),
        ("archive", json!({ "path": "etc" }), 403),
        ("read", json!({ "path": "none" }), 404),
        ("list", json!({ "path": "none" }), 404),
        ("archive", json!({ "path": "none" }), 404),
        ("read", json!({ "path": "f", "slot_id": "slot_9" }), 404),
        ("list", json!({ "slot_id": "9" }), 404),
        ("archive", json!({ "slot_id": "" }), 404),
        ("read", json!({ "path": "d" }), 400),
        ("read", json!({ "path": "p" }), 400),
        ("read", json!({ "path": "" }), 400),
        ("list", json!({ "path": "f" }), 400),
        ("read", json!({ "path": "f", "encoding": "hex" }), 400),
        ("archive", json!({ "format": "zip" }), 400),
        ("read", json!({}), 400),
        ("read", json!({ "path": "f", "max_bytes": -1 }), 400),
        ("list", json!({ "max_entries": "all" }), 400),
        ("archive", json!({ "path": "big" }), 413),
        ("archive", json!({ "path": "big", "max_bytes": 9_000_000 }), 413),
        ("archive", json!({ "path": "f", "max_bytes": 10 }), 413),
        ("archive", json!({ "path": "many" }), 413),
    ] {
        let (status, answer) = post(&server, what, body.clone()).await;
        assert_eq!(status.as_u16(), expected, "{what} {body}: {answer}");
        assert_eq!(names(&answer), BTreeSet::from(["error", "success"]), "{what} {body}");
        assert_eq!(answer["success"], false);
        assert!(!answer["error"].as_str().unwrap().is_empty());
    }
    // What is too large to be read or listed is given in part.
    let read = given(&server, "read", json!({ "path": "big", "max_bytes": 9_000_000 })).await;
    assert_eq!((&read["bytes"], &read["truncated"]), (&json!(5_000_000), &json!(true)));
    let list = given(&server, "list", json!({ "path": "many", "max_entries": 9_000 })).await;
    assert_eq!(
        (list["entries"].as_array().unwrap().len(), &list["truncated"]),
        (5_000, &json!(true))
    );
}

#[tokio::test]
async fn artifacts_take_their_turn_and_ask_for_the_token() {
    let env = [("SLOTMUX_CONTAINER_TOKEN", "right")];
    let setup = crate::server::Setup { env: &env, ..crate::server::Setup::default() };
    let mut server = Server::with(&ANY, setup);
    for what in ["read", "list", "archive"] {
        let (status, _) = post(&server, what, json!({ "path": "f" })).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    server.token = Some("right".to_owned());
    let slow = server.bash(0, "while [ ! -e go ]; do sleep 0.01; done; echo done > f");
    let rest = async {
        crate::host::until_within(crate::server::LIMIT, "it runs", async || {
            server.is_executing(0).await
        })
        .await;
        tokio::join!(given(&server, "read", json!({ "path": "f" })), async {
            crate::host::until_within(crate::server::LIMIT, "it waits", async || {
                server.get("/slots").await["slots"][0]["queued"] == 2
            })
            .await;
            std::fs::write(server.workspace(0).join("go"), "").unwrap();
        })
    };
    let (slow, (read, ())) = tokio::join!(slow, rest);
    assert!(slow.success, "{slow:?}");
    assert_eq!(read["content"], "done\n");
}
