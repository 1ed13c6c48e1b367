//! Whole trees in and out of a slot, by a client that has the system's own `tar`.

use crate::{
    rung::{Rung, scenarios},
    server::{Server, Setup},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

scenarios! {
    everywhere: [
        a_tree_goes_in_and_comes_out_as_it_was,
        what_leads_outside_is_refused_and_harms_nothing,
        a_broken_stream_is_said_to_be_one,
        a_tree_that_is_not_there_is_a_problem_and_no_empty_archive,
        an_upload_takes_its_turn_after_the_call_that_runs,
        an_upload_takes_no_more_of_the_disk_than_the_slot_may,
    ]
}

impl Server {
    async fn upload(&self, slot: u16, query: &str, tar: Vec<u8>) -> (StatusCode, Value) {
        let path = format!("/v1/slots/slot_{slot}/files{query}");
        self.request(Method::PUT, &path, tar).await
    }

    async fn download(&self, slot: u16, query: &str) -> reqwest::Result<Vec<u8>> {
        let url = format!("http://{}/v1/slots/slot_{slot}/files{query}", self.authority);
        let answer = self.http.get(url).send().await?.error_for_status()?;
        answer.bytes().await.map(|it| it.to_vec())
    }
}

/// As everybody has it, with `flags` first.
fn pack(dir: &Path, flags: &[&str], names: &[&str]) -> Vec<u8> {
    let output = Command::new("tar").args(flags).arg("-C").arg(dir).args(names).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn unpack(tar: &[u8], dir: &Path) {
    let file = dir.with_extension("tar");
    fs::write(&file, tar).unwrap();
    fs::create_dir_all(dir).unwrap();
    let status = Command::new("tar").arg("-xf").arg(&file).arg("-C").arg(dir).status().unwrap();
    assert!(status.success());
}

async fn a_tree_goes_in_and_comes_out_as_it_was(rung: &'static Rung) {
    let server = Server::start(rung);
    let home = tempfile::tempdir().unwrap();
    let tree = home.path().join("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    fs::write(tree.join("a/b/data"), [0, 159, 146, 150]).unwrap();
    fs::write(tree.join("a/run.sh"), "#!/bin/sh\necho ran\n").unwrap();
    fs::set_permissions(tree.join("a/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(tree.join("naïve \n name"), "x").unwrap();
    symlink("b/data", tree.join("a/link")).unwrap();
    fs::write(tree.join("big"), vec![7; 3_000_000]).unwrap();
    for (flags, dir) in [("-cf-", "plain"), ("-czf-", "gz")] {
        let tar = pack(&tree, &[flags], &["."]);
        let (status, told) = server.upload(0, &format!("?path={dir}"), tar).await;
        assert_eq!(status, StatusCode::OK, "{told}");
        assert_eq!(told["skipped"], 0, "{told}");
        let ran = format!("cd {dir}/a && ./run.sh && cmp b/data link && stat -c %a run.sh");
        assert_eq!(server.output(0, &ran).await, "ran\n755");
        let back = server.download(0, &format!("?path={dir}")).await.unwrap();
        let out = home.path().join(dir);
        unpack(&back, &out);
        let same = Command::new("diff").arg("-r").arg(&tree).arg(&out).status().unwrap();
        assert!(same.success());
        assert_eq!(fs::metadata(out.join("a/run.sh")).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_link(out.join("a/link")).unwrap(), Path::new("b/data"));
    }
    // The slot owns it.
    assert_eq!(server.output(0, "rm -r plain gz && ls -A").await, "");
}

async fn what_leads_outside_is_refused_and_harms_nothing(rung: &'static Rung) {
    let server = Server::start(rung);
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("file"), "evil").unwrap();
    for name in ["../../evil", "/tmp/evil-of-a-tar", "a/../../evil"] {
        let rename = format!("s|^file$|{name}|");
        let tar = pack(home.path(), &["-cPf-", "--transform", &rename], &["file"]);
        let (status, problem) = server.upload(0, "", tar).await;
        assert!(status.is_client_error(), "{name}: {problem}");
    }
    assert!(!Path::new("/tmp/evil-of-a-tar").exists());
    assert_eq!(server.output(0, "find . -type f").await, "");
    let (status, problem) =
        server.upload(0, "?path=../x", pack(home.path(), &["-cf-"], &["file"])).await;
    assert_eq!((status.as_u16(), &problem["code"]), (403, &json!("forbidden")), "{problem}");
}

async fn a_broken_stream_is_said_to_be_one(rung: &'static Rung) {
    let server = Server::start(rung);
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("file"), vec![b'x'; 100_000]).unwrap();
    let whole = pack(home.path(), &["-cf-"], &["file"]);
    for broken in [whole[..5_000].to_vec(), b"no tar at all, but long enough ".repeat(100)] {
        let (status, problem) = server.upload(0, "", broken).await;
        assert_eq!((status.as_u16(), &problem["code"]), (422, &json!("invalid")), "{problem}");
    }
    assert_eq!(server.output(1, "echo works").await, "works");
}

async fn a_tree_that_is_not_there_is_a_problem_and_no_empty_archive(rung: &'static Rung) {
    let server = Server::start(rung);
    for (query, status, code) in [
        ("?path=nothing", 404, "not_found"),
        ("?path=../..", 403, "forbidden"),
        ("?path=x&depth=3", 422, "invalid"),
        ("?timeout_s=0", 422, "invalid"),
    ] {
        let path = format!("/v1/slots/slot_0/files{query}");
        let (got, problem) = server.request(Method::GET, &path, "").await;
        assert_eq!((got.as_u16(), &problem["code"]), (status, &json!(code)), "{query}: {problem}");
    }
}

async fn an_upload_takes_its_turn_after_the_call_that_runs(rung: &'static Rung) {
    let server = Server::start(rung);
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("file"), "new").unwrap();
    let tar = pack(home.path(), &["-cf-"], &["file"]);
    let command = "touch begun; while [ ! -e go ]; do sleep 0.01; done; ls file 2>&1; true";
    let running = server.bash(0, command);
    let upload = async {
        crate::host::until("it runs", || server.workspace(0).join("begun").exists()).await;
        let upload = server.upload(0, "", tar);
        let go = async { fs::write(server.workspace(0).join("go"), "").unwrap() };
        let ((status, told), ()) = tokio::join!(upload, go);
        assert_eq!(status, StatusCode::OK, "{told}");
    };
    let (result, ()) = tokio::join!(running, upload);
    assert!(!result.output.starts_with("file\n"), "{result:?}");
    assert_eq!(server.output(0, "cat file").await, "new");
}

async fn an_upload_takes_no_more_of_the_disk_than_the_slot_may(rung: &'static Rung) {
    let args = ["--disk-bytes-max", "4000000", "--file-bytes-max", "0"];
    let server = Server::with(rung, Setup { args: &args, ..Setup::default() });
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("large"), vec![1; 5_000_000]).unwrap();
    fs::write(home.path().join("half"), vec![1; 2_500_000]).unwrap();
    fs::create_dir(home.path().join("many")).unwrap();
    for number in 0..1_000 {
        fs::write(home.path().join(format!("many/{number}")), "x").unwrap();
    }
    let refused = async |tar: &[u8]| {
        let (status, problem) = server.upload(0, "", tar.to_vec()).await;
        assert_eq!((status.as_u16(), &problem["code"]), (413, &json!("too_large")), "{problem}");
        assert_eq!(problem["caused_by"], "client", "{problem}");
    };
    // Compressed it is small: what counts is what becomes of it.
    refused(&pack(home.path(), &["-czf-"], &["large"])).await;
    refused(&pack(home.path(), &["-cf-"], &["many"])).await;
    // Who sends on and on is answered all the same.
    refused(&pack(home.path(), &["-cf-"], &["large", "half", "many", "large", "half"])).await;
    assert_eq!(server.output(0, "rm -rf many; ls").await, "");
    let half = pack(home.path(), &["-cf-"], &["half"]);
    let (status, told) = server.upload(0, "", half.clone()).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let (status, told) = server.upload(0, "?path=again", half.clone()).await;
    assert_eq!(status.as_u16(), 413, "{told}");
    assert_eq!(server.output(0, "rm half; ls").await, "again");
    let (status, told) = server.upload(0, "?path=again", half).await;
    assert_eq!(status, StatusCode::OK, "{told}");
}
