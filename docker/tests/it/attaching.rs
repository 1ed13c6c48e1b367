//! Streams of a container: at the reader's pace, from the start, to the end.

use crate::{
    house::{House, docker},
    low_level::{body, read},
};
use futures_util::StreamExt;
use slotmux_backend::conformance::LIMIT;
use slotmux_docker::{Attached, Engine, Piece};
use std::{io::Read, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    time::{sleep, timeout},
};

const LOOKS_APART: Duration = Duration::from_millis(100);

/// What an engine and the kernel may hold of a stream between them.
const UNDERWAY_BYTES_MAX: usize = 8 << 20;
const LINE_BYTES: usize = 1_000;

/// How many lines were printed, as the container itself has it.
async fn printed(engine: &Engine, id: &str) -> usize {
    loop {
        let mut archive = engine.get(id, "/printed").await.unwrap();
        let mut bytes = Vec::new();
        while let Some(piece) = archive.next().await {
            bytes.extend(piece.unwrap());
        }
        let mut text = String::new();
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        entry.read_to_string(&mut text).unwrap();
        // It may be looked at while it is written anew.
        if let Ok(count) = text.trim().parse() {
            return count;
        }
        sleep(LOOKS_APART).await;
    }
}

async fn read_bytes(attached: &mut Attached, bytes_min: usize) -> usize {
    let mut count = 0;
    while count < bytes_min {
        let piece = timeout(LIMIT, attached.output.next()).await.expect("output in time");
        match piece.expect("no end").unwrap() {
            Piece::Stdout(bytes) => count += bytes.len(),
            Piece::Stderr(bytes) => panic!("{bytes:?}"),
        }
    }
    count
}

#[tokio::test]
async fn a_container_that_prints_for_ever_waits_for_a_slow_reader() {
    let Some(house) = House::open("back-pressure") else { return };
    let engine = house.engine();
    let line = "x".repeat(LINE_BYTES - 1);
    let script = format!(
        "echo 0 > /printed; i=0; while :; do echo {line}; i=$((i+1)); echo $i > /printed; done"
    );
    let mut body = body(&house, &["/bin/sh", "-c", &script]);
    // The engine's own log is written at the engine's pace.
    body.host_config.get_or_insert_default().log_config =
        Some(bollard::models::HostConfigLogConfig { typ: Some("none".to_owned()), config: None });
    let id = engine.create(&house.settings.owner, body).await.unwrap();
    let mut attached = engine.attach(&id).await.unwrap();
    engine.start(&id).await.unwrap();
    let mut count = read_bytes(&mut attached, 1 << 20).await;

    // Nobody reads until it stands still.
    let stopped = async {
        let mut before = printed(&engine, &id).await;
        loop {
            sleep(LOOKS_APART).await;
            let now = printed(&engine, &id).await;
            if now == before {
                return now;
            }
            before = now;
            let underway = (now * LINE_BYTES).saturating_sub(count);
            assert!(underway < UNDERWAY_BYTES_MAX, "{underway} bytes, and no end of them");
        }
    };
    let stopped = timeout(LIMIT, stopped).await.expect("it waits");
    assert!(stopped * LINE_BYTES >= count, "{stopped} lines, {count} bytes");

    count += read_bytes(&mut attached, 2 * UNDERWAY_BYTES_MAX).await;
    assert!(count > stopped * LINE_BYTES, "it went on: {count} bytes, {stopped} lines");
    drop(attached);
    engine.remove(&id).await.unwrap();
}

#[tokio::test]
async fn one_side_of_an_attached_container_ends_without_the_other() {
    let Some(house) = House::open("half-close") else { return };
    let engine = house.engine();
    let script = "while read -r line; do echo got $line; done; echo end; echo late >&2";
    let body = body(&house, &["/bin/sh", "-c", script]);
    let id = engine.create(&house.settings.owner, body).await.unwrap();
    let mut attached = engine.attach(&id).await.unwrap();
    engine.start(&id).await.unwrap();
    attached.input.write_all(b"one\n").await.unwrap();
    let first = timeout(LIMIT, attached.output.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(first, Piece::Stdout("got one\n".into()));
    attached.input.shutdown().await.unwrap();
    let (stdout, stderr) = timeout(LIMIT, read(&mut attached)).await.unwrap();
    assert_eq!((&stdout[..], &stderr[..]), (&b"end\n"[..], &b"late\n"[..]));
    engine.remove(&id).await.unwrap();
}

#[tokio::test]
async fn a_container_that_has_ended_has_nothing_more_to_say() {
    let Some(house) = House::open("attach after the end") else { return };
    let engine = house.engine();
    let body = body(&house, &["/bin/sh", "-c", "echo said"]);
    let id = engine.create(&house.settings.owner, body).await.unwrap();
    engine.start(&id).await.unwrap();
    docker(&["wait", &id]).unwrap();
    let attached = timeout(LIMIT, engine.attach(&id)).await.expect("an answer in time");
    let mut attached = attached.unwrap();
    let (stdout, stderr) = timeout(LIMIT, read(&mut attached)).await.expect("an end in time");
    assert_eq!((&stdout[..], &stderr[..]), (&b""[..], &b""[..]));
    assert_eq!(engine.log_end(&id, 100).await.unwrap(), "said\n");
    engine.remove(&id).await.unwrap();
    let missing = engine.attach(&id).await.unwrap_err();
    assert!(missing.is_not_found(), "{missing:?}");
}
