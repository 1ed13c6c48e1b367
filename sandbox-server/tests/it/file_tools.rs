//! Every tool of files against what slots can make of their files, on each rung.

mod awkward;

use crate::{
    rung::{ANY, Rung, scenarios},
    server::{Server, Setup},
};
use reqwest::StatusCode;
use serde_json::{Value, json};

scenarios! {
    everywhere: [
        ranges_of_bytes_and_of_lines_are_read,
        what_is_added_and_replaced_is_whole,
        an_atomic_write_keeps_what_the_old_file_was,
        a_write_that_fails_leaves_nothing_behind,
        an_edit_is_exact,
        lists_are_sorted_and_bounded,
        files_are_found_by_their_paths,
        text_is_found_as_ripgrep_finds_it,
        things_are_told_made_moved_and_deleted,
        an_archive_is_what_tar_reads,
    ]
}

/// The result of one call on the v1 surface, which must be one.
pub(crate) async fn tool(server: &Server, slot: u16, tool: &str, args: Value) -> Value {
    tool_within(server, slot, tool, args, 20.0).await
}

pub(crate) async fn tool_within(
    server: &Server,
    slot: u16,
    tool: &str,
    args: Value,
    timeout_s: f64,
) -> Value {
    let body = json!({ "tool": tool, "args": args, "timeout_s": timeout_s }).to_string();
    let (status, result) = server.post(&format!("/v1/slots/{slot}/execute"), body).await;
    assert_eq!(status, StatusCode::OK, "{tool} {args}: {result}");
    result
}

/// What a tool has for programs that has to go well.
pub(crate) async fn data(server: &Server, name: &str, args: Value) -> Value {
    let result = tool(server, 0, name, args.clone()).await;
    assert_eq!(result["success"], true, "{name} {args}: {result}");
    result["data"].clone()
}

async fn output(server: &Server, name: &str, args: Value) -> String {
    let result = tool(server, 0, name, args.clone()).await;
    assert_eq!(result["success"], true, "{name} {args}: {result}");
    result["output"].as_str().unwrap().to_owned()
}

/// What a tool says that has to fail.
async fn error(server: &Server, name: &str, args: Value) -> String {
    let result = tool(server, 0, name, args.clone()).await;
    assert_eq!(result["success"], false, "{name} {args}: {result}");
    assert_eq!(result["ended"], "exited", "{name} {args}: {result}");
    assert_eq!(result["caused_by"], "policy", "{name} {args}: {result}");
    assert!(result["data"]["reason"].is_string(), "{name} {args}: {result}");
    result["error"].as_str().unwrap().to_owned()
}

async fn ranges_of_bytes_and_of_lines_are_read(rung: &'static Rung) {
    let server = Server::start(rung);
    server.output(0, "seq 1 30000 > lines; printf 'a\\377b' > bytes; printf x > x; :> empty").await;
    for (args, expected) in [
        (json!({ "path": "lines", "first_line": 2, "last_line": 3 }), "2\n3\n"),
        (json!({ "path": "lines", "first_line": 30_000 }), "30000\n"),
        (json!({ "path": "lines", "first_line": 30_001 }), ""),
        (json!({ "path": "lines", "last_line": 1 }), "1\n"),
        (json!({ "path": "lines", "last_line": 9, "max_bytes": 3 }), "1\n2"),
        (json!({ "path": "lines", "offset": 2, "max_bytes": 4 }), "2\n3\n"),
        (json!({ "path": "lines", "offset": 168_893 }), "\n"),
        (json!({ "path": "lines", "offset": u64::MAX, "max_bytes": 1 }), ""),
        (json!({ "path": "lines", "max_bytes": 0 }), ""),
        (json!({ "path": "bytes", "encoding": "base64" }), "Yf9i"),
        (json!({ "path": "bytes", "offset": 1, "encoding": "base64" }), "/2I="),
        (json!({ "path": "x", "first_line": 1, "last_line": u64::MAX }), "x"),
        (json!({ "path": "empty", "first_line": 1 }), ""),
        (json!({ "path": "empty" }), ""),
    ] {
        assert_eq!(output(&server, "read_file", args.clone()).await, expected, "{args}");
    }
    let args = json!({ "path": "lines", "first_line": 2, "last_line": 9, "max_bytes": 3 });
    let expected = json!({
        "bytes": 3, "file_bytes": 168_894, "offset": 2, "first_line": 2, "last_line": 3,
        "truncated": true, "encoding": "text",
    });
    assert_eq!(data(&server, "read_file", args).await, expected);
    // Without a limit of its own a range has that of a whole file.
    let whole = data(&server, "read_file", json!({ "path": "lines", "first_line": 1 })).await;
    assert_eq!((&whole["bytes"], &whole["truncated"]), (&json!(100_000), &json!(true)));
    let whole =
        data(&server, "read_file", json!({ "path": "lines", "max_bytes": 9_000_000 })).await;
    assert_eq!((&whole["bytes"], &whole["truncated"]), (&json!(168_894), &json!(false)));
    assert!(error(&server, "read_file", json!({ "path": "lines" })).await.starts_with("File too"));
    for args in [
        json!({ "path": "lines", "offset": 0, "first_line": 1 }),
        json!({ "path": "lines", "first_line": 0 }),
        json!({ "path": "lines", "first_line": 3, "last_line": 2 }),
    ] {
        let result = tool(&server, 0, "read_file", args.clone()).await;
        assert_eq!(result["data"]["reason"], "invalid", "{args}: {result}");
    }
}

async fn what_is_added_and_replaced_is_whole(rung: &'static Rung) {
    let server = Server::start(rung);
    for args in [
        json!({ "path": "d/f", "content": "one\n", "append": true, "mode": "600" }),
        json!({ "path": "d/f", "content": "two\n", "append": true }),
        json!({ "path": "d/g", "content": "AP9i", "encoding": "base64" }),
        json!({ "path": "e/h", "content": "new", "atomic": true, "mode": "0755" }),
        json!({ "path": "e/i", "content": "", "atomic": true }),
    ] {
        data(&server, "write_file", args).await;
    }
    let command = "cat d/f; stat -c %a d/f e/h e/i; od -An -tx1 d/g; cat e/h";
    assert_eq!(server.output(0, command).await, "one\ntwo\n600\n755\n644\n 00 ff 62\nnew");
    for args in [
        json!({ "path": "f", "content": "x", "mode": "4755" }),
        json!({ "path": "f", "content": "x", "mode": "rwx" }),
        json!({ "path": "f", "content": "no base64", "encoding": "base64" }),
        json!({ "path": "f", "content": "x", "append": true, "atomic": true }),
    ] {
        let result = tool(&server, 0, "write_file", args.clone()).await;
        assert_eq!(result["data"]["reason"], "invalid", "{args}: {result}");
    }
    assert_eq!(server.output(0, "ls").await, "d\ne");
}

async fn an_atomic_write_keeps_what_the_old_file_was(rung: &'static Rung) {
    let server = Server::start(rung);
    let command =
        "mkdir d; echo old > d/f; chmod 751 d/f; ln d/f d/other; ln -s d/f link; ls -i d/f";
    let before = server.output(0, command).await;
    let args = json!({ "path": "link", "content": "new\n", "atomic": true });
    data(&server, "write_file", args).await;
    let after = server.output(0, "ls -i d/f").await;
    assert_ne!(before, after, "written in place");
    let command =
        "cat d/f d/other; stat -c %a d/f; readlink link; ls -A d; find . -user $(id -u) | wc -l";
    assert_eq!(server.output(0, command).await, "new\nold\n751\nd/f\nf\nother\n5");
}

async fn a_write_that_fails_leaves_nothing_behind(rung: &'static Rung) {
    let args = ["--file-bytes-max", "100000"];
    let server = Server::with(rung, Setup { args: &args, ..Setup::default() });
    server.output(0, "mkdir d; echo old > d/f; mkfifo d/fifo; mkdir d/sub").await;
    let large = "x".repeat(100_001);
    for path in ["d/f", "d/new"] {
        let args = json!({ "path": path, "content": large, "atomic": true });
        let error = error(&server, "write_file", args).await;
        assert!(error.starts_with("File too large: 100001"), "{error}");
    }
    for path in ["d/fifo", "d/sub", "d/sub/", "d", "."] {
        for atomic in [true, false] {
            let args = json!({ "path": path, "content": "x", "atomic": atomic });
            let error = error(&server, "write_file", args).await;
            assert_eq!(error, format!("Not a file: {path}"));
        }
    }
    let append = json!({ "path": "d/f", "content": "x".repeat(99_997), "append": true });
    assert!(error(&server, "write_file", append).await.starts_with("File too large: 100001"));
    assert_eq!(server.output(0, "ls -A d; cat d/f").await, "f\nfifo\nsub\nold");
}

async fn an_edit_is_exact(rung: &'static Rung) {
    let server = Server::start(rung);
    server.output(0, r"printf 'a = 1\n\377\0b = 1\n\ta = 2\r\n' > f; chmod 700 f").await;
    let edit = |old: &str, new: &str| json!({ "path": "f", "old": old, "new": new });
    let done = data(&server, "edit_file", edit("b = 1", "ünï = 1")).await;
    assert_eq!((&done["replacements"], &done["lines"]), (&json!(1), &json!([2])));
    let error1 = error(&server, "edit_file", edit("a = ", "x")).await;
    assert!(error1.contains("2 times in f (lines 1, 3)"), "{error1}");
    let error2 = error(&server, "edit_file", edit("a  = 2\n", "x")).await;
    assert!(error2.contains("not found") && error2.contains("line 3"), "{error2}");
    assert_eq!(error(&server, "edit_file", edit("nothing", "x")).await, "Text not found in f");
    let mut all = edit("a = ", "c = ");
    all["replace_all"] = json!(true);
    assert_eq!(data(&server, "edit_file", all).await["replacements"], 2);
    let command = "od -An -c -w64 f; stat -c %a f; ls -A";
    let bytes = r"   c       =       1  \n 377  \0 303 274   n 303 257       =       1  \n  \t   c       =       2  \r  \n";
    assert_eq!(server.output(0, command).await, format!("{}\n700\nf", bytes.trim_start()));
}

fn paths(data: &Value) -> Vec<&str> {
    data["entries"].as_array().unwrap().iter().map(|it| it["path"].as_str().unwrap()).collect()
}

async fn lists_are_sorted_and_bounded(rung: &'static Rung) {
    let server = Server::start(rung);
    let command = r"mkdir -p b/c d; echo 1234 > b/c/f; :> b/.hidden; :> a; mkfifo p; ln -s b link
        ln -s none dead; :> $'new\nline'; :> $'\377'";
    server.output(0, command).await;
    let top = data(&server, "list_files", json!({})).await;
    let expected = ["a", "b", "d", "dead", "link", "new\nline", "p", "\u{fffd}"];
    assert_eq!(paths(&top), expected, "{top}");
    let kinds: Vec<_> = top["entries"].as_array().unwrap().iter().map(|it| &it["kind"]).collect();
    let expected = ["file", "directory", "directory", "symlink", "symlink", "file", "fifo", "file"];
    assert_eq!(kinds, expected);
    assert_eq!(top["entries"][7]["path_base64"], "/w==");
    assert_eq!(top["truncated"], false);
    let text = output(&server, "list_files", json!({ "path": "/workspace" })).await;
    assert_eq!(text, "a\nb/\nd/\ndead\nlink\nnew\\nline\np\n\u{fffd}\n");
    let below = data(&server, "list_files", json!({ "path": "./b/", "recursive": true })).await;
    assert_eq!(paths(&below), ["b/.hidden", "b/c", "b/c/f"]);
    assert_eq!(below["entries"][2]["size"], 5);
    // A path that is a link to a directory is followed; a link that is found is not.
    let below = data(&server, "list_files", json!({ "path": "link" })).await;
    assert_eq!(paths(&below), ["link/.hidden", "link/c"]);
    let all = data(&server, "list_files", json!({ "recursive": true })).await;
    assert_eq!(all["entries"].as_array().unwrap().len(), 11);
    for max in [0, 3, 11] {
        let args = json!({ "recursive": true, "max_entries": max });
        let some = data(&server, "list_files", args).await;
        assert_eq!(paths(&some), paths(&all)[..max]);
        assert_eq!(some["truncated"], max < 11);
    }
    assert_eq!(error(&server, "list_files", json!({ "path": "a" })).await, "Not a directory: a");
    assert_eq!(error(&server, "list_files", json!({ "path": "no" })).await, "File not found: no");
    // More than is given of one directory: the first of them all the same.
    server.output(0, "mkdir many; cd many; seq -f %05.0f 7000 -1 1 | xargs touch").await;
    let many = data(&server, "list_files", json!({ "path": "many" })).await;
    let names = paths(&many);
    assert_eq!((names.len(), names[0], names[4_999]), (5_000, "many/00001", "many/05000"));
    assert_eq!(many["truncated"], true);
}

async fn files_are_found_by_their_paths(rung: &'static Rung) {
    let server = Server::start(rung);
    server
        .output(0, "mkdir -p src/a .git; touch x.rs src/y.rs src/a/z.rs src/a/z.py .git/w.rs")
        .await;
    for (args, expected) in [
        (json!({ "pattern": "*.rs" }), vec!["x.rs"]),
        (json!({ "pattern": "**/*.rs" }), vec![".git/w.rs", "src/a/z.rs", "src/y.rs", "x.rs"]),
        (json!({ "pattern": "*.rs", "path": "src" }), vec!["src/y.rs"]),
        (json!({ "pattern": "src/**/z.{rs,py}" }), vec!["src/a/z.py", "src/a/z.rs"]),
        (json!({ "pattern": "src/?" }), vec!["src/a"]),
        (json!({ "pattern": "none*" }), vec![]),
    ] {
        let found = data(&server, "glob", args.clone()).await;
        assert_eq!(paths(&found), expected, "{args}");
        assert_eq!(found["truncated"], false);
    }
    let found = data(&server, "glob", json!({ "pattern": "**", "max_entries": 2 })).await;
    assert_eq!((found["truncated"].clone(), paths(&found).len()), (json!(true), 2));
    for pattern in ["[", "{a", &"*".repeat(1_001)] {
        let result = tool(&server, 0, "glob", json!({ "pattern": pattern })).await;
        assert_eq!(result["data"]["reason"], "invalid", "{result}");
    }
}

async fn text_is_found_as_ripgrep_finds_it(rung: &'static Rung) {
    let server = Server::start(rung);
    let command = r"mkdir -p src; printf 'one\nTwo two\nthree\nfour\ntwo\n' > src/a.txt
        printf 'two\r\n' > b.py; printf 'two\0\n' > binary; ln -s src/a.txt link; mkfifo fifo
        printf 'a\377two\n' > bytes; (head -c 3000000 /dev/zero | tr '\0' x; echo two) > long";
    server.output(0, command).await;
    let lines = output(&server, "grep", json!({ "pattern": "^two" })).await;
    let (found, notes) = lines.split_once('(').unwrap();
    assert_eq!(found, "b.py:1:two\nsrc/a.txt:5:two\n");
    assert!(notes.starts_with("1 binary files skipped)\n(1 files with a line too"), "{notes}");
    let told = data(&server, "grep", json!({ "pattern": "two", "ignore_case": true })).await;
    let places: Vec<_> =
        told["matches"].as_array().unwrap().iter().map(|it| (&it["path"], &it["line"])).collect();
    let at = |path: &str, line: u64| (json!(path), json!(line));
    let expected = [at("b.py", 1), at("bytes", 1), at("src/a.txt", 2), at("src/a.txt", 5)];
    assert_eq!(places, expected.iter().map(|(path, line)| (path, line)).collect::<Vec<_>>());
    assert_eq!((&told["files"], &told["binary_files"]), (&json!(3), &json!(1)), "{told}");
    for (args, expected) in [
        (
            json!({ "pattern": "t.o", "path": "src", "glob": "*.txt", "context": 1 }),
            "src/a.txt-1-one\nsrc/a.txt:2:Two two\nsrc/a.txt-3-three\nsrc/a.txt-4-four\nsrc/a.txt:5:two\n",
        ),
        (
            json!({ "pattern": "one|two", "path": "src", "context": 0 }),
            "src/a.txt:1:one\nsrc/a.txt:2:Two two\nsrc/a.txt:5:two\n",
        ),
        (json!({ "pattern": "one", "path": "src/a.txt" }), "src/a.txt:1:one\n"),
        (json!({ "pattern": "t.o", "path": "src", "literal": true }), ""),
        (json!({ "pattern": "o", "path": "src", "mode": "files" }), "src/a.txt\n"),
        (json!({ "pattern": "o", "path": "src", "mode": "count" }), "src/a.txt:4\n"),
        (
            json!({ "pattern": "o", "path": "src", "max_matches": 1 }),
            "src/a.txt:1:one\n... (there is more)\n",
        ),
        (json!({ "pattern": "two", "glob": "src/*" }), "src/a.txt:2:Two two\nsrc/a.txt:5:two\n"),
        (json!({ "pattern": "two", "glob": "*.{py,rs}" }), "b.py:1:two\n"),
    ] {
        assert_eq!(output(&server, "grep", args.clone()).await, expected, "{args}");
    }
    for pattern in ["(", "[a", "a\nb", r"\w{1000}{1000}", &"x".repeat(10_001)] {
        let result = tool(&server, 0, "grep", json!({ "pattern": pattern })).await;
        assert_eq!(result["data"]["reason"], "invalid", "{result}");
    }
}

async fn things_are_told_made_moved_and_deleted(rung: &'static Rung) {
    let server = Server::start(rung);
    data(&server, "write_file", json!({ "path": "f", "content": "four", "mode": "640" })).await;
    server.output(0, "ln -s f link; touch -d @1000000000.5 f; mkfifo p; mkdir -p full/x").await;
    let told = data(&server, "stat", json!({ "path": "f" })).await;
    let uid: u32 = server.output(0, "id -u").await.parse().unwrap();
    let expected = json!({
        "path": "f", "kind": "file", "size": 4, "mode": "0640", "mtime": 1_000_000_000.5,
        "uid": uid, "links": 1,
    });
    assert_eq!(told, expected);
    for (path, kind) in
        [("link", "symlink"), ("p", "fifo"), (".", "directory"), ("full/", "directory")]
    {
        assert_eq!(data(&server, "stat", json!({ "path": path })).await["kind"], kind, "{path}");
    }
    assert_eq!(data(&server, "stat", json!({ "path": "link" })).await["target"], "f");
    for path in ["a/b/c", "a/b", "a/b/../d/", "/workspace/a", "."] {
        assert!(
            tool(&server, 0, "mkdir", json!({ "path": path })).await["success"] == true,
            "{path}"
        );
    }
    assert_eq!(error(&server, "mkdir", json!({ "path": "f/x" })).await, "Not a directory: f/x");
    assert_eq!(error(&server, "mkdir", json!({ "path": "f" })).await, "Not a directory: f");
    assert_eq!(server.output(0, "ls a; stat -c %a a").await, "b\nd\n755");
    let to = |from: &str, to: &str| json!({ "from": from, "to": to });
    assert_eq!(error(&server, "move", to("f", "link")).await, "File exists: link");
    assert_eq!(error(&server, "move", to("none", "x")).await, "File not found: none");
    for (from, into) in [("f", "new/dir/g"), ("link", "a/link"), ("a", "z"), ("full", "z/full")] {
        assert_eq!(tool(&server, 0, "move", to(from, into)).await["success"], true, "{from}");
    }
    assert!(error(&server, "move", to("z", "z/full/z")).await.contains("into itself"));
    let mut over = to("z/b", "z/full");
    over["overwrite"] = json!(true);
    assert_eq!(error(&server, "move", over).await, "Directory not empty: z/full");
    let listed = server.output(0, "find . | sort").await;
    assert_eq!(
        listed,
        ".\n./new\n./new/dir\n./new/dir/g\n./p\n./z\n./z/b\n./z/b/c\n./z/d\n./z/full\n./z/full/x\n./z/link"
    );
    let not_empty = error(&server, "delete", json!({ "path": "z" })).await;
    assert_eq!(not_empty, "Directory not empty: z");
    for args in [
        json!({ "path": "z/link" }),
        json!({ "path": "z/full/x/" }),
        json!({ "path": "p" }),
        json!({ "path": "z", "recursive": true }),
        json!({ "path": "new/dir/g", "recursive": true }),
    ] {
        assert_eq!(tool(&server, 0, "delete", args.clone()).await["success"], true, "{args}");
    }
    assert_eq!(error(&server, "delete", json!({ "path": "z" })).await, "File not found: z");
    for path in [".", "/workspace", "new/.."] {
        let args = json!({ "path": path, "recursive": true });
        assert_eq!(tool(&server, 0, "delete", args).await["data"]["reason"], "invalid", "{path}");
    }
    assert_eq!(server.output(0, "find .").await, ".\n./new\n./new/dir");
}

async fn an_archive_is_what_tar_reads(rung: &'static Rung) {
    let server = Server::start(rung);
    let command = "mkdir -p in/d; echo one > in/d/f; ln -s d/f in/l; mkfifo in/p; chmod 711 in/d/f";
    server.output(0, command).await;
    let first = tool(&server, 0, "archive", json!({ "path": "in" })).await;
    let data = json!({
        "bytes": first["data"]["bytes"], "entries": 3, "skipped": 1, "format": "tar.gz",
        "encoding": "base64",
    });
    assert_eq!(first["data"], data, "{first}");
    assert_eq!(
        tool(&server, 0, "archive", json!({ "path": "in" })).await["output"],
        first["output"]
    );
    data_written(&server, first["output"].as_str().unwrap()).await;
    let command = "mkdir out; tar -xzf t.tgz -C out; cd out; find . | sort; stat -c %a d/f; cat l";
    assert_eq!(server.output(0, command).await, ".\n./d\n./d/f\n./l\n711\none");
    server.output(0, "head -c 100000 /dev/urandom > random").await;
    for args in [
        json!({ "path": "random", "max_bytes": 90_000 }),
        json!({ "path": "in", "max_entries": 2 }),
    ] {
        let result = tool(&server, 0, "archive", args.clone()).await;
        assert_eq!(result["data"]["reason"], "too_large", "{args}: {result}");
    }
    assert_eq!(error(&server, "archive", json!({ "path": "none" })).await, "File not found: none");
}

async fn data_written(server: &Server, content: &str) {
    let args = json!({ "path": "t.tgz", "content": content, "encoding": "base64" });
    assert_eq!(tool(server, 0, "write_file", args).await["success"], true);
}

#[tokio::test]
async fn a_tool_that_takes_too_long_is_ended_as_the_policys_timeout() {
    let server = Server::start(&ANY);
    server.output(0, "truncate -s 1G sparse").await;
    let args = json!({ "path": "sparse", "first_line": 2 });
    let result = tool_within(&server, 0, "read_file", args, 0.01).await;
    assert_eq!((&result["ended"], &result["caused_by"]), (&json!("timeout"), &json!("policy")));
    assert_eq!(server.output(0, "echo works").await, "works");
}
