//! What is awkward about files, and every tool's answer to it.

use super::{data, error, tool, tool_within};
use crate::{
    host::until_within,
    rung::{Rung, scenarios},
    server::{LIMIT, Server, Setup},
};
use serde_json::{Value, json};
use std::fs;

scenarios! {
    everywhere: [
        every_tool_has_an_answer_to_every_path,
        no_tool_goes_outside,
        what_the_slot_may_not_no_tool_does_for_it,
        trees_of_any_depth_and_loops_of_links_have_an_end,
        huge_files_and_lines_are_bounded,
        a_file_that_changes_all_the_time_is_read_and_packed,
        a_tree_that_changes_all_the_time_never_leads_outside,
    ]
}

/// Each tool that takes a path, and nothing else that could be wrong.
fn calls(path: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("read_file", json!({ "path": path })),
        ("read_file", json!({ "path": path, "first_line": 1, "last_line": 2 })),
        ("read_file", json!({ "path": path, "offset": 1, "max_bytes": 9, "encoding": "base64" })),
        ("edit_file", json!({ "path": path, "old": "surely not there", "new": "" })),
        ("list_files", json!({ "path": path, "recursive": true })),
        ("glob", json!({ "path": path, "pattern": "**" })),
        ("grep", json!({ "path": path, "pattern": "surely not there" })),
        ("stat", json!({ "path": path })),
        ("archive", json!({ "path": path })),
    ]
}

/// Those that change something.
fn changes(path: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("write_file", json!({ "path": path, "content": "x" })),
        ("write_file", json!({ "path": path, "content": "x", "append": true })),
        ("write_file", json!({ "path": path, "content": "x", "atomic": true })),
        ("edit_file", json!({ "path": path, "old": "sss", "new": "x" })),
        ("mkdir", json!({ "path": format!("{path}/new") })),
        ("move", json!({ "from": path, "to": "moved" })),
        ("move", json!({ "from": "mine", "to": format!("{path}/mine") })),
        ("delete", json!({ "path": path, "recursive": true })),
    ]
}

async fn every_tool_has_an_answer_to_every_path(rung: &'static Rung) {
    let server = Server::start(rung);
    let long = "n".repeat(255);
    let command = format!(
        "mkdir -p dir/empty; echo text > dir/f; :> nothing; mkfifo fifo; ln -s loop loop
         ln -s dir dirlink; ln -s none dead; ln -s fifo fifolink; touch {long} ünï🦀
         printf '\\377\\0' > binary; truncate -s 9M sparse; ln -s a b; ln -s b a"
    );
    assert!(server.bash(0, &command).await.success);
    let socket = std::os::unix::net::UnixListener::bind(server.workspace(0).join("socket"));
    let path_max = format!("{}f", "dir/../".repeat(585));
    assert_eq!(path_max.len(), 4_096);
    for path in [
        "dir",
        "dir/",
        ".",
        "dir/empty",
        "dir/f",
        "dir/f/",
        "dir/f/x",
        "nothing",
        "fifo",
        "socket",
        "loop",
        "a",
        "dirlink",
        "dead",
        "fifolink",
        &long,
        "ünï🦀",
        "binary",
        "sparse",
        "",
        " ",
        "none",
        "dir/./f",
        "dir//f",
        "./..//.",
        "..",
        "/",
        "/workspace",
        "/etc/passwd",
        "\0",
        "a\0b",
        "\n",
        "*",
        &"n".repeat(256),
        &path_max,
        &"n/".repeat(5_000),
        &"../".repeat(2_000),
        "/dev/null",
        "/proc/self/environ",
        "/dev/fd/0",
    ] {
        for (name, args) in calls(path) {
            let shown: String = path.chars().take(40).collect();
            let result = tool(&server, 0, name, args).await;
            assert_eq!(result["ended"], "exited", "{name} {shown:?}: {result}");
            let said = result["error"].as_str().unwrap();
            assert!(said.len() < 1_500, "{name} {shown:?}: {said}");
            assert_eq!(result["success"], said.is_empty(), "{name} {shown:?}: {result}");
            let reason = &result["data"]["reason"];
            assert!(reason != "failed" || path.len() > 255, "{name} {shown:?}: {result}");
            let directory =
                matches!(path, "dir" | "dir/" | "." | "dir/empty" | "/workspace" | "dirlink");
            let lists = matches!(name, "list_files" | "glob" | "grep" | "archive");
            assert!(
                !(directory && lists) || said.is_empty() || reason == "too_large",
                "{name} {shown}: {result}"
            );
        }
    }
    // Sockets and FIFOs are neither opened nor waited for when they are found on the way.
    let found = data(&server, "grep", json!({ "pattern": "text" })).await;
    assert_eq!((&found["files"], &found["unreadable"]), (&json!(1), &json!(0)), "{found}");
    if socket.is_ok() {
        assert_eq!(data(&server, "stat", json!({ "path": "socket" })).await["kind"], "socket");
    }
    assert_eq!(server.output(0, "cat dir/f").await, "text");
}

async fn no_tool_goes_outside(rung: &'static Rung) {
    let server = Server::start(rung);
    let outside = server.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    open_to_all(&outside);
    fs::write(outside.join("f"), "secret").unwrap();
    open_to_all(&outside.join("f"));
    let out = outside.to_str().unwrap();
    let command = format!(
        "echo mine > mine; ln -s {out} dir; ln -s {out}/f file; ln -s ../../../../outside up"
    );
    server.output(0, &command).await;
    for path in ["dir/f", "up/f", "../../../../outside/f", &format!("{out}/f")] {
        for (name, args) in calls(path).into_iter().chain(changes(path)) {
            let result = tool(&server, 0, name, args.clone()).await;
            assert_eq!(result["data"]["reason"], "outside", "{name} {args}: {result}");
        }
    }
    // Links are told, moved and deleted as such, and never gone through.
    for (name, args) in calls("dir") {
        let result = tool(&server, 0, name, args.clone()).await;
        assert_eq!(result["success"], name == "stat", "{name} {args}: {result}");
        assert!(!result.to_string().contains("secret"), "{result}");
    }
    for (name, args) in calls(".") {
        let result = tool(&server, 0, name, args.clone()).await;
        assert!(!result["output"].as_str().unwrap().contains("dir/"), "{name} {args}: {result}");
    }
    for name in ["dir", "file", "up"] {
        data(&server, "delete", json!({ "path": name, "recursive": true })).await;
    }
    assert_eq!(fs::read_to_string(outside.join("f")).unwrap(), "secret");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

fn open_to_all(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
}

async fn what_the_slot_may_not_no_tool_does_for_it(rung: &'static Rung) {
    let server = Server::start(rung);
    let command = "echo sss > shut; mkdir locked fixed; echo sss > locked/f; echo sss > fixed/f
        echo sss > read-only; chmod 444 read-only; chmod 000 shut locked; chmod 555 fixed";
    server.output(0, command).await;
    if rung.is_none() && rustix::process::geteuid().is_root() {
        // Nothing is kept from root, which is what the slot is there.
        return;
    }
    for name in ["read_file", "edit_file"] {
        let args = calls("shut").into_iter().find(|it| it.0 == name).unwrap().1;
        let said = error(&server, name, args).await;
        assert_eq!(said, "Permission denied: shut");
    }
    for (name, args) in changes("read-only").into_iter().take(4) {
        let said = error(&server, name, args.clone()).await;
        assert_eq!(said, "Permission denied: read-only", "{name} {args}");
    }
    for (name, args) in [
        ("write_file", json!({ "path": "fixed/new", "content": "x" })),
        ("write_file", json!({ "path": "fixed/f", "content": "x", "atomic": true })),
        ("mkdir", json!({ "path": "fixed/new" })),
        ("delete", json!({ "path": "fixed/f" })),
        ("move", json!({ "from": "fixed/f", "to": "f" })),
        ("list_files", json!({ "path": "locked" })),
        ("delete", json!({ "path": "locked/f" })),
    ] {
        let result = tool(&server, 0, name, args.clone()).await;
        assert_eq!(result["data"]["reason"], "denied", "{name} {args}: {result}");
    }
    // Walks say what they could not see.
    let all = data(&server, "list_files", json!({ "recursive": true })).await;
    assert_eq!(all["unreadable"], 1, "{all}");
    let all = data(&server, "grep", json!({ "pattern": "sss", "mode": "files" })).await;
    assert_eq!((&all["unreadable"], &all["files"]), (&json!(2), &json!(2)), "{all}");
    assert_eq!(data(&server, "archive", json!({})).await["skipped"], 2);
    // Its own directories it can open up, and so can a tool that is to delete them.
    for name in ["locked", "fixed"] {
        data(&server, "delete", json!({ "path": name, "recursive": true })).await;
    }
    assert_eq!(server.output(0, "ls; cat read-only").await, "read-only\nshut\nsss");
}

async fn trees_of_any_depth_and_loops_of_links_have_an_end(rung: &'static Rung) {
    let server = Server::with(rung, Setup { probe: true, ..Setup::default() });
    server
        .output(
            0,
            "mkdir tree; cd tree; ln -s . here; ln -s .. up; mkdir -p a/b; ln -s ../../a a/b/a",
        )
        .await;
    let list = data(&server, "list_files", json!({ "path": "tree", "recursive": true })).await;
    assert_eq!((list["entries"].as_array().unwrap().len(), &list["truncated"]), (5, &json!(false)));
    let made = server.probe(0, "deep", "10000").await;
    assert!(made.success, "{made:?}");
    for (name, args) in [
        ("list_files", json!({ "path": "d", "recursive": true })),
        ("glob", json!({ "path": "d", "pattern": "**/leaf" })),
        ("grep", json!({ "path": "d", "pattern": "x" })),
    ] {
        assert_eq!(data(&server, name, args).await["truncated"], true, "{name}");
    }
    let archive = tool(&server, 0, "archive", json!({ "path": "d" })).await;
    assert_eq!(archive["data"]["reason"], "too_large", "{archive}");
    // The file system takes its time for each directory when its disk is busy.
    let args = json!({ "path": "d", "recursive": true });
    let deleted = tool_within(&server, 0, "delete", args, 300.0).await;
    assert_eq!(deleted["data"]["entries"], 10_001, "{deleted}");
    assert_eq!(server.output(0, "ls").await, "tree");
    // Deeper than directories are held open, but not too deep: all of it is seen, in order.
    server.output(0, "for i in a b; do p=$(printf 'x/%.0s' $(seq 100)); mkdir -p $i/$p; echo t > $i/$p/f; done; for i in $(seq 90); do cd a/x 2>/dev/null || cd x; :> z; done").await;
    let found = data(&server, "grep", json!({ "pattern": "t", "mode": "files" })).await;
    assert_eq!((&found["files"], &found["truncated"]), (&json!(2), &json!(false)), "{found}");
    let found = data(&server, "glob", json!({ "pattern": "**/z" })).await;
    assert_eq!(found["entries"].as_array().unwrap().len(), 90);
}

async fn huge_files_and_lines_are_bounded(rung: &'static Rung) {
    let server = Server::start(rung);
    server.output(0, "truncate -s 1G sparse; head -c 30000000 /dev/zero | tr '\\0' x > line").await;
    for (name, args, key, expected) in [
        ("read_file", json!({ "path": "sparse", "offset": 1_073_741_820 }), "bytes", json!(4)),
        ("read_file", json!({ "path": "line", "last_line": 1 }), "truncated", json!(true)),
        ("read_file", json!({ "path": "line", "first_line": 2 }), "bytes", json!(0)),
        ("grep", json!({ "pattern": "x" }), "unfinished_files", json!(1)),
        ("grep", json!({ "pattern": "y" }), "binary_files", json!(1)),
        ("list_files", json!({}), "truncated", json!(false)),
    ] {
        let told = data(&server, name, args.clone()).await;
        assert_eq!(told[key], expected, "{name} {args}: {told}");
    }
    for (name, args) in [
        ("read_file", json!({ "path": "line" })),
        ("edit_file", json!({ "path": "line", "old": "x", "new": "y" })),
        ("edit_file", json!({ "path": "sparse", "old": "x", "new": "y" })),
    ] {
        let result = tool(&server, 0, name, args.clone()).await;
        assert_eq!(result["data"]["reason"], "too_large", "{name} {args}: {result}");
    }
    // Zeros are packed as such: it takes its time, or what is left of that.
    let result = tool_within(&server, 0, "archive", json!({ "path": "sparse" }), 0.1).await;
    assert!(result["ended"] == "timeout" || result["success"] == true, "{result}");
}

async fn a_file_that_changes_all_the_time_is_read_and_packed(rung: &'static Rung) {
    let server = Server::start(rung);
    let command = "(while :; do head -c 90000 /dev/zero | tr '\\0' x > f; :> f; touch on
        for i in $(seq 50); do echo xxxxxxxxxxxxx >> f; done; done) > /dev/null 2>&1 &";
    assert!(server.bash(0, command).await.success);
    until_within(LIMIT, "it changes", async || {
        tool(&server, 0, "stat", json!({ "path": "on" })).await["success"] == true
    })
    .await;
    for _ in 0..20 {
        for (name, args) in calls("f") {
            let result = tool(&server, 0, name, args.clone()).await;
            let missing = result["error"].as_str().unwrap().contains("Text not found");
            let lists = matches!(name, "list_files" | "glob");
            assert!(result["success"] == true || missing || lists, "{name} {args}: {result}");
        }
        let edit = json!({ "path": "f", "old": "xxxxx\n", "new": "y", "replace_all": true });
        let result = tool(&server, 0, "edit_file", edit).await;
        let said = result["error"].as_str().unwrap();
        let known = ["", "changed meanwhile", "not found", "grows while"];
        assert!(known.iter().any(|it| said.contains(it)), "{result}");
    }
    let left = server.output(0, "ls -A | grep slotmux | wc -l").await;
    assert_eq!(left, "0", "drafts are left");
}

/// A directory and a link to one outside, where everybody may write, change places without pause.
async fn a_tree_that_changes_all_the_time_never_leads_outside(rung: &'static Rung) {
    let server = Server::with(rung, Setup { probe: true, ..Setup::default() });
    let outside = server.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    open_to_all(&outside);
    fs::write(outside.join("f"), "outside").unwrap();
    open_to_all(&outside.join("f"));
    let out = outside.display();
    let flip = server.probe_command("flip", "t/dir other-dir t/file other-file");
    let command = format!(
        "mkdir -p t/dir; echo inside > t/dir/f; echo inside > t/file
         ln -s {out} other-dir; ln -s {out}/f other-file
         {flip} > flip.log 2>&1 &"
    );
    assert!(server.bash(0, &command).await.success);
    until_within(LIMIT, "the names are exchanged", async || {
        server.read(0, "flipping").await.success
    })
    .await;
    let mut inside = 0;
    for _ in 0..60 {
        for (name, args) in [
            ("grep", json!({ "pattern": "side", "path": "t" })),
            ("list_files", json!({ "path": "t", "recursive": true })),
            ("archive", json!({ "path": "t" })),
            ("edit_file", json!({ "path": "t/dir/f", "old": "side", "new": "side" })),
            ("write_file", json!({ "path": "t/file", "content": "inside\n", "atomic": true })),
            ("write_file", json!({ "path": "t/dir/new", "content": "x" })),
            ("mkdir", json!({ "path": "t/dir/made" })),
            ("move", json!({ "from": "t/dir/new", "to": "t/dir/old", "overwrite": true })),
            ("delete", json!({ "path": "t/dir/made", "recursive": true })),
        ] {
            let result = tool(&server, 0, name, args).await;
            let output = result["output"].as_str().unwrap();
            assert!(!output.contains("outside"), "{name}: {result}");
            inside += usize::from(name == "grep" && output.contains("t/dir/f:1:inside"));
        }
    }
    assert!(inside > 0, "the race was not run");
    assert_eq!(fs::read_to_string(outside.join("f")).unwrap(), "outside");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "something was made outside");
}
