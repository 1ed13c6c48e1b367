//! The Link: leases, fences, calls by epoch.

use crate::{
    dial::{Link, call_of, holder},
    host::{mark, marked, until, until_gone},
    rung::{ANY, Rung, scenarios},
    server::{Server, Setup},
};
use slotmux_protocol::{
    CallLimits, CausedBy, Code, Ended, Epoch, Isolation, LINK_VERSION, SlotIndex,
    link::{CallId, FromContainer, SlotState, ToContainer},
};
use std::fs;

scenarios! {
    everywhere: [
        a_lease_is_opened_used_and_reset,
        results_come_as_each_call_finishes,
        a_cancelled_call_ends_with_all_it_started,
        long_output_keeps_its_beginning_and_its_end,
        a_reset_cancels_what_runs_and_what_waits,
        a_reset_sent_twice_is_done_for_both_and_does_not_touch_the_next_lease,
    ]
}

const SLOT: SlotIndex = SlotIndex(0);

async fn a_lease_is_opened_used_and_reset(rung: &'static Rung) {
    let server = Server::start(rung);
    let mut link = Link::dial(&server).await;
    let FromContainer::Hello { version, server: info, slots } = link.hello(1).await else {
        panic!("no hello")
    };
    assert_eq!((version, info.container.as_str()), (LINK_VERSION, &*server.container));
    assert_eq!(rung.isolation.unwrap().parse(), Ok(info.isolation));
    let states: Vec<_> = slots.into_iter().map(|it| it.state).collect();
    assert_eq!(
        states,
        [SlotState::Clean { fence: Epoch(0) }, SlotState::Clean { fence: Epoch(0) }]
    );

    link.open(0, 7).await;
    let done = link.run(0, 7, "echo lease > file; cat file; echo error >&2; exit 3").await;
    assert_eq!(done.output, "lease\n\n[stderr]\nerror\n");
    assert_eq!((done.ended, done.caused_by), (Ended::Exited, CausedBy::Policy));
    assert_eq!((done.exit_code, done.success), (Some(3), false));
    assert_eq!(done.isolation, info.isolation);
    assert!(done.usage.wall_us > 0 && done.usage.stdout_bytes == 6);
    link.reset_to_clean(0, 7).await;
    link.open(0, 8).await;
    assert_eq!(link.run(0, 8, "ls -A").await.output, "");
}

async fn results_come_as_each_call_finishes(rung: &'static Rung) {
    let server = Server::start(rung);
    let mut link = Link::leased(&server, 2).await;
    link.call(1, 0, 1, "while [ ! -e go ]; do sleep 0.01; done; echo slow").await;
    link.call(2, 0, 1, "echo after").await;
    link.call(3, 1, 1, "echo fast").await;
    let (call, result) = link.done().await;
    assert_eq!((call, &*result.output), (CallId(3), "fast\n"));
    fs::write(server.workspace(0).join("go"), "").unwrap();
    assert_eq!(link.done_of(1).await.output, "slow\n");
    assert_eq!(link.done_of(2).await.output, "after\n");
}

async fn a_cancelled_call_ends_with_all_it_started(rung: &'static Rung) {
    let server = Server::start(rung);
    let mut link = Link::leased(&server, 1).await;
    let mark = mark();
    let command = format!(
        "trap '' TERM; (setsid sleep 3000.{mark} &); echo partial; > begun; sleep 3000.{mark}; :"
    );
    link.call(1, 0, 1, &command).await;
    link.call(2, 0, 1, "echo next").await;
    let begun = server.workspace(0).join("begun");
    until("it runs", || begun.exists() && marked(&mark).len() == 3).await;
    link.send(ToContainer::Cancel { call: CallId(99) }).await;
    link.send(ToContainer::Cancel { call: CallId(1) }).await;
    let result = link.done_of(1).await;
    assert_eq!((result.ended, result.caused_by), (Ended::Cancelled, CausedBy::Client));
    assert_eq!(result.output, "partial\n");
    assert_eq!(marked(&mark), [0; 0]);
    assert_eq!(link.done_of(2).await.output, "next\n");
    // One that waits never begins.
    link.call(3, 0, 1, "while [ ! -e go ]; do sleep 0.01; done").await;
    link.call(4, 0, 1, "touch ran").await;
    link.send(ToContainer::Cancel { call: CallId(4) }).await;
    let (call, result) = link.done().await;
    assert_eq!((call, result.ended), (CallId(4), Ended::Cancelled));
    fs::write(server.workspace(0).join("go"), "").unwrap();
    assert_eq!(link.done().await.0, CallId(3));
    assert!(!server.workspace(0).join("ran").exists());
}

async fn long_output_keeps_its_beginning_and_its_end(rung: &'static Rung) {
    let server = Server::start(rung);
    let mut link = Link::leased(&server, 1).await;
    let result =
        link.run(0, 1, "echo BEGIN; head -c 100000000 /dev/zero | tr '\\0' x; echo END").await;
    assert!(result.output.starts_with("BEGIN\nxxx") && result.output.ends_with("xxxEND\n"));
    assert!(result.output.contains("bytes cut"), "{}", &result.output[24_990..25_050]);
    assert_eq!(result.usage.stdout_bytes, 100_000_010);
    assert_eq!(result.usage.cut_bytes, 100_000_010 - 50_000);
    let limits = CallLimits { output_bytes_max: 1_000_000, ..CallLimits::default() };
    link.call_within(9, 0, 1, "yes", limits).await;
    let (_, result) = link.done().await;
    assert_eq!((result.ended, result.caused_by), (Ended::OutputLimit, CausedBy::Policy));
    let limits = CallLimits { timeout_ms: 200, ..CallLimits::default() };
    link.call_within(10, 0, 1, "yes", limits).await;
    let (_, result) = link.done().await;
    assert_eq!((result.ended, result.caused_by), (Ended::Timeout, CausedBy::Policy));
}

async fn a_reset_cancels_what_runs_and_what_waits(rung: &'static Rung) {
    let server = Server::start(rung);
    let mut link = Link::leased(&server, 1).await;
    let mark = mark();
    link.call(1, 0, 1, &format!("sleep 3000.{mark}; :")).await;
    link.call(2, 0, 1, "touch late").await;
    until("it runs", || !marked(&mark).is_empty()).await;
    link.send(ToContainer::Reset { slot: SLOT, epoch: Epoch(1) }).await;
    link.call(3, 0, 1, "touch later").await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(match link.next().await {
            FromContainer::Done { call, result } => {
                assert_eq!((result.ended, result.caused_by), (Ended::Cancelled, CausedBy::Client));
                call.0
            }
            FromContainer::Refused { call: CallId(3), problem } => {
                assert_eq!(problem.code, Code::StaleEpoch);
                3
            }
            FromContainer::Clean { slot: SLOT, epoch: Epoch(1) } => 100,
            other => panic!("{other:?}"),
        });
    }
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3, 100]);
    until_gone(&mark).await;
    link.open(0, 2).await;
    assert_eq!(link.run(0, 2, "ls -A").await.output, "");
}

/// A pool whose link broke repeats its reset. The slot may be the next holder's by then.
async fn a_reset_sent_twice_is_done_for_both_and_does_not_touch_the_next_lease(
    rung: &'static Rung,
) {
    let server = Server::start(rung);
    let mut link = Link::leased(&server, 1).await;
    for epoch in 1..6 {
        assert_eq!(link.run(0, epoch, "touch file").await.ended, Ended::Exited);
        for _ in 0..2 {
            link.send(ToContainer::Reset { slot: SLOT, epoch: Epoch(epoch) }).await;
        }
        let clean = FromContainer::Clean { slot: SLOT, epoch: Epoch(epoch) };
        assert_eq!(link.next().await, clean);
        link.send(ToContainer::Open { slot: SLOT, holder: holder(epoch + 1) }).await;
        link.call(1_000 + epoch, 0, epoch + 1, "touch mine; ls -A").await;
        let mut left = vec![clean, FromContainer::Opened { slot: SLOT, epoch: Epoch(epoch + 1) }];
        for _ in 0..3 {
            match link.next().await {
                FromContainer::Done { result, .. } => assert_eq!(result.output, "mine\n"),
                other => {
                    let known = left.iter().position(|it| *it == other);
                    left.remove(known.unwrap_or_else(|| panic!("{other:?}")));
                }
            }
        }
        assert_eq!(link.run(0, epoch + 1, "ls -A").await.output, "mine\n");
    }
}

#[tokio::test]
async fn calls_of_another_epoch_are_refused_whatever_the_slot_does() {
    let server = Server::start(&ANY);
    let mut link = Link::dial(&server).await;
    link.hello(1).await;
    // Nobody has opened it.
    link.refused(0, 5, Code::StaleEpoch).await;
    link.open(0, 5).await;
    link.refused(0, 4, Code::StaleEpoch).await;
    link.refused(0, 6, Code::StaleEpoch).await;
    link.refused(0, 0, Code::StaleEpoch).await;
    link.refused(0, u64::MAX, Code::StaleEpoch).await;
    link.refused(9, 5, Code::UnknownSlot).await;
    assert!(link.run(0, 5, "true").await.success);
    link.reset_to_clean(0, 5).await;
    // Also before the next one comes.
    link.refused(0, 5, Code::StaleEpoch).await;
    link.shut(0, 5).await;
    link.shut(0, 4).await;
    link.open(0, 6).await;
    link.refused(0, 5, Code::StaleEpoch).await;
    // Repeated, it is the same; another epoch has to wait for the reset.
    link.open(0, 6).await;
    link.shut(0, 5).await;
    link.shut(0, 7).await;
    link.shut(9, 7).await;
    assert!(link.run(0, 6, "true").await.success);
    // A late reset of an earlier lease does nothing to this one.
    link.send(ToContainer::Reset { slot: SLOT, epoch: Epoch(5) }).await;
    assert!(matches!(link.next().await, FromContainer::Dirty { epoch: Epoch(5), .. }));
    assert!(link.run(0, 6, "true").await.success);
    link.send(ToContainer::Reset { slot: SlotIndex(9), epoch: Epoch(5) }).await;
    assert!(matches!(link.next().await, FromContainer::Dirty { .. }));
    // A reset for an epoch that never came here fences all before it, too.
    link.reset_to_clean(0, 20).await;
    link.shut(0, 12).await;
    link.reset_to_clean(1, 30).await;
    link.shut(1, 30).await;
    link.open(1, 31).await;
}

#[tokio::test]
async fn a_report_says_who_holds_what() {
    let server = Server::with(&ANY, Setup { slots: 3, ..Setup::default() });
    let mut link = Link::dial(&server).await;
    link.hello(1).await;
    link.open(0, 5).await;
    link.open(1, 6).await;
    link.reset_to_clean(1, 6).await;
    drop(link);
    let mut link = Link::dial(&server).await;
    let FromContainer::Hello { slots, .. } = link.hello(2).await else { panic!("no hello") };
    let states: Vec<_> = slots.into_iter().map(|it| it.state).collect();
    let expected = [
        SlotState::Open { holder: holder(5) },
        SlotState::Clean { fence: Epoch(6) },
        SlotState::Clean { fence: Epoch(0) },
    ];
    assert_eq!(states, expected);
    assert!(link.run(0, 5, "true").await.success);
}

#[tokio::test]
async fn an_execution_runs_once_also_across_links() {
    let server = Server::start(&ANY);
    let mut link = Link::leased(&server, 1).await;
    let command = "echo ran >> count; while [ ! -e go ]; do sleep 0.01; done; cat count";
    link.call_as("e1", 1, 0, 1, command).await;
    link.call_as("e1", 2, 0, 1, command).await;
    until("it runs", || server.workspace(0).join("count").exists()).await;
    drop(link);
    let mut link = Link::dial(&server).await;
    link.hello(2).await;
    link.call_as("e1", 1, 0, 1, command).await;
    link.send(ToContainer::Ping { seq: 3 }).await;
    assert_eq!(link.next().await, FromContainer::Pong { seq: 3 });
    fs::write(server.workspace(0).join("go"), "").unwrap();
    assert_eq!(link.done().await.1.output, "ran\n");
    link.call_as("e1", 5, 0, 1, command).await;
    let (call, result) = link.done().await;
    assert_eq!((call, &*result.output), (CallId(5), "ran\n"));
    link.call_as("e1", 6, 0, 1, "echo other").await;
    let FromContainer::Refused { call: CallId(6), problem } = link.next().await else {
        panic!("not refused")
    };
    assert_eq!(problem.code, Code::ExecutionIdReused);
    // The same id in the next lease is another call.
    link.reset_to_clean(0, 1).await;
    link.open(0, 2).await;
    link.call_as("e1", 7, 0, 2, "echo fresh").await;
    assert_eq!(link.done().await.1.output, "fresh\n");
}

#[tokio::test]
async fn a_repeated_call_can_be_cancelled_on_the_new_link() {
    let server = Server::start(&ANY);
    let mut link = Link::leased(&server, 1).await;
    let mark = mark();
    let command = format!("sleep 3000.{mark}; :");
    link.call_as("e1", 1, 0, 1, &command).await;
    until("it runs", || !marked(&mark).is_empty()).await;
    drop(link);
    let mut link = Link::dial(&server).await;
    link.hello(2).await;
    assert!(!marked(&mark).is_empty(), "it ended with its link");
    link.call_as("e1", 4, 0, 1, &command).await;
    link.send(ToContainer::Cancel { call: CallId(4) }).await;
    let (call, result) = link.done().await;
    assert_eq!((call, result.ended), (CallId(4), Ended::Cancelled));
    assert_eq!(marked(&mark), [0; 0]);
}

#[tokio::test]
async fn a_leased_slot_is_closed_to_the_other_wire_and_what_that_wire_left_to_a_lease() {
    let server = Server::start(&ANY);
    let mut link = Link::dial(&server).await;
    assert!(server.write(1, "left", "x").await.success);
    link.hello(1).await;
    link.open(0, 1).await;
    for result in [
        server.bash(0, "touch ran").await,
        server.write(0, "ran", "").await,
        server.read(0, "ran").await,
        server.reset(0).await,
    ] {
        assert!(!result.success && result.error.contains("leased"), "{result:?}");
    }
    assert_eq!(link.run(0, 1, "ls -A").await.output, "");
    // The slot that was used without a lease has to be emptied before one begins.
    link.send(ToContainer::Open { slot: SlotIndex(1), holder: holder(2) }).await;
    if let FromContainer::Opened { .. } = link.next().await {
        assert_eq!(link.run(1, 2, "ls -A").await.output, "", "one client's files are another's");
    }
    link.reset_to_clean(1, 2).await;
    link.open(1, 3).await;
    assert_eq!(link.run(1, 3, "ls -A").await.output, "", "one client's files are another's");
}

#[tokio::test]
async fn a_lost_init_is_told_at_once_and_a_reset_mends_the_slot() {
    let server = Server::start(&ANY);
    let mut link = Link::leased(&server, 1).await;
    let mark = mark();
    assert!(link.run(0, 1, &format!("(setsid sleep 3000.{mark} &)")).await.success);
    let own = server.pid().as_raw_nonzero().get();
    let init = || marked(&mark).first().and_then(|it| crate::host::parent(*it));
    until("the orphan has come to the init", || {
        init().is_some_and(|it| crate::host::parent(it) == Some(own))
    })
    .await;
    let init = rustix::process::Pid::from_raw(init().unwrap()).unwrap();
    rustix::process::kill_process(init, rustix::process::Signal::KILL).unwrap();
    let FromContainer::Broken { slot: SLOT, epoch: Epoch(1), .. } = link.next().await else {
        panic!("not told")
    };
    link.refused(0, 1, Code::SlotBroken).await;
    if server.get("/health").await["isolation"] != Isolation::Landlock.as_str() {
        link.reset_to_clean(0, 1).await;
        assert_eq!(marked(&mark), [0; 0]);
        link.open(0, 2).await;
        assert!(link.run(0, 2, "true").await.success);
    }
}

#[tokio::test]
async fn a_call_over_the_limits_is_refused() {
    let server = Server::start(&ANY);
    let mut link = Link::leased(&server, 1).await;
    let limits = CallLimits { timeout_ms: 24 * 3_600_000 + 1, ..CallLimits::default() };
    link.send(ToContainer::Call(Box::new(call_of("e", 1, 0, 1, "true", limits)))).await;
    let FromContainer::Refused { problem, .. } = link.next().await else { panic!("not refused") };
    assert_eq!(problem.code, Code::Invalid);
    // What is kept of the output is bounded too.
    let limits =
        CallLimits { head_bytes_max: u32::MAX, tail_bytes_max: u32::MAX, ..CallLimits::default() };
    link.send(ToContainer::Call(Box::new(call_of("f", 2, 0, 1, "head -c 40M /dev/zero", limits))))
        .await;
    match link.next().await {
        FromContainer::Refused { problem, .. } => assert_eq!(problem.code, Code::Invalid),
        FromContainer::Done { result, .. } => {
            assert!(result.success, "{:?} {}", result.ended, result.error);
            assert!(result.output.len() < 17 << 20, "{}", result.output.len());
        }
        other => panic!("{other:?}"),
    }
    assert!(link.run(0, 1, "true").await.success);
}
