//! The engine's API by itself.

use crate::house::{House, SCRATCH, docker};
use bollard::models::ContainerCreateBody;
use bytes::Bytes;
use futures_util::StreamExt;
use slotmux_docker::{Attached, Piece, State};
use std::collections::HashMap;
use tokio::io::AsyncWriteExt;

/// Of one that runs `command` in busybox, and may be spoken to.
pub(crate) fn body(house: &House, command: &[&str]) -> ContainerCreateBody {
    let owner = house.settings.owner.clone();
    ContainerCreateBody {
        image: Some(SCRATCH.to_owned()),
        cmd: Some(command.iter().map(ToString::to_string).collect()),
        labels: Some(HashMap::from([("slotmux.owner".to_owned(), owner)])),
        open_stdin: Some(true),
        stdin_once: Some(true),
        ..Default::default()
    }
}

/// To the end of both streams.
pub(crate) async fn read(attached: &mut Attached) -> (Vec<u8>, Vec<u8>) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(piece) = attached.output.next().await {
        match piece.unwrap() {
            Piece::Stdout(bytes) => stdout.extend(bytes),
            Piece::Stderr(bytes) => stderr.extend(bytes),
        }
    }
    (stdout, stderr)
}

#[tokio::test]
async fn what_goes_in_comes_out_of_an_attached_container_stream_by_stream() {
    let Some(house) = House::open("attach") else { return };
    let engine = house.engine();
    let body = body(&house, &["/bin/sh", "-c", "cat; echo end >&2"]);
    let id = engine.create(&house.settings.owner, body).await.unwrap();
    let mut attached = engine.attach(&id).await.unwrap();
    engine.start(&id).await.unwrap();
    let sent: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let mut input = attached.input;
    attached.input = Box::pin(tokio::io::sink());
    let write = async {
        input.write_all(&sent).await.unwrap();
        input.shutdown().await.unwrap();
    };
    let ((), (stdout, stderr)) = tokio::join!(write, read(&mut attached));
    assert!(stdout == sent, "{} bytes of {}", stdout.len(), sent.len());
    assert_eq!(stderr, b"end\n");
    engine.remove(&id).await.unwrap();
}

#[tokio::test]
async fn the_end_of_a_log_is_what_was_printed_last() {
    let Some(house) = House::open("logs") else { return };
    let engine = house.engine();
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done";
    let id = engine.create(&house.settings.owner, body(&house, &["/bin/sh", "-c", script]));
    let id = id.await.unwrap();
    engine.start(&id).await.unwrap();
    docker(&["wait", &id]).unwrap();
    let end = engine.log_end(&id, 40).await.unwrap();
    assert!(end.len() <= 40 && end.ends_with("line 19998\nline 19999\n"), "{end}");
    assert_eq!(engine.log_end(&id, 0).await.unwrap(), "");
    let all = engine.log_end(&id, 1 << 20).await.unwrap();
    assert!(all.starts_with("line 0\n") && all.lines().count() == 20_000);
    engine.remove(&id).await.unwrap();
}

#[tokio::test]
async fn files_are_put_where_they_are_wanted_before_a_container_starts() {
    let Some(house) = House::open("copy in") else { return };
    let engine = house.engine();
    let id = engine.create(&house.settings.owner, body(&house, &["/bin/cat", "/in/file"]));
    let id = id.await.unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    archive.append_data(&mut header, "in/file", &b"text"[..]).unwrap();
    engine.put(&id, "/", [Bytes::from(archive.into_inner().unwrap())]).await.unwrap();
    engine.start(&id).await.unwrap();
    docker(&["wait", &id]).unwrap();
    assert_eq!(engine.log_end(&id, 100).await.unwrap(), "text");
    let nowhere = engine.put(&id, "/nowhere", [Bytes::new()]).await.unwrap_err();
    assert_eq!(nowhere.to_string(), "copy files into `/nowhere`");
    engine.remove(&id).await.unwrap();
}

#[tokio::test]
async fn ends_are_looked_up_with_their_code_and_removals_are_idempotent() {
    let Some(house) = House::open("look up") else { return };
    let engine = house.engine();
    let name = &house.settings.owner;
    let id = engine.create(name, body(&house, &["/bin/sh", "-c", "exit 7"])).await.unwrap();
    assert_eq!(engine.find(name).await.unwrap().unwrap().state, State::NotStarted);
    engine.start(&id).await.unwrap();
    docker(&["wait", &id]).unwrap();
    let State::Ended(ended) = engine.find(&id).await.unwrap().unwrap().state else {
        panic!("not ended")
    };
    assert_eq!((ended.code, ended.out_of_memory), (7, false));
    assert!(engine.remove(&id).await.unwrap());
    assert!(!engine.remove(&id).await.unwrap());
    assert!(engine.find(&id).await.unwrap().is_none());
    let missing = engine.start(&id).await.unwrap_err();
    assert!(missing.is_not_found(), "{missing:?}");
}
