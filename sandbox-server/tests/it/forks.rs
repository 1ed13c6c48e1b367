//! Workspaces given to other slots, saved and restored.

use crate::{
    host::{mark, marked, sleeper, until},
    rung::{ANY, NAMESPACES_AS_ROOT, Rung, scenarios},
    server::{Server, Setup},
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::fs;

scenarios! {
    everywhere: [
        a_fork_has_all_that_its_source_has_and_is_its_own,
        a_fork_owns_its_files_and_may_change_and_delete_them,
        three_generations_of_forks_keep_apart,
        a_fork_of_what_runs_is_refused_unless_it_is_to_be_ended,
        a_reset_leaves_nothing_of_a_fork,
        file_tools_see_a_fork_as_commands_do,
        a_snapshot_is_restored_into_any_slot,
        a_snapshot_of_a_hostile_tree_is_made_and_restored,
        a_killed_server_leaves_no_layer_and_no_snapshot_to_the_next,
    ]
}

const FORKS: u16 = 4;

fn server(rung: &'static Rung) -> Server {
    Server::with(rung, Setup { slots: FORKS, ..Setup::default() })
}

/// What a client of these does.
pub(crate) trait Forks {
    async fn v1(&self, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value);
    async fn fork(&self, from: u16, to: &[u16]);
    async fn snapshot(&self, slot: u16) -> Value;
    async fn restore(&self, slot: u16, id: &Value) -> (StatusCode, Value);
    /// As they lie on the disk.
    fn layers(&self) -> usize;
}

impl Forks for Server {
    async fn v1(&self, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let url = format!("http://{}/v1{path}", self.authority);
        let mut request = self.http.request(method.parse().unwrap(), url);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn fork(&self, from: u16, to: &[u16]) {
        let to: Vec<_> = to.iter().map(|slot| format!("slot_{slot}")).collect();
        let body = json!({ "to": to, "stop": true });
        let (status, answer) =
            self.v1("POST", &format!("/slots/slot_{from}/fork"), Some(body)).await;
        assert_eq!(status, 200, "{answer}");
        let slots = answer["slots"].as_array().unwrap();
        assert_eq!(slots.len(), to.len(), "{answer}");
        assert!(slots.iter().all(|it| it.get("problem").is_none()), "{answer}");
    }

    async fn snapshot(&self, slot: u16) -> Value {
        let (status, answer) = self.v1("POST", &format!("/slots/slot_{slot}/snapshot"), None).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    async fn restore(&self, slot: u16, id: &Value) -> (StatusCode, Value) {
        let body = json!({ "snapshot_id": id });
        self.v1("POST", &format!("/slots/slot_{slot}/restore"), Some(body)).await
    }

    fn layers(&self) -> usize {
        fs::read_dir(self.data_dir().join("layers")).unwrap().count()
    }
}

/// What a tree looks like to those who work with it.
const LOOK: &str = "find . -mindepth 1 -printf '%y %m %s %p -> %l\\n' | grep -v ^d | sort; \
     find . -mindepth 1 -type d -printf '%m %p\\n' | sort; \
     find . -type f -perm -400 -exec cat {} + | cksum";

async fn a_fork_has_all_that_its_source_has_and_is_its_own(rung: &'static Rung) {
    let server = server(rung);
    server
        .output(
            0,
            "mkdir -p a/b && echo one > a/b/file && echo two > top && chmod 750 a && ln -s b a/link \
             && ln top a/other && mkfifo fifo && printf '#!/bin/sh\\necho ran' > run && chmod +x run",
        )
        .await;
    let look = server.output(0, LOOK).await;
    assert!(look.contains("a/b/file"), "{look}");
    server.output(1, "touch of-before").await;
    server.fork(0, &[1, 2]).await;
    for slot in [0, 1, 2] {
        assert_eq!(server.output(slot, LOOK).await, look, "slot_{slot}");
        assert_eq!(server.output(slot, "./run; stat -c %h top").await, "ran\n2");
    }
    server.output(1, "echo changed > a/b/file; rm top; touch new").await;
    server.output(2, "echo other > a/b/file").await;
    server.output(0, "echo source >> a/b/file").await;
    assert_eq!(
        server.output(0, "cat a/b/file top; ls new 2>&1 | wc -l").await,
        "one\nsource\ntwo\n1"
    );
    assert_eq!(server.output(1, "cat a/b/file; ls").await, "changed\na\nfifo\nnew\nrun");
    assert_eq!(server.output(2, "cat a/b/file top").await, "other\ntwo");
    assert_eq!(server.output(3, "ls -A").await, "");
}

async fn a_fork_owns_its_files_and_may_change_and_delete_them(rung: &'static Rung) {
    let server = server(rung);
    server
        .output(0, "mkdir -p d/e && touch d/e/f d/g && chmod 600 d/g && chmod 700 d && ln -s x l")
        .await;
    server.fork(0, &[1]).await;
    for slot in [0, 1] {
        let not_mine = server.output(slot, "find . ! -user $(id -u) -o ! -group $(id -g)").await;
        assert_eq!(not_mine, "", "slot_{slot}");
        let done = server
            .output(
                slot,
                "chmod 640 d/g && stat -c %a d/g && echo x > d/g && mv d/e/f d/e/h && ls d/e && \
                 mv d/e e && ls && touch -d @1000 d/g && stat -c %Y d/g && ln d/g second && \
                 rm -r e l d/g && rmdir d && ls",
            )
            .await;
        assert_eq!(done, "640\nh\nd\ne\nl\n1000\nsecond", "slot_{slot}");
        // What was removed can be made again, and is empty then.
        assert_eq!(server.output(slot, "mkdir d && ls -A d && rm -r d && ls").await, "second");
    }
}

async fn three_generations_of_forks_keep_apart(rung: &'static Rung) {
    let server = server(rung);
    server.output(0, "echo 0 > who; mkdir dir; touch dir/0").await;
    server.fork(0, &[1]).await;
    server.output(1, "echo 1 > who; touch dir/1").await;
    server.fork(1, &[2]).await;
    server.output(2, "echo 2 > who; touch dir/2; rm dir/0").await;
    server.fork(2, &[3]).await;
    for (slot, seen) in [(0, "0\n0"), (1, "1\n0\n1"), (2, "2\n1\n2"), (3, "2\n1\n2")] {
        assert_eq!(server.output(slot, "cat who; ls dir").await, seen, "slot_{slot}");
    }
    // The first is gone, and they have what they had of it.
    assert!(server.reset(0).await.success);
    assert_eq!(server.output(0, "ls -A").await, "");
    assert_eq!(server.output(3, "cat who; ls dir").await, "2\n1\n2");
    // Back and forth, over more generations than lie on one another.
    for round in 0..10 {
        for (from, to) in [(3, 1), (1, 3)] {
            server.output(from, &format!("touch dir/{round}-{from}")).await;
            server.fork(from, &[to]).await;
        }
    }
    assert_eq!(server.output(3, "cat who; ls dir | wc -l").await, "2\n22");
    assert_eq!(server.output(2, "ls dir").await, "1\n2");
    if server.layers() > 0 {
        assert!(server.layers() <= 20, "{}", server.layers());
    }
}

async fn a_fork_of_what_runs_is_refused_unless_it_is_to_be_ended(rung: &'static Rung) {
    let server = server(rung);
    let mark = mark();
    server.output(0, &format!("touch kept; sleep 3000.{mark} > /dev/null 2>&1 &")).await;
    sleeper(&mark).await;
    let body = json!({ "to": ["slot_1"] });
    let (status, answer) = server.v1("POST", "/slots/slot_0/fork", Some(body.clone())).await;
    assert_eq!((status.as_u16(), &answer["code"]), (409, &json!("slot_busy")), "{answer}");
    assert!(!marked(&mark).is_empty());
    assert_eq!(server.output(0, "ls").await, "kept");
    server.fork(0, &[1]).await;
    assert_eq!(marked(&mark), [0; 0]);
    for slot in [0, 1] {
        assert_eq!(server.output(slot, "ls").await, "kept");
    }
    // What has ended by itself is in nobody's way.
    let (status, answer) = server.v1("POST", "/slots/slot_0/fork", Some(body)).await;
    assert_eq!(status, 200, "{answer}");
}

async fn a_reset_leaves_nothing_of_a_fork(rung: &'static Rung) {
    let server = server(rung);
    server.output(0, "mkdir d && touch d/f && chmod 500 d").await;
    server.fork(0, &[1, 2]).await;
    server.output(1, "chmod 700 d && rm d/f; mkdir -p deep/er; chmod 0 deep; : > $TMPDIR/t").await;
    for slot in [0, 1, 2] {
        assert!(server.reset(slot).await.success);
        assert_eq!(server.output(slot, "ls -A . $TMPDIR | grep -v :").await, "");
    }
    assert_eq!(server.layers(), 0);
    let trash = server.data_dir().join("trash");
    until("the trash is empty", || fs::read_dir(&trash).unwrap().count() == 0).await;
    for slot in 0..FORKS {
        let dir = server.data_dir().join(format!("slots/slot_{slot}"));
        let files: usize = ["workspace", "tmp"]
            .iter()
            .map(|name| fs::read_dir(dir.join(name)).unwrap().count())
            .sum();
        assert_eq!(files, 0);
        assert!(!dir.join("work").exists());
    }
}

async fn file_tools_see_a_fork_as_commands_do(rung: &'static Rung) {
    let server = server(rung);
    assert!(server.write(0, "dir/file", "of the source").await.success);
    server.fork(0, &[1]).await;
    for slot in [0, 1] {
        assert_eq!(server.read(slot, "dir/file").await.output, "of the source");
        let text = format!("of slot_{slot}");
        assert!(server.write(slot, "dir/file", &text).await.success);
        assert!(server.write(slot, "dir/new/file", &text).await.success);
        assert_eq!(server.output(slot, "cat dir/file dir/new/file").await, text.repeat(2));
        let outside = server.read(slot, "../secret").await;
        assert!(!outside.success, "{outside:?}");
        server.output(slot, "ln -s /etc/hostname dir/out; ln -s ../../.. dir/up").await;
        for path in ["dir/out", "dir/up/etc/hostname"] {
            assert!(!server.read(slot, path).await.success, "{path}");
        }
    }
    assert_eq!(server.read(0, "dir/file").await.output, "of slot_0");
}

async fn a_snapshot_is_restored_into_any_slot(rung: &'static Rung) {
    let server = server(rung);
    server
        .output(0, "mkdir -p a/b && echo one > a/b/file && chmod 640 a/b/file && ln -s b a/link")
        .await;
    let look = server.output(0, LOOK).await;
    let saved = server.snapshot(0).await;
    let again = server.snapshot(0).await;
    assert_eq!(saved, again, "the same content is the same snapshot");
    assert_eq!(saved["skipped"], 0, "{saved}");
    server.output(0, "mkfifo fifo").await;
    let lacks = server.snapshot(0).await;
    assert_eq!(lacks["snapshot_id"], saved["snapshot_id"], "{lacks}");
    assert_eq!(lacks["skipped"], 1, "{lacks}");
    let (_, list) = server.v1("GET", "/snapshots", None).await;
    assert_eq!(list["snapshots"].as_array().unwrap().len(), 1, "{list}");
    server.output(1, "touch of-before").await;
    for slot in [1, 2, 0] {
        let (status, answer) = server.restore(slot, &saved["snapshot_id"]).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(server.output(slot, LOOK).await, look, "slot_{slot}");
        let not_mine = server.output(slot, "find . ! -user $(id -u) -o ! -group $(id -g)").await;
        assert_eq!(not_mine, "", "slot_{slot}");
    }
    server.output(1, "rm -r a; touch mine").await;
    assert_eq!(server.output(2, "cat a/b/file").await, "one");
    assert_eq!(server.snapshot(2).await["snapshot_id"], saved["snapshot_id"]);
    assert_ne!(server.snapshot(1).await["snapshot_id"], saved["snapshot_id"]);
    let id = saved["snapshot_id"].as_str().unwrap();
    let (status, _) = server.v1("DELETE", &format!("/snapshots/{id}"), None).await;
    assert_eq!(status, 204);
    let (status, answer) = server.restore(1, &saved["snapshot_id"]).await;
    assert_eq!((status.as_u16(), &answer["code"]), (404, &json!("unknown_snapshot")));
    assert_eq!(server.output(1, "ls").await, "mine", "a refusal changes nothing");
}

async fn a_snapshot_of_a_hostile_tree_is_made_and_restored(rung: &'static Rung) {
    let server = server(rung);
    server
        .output(
            0,
            "mkdir loop && ln -s ../loop loop/loop && ln -s / root && ln -s /etc/passwd passwd && \
             mkfifo fifo && printf x > \"$(printf 'new\\nline')\" && printf x > '-rf' && \
             printf x > \"$(printf '\\377\\376')\" && truncate -s 1G sparse && rm sparse && \
             d=.; for i in $(seq 60); do d=$d/directory; done; mkdir -p $d; echo deep > $d/file",
        )
        .await;
    let saved = server.snapshot(0).await;
    let (status, answer) = server.restore(1, &saved["snapshot_id"]).await;
    assert_eq!(status, 200, "{answer}");
    let look = "readlink root passwd loop/loop; ls | wc -l; find . -name file -exec cat {} +";
    let seen = server.output(1, look).await;
    assert!(seen.starts_with("/\n/etc/passwd\n../loop\n"), "{seen}");
    assert!(seen.ends_with("deep"), "{seen}");
}

async fn a_killed_server_leaves_no_layer_and_no_snapshot_to_the_next(rung: &'static Rung) {
    let mut server = server(rung);
    server.output(0, "mkdir d; touch d/f; chmod 0 d").await;
    server.fork(0, &[1]).await;
    server.output(2, "touch f").await;
    server.snapshot(2).await;
    let processes = server.processes();
    server.kill();
    until("every process is gone", || processes.iter().all(|it| !it.is_alive())).await;
    let dir = std::mem::replace(&mut server.dir, tempfile::tempdir().unwrap());
    drop(server);
    let next = Server::start_in(dir, rung, Setup::default());
    let next = next.unwrap_or_else(|failed| panic!("{failed:?}"));
    assert_eq!(next.layers(), 0);
    assert_eq!(fs::read_dir(next.data_dir().join("snapshots")).unwrap().count(), 0);
    assert_eq!(next.output(0, "ls -A").await, "");
}

#[tokio::test]
async fn forks_lie_on_one_another_where_the_disk_lets_them() {
    if !NAMESPACES_AS_ROOT.is_offered().await {
        return;
    }
    let server = server(&NAMESPACES_AS_ROOT);
    let health = server.get("/health").await;
    if health["forks"]["by"] != "overlay" {
        println!("skipped: overlay: {health}");
        return;
    }
    server.output(0, "head -c 1000000 /dev/zero > f").await;
    server.fork(0, &[1, 2, 3]).await;
    assert_eq!(server.layers(), 1);
    // Unchanged, it is given on as it is.
    server.fork(1, &[0]).await;
    assert_eq!(server.layers(), 1);
    for slot in 0..4 {
        let upper = fs::read_dir(server.workspace(slot)).unwrap().count();
        assert_eq!(upper, 0, "slot_{slot} has a copy");
        assert!(server.reset(slot).await.success);
    }
    assert_eq!(server.layers(), 0);
}

#[tokio::test]
async fn what_cannot_be_forked_or_restored_is_refused_with_a_code_and_changes_nothing() {
    let server = server(&ANY);
    server.output(0, "touch kept").await;
    for (to, code) in [
        (json!([]), "invalid"),
        (json!(["slot_0"]), "invalid"),
        (json!(["slot_1", "slot_1"]), "invalid"),
        (json!(["slot_9"]), "unknown_slot"),
        (json!("slot_1"), "invalid"),
    ] {
        let body = json!({ "to": to, "stop": true });
        let (_, answer) = server.v1("POST", "/slots/slot_0/fork", Some(body)).await;
        assert_eq!(answer["code"], code, "{to}: {answer}");
    }
    for (id, code) in [
        ("", "invalid"),
        ("../../etc/passwd", "invalid"),
        (&"A".repeat(64), "invalid"),
        (&"0".repeat(64), "unknown_snapshot"),
    ] {
        let (_, answer) = server.restore(0, &json!(id)).await;
        assert_eq!(answer["code"], code, "{id}: {answer}");
    }
    assert_eq!(server.output(0, "ls").await, "kept");
}

#[tokio::test]
async fn a_snapshot_is_moved_from_one_server_to_another_and_a_forged_one_is_not() {
    let (from, to) = (server(&ANY), server(&ANY));
    from.output(0, "mkdir d; echo moved > d/file").await;
    let saved = from.snapshot(0).await;
    let id = saved["snapshot_id"].as_str().unwrap();
    let url = |server: &Server, id: &str| format!("http://{}/v1/snapshots/{id}", server.authority);
    let body = from.http.get(url(&from, id)).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(body.len() as u64, saved["stored_bytes"].as_u64().unwrap());
    let put = async |id: &str, body: Vec<u8>| {
        let answer = to.http.put(url(&to, id)).body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (status, answer) = put(&"0".repeat(64), body.to_vec()).await;
    assert_eq!((status, &answer["code"]), (422, &json!("invalid")), "{answer}");
    for forged in [&body[..body.len() / 2], b"", b"nothing of the kind"] {
        let (status, answer) = put(id, forged.to_vec()).await;
        assert!((400..500).contains(&status), "{status} {answer}");
    }
    let (_, list) = to.v1("GET", "/snapshots", None).await;
    assert_eq!(list["snapshots"], json!([]));
    assert_eq!(fs::read_dir(to.data_dir().join("snapshots")).unwrap().count(), 0);
    let (status, mut answer) = put(id, body.to_vec()).await;
    // What it lacks is known to who has made it.
    answer["skipped"] = json!(0);
    assert_eq!((status, &answer), (200, &saved));
    assert_eq!(to.restore(1, &saved["snapshot_id"]).await.0, 200);
    assert_eq!(to.output(1, "cat d/file").await, "moved");
}

#[tokio::test]
async fn a_snapshot_that_was_changed_on_the_disk_leaves_the_slot_empty_or_as_it_was() {
    let server = server(&ANY);
    server.output(0, "head -c 100000 /dev/urandom > noise; touch z").await;
    let saved = server.snapshot(0).await;
    let name = format!("snapshots/{}.tar.zst", saved["snapshot_id"].as_str().unwrap());
    let file = server.data_dir().join(name);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    server.output(1, "touch own").await;
    let (status, answer) = server.restore(1, &saved["snapshot_id"]).await;
    assert!(!status.is_success(), "{answer}");
    let left = server.output(1, "ls").await;
    assert!(["", "own"].contains(&&*left), "{left}");
    assert_eq!(server.layers(), 0);
}

#[tokio::test]
async fn snapshots_take_no_more_than_they_may() {
    let args = ["--snapshot-bytes-max", "300000"];
    let server = Server::with(&ANY, Setup { args: &args, ..Setup::default() });
    server.output(0, "head -c 200000 /dev/urandom > noise").await;
    let first = server.snapshot(0).await;
    server.output(0, "head -c 200000 /dev/urandom > noise").await;
    let (status, answer) = server.v1("POST", "/slots/slot_0/snapshot", None).await;
    assert_eq!((status.as_u16(), &answer["code"]), (507, &json!("storage_full")), "{answer}");
    assert_eq!(fs::read_dir(server.data_dir().join("snapshots")).unwrap().count(), 1);
    let id = first["snapshot_id"].as_str().unwrap();
    assert_eq!(server.v1("DELETE", &format!("/snapshots/{id}"), None).await.0, 204);
    server.snapshot(0).await;
}

#[tokio::test]
async fn a_reset_that_races_a_fork_wins_or_comes_first() {
    let server = server(&ANY);
    for _ in 0..5 {
        server.output(0, "touch file").await;
        let body = json!({ "to": ["slot_1"], "stop": true });
        let ((status, answer), reset) =
            tokio::join!(server.v1("POST", "/slots/slot_0/fork", Some(body)), server.reset(1));
        assert!(reset.success, "{reset:?}");
        assert!(status.is_success() || status == 503, "{answer}");
        assert!(server.reset(1).await.success);
        assert_eq!(server.output(1, "ls -A").await, "");
    }
}
