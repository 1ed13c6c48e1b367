//! The Link as a connection: who may have it, how it ends, what outlives it.

use crate::{
    dial::Link,
    host::{mark, marked, until},
    rung::ANY,
    server::{LIMIT, Server, Setup},
};
use slotmux_protocol::{
    CausedBy, Code, Ended, Epoch, LINK_VERSION, SlotIndex,
    link::{CallId, FromContainer, ToContainer},
};
use std::fs;

#[tokio::test]
async fn garbage_closes_the_link_and_harms_nobody() {
    let server = Server::start(&ANY);
    let mut good = Link::leased(&server, 1).await;
    let good_result = async |good: &mut Link, server: &Server| {
        assert!(good.run(0, 1, "true").await.success);
        assert_eq!(server.get("/health").await["status"], "ok");
    };
    let garbage: [&[u8]; 6] = [
        b"\0\0\0\x05hello",
        b"\xff\xff\xff\xff",
        b"\x01\x00\x00\x01x",
        b"\0\0\0\0",
        b"\0\0\0\x02\xc1\xc1",
        b"\0\0\0\x04\xdf\xff\xff\xff",
    ];
    for bytes in garbage {
        // Before the hello and after it.
        let mut link = Link::dial(&server).await;
        link.send_bytes(bytes).await;
        assert_eq!(link.try_next().await, None, "{bytes:?}");
        let mut link = Link::dial(&server).await;
        link.hello(1).await;
        link.send_bytes(bytes).await;
        assert_eq!(link.try_next().await, None, "{bytes:?}");
        good_result(&mut good, &server).await;
    }
    // Half a frame is waited for, and does not hold the memory it announces.
    let mut half = Link::dial(&server).await;
    half.hello(1).await;
    half.send_bytes(b"\x00\xff\xff\xffxx").await;
    good_result(&mut good, &server).await;
    // Text is nobody's.
    let mut text = Link::dial(&server).await;
    text.send_text("hello").await;
    text.hello(1).await;
    good_result(&mut good, &server).await;
}

#[tokio::test]
async fn another_version_is_told_so() {
    let server = Server::start(&ANY);
    let mut link = Link::dial(&server).await;
    link.send(ToContainer::Hello {
        version: LINK_VERSION + 1,
        pool: "p".into(),
        generation: 1,
        heartbeat_ms: 1_000,
    })
    .await;
    assert_eq!(link.try_next().await, None);
    assert!(link.closed_because.as_deref().unwrap_or_default().contains("version"));
}

#[tokio::test]
async fn a_newer_pool_takes_over_and_an_older_one_is_turned_away() {
    let args = ["--orphaned-after-s", "0.2"];
    let mut server = Server::with(&ANY, Setup { args: &args, ..Setup::default() });
    let mut old = Link::dial(&server).await;
    old.hello(5).await;
    old.open(0, 1).await;
    let mut new = Link::dial(&server).await;
    new.hello(6).await;
    // What the older one says from now on is not done.
    old.send(ToContainer::Reset { slot: SlotIndex(0), epoch: Epoch(1) }).await;
    assert_eq!(old.try_next().await, None);
    assert!(new.run(0, 1, "true").await.success);
    // Its going does not leave the container without a pool.
    drop(old);
    let mut late = Link::dial(&server).await;
    late.send_hello(5).await;
    assert_eq!(late.try_next().await, None);
    assert!(late.closed_because.as_deref().unwrap_or_default().contains("newer"));
    // Longer than a container would stay without one.
    assert!(new.run(0, 1, "sleep 0.5").await.success);
    drop(new);
    assert!(server.exit_within(LIMIT).unwrap().success());
}

#[tokio::test]
async fn a_silent_pool_is_hung_up_on_and_its_calls_go_on() {
    let server = Server::start(&ANY);
    let mut link = Link::dial(&server).await;
    link.send(ToContainer::Hello {
        version: LINK_VERSION,
        pool: "p".into(),
        generation: 1,
        heartbeat_ms: 30,
    })
    .await;
    assert!(matches!(link.next().await, FromContainer::Hello { .. }));
    link.open(0, 1).await;
    link.call_as("e1", 1, 0, 1, "while [ ! -e go ]; do sleep 0.01; done; echo done").await;
    assert_eq!(link.try_next().await, None);
    fs::write(server.workspace(0).join("go"), "").unwrap();
    let mut link = Link::dial(&server).await;
    link.hello(1).await;
    link.call_as("e1", 1, 0, 1, "while [ ! -e go ]; do sleep 0.01; done; echo done").await;
    assert_eq!(link.done().await.1.output, "done\n");
}

#[tokio::test]
async fn without_the_token_there_is_no_link() {
    let env = [("SLOTMUX_CONTAINER_TOKEN", "right")];
    let mut server = Server::with(&ANY, Setup { env: &env, ..Setup::default() });
    for (token, status) in [(None, "401"), (Some("wrong"), "403")] {
        server.token = token.map(str::to_owned);
        let refused = Link::try_dial(&server).await.err().unwrap();
        assert!(refused.contains(status), "{refused}");
    }
    server.token = Some("right".to_owned());
    let mut link = Link::dial(&server).await;
    assert!(matches!(link.hello(1).await, FromContainer::Hello { .. }));
}

#[tokio::test]
async fn a_shutdown_lets_calls_finish_within_its_grace() {
    let mut server = Server::with(&ANY, Setup { args: &["--grace-s", "0"], ..Setup::default() });
    let processes = server.processes();
    let mut link = Link::leased(&server, 2).await;
    link.call(1, 0, 1, "touch running; while [ ! -e go ]; do sleep 0.01; done; echo done").await;
    until("it runs", || server.workspace(0).join("running").exists()).await;
    link.send(ToContainer::Shutdown { grace_ms: 10_000 }).await;
    link.refused(1, 1, Code::ShuttingDown).await;
    fs::write(server.workspace(0).join("go"), "").unwrap();
    let (call, result) = link.done().await;
    assert_eq!((call, &*result.output), (CallId(1), "done\n"));
    assert!(server.exit_within(LIMIT).unwrap().success());
    server.assert_nothing_left(&processes);
}

#[tokio::test]
async fn a_shutdown_cancels_what_outlasts_its_grace_and_says_so() {
    let mut server = Server::with(&ANY, Setup { args: &["--grace-s", "100"], ..Setup::default() });
    let processes = server.processes();
    let mut link = Link::leased(&server, 1).await;
    let mark = mark();
    link.call(1, 0, 1, &format!("sleep 3000.{mark}; :")).await;
    until("it runs", || !marked(&mark).is_empty()).await;
    link.send(ToContainer::Shutdown { grace_ms: 50 }).await;
    let (_, result) = link.done().await;
    assert_eq!((result.ended, result.caused_by), (Ended::Cancelled, CausedBy::Infra));
    assert!(server.exit_within(LIMIT).unwrap().success());
    server.assert_nothing_left(&processes);
}
