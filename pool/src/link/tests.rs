use super::{
    peer::{LONG, Peer, Server, bash, container, done, info, settled},
    *,
};
use slotmux_protocol::{
    CausedBy, Ended, LINK_VERSION, LeaseId,
    link::{FromContainer, OutputStream},
};
use tokio::{sync::mpsc::UnboundedReceiver, task::JoinHandle, time::timeout};

/// So long that no test sees more than the first ping.
const NO_HEARTBEAT: Duration = Duration::from_hours(1);

type Outcome = Result<ToolResult, Problem>;

fn start(link: &Link, call: LinkCall) -> JoinHandle<Outcome> {
    let link = link.clone();
    tokio::spawn(async move { link.call(call).await })
}

async fn ended(call: JoinHandle<Outcome>) -> Outcome {
    timeout(LONG, call).await.unwrap().unwrap()
}

async fn told(news: &mut UnboundedReceiver<LinkNews>) -> LinkNews {
    timeout(LONG, news.recv()).await.unwrap().unwrap()
}

async fn told_down(news: &mut UnboundedReceiver<LinkNews>) -> String {
    loop {
        if let LinkNews::Down { why } = told(news).await {
            return why;
        }
    }
}

async fn linked(server: &Server) -> (Link, UnboundedReceiver<LinkNews>, Peer) {
    let (link, mut news) = server.link(NO_HEARTBEAT);
    let mut peer = server.accept().await;
    peer.hello("boot-1").await;
    assert_eq!(told(&mut news).await, LinkNews::Up { server: info("boot-1"), slots: Vec::new() });
    (link, news, peer)
}

#[tokio::test]
async fn results_come_in_any_order_and_several_in_a_message() {
    let server = Server::start().await;
    let (link, mut news, mut peer) = linked(&server).await;
    let calls: Vec<_> =
        (0..3).map(|slot| start(&link, bash(slot, &format!("x{slot}"), "true"))).collect();
    let mut seen = [peer.next_call().await, peer.next_call().await, peer.next_call().await];
    seen.sort_by_key(|call| call.slot);
    let late = settled(seen[0].call, Ok(done(&seen[0], "late")));
    peer.send(&[
        settled(seen[2].call, Ok(done(&seen[2], "2"))),
        FromContainer::Clean { slot: SlotIndex(9), epoch: Epoch(1) },
        settled(seen[1].call, Ok(done(&seen[1], "1"))),
    ])
    .await;
    let mut calls = calls.into_iter();
    let first = calls.next().unwrap();
    for output in ["1", "2"] {
        assert_eq!(ended(calls.next().unwrap()).await.unwrap().output, output);
    }
    assert!(!first.is_finished());
    assert_eq!(told(&mut news).await, LinkNews::Clean { slot: SlotIndex(9), epoch: Epoch(1) });
    peer.send(&[late]).await;
    assert_eq!(ended(first).await.unwrap().output, "late");
    assert_eq!(link.calls(), 0);
}

#[tokio::test]
async fn a_call_is_repeated_to_the_process_that_may_know_it() {
    let server = Server::start().await;
    let (link, mut news, mut peer) = linked(&server).await;
    let call = start(&link, bash(0, "x", "make"));
    let first = peer.next_call().await;
    drop(peer);
    told_down(&mut news).await;
    let mut peer = server.accept().await;
    peer.hello("boot-1").await;
    let again = peer.next_call().await;
    assert_eq!(again, first);
    peer.send(&[settled(again.call, Ok(done(&again, "made once")))]).await;
    assert_eq!(ended(call).await.unwrap().output, "made once");
}

#[tokio::test]
async fn a_restarted_server_is_not_asked_and_the_call_is_lost_by_infra() {
    let server = Server::start().await;
    let (link, mut news, mut peer) = linked(&server).await;
    let call = start(&link, bash(0, "x", "make"));
    peer.next_call().await;
    drop(peer);
    told_down(&mut news).await;
    let mut peer = server.accept().await;
    peer.hello("boot-2").await;
    let lost = ended(call).await.unwrap();
    assert_eq!((lost.ended, lost.caused_by, lost.success), (Ended::Lost, CausedBy::Infra, false));
    assert!(lost.error.contains("restarted"), "{}", lost.error);
    // The next thing that it hears is a new call.
    let next = start(&link, bash(0, "y", "make"));
    assert_eq!(peer.next_call().await.execution_id.as_str(), "y");
    next.abort();
}

#[tokio::test]
async fn a_call_waits_for_the_first_connection() {
    let server = Server::start().await;
    let (link, _news) = server.link(NO_HEARTBEAT);
    let call = start(&link, bash(0, "x", "true"));
    let mut peer = server.accept().await;
    peer.hello("boot-1").await;
    let seen = peer.next_call().await;
    peer.send(&[settled(seen.call, Ok(done(&seen, "")))]).await;
    assert!(ended(call).await.unwrap().success);
}

#[tokio::test]
async fn a_call_that_never_got_through_is_refused_and_not_lost() {
    let server = Server::start().await;
    let limits = LinkLimits { unsent_max: Duration::from_millis(1), ..LinkLimits::default() };
    let (link, _news) = server.link_within(limits, NO_HEARTBEAT);
    let refused = ended(start(&link, bash(0, "x", "true"))).await.unwrap_err();
    assert_eq!(refused.code, Code::ContainerUnreachable);
    assert_eq!(link.calls(), 0);
}

#[tokio::test]
async fn a_silent_server_is_down_within_three_heartbeats_and_dialled_again() {
    let server = Server::start().await;
    let (_link, mut news) = server.link(Duration::from_millis(20));
    let mut deaf = server.accept().await;
    deaf.hello("boot-1").await;
    let why = told_down(&mut news).await;
    assert!(why.contains("said nothing for 60 ms"), "{why}");
    server.accept().await.hello("boot-1").await;
    assert!(matches!(told(&mut news).await, LinkNews::Up { .. }));
}

#[tokio::test]
async fn a_server_that_answers_pings_stays_up() {
    let server = Server::start().await;
    let (_link, mut news) = server.link(Duration::from_millis(20));
    let mut peer = server.accept().await;
    peer.hello("boot-1").await;
    for expected in 0..12 {
        let Some(ToContainer::Ping { seq }) = peer.next().await else { panic!("hung up") };
        assert_eq!(seq, expected);
        peer.send(&[FromContainer::Pong { seq }]).await;
    }
    assert!(matches!(told(&mut news).await, LinkNews::Up { .. }));
    assert!(news.is_empty());
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_cancelled_or_runs_on() {
    let server = Server::start().await;
    let (link, _news, mut peer) = linked(&server).await;
    for (id, abandoned) in [("on", Abandoned::RunOn), ("off", Abandoned::Cancel)] {
        let call = start(&link, LinkCall { abandoned, ..bash(0, id, "sleep 9") });
        let seen = peer.next_call().await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        if abandoned == Abandoned::Cancel {
            let told = peer.next_but_ping().await;
            assert_eq!(told, Some(ToContainer::Cancel { call: seen.call }));
        }
        assert_eq!(link.calls(), 1, "it still takes up room");
        peer.send(&[settled(seen.call, Ok(done(&seen, "")))]).await;
        let next = start(&link, bash(0, "next", "true"));
        // No cancel before it for the call that runs on.
        let seen = peer.next_call().await;
        peer.send(&[settled(seen.call, Ok(done(&seen, "")))]).await;
        ended(next).await.unwrap();
        assert_eq!(link.calls(), 0);
    }
}

#[tokio::test]
async fn a_refusal_passes_through() {
    let server = Server::start().await;
    let (link, _news, mut peer) = linked(&server).await;
    let call = start(&link, bash(0, "x", "true"));
    let seen = peer.next_call().await;
    let problem = Problem::new(Code::StaleEpoch, "slot_0 is open for 8").at("epoch");
    peer.send(&[settled(seen.call, Err(problem.clone()))]).await;
    assert_eq!(ended(call).await, Err(problem));
}

#[tokio::test]
async fn a_frame_over_the_limit_costs_the_connection_only() {
    let server = Server::start().await;
    let limits = LinkLimits { frame_bytes_max: 4_096, ..LinkLimits::default() };
    let (link, mut news) = server.link_within(limits, NO_HEARTBEAT);
    let mut peer = server.accept().await;
    peer.hello("boot-1").await;
    let call = start(&link, bash(0, "x", "true"));
    let seen = peer.next_call().await;
    peer.send(&[settled(seen.call, Ok(done(&seen, &"y".repeat(5_000))))]).await;
    let why = told_down(&mut news).await;
    assert!(why.contains("over the limit of 4096"), "{why}");
    let mut peer = server.accept().await;
    peer.hello("boot-1").await;
    let seen = peer.next_call().await;
    peer.send(&[settled(seen.call, Ok(done(&seen, "short")))]).await;
    assert_eq!(ended(call).await.unwrap().output, "short");
    let refused = ended(start(&link, bash(0, "x", &"y".repeat(5_000)))).await.unwrap_err();
    assert_eq!(refused.code, Code::TooLarge);
}

#[tokio::test]
async fn rubbish_costs_the_connection_only() {
    let server = Server::start().await;
    let (_link, mut news) = server.link(NO_HEARTBEAT);
    let rubbish: [&[u8]; 4] = [b"", b"\xff\xff\xff\xff", b"\0\0\0\x02\xc1\xc1", b"\0\0\0\x09half"];
    for (round, bytes) in rubbish.into_iter().enumerate() {
        let mut peer = server.accept().await;
        if round % 2 == 1 {
            peer.hello("boot-1").await;
        }
        peer.send_bytes(bytes.into()).await;
        told_down(&mut news).await;
    }
    server.accept().await.hello("boot-1").await;
    assert!(matches!(told(&mut news).await, LinkNews::Up { .. }));
}

#[tokio::test]
async fn another_version_or_container_is_not_linked() {
    let server = Server::start().await;
    let (_link, mut news) = server.link(NO_HEARTBEAT);
    server.accept().await.hello_with(LINK_VERSION + 1, info("boot-1"), Vec::new()).await;
    let why = told(&mut news).await;
    let text = format!("link version {}, this pool speaks {LINK_VERSION}", LINK_VERSION + 1);
    assert!(matches!(&why, LinkNews::Down { why } if why.contains(&text)), "{why:?}");
    let other = ServerInfo { container: ContainerId::new("c-2").unwrap(), ..info("boot-1") };
    server.accept().await.hello_with(LINK_VERSION, other, Vec::new()).await;
    let why = told(&mut news).await;
    assert!(matches!(&why, LinkNews::Down { why } if why.contains("`c-2`")), "{why:?}");
}

#[tokio::test]
async fn the_reason_of_a_close_is_told() {
    let server = Server::start().await;
    let (_link, mut news) = server.link(NO_HEARTBEAT);
    let taken_over = "a newer pool process has taken this container over";
    server.accept().await.close(taken_over).await;
    let mut peer = server.accept().await;
    peer.hello("boot-1").await;
    peer.close(taken_over).await;
    for _ in 0..2 {
        let why = told_down(&mut news).await;
        assert!(why.contains(taken_over), "{why}");
    }
}

#[tokio::test]
async fn nobody_there_is_told_once_and_not_at_each_attempt() {
    let server = Server::start().await;
    let address = server.address();
    drop(server);
    let (sender, mut news) = tokio::sync::mpsc::unbounded_channel();
    let identity = LinkIdentity { pool: "p".into(), generation: 1 };
    let tell: Tell = Arc::new(move |news| drop(sender.send(news)));
    let limits = LinkLimits { unsent_max: Duration::from_millis(300), ..LinkLimits::default() };
    let link = Link::dial_within(limits, container(), address, identity, NO_HEARTBEAT, tell);
    // Meanwhile it dials several times.
    ended(start(&link, bash(0, "x", "true"))).await.unwrap_err();
    let why = told(&mut news).await;
    assert!(matches!(&why, LinkNews::Down { why } if why.contains("connect to 127.0.0.1")));
    assert!(news.is_empty());
}

#[tokio::test]
async fn what_was_queued_is_written_before_a_link_closes() {
    let server = Server::start().await;
    let (link, mut news, mut peer) = linked(&server).await;
    let call = start(&link, bash(0, "x", "true"));
    peer.next_call().await;
    link.reset(SlotIndex(1), Epoch(2));
    link.shutdown(Duration::from_secs(3));
    link.close("its container is stopped");
    let lost = ended(call).await.unwrap();
    assert_eq!((lost.ended, lost.caused_by), (Ended::Lost, CausedBy::Infra));
    let reset = ToContainer::Reset { slot: SlotIndex(1), epoch: Epoch(2) };
    assert_eq!(peer.next_but_ping().await, Some(reset));
    assert_eq!(peer.next_but_ping().await, Some(ToContainer::Shutdown { grace_ms: 3_000 }));
    assert_eq!(peer.next_but_ping().await, None);
    let refused = ended(start(&link, bash(0, "y", "true"))).await.unwrap_err();
    assert_eq!(refused.code, Code::ContainerUnreachable);
    assert!(refused.detail.contains("its container is stopped"));
    // Closed on purpose: no news.
    assert_eq!(timeout(LONG, news.recv()).await.unwrap(), None);
}

#[tokio::test]
async fn the_last_handle_closes_the_link() {
    let server = Server::start().await;
    let (link, _news, mut peer) = linked(&server).await;
    drop(link.clone());
    link.open(
        SlotIndex(0),
        Holder {
            lease: LeaseId(Epoch(1)),
            trajectory: slotmux_protocol::TrajectoryId::new("t").unwrap(),
            profile: slotmux_protocol::ProfileName::new("p").unwrap(),
            ttl_ms: 1,
        },
    );
    drop(link);
    assert!(matches!(peer.next_but_ping().await, Some(ToContainer::Open { .. })));
    assert_eq!(peer.next_but_ping().await, None);
}

#[tokio::test]
async fn many_calls_at_once_are_all_answered() {
    let server = Server::start().await;
    let (link, _news) = server.link(NO_HEARTBEAT);
    server.answering("boot-1", |call| Some(Ok(done(call, call.execution_id.as_str()))));
    let calls: Vec<_> =
        (0..2_000u16).map(|n| (n, start(&link, bash(n % 16, &n.to_string(), "true")))).collect();
    for (n, call) in calls {
        assert_eq!(ended(call).await.unwrap().output, n.to_string());
    }
    assert_eq!(link.calls(), 0);
}

#[tokio::test]
async fn output_comes_before_its_result_and_is_cut_when_the_link_breaks() {
    let server = Server::start().await;
    let (link, mut news, mut peer) = linked(&server).await;
    let (sender, mut reader) = output();
    let call = start(&link, LinkCall { output: Some(sender), ..bash(0, "x", "make") });
    let seen = peer.next_call().await;
    assert!(seen.stream);
    let piece = |text: &'static str| FromContainer::Output {
        call: seen.call,
        stream: OutputStream::Stdout,
        bytes: Bytes::from_static(text.as_bytes()),
    };
    let told_piece = |text: &'static str| Output::Chunk {
        stream: OutputStream::Stdout,
        bytes: Bytes::from_static(text.as_bytes()),
    };
    peer.send(&[piece("one"), piece("two")]).await;
    for text in ["one", "two"] {
        assert_eq!(timeout(LONG, reader.next()).await.unwrap(), Some(told_piece(text)));
    }
    drop(peer);
    told_down(&mut news).await;
    assert_eq!(timeout(LONG, reader.next()).await.unwrap(), Some(Output::Cut));
    assert_eq!(timeout(LONG, reader.next()).await.unwrap(), None);
    let mut peer = server.accept().await;
    peer.hello("boot-1").await;
    let again = peer.next_call().await;
    peer.send(&[piece("three"), settled(again.call, Ok(done(&again, "whole")))]).await;
    assert_eq!(ended(call).await.unwrap().output, "whole");
}
