//! The file tools: they do what the slot could do itself, and nothing else.

use crate::{
    host::until_within,
    http::{read_file, write_file},
    rung::{Rung, User, scenarios},
    server::{LIMIT, Server, Setup},
};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
};

scenarios! {
    everywhere: [
        what_is_written_is_read_back,
        what_is_written_belongs_to_the_slot,
        no_path_leads_outside,
        no_link_leads_outside,
        what_is_no_file_is_refused_at_once,
        a_file_is_read_up_to_the_limit,
        odd_names_are_names,
        the_slots_permissions_are_those_of_the_tools,
        a_link_that_changes_while_it_is_followed_never_leads_outside,
    ]
}

async fn what_is_written_is_read_back(rung: &'static Rung) {
    let server = Server::start(rung);
    let written = server.write(0, "a/b/c.txt", "one\ntwo\n").await;
    assert!(written.success && written.error.is_empty(), "{written:?}");
    for path in ["a/b/c.txt", "./a//b/../b/c.txt", "/workspace/a/b/c.txt"] {
        let read = server.read(0, path).await;
        assert_eq!(read.output, "one\ntwo\n", "{path}: {read:?}");
    }
    assert!(server.write(0, "a/b/c.txt", "").await.success);
    assert_eq!(server.read(0, "a/b/c.txt").await.output, "");
    // Not trimmed, unlike what commands print.
    assert!(server.write(0, "spaces", "  x \n\n").await.success);
    assert_eq!(server.read(0, "spaces").await.output, "  x \n\n");
    assert_eq!(server.read(1, "a/b/c.txt").await.error, "File not found: a/b/c.txt");
}

async fn what_is_written_belongs_to_the_slot(rung: &'static Rung) {
    let server = Server::start(rung);
    assert!(server.write(0, "dir/script", "echo ran").await.success);
    let command = "chmod +x dir/script && printf '\\necho twice' >> dir/script \\
        && . ./dir/script && rm -r dir && ls -A";
    assert_eq!(server.output(0, command).await, "ran\ntwice");
    assert_eq!(server.output(0, "echo mine > own; chmod 600 own").await, "");
    assert!(server.write(0, "own", "theirs").await.success);
    assert_eq!(server.output(0, "cat own; stat -c %a own").await, "theirs600");
}

async fn no_path_leads_outside(rung: &'static Rung) {
    let server = Server::start(rung);
    let secret = server.dir.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o666)).unwrap();
    let secret = secret.to_str().unwrap();
    server.output(0, "mkdir -p a").await;
    for path in [
        "../../../../secret",
        "a/../../../../../secret",
        "/workspace/../../../../secret",
        secret,
        "/etc/passwd",
        "/proc/self/environ",
        "..",
        "../slot_1/workspace/f",
        "/workspacex",
        "a\0b",
        "\0",
    ] {
        for result in [server.read(0, path).await, server.write(0, path, "x").await] {
            assert!(!result.success, "{path:?}: {result:?}");
            assert_eq!(result.error, "Access denied: path outside workspace", "{path:?}");
        }
    }
    assert_eq!(fs::read_to_string(secret).unwrap(), "secret");
}

async fn no_link_leads_outside(rung: &'static Rung) {
    let server = Server::start(rung);
    let outside = server.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&outside, Permissions::from_mode(0o777)).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    fs::set_permissions(outside.join("secret"), Permissions::from_mode(0o666)).unwrap();
    let out = outside.display();
    let command = format!(
        "ln -s {out} dir; ln -s {out}/secret file; ln -s ../../../../outside/secret up
         ln -s {out}/new new; ln -s /proc/self/root magic; ln -s loop loop
         mkdir in; echo inside > in/f; ln -s in/f good; ln -s ../in/f in/good"
    );
    assert!(server.bash(0, &command).await.success);
    for path in ["dir/secret", "dir/new", "file", "up", "new", "magic/etc/passwd", "loop"] {
        for result in [server.read(0, path).await, server.write(0, path, "x").await] {
            assert_eq!(result.error, "Access denied: path outside workspace", "{path}: {result:?}");
        }
    }
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "secret");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    for path in ["good", "in/good"] {
        assert_eq!(server.read(0, path).await.output, "inside\n");
    }
}

async fn what_is_no_file_is_refused_at_once(rung: &'static Rung) {
    let server = Server::start(rung);
    server.output(0, "mkdir dir; mkfifo fifo").await;
    for path in ["dir", "fifo", ".", "/workspace", "dir/"] {
        let expected = format!("Not a file: {path}");
        assert_eq!(server.read(0, path).await.error, expected);
        assert_eq!(server.write(0, path, "x").await.error, expected);
    }
    assert_eq!(server.read(0, "none").await.error, "File not found: none");
    assert!(!server.read(0, "").await.success);
    assert!(!server.write(0, "", "x").await.success);
    server.output(0, "touch f").await;
    assert!(!server.write(0, "f/g", "x").await.success);
    assert!(!server.write(0, "new/", "x").await.success);
}

async fn a_file_is_read_up_to_the_limit(rung: &'static Rung) {
    let server = Server::start(rung);
    let content = "é".repeat(50_000);
    assert!(server.write(0, "f", &content).await.success);
    assert_eq!(server.read(0, "f").await.output, content);
    server.output(0, "printf x >> f; truncate -s 1G sparse").await;
    assert_eq!(server.read(0, "f").await.error, "File too large: 100001 bytes (max 100000)");
    let sparse = server.read(0, "sparse").await.error;
    assert_eq!(sparse, "File too large: 1073741824 bytes (max 100000)");
    server.output(0, r"printf 'a\377b' > bytes").await;
    assert_eq!(server.read(0, "bytes").await.output, "a\u{fffd}b");
}

async fn odd_names_are_names(rung: &'static Rung) {
    let server = Server::start(rung);
    let longest = "x".repeat(255);
    let names =
        ["ünï/日本語/🦀.txt", "a b", "-rf", "new\nline", "$(touch no)", "...", "~", &longest];
    for name in names {
        let written = server.write(0, name, name).await;
        assert!(written.success, "{name:?}: {written:?}");
        assert_eq!(server.read(0, name).await.output, name);
    }
    assert_eq!(
        server.output(0, "cat ünï/日本語/🦀.txt; ls | grep -c no$ || true").await,
        "ünï/日本語/🦀.txt0"
    );
    for name in ["x".repeat(256), "x/".repeat(3_000)] {
        let result = server.write(0, &name, "x").await;
        assert!(!result.success && result.error.len() < 1_000, "{result:?}");
    }
}

async fn the_slots_permissions_are_those_of_the_tools(rung: &'static Rung) {
    let server = Server::start(rung);
    server.output(0, "echo x > shut; mkdir locked; echo y > locked/f; chmod 000 shut locked").await;
    let as_root = rung.is_none() && rustix::process::geteuid().is_root();
    for result in [
        server.read(0, "shut").await,
        server.write(0, "shut", "z").await,
        server.write(0, "locked/new", "z").await,
    ] {
        assert_eq!(result.success, as_root, "{result:?}");
        assert!(as_root || result.error.starts_with("Permission denied: "), "{result:?}");
    }
    // Its own readable file in a directory that it has locked: given or not, but nothing else.
    let locked = server.read(0, "locked/f").await;
    assert!(locked.output == "y\n" || locked.error == "Permission denied: locked/f", "{locked:?}");
    // What is not its own is not read by the server's powers.
    if rung.user == User::Root {
        let foreign = server.workspace(0).join("foreign");
        fs::write(&foreign, "foreign").unwrap();
        fs::set_permissions(&foreign, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(server.read(0, "foreign").await.error, "Permission denied: foreign");
        assert_eq!(server.write(0, "foreign", "x").await.error, "Permission denied: foreign");
    }
}

/// Two names are exchanged without pause: a directory with a link to one outside, and a file with
/// a link to one outside. Outside everybody may write, so that only the path protects it.
async fn a_link_that_changes_while_it_is_followed_never_leads_outside(rung: &'static Rung) {
    let server = Server::with(rung, Setup { probe: true, ..Setup::default() });
    let outside = server.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&outside, Permissions::from_mode(0o777)).unwrap();
    fs::write(outside.join("f"), "outside").unwrap();
    fs::set_permissions(outside.join("f"), Permissions::from_mode(0o666)).unwrap();
    let out = outside.display();
    let flip = server.probe_command("flip", "dir other-dir file other-file");
    let command = format!(
        "mkdir dir; echo inside > dir/f; echo inside > file
         ln -s {out} other-dir; ln -s {out}/f other-file
         {flip} > flip.log 2>&1 &"
    );
    assert!(server.bash(0, &command).await.success);
    until_within(LIMIT, "the names are exchanged", async || {
        server.read(0, "flipping").await.success
    })
    .await;
    let (mut inside, mut denied) = (0, 0);
    for _ in 0..20 {
        let calls = (0..25).flat_map(|_| {
            [
                read_file(0, "dir/f"),
                read_file(0, "file"),
                write_file(0, "dir/new", "x"),
                write_file(0, "file", "inside\n"),
            ]
        });
        for result in server.batch(calls.collect()).await {
            assert!(!result.output.contains("outside"), "{result:?}");
            match &*result.error {
                "" => inside += 1,
                "Access denied: path outside workspace" => denied += 1,
                // The kernel gave up on a tree that never stood still.
                other => {
                    assert!(other.contains("try again") || other.contains("not found"), "{other}");
                }
            }
        }
    }
    assert_eq!(fs::read_to_string(outside.join("f")).unwrap(), "outside");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "a file was made outside");
    assert!(inside > 0 && denied > 0, "the race was not run: {inside} inside, {denied} denied");
}
